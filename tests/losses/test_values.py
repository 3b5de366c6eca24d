"""Values and derivatives of every loss against NumPy, finite differences and jax.grad; broken variants fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses
from tests.helpers import assert_close, float64, strict
from tests.losses.cases import CASES, IDS, Case, find, log_softmax, simplex

NAMES = sorted({c.name for c in CASES})


def check_value(case: Case, loss: Callable[..., Any], seed: int = 0) -> None:
    arguments = case.arguments(seed)
    with float64(), strict():
        got = loss(*map(jnp.asarray, arguments), **case.options)
    assert got.dtype == np.float64
    assert got.shape == (len(arguments[0]),)
    assert_close(got, case.expected(*arguments), rtol=1e-12, atol=1e-14)


def check_grad(case: Case, grad: Callable[..., Any], seed: int = 0) -> None:
    """Against jax.grad of our own value, and central differences of the NumPy equation, which share no code."""
    arguments = case.arguments(seed)
    with float64(), strict():
        outputs, *targets = map(jnp.asarray, arguments)
        got = grad(outputs, *targets, **case.options)
        auto = jax.grad(lambda o: jnp.sum(case.loss(o, *targets, **case.options)))(outputs)
    assert got.dtype == np.float64
    assert_close(got, auto, rtol=1e-12, atol=1e-14)
    numeric = np.zeros_like(arguments[0])
    h = 1e-6
    for index in np.ndindex(*arguments[0].shape):
        above, below = arguments[0].copy(), arguments[0].copy()
        above[index] += h
        below[index] -= h
        i, rest = index[0], [a[index[0]] for a in arguments[1:]]
        numeric[index] = (case.oracle(above[i], *rest) - case.oracle(below[i], *rest)) / (2 * h)
    assert_close(got, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_value_is_the_equation(case: Case) -> None:
    for seed in range(3):
        check_value(case, case.loss, seed)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_hand_written_derivative(case: Case) -> None:
    for seed in range(2):
        check_grad(case, case.grad, seed)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_under_jit_and_vmap(case: Case) -> None:
    arguments = case.arguments()
    with float64(), strict():
        arrays = list(map(jnp.asarray, arguments))
        plain = case.loss(*arrays, **case.options)
        assert_close(jax.jit(lambda *a: case.loss(*a, **case.options))(*arrays), plain, rtol=1e-13, atol=1e-14)
        alone = jax.vmap(lambda *a: case.loss(*(x[None] for x in a), **case.options)[0])(*arrays)
        assert_close(alone, plain, rtol=1e-13, atol=1e-14)
        grads = jax.jit(lambda *a: case.grad(*a, **case.options))(*arrays)
        assert_close(grads, case.grad(*arrays, **case.options), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_low_precision_is_the_float32_arithmetic_of_the_rounded_outputs(case: Case, dtype: str) -> None:
    arguments = case.arguments()
    outputs = jnp.asarray(arguments[0], dtype)
    if case.name in ("cross_entropy", "binary_cross_entropy", "entropy"):
        outputs = jnp.clip(outputs, 0.01, 0.99)
    with strict():
        targets = [jnp.asarray(t, np.float32 if t.dtype.kind == "f" else np.int32) for t in arguments[1:]]
        value = case.loss(outputs, *targets, **case.options)
        grad = case.grad(outputs, *targets, **case.options)
        auto = jax.grad(lambda o: jnp.sum(case.loss(o, *targets, **case.options)))(outputs)
    assert value.dtype == jnp.float32
    assert grad.dtype == auto.dtype == jnp.dtype(dtype)
    assert grad.shape == outputs.shape
    rounded = np.asarray(outputs, np.float64)
    assert_close(value, case.expected(rounded, *arguments[1:]), rtol=2e-5, atol=2e-6)
    # In half precision jax.grad may round a sum of two cotangents, and so differ by a few units in the last place.
    eps = float(jnp.finfo(dtype).eps)
    assert_close(grad, auto, rtol=8 * eps, atol=8 * eps)


def test_sums_do_not_stall_in_half_precision() -> None:
    outputs = jnp.ones((1, 10_000), jnp.bfloat16) * 0.5
    assert float(losses.half_squared_error(outputs, jnp.zeros((1, 10_000)))[0]) == 1250.0
    assert float(losses.mse(outputs, jnp.zeros((1, 10_000)))[0]) == 0.25


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_an_empty_batch_gives_no_losses(case: Case) -> None:
    arguments = [jnp.asarray(a[:0], jnp.float32 if a.dtype.kind == "f" else jnp.int32) for a in case.arguments()]
    assert case.loss(*arguments, **case.options).shape == (0,)
    assert case.grad(*arguments, **case.options).shape == arguments[0].shape


@hypothesis.given(
    name=st.sampled_from(["half_squared_error", "mse", "absolute_error", "sigmoid_binary_cross_entropy", "logistic"]),
    shape=st.sampled_from([(1,), (3,), (2, 1), (3, 4), (2, 3, 1, 2)]),
    seed=st.integers(0, 99),
)
def test_elementwise_losses_of_any_shape(name: str, shape: tuple[int, ...], seed: int) -> None:
    case = next(c for c in CASES if c.name == name)
    rng = np.random.default_rng(seed)
    o, t = rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape)
    if name == "sigmoid_binary_cross_entropy":
        t = (t + 1) / 2
    with float64(), strict():
        got = case.loss(jnp.asarray(o), jnp.asarray(t))
        assert_close(got, case.expected(o, t), rtol=1e-12, atol=1e-14)
        assert_close(
            case.grad(jnp.asarray(o), jnp.asarray(t)),
            jax.grad(lambda y: jnp.sum(case.loss(y, jnp.asarray(t))))(jnp.asarray(o)),
            rtol=1e-12,
            atol=1e-14,
        )


@hypothesis.given(
    shape=st.sampled_from([(1, 2), (3, 4), (2, 3, 2), (2, 2, 3, 2)]), a=st.floats(0, 0.99), seed=st.integers(0, 99)
)
def test_softmax_of_any_shape_and_smoothing(shape: tuple[int, ...], a: float, seed: int) -> None:
    case = find("softmax_cross_entropy")
    rng = np.random.default_rng(seed)
    z, labels = 5 * rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])
    k = shape[-1]
    with float64(), strict():
        zs, ls = jnp.asarray(z), jnp.asarray(labels)
        got = losses.softmax_cross_entropy(zs, ls, label_smoothing=a)
        distribution = jnp.asarray((1 - a) * np.eye(k)[labels] + a / k)
        assert_close(got, losses.softmax_cross_entropy(zs, distribution), rtol=1e-12)
        plain = losses.softmax_cross_entropy(zs, ls)
        assert_close(plain, case.expected(z, labels), rtol=1e-12, atol=1e-14)
        grad = losses.softmax_cross_entropy_grad(zs, ls, label_smoothing=a)
        auto = jax.grad(lambda x: jnp.sum(losses.softmax_cross_entropy(x, ls, label_smoothing=a)))(zs)
        assert_close(grad, auto, rtol=1e-11, atol=1e-13)


def test_cross_entropy_is_kl_divergence_plus_entropy() -> None:
    rng = np.random.default_rng(0)
    z, d = rng.standard_normal((4, 2, 3)), simplex(rng, 4, 2, 3)
    with float64():
        z, d = jnp.asarray(z), jnp.asarray(d)
        log_y = jax.nn.log_softmax(z)
        ours = losses.kl_divergence(log_y, d) + losses.entropy(d)
        assert_close(losses.cross_entropy(jnp.exp(log_y), d), ours, rtol=1e-12)
        assert_close(losses.softmax_cross_entropy(z, d), ours, rtol=1e-12)
        one_hot = jax.nn.one_hot(jnp.array([[0, 2], [1, 1], [2, 0], [0, 0]]), 3, dtype=jnp.float64)
        log_likelihood = -jnp.mean(jnp.sum(one_hot * log_y, axis=-1), axis=-1)
        assert_close(losses.kl_divergence(log_y, one_hot), log_likelihood, rtol=1e-12)
        assert_close(losses.kl_divergence(jnp.log(d), d), jnp.zeros(4), rtol=0, atol=1e-15)


def test_forms_of_one_loss_agree() -> None:
    rng = np.random.default_rng(0)
    with float64():
        f, d = jnp.asarray(rng.standard_normal((4, 3))), jnp.asarray(rng.choice([-1.0, 1.0], (4, 3)))
        bce = losses.sigmoid_binary_cross_entropy(f, (d + 1) / 2)
        assert_close(losses.logistic(f, d), bce, rtol=1e-12)
        assert_close(losses.binary_cross_entropy(jax.nn.sigmoid(f), (d + 1) / 2), bce, rtol=1e-12)
        assert_close(losses.square_loss(f, d), 2 * losses.half_squared_error(f, d), rtol=1e-12)
        two = jnp.stack([jnp.zeros(4), f[:, 0]], axis=-1)
        labels = (d[:, 0] > 0).astype(jnp.int32)
        assert_close(losses.softmax_cross_entropy(two, labels), losses.logistic(f[:, 0], d[:, 0]), rtol=1e-12)
        assert_close(losses.multiclass_hinge(two, labels), losses.hinge(f[:, 0], d[:, 0]), rtol=1e-12)
        # One component of a mixture is a Gaussian with the variance e^(2t).
        m, t, x = f[:, :2], f[:, 2:], d[:, :2]
        mixture = losses.mixture_density_nll(jnp.concatenate([jnp.ones((4, 1)), m, t], axis=-1), x, components=1)
        gaussian = losses.gaussian_nll(jnp.concatenate([m, 2 * t, 2 * t], axis=-1), x)
        assert_close(mixture, gaussian, rtol=1e-12)


def test_each_derivative_takes_the_arguments_of_its_loss() -> None:
    for name in NAMES:
        loss, grad = (inspect.signature(getattr(losses, n)).parameters for n in (name, f"{name}_grad"))
        assert list(loss) == list(grad)
        assert [p.default for p in loss.values()] == [p.default for p in grad.values()]
        assert list(loss)[:2] == (["probabilities"] if name == "entropy" else ["outputs", "targets"])


def test_every_loss_has_a_case_and_a_row_in_the_table() -> None:
    public = {n for n in losses.__all__ if f"{n}_grad" in losses.__all__} - {"l1", "l2", "elastic"}
    assert public == set(NAMES)
    for name in NAMES:
        assert f"\n| `{name}`" in losses.__doc__


def test_traced_delta_and_smoothing() -> None:
    y, d = jnp.array([0.5, 3.0]), jnp.zeros(2)
    swept = jax.vmap(lambda delta: losses.huber(y, d, delta=delta))(jnp.array([0.1, 1.0]))
    assert_close(swept[1], losses.huber(y, d, delta=1.0), rtol=1e-6)
    assert_close(swept[0], losses.huber(y, d, delta=0.1), rtol=1e-6)
    z, labels = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([1])
    swept = jax.vmap(lambda a: losses.softmax_cross_entropy_grad(z, labels, label_smoothing=a))(jnp.array([0.0, 0.3]))
    assert_close(swept[1], losses.softmax_cross_entropy_grad(z, labels, label_smoothing=0.3), rtol=1e-6)


def test_numpy_and_python_arguments_are_taken() -> None:
    assert float(losses.mse([1.0, 3.0], [1, 1])[1]) == 4.0
    assert float(losses.hinge(np.array([0.5], np.float32), np.array([-1], np.int8))[0]) == 1.5
    assert losses.softmax_cross_entropy(np.zeros((2, 300), np.float32), np.array([0, 255], np.uint8)).shape == (2,)


SMOOTH = {"label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("name", "options", "broken"),
    [
        ("half_squared_error", {}, lambda y, d: 2 * losses.half_squared_error(y, d)),
        ("half_squared_error", {}, lambda y, d: losses.half_squared_error(y, d) / y[0].size),
        ("mse", {}, lambda y, d: 2 * losses.half_squared_error(y, d)),
        ("mse", {}, lambda y, d: jnp.mean(jnp.square(y - d), axis=-1).sum(axis=-1)),
        ("absolute_error", {}, lambda y, d: -losses.absolute_error(y, d)),
        ("huber", {"delta": 2.5}, lambda y, d, delta: losses.huber(y, d)),
        ("log_cosh", {}, lambda y, d: losses.log_cosh(y, d) + np.log(2)),
        ("cosine_distance", {}, lambda y, d: 1 - losses.cosine_distance(y, d)),
        ("cosine_distance", {}, lambda y, d: losses.cosine_distance(y.reshape(4, 6), d.reshape(4, 6))),
        ("sigmoid_binary_cross_entropy", {}, lambda z, d: losses.sigmoid_binary_cross_entropy(-z, d)),
        ("binary_cross_entropy", {}, lambda y, d: losses.binary_cross_entropy(y, 1 - d)),
        ("softmax_cross_entropy", {}, lambda z, t: losses.softmax_cross_entropy(z, t[::-1])),
        ("softmax_cross_entropy", {}, lambda z, t: losses.softmax_cross_entropy(-z, t)),
        ("softmax_cross_entropy", {}, lambda z, t: losses.softmax_cross_entropy(z - z.mean(axis=0), t)),
        (
            "softmax_cross_entropy",
            SMOOTH,
            lambda z, t, label_smoothing: losses.softmax_cross_entropy(
                z, t, label_smoothing=label_smoothing * z.shape[-1] / (z.shape[-1] - 1)
            ),
        ),
        (
            "softmax_cross_entropy",
            SMOOTH,
            lambda z, t, label_smoothing: 2 * losses.softmax_cross_entropy(z, t, label_smoothing=label_smoothing),
        ),
        (
            "softmax_cross_entropy",
            SMOOTH | {"ignore_index": -1},
            lambda z, t, label_smoothing, ignore_index: losses.softmax_cross_entropy(
                z, jnp.where(t == -1, 2, t), label_smoothing=label_smoothing
            ),
        ),
        ("cross_entropy", {}, lambda y, d: -losses.cross_entropy(y, d)),
        ("kl_divergence", {}, lambda log_y, d: losses.kl_divergence(jnp.log(d), jnp.exp(log_y))),
        ("entropy", {}, lambda d: losses.entropy(d) / np.log(2)),
        ("hinge", {}, lambda f, d: losses.hinge(f, -d)),
        ("hinge", {}, lambda f, d: losses.hinge(f, d) / 3),
        ("square_loss", {}, lambda f, d: losses.square_loss(f, d) / 2),
        ("logistic", {}, lambda f, d: losses.logistic(f, -d)),
        ("perceptron_loss", {}, lambda f, d: losses.hinge(f, d)),
        ("multiclass_hinge", {}, lambda z, t: losses.multiclass_hinge(z, (t + 1) % 3)),
        ("gaussian_nll", {}, lambda o, d: losses.gaussian_nll(jnp.roll(o, 3, axis=-1), d)),
        ("gaussian_nll", {}, lambda o, d: losses.gaussian_nll(o, d) - 3 * np.log(2 * np.pi)),
        (
            "mixture_density_nll",
            {"components": 3},
            lambda o, d, components: losses.mixture_density_nll(o[..., ::-1], d, components=components),
        ),
    ],
)
def test_a_broken_value_fails(name: str, options: dict[str, Any], broken: Callable[..., Any]) -> None:
    case = find(name, **options)
    check_value(case, case.loss)
    with pytest.raises(AssertionError):
        check_value(case, broken)


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize(
    "mutant",
    [lambda g: -g, lambda g: 2 * g, lambda g: g / 4, lambda g: g[::-1], lambda g: np.flip(g, axis=-1)],
    ids=["sign", "factor 2", "dropped 1/N", "wrong example", "transposed"],
)
def test_a_broken_derivative_fails(case: Case, mutant: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError):
        check_grad(case, lambda *arguments, **options: mutant(case.grad(*arguments, **options)))


def test_log_softmax_of_the_oracles_is_normalised() -> None:
    np.testing.assert_allclose(np.exp(log_softmax(np.array([[1.0, 2.0]]))).sum(), 1, rtol=1e-15)

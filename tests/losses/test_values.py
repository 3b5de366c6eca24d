"""Values and derivatives of every loss against NumPy, finite differences and jax.grad; broken variants fail."""

from __future__ import annotations

import functools
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
from tests.helpers import assert_close, float64, slow, strict
from tests.losses.cases import CASES, IDS, Case, find, log_softmax, simplex, softmax_oracle

NAMES = sorted({c.name for c in CASES})

QUICK: list[tuple[str, dict[str, Any]]] = [
    ("mse", {}), ("huber", {"delta": 2.5}), ("cosine_distance", {}), ("binary_cross_entropy", {}),
    ("softmax_cross_entropy", {"label_smoothing": 0.1, "ignore_index": -1}), ("kl_divergence", {}), ("entropy", {}),
    ("hinge", {}), ("multiclass_hinge", {}), ("mixture_density_nll", {"components": 3}),
]  # fmt: skip
"""One loss of each kind of equation."""

SHORT = sorted(CASES.index(find(name, **options)) for name, options in QUICK)
LONG = [index for index in range(len(CASES)) if index not in SHORT]
each_case = pytest.mark.parametrize(
    "index",
    [pytest.param(i, id=IDS[i], marks=() if i in SHORT else pytest.mark.slow) for i in range(len(CASES))],
)
Arguments = tuple[Any, ...]


def value_and_derivatives(case: Case, outputs: Any, *targets: Any) -> tuple[Any, Any, Any]:
    """Value, hand-written derivative and jax.grad."""
    auto = jax.grad(lambda o: jnp.sum(case.loss(o, *targets, **case.options)))
    arguments = (outputs, *targets)
    return case.loss(*arguments, **case.options), case.grad(*arguments, **case.options), auto(outputs)


@jax.jit
def compiled(given: dict[int, Arguments]) -> dict[int, tuple[Any, Any, Any]]:
    """These of several cases by index: one program for all of a run."""
    return {index: value_and_derivatives(CASES[index], *arguments) for index, arguments in given.items()}


@jax.jit
def one_at_a_time(given: dict[int, Arguments]) -> dict[int, tuple[Any, Any]]:
    """Value and hand-written derivative of batches of one, under vmap."""

    def alone(case: Case, *one: Any) -> tuple[Any, Any]:
        batch = [x[None] for x in one]
        return case.loss(*batch, **case.options)[0], case.grad(*batch, **case.options)[0]

    return {i: jax.vmap(functools.partial(alone, CASES[i]))(*arguments) for i, arguments in given.items()}


@functools.cache
def of_run(short: bool, seed: int, function: Callable[..., Any]) -> Any:
    with float64(), strict():
        return function({i: CASES[i].arguments(seed) for i in (SHORT if short else LONG)})


def results(index: int, seed: int, function: Callable[..., Any] = compiled) -> tuple[Any, ...]:
    return of_run(index in SHORT, seed, function)[index]


def rounded(index: int) -> Arguments:
    """The arguments of a case with outputs in float32, bfloat16 or float16: the conversion is one function, so each
    case takes one dtype."""
    outputs, *targets = CASES[index].arguments()
    dtype = jnp.dtype(("float32", "bfloat16", "float16")[index % 3])
    return outputs.astype(dtype), *(t.astype(np.float32 if t.dtype.kind == "f" else np.int32) for t in targets)


@functools.cache
def finite_differences(index: int, seed: int) -> np.ndarray:
    """Central differences of the NumPy equation: no code in common with the derivative."""
    case, h = CASES[index], 1e-6
    outputs, *targets = case.arguments(seed)
    numeric = np.zeros_like(outputs)
    for where in np.ndindex(*outputs.shape):
        above, below = outputs.copy(), outputs.copy()
        above[where] += h
        below[where] -= h
        i, rest = where[0], [t[where[0]] for t in targets]
        numeric[where] = (case.oracle(above[i], *rest) - case.oracle(below[i], *rest)) / (2 * h)
    return numeric


def check_value(index: int, value: Any, seed: int = 0) -> None:
    arguments = CASES[index].arguments(seed)
    assert value.dtype == np.float64
    assert value.shape == (len(arguments[0]),)
    assert_close(value, CASES[index].expected(*arguments), rtol=1e-12, atol=1e-14)


def check_grad(index: int, grad: Any, seed: int = 0) -> None:
    assert grad.dtype == np.float64
    assert_close(grad, results(index, seed)[2], rtol=1e-12, atol=1e-14)
    assert_close(grad, finite_differences(index, seed), rtol=1e-6, atol=1e-7)


@each_case
def test_value_is_the_equation(index: int) -> None:
    for seed in range(3):
        check_value(index, results(index, seed)[0], seed)


@each_case
def test_hand_written_derivative(index: int) -> None:
    for seed in range(2):
        check_grad(index, results(index, seed)[1], seed)


@each_case
def test_under_vmap_one_example_at_a_time(index: int) -> None:
    assert_close(results(index, 0, one_at_a_time), results(index, 0)[:2], rtol=1e-13, atol=1e-14)


@functools.cache
def low_precision(short: bool) -> Any:
    with strict():
        return compiled({i: rounded(i) for i in (SHORT if short else LONG)})


@each_case
def test_low_precision_is_the_float32_arithmetic_of_the_rounded_outputs(index: int) -> None:
    low, targets = rounded(index)[0], CASES[index].arguments()[1:]
    value, grad, auto = low_precision(index in SHORT)[index]
    assert value.dtype == jnp.float32
    assert grad.dtype == auto.dtype == low.dtype
    assert grad.shape == low.shape
    assert_close(value, CASES[index].expected(np.asarray(low, np.float64), *targets), rtol=2e-5, atol=2e-6)
    # In half precision jax.grad may round a sum of two cotangents, and so differ by a few units in the last place.
    eps = float(jnp.finfo(low.dtype).eps)
    assert_close(grad, auto, rtol=8 * eps, atol=8 * eps)


def test_sums_do_not_stall_in_half_precision() -> None:
    outputs, targets = np.full((1, 10_000), 0.5, jnp.bfloat16), np.zeros((1, 10_000), np.float32)
    half, mean = jax.jit(lambda o, t: (losses.half_squared_error(o, t), losses.mse(o, t)))(outputs, targets)
    assert (float(half[0]), float(mean[0])) == (1250.0, 0.25)


@pytest.mark.parametrize("indices", [SHORT, *slow((LONG,))], ids=["short", "long"])
def test_an_empty_batch_gives_no_losses(indices: list[int]) -> None:
    given = {i: tuple(a[:0] for a in rounded(i)) for i in indices}
    for i, (value, grad, auto) in jax.eval_shape(compiled, given).items():
        assert value.shape == (0,), IDS[i]
        assert grad.shape == auto.shape == given[i][0].shape, IDS[i]


@hypothesis.given(shape=st.sampled_from([(1,), (2, 1), (2, 3, 1, 2)]), seed=st.integers(0, 99))
def test_elementwise_losses_of_any_shape(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    o, t = rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape)
    indices = [CASES.index(find(name)) for name in ("half_squared_error", "mse", "logistic")]
    with float64(), strict():
        found = compiled(dict.fromkeys(indices, (o, t)))
    for index, (value, grad, auto) in found.items():
        assert_close(value, CASES[index].expected(o, t), rtol=1e-12, atol=1e-14)
        assert_close(grad, auto, rtol=1e-12, atol=1e-14)


@jax.jit
def smoothed(z: Any, labels: Any, a: Any) -> tuple[Any, Any, Any]:
    def loss(z: Any) -> Any:
        return losses.softmax_cross_entropy(z, labels, label_smoothing=a)

    hand = losses.softmax_cross_entropy_grad(z, labels, label_smoothing=a)
    return loss(z), hand, jax.grad(lambda z: loss(z).sum())(z)


@hypothesis.given(shape=st.sampled_from([(1, 2), (3, 4), (2, 2, 3, 2)]), a=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_softmax_of_any_shape_and_smoothing(shape: tuple[int, ...], a: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, labels = 5 * rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])
    with float64(), strict():
        value, grad, auto = smoothed(z, labels, np.float64(a))
    expected = [softmax_oracle(*one, a) for one in zip(z, labels, strict=True)]
    assert_close(value, np.array(expected), rtol=1e-12, atol=1e-14)
    assert_close(grad, auto, rtol=1e-11, atol=1e-13)


def test_certainty_has_entropy_zero_not_minus_zero() -> None:
    certain = np.eye(3, dtype=np.float32)
    for zeros in (losses.entropy(certain), losses.cross_entropy(certain, certain)):
        assert str(zeros.tolist()) == "[0.0, 0.0, 0.0]"


def test_cross_entropy_is_kl_divergence_plus_entropy() -> None:
    rng = np.random.default_rng(0)
    z, d = rng.standard_normal((4, 2, 3)), simplex(rng, 4, 2, 3)

    @jax.jit
    def pairs(z: Any, d: Any) -> Any:
        log_y = jax.nn.log_softmax(z)
        parts = losses.kl_divergence(log_y, d) + losses.entropy(d)
        one_hot = jax.nn.one_hot(jnp.array([[0, 2], [1, 1], [2, 0], [0, 0]]), 3, dtype=z.dtype)
        log_likelihood = -jnp.mean(jnp.sum(one_hot * log_y, axis=-1), axis=-1)
        return [
            (losses.cross_entropy(jnp.exp(log_y), d), parts),
            (losses.softmax_cross_entropy(z, d), parts),
            (losses.kl_divergence(log_y, one_hot), log_likelihood),
            (losses.kl_divergence(jnp.log(d), d), jnp.zeros(4)),
        ]

    with float64():
        for got, expected in pairs(z, d):
            assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_forms_of_one_loss_agree() -> None:
    rng = np.random.default_rng(0)

    @jax.jit
    def pairs(f: Any, d: Any) -> Any:
        bce = losses.sigmoid_binary_cross_entropy(f, (d + 1) / 2)
        two = jnp.stack([jnp.zeros_like(f[:, 0]), f[:, 0]], axis=-1)
        labels = (d[:, 0] > 0).astype(jnp.int32)
        # One component of a mixture is a Gaussian with the variance e^(2t).
        m, t, x = f[:, :2], f[:, 2:], d[:, :2]
        mixture = losses.mixture_density_nll(jnp.concatenate([jnp.ones_like(t), m, t], axis=-1), x, components=1)
        return [
            (losses.logistic(f, d), bce),
            (losses.binary_cross_entropy(jax.nn.sigmoid(f), (d + 1) / 2), bce),
            (losses.square_loss(f, d), 2 * losses.half_squared_error(f, d)),
            (losses.softmax_cross_entropy(two, labels), losses.logistic(f[:, 0], d[:, 0])),
            (losses.multiclass_hinge(two, labels), losses.hinge(f[:, 0], d[:, 0])),
            (mixture, losses.gaussian_nll(jnp.concatenate([m, 2 * t, 2 * t], axis=-1), x)),
        ]

    with float64():
        for got, expected in pairs(rng.standard_normal((4, 3)), rng.choice([-1.0, 1.0], (4, 3))):
            assert_close(got, expected, rtol=1e-12)


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


def test_traced_delta() -> None:
    y, d = np.array([0.5, 3.0], np.float32), np.zeros(2, np.float32)
    swept = jax.jit(jax.vmap(lambda delta: losses.huber(y, d, delta=delta)))(np.array([0.1, 1.0], np.float32))
    assert_close(swept, np.array([[0.045, 0.295], [0.125, 2.5]]), rtol=1e-6)


@pytest.mark.slow
def test_numpy_and_python_arguments_are_taken() -> None:
    assert float(losses.mse([1.0, 3.0], [1, 1])[1]) == 4.0
    assert float(losses.hinge(np.array([0.5], np.float32), np.array([-1], np.int8))[0]) == 1.5
    assert losses.softmax_cross_entropy(np.zeros((2, 300), np.float32), np.array([0, 255], np.uint8)).shape == (2,)


SMOOTH = {"label_smoothing": 0.1}


BROKEN: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("half_squared_error", {}, lambda y, d: 2 * losses.half_squared_error(y, d)),
    ("half_squared_error", {}, lambda y, d: losses.half_squared_error(y, d) / y[0].size),
    ("mse", {}, lambda y, d: 2 * losses.half_squared_error(y, d)),
    ("mse", {}, lambda y, d: jnp.mean(jnp.square(y - d), axis=-1).sum(axis=-1)),
    ("sum_squared_error", {}, losses.half_squared_error),
    ("sum_squared_error", {}, losses.mse),
    ("euclidean_error", {}, losses.sum_squared_error),
    ("euclidean_error", {}, losses.absolute_error),
    ("euclidean_error", {}, lambda y, d: jnp.linalg.norm(y - d, axis=-1).sum(axis=-1)),
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
]


@functools.cache
def broken_values() -> list[Any]:
    given = [CASES[CASES.index(find(name, **options))].arguments() for name, options, _ in BROKEN]

    @jax.jit
    def every(given: Any) -> list[Any]:
        return [broken(*arguments, **options) for (_, options, broken), arguments in zip(BROKEN, given, strict=True)]

    with float64():
        return every(given)


@pytest.mark.parametrize("mutant", range(len(BROKEN)), ids=[f"{name}-{i}" for i, (name, *_) in enumerate(BROKEN)])
def test_a_broken_value_fails(mutant: int) -> None:
    name, options, _ = BROKEN[mutant]
    index = CASES.index(find(name, **options))
    with pytest.raises(AssertionError):
        check_value(index, broken_values()[mutant])


@each_case
@pytest.mark.parametrize(
    "mutant",
    [lambda g: -g, lambda g: 2 * g, lambda g: g / 4, lambda g: g[::-1], lambda g: np.flip(g, axis=-1)],
    ids=["sign", "factor 2", "dropped 1/N", "wrong example", "transposed"],
)
def test_a_broken_derivative_fails(index: int, mutant: Callable[[Any], Any]) -> None:
    right = np.asarray(results(index, 0)[1])
    check_grad(index, right)
    with pytest.raises(AssertionError):
        check_grad(index, mutant(right))


def test_log_softmax_of_the_oracles_is_normalised() -> None:
    np.testing.assert_allclose(np.exp(log_softmax(np.array([[1.0, 2.0]]))).sum(), 1, rtol=1e-15)


def test_nested_lists_are_taken_as_arrays() -> None:
    """Lists as constants of one program: what they become stands in it."""
    arguments = [case.arguments() for case in CASES]

    @jax.jit
    def of_lists() -> Any:
        return [
            case.loss(*(a.tolist() for a in given), **case.options)
            for case, given in zip(CASES, arguments, strict=True)
        ]

    @jax.jit
    def of_arrays() -> Any:
        return [case.loss(*given, **case.options) for case, given in zip(CASES, arguments, strict=True)]

    for case, a, b in zip(CASES, of_lists(), of_arrays(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(case))


def test_nested_lists_are_taken_as_arrays_where_shapes_are_compared_first() -> None:
    p, d, logits, none = [[0.5, 0.2]], [[1, 0]], [[[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]], [[0.0, 0.0]]

    @jax.jit
    def both() -> Any:
        arrays = jnp.array(p), jnp.array(d), jnp.array(logits), jnp.array(none), jnp.array([[1]]), jnp.zeros((1, 1))
        lists = p, d, logits, none, [[1]], [[0.0]]
        return [(losses.binary_dice_loss(*x[:2]), losses.ctc_loss(*x[2:])) for x in (arrays, lists)]

    expected, found = both()
    np.testing.assert_array_equal(found, expected)

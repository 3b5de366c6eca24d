"""Values and derivatives stay finite and right at the ends of the range, at kinks, and where optax is not."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import losses
from tests.helpers import assert_close, float64

pytestmark = pytest.mark.sampled

DTYPES = ["float64", "float32", "bfloat16", "float16"]


@functools.cache
def compiled(name: str, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    loss, hand = (functools.partial(getattr(losses, n), **dict(options)) for n in (name, f"{name}_grad"))
    return jax.jit(lambda o, t: (loss(o, t), hand(o, t), jax.grad(lambda o: loss(o, t).sum())(o)))


def run(name: str, outputs: Any, targets: Any, dtype: str = "float32", **options: Any) -> Any:
    """Value, hand-written derivative, jax.grad; the two derivatives must agree."""
    with float64():
        targets = np.asarray(targets)
        targets = jnp.asarray(targets, dtype if targets.dtype.kind == "f" else jnp.int32)
        value, hand, auto = compiled(name, tuple(options.items()))(jnp.asarray(outputs, dtype), targets)
        eps = 4 * float(jnp.finfo(dtype).eps)
        assert hand.dtype == jnp.dtype(dtype)
        assert_close(hand, auto, rtol=eps, atol=eps)
    return np.asarray(value, np.float64), np.asarray(hand, np.float64)


BIG = [1e4, -1e4, 0.0, 1e4]
HUGE = {
    "half_squared_error": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "mse": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "absolute_error": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "huber": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "log_cosh": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "sigmoid_binary_cross_entropy": ([1e4, -1e4, 1e4, -1e4, 0.0], [1.0, 1.0, 0.0, 0.0, 0.5]),
    "binary_cross_entropy": ([0.0, 1.0, 0.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.0, 0.5]),
    "hinge": ([1e4, -1e4, 1e4, -1e4, 0.0], [1, 1, -1, -1, 1]),
    "square_loss": ([1e4, -1e4, 1e4, -1e4, 0.0], [1, 1, -1, -1, 1]),
    "logistic": ([1e4, -1e4, 1e4, -1e4, 0.0], [1, 1, -1, -1, 1]),
    "perceptron_loss": ([1e4, -1e4, 1e4, -1e4, 0.0], [1, 1, -1, -1, 1]),
    "softmax_cross_entropy": ([[1e4, -1e4, 0.0]] * 3, [0, 1, 2]),
    "multiclass_hinge": ([[1e4, -1e4, 0.0]] * 3, [0, 1, 2]),
    "cross_entropy": ([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]),
    "kl_divergence": ([[0.0, -1e4], [0.0, -1e4]], [[1.0, 0.0], [0.0, 1.0]]),
    "cosine_distance": ([[1e4, 1e4], [0.0, 0.0], [1.0, 0.0]], [[-1e4, 1e4], [1.0, 0.0], [0.0, 0.0]]),
    "gaussian_nll": ([[1e4, 10.0], [1e4, -5.0]], [[-1e4], [1e4]]),
    "mixture_density_nll": ([[1e4, -1e4, 1.0, -1.0, 0.0, 0.0]] * 2, [[1.0], [-1.0]]),
}


@pytest.mark.parametrize("name", HUGE)
def test_finite_at_extremes(name: str) -> None:
    outputs, targets = map(np.asarray, HUGE[name])
    options = (("components", 2),) if name == "mixture_density_nll" else ()
    function = compiled.__wrapped__(name, options)
    with float64():
        # All dtypes in one compilation.
        kinds = [d if targets.dtype.kind == "f" else "int32" for d in DTYPES]
        several = jax.jit(lambda os, ts: [function(o, t) for o, t in zip(os, ts, strict=True)])
        results = several([jnp.asarray(outputs, d) for d in DTYPES], [jnp.asarray(targets, k) for k in kinds])
    for dtype, (value, hand, auto) in zip(DTYPES, results, strict=True):
        assert value.dtype == np.dtype("float64" if dtype == "float64" else "float32")
        assert hand.dtype == auto.dtype == jnp.dtype(dtype)
        for array in (value, hand, auto):
            assert np.all(np.isfinite(np.asarray(array, np.float64))), (dtype, array)
        eps = 4 * float(jnp.finfo(dtype).eps)
        assert_close(hand, auto, rtol=eps, atol=eps)
        assert np.all(np.asarray(value) >= 0) or name in ("gaussian_nll", "mixture_density_nll")


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "value", "grad"),
    [
        ("sigmoid_binary_cross_entropy", *HUGE["sigmoid_binary_cross_entropy"], [0, 1e4, 1e4, 0, np.log(2)],
         [0, -1, 1, 0, 0]),
        ("logistic", *HUGE["logistic"], [0, 1e4, 1e4, 0, np.log(2)], [0, -1, 1, 0, -0.5]),
        ("log_cosh", BIG, [-1e4, 1e4, 0.0, 1e4], [2e4 - np.log(2), 2e4 - np.log(2), 0, 0], [1, -1, 0, 0]),
        ("huber", [np.inf, -np.inf, 0.5], [0.0, 0.0, 0.0], [np.inf, np.inf, 0.125], [1, -1, 0.5]),
        ("softmax_cross_entropy", *HUGE["softmax_cross_entropy"], [0, 2e4, 1e4], [[0, 0, 0], [1, -1, 0], [1, 0, -1]]),
        ("multiclass_hinge", *HUGE["multiclass_hinge"], [0, 20001, 10001], [[0, 0, 0], [1, -1, 0], [1, 0, -1]]),
        ("mixture_density_nll", *HUGE["mixture_density_nll"], [0.918938533, 2.918938533],
         [[0, 0, 0, 0, 1, 0], [0, 0, 2, 0, -3, 0]]),
    ],
)  # fmt: skip
def test_right_at_extremes(name: str, outputs: Any, targets: Any, value: Any, grad: Any) -> None:
    options = {"components": 2} if name == "mixture_density_nll" else {}
    got = run(name, outputs, targets, "float32", **options)
    assert_close(got, (np.array(value), np.array(grad)), rtol=1e-6, atol=1e-7)


def test_small_errors_and_confident_logits_keep_their_digits() -> None:
    r = np.array([1e-4, -1e-3, 0.5, 0.999, 1.001, 5.0])
    value, _ = run("log_cosh", r, np.zeros(6))
    assert_close(value, np.log(np.cosh(r)), rtol=1e-5)
    value, grad = run("sigmoid_binary_cross_entropy", [20.0, 40.0], [1.0, 1.0])
    assert_close((value, -grad), (np.exp([-20.0, -40.0]),) * 2, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_0_and_1_follow_the_rule(dtype: str) -> None:
    tiny = float(jnp.finfo(dtype).tiny)
    value, grad = run("binary_cross_entropy", [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], dtype)
    assert_close(value, np.array([-np.log(tiny), 0, 0, -np.log(tiny)]), rtol=1e-6)
    assert_close(grad, np.array([-1 / tiny, -1, 1, 1 / tiny]), rtol=1e-6)
    value, grad = run("cross_entropy", [[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]], dtype)
    assert_close(value, np.array([0, -np.log(tiny)]), rtol=1e-6)
    assert_close(grad, np.array([[-1, 0], [0, -1 / tiny]]), rtol=1e-6)


def test_probabilities_above_the_rule_are_exact() -> None:
    value, grad = run("binary_cross_entropy", [1e-30, 1e-37], [1.0, 1.0])
    assert_close((value, grad), (-np.log([1e-30, 1e-37]), -np.array([1e30, 1e37])), rtol=1e-6)


class TestKinks:
    def test_absolute_error_has_derivative_0_at_0(self) -> None:
        assert run("absolute_error", [1.0, 2.0], [1.0, 1.0])[1].tolist() == [0.0, 1.0]

    def test_huber_joins_at_delta(self) -> None:
        value, grad = run("huber", [2.0, -2.0, 2.5, 0.0], [0.0] * 4, delta=2.0)
        assert value.tolist() == [2.0, 2.0, 3.0, 0.0]
        assert grad.tolist() == [2.0, -2.0, 2.0, 0.0]

    def test_hinge_has_derivative_0_at_margin_1(self) -> None:
        assert run("hinge", [1.0, -1.0, 0.0], [1, -1, 1])[1].tolist() == [0.0, 0.0, -1.0]

    def test_perceptron_counts_a_score_of_0_as_a_mistake(self) -> None:
        assert run("perceptron_loss", [0.0, 0.0, 1.0], [1, -1, 1])[1].tolist() == [-1.0, 1.0, 0.0]

    def test_multiclass_hinge_takes_the_first_best_wrong_class(self) -> None:
        value, grad = run("multiclass_hinge", [[2.0, 2.0, 2.0], [1.0, 2.0, 0.0]], [1, 1])
        assert value.tolist() == [1.0, 0.0]
        assert grad.tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]


class TestNanComesThrough:
    @pytest.mark.parametrize("name", sorted(HUGE))
    def test_in_the_outputs(self, name: str) -> None:
        outputs, targets = HUGE[name]
        outputs = np.array(outputs, np.float64)
        outputs[0] = np.nan
        options = (("components", 2),) if name == "mixture_density_nll" else ()
        targets = jnp.asarray(targets, jnp.float32 if np.asarray(targets).dtype.kind == "f" else jnp.int32)
        value, _, _ = compiled(name, options)(jnp.asarray(outputs, jnp.float32), targets)
        expected = [True] + [False] * (len(outputs) - 1)
        assert np.isnan(value).tolist() == expected

    @pytest.mark.parametrize("name", ["hinge", "square_loss", "logistic", "perceptron_loss"])
    def test_for_traced_labels_that_are_not_signs(self, name: str) -> None:
        labels = jnp.array([1, 1, 0, -1, 2], jnp.int32)
        for result in compiled(name)(jnp.array([2.0, -2.0, 1.0, 3.0, 5.0]), labels):
            assert np.isnan(result).tolist() == [False, False, True, False, True]

    @pytest.mark.parametrize("name", ["sigmoid_binary_cross_entropy", "binary_cross_entropy"])
    def test_for_traced_targets_that_are_not_probabilities(self, name: str) -> None:
        for result in compiled(name)(jnp.full(5, 0.3), jnp.array([0.0, -1.0, 1.0, 1.5, 0.5])):
            assert np.isnan(result).tolist() == [False, True, False, True, False]

    def test_for_traced_outputs_that_are_not_probabilities(self) -> None:
        for result in compiled("binary_cross_entropy")(jnp.array([-1.0, 0.5, 3.0, 1.0, 0.0]), jnp.ones(5)):
            assert np.isnan(result).tolist() == [True, False, True, False, False]

    @pytest.mark.parametrize("label", [-1, 3])
    def test_for_traced_class_labels_out_of_range(self, label: int) -> None:
        for result in compiled("multiclass_hinge")(jnp.zeros((3, 3)), jnp.array([0, label, 2])):
            assert np.isnan(np.asarray(result)).reshape(3, -1).any(axis=1).tolist() == [False, True, False]

    def test_rounding_over_1_is_no_mistake(self) -> None:
        over = jnp.nextafter(jnp.ones(5), jnp.full(5, 2.0))
        assert np.all(np.isfinite(compiled("binary_cross_entropy")(over, over)[0]))


class TestDensities:
    def test_gaussian_with_residual_0_and_any_variance(self) -> None:
        value, grad = run("gaussian_nll", [[1.0, -1e4], [1.0, 1e4]], [[1.0], [1.0]])
        constant = np.log(2 * np.pi) / 2
        assert_close(value, np.array([constant - 5e3, constant + 5e3]), rtol=1e-6)
        assert_close(grad, np.array([[0, 0.5], [0, 0.5]]), rtol=1e-6)

    def test_gaussian_overflows_where_the_true_value_does(self) -> None:
        value, _, _ = compiled("gaussian_nll")(jnp.array([[1.0, -1e4]]), jnp.array([[2.0]]))
        assert np.isposinf(value).all()

    def test_a_component_too_narrow_to_reach_the_target_takes_no_part(self) -> None:
        # Log standard deviation -60: ((d - mu) / sigma)^2 = e^120 overflows float32.
        outputs = [[0.0, 0.0, 0.0, 1.0, 0.0, -60.0]]
        value, grad = run("mixture_density_nll", outputs, [[0.5]], components=2)
        expected = 0.5 * 0.25 + 0.5 * np.log(2 * np.pi) + np.log(2)
        assert_close(value, np.array([expected]), rtol=1e-6)
        assert_close(grad, np.array([[-0.5, 0.5, -0.5, 0.0, 0.75, 0.0]]), rtol=1e-6)

    def test_a_collapsed_component_at_the_target(self) -> None:
        value, grad = run("mixture_density_nll", [[0.0, 0.0, 0.5, 9.0, -100.0, 0.0]], [[0.5]], components=2)
        assert_close(value, np.array([np.log(2) - 100 + 0.5 * np.log(2 * np.pi)]), rtol=1e-6)
        assert_close(grad, np.array([[-0.5, 0.5, 0, 0, 1, 0]]), rtol=1e-6)


class TestWhereOptaxFallsShort:
    """What optax 0.2.8 does, and what we do."""

    def test_cosine_of_zero_vectors(self) -> None:
        zero, one = jnp.zeros((1, 2)), jnp.ones((1, 2))
        assert np.isnan(jax.grad(lambda y: optax.cosine_distance(y, one).sum())(zero)).any()
        value, grad = run("cosine_distance", [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
        assert value.tolist() == [1.0, 1.0, 1.0]
        assert not grad.any()

    def test_cosine_of_very_long_and_very_short_vectors(self) -> None:
        vectors, ones = np.array([[1e30, 0.0], [1e-30, 0.0], [3.0, 4.0]]), np.array([[1.0, 1.0]] * 3)
        value, grad = run("cosine_distance", vectors, ones)
        half = np.sqrt(0.5)
        assert_close(value, np.array([1 - half, 1 - half, 1 - 1.4 * half]), rtol=0, atol=2e-7)
        assert_close(grad[1], np.array([0.0, -half * 1e30]), rtol=1e-6)

    def test_gradient_of_kl_at_zero_targets(self) -> None:
        d, log_y = jnp.array([[0.0, 1.0]]), jnp.log(jnp.array([[0.5, 0.5]]))
        assert np.isnan(jax.grad(lambda d: optax.kl_divergence(log_y, d).sum())(d)).any()
        in_targets = jax.grad(lambda d: losses.kl_divergence(log_y, d).sum())(d)
        assert np.all(np.isfinite(in_targets))
        _, grad = run("kl_divergence", [[-np.inf, 0.0]], [[0.0, 1.0]])
        assert grad.tolist() == [[0.0, -1.0]]
        assert np.all(np.isfinite(jax.grad(lambda p: losses.entropy(p).sum())(d)))
        assert_close(losses.entropy_grad(d), jax.grad(lambda p: losses.entropy(p).sum())(d), rtol=0)

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            (optax.huber_loss, losses.huber),
            (optax.log_cosh, losses.log_cosh),
            (optax.sigmoid_binary_cross_entropy, losses.sigmoid_binary_cross_entropy),
            (optax.hinge_loss, losses.hinge),
        ],
    )
    def test_a_column_against_a_row(self, theirs: Any, ours: Any) -> None:
        column, row = jnp.ones((4, 1)), jnp.ones(4)
        assert theirs(column, row).shape == (4, 4)
        with pytest.raises(ValueError, match=r"same shape, got outputs \(4, 1\), targets \(4,\)"):
            ours(column, row)


def test_optax_and_torch_agree_where_they_are_right() -> None:
    rng = np.random.default_rng(0)
    y, d = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    s, p, labels = np.sign(d), 1 / (1 + np.exp(-d)), np.array([0, 2, 1, 1])

    @jax.jit
    def pairs(y: Any, d: Any, s: Any, p: Any) -> Any:
        log_y, q = jax.nn.log_softmax(y), jax.nn.softmax(d)
        return [
            (losses.half_squared_error(y, d), optax.l2_loss(y, d).sum(-1)),
            (losses.mse(y, d), optax.squared_error(y, d).mean(-1)),
            (losses.huber(y, d, delta=0.7), optax.huber_loss(y, d, delta=0.7).sum(-1)),
            (losses.log_cosh(y, d), optax.log_cosh(y, d).sum(-1)),
            (losses.cosine_distance(y, d), optax.cosine_distance(y, d)),
            (losses.sigmoid_binary_cross_entropy(y, p), optax.sigmoid_binary_cross_entropy(y, p).sum(-1)),
            (losses.hinge(y, s), optax.hinge_loss(y, s).sum(-1)),
            (losses.perceptron_loss(y, s), optax.losses.perceptron_loss(y, s).sum(-1)),
            (losses.kl_divergence(log_y, q), optax.kl_divergence(log_y, q)),
            (losses.multiclass_hinge(y, labels), optax.losses.multiclass_hinge_loss(y, jnp.asarray(labels))),
        ]

    with float64():
        for i, (ours, theirs) in enumerate(pairs(*map(jnp.asarray, (y, d, s, p)))):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14, err_msg=str(i))


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    rng = np.random.default_rng(0)
    y, d = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    p, q, variance = 1 / (1 + np.exp(-y)), rng.uniform(size=(4, 3)), np.exp(rng.standard_normal((4, 3)))

    def t(x: Any) -> Any:
        return torch.tensor(x)

    expected = [
        f.l1_loss(t(y), t(d), reduction="none").sum(-1),
        f.mse_loss(t(y), t(d), reduction="none").mean(-1),
        f.huber_loss(t(y), t(d), delta=0.7, reduction="none").sum(-1),
        f.binary_cross_entropy(t(p), t(q), reduction="none").sum(-1),
        f.binary_cross_entropy_with_logits(t(y), t(q), reduction="none").sum(-1),
        f.soft_margin_loss(t(y), t(np.sign(d)), reduction="none").sum(-1),
        f.gaussian_nll_loss(t(y), t(d), t(variance), full=True, eps=0, reduction="none").sum(-1),
        1 - f.cosine_similarity(t(y), t(d), dim=-1),
    ]

    @jax.jit
    def ours(y: Any, d: Any, p: Any, q: Any, variance: Any) -> Any:
        return [
            losses.absolute_error(y, d),
            losses.mse(y, d),
            losses.huber(y, d, delta=0.7),
            losses.binary_cross_entropy(p, q),
            losses.sigmoid_binary_cross_entropy(y, q),
            losses.logistic(y, jnp.sign(d)),
            losses.gaussian_nll(jnp.concatenate([y, jnp.log(variance)], axis=-1), d),
            losses.cosine_distance(y, d),
        ]

    with float64():
        got = ours(*map(jnp.asarray, (y, d, p, q, variance)))
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14, err_msg=str(i))

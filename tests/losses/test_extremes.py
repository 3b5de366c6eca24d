"""Values and derivatives stay finite and right at the ends of the range, at kinks, and where optax is not."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import losses
from tests.helpers import assert_close, float64

DTYPES = ["float64", "float32", "bfloat16", "float16"]


def value_and_derivatives(name: str, outputs: Any, targets: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Value, hand-written derivative and jax.grad, of a loss whose arguments are traced."""
    loss, hand = (functools.partial(getattr(losses, n), **options) for n in (name, f"{name}_grad"))
    return loss(outputs, targets), hand(outputs, targets), jax.grad(lambda o: loss(o, targets).sum())(outputs)


def arrays(outputs: Any, targets: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    targets = np.asarray(targets)
    return np.asarray(outputs, dtype), targets.astype(dtype if targets.dtype.kind == "f" else np.int32)


def test_probabilities_just_below_0_count_as_0() -> None:
    d, log_y = jnp.array([[-1e-8, 0.5, 0.5]]), jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
    exact = jnp.array([[0.0, 0.5, 0.5]])
    assert_close(losses.kl_divergence(log_y, d), losses.kl_divergence(log_y, exact), rtol=1e-6)
    assert_close(losses.entropy(d), jnp.log(jnp.array([2.0])), rtol=1e-6)
    assert_close(losses.entropy_grad(d), losses.entropy_grad(exact), rtol=1e-6)
    for loss in (lambda p: losses.kl_divergence(log_y, p).sum(), lambda p: losses.entropy(p).sum()):
        assert_close(jax.grad(loss)(d), jax.grad(loss)(exact), rtol=1e-6)


BIG = [1e4, -1e4, 0.0, 1e4]
HUGE = {
    "half_squared_error": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "mse": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "sum_squared_error": (BIG, [-1e4, 1e4, 0.0, 1e4]),
    "euclidean_error": (BIG, [-1e4, 1e4, 0.0, 1e4]),
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


QUICK = {
    "log_cosh", "sigmoid_binary_cross_entropy", "binary_cross_entropy", "softmax_cross_entropy", "cosine_distance",
    "mixture_density_nll",
}  # fmt: skip
"""Of these the short run takes the two dtypes of the least range: one loss of each kind."""


@jax.jit
def _extremes(given: Any) -> Any:
    def of(name: str, pair: Any) -> Any:
        return value_and_derivatives(name, *pair, **({"components": 2} if name == "mixture_density_nll" else {}))

    return {name: {dtype: of(name, pair) for dtype, pair in pairs.items()} for name, pairs in given.items()}


@functools.cache
def extremes(short: bool, nan: bool = False) -> Any:
    """HUGE in all dtypes, as it is, or with NaN for the first example's outputs: one program for both."""

    def outputs(name: str) -> np.ndarray:
        found = np.array(HUGE[name][0])
        if nan:
            found[0] = np.nan
        return found

    names, dtypes = (QUICK, ("float32", "float16")) if short else (HUGE, DTYPES)
    with float64():
        return _extremes({n: {d: arrays(outputs(n), HUGE[n][1], d) for d in dtypes} for n in names})


LONG_TOO = pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["short", "long"])


@LONG_TOO
def test_finite_at_extremes(short: bool) -> None:
    for name, of_dtypes in extremes(short).items():
        for dtype, (value, hand, auto) in of_dtypes.items():
            assert value.dtype == np.dtype("float64" if dtype == "float64" else "float32")
            assert hand.dtype == auto.dtype == jnp.dtype(dtype)
            for array in (value, hand, auto):
                assert np.all(np.isfinite(np.asarray(array, np.float64))), (name, dtype, array)
            eps = 4 * float(jnp.finfo(dtype).eps)
            assert_close(hand, auto, rtol=eps, atol=eps)
            assert np.all(np.asarray(value) >= 0) or name in ("gaussian_nll", "mixture_density_nll"), name


@LONG_TOO
def test_nan_in_the_outputs_comes_through(short: bool) -> None:
    for name, of_dtypes in extremes(short, nan=True).items():
        for dtype, (value, _, _) in of_dtypes.items():
            expected = [True] + [False] * (len(value) - 1)
            assert np.isnan(np.asarray(value)).tolist() == expected, (name, dtype)


class At(NamedTuple):
    """A loss at one place: value and derivative there, or the examples for which all of them are NaN."""

    loss: str
    outputs: Any
    targets: Any
    value: Any = None
    grad: Any = None
    nan: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    dtype: str = "float32"
    rtol: float = 1e-6
    atol: float = 1e-7


TINY = {dtype: float(jnp.finfo(dtype).tiny) for dtype in DTYPES}
SMALL = np.array([1e-4, -1e-3, 0.5, 0.999, 1.001, 5.0])
HALF_LOG = np.log(2 * np.pi) / 2
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}
TWO: dict[str, Any] = {"options": {"components": 2}}
PLACES = {
    "BCE of huge logits": At(
        "sigmoid_binary_cross_entropy", *HUGE["sigmoid_binary_cross_entropy"], [0, 1e4, 1e4, 0, np.log(2)],
        [0, -1, 1, 0, 0]),
    "logistic of huge scores": At(
        "logistic", *HUGE["logistic"], [0, 1e4, 1e4, 0, np.log(2)], [0, -1, 1, 0, -0.5]),
    "log cosh of huge errors": At(
        "log_cosh", BIG, [-1e4, 1e4, 0.0, 1e4], [2e4 - np.log(2), 2e4 - np.log(2), 0, 0], [1, -1, 0, 0]),
    "huber of infinite errors": At(
        "huber", [np.inf, -np.inf, 0.5], [0.0, 0.0, 0.0], [np.inf, np.inf, 0.125], [1, -1, 0.5]),
    "softmax of huge logits": At(
        "softmax_cross_entropy", *HUGE["softmax_cross_entropy"], [0, 2e4, 1e4], [[0, 0, 0], [1, -1, 0], [1, 0, -1]]),
    "hinge of huge scores": At(
        "multiclass_hinge", *HUGE["multiclass_hinge"], [0, 20001, 10001], [[0, 0, 0], [1, -1, 0], [1, 0, -1]]),
    "mixture with huge logits": At(
        "mixture_density_nll", *HUGE["mixture_density_nll"], [0.918938533, 2.918938533],
        [[0, 0, 0, 0, 1, 0], [0, 0, 2, 0, -3, 0]], **TWO),
    # Small errors and confident logits keep their digits.
    "log cosh of small errors": At("log_cosh", SMALL, np.zeros(6), np.log(np.cosh(SMALL)), rtol=1e-5, atol=0),
    "BCE of confident logits": At(
        "sigmoid_binary_cross_entropy", [20.0, 40.0], [1.0, 1.0], np.exp([-20.0, -40.0]), -np.exp([-20.0, -40.0]),
        rtol=1e-5, atol=0),
    # Probabilities of 0 count as the least normal number; above it they are exact.
    **{
        f"BCE at 0 and 1 in {dtype}": At(
            "binary_cross_entropy", [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0],
            [-np.log(tiny), 0, 0, -np.log(tiny)], [-1 / tiny, -1, 1, 1 / tiny], dtype=dtype, atol=0)
        for dtype, tiny in TINY.items()
    },
    **{
        f"cross entropy at 0 and 1 in {dtype}": At(
            "cross_entropy", [[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]], [0, -np.log(tiny)], [[-1, 0], [0, -1 / tiny]],
            dtype=dtype, atol=0)
        for dtype, tiny in TINY.items()
    },
    "BCE of tiny probabilities": At(
        "binary_cross_entropy", [1e-30, 1e-37], [1.0, 1.0], -np.log([1e-30, 1e-37]), [-1e30, -1e37], atol=0),
    # Kinks.
    "the unsquared norm has derivative 0 at 0": At(
        "euclidean_error", [[1.0, 2.0], [4.0, 3.0]], [[1.0, 2.0], [1.0, -1.0]], [0, 5], [[0, 0], [0.6, 0.8]],
        atol=1e-6),
    "the unsquared norm of numbers near the largest": At(
        "euclidean_error", [[3e37, -4e37]], [[0.0, 0.0]], [5e37], [[0.6, -0.8]], atol=1e-6),
    "absolute error has derivative 0 at 0": At("absolute_error", [1.0, 2.0], [1.0, 1.0], grad=[0, 1], **EXACT),
    "huber joins at delta": At(
        "huber", [2.0, -2.0, 2.5, 0.0], [0.0] * 4, [2, 2, 3, 0], [2, -2, 2, 0], options={"delta": 2.0}, **EXACT),
    "hinge has derivative 0 at margin 1": At("hinge", [1.0, -1.0, 0.0], [1, -1, 1], grad=[0, 0, -1], **EXACT),
    "perceptron counts a score of 0 as a mistake": At(
        "perceptron_loss", [0.0, 0.0, 1.0], [1, -1, 1], grad=[-1, 1, 0], **EXACT),
    "multiclass hinge takes the first best wrong class": At(
        "multiclass_hinge", [[2.0, 2.0, 2.0], [1.0, 2.0, 0.0]], [1, 1], [1, 0], [[1, -1, 0], [0, 0, 0]], **EXACT),
    # Targets and outputs that cannot be looked at while tracing.
    **{
        f"{name} of labels that are not signs": At(
            name, [2.0, -2.0, 1.0, 3.0, 5.0], [1, 1, 0, -1, 2], nan=[False, False, True, False, True])
        for name in ("hinge", "square_loss", "logistic", "perceptron_loss")
    },
    **{
        f"{name} of targets that are not probabilities": At(
            name, [0.3] * 5, [0.0, -1.0, 1.0, 1.5, 0.5], nan=[False, True, False, True, False])
        for name in ("sigmoid_binary_cross_entropy", "binary_cross_entropy")
    },
    "BCE of outputs that are not probabilities": At(
        "binary_cross_entropy", [-1.0, 0.5, 3.0, 1.0, 0.0], [1.0] * 5, nan=[True, False, True, False, False]),
    "class -1": At("multiclass_hinge", np.zeros((3, 3)), [0, -1, 2], nan=[False, True, False]),
    "class K": At("multiclass_hinge", np.zeros((3, 3)), [0, 3, 2], nan=[False, True, False]),
    "probabilities rounded over 1": At(
        "binary_cross_entropy", np.nextafter(np.ones(2, np.float32), 2), np.nextafter(np.ones(2, np.float32), 2),
        nan=[False, False]),
    # Densities.
    "Gaussian with residual 0 and any variance": At(
        "gaussian_nll", [[1.0, -1e4], [1.0, 1e4]], [[1.0], [1.0]], [HALF_LOG - 5e3, HALF_LOG + 5e3],
        [[0, 0.5], [0, 0.5]]),
    # Log standard deviation -60: ((d - mu) / sigma)^2 = e^120 overflows float32.
    "a component too narrow to reach the target takes no part": At(
        "mixture_density_nll", [[0.0, 0.0, 0.0, 1.0, 0.0, -60.0]], [[0.5]], [0.5 * 0.25 + HALF_LOG + np.log(2)],
        [[-0.5, 0.5, -0.5, 0.0, 0.75, 0.0]], **TWO),
    "a collapsed component at the target": At(
        "mixture_density_nll", [[0.0, 0.0, 0.5, 9.0, -100.0, 0.0]], [[0.5]], [np.log(2) - 100 + HALF_LOG],
        [[-0.5, 0.5, 0, 0, 1, 0]], **TWO),
    # Where optax 0.2.8 has NaN.
    "cosine of zero vectors": At(
        "cosine_distance", [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [1, 1, 1],
        np.zeros((3, 2)), **EXACT),
    "cosine of long and short vectors": At(
        "cosine_distance", [[1e30, 0.0], [1e-30, 0.0], [3.0, 4.0]], [[1.0, 1.0]] * 3,
        [1 - 0.5**0.5, 1 - 0.5**0.5, 1 - 1.4 * 0.5**0.5], rtol=0, atol=2e-7),
    "cosine of a short vector": At(
        "cosine_distance", [[1e-30, 0.0]], [[1.0, 1.0]], grad=[[0.0, -(0.5**0.5) * 1e30]], atol=0),
    "KL at zero targets": At("kl_divergence", [[-np.inf, 0.0]], [[0.0, 1.0]], grad=[[0, -1]], **EXACT),
}  # fmt: skip
LIKE_OTHERS = [
    name
    for name in PLACES
    if name.endswith(("float64", "bfloat16"))
    or name.startswith(("logistic of", "square_loss", "perceptron_loss", "absolute", "huber of", "class K", "hinge of"))
]
"""What only the long run takes: another dtype or loss of a kind that the short run has."""


@functools.cache
def at_places(short: bool) -> Any:
    places = {name: at for name, at in PLACES.items() if (name not in LIKE_OTHERS) == short}

    @jax.jit
    def all_of(given: Any) -> Any:
        return {name: value_and_derivatives(at.loss, *given[name], **at.options) for name, at in places.items()}

    with float64():
        found = all_of({name: arrays(at.outputs, at.targets, at.dtype) for name, at in places.items()})
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LIKE_OTHERS else ()) for n in PLACES])
def test_right_at(name: str) -> None:
    at = PLACES[name]
    value, hand, auto = at_places(name not in LIKE_OTHERS)[name]
    assert hand.dtype == at.dtype
    if at.nan is not None:
        for result in (value, hand, auto):
            assert np.isnan(result).reshape(len(at.nan), -1).any(1).tolist() == at.nan
        return
    eps = 4 * float(jnp.finfo(at.dtype).eps)
    assert_close(hand, auto, rtol=eps, atol=eps)
    for got, expected in ((value, at.value), (hand, at.grad)):
        if expected is not None:
            assert_close(got, np.array(expected), rtol=at.rtol, atol=at.atol)


def test_a_gaussian_overflows_where_the_true_value_does() -> None:
    outputs, targets = np.array([[1.0, -1e4]], np.float32), np.array([[2.0]], np.float32)
    assert np.isposinf(jax.jit(losses.gaussian_nll)(outputs, targets)).all()


class TestWhereOptaxFallsShort:
    """What optax 0.2.8 does, and what we do."""

    def test_cosine_of_zero_vectors(self) -> None:
        zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
        assert np.isnan(jax.jit(jax.grad(lambda y: optax.cosine_distance(y, one).sum()))(zero)).any()

    def test_gradient_of_kl_at_zero_targets(self) -> None:
        d, log_y = np.array([[0.0, 1.0]], np.float32), np.log(np.array([[0.5, 0.5]], np.float32))

        @jax.jit
        def gradients(d: Any) -> Any:
            of_kl = [jax.grad(lambda d, m=m: m.kl_divergence(log_y, d).sum())(d) for m in (optax, losses)]
            return *of_kl, losses.entropy_grad(d), jax.grad(lambda p: losses.entropy(p).sum())(d)

        theirs, ours, entropy, automatic = gradients(d)
        assert np.isnan(theirs).any()
        assert np.all(np.isfinite(ours))
        assert np.all(np.isfinite(automatic))
        assert_close(entropy, automatic, rtol=0)

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
        column, row = np.ones((4, 1), np.float32), np.ones(4, np.float32)
        assert jax.eval_shape(theirs, column, row).shape == (4, 4)
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
        for i, (ours, theirs) in enumerate(pairs(y, d, s, p)):
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
        got = ours(y, d, p, q, variance)
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14, err_msg=str(i))

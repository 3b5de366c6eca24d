"""The losses under optax's names: optax's values and derivatives in float64, and right numbers where optax has none."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import losses
from tests.helpers import assert_close, float64, strict
from tests.losses.optax_cases import CASES, Case

NAMES = sorted(n for n in dir(optax.losses) if not n.startswith("_"))
OURS = {"cosine_distance", "kl_divergence", "log_cosh", "perceptron_loss", "sigmoid_binary_cross_entropy",
        "softmax_cross_entropy"}  # fmt: skip
"""Names that mean one number for each example here: calls by position are ours."""


def theirs(name: str) -> Any:
    found = optax.losses.generalized_kl_divergence if name == "convex_kl_divergence" else getattr(optax.losses, name)
    return jax.tree_util.Partial(found)


def both(case: Case, function: Any, arguments: list[Any]) -> tuple[Any, Any]:
    """Values, and the derivative of a weighted sum of them with respect to the first argument."""

    def total(first: Any) -> tuple[Any, Any]:
        value = case.call(function, first, *arguments[1:])
        return jnp.sum(jnp.sin(jnp.arange(1.0, value.size + 1)).reshape(value.shape) * value), value

    grad, value = jax.grad(total, has_aux=True)(arguments[0])
    return value, grad


QUICK = {
    "huber_loss", "cosine_similarity", "sigmoid_focal_loss", "multiclass_sparsemax_loss", "softmax_cross_entropy",
    "kl_divergence", "ranking_softmax_loss", "triplet_margin_loss", "dice_loss",
}  # fmt: skip
"""One loss of each kind; the sum over alignments is the short run's test of `ctc_loss`."""

LAST = {case.name: i for i, case in enumerate(CASES)}
SHORT = [
    *sorted(LAST[name] for name in QUICK - {"dice_loss"}),
    next(i for i, case in enumerate(CASES) if case.name == "dice_loss"),  # its last is not differentiated by optax
]
"""What the short run takes: most of the time is compilation."""


@functools.cache
def results(short: bool) -> dict[int, tuple[Any, Any]]:
    """Ours and optax's for the cases of a run, in one program each."""
    chosen = [i for i in range(len(CASES)) if (i in SHORT) == short]
    # optax looks at given probabilities with a Python `if`, so not under jit or grad.
    concrete = {i for i in chosen if not CASES[i].options.get("apply_softmax", True)}

    def all_of(select: Any, indices: list[int]) -> Any:
        return jax.jit(lambda given: {i: both(CASES[i], select(CASES[i]), given[i]) for i in indices})

    with float64():
        given = {i: list(CASES[i].arguments) for i in chosen}
        with strict():
            got = all_of(lambda c: c.ours, chosen)(given)
        expected = all_of(lambda c: theirs(c.name), [i for i in chosen if i not in concrete])(given)
        for i in concrete:
            expected[i] = (CASES[i].call(theirs(CASES[i].name), *given[i]), got[i][1])
    return {i: (got[i], expected[i]) for i in chosen}


@pytest.mark.parametrize(
    "index",
    [pytest.param(i, marks=() if i in SHORT else pytest.mark.slow, id=f"{i}-{c.name}") for i, c in enumerate(CASES)],
)
def test_value_and_derivative(index: int) -> None:
    (value, grad), (expected, expected_grad) = results(index in SHORT)[index]
    assert value.dtype == grad.dtype == np.float64
    rtol = 1e-9 if CASES[index].name == "ctc_loss" else 1e-12
    assert_close(value, expected, rtol=rtol, atol=1e-14)
    assert_close(grad, expected_grad, rtol=10 * rtol, atol=1e-13)


def test_every_loss_has_a_case() -> None:
    assert {c.name for c in CASES} == set(NAMES) - {"ctc_loss_with_forward_probs", "make_fenchel_young_loss"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - OURS))
def test_arguments_and_defaults_are_optaxs(name: str) -> None:
    ours, optaxs = (
        [(p.name, p.kind, p.default) for p in inspect.signature(getattr(m, name)).parameters.values()]
        for m in (losses, optax.losses)
    )
    assert ours == optaxs or name == "convex_kl_divergence"


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_own_meaning_is_kept_by_position(name: str) -> None:
    y, one_hot = np.full((2, 3), 0.25, np.float32), np.eye(2, 3, dtype=np.float32)
    d = 2 * one_hot - 1 if name == "perceptron_loss" else one_hot
    loss = getattr(losses, name)
    assert jax.eval_shape(loss, y, d).shape == jax.eval_shape(lambda: loss(outputs=y, targets=d)).shape == (2,)
    assert list(inspect.signature(loss).parameters)[:2] == ["outputs", "targets"]
    with pytest.raises(TypeError, match=name):
        loss(y, d, neither=1)


@pytest.mark.slow
def test_ctc_forward_variables() -> None:
    case = next(c for c in CASES if c.name == "ctc_loss")
    with float64():
        arguments = [jnp.asarray(a) for a in case.arguments]
        got, expected = (jax.jit(m.ctc_loss_with_forward_probs)(*arguments) for m in (losses, optax.losses))
        assert_close(got, expected, rtol=1e-9)


def test_ctc_is_the_sum_over_alignments() -> None:
    """No recursion: all K^T alignments, merged and with blanks removed."""
    logits = np.random.default_rng(3).standard_normal((1, 4, 3))
    p = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    targets = [[1, 2], [1, 1], [2], []]
    spelt = [0.0] * len(targets)
    for path in itertools.product(range(3), repeat=4):
        word = [k for k, _ in itertools.groupby(path) if k != 0]
        if word in targets:
            spelt[targets.index(word)] += float(np.prod(p[range(4), path]))
    labels = np.array([t + [0] * (2 - len(t)) for t in targets])
    pads = np.array([[0] * len(t) + [1] * (2 - len(t)) for t in targets])
    with float64():
        got = jax.jit(losses.ctc_loss)(np.broadcast_to(logits, (4, 4, 3)), np.zeros((4, 4)), labels, pads)
    assert_close(np.exp(-np.asarray(got)), np.array(spelt), rtol=1e-12)


@pytest.mark.slow
def test_fenchel_young_loss() -> None:
    rng = np.random.default_rng(1)
    z, d = rng.standard_normal((2, 3, 4)), rng.dirichlet(np.ones(4), (2, 3))
    with float64():
        ours, theirs = (m.make_fenchel_young_loss(jax.scipy.special.logsumexp) for m in (losses, optax.losses))
        assert_close(ours(jnp.asarray(z), jnp.asarray(d)), theirs(jnp.asarray(z), jnp.asarray(d)), rtol=1e-12)
        grad = jax.grad(lambda z: ours(z, jnp.asarray(d)).sum())(jnp.asarray(z))
        assert_close(grad, jax.nn.softmax(jnp.asarray(z)) - d, rtol=1e-12, atol=1e-15)
        scaled = losses.make_fenchel_young_loss(lambda s, t: t * jax.scipy.special.logsumexp(s / t))
        assert_close(scaled(jnp.asarray(z), jnp.asarray(d), 1.0), ours(jnp.asarray(z), jnp.asarray(d)), rtol=1e-12)
    with pytest.raises(TypeError, match="max_fun must be a function"):
        losses.make_fenchel_young_loss(3.0)


INF = np.inf
EXTREMES: dict[str, tuple[Any, list[Any], Any, Any]] = {
    # name: (loss of a traced first argument, that argument, value, derivative of the sum)
    "softmax with -inf": (lambda z: losses.softmax_cross_entropy(logits=z, labels=jnp.array([[1.0, 0.0, 0.0]])),
                          [[0.0, 0.0, -INF]], [np.log(2)], [[-0.5, 0.5, 0.0]]),
    "integer labels with -inf": (
        lambda z: losses.softmax_cross_entropy_with_integer_labels(z, jnp.array([0])),
        [[0.0, 0.0, -INF]], [np.log(2)], [[-0.5, 0.5, 0.0]]),
    "padded label and logits": (
        lambda z: losses.softmax_cross_entropy_with_integer_labels(
            z, jnp.array([-1, 0]), where=jnp.array([False, True])),
        [[np.nan, INF], [0.0, 0.0]], [0.0, np.log(2)], [[0.0, 0.0], [-0.5, 0.5]]),
    "poly with -inf": (lambda z: losses.poly_loss_cross_entropy(z, jnp.array([1.0, 0.0]), epsilon=0.0),
                       [0.0, -INF], 0.0, [0.0, 0.0]),
    "kl at zero targets": (lambda d: losses.kl_divergence(log_predictions=jnp.array([-INF, 0.0]), targets=d),
                           [0.0, 1.0], 0.0, [0.0, 1.0]),
    "kl of -inf and -inf": (lambda t: losses.kl_divergence_with_log_targets(jnp.array([-INF, 0.0]), t),
                            [-INF, 0.0], 0.0, [0.0, 1.0]),
    "cosine of zero": (lambda y: losses.cosine_similarity(y, jnp.ones((1, 2))), [[0.0, 0.0]], [0.0], [[0.0, 0.0]]),
    "cosine of huge": (lambda y: losses.cosine_distance(y, jnp.array([[1.0, 0.0]]), axis=-1),
                       [[1e300, 1e300]], [1 - 0.5**0.5], [[0.0, 0.0]]),
    "focal, certain": (lambda z: losses.sigmoid_focal_loss(z, jnp.array([1, 0, 1]), gamma=0.5),
                       [INF, -INF, 800.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "focal, gamma 0": (lambda z: losses.sigmoid_focal_loss(z, jnp.array([1, 0]), gamma=0.0),
                       [INF, 0.0], [0.0, np.log(2)], [0.0, 0.5]),
    "bce, certain": (lambda z: losses.sigmoid_binary_cross_entropy(logits=z, labels=jnp.array([1.0, 0.0])),
                     [INF, -INF], [0.0, 0.0], [0.0, 0.0]),
    "log cosh of small and large": (lambda r: losses.log_cosh(r), [1e-9, 1e9], [5e-19, 1e9 - np.log(2)], [1e-9, 1.0]),
    "kinks": (lambda f: losses.hinge_loss(f, jnp.array([1, -1])), [1.0, -1.0], [0.0, 0.0], [0.0, 0.0]),
    "perceptron's kink": (lambda f: losses.perceptron_loss(predictor_outputs=f, targets=jnp.array([1, -1])),
                          [0.0, 0.0], [0.0, 0.0], [-1.0, 1.0]),
    "sparsemax's bends": (lambda z: losses.sparsemax_loss(z, jnp.array([0, 0])), [-1.0, 1.0], [0.0, 1.0], [0.0, 1.0]),
    "sparsemax with -inf": (lambda z: losses.multiclass_sparsemax_loss(z, jnp.array([0])),
                            [[0.0, 0.0, -INF]], [0.25], [[-0.5, 0.5, 0.0]]),
    "hinge, all equal": (lambda z: losses.multiclass_hinge_loss(z, jnp.array([1])),
                         [[0.0, 0.0, 0.0]], [1.0], [[1.0, -1.0, 0.0]]),
    "perceptron, tie": (lambda z: losses.multiclass_perceptron_loss(z, jnp.array([1])),
                        [[0.0, 0.0, -1.0]], [0.0], [[1.0, -1.0, 0.0]]),
    "ntxent without pairs": (lambda x: losses.ntxent(x, jnp.array([0, 1])), [[1.0, 0.0], [0.0, 1.0]], 0.0,
                             np.zeros((2, 2))),
    "ntxent without negatives": (lambda x: losses.ntxent(x, jnp.array([0, 0])), [[1.0, 0.0], [0.0, 0.0]], 0.0,
                                 np.zeros((2, 2))),
    "triplet, odd degree": (
        lambda a: losses.triplet_margin_loss(a, jnp.ones((1, 2)), jnp.zeros((1, 2)), norm_degree=3, eps=0.0),
        [[0.0, 0.0]], [1 + 2 ** (1 / 3)], [[-(0.25 ** (1 / 3))] * 2]),
    "dice of nothing": (lambda p: losses.binary_dice_loss(p, jnp.zeros((1, 3)), smooth=0.0, apply_sigmoid=False),
                        [[0.0, 0.0, 0.0]], [0.0], [[0.0, 0.0, 0.0]]),
    "ranking of no list": (lambda s: losses.ranking_softmax_loss(s, jnp.ones((1, 2)), where=jnp.zeros((1, 2), bool)),
                           [[np.nan, 1.0]], 0.0, [[0.0, 0.0]]),
    "ctc, no labels": (
        lambda z: losses.ctc_loss(z, jnp.zeros((1, 2)), jnp.zeros((1, 0), jnp.int32), jnp.zeros((1, 0))),
        [[[0.0, 0.0], [0.0, 0.0]]], [2 * np.log(2)], [[[-0.5, 0.5], [-0.5, 0.5]]]),
    "ctc, -inf": (
        lambda z: losses.ctc_loss(z, jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1))),
        [[[0.0, 0.0, -INF], [-INF, 0.0, -INF]]], [0.0], [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]),
    "huber, infinite errors": (lambda r: losses.huber_loss(r), [INF, -INF, 0.5], [INF, INF, 0.125], [1.0, -1.0, 0.5]),
    "cosine of zero, with epsilon": (
        lambda y: losses.cosine_similarity(y, jnp.array([[1.0, 2.0, 2.0]]), epsilon=1e-2),
        [[0.0, 0.0, 0.0]], [0.0], [[10 / 3, 20 / 3, 20 / 3]]),
    "cosine of tiny, with epsilon": (
        lambda y: losses.cosine_distance(y, jnp.array([[1.0, 0.0]]), epsilon=1e6),
        [[1e-307, 0.0]], [1.0], [[-1e-6, 0.0]]),
}  # fmt: skip


QUICK_EXTREMES = {
    "softmax with -inf", "padded label and logits", "kl at zero targets", "cosine of zero", "focal, certain", "kinks",
    "sparsemax with -inf", "triplet, odd degree", "dice of nothing", "ranking of no list", "ctc, no labels",
}  # fmt: skip
SHORT_AND_LONG = pytest.mark.parametrize(
    "short", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["short", "long"]
)


@SHORT_AND_LONG
def test_extremes(short: bool) -> None:
    chosen = {name: case for name, case in EXTREMES.items() if (name in QUICK_EXTREMES) == short}

    def everything(given: dict[str, Any]) -> dict[str, Any]:
        return {
            name: (jax.grad(lambda x, f=loss: jnp.sum(f(x)))(given[name]), loss(given[name]))
            for name, (loss, *_) in chosen.items()
        }

    with float64():
        got = jax.jit(everything)({name: np.array(x, float) for name, (_, x, *_) in chosen.items()})
    for name, (_, _, value, grad) in chosen.items():
        np.testing.assert_allclose(got[name][1], value, rtol=1e-6, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(got[name][0], grad, rtol=1e-6, atol=1e-9, err_msg=name)


@SHORT_AND_LONG
def test_big_endian_arrays_are_read(short: bool) -> None:
    """Arrays that are known while tracing, as NumPy's are."""

    def swapped(a: Any) -> Any:
        return a.astype(a.dtype.newbyteorder(">")) if isinstance(a, np.ndarray) else a

    def both(case: Case) -> tuple[Any, Any]:
        options = {key: swapped(value) for key, value in case.options.items()}
        big = case._replace(options=options).call(case.ours, *map(swapped, case.arguments))
        return big, case.call(case.ours, *case.arguments)

    chosen = [CASES[i] for i in LAST.values() if (i in SHORT) == short]
    for name, (got, expected) in jax.jit(lambda: {case.name: both(case) for case in chosen})().items():
        np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.mark.slow
def test_half_precision_is_the_float32_arithmetic_of_the_rounded_arguments() -> None:
    names = ("huber_loss", "sigmoid_focal_loss", "softmax_cross_entropy_with_integer_labels", "cosine_similarity")
    cases = [next(c for c in CASES if c.name == n) for n in names]
    low = [[jnp.asarray(a, jnp.bfloat16 if a.dtype.kind == "f" else jnp.int32) for a in c.arguments] for c in cases]
    wide = [[np.asarray(a, np.float32) if a.dtype == jnp.bfloat16 else a for a in arguments] for arguments in low]
    run = jax.jit(lambda arguments: [c.call(c.ours, *a) for c, a in zip(cases, arguments, strict=True)])
    for got, expected in zip(run(low), run(wide), strict=True):
        assert got.dtype == jnp.float32
        assert_close(got, expected, rtol=1e-5, atol=1e-6)


def f(*shape: int) -> Any:
    return np.full(shape, 0.5, np.float32)


ERRORS: list[tuple[type[Exception], str, Any]] = [
    (ValueError, r"huber_loss: targets must have shape \(4, 1\).*got \(4,\)", lambda: losses.huber_loss(f(4, 1), f(4))),
    (ValueError, r"log_cosh: targets must have shape", lambda: losses.log_cosh(predictions=f(4, 1), targets=f(4))),
    (ValueError, r"hinge_loss: targets must have shape", lambda: losses.hinge_loss(f(4, 1), np.ones(4))),
    (ValueError, r"hinge_loss: targets must be -1 or \+1, got 0", lambda: losses.hinge_loss(f(2), np.array([0, 1]))),
    (ValueError, r"sigmoid_focal_loss: labels must lie in \[0, 1\]", lambda: losses.sigmoid_focal_loss(f(2), -f(2))),
    (TypeError, r"l2_loss: predictions must .*floating", lambda: losses.l2_loss(np.arange(3))),
    (ValueError, r"labels must lie in \[0, 3\), got 3",
     lambda: losses.softmax_cross_entropy_with_integer_labels(f(1, 3), np.array([3]))),
    (ValueError, r"axis must name distinct axes of 2, got 2",
     lambda: losses.softmax_cross_entropy(f(1, 3), f(1, 3), axis=2)),
    (ValueError, r"axis must name distinct", lambda: losses.kl_divergence(f(1, 3), f(1, 3), axis=(0, -2))),
    (TypeError, r"axis must be an int", lambda: losses.poly_loss_cross_entropy(f(1, 3), f(1, 3), axis="x")),
    (ValueError, r"where must have shape \(2, 3\) or \(2,\), got \(3,\)",
     lambda: losses.softmax_cross_entropy(f(2, 3), f(2, 3), where=np.ones(3, bool))),
    (ValueError, r"sparsemax_loss: labels must be 0 or 1, got -1",
     lambda: losses.sparsemax_loss(f(2), np.array([-1, 1]))),
    (ValueError, r"cosine_similarity: .*same shape", lambda: losses.cosine_similarity(f(2, 3), f(3))),
    (ValueError, r"ntxent: embeddings must be", lambda: losses.ntxent(f(2, 3), np.array([0]))),
    (ValueError, r"norm_degree must lie in",
     lambda: losses.triplet_margin_loss(f(1, 2), f(1, 2), f(1, 2), norm_degree=0.5)),
    (ValueError, r"norm_degree must lie in \[1, inf\), got inf",
     lambda: losses.triplet_margin_loss(f(1, 2), f(1, 2), f(1, 2), norm_degree=float("inf"))),
    (ValueError, r"reduction must be", lambda: losses.dice_loss(f(1, 2), f(1, 2), reduction="max")),
    (ValueError, r"predictions must sum to 1", lambda: losses.dice_loss(f(1, 3), f(1, 3), apply_softmax=False)),
    (ValueError, r"class_weights must have shape", lambda: losses.dice_loss(f(1, 3), f(1, 3), class_weights=f(2))),
    (ValueError, r"labels contain the blank, 0",
     lambda: losses.ctc_loss(f(1, 2, 3), f(1, 2) * 0, np.array([[0]]), f(1, 1) * 0)),
    (ValueError, r"label_paddings must be zeros first",
     lambda: losses.ctc_loss(f(1, 2, 3), f(1, 2) * 0, np.array([[1, 1]]), np.array([[1, 0]]))),
    (ValueError, r"label_paddings must have shape",
     lambda: losses.ctc_loss(f(1, 2, 3), f(1, 2), np.array([[1]]), f(1, 2))),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(ERRORS)))
def test_errors(index: int) -> None:
    kind, message, call = ERRORS[index]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dice_takes_half_precision_probabilities(dtype: Any) -> None:
    logits = jax.random.normal(jax.random.key(0), (2, 16, 7), dtype)
    targets = jax.nn.one_hot(jnp.arange(32).reshape(2, 16) % 7, 7)
    got = losses.dice_loss(jax.nn.softmax(logits), targets, apply_softmax=False)
    assert_close(got, losses.dice_loss(logits, targets), rtol=1e-2)


def test_traced_labels_out_of_range_are_nan() -> None:
    def everything(bad: Any, sign: Any, word: Any) -> list[Any]:
        return [
            losses.softmax_cross_entropy_with_integer_labels(f(1, 3), bad),
            losses.multiclass_hinge_loss(f(1, 3), bad),
            losses.multiclass_sparsemax_loss(f(1, 3), bad),
            losses.hinge_loss(f(1), sign),
            losses.sparsemax_loss(f(1), -sign - 1),
            losses.ctc_loss(f(1, 2, 3), f(1, 2) * 0, word, f(1, 1) * 0),
        ]

    compiled = jax.jit(everything)
    for bad in (3, -1):
        for value in compiled(np.array([bad]), np.zeros(1, np.float32), np.array([[bad]])):
            assert np.isnan(value).all()

"""Pooling: values, ties, NaN, padding, and both gradients: by autodiff and by hand."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import pooling as ops
from tests.helpers import assert_close, float64, random, slow, strict
from tests.ops import oracles


class Case(NamedTuple):
    sizes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any = "VALID"

    @property
    def settings(self) -> dict[str, Any]:
        return {"window": self.window, "stride": self.stride, "padding": self.padding}


CASES = [
    Case((7,), (2,), (2,)),
    Case((7,), (3,), (2,), ((2, 2),)),
    Case((5, 6), (3, 2), (1, 2), "SAME"),
    Case((2, 3), (3, 3), (1, 2), ((2, 1), (0, 2))),
    Case((4, 3, 4), (2, 1, 3), (2, 2, 1), "SAME"),
]


@st.composite
def cases(draw) -> Case:
    dims = draw(st.sampled_from([1, 2, 2]))
    per_axis = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(dims))  # noqa: E731
    window = per_axis(1, 2, 3)
    stride = draw(st.sampled_from([window, per_axis(1, 2, 4)]))
    pairs = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    return Case(per_axis(3, 4, 7), window, stride, draw(st.sampled_from(["VALID", "SAME", pairs])))


def arrays(case: Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x of few different values, so that nearly every window holds ties, and an error."""
    x = np.random.default_rng(seed).integers(-1, 2, (2, *case.sizes, 2)).astype(np.float64)
    x[0, 0] = -np.inf  # a window of nothing else must not lose its gradient to the padding
    return x, random(seed, *oracles.pooled_shape(x, case.window, case.stride, case.padding))


def by_autodiff(pool):
    """(x, dy) -> (y, dx) for a pool without an adjoint of its own."""

    def both(x, dy, **settings):
        y, vjp = jax.vjp(lambda x: pool(x, **settings), x)
        return y, vjp(dy)[0]

    return both


def max_by_hand(x, dy, **settings):
    y, winners = ops.max_pool_winners(x, **settings)
    return y, ops.max_pool_input_grad(winners, dy)


def average_by_hand(x, dy, **settings):
    return ops.average_pool(x, **settings), ops.average_pool_input_grad(dy, x.shape[1:-1], **settings)


def check_max(case: Case, *found: Any, seed: int = 0) -> None:
    x, dy = arrays(case, seed)
    expected = oracles.max_pool(x, dy, **case.settings)
    for got in found:
        assert_close(tuple(got), expected, rtol=1e-12, atol=1e-12)


def finite(case: Case) -> tuple[np.ndarray, np.ndarray]:
    x, dy = arrays(case)
    return np.where(np.isinf(x), 3.0, x), dy


def check_average(case: Case, count_padding: bool, *found: Any) -> None:
    x, dy = finite(case)
    expected = oracles.average_pool(x, dy, **case.settings, count_padding=count_padding)
    for got in found:
        assert_close(tuple(got), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(np.vdot(got[0], dy), np.vdot(x, got[1]), rtol=1e-12, atol=1e-12)


def evaluated(calls: dict[str, tuple[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """rule(x, dy, **settings) for each name, by one program in float64."""

    @jax.jit
    def every(given: Any) -> Any:
        return {name: rule(*given[name], **settings) for name, (rule, _, settings) in calls.items()}

    with float64(), strict():
        return every({name: pair for name, (_, pair, _) in calls.items()})


def of_max(case: Case, seed: int = 0) -> dict[str, Any]:
    rules = {"max by autodiff": by_autodiff(ops.max_pool), "max by hand": max_by_hand}
    return {name: (rule, arrays(case, seed), case.settings) for name, rule in rules.items()}


def of_average(case: Case, count_padding: bool) -> dict[str, Any]:
    rules = {"average by autodiff": by_autodiff(ops.average_pool), "average by hand": average_by_hand}
    settings = case.settings | {"count_padding": count_padding}
    return {name: (rule, finite(case), settings) for name, rule in rules.items()}


def test_chosen_geometries():
    found = evaluated(
        {f"{i} {n}": call for i, c in enumerate(CASES) for n, call in (of_max(c) | of_average(c, False)).items()}
    )
    for i, case in enumerate(CASES):
        check_max(case, *(found[f"{i} max {way}"] for way in ("by autodiff", "by hand")))
        check_average(case, False, *(found[f"{i} average {way}"] for way in ("by autodiff", "by hand")))


@pytest.mark.slow
@hypothesis.given(cases(), st.integers(0, 100))
@hypothesis.settings(max_examples=10)
def test_max_pool_and_both_gradients(case, seed):
    check_max(case, *evaluated(of_max(case, seed)).values(), seed=seed)


@pytest.mark.slow
@hypothesis.given(cases(), st.booleans())
@hypothesis.settings(max_examples=10)
def test_average_pool_and_both_gradients(case, count_padding):
    check_average(case, count_padding, *evaluated(of_average(case, count_padding)).values())


def last_tie(x, dy, **settings):
    """Reversing the axes makes the last maximum the first."""
    flip = lambda a: jnp.flip(a, range(1, a.ndim - 1))  # noqa: E731
    return ops.max_pool(x, **settings), flip(max_by_hand(flip(x), flip(dy), **settings)[1])


def shared_tie(x, dy, **settings):
    """jnp.maximum shares the derivative of a tie."""

    def pool(x, *, window, stride, padding):
        whole = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3])
        return whole.max((2, 4))

    return by_autodiff(pool)(x, dy, **settings)


def column_major(x, dy, **settings):
    """The first maximum going down the columns."""
    turn = lambda a: jnp.swapaxes(a, 1, 2)  # noqa: E731
    return ops.max_pool(x, **settings), turn(max_by_hand(turn(x), turn(dy), **settings)[1])


EXACT = Case((6, 6), (2, 2), (2, 2))


def swapped(x, dy, count_padding, **settings):
    """Divided by the window where the entries count, and the other way round."""
    return average_by_hand(x, dy, count_padding=not count_padding, **settings)


def test_broken_tie_rules_and_swapped_divisors_are_caught():
    mutants, padded = (last_tie, shared_tie, column_major), CASES[1]
    found = evaluated(
        {mutant.__name__: (mutant, arrays(EXACT), EXACT.settings) for mutant in (max_by_hand, *mutants)}
        | {
            rule.__name__: (rule, finite(padded), padded.settings | {"count_padding": False})
            for rule in (average_by_hand, swapped)
        }
    )
    check_max(EXACT, found["max_by_hand"])
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_max(EXACT, found[mutant.__name__])
    check_average(padded, False, found["average_by_hand"])
    with pytest.raises(AssertionError):
        check_average(padded, False, found["swapped"])


def check_nan(pool) -> None:
    """A NaN anywhere in a window comes out, and takes the gradient."""
    x = np.ones((4, 4, 1), np.float32)
    x[range(4), range(4)] = np.nan
    for i, y in enumerate(np.asarray(jax.jit(pool)(x.reshape(4, 2, 2, 1)))):
        assert np.isnan(y).all(), f"lost a NaN at entry {i}"


def test_nan_is_not_lost():
    check_nan(lambda x: ops.max_pool(x, window=2))
    check_nan(lambda x: ops.max_pool(x, window=2, stride=1))
    with pytest.raises(AssertionError, match="lost a NaN"):
        check_nan(lambda x: jnp.where(x[:, 0] >= x[:, 1], x[:, 0], x[:, 1]))
    x = np.array([1.0, np.nan, np.nan, 2.0], np.float32).reshape(1, 4, 1)
    _, dx = jax.jit(functools.partial(max_by_hand, window=4))(x, np.ones((1, 1, 1), np.float32))
    np.testing.assert_array_equal(np.ravel(dx), [0, 1, 0, 0])


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), *slow("VALID")])
def test_torch_agrees(padding):
    torch = pytest.importorskip("torch")
    x = random(0, 2, 7, 8, 3)
    theirs = torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)), requires_grad=True)
    settings = {"window": 3, "stride": 2, "padding": padding}
    low = 0 if padding == "VALID" else 1
    pairs = [
        (ops.max_pool, {}, torch.nn.functional.max_pool2d(theirs, 3, 2, low)),
        (ops.average_pool, {}, torch.nn.functional.avg_pool2d(theirs, 3, 2, low)),
        (
            ops.average_pool,
            {"count_padding": False},
            torch.nn.functional.avg_pool2d(theirs, 3, 2, low, count_include_pad=False),
        ),
    ]
    rules = [by_autodiff(functools.partial(pool, **settings, **more)) for pool, more, _ in pairs]
    values = [np.moveaxis(y.detach().numpy(), 1, -1) for *_, y in pairs]
    with float64():
        found = jax.jit(lambda x, dys: [rule(x, dy) for rule, dy in zip(rules, dys, strict=True)])(x, values)
    for (*_, y), value, ours in zip(pairs, values, found, strict=True):
        (dx,) = torch.autograd.grad((y**2).sum() / 2, theirs)
        assert_close(tuple(ours), (value, np.moveaxis(dx.numpy(), 1, -1)), rtol=1e-12)


@pytest.mark.parametrize("padding", [((1, 0), (2, 1)), *slow("SAME")])
def test_flax_agrees(padding):
    linen = pytest.importorskip("flax.linen")
    theirs, ours = {"strides": (2, 1), "padding": padding}, {"window": 3, "stride": (2, 1), "padding": padding}

    @jax.jit
    def both(x):
        found = [(ops.max_pool(x, **ours), linen.max_pool(x, (3, 3), **theirs))]
        for count in (True, False):
            average = linen.avg_pool(x, (3, 3), count_include_pad=count, **theirs)
            found.append((ops.average_pool(x, count_padding=count, **ours), average))
        return found

    of_max, *averages = both(random(0, 2, 7, 8, 3, dtype=np.float32))
    assert_close(*of_max, rtol=0)
    for average in averages:
        assert_close(*average, rtol=1e-5, atol=1e-6)


def check_accumulates(pool) -> None:
    x = jnp.asarray(1 + np.abs(random(0, 1, 32, 32, 1)), jnp.bfloat16)
    got = jax.jit(pool)(x)
    assert got.dtype == jnp.bfloat16
    assert_close(got.ravel(), np.asarray(x, np.float64).mean(keepdims=True).ravel(), rtol=2**-8)


@pytest.mark.slow
def test_half_precision_is_summed_in_float32():
    check_accumulates(lambda x: ops.average_pool(x, window=32))
    with pytest.raises(AssertionError):
        check_accumulates(
            lambda x: jax.lax.scan(lambda s, a: (s + a, None), jnp.zeros((), x.dtype), x.ravel())[0] / 1024
        )
    ones = jnp.ones((1, 20, 1), jnp.bfloat16)
    dx = ops.average_pool_input_grad(jnp.full((1, 18, 1), 3.0, jnp.bfloat16), (20,), window=3, stride=1)
    assert dx.dtype == jnp.bfloat16
    assert_close(dx[0, 2:-2, 0], np.full(16, 3.0), rtol=1e-6)
    assert ops.max_pool(ones, window=2).dtype == jnp.bfloat16


@pytest.mark.slow
def test_whole_numbers_and_batches_of_none():
    assert ops.max_pool(jnp.array([[[3], [7]]], jnp.uint8), window=2, padding="SAME").item() == 7
    assert ops.max_pool(jnp.zeros((0, 4, 4, 1)), window=2).shape == (0, 2, 2, 1)


X = np.zeros((2, 4, 4, 3), np.float32)


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
@pytest.mark.parametrize(
    ("x", "settings", "text"),
    [
        (X[0, 0], {"window": 2}, "must be (N, *spatial, C) with at least one spatial axis, got shape (4, 3)"),
        (X, {"window": 5}, "a window that spans 5 does not fit an axis of size 4"),
        (X, {"window": 0}, "window must be at least 1, got 0"),
        (X, {"window": 2, "stride": 0}, "stride must be at least 1, got 0"),
        (X, {"window": (2, 2, 2)}, "window must be an int or 2 ints"),
        (X, {"window": 2, "padding": ((2, 0), (0, 0))}, "padding (2, 0) must be less than the window 2"),
        (X, {"window": 2, "padding": "same"}, "got 'same'"),
        (X[:1, :0, 0, :1], {"window": 1, "padding": "SAME"}, "size"),
    ],
)
def test_messages(pool, x, settings, text):
    with pytest.raises(ValueError, match=f"^{pool.__name__}: ") as caught:
        pool(x, **settings)
    assert text in str(caught.value)


@pytest.mark.slow
def test_messages_of_type_and_adjoints():
    with pytest.raises(TypeError, match=r"window must be an int or 2 ints, got 2\.5"):
        ops.max_pool(X, window=2.5)
    with pytest.raises(TypeError, match="average_pool: x must have a floating dtype, got int32"):
        ops.average_pool(jnp.zeros((1, 2, 1), jnp.int32), window=2)
    with pytest.raises(ValueError, match=r"the shape of its output, \(2, 2, 2, 3\), got \(2, 4, 4, 3\)"):
        max_by_hand(X, X, window=2)
    with pytest.raises(ValueError, match=r"the shape of its output, \(2, 2, 2, 3\), got \(2, 4, 4, 3\)"):
        ops.average_pool_input_grad(X, (4, 4), window=2)

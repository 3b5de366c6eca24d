"""Pooling: values, ties, NaN, padding, and both gradients: by autodiff and by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import pooling as ops
from tests.helpers import assert_close, float64, random, strict
from tests.ops import oracles

pytestmark = pytest.mark.sampled


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


def check_max(case: Case, *rules, seed: int = 0) -> None:
    x, dy = arrays(case, seed)
    expected = oracles.max_pool(x, dy, **case.settings)
    with float64(), strict():
        for got in jax.jit(lambda x, dy: [rule(x, dy, **case.settings) for rule in rules])(x, dy):
            assert_close(tuple(got), expected, rtol=1e-12, atol=1e-12)


def check_average(case: Case, count_padding: bool, *rules) -> None:
    x, dy = arrays(case)
    x = np.where(np.isinf(x), 3.0, x)
    settings = case.settings | {"count_padding": count_padding}
    expected = oracles.average_pool(x, dy, **settings)
    with float64(), strict():
        for got in jax.jit(lambda x, dy: [rule(x, dy, **settings) for rule in rules])(x, dy):
            assert_close(tuple(got), expected, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(np.vdot(got[0], dy), np.vdot(x, got[1]), rtol=1e-12, atol=1e-12)


@hypothesis.given(cases(), st.integers(0, 100))
@hypothesis.settings(max_examples=10)
def test_max_pool_and_both_gradients(case, seed):
    check_max(case, by_autodiff(ops.max_pool), max_by_hand, seed=seed)


@hypothesis.given(cases(), st.booleans())
@hypothesis.settings(max_examples=10)
def test_average_pool_and_both_gradients(case, count_padding):
    check_average(case, count_padding, by_autodiff(ops.average_pool), average_by_hand)


@pytest.mark.parametrize("case", CASES)
def test_chosen_geometries(case):
    check_max(case, by_autodiff(ops.max_pool), max_by_hand)
    check_average(case, False, by_autodiff(ops.average_pool), average_by_hand)


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


@pytest.mark.parametrize("mutant", [last_tie, shared_tie, column_major])
def test_broken_tie_rules_are_caught(mutant):
    check_max(EXACT, max_by_hand)
    with pytest.raises(AssertionError):
        check_max(EXACT, mutant)


def test_swapped_divisors_are_caught():
    swapped = lambda x, dy, count_padding, **s: average_by_hand(x, dy, count_padding=not count_padding, **s)  # noqa: E731
    check_average(CASES[1], False, average_by_hand)
    with pytest.raises(AssertionError):
        check_average(CASES[1], False, swapped)


def check_nan(pool) -> None:
    """A NaN anywhere in a window comes out, and takes the gradient."""
    for i in range(4):
        x = jnp.ones((1, 2, 2, 1)).at[0, i // 2, i % 2, 0].set(jnp.nan)
        assert np.isnan(pool(x)).all(), f"lost a NaN at entry {i}"


def test_nan_is_not_lost():
    check_nan(lambda x: ops.max_pool(x, window=2))
    check_nan(lambda x: ops.max_pool(x, window=2, stride=1))
    with pytest.raises(AssertionError, match="lost a NaN"):
        check_nan(lambda x: jnp.where(x[:, 0] >= x[:, 1], x[:, 0], x[:, 1]))
    x = np.array([1.0, np.nan, np.nan, 2.0]).reshape(1, 4, 1)
    _, dx = max_by_hand(jnp.asarray(x), jnp.ones((1, 1, 1)), window=4)
    np.testing.assert_array_equal(np.ravel(dx), [0, 1, 0, 0])


@pytest.mark.parametrize("padding", ["VALID", ((1, 1), (1, 1))])
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
    for pool, more, y in pairs:
        (dx,) = torch.autograd.grad((y**2).sum() / 2, theirs)
        with float64():
            rule = by_autodiff(lambda x, pool=pool, more=more: pool(x, **settings, **more))
            ours, ours_dx = jax.jit(rule)(jnp.asarray(x), jnp.asarray(np.moveaxis(y.detach().numpy(), 1, -1)))
            assert_close(ours, np.moveaxis(y.detach().numpy(), 1, -1), rtol=1e-12)
            assert_close(ours_dx, np.moveaxis(dx.numpy(), 1, -1), rtol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", ((1, 0), (2, 1))])
def test_flax_agrees(padding):
    linen = pytest.importorskip("flax.linen")
    x = jnp.asarray(random(0, 2, 7, 8, 3), jnp.float32)
    theirs, ours = {"strides": (2, 1), "padding": padding}, {"window": 3, "stride": (2, 1), "padding": padding}
    assert_close(jax.jit(lambda x: ops.max_pool(x, **ours))(x), linen.max_pool(x, (3, 3), **theirs), rtol=0)
    for count in (True, False):
        got = jax.jit(lambda x, count=count: ops.average_pool(x, count_padding=count, **ours))(x)
        average = linen.avg_pool(x, (3, 3), count_include_pad=count, **theirs)
        assert_close(got, average, rtol=1e-5, atol=1e-6)


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


X = jnp.zeros((2, 4, 4, 3))


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
@pytest.mark.parametrize(
    ("x", "settings", "text"),
    [
        (jnp.zeros((4, 3)), {"window": 2}, "must be (N, *spatial, C) with at least one spatial axis, got shape (4, 3)"),
        (X, {"window": 5}, "a window that spans 5 does not fit an axis of size 4"),
        (X, {"window": 0}, "window must be at least 1, got 0"),
        (X, {"window": 2, "stride": 0}, "stride must be at least 1, got 0"),
        (X, {"window": (2, 2, 2)}, "window must be an int or 2 ints"),
        (X, {"window": 2, "padding": ((2, 0), (0, 0))}, "padding (2, 0) must be less than the window 2"),
        (X, {"window": 2, "padding": "same"}, "got 'same'"),
        (jnp.zeros((1, 0, 1)), {"window": 1, "padding": "SAME"}, "size"),
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

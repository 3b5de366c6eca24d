"""Chains of views: their adjoints, what is merged, and which of them are known to have nothing in common."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.ops.views import Broadcast, Reshape, Reverse, Slice, Transpose, View, broadcast_or_reshape
from tests.helpers import float64, random

SOURCE = (2, 3, 4)


@st.composite
def chains(draw: Any) -> tuple[View, list[Any]]:
    """A view, and its steps before any was merged."""
    view, steps = View(SOURCE), []
    for _ in range(draw(st.integers(0, 5))):
        shape = view.shape
        kind = draw(st.sampled_from(["reshape", "transpose", "reverse", "slice", "broadcast"]))
        if kind == "reshape":
            step: Any = Reshape(draw(st.sampled_from([(math.prod(shape),), (1, *shape), shape, (*shape, 1)])))
        elif kind == "transpose":
            step = Transpose(tuple(draw(st.permutations(range(len(shape))))))
        elif kind == "reverse":
            step = Reverse(tuple(draw(st.sets(st.sampled_from(range(len(shape)))))))
        elif kind == "slice":
            start = tuple(draw(st.integers(0, n - 1)) for n in shape)
            stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
            step = Slice(start, stop, tuple(draw(st.integers(1, 2)) for _ in shape))
        else:
            step = Broadcast((draw(st.integers(1, 2)), *shape), tuple(range(1, len(shape) + 1)))
        view, steps = view.then(step), [*steps, step]
    return view, steps


@given(chains())
def test_the_adjoint_of_any_chain(chain: Any) -> None:
    """<A x, y> = <x, A' y>; merged steps are the steps; views in order have all entries in row-major order."""
    view, steps = chain
    x, y = random(0, *SOURCE), random(1, *view.shape)

    @jax.jit
    def all_three(x: Any, y: Any) -> Any:
        return functools.reduce(lambda value, step: step(value), steps, x), view(x), view.adjoint(y)

    with float64():
        plain, viewed, back = map(np.asarray, all_three(x, y))
    np.testing.assert_array_equal(viewed, plain)
    assert view.shape == plain.shape
    np.testing.assert_allclose(np.vdot(plain, y), np.vdot(x, back), rtol=1e-12, atol=1e-12)
    if view.in_order:
        np.testing.assert_array_equal(np.ravel(plain), x.ravel())
    if not view.repeats:
        assert len(np.unique(plain)) == plain.size


def test_steps_that_undo_each_other_are_dropped() -> None:
    view = View((2, 3))
    assert view.then(Transpose((1, 0))).then(Transpose((1, 0))) == view
    assert view.then(Reshape((6,))).then(Reshape((2, 3))) == view
    assert view.then(Slice((0, 0), (2, 3), (1, 1))) == view
    assert view.then(Reverse(())) == view
    cut = view.then(Slice((0, 1), (2, 3), (1, 1))).then(Slice((1, 0), (2, 2), (1, 1)))
    assert cut.steps == (Slice((1, 1), (2, 3), (1, 1)),)


def test_a_broadcast_that_repeats_nothing_is_a_reshape() -> None:
    assert broadcast_or_reshape(View((3,)), (3, 1), (0,)).in_order
    assert broadcast_or_reshape(View((3,)), (3, 2), (0,)).repeats


def test_slices_apart() -> None:
    """Known to be apart only where no entry is in both."""
    ids = np.arange(12).reshape(3, 4)
    boxes = [Slice((0, 0), (3, 2), (1, 1)), Slice((0, 2), (3, 4), (1, 1)), Slice((1, 1), (2, 4), (1, 1))]
    views = [View((3, 4)).then(box) for box in boxes]
    seen = dict(zip(views, jax.jit(lambda ids: [view(ids) for view in views])(ids), strict=True))
    for one, other in itertools.permutations(views, 2):
        common = np.intersect1d(seen[one], seen[other]).size > 0
        assert one.apart_from(other) is not common
    assert not any(view.apart_from(View((3, 4))) for view in views)

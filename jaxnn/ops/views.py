"""Views of an array: chains of reshapes, transpositions, reversals, slices and broadcasts, with their adjoints.

Views are static, known from shapes alone. The adjoint of a broadcast is a sum, that of a slice a zero padding; for the
others it is the inverse.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.types import Array, Shape
from jaxnn.varying import shape_beside


class Reshape(NamedTuple):
    """The entries in row-major order, in another shape."""

    shape: Shape

    def __call__(self, x: Array) -> Array:
        return lax.reshape(x, self.shape)


class Transpose(NamedTuple):
    """Axis i of the result is axis order[i] of the operand."""

    order: Shape

    def __call__(self, x: Array) -> Array:
        return lax.transpose(x, self.order)


class Reverse(NamedTuple):
    """The entries along `axes` in reverse order."""

    axes: Shape

    def __call__(self, x: Array) -> Array:
        return lax.rev(x, self.axes)


class Slice(NamedTuple):
    """Per axis the indices start, start + stride, ... below stop."""

    start: Shape
    stop: Shape
    stride: Shape

    def __call__(self, x: Array) -> Array:
        return lax.slice(x, self.start, self.stop, self.stride)


class Broadcast(NamedTuple):
    """Axis i of the operand, repeated if of size 1, is axis axes[i] of the result; the other axes repeat it."""

    shape: Shape
    axes: Shape

    def __call__(self, x: Array) -> Array:
        return lax.broadcast_in_dim(x, self.shape, self.axes)


Step: TypeAlias = Reshape | Transpose | Reverse | Slice | Broadcast


@dataclasses.dataclass(frozen=True)
class View:
    """A chain of steps from an array of shape `source`.

    Example:
        >>> view = View((2, 3)).then(Transpose((1, 0))).then(Slice((1, 0), (3, 2), (1, 1)))
        >>> view.shape, view(jnp.arange(6.0).reshape(2, 3))
        ((2, 2), Array([[1., 4.],
               [2., 5.]], dtype=float32))
        >>> view.adjoint(jnp.ones((2, 2)))
        Array([[0., 1., 1.],
               [0., 1., 1.]], dtype=float32)
    """

    source: Shape
    steps: tuple[Step, ...] = ()

    def __call__(self, x: Array) -> Array:
        for step in self.steps:
            x = step(x)
        return x

    def adjoint(self, y: Array) -> Array:
        """A' y, of shape `source`, for y of shape `shape`, A this view: <A x, y> = <x, A' y>."""
        if not self.steps:
            return y
        (x,) = jax.linear_transpose(self, shape_beside(y, self.source))(y)
        return x

    @functools.cached_property
    def shape(self) -> Shape:
        """The shape of the view."""
        return jax.eval_shape(self, jax.ShapeDtypeStruct(self.source, jnp.float32)).shape

    def then(self, step: Step) -> View:
        """The view followed by a step. Identities (but a `Broadcast`) are dropped; a transposition, reshape or slice of
        stride 1 is merged with one of its kind before it."""
        last = self.steps[-1] if self.steps else None
        earlier = dataclasses.replace(self, steps=self.steps[:-1])
        match last, step:
            case Transpose(), Transpose():
                return earlier.then(Transpose(tuple(last.order[i] for i in step.order)))
            case Reshape(), Reshape():
                return earlier.then(step)
            case (Slice(), Slice()) if set(last.stride) == set(step.stride) == {1}:
                start = tuple(a + b for a, b in zip(last.start, step.start, strict=True))
                stop = tuple(a + b for a, b in zip(last.start, step.stop, strict=True))
                return earlier.then(Slice(start, stop, step.stride))
        kept = (*self.steps, step)
        return self if self._is_idle(step) else dataclasses.replace(self, steps=kept)

    def _is_idle(self, step: Step) -> bool:
        match step:
            case Transpose():
                return step.order == tuple(range(len(step.order)))
            case Reshape():
                return step.shape == self.shape
            case Slice():
                return set(step.start) <= {0} and set(step.stride) <= {1} and step.stop == self.shape
            case Reverse():
                return not step.axes
        return False

    @property
    def in_order(self) -> bool:
        """Whether all steps are reshapes: then the view is a bijection that keeps row-major order."""
        return all(isinstance(step, Reshape) for step in self.steps)

    @property
    def repeats(self) -> bool:
        """Whether the view may repeat entries (may not be injective)."""
        return any(isinstance(step, Broadcast) for step in self.steps)

    def apart_from(self, other: View) -> bool:
        """Whether two views of one source are known to be disjoint: both begin with a slice, of disjoint ranges."""
        mine, theirs = (view.steps[0] if view.steps else None for view in (self, other))
        if not isinstance(mine, Slice) or not isinstance(theirs, Slice):
            return False
        edges = zip(mine.start, mine.stop, theirs.start, theirs.stop, strict=True)
        return any(a_stop <= b_start or b_stop <= a_start for a_start, a_stop, b_start, b_stop in edges)


def broadcast_or_reshape(view: View, shape: Shape, axes: Shape) -> View:
    """`view` followed by a `Broadcast`, or by a `Reshape` if the size does not change."""
    same_size = math.prod(shape) == math.prod(view.shape)
    return view.then(Reshape(shape) if same_size else Broadcast(shape, axes))

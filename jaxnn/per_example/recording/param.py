"""Variables that are views of parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxnn.ops.views import View
from jaxnn.types import Shape


class Param(NamedTuple):
    """`scale` times a view of a parameter.

    Attributes:
        leaf: the index of the parameter in `Arguments.leaves`.
        view: from the parameter to the value; inside loops over its slices, to the values of all iterations, with a
            leading axis for each such loop.
        scale: a constant factor.
        stacked: for each enclosing loop, outermost first, whether the loop runs over its slices (else all iterations
            share it).
        base: the variable that `view` and `scale` start from, where it is not the parameter itself but a slice of it
            inside a loop (`streaming`).
        outer: the constant factor between the parameter and `base`.
    """

    leaf: int
    view: View
    scale: float = 1.0
    stacked: tuple[bool, ...] = ()
    base: Any = None
    outer: float = 1.0

    @property
    def loops(self) -> int:
        """The number of leading axes of `view` that are loops."""
        return sum(self.stacked)

    @property
    def shape(self) -> Shape:
        """The shape of the value in one iteration."""
        return self.view.shape[self.loops :]

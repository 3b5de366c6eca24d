"""What is known of a variable that is a parameter, or a view of one."""

from __future__ import annotations

from typing import NamedTuple

from jaxnn.ops.views import View
from jaxnn.types import Shape


class Param(NamedTuple):
    """`scale` times a view of a parameter.

    Attributes:
        leaf: which parameter, counted as `jax.tree.leaves` does.
        view: from the parameter to the value; inside loops that run over slices of it, to those of all iterations,
            with an axis in front for each such loop.
        scale: a number by which it was multiplied on the way.
        stacked: for each loop around it, outermost first, whether the loop runs over slices of it (else all
            iterations share it).
    """

    leaf: int
    view: View
    scale: float = 1.0
    stacked: tuple[bool, ...] = ()

    @property
    def loops(self) -> int:
        """How many axes of `view` are those of loops."""
        return sum(self.stacked)

    @property
    def shape(self) -> Shape:
        """The shape of the value in one iteration."""
        return self.view.shape[self.loops :]

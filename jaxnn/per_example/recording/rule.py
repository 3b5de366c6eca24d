"""What a rule is, and the order of axes that all rules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from jaxnn.ops.views import View
from jaxnn.per_example.recording.param import Param
from jaxnn.tape import Placed, Unplaced, Use
from jaxnn.types import Array, PyTree, Shape


def not_cut(equation: JaxprEqn, at: int, axis: int) -> None:
    """No parts."""
    return None


class OpRule(NamedTuple):
    """How an operation with a parameter for an operand is recorded.

    Attributes:
        fits: (equation, at, param) -> whether the rule covers this geometry, the parameter being operand `at`.
        seen: (equation, at, operands) -> the arrays that the gradient depends on besides the error, of one example.
        use: (equation, at, param, seen, delta) -> the use, from arrays with axes (N, loops..., those of one example).
        cut: (equation, at, axis) -> the axes of what is seen and of the result along which a part of the parameter
            along that axis has its part, each None if it has all of it; None if such parts are not covered.
    """

    fits: Callable[[JaxprEqn, int, Param], bool]
    seen: Callable[[JaxprEqn, int, Sequence[Array]], PyTree]
    use: Callable[[JaxprEqn, int, Param, PyTree, Array], Use]
    cut: Callable[[JaxprEqn, int, int], tuple[int | None, int | None] | None] = not_cut


class Axes:
    """Arrays (N, loops..., own axes) in the order (N, T, ...): loops that share the parameter count as positions T.

    Loops that run over slices of the parameter are groups, each with a slice of its own.
    """

    def __init__(self, param: Param) -> None:
        self.shared = [1 + i for i, stacked in enumerate(param.stacked) if not stacked]
        self.stacked = [1 + i for i, stacked in enumerate(param.stacked) if stacked]
        self.first = 1 + len(param.stacked)

    def arranged(self, x: Array, times: Sequence[int], groups: Sequence[int], *rest: Sequence[int]) -> Array:
        """(N, shared loops and `times`, stacked loops and `groups`, each of `rest`), own axes counted from 0."""
        own = [self.first + axis for axis in range(x.ndim - self.first)]
        blocks = [
            [0],
            self.shared + [own[i] for i in times],
            self.stacked + [own[i] for i in groups],
            *([own[i] for i in block] for block in rest),
        ]
        sizes = [math.prod(x.shape[axis] for axis in block) for block in blocks]
        return jnp.transpose(x, [axis for block in blocks for axis in block]).reshape(sizes)


def placed(use: Unplaced, view: View) -> Use:
    """The use of a view of a parameter; as it is where the view has the entries in order."""
    return use if view.in_order else Placed(use, view)


def evaluated(equation: JaxprEqn, operands: Sequence[Array]) -> list[Array]:
    """What an equation makes of its operands, those that are literals among them."""
    given = {v: x for v, x in zip(equation.invars, operands, strict=True) if not isinstance(v, Literal)}
    names = DebugInfo("record", equation.primitive.name, None, None)
    jaxpr = Jaxpr((), list(given), equation.outvars, [equation], debug_info=names)
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))(*given.values())


def shape_of(v: Any) -> Shape:
    """The shape of a variable."""
    return tuple(v.aval.shape)

"""`OpRule`, and the order of axes that all rules share."""

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
    """The `cut` of a rule that does not cover concatenated parameters."""
    return None


class OpRule(NamedTuple):
    """How an operation with a parameter as operand `at` is recorded.

    Attributes:
        fits: (equation, at, param) -> whether the rule covers this geometry.
        seen: (equation, at, operands) -> the arrays, of one example, that the gradient depends on besides delta; behind
            the operands are all results but the first.
        use: (equation, at, param, seen, delta) -> the use, from arrays with axes (N, loops..., those of one example).
        cut: (equation, at, axis) -> the axes of `seen` and of the result that correspond to this axis of the parameter,
            None for one without such an axis; None instead of the pair if the rule does not cover slices along it.
        takes_value: whether `use` needs the parameter's value there: it gets a pair (seen, value).
    """

    fits: Callable[[JaxprEqn, int, Param], bool]
    seen: Callable[[JaxprEqn, int, Sequence[Array]], PyTree]
    use: Callable[[JaxprEqn, int, Param, PyTree, Array], Use]
    cut: Callable[[JaxprEqn, int, int], tuple[int | None, int | None] | None] = not_cut
    takes_value: bool = False


class Axes:
    """Arrays (N, loops..., own axes) transposed to (N, T, groups, ...).

    Loops that share the parameter are positions T; loops over its slices are groups, each with its own slice.
    """

    def __init__(self, param: Param) -> None:
        self.shared = [1 + i for i, stacked in enumerate(param.stacked) if not stacked]
        self.stacked = [1 + i for i, stacked in enumerate(param.stacked) if stacked]
        self.first = 1 + len(param.stacked)

    def arranged(self, x: Array, times: Sequence[int], groups: Sequence[int], *rest: Sequence[int]) -> Array:
        """x as (N, shared loops and `times`, stacked loops and `groups`, *`rest`), own axes counted from 0."""
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
    """The use of a view of a parameter; the use itself if the view keeps row-major order."""
    return use if view.in_order else Placed(use, view)


def evaluated(equation: JaxprEqn, operands: Sequence[Array]) -> list[Array]:
    """The results of an equation for these operands, literals included."""
    # Through jaxpr_as_fun, since a bare `primitive.bind` does not handle primitives with an inner jaxpr.
    given = {v: x for v, x in zip(equation.invars, operands, strict=True) if not isinstance(v, Literal)}
    names = DebugInfo("record", equation.primitive.name, None, None)
    jaxpr = Jaxpr((), list(given), equation.outvars, [equation], debug_info=names)
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))(*given.values())


def interpreted(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    operands: Sequence[Any],
    evaluate: Callable[[int, JaxprEqn, list[Any]], Sequence[Any]],
) -> list[Any]:
    """The results of a jaxpr whose i-th equation is evaluated by evaluate(i, equation, operands of the equation)."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else values[v]

    for i, equation in enumerate(jaxpr.eqns):
        results = evaluate(i, equation, [value(v) for v in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]


def shape_of(v: Any) -> Shape:
    """The shape of a variable."""
    return tuple(v.aval.shape)

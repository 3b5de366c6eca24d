"""Concatenated parameters: each has its own uses, of its slice of an operation."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from jax import lax
from jax.extend.core import JaxprEqn

from jaxnn.ops.views import Reshape, Transpose
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import OpRule
from jaxnn.per_example.recording.viewing import SAME, viewed
from jaxnn.types import Array


class Concatenated(NamedTuple):
    """Views of parameters, concatenated along `axis` of the value in one iteration."""

    parts: tuple[Param, ...]
    axis: int

    @property
    def ends(self) -> list[tuple[Param, int, int]]:
        """(part, start, stop) along the axis."""
        edges = itertools.accumulate((part.shape[self.axis] for part in self.parts), initial=0)
        return [(part, low, high) for part, (low, high) in zip(self.parts, itertools.pairwise(edges), strict=True)]


def concatenated(equation: JaxprEqn, parts: list[Param]) -> Concatenated | None:
    """The result of an equation that concatenates or stacks parameters alone; None for any other."""
    if equation.primitive.name == "concatenate":
        return Concatenated(tuple(parts), equation.params["dimension"])
    if equation.primitive.name == "stack":
        axis = equation.params["axis"]
        return Concatenated(tuple(_with_axis(part, axis) for part in parts), axis)
    return None


def viewed_concatenated(equation: JaxprEqn, value: Concatenated) -> Concatenated | None:
    """The result of a cast, scaling, transposition or change of axes of size 1; None for any other equation."""
    name = equation.primitive.name
    if name in (*SAME, "convert_element_type", "neg", "mul", "div"):
        found = [viewed(equation, part) for part in value.parts]
        kept = [parts[0] for parts in found if parts is not None]
        return Concatenated(tuple(kept), value.axis) if len(kept) == len(found) else None
    if name == "transpose":
        order = equation.params["permutation"]
        steps = [Transpose((*range(p.loops), *(p.loops + i for i in order))) for p in value.parts]
        parts = [p._replace(view=p.view.then(step)) for p, step in zip(value.parts, steps, strict=True)]
        return Concatenated(tuple(parts), order.index(value.axis))
    reordered = name == "reshape" and equation.params["dimensions"] is not None
    return _with_new_axes(equation, value) if name in ("reshape", "broadcast_in_dim") and not reordered else None


def _with_axis(part: Param, axis: int) -> Param:
    around, own = part.view.shape[: part.loops], part.shape
    return part._replace(view=part.view.then(Reshape((*around, *own[:axis], 1, *own[axis:]))))


def _with_new_axes(equation: JaxprEqn, value: Concatenated) -> Concatenated | None:
    """The result of adding or dropping axes of size 1, as for a bias before its sum; other reshapes may mix parts."""
    (operand, *more), result = equation.invars, equation.outvars[0]
    before, after = _shape(operand), _shape(result)
    longer = [i for i, n in enumerate(before) if n != 1]
    there = [i for i, n in enumerate(after) if n != 1]
    if more or value.axis not in longer or [before[i] for i in longer] != [after[i] for i in there]:
        return None
    axis = there[longer.index(value.axis)]

    def extended(part: Param) -> Param:
        shape = (*after[:axis], part.shape[value.axis], *after[axis + 1 :])
        return part._replace(view=part.view.then(Reshape((*part.view.shape[: part.loops], *shape))))

    return Concatenated(tuple(extended(part) for part in value.parts), axis)


def _shape(v: Any) -> tuple[int, ...]:
    return tuple(v.aval.shape)


class ParamPart(NamedTuple):
    """A parameter and its part of an operation: all of it, or start to stop along the axis `seen` of the other operand
    and the axis `result` of the result."""

    param: Param
    seen: int | None = None
    result: int | None = None
    start: int = 0
    stop: int = 0

    def of_seen(self, x: Any) -> Any:
        """Its part of the other operand (N, loops..., own axes)."""
        return None if x is None else self._cut(x, self.seen)

    def of_result(self, x: Array) -> Array:
        """Its part of the result or its cotangent (N, loops..., own axes)."""
        return self._cut(x, self.result)

    def _cut(self, x: Array, axis: int | None) -> Array:
        if axis is None:
            return x
        return lax.slice_in_dim(x, self.start, self.stop, axis=1 + len(self.param.stacked) + axis)


def param_parts(value: Param | Concatenated, rule: OpRule, equation: JaxprEqn, at: int) -> tuple[ParamPart, ...] | None:
    """The parts of an equation with this operand; None if the rule does not cover one of them."""
    if isinstance(value, Param):
        return (ParamPart(value),) if rule.fits(equation, at, value) else None
    axes = rule.cut(equation, at, value.axis)
    if axes is None or not all(rule.fits(equation, at, param) for param in value.parts):
        return None
    return tuple(ParamPart(param, *axes, low, high) for param, low, high in value.ends)


def leaves_of(value: Param | Concatenated) -> list[int]:
    """The indices of the parameters in a value."""
    return [value.leaf] if isinstance(value, Param) else [param.leaf for param in value.parts]

"""Operations whose result is a view of a parameter, through which it is followed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

from jaxnn.ops.views import Reshape, Reverse, Slice, Step, Transpose, broadcast_or_reshape
from jaxnn.per_example.recording.param import Param
from jaxnn.types import Shape

VARYING = ("pvary", "pcast")
"""Casts to arrays that vary over mesh axes, inside `shard_map`."""

SAME = ("copy", "copy_p", "name", "sharding_constraint", "device_put", "reshard", *VARYING)
"""Operations that return their operand."""


def viewed(equation: JaxprEqn, param: Param) -> list[Param] | None:
    """The results of an equation if all are views of its operand `param`; else None."""
    name = equation.primitive.name
    if name in SAME and len(equation.invars) == 1:
        return [param]
    if name == "convert_element_type":  # not to complex: only the real part of that cotangent counts
        return [param] if jnp.issubdtype(equation.params["new_dtype"], jnp.floating) else None
    if name in ("neg", "mul", "div"):
        scale = _scale(equation)
        return None if scale is None else [param._replace(scale=param.scale * scale)]
    if name == "broadcast_in_dim" and len(equation.invars) == 1:
        loops, around = param.loops, param.view.shape[: param.loops]
        axes = (*range(loops), *(loops + axis for axis in equation.params["broadcast_dimensions"]))
        return [param._replace(view=broadcast_or_reshape(param.view, (*around, *_shape(equation)), axes))]
    if name == "reshape" and (order := equation.params["dimensions"]) is not None:  # of the operand's axes, first
        param = param._replace(view=param.view.then(_order(param, order)))
    if name == "split":
        return [param._replace(view=param.view.then(step)) for step in _parts(equation, param)]
    step = STEPS[name](equation, param) if name in STEPS else None
    return None if step is None else [param._replace(view=param.view.then(step))]


def _shape(equation: JaxprEqn) -> Shape:
    result: Any = equation.outvars[0]
    return tuple(result.aval.shape)


def _scale(equation: Any) -> float | None:
    """The factor that a negation, product or quotient applies to its parameter, if it is a literal; else None."""
    if equation.primitive.name == "neg":
        return -1.0
    left, right = (_number(v) for v in equation.invars)
    if equation.primitive.name == "div":
        return 1 / right if right else None
    return right if left is None else left


def _number(v: Any) -> float | None:
    return float(v.val) if isinstance(v, Literal) and jnp.ndim(v.val) == 0 else None


def _reshape(equation: JaxprEqn, param: Param) -> Step | None:
    if len(equation.invars) > 1:  # dynamic sizes
        return None
    return Reshape((*param.view.shape[: param.loops], *_shape(equation)))


def _transpose(equation: JaxprEqn, param: Param) -> Step | None:
    return _order(param, equation.params["permutation"])


def _order(param: Param, order: Sequence[int]) -> Transpose:
    return Transpose((*range(param.loops), *(param.loops + axis for axis in order)))


def _reverse(equation: JaxprEqn, param: Param) -> Step | None:
    return Reverse(tuple(param.loops + axis for axis in equation.params["dimensions"]))


def _slice(equation: JaxprEqn, param: Param) -> Step | None:
    settings = equation.params
    strides = settings["strides"] or (1,) * len(settings["start_indices"])
    return sliced(param, settings["start_indices"], settings["limit_indices"], strides)


def _dynamic_slice(equation: JaxprEqn, param: Param) -> Step | None:
    """A slice with literal start indices, clamped to the array as in XLA; else None."""
    sizes, starts = equation.params["slice_sizes"], equation.invars[1:]
    known = [int(v.val) for v in starts if isinstance(v, Literal)]
    if len(known) < len(sizes):
        return None
    places = zip(known, sizes, param.shape, strict=True)
    start = tuple(min(max(place, 0), n - size) for place, size, n in places)
    return sliced(param, start, tuple(a + size for a, size in zip(start, sizes, strict=True)), (1,) * len(sizes))


def _parts(equation: JaxprEqn, param: Param) -> list[Step]:
    axis, ends = equation.params["axis"], list(itertools.accumulate(equation.params["sizes"], initial=0))
    steps = []
    for low, high in itertools.pairwise(ends):
        start, stop = [0] * len(param.shape), list(param.shape)
        start[axis], stop[axis] = low, high
        steps.append(sliced(param, tuple(start), tuple(stop), (1,) * len(stop)))
    return steps


def sliced(param: Param, start: Shape, stop: Shape, stride: Shape) -> Step:
    """A slice of the value in one iteration, applied to all iterations."""
    around = param.view.shape[: param.loops]
    ones = (1,) * len(around)
    return Slice((*(0 for _ in around), *start), (*around, *stop), (*ones, *stride))


STEPS: dict[str, Callable[[JaxprEqn, Param], Step | None]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "rev": _reverse,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
}

"""Element-wise operations of two operands: sums (biases), products (scales), maxima, powers, ..."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxnn.numerics import accumulate
from jaxnn.ops.views import Broadcast, View
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import Axes, OpRule, evaluated, placed, shape_of
from jaxnn.tape import Addition, Scaling, Use
from jaxnn.types import Array


def _fits(equation: JaxprEqn, at: int, param: Param) -> bool:
    return equation.primitive.name != "select_n" or at > 0


def _derivative(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> Array:
    """dz/dw at each element of the result."""

    def of_parameter(w: Array) -> Array:
        return evaluated(equation, [*operands[:at], w, *operands[at + 1 :]])[0]

    w = jnp.asarray(operands[at])
    return jax.jvp(of_parameter, (w,), (jnp.ones_like(w),))[1]


def _nothing(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> None:
    return None


def _use(equation: JaxprEqn, at: int, param: Param, a: Array | None, delta: Array) -> Use:
    """g = view'(a . delta): a sum over the axes along which the parameter is broadcast."""
    view, result = param.view, tuple(delta.shape[1 + len(param.stacked) :])
    if param.shape != result:  # axes of size 1, or one number against an array
        view = view.then(Broadcast((*view.shape[: param.loops], *result), tuple(range(len(view.shape)))))
    before, times, kept = _repeated(view, param.loops)
    if before.repeats:
        return _summed(view, param, a, delta)
    axes = Axes(param)

    def arranged(x: Array) -> Array:
        ordered = axes.arranged(x, [i - param.loops for i in times], [], [i - param.loops for i in kept])
        return ordered.reshape(*ordered.shape[:2], math.prod(ordered.shape[2:]))

    return placed(Addition(arranged(delta)) if a is None else Scaling(arranged(a), arranged(delta)), before)


def _repeated(view: View, loops: int) -> tuple[View, list[int], list[int]]:
    """The view before its last step, if that is a broadcast; the axes that it repeats; those that it keeps.

    Repeated axes become positions T. Loop axes are in neither list."""
    own = list(range(loops, len(view.shape)))
    last = view.steps[-1] if view.steps else None
    if not isinstance(last, Broadcast):
        return view, [], own
    before = View(view.source, view.steps[:-1])
    same = {there for here, there in enumerate(last.axes) if before.shape[here] == last.shape[there]}
    if not same.issuperset(range(loops)):  # the loop repeats the parameter: not a slice for each iteration
        return view, [], own
    return before, [i for i in own if i not in same], [i for i in own if i in same]


def _summed(view: View, param: Param, a: Array | None, delta: Array) -> Use:
    """Materialized gradients, by the adjoint of a view that is not injective before its last step."""
    whole = accumulate(delta) if a is None else accumulate(a) * accumulate(delta)
    own = range(whole.ndim - 1 - len(param.stacked))
    arranged = Axes(param).arranged(whole, [], [], *([i] for i in own))
    sums = jnp.sum(arranged, axis=1)

    def back(x: Array) -> Array:
        return view.adjoint(x.reshape(view.shape)).reshape(1, -1)

    return Addition(jax.vmap(back)(sums.reshape(sums.shape[0], math.prod(sums.shape[1:]))))


def _cut(equation: JaxprEqn, at: int, axis: int) -> tuple[int | None, int | None] | None:
    before, after = shape_of(equation.invars[at]), shape_of(equation.outvars[0])
    return (axis, axis) if len(before) == len(after) and before[axis] == after[axis] else None


def _use_negative(equation: JaxprEqn, at: int, param: Param, a: None, delta: Array) -> Use:
    return _use(equation, at, param, a, delta if at == 0 else -delta)


ADD = OpRule(_fits, _nothing, _use, _cut)
"""z = w + x."""

SUBTRACT = OpRule(_fits, _nothing, _use_negative, _cut)
"""z = w - x or z = x - w."""

POINTWISE = OpRule(_fits, _derivative, _use, _cut)
"""z = f(w, x), element-wise."""

"""Convolutions: `conv_general_dilated` with a parameter as its kernel, in any layout."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from jaxnn.ops.views import Transpose
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import Axes, OpRule, placed
from jaxnn.tape import Convolution, Use
from jaxnn.types import Array


def _fits(equation: JaxprEqn, at: int, param: Param) -> bool:
    return at == 1 and not param.view.repeats and equation.params["batch_group_count"] == 1


def _seen(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> Array:
    return operands[0]


def _use(equation: JaxprEqn, at: int, param: Param, x: Array, delta: Array) -> Use:
    """A convolution (N, rows, *spatial, C). The rows of an example (its batch axis, loops that share the kernel) are a
    spatial axis with window 1; loops over slices of the kernel are channel groups."""
    settings = equation.params
    lhs, rhs, out = (tuple(spec) for spec in settings["dimension_numbers"])
    axes = Axes(param)

    def channels_last(x: Array, spec: tuple[int, ...]) -> Array:
        rows, channel, *spatial = spec
        ordered = axes.arranged(x, [rows], [], *([axis] for axis in spatial), [channel])
        ordered = jnp.moveaxis(ordered, 2, -2)  # (N, rows, *spatial, stacked, C)
        return ordered.reshape(*ordered.shape[:-2], ordered.shape[-2] * ordered.shape[-1])

    a, error = channels_last(x, lhs), channels_last(delta, out)
    pads = tuple((int(low), int(high)) for low, high in settings["padding"])
    # `tape.Convolution` has neither input dilation nor negative padding: both are applied to a itself.
    if set(settings["lhs_dilation"]) != {1} or min((min(pair) for pair in pads), default=0) < 0:
        spread = [(low, high, step - 1) for (low, high), step in zip(pads, settings["lhs_dilation"], strict=True)]
        a = lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), (0, 0, 0), *spread, (0, 0, 0)])
        pads = ((0, 0),) * len(pads)
    stride, dilation = tuple(settings["window_strides"]), tuple(settings["rhs_dilation"])
    window = tuple(param.shape[axis] for axis in rhs[2:])
    if a.shape[1] == 1 and window:
        a, error = a[:, 0], error[:, 0]
    else:
        window, stride, dilation, pads = (1, *window), (1, *stride), (1, *dilation), ((0, 0), *pads)

    outputs, inputs, *spatial = (param.loops + axis for axis in rhs)
    view = param.view.then(Transpose((*spatial, inputs, *range(param.loops), outputs)))
    groups = settings["feature_group_count"]
    for size in param.view.shape[: param.loops]:
        groups *= size
    return placed(Convolution(a, error, window, stride, pads, dilation, groups), view)


CONVOLUTION = OpRule(_fits, _seen, _use)
"""`lax.conv_general_dilated`."""

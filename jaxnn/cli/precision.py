"""`--precision`: the dtype in which a network is trained; its parameters are float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from jaxnn import optim, train
from jaxnn.train.step import ValueAndGrad
from jaxnn.types import Params

PRECISIONS: TypeAlias = Literal["float32", "bfloat16", "float16"]

EvaluatedAt: TypeAlias = Callable[[Any, Params], Params]
"""(opt_state, params) -> the parameters at which a network is evaluated."""


def in_precision(precision: PRECISIONS, vg: ValueAndGrad) -> ValueAndGrad:
    """The value and gradient with the network in that precision."""
    return vg if precision == "float32" else train.precision(vg, precision)


def scaled(precision: PRECISIONS, opt: optim.Optimizer) -> optim.Optimizer:
    """The optimizer; for float16 with the scale of the loss in its state."""
    return optim.dynamic_loss_scale(opt) if precision == "float16" else opt


def of_scaled(precision: PRECISIONS, evaluated_at: EvaluatedAt | None) -> EvaluatedAt | None:
    """`evaluated_at` of an optimizer, as a function of the state of the `scaled` one."""
    if evaluated_at is None or precision != "float16":
        return evaluated_at
    return lambda opt_state, params: evaluated_at(opt_state.inner_state, params)

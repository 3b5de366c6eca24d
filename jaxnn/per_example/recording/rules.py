"""The table of operations with a rule: the gradient of a parameter from the other operands and the result's cotangent.

A parameter in any other operation falls back to per-example differentiation. To add a rule, put an `OpRule` into
`OP_RULES` by the name of the primitive.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxnn.per_example.recording.convolutions import CONVOLUTION
from jaxnn.per_example.recording.lookups import DYNAMIC_SLICE, GATHER
from jaxnn.per_example.recording.pointwise import ADD, POINTWISE, SUBTRACT
from jaxnn.per_example.recording.products import DOT_GENERAL
from jaxnn.per_example.recording.rule import OpRule
from jaxnn.per_example.recording.softmax import SOFTMAX_PRODUCT, class_axis_of

OP_RULES: dict[str, OpRule] = {
    "dot_general": DOT_GENERAL,
    "conv_general_dilated": CONVOLUTION,
    "gather": GATHER,
    "dynamic_slice": DYNAMIC_SLICE,
    "add": ADD,
    "add_any": ADD,
    "sub": SUBTRACT,
    **dict.fromkeys(("mul", "div", "max", "min", "pow", "atan2", "select_n"), POINTWISE),
}
"""By the name of the primitive."""


def op_rule_of(equation: JaxprEqn) -> OpRule | None:
    """The rule of an equation, or None; rules do not cover complex results, whose cotangents are complex."""
    result: Any = equation.outvars[0]
    if class_axis_of(equation) is not None:
        return SOFTMAX_PRODUCT
    return OP_RULES.get(equation.primitive.name) if jnp.issubdtype(result.aval.dtype, jnp.floating) else None


def has_derivative(equation: JaxprEqn) -> bool:
    """Whether an equation may have a nonzero derivative: not with integer results alone, nor `stop_gradient`."""
    if equation.primitive.name == "stop_gradient":
        return False
    results: list[Any] = list(equation.outvars)
    return any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in results)

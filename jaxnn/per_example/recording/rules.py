"""Operations of which it is known how a parameter's gradient follows from what they saw and the error at their result.

An operation outside this table makes its parameter fall back to per-example differentiation. A rule of one's own is
an `OpRule` in `OP_RULES`, by the name of the primitive.
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
    """The rule of an equation, if there is one: a complex result sends back more than a real parameter's error."""
    result: Any = equation.outvars[0]
    return OP_RULES.get(equation.primitive.name) if jnp.issubdtype(result.aval.dtype, jnp.floating) else None


def has_derivative(equation: JaxprEqn) -> bool:
    """Whether any error can come back through an equation: not through integers, nor where the user stopped it."""
    if equation.primitive.name == "stop_gradient":
        return False
    results: list[Any] = list(equation.outvars)
    return any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in results)

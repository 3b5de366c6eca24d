"""Floating-point operations of a function's matrix products and convolutions, counted without computing anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """The operations in the products of `function(*arguments)`: 2 for each multiplication with its addition.

    A product (M, K) by (K, N) has 2 M K N; a convolution 2 for each output, position of the window and input channel of
    the group. Element-wise operations, sums and lookups do not count. The body of a `lax.scan` counts once for each
    iteration, that of a `lax.while_loop` once, of `lax.cond` the larger branch.

    Args:
        function, arguments: arrays or `jax.ShapeDtypeStruct`s; the function is traced, not run.

    Example:
        >>> import jax.numpy as jnp
        >>> flops(jnp.matmul, jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.ShapeDtypeStruct((3, 4), jnp.float32))
        48
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        outputs = kernel[numbers.rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * (math.prod(kernel) // outputs)
    inner = [_of_jaxpr(getattr(value, "jaxpr", value)) for value in _jaxprs(params)]
    if name == "cond":
        return max(inner, default=0)
    return params["length"] * sum(inner) if name == "scan" else sum(inner)


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """The functions among the parameters of an equation."""
    found: list[Any] = []
    for value in params.values():
        found += [each for each in (value if isinstance(value, tuple | list) else [value]) if hasattr(each, "eqns")]
    return found

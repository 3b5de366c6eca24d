"""The matrix product with its bias, and their adjoints.

Rows are examples, y = x w + b with w (in, out); the W of z = W a + b for a column a is w', (out, in).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import Precision, accumulate, dot_general
from jaxnn.types import Array


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """The affine map y = x w + b on the last axis.

    Args:
        x: inputs (..., D_in), floating.
        w: weights (D_in, D_out).
        b: bias (D_out,), or None.

    Returns:
        (..., D_out) in the promoted dtype of x and w; sums run in float32 (float64 for float64). In half precision the
        product is rounded before the bias is added, and once more.

    Example:
        >>> linear(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(4)).shape
        (2, 4)
    """
    dtype = jnp.promote_types(x.dtype, w.dtype)
    contract_last_with_first = (((x.ndim - 1,), (0,)), ((), ()))
    # XLA accumulates in float32 on every platform. A float32 result would have a float32 cotangent, and by `jax.grad`
    # the products of the backward pass would have one float32 operand: no tensor cores.
    y = lax.dot_general(x.astype(dtype), w.astype(dtype), contract_last_with_first)
    return (y if b is None else add_bias(y, b)).astype(dtype)


def linear_input_grad(w: Array, dy: Array) -> Array:
    """The adjoint of `linear` in x: dx = dy w'.

    Args:
        w: weights (D_in, D_out).
        dy: cotangent (..., D_out) of the output.

    Returns:
        dx (..., D_in) in the dtype of dy.

    Example:
        >>> linear_input_grad(jnp.ones((3, 4)), jnp.ones((2, 4))).shape
        (2, 3)
    """
    contract_last_with_last = (((dy.ndim - 1,), (1,)), ((), ()))
    return lax.dot_general(dy, w.astype(dy.dtype), contract_last_with_last)  # see `linear`


def linear_weight_grad(x: Array, dy: Array, precision: Precision = None) -> Array:
    """The adjoint of `linear` in w: dw = sum over all leading axes of x' dy.

    Args:
        x: inputs (..., D_in).
        dy: cotangent (..., D_out) of the output, with the same leading axes.
        precision: as for `numerics.dot_general`.

    Returns:
        dw (D_in, D_out) in the accumulation dtype.

    Example:
        >>> linear_weight_grad(jnp.ones((2, 3)), jnp.ones((2, 4)))[0, 0]
        Array(2., dtype=float32)
    """
    # Merge the leading axes: with several, XLA transposes x into a copy before the product.
    rows, cotangents = (z.reshape(math.prod(z.shape[:-1]), z.shape[-1]) for z in (x, dy))
    return dot_general(rows, cotangents, (((0,), (0,)), ((), ())), precision)


def add_bias(x: Array, b: Array) -> Array:
    """x + b, b (C,) added along the last axis of x (..., C); in the accumulation dtype of x.

    The only place where a bias is broadcast.

    Example:
        >>> add_bias(jnp.zeros((2, 3)), jnp.ones(3)).sum()
        Array(6., dtype=float32)
    """
    x = accumulate(x)
    return x + lax.broadcast_in_dim(b.astype(x.dtype), x.shape, (x.ndim - 1,))


def bias_grad(dy: Array) -> Array:
    """The adjoint of `add_bias` in b: the sum of dy (..., C) over all but the last axis, in the accumulation dtype.

    Example:
        >>> bias_grad(jnp.ones((2, 3)))
        Array([2., 2., 2.], dtype=float32)
    """
    return jnp.sum(accumulate(dy), axis=tuple(range(dy.ndim - 1)))

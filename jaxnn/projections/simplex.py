"""Projection of vectors onto the simplex, by sorting."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, ArrayLike, Scalar


def nearest_in_simplex(x: ArrayLike, scale: Scalar = 1.0) -> Array:
    """The nearest point to x in {p >= 0, sum p = scale}, on the last axis: p_k = max(x_k - tau, 0).

    tau = (sum of x over the support - scale) / (size of the support); the support is the r largest entries, r the
    greatest with r u_r > u_1 + ... + u_r - scale, u being x in descending order. Entries of -inf are never in it.
    The derivative along dx is dx_k - (mean of dx over the support) for k in the support, else 0 (at tau too).

    Args:
        x: (..., K), floating.
        scale: the sum of p, >= 0; may be traced. With 0 every p is 0.

    Returns:
        (..., K), float32 (float64 for float64).

    Example:
        >>> nearest_in_simplex(jnp.array([[0.75, 0.5, 0.0], [3.0, 1.0, 0.0]]))
        Array([[0.625, 0.375, 0.   ],
               [1.   , 0.   , 0.   ]], dtype=float32)

    Reference: Held, Wolfe & Crowder 1974, "Validation of subgradient optimization"; Duchi et al. 2008, "Efficient
    projections onto the l1-ball for learning in high dimensions", figure 1.
    """
    wide = accumulate(jnp.asarray(x))
    # With Explicit axes, a sharded axis cannot be sorted.
    return compiler_sharded(_nearest, wide, wide, jnp.asarray(scale, wide.dtype))


def _nearest(wide: Array, s: Array) -> Array:
    """`nearest_in_simplex` in the dtype of the arithmetic."""
    # The result is invariant to a shift, and sums of entries near 0 keep the most digits.
    shifted = wide - jax.lax.stop_gradient(jnp.max(wide, axis=-1, keepdims=True))
    u = -jnp.sort(-jax.lax.stop_gradient(shifted), axis=-1)
    rank = jax.lax.broadcasted_iota(wide.dtype, u.shape, u.ndim - 1) + 1
    size = jnp.sum(rank * u > jnp.cumsum(u, axis=-1) - s, axis=-1, keepdims=True)
    least = jnp.sum(jnp.where(rank == size.astype(wide.dtype), u, jnp.zeros_like(u)), axis=-1, keepdims=True)
    inside = shifted >= least
    total = jnp.sum(jnp.where(inside, shifted, jnp.zeros_like(shifted)), axis=-1, keepdims=True)
    count = jnp.sum(inside.astype(wide.dtype), axis=-1, keepdims=True)
    rest = jnp.where(inside, shifted, jnp.zeros_like(shifted)) - (total - s) / count
    return jnp.where(inside & (rest > 0), rest, jnp.zeros_like(rest))

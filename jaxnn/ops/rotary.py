"""Rotary position encoding: pairs of features rotated by angles proportional to the position.

Features i and i + D/2 of a head at position t are rotated in their plane by the angle t base^(-2i/D):

    y_i       = x_i cos - x_(i + D/2) sin
    y_(i+D/2) = x_i sin + x_(i + D/2) cos

Scores of rotated queries and keys depend on positions by their difference only, R_t q . R_s k = q . R_(s - t) k. A
rotation is orthogonal: its adjoint is the rotation by the negative angles.

References:
    Su, J., Lu, Y., Pan, S., Murtadha, A., Wen, B. & Liu, Y. (2024). RoFormer: enhanced transformer with rotary position
        embedding, equations 14, 15 and 34 (pairs of neighbours 2i, 2i + 1; here of halves, as in most implementations).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulate
from jaxnn.types import Array, DTypeLike, Scalar


def angles(count: int, features: int, base: Scalar, first: Scalar = 0, *, dtype: DTypeLike = jnp.float32) -> Array:
    """The angles t base^(-2i/D) of positions t = first, ..., first + T - 1, in radians, (T, D/2).

    Args:
        count: T.
        features: D, even.
        base: > 1, the paper's 10,000; the longest wavelength is about 2 pi base positions. May be traced.
        first: the first position; may be traced.
        dtype: of the arithmetic and the result.

    Example:
        >>> angles(2, 4, 100.0)
        Array([[0. , 0. ],
               [1. , 0.1]], dtype=float32)
    """
    if features % 2:
        raise ValueError(f"rotary: the features of a head must be even, got {features}: they are rotated in pairs.")
    frequencies = jnp.asarray(base, dtype) ** -(jnp.arange(0, features, 2, dtype=dtype) / features)
    places = (jnp.arange(count, dtype=jnp.int32) + jnp.asarray(first, jnp.int32)).astype(dtype)
    return places[:, None] * frequencies[None, :]


def rotate(x: Array, by: Array) -> Array:
    """x (N, T, H, D) rotated by angles (T, D/2); by the negative angles, the adjoint and inverse.

    Returns:
        (N, T, H, D) in the dtype of x; arithmetic in float32 (float64 for float64).

    Example:
        >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
        >>> rotate(x, jnp.full((1, 1), jnp.pi / 2)).ravel().round(3)
        Array([-0.,  1.], dtype=float32)
    """
    wide = accumulate(x)
    half = x.shape[-1] // 2
    shape = (*x.shape[:-1], half)
    cos, sin = (lax.broadcast_in_dim(f(by).astype(wide.dtype), shape, (1, 3)) for f in (jnp.cos, jnp.sin))
    a, b = wide[..., :half], wide[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)

"""Cosine similarity of vectors along any axes, with a mask, under optax's names and arguments.

`axis` is an int, a tuple (its axes flattened into one, in that order) or None (all axes); the result has the remaining
axes. `where` is a mask of the shape of the vectors, or of the result (for whole vectors): excluded elements do not
count, even if they are NaN. Arithmetic and results are float32 (float64 for float64 predictions). Axes of size 1 of
either argument broadcast; the number of axes must be the same. ValueError: shapes do not match; TypeError: predictions
are not floating.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.losses.base import as_targets
from jaxnn.losses.optax_form import Axis, axes_of, counted, floating, included
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.types import Array, ArrayLike, Scalar


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Cosine of the angle between vectors along `axis`: y.d / (max(|y|, e) max(|d|, e)), e = sqrt(epsilon).

    A zero vector has cosine 0 with every other; the derivative in y at y = 0 is d / (max(|d|, e) e), or 0 if epsilon
    is 0.

    Args:
        predictions: y, floating.
        targets: d, real, with the same number of axes; axes of size 1 broadcast.
        epsilon: lower bound on a squared norm; may be traced.
        axis, where: as in the module docstring.

    Returns:
        The broadcast shape without `axis`; in [-1, 1] if both vectors have the same length along `axis`.

    Example:
        >>> cosine_similarity(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.ones((2, 2)))
        Array([0.70710677, 0.        ], dtype=float32)

    Reference: Salton, Wong & Yang 1975, "A vector space model for automatic indexing".
    """
    return _cosine("cosine_similarity", predictions, targets, epsilon, axis, where)


def cosine_distance_along(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Array:
    """1 - `cosine_similarity`, with the same arguments."""
    return 1 - _cosine("cosine_distance", predictions, targets, epsilon, axis, where)


def unit_along(x: Array, axes: tuple[int, ...], epsilon: Scalar = 0.0) -> Array:
    """x / max(|x|, sqrt(epsilon)) with |x| the norm along `axes`; 0 for the zero vector."""
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    least = safe_sqrt(jnp.maximum(jnp.asarray(epsilon, x.dtype), 0))
    # Dividing by the largest entry first keeps the squares from overflowing; the result does not depend on it.
    size = jax.lax.stop_gradient(jnp.maximum(largest, least))
    scaled = safe_divide(x, size)
    length = safe_sqrt(jnp.sum(jnp.square(scaled), axis=axes, keepdims=True))
    return safe_divide(scaled, jnp.maximum(length, safe_divide(jnp.broadcast_to(least, size.shape), size)))


def _cosine(
    where_: str, predictions: ArrayLike, targets: ArrayLike, epsilon: Scalar, axis: Axis, where: ArrayLike | None
) -> Array:
    y = floating(where_, "predictions", predictions)
    d = as_targets(where_, targets, y.dtype)
    axes = axes_of(where_, axis, y.ndim)
    if y.ndim != d.ndim or any(m != n and 1 not in (m, n) for m, n in zip(y.shape, d.shape, strict=True)):
        raise ValueError(
            f"{where_}: predictions and targets must have the same shape, up to axes of size 1, got {y.shape} and "
            f"{d.shape}."
        )
    if where is not None:
        shape = jnp.broadcast_shapes(y.shape, d.shape)
        mask = included(where_, where, shape, axes)
        y, d = counted(jnp.broadcast_to(y, shape), mask), counted(jnp.broadcast_to(d, shape), mask)
    return jnp.sum(unit_along(y, axes, epsilon) * unit_along(d, axes, epsilon), axis=axes)

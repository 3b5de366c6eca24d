"""Softmax and log-softmax, each with its Jacobian-vector and vector-Jacobian products.

With p = softmax(z), the Jacobian of softmax is J = diag(p) - p p', and that of log-softmax is I - 1 p' (1 the vector of
ones). z_i = -inf masks class i: p_i = 0; a vector of -inf only, or with a +inf, gives NaN. Adding a constant to z
changes neither function, up to rounding: only differences to the maximum enter.

z is (..., K, ...), floating, `axis` the axis of the K scores; the tangent or cotangent v has the shape of z, is
floating and finite. Results have the shape and dtype of z. TypeError: z or v is not floating; ValueError: they differ
in shape, or z has no such axis or K = 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.activations.base import elementwise, floating
from jaxnn.checks import require_same_shape
from jaxnn.numerics import accumulation_dtype, sum_of_products
from jaxnn.types import Array


@elementwise
def softmax(z: Array, *, axis: int = -1) -> Array:
    """Probabilities from scores z along `axis`, in the shape and dtype of z.

    p_i = exp(z_i - M) / sum_j exp(z_j - M), M = max_j z_j

    Example:
        >>> softmax(jnp.array([1e4, 1e4, -jnp.inf]))
        Array([0.5, 0.5, 0. ], dtype=float32)

    Reference: Bridle (1990), Probabilistic interpretation of feedforward classification network outputs, with
        relationships to statistical pattern recognition.
    """
    exps = jnp.exp(_shifted("softmax", z, axis))
    return exps / jnp.sum(exps, axis=axis, keepdims=True)


def softmax_jvp(z: Array, v: Array, *, axis: int = -1) -> Array:
    """J v for J the Jacobian of softmax at z along `axis`, v shaped like z; also v' J, because J is symmetric.

    J v = p * (v - p'v), p = softmax(z); its sum over `axis` is 0

    Example:
        >>> softmax_jvp(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array([ 0.25, -0.25], dtype=float32)
    """
    z_wide, v_wide, dtype = _widen("softmax_jvp", z, v)
    p = softmax(z_wide, axis=axis)
    return (p * (v_wide - sum_of_products(p, v_wide, (axis,)))).astype(dtype)


softmax_vjp = softmax_jvp
"""v' J for J the Jacobian of softmax: the same function as `softmax_jvp`, because J is symmetric."""


@elementwise
def log_softmax(z: Array, *, axis: int = -1) -> Array:
    """Logarithms of probabilities from scores z along `axis`, in the shape and dtype of z.

    l_i = log p_i = z_i - M - log sum_j exp(z_j - M), M = max_j z_j; l <= 0, in nats

    Example:
        >>> log_softmax(jnp.array([1e4, 0.0]))
        Array([     0., -10000.], dtype=float32)

    Reference: Bridle (1990), as for `softmax`.
    """
    shifted = _shifted("log_softmax", z, axis)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True))


def log_softmax_jvp(z: Array, v: Array, *, axis: int = -1) -> Array:
    """J v for J = I - 1 p' the Jacobian of log-softmax at z along `axis`, v shaped like z.

    (J v)_i = v_i - sum_j p_j v_j, p = softmax(z)

    Example:
        >>> log_softmax_jvp(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array([ 0.5, -0.5], dtype=float32)
    """
    z_wide, v_wide, dtype = _widen("log_softmax_jvp", z, v)
    p = softmax(z_wide, axis=axis)
    return (v_wide - sum_of_products(p, v_wide, (axis,))).astype(dtype)


def log_softmax_vjp(z: Array, v: Array, *, axis: int = -1) -> Array:
    """v' J for J = I - 1 p' the Jacobian of log-softmax at z along `axis`, v shaped like z.

    (v' J)_i = v_i - p_i sum_j v_j, p = softmax(z); its sum over `axis` is 0

    Example:
        >>> log_softmax_vjp(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array([ 0.5, -0.5], dtype=float32)
    """
    z_wide, v_wide, dtype = _widen("log_softmax_vjp", z, v)
    p = softmax(z_wide, axis=axis)
    return (v_wide - p * jnp.sum(v_wide, axis=axis, keepdims=True)).astype(dtype)


def _shifted(where: str, z: Array, axis: int) -> Array:
    """z - max z over `axis`; stop_gradient on the maximum, since neither result nor derivatives depend on it."""
    if not -z.ndim <= axis < z.ndim:
        raise ValueError(f"{where}: z has no axis {axis}, got shape {z.shape}. Name the axis of the scores.")
    if z.shape[axis] == 0:
        raise ValueError(f"{where}: needs at least one score on axis {axis}, got shape {z.shape}.")
    return z - jax.lax.stop_gradient(jnp.max(z, axis=axis, keepdims=True))


def _widen(where: str, z: Array, v: Array) -> tuple[Array, Array, jnp.dtype]:
    """z and v in their common accumulation dtype, and the dtype of z, after checks."""
    z, v = floating(where, "z", z), floating(where, "v", v)
    require_same_shape(where, z=z, v=v)
    wide = accumulation_dtype(z.dtype, v.dtype)
    return z.astype(wide), v.astype(wide), z.dtype

"""Softmax cross-entropy along any axes, with a mask, under optax's names and arguments.

`axis` is an int, a tuple (its axes flattened into one, in that order) or None (all axes); the result has the remaining
axes. `where` is a mask of the shape of the logits, or of the result (for whole vectors): excluded elements
do not count, even if they are NaN. Arithmetic and results are float32 (float64 for float64 logits). Distributions have
the shape of the logits, up to axes of size 1, or are a scalar; they broadcast. A vector with nothing included has loss
0. ValueError: shapes or mask do not match; TypeError: logits are not floating.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import as_labels, class_mask, poison
from jaxnn.losses.optax_form import Axis, axes_of, counted, distributions, floating, included, weighed
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike, Scalar


def softmax_cross_entropy_along(
    logits: ArrayLike, labels: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """`losses.softmax_cross_entropy` under optax's arguments: -sum_k d_k log softmax(z)_k along `axis`.

    A class with d_k = 0 may have the logit -inf. The derivative is softmax(z) sum_k d_k - d. The labels need not sum to
    1 (weighted distributions).
    """
    z, d, axes, mask = distributions("softmax_cross_entropy", "logits", logits, labels, axis, where)
    return -jnp.sum(weighed(d, z - _log_normalizer(z, axes, mask)), axis=axes)


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Cross-entropy of the softmax of logits on the last axis, where a class with d_k = 0 may have the logit -inf.

    Args:
        logits: z (..., K), floating.
        labels: d (..., K), distributions; the result is (...).

    Example:
        >>> safe_softmax_cross_entropy(jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 0.0, 0.0]))
        Array(0.6931472, dtype=float32)

    Reference: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".
    """
    z, d, axes, _ = distributions("safe_softmax_cross_entropy", "logits", logits, labels, -1, None)
    return -jnp.sum(weighed(d, z - _log_normalizer(z, axes, None)), axis=axes)


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: int | tuple[int, ...] = -1, where: ArrayLike | None = None
) -> Array:
    """Cross-entropy of the softmax of logits with class labels: log sum_k e^(z_k) - z_c, c the label.

    Args:
        logits: z, floating; `axis` runs over the classes.
        labels: integers in [0, K), the shape of the logits without `axis`; for several axes they index the
            flattened axes, row-major in the order of `axis`. Those of excluded vectors may be anything.
        axis, where: as in the module docstring; `axis` is not None.

    Returns:
        In nats, the shape of the labels. NaN for traced labels out of range, which never wrap.

    Raises:
        ValueError: a concrete label is out of range, or axis is None; TypeError: labels are not integers.

    Example:
        >>> softmax_cross_entropy_with_integer_labels(jnp.array([[0.0, 0.0], [1e4, 0.0]]), jnp.array([1, 1]))
        Array([6.931472e-01, 1.000000e+04], dtype=float32)

    Reference: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".
    """
    name = "softmax_cross_entropy_with_integer_labels"
    if axis is None:
        raise ValueError(f"{name}: axis must be an int or a tuple of ints, got None.")
    z = floating(name, "logits", logits)
    axes = axes_of(name, axis, z.ndim)
    mask = included(name, where, z.shape, axes)
    rest = tuple(a for a in range(z.ndim) if a not in axes)
    shape = tuple(z.shape[a] for a in rest)

    def flat(x: Array) -> Array:
        return jnp.transpose(x, rest + axes).reshape(*shape, math.prod(x.shape[a] for a in axes))

    z, mask = flat(z), None if mask is None else flat(beside(mask, z))
    used = None if mask is None else jnp.any(mask, axis=-1)
    given = beside(checks.as_array(name, "labels", labels), z)
    if used is not None and given.shape == shape:
        given = jnp.where(used, given, jnp.zeros_like(given))
    index, valid = as_labels(name, given, shape, z.shape[-1])
    right = class_mask(index, z.shape[-1])
    at_label = jnp.sum(jnp.where(right, z, jnp.zeros_like(z)), axis=-1)
    normalizer = _log_normalizer(counted(z, mask), (z.ndim - 1,), mask)[..., 0]
    return poison(counted(normalizer - at_label, used), valid)


def poly_loss_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, epsilon: Scalar = 2.0, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """PolyLoss: the softmax cross-entropy plus epsilon times sum_k d_k (1 - softmax(z)_k).

    Args:
        logits: z, floating; `axis` runs over the classes.
        labels: d, distributions over the classes.
        epsilon: added to the first coefficient of the expansion in powers of 1 - p; in the paper 2 for images, -1 for
            detection. May be traced.
        axis, where: as in the module docstring.

    Example:
        >>> poly_loss_cross_entropy(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array(1.6931472, dtype=float32)

    Reference: Leng et al. 2022, "PolyLoss: a polynomial expansion perspective of classification loss functions",
    equation 6.
    """
    z, d, axes, mask = distributions("poly_loss_cross_entropy", "logits", logits, labels, axis, where)
    log_p = z - _log_normalizer(z, axes, mask)
    wrong = jnp.sum(d * -jnp.expm1(log_p), axis=axes)
    return -jnp.sum(weighed(d, log_p), axis=axes) + jnp.asarray(epsilon, z.dtype) * wrong


def smooth_labels(labels: ArrayLike, alpha: Scalar, *, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    """Smoothed labels: (1 - alpha) d + alpha / K, K the number of classes along `axis` (those included by `where`).

    Args:
        labels: d, floating, e.g. one-hot.
        alpha: in [0, 1]; may be traced.
        axis, where: as in the module docstring; excluded elements are smoothed like the others.

    Example:
        >>> smooth_labels(jnp.array([1.0, 0.0]), 0.5)
        Array([0.75, 0.25], dtype=float32)

    Reference: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7.
    """
    d = floating("smooth_labels", "labels", labels)
    axes = axes_of("smooth_labels", axis, d.ndim)
    mask = included("smooth_labels", where, d.shape, axes)
    a = jnp.asarray(alpha, d.dtype)
    if mask is None:
        return (1 - a) * d + a / math.prod(d.shape[i] for i in axes)
    classes = jnp.sum(mask.astype(d.dtype), axis=axes, keepdims=True)
    return (1 - a) * d + a / jnp.maximum(classes, jnp.ones_like(classes))


def _log_normalizer(z: Array, axes: tuple[int, ...], mask: Array | None) -> Array:
    """log sum e^z over the axes (keepdims); 0 where nothing is included."""
    if mask is None:
        return jax.nn.logsumexp(z, axis=axes, keepdims=True)
    none = ~jnp.any(mask, axis=axes, keepdims=True)
    normalizer = jax.nn.logsumexp(z, axis=axes, keepdims=True, where=mask | none)
    return jnp.where(none, jnp.zeros_like(normalizer), normalizer)

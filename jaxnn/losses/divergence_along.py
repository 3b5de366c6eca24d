"""Kullback-Leibler divergences along any axes, with a mask, under optax's names and arguments.

`axis` is an int, a tuple (its axes are one flat axis, in that order) or None (all axes); the result has the axes that
are left. `where` is a mask of the shape of the predictions, or without `axis` for whole vectors: what it excludes does
not count, whatever it holds. Arithmetic and results are float32 (float64 for float64 predictions). Targets have the
shape of the predictions, or axes of size 1 in it.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.losses.optax_form import Axis, counted, distributions
from jaxnn.types import Array, ArrayLike


def kl_divergence_along(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """Kullback-Leibler divergence KL(d || y) = sum_k d_k (log d_k - log y_k) along `axis`.

    Outcomes with d_k = 0 contribute 0 and have derivative 0, even where log y_k is -inf.

    Args:
        log_predictions: log y, floating.
        targets: d, distributions.
        axis, where: which entries are summed, as the module says.

    Returns:
        In nats, the shape of the predictions without `axis`.

    Raises:
        ValueError: shapes do not fit.
        TypeError: predictions are not floating.

    Example:
        >>> kl_divergence_along(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]))
        Array(0.6931472, dtype=float32)

    Reference: Kullback & Leibler 1951, "On information and sufficiency".
    """
    log_y, d, axes, _ = distributions("kl_divergence", "log_predictions", log_predictions, targets, axis, where)
    return jnp.sum(_relative_entropy(log_y, d), axis=axes)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """Kullback-Leibler divergence of targets given as logarithms: sum_k e^(t_k) (t_k - log y_k) along `axis`.

    Outcomes with t_k = -inf contribute 0 and have derivative 0.

    Args:
        log_predictions: log y, floating.
        log_targets: t, logarithms of distributions.
        axis, where: which entries are summed, as the module says.

    Returns:
        In nats, the shape of the predictions without `axis`.

    Raises:
        ValueError: shapes do not fit.
        TypeError: predictions are not floating.

    Example:
        >>> kl_divergence_with_log_targets(jnp.log(jnp.array([0.5, 0.5])), jnp.array([-jnp.inf, 0.0]))
        Array(0.6931472, dtype=float32)

    Reference: Kullback & Leibler 1951, "On information and sufficiency".
    """
    name = "kl_divergence_with_log_targets"
    log_y, t, axes, mask = distributions(name, "log_predictions", log_predictions, log_targets, axis, where)
    d = jnp.exp(t) if mask is None else counted(jnp.exp(t), mask)
    void = d == 0
    gap = jnp.where(void, jnp.zeros_like(t), t) - jnp.where(void, jnp.zeros_like(t), log_y)
    return jnp.sum(jnp.where(void, jnp.zeros_like(t), d * gap), axis=axes)


def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """Kullback-Leibler divergence of measures that need not sum to 1: sum_k d_k (log d_k - log y_k) + y_k - d_k.

    The Bregman divergence of x log x - x; at least 0, and 0 only where d = y.

    Args:
        log_predictions: log y, floating.
        targets: d >= 0.
        axis, where: which entries are summed, as the module says.

    Returns:
        The shape of the predictions without `axis`.

    Raises:
        ValueError: shapes do not fit.
        TypeError: predictions are not floating.

    Example:
        >>> generalized_kl_divergence(jnp.log(jnp.array([2.0, 2.0])), jnp.array([2.0, 1.0]))
        Array(0.30685282, dtype=float32)

    Reference: Csiszar 1991, "Why least squares and maximum entropy? An axiomatic approach to inference for linear
    inverse problems".
    """
    log_y, d, axes, mask = distributions(
        "generalized_kl_divergence", "log_predictions", log_predictions, targets, axis, where
    )
    return jnp.sum(_relative_entropy(log_y, d) + counted(jnp.exp(log_y) - d, mask), axis=axes)


convex_kl_divergence = generalized_kl_divergence
"""The older name of `generalized_kl_divergence`."""


def _relative_entropy(log_y: Array, d: Array) -> Array:
    void = d == 0
    gap = jnp.log(jnp.where(void, jnp.ones_like(d), d)) - jnp.where(void, jnp.zeros_like(d), log_y)
    return jnp.where(void, jnp.zeros_like(d), d * gap)

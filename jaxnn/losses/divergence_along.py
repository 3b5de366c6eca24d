"""Kullback-Leibler divergences along any axes, with a mask, under optax's names and arguments.

`axis` is an int, a tuple (its axes flattened into one, in that order) or None (all axes); the result has the remaining
axes. `where` is a mask of the shape of the predictions, or of the result (for whole vectors): excluded elements do
not count, even if they are NaN. Arithmetic and results are float32 (float64 for float64 predictions). Targets have the
shape of the predictions, up to axes of size 1, or are a scalar; they broadcast. ValueError: shapes do not match;
TypeError: predictions are not floating.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.losses.base import refuse_labels
from jaxnn.losses.optax_form import Axis, counted, distributions
from jaxnn.types import Array, ArrayLike


def kl_divergence_along(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """`losses.kl_divergence` under optax's arguments, along `axis`: 0 where d_k = 0, even if log y_k = -inf."""
    refuse_labels("kl_divergence", log_predictions, targets)
    log_y, d, axes, _ = distributions("kl_divergence", "log_predictions", log_predictions, targets, axis, where)
    return jnp.sum(_relative_entropy(log_y, d), axis=axes)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    """Kullback-Leibler divergence with log-targets: sum_k e^(t_k) (t_k - log y_k) along `axis`.

    Outcomes with t_k = -inf contribute 0 and have derivative 0.

    Args:
        log_predictions: log y, floating.
        log_targets: t, logarithms of distributions.
        axis, where: as in the module docstring.

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
    """Kullback-Leibler divergence of measures that need not sum to 1: sum_k [d_k (log d_k - log y_k) + y_k - d_k].

    The Bregman divergence of x log x - x; at least 0, and 0 only where d = y.

    Args:
        log_predictions: log y, floating.
        targets: d >= 0.
        axis, where: as in the module docstring.

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

"""The mean of per-example losses over a batch, with weights."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.types import Array


def combined_weights(first: Array | None, second: Array | None) -> Array | None:
    """The product of two sets of example weights, None standing for all ones.

    Example:
        >>> combined_weights(None, jnp.ones(2))
        Array([1., 1.], dtype=float32)
    """
    if first is None or second is None:
        return second if first is None else first
    return first * second


def weighted_mean(values: Array, weights: Array | None) -> Array:
    """sum_i w_i v_i / sum_i w_i over examples; the plain mean without weights; 0 if all weights are 0.

    A value whose weight is 0 does not count even where it is infinite or NaN.

    Example:
        >>> weighted_mean(jnp.array([1.0, 5.0]), jnp.array([1.0, 0.0]))
        Array(1., dtype=float32)
    """
    if values.ndim != 1:
        raise ValueError(
            f"expected one loss for each example, shape (N,), got shape {values.shape}. Use a loss of jaxnn.losses, "
            "or average your own over all but the first axis."
        )
    if values.shape[0] == 0:
        raise ValueError("the mean over an empty batch (N = 0) is not defined; give at least one example.")
    values = accumulate(values)
    if weights is None:
        return jnp.mean(values)
    if weights.shape != values.shape:
        raise ValueError(f"weights must have one entry for each example, {values.shape}, got {weights.shape}.")
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    counted = jnp.where(weights == 0, jnp.zeros_like(values), values)
    return jnp.sum(weights * counted) / jnp.where(total == 0, jnp.ones_like(total), total)

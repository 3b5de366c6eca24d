"""The weighted mean of per-example losses over a batch."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array


def combined_weights(first: Array | None, second: Array | None) -> Array | None:
    """The product of two sets of example weights; None stands for all ones, in the result too."""
    if second is None:
        return first
    second = jnp.asarray(second)
    if first is None:
        return second
    dtype = accumulation_dtype(first.dtype, second.dtype)
    return first.astype(dtype) * second.astype(dtype)


def require_one_each(values: Array, examples: int | None = None) -> None:
    """Raise ValueError unless these are per-example losses, of shape (N,); N = `examples`, or any for None."""
    if values.ndim != 1 or examples not in (None, values.shape[0]):
        shape = "(N,)" if examples is None else f"({examples},)"
        raise ValueError(
            f"expected one loss for each example, shape {shape}, got shape {values.shape}. Use a loss of jaxnn.losses, "
            "or average your own over all but the first axis."
        )


def weighted_mean(values: Array, weights: Array | None) -> Array:
    """sum_i w_i v_i / sum_i w_i over examples; the plain mean for None; 0 if all weights are 0.

    A value of weight 0 does not count, even if it is infinite or NaN. ValueError: another shape, or N = 0.
    """
    require_one_each(values)
    if values.shape[0] == 0:
        raise ValueError("the mean over an empty batch (N = 0) is not defined; pass at least one example.")
    values = accumulate(values)
    if weights is None:
        return jnp.mean(values)
    if weights.shape != values.shape:
        raise ValueError(f"weights must have one entry for each example, {values.shape}, got {weights.shape}.")
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    counted = jnp.where(weights == 0, jnp.zeros_like(values), values)
    return jnp.sum(weights * counted) / jnp.where(total == 0, jnp.ones_like(total), total)

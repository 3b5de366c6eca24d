"""Scaling of the learning rate with the batch size."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.schedules.base import Count, Schedule, as_value, require, value_dtype
from jaxnn.types import Array, Scalar, ScalarOrSchedule


def sqrt_batch_size_rule(
    learning_rate: ScalarOrSchedule, *, batch_size: Scalar, reference_batch_size: Scalar
) -> Array | Schedule:
    """The learning rate at another batch size: eta sqrt(B / B_ref).

    A gradient averaged over k times as many examples has 1/k of the variance: with sqrt(k) times the learning rate the
    covariance of the step is unchanged.

    Args:
        learning_rate: eta, tuned at `reference_batch_size`: a real number or a schedule; may be traced.
        batch_size: B, in examples, > 0; may be traced.
        reference_batch_size: B_ref, in examples, > 0; may be traced.

    Returns:
        A scalar; for a schedule, a schedule: count (...) -> value (...). Counts are not rescaled, though a larger batch
        means fewer steps per epoch.

    Example:
        >>> sqrt_batch_size_rule(0.1, batch_size=512, reference_batch_size=128)
        Array(0.2, dtype=float32)

    Reference: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", section 5; Hoffer,
        Hubara & Soudry 2017, "Train longer, generalize better: closing the generalization gap in large batch training
        of neural networks".
    """
    where = "sqrt_batch_size_rule"
    require(where, "batch_size", batch_size, strictly=True)
    require(where, "reference_batch_size", reference_batch_size, strictly=True)

    def scaled(rate: Scalar) -> Array:
        dtype = value_dtype(rate)
        return as_value(rate, dtype) * jnp.sqrt(as_value(batch_size, dtype) / as_value(reference_batch_size, dtype))

    if not callable(learning_rate):
        return scaled(learning_rate)

    def schedule(count: Count) -> Array:
        return scaled(jnp.asarray(learning_rate(count)))

    return schedule

"""Batches some of whose examples have weight 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.placement import beside
from jaxnn.types import Array, Scalar


def without_removed(given: Arguments, weights: Array) -> list[Array]:
    """The arrays of a batch, the rows of weight 0 replaced by the first row of another weight.

    A row of padding may have an infinite or NaN gradient, and 0 times infinity is NaN: it must not be computed at all.
    """
    kept = weights != 0
    # Over a sharded axis a minimum, and the sum of one row, are small all-reduces. A lookup would gather all rows.
    numbers = jnp.arange(given.examples)
    first = numbers == jnp.min(jnp.where(kept, numbers, given.examples))

    def replaced(x: Array, axis: int | None) -> Array:
        if axis is None:
            return x
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(replaced(jax.random.key_data(x), axis), impl=jax.random.key_impl(x))
        rows = jnp.moveaxis(x, axis, 0)
        one = jnp.sum(jnp.where(_along(first, rows), rows, jnp.zeros_like(rows)), axis=0, dtype=x.dtype)
        return jnp.moveaxis(jnp.where(_along(kept, rows), rows, one[None]), 0, axis)

    return [replaced(x, axis) for x, axis in zip(given.mapped, given.axes, strict=True)]


def _along(values: Array, rows: Array) -> Any:
    return beside(values.reshape(values.shape + (1,) * (rows.ndim - 1)), rows)


def zero_where(removed: Array, tree: Any) -> Any:
    """The pytree of arrays (N, ...), rows that are removed replaced by zeros."""

    def zeroed(x: Array) -> Array:
        return jnp.where(_along(removed, x), jnp.zeros_like(x), x)

    return jax.tree.map(zeroed, tree)


def kept_of(weights: Array | None, examples: int) -> Scalar:
    """How many weights are not 0, at least 1; all examples without weights."""
    return examples if weights is None else jnp.maximum(jnp.sum((weights != 0).astype(jnp.int32)), 1)

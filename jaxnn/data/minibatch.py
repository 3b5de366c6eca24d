"""Minibatches as index arrays made on the device."""

from __future__ import annotations

import enum
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnn.checks import as_array, as_arrays, require_key, require_leading_axis, require_positive_int
from jaxnn.types import Array, Key, PyTree


class Partial(enum.Enum):
    """What to do with the n % batch_size examples that do not fill a batch.

    DROP drops them in this epoch; other epochs' permutations drop others. Every batch is full, as batch normalization
    needs. WEIGHT keeps them in a last batch padded with copies of example 0 of weight 0, so a weighted mean over the
    epoch is the mean over the n examples.
    """

    DROP = "drop"
    WEIGHT = "weight"


def batch_indices(key: Key | None, n: int, batch_size: int, *, partial: Partial) -> tuple[Array, Array]:
    """The batches of one epoch, sampled without replacement: a uniform permutation cut into batches.

    Steps: floor(n / batch_size) for DROP, ceil(n / batch_size) for WEIGHT. For use inside jit, all but
    `key` static.

    Args:
        key: typed random key, a new one per epoch; None keeps the order 0, 1, ... (for evaluation).
        n: number of examples.
        batch_size: examples per batch; n is batch gradient descent, 1 stochastic.
        partial: the rule for the last, partial batch; no effect if batch_size divides n.

    Returns:
        indices (steps, batch_size) int32 in 0 .. n - 1, and weights (steps, batch_size) float32, 1 for examples and 0
        for padding; with DROP all ones.

    Raises:
        ValueError: n or batch_size below 1; batch_size > n with DROP (there would be no step).
        TypeError: n or batch_size not ints; `partial` not a `Partial`; a key that is not typed.

    Example:
        >>> indices, weights = batch_indices(None, 5, 2, partial=Partial.WEIGHT)
        >>> indices.tolist(), weights.tolist()
        ([[0, 1], [2, 3], [4, 0]], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])

    Reference: Robbins & Monro 1951, "A stochastic approximation method" (batch size 1).
    """
    n = require_positive_int("batch_indices", "n (the number of examples)", n)
    batch_size = require_positive_int("batch_indices", "batch_size", batch_size)
    if not isinstance(partial, Partial):
        raise TypeError(f"batch_indices: partial must be Partial.DROP or Partial.WEIGHT, got {partial!r}.")
    if partial is Partial.DROP and batch_size > n:
        raise ValueError(
            f"batch_indices: batch_size {batch_size} exceeds the {n} examples, so Partial.DROP would take no step. "
            f"Use batch_size <= {n}, or Partial.WEIGHT."
        )
    if key is None:
        order = jnp.arange(n, dtype=jnp.int32)
    else:
        require_key("batch_indices", key)
        # One sort by 64 random bits each: as uniform as `jax.random.permutation` (two sorts by 32), faster for large n.
        high, low = jax.random.bits(key, (2, n))
        order = jax.lax.sort((high, low, jnp.arange(n, dtype=jnp.int32)), num_keys=2)[2]
    steps = n // batch_size if partial is Partial.DROP else -(-n // batch_size)
    total = steps * batch_size
    indices = jnp.pad(order[:total], (0, max(total - n, 0)))
    weights = (jnp.arange(total) < n).astype(jnp.float32)
    return indices.reshape(steps, batch_size), weights.reshape(steps, batch_size)


def take(arrays: PyTree, indices: Array) -> PyTree:
    """The examples at these indices of every array of a pytree (a `Dataset`, a tuple (x, y), ...).

    Arrays may be sharded. On Explicit axes the result is sharded as the array is, along the first axis only if its
    shards divide B; on Auto axes the compiler decides.

    Args:
        arrays: arrays (N, ...) with one N, on the device (`jax.device_put`; NumPy arrays are copied at each call).
        indices: (B,) integers in 0 .. N - 1. Traced ones out of range, which `batch_indices` never makes, are clipped.

    Returns:
        The pytree with arrays (B, ...) of the same dtypes.

    Raises:
        ValueError: arrays of different lengths, or a scalar; concrete indices out of range.
        TypeError: indices that are not integers.

    Example:
        >>> take({"y": jnp.array([5, 6, 7])}, jnp.array([2, 0]))
        {'y': Array([7, 5], dtype=int32)}
    """
    arrays, indices = as_arrays("take", "arrays", arrays), as_array("take", "indices", indices)
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        raise TypeError(f"take: indices must be integers, got {jnp.result_type(indices)}. Use batch_indices.")
    n = require_leading_axis("take", "arrays", arrays, minimum=0) if jax.tree.leaves(arrays) else 0
    if jax.tree.leaves(arrays) and not isinstance(indices, jax.core.Tracer):
        given = np.asarray(indices)
        if given.size and (given.min() < 0 or given.max() >= n):
            raise ValueError(
                f"take: indices must lie in 0 .. {n - 1} for {n} examples, got {given.min()} to {given.max()}."
            )
    return jax.tree.map(lambda a: _rows(a, indices), arrays)


def _rows(a: Array, indices: Array) -> Array:
    """The rows of one array; on Explicit axes sharded as the array is, if the shards divide their number."""
    sharding = jax.typeof(a).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return jnp.take(a, indices, axis=0, mode="clip")
    first, *rest = sharding.spec
    names = () if first is None else first if isinstance(first, tuple) else (first,)
    parts = math.prod(sharding.mesh.shape[name] for name in names)
    rows = [first if i == 0 and n % parts == 0 else None for i, n in enumerate(jnp.shape(indices))]
    out = NamedSharding(sharding.mesh, PartitionSpec(*rows, *rest))
    return a.at[indices].get(mode="clip", out_sharding=out)

"""Gradients of lookups: rows of a table, all others 0."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.tape import STATIC
from jaxnn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sparse:
    """Rows of a table: `values` (N, T, D) at `indices` (N, T), once `joined` unique in an example; padding has index
    `rows` and value 0."""

    indices: Array
    values: Array
    rows: int = dataclasses.field(metadata=STATIC)

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.indices.shape[0]

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        return self.rows * self.values.shape[-1] * self.values.dtype.itemsize

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example and of its values."""
        return self.gradient_bytes + math.prod(self.values.shape[1:]) * self.values.dtype.itemsize

    def gradients(self) -> Array:
        """g_i, (N, P)."""

        def table(indices: Array, values: Array) -> Array:
            return take_rows_weight_grad(indices, values, self.rows).reshape(-1)

        return jax.vmap(table)(self.indices, self.values)

    def total(self) -> Array:
        """sum_i g_i, (rows, D)."""
        return take_rows_weight_grad(self.indices, self.values, self.rows)


def unique(*found: Sparse) -> Sparse:
    """All uses as one, the values at equal indices of an example summed: a norm needs each row once."""
    form = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
    if form.indices.shape[1] == 1:
        return _within(form)

    # Sorted, equal indices are neighbours, and one running count gives each distinct index its slot. The shape stays
    # (T,): slots that remain empty keep the index `rows`, padding.
    def of_one(indices: Array, values: Array) -> tuple[Array, Array]:
        order = jnp.argsort(indices)
        ordered = indices[order]
        first = jnp.concatenate([jnp.zeros(1, jnp.int32), (ordered[1:] != ordered[:-1]).astype(jnp.int32)])
        slot = jnp.cumsum(first)
        kept = jnp.full_like(indices, form.rows).at[slot].set(ordered)
        return kept, jnp.zeros_like(values).at[slot].add(values[order])

    inside = _within(form)
    return _within(Sparse(*jax.vmap(of_one)(inside.indices, inside.values), form.rows))


def _within(form: Sparse) -> Sparse:
    """Indices outside [0, rows), which select no row, replaced by `rows` with value 0."""
    valid = (form.indices >= 0) & (form.indices < form.rows)
    indices = jnp.where(valid, form.indices, jnp.asarray(form.rows, form.indices.dtype))
    return Sparse(indices, jnp.where(valid[:, :, None], form.values, jnp.zeros((), form.values.dtype)), form.rows)

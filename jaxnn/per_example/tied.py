"""Gradients of a table that is both looked up and multiplied, such as an embedding tied to the output matrix.

Example i looks up the rows v_t (cotangents y_t) and multiplies the table's transpose, logits_s = h_s w' (cotangents
u_s, a row of V). Its gradient is the sum of a `Sparse` form, L, and an `Outer`, O,

    g = L + O,   L = sum_t e(v_t)' y_t,   O = sum_s u_s' h_s,   e(v) the unit row v,

    |g|^2 = |L|^2 + |O|^2 + 2 <L, O>,   <L, O> = sum_st u_s[v_t] (h_s . y_t),

and no table is formed: <L, O> takes S T D multiply-adds for S products and T lookups, a table S V D.

References: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4 (|O| at one position). Li, X.,
Tramer, F., Liang, P. & Hashimoto, T. (2022). Large language models can be strong differentially private learners,
section 4 (|O| by Gram matrices of positions). <L, O> follows from <e(v)' y, u' h> = u[v] (y . h).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulate, exact_einsum
from jaxnn.per_example import blocks
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.sparse import Sparse
from jaxnn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tied:
    """The sum of both: `sparse` of the lookups, `outer` of the products, with block (1, rows, D)."""

    sparse: Sparse
    outer: Outer

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.sparse.examples

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        return self.outer.gradient_bytes

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example and of its factors."""
        return self.outer.bytes_each + self.sparse.bytes_each - self.sparse.gradient_bytes

    def gradients(self) -> Array:
        """g_i, (N, P)."""

        def added(table: Array, indices: Array, values: Array) -> Array:
            return table.at[indices].add(values.astype(table.dtype), mode="drop", wrap_negative_indices=False)

        tables = jax.vmap(added)(self.outer.gradients()[:, 0], self.sparse.indices, self.sparse.values)
        return tables.reshape(self.examples, -1)

    def total(self) -> Array:
        """sum_i g_i, (P,)."""
        return (self.outer.total()[0] + self.sparse.total()).reshape(-1)


def fit(sparse: Sparse, outer: Outer) -> bool:
    """Whether both are of one table (rows, D)."""
    return outer.block == (1, sparse.rows, sparse.values.shape[-1])


def cross(sparse: Sparse, outer: Outer) -> Array:
    """<L_i, O_i> of each example, (N,): sum over positions t of the lookups and s of the products."""

    def of_one(indices: Array, values: Array, u: Array, h: Array) -> Array:
        return jnp.sum(_at(u, indices) * exact_einsum("sd,td->st", h, values))

    # Two arrays (S, T) per example, as for a Gram matrix of positions.
    bytes_each = 2 * outer.times * sparse.indices.shape[1] * sparse.values.dtype.itemsize
    return blocks.in_gram_chunks(jax.vmap(of_one), bytes_each, sparse.indices, sparse.values, *_factors(outer))


def cross_of_pairs(sparse: Sparse, outer: Outer) -> Array:
    """<L_i, O_j> of all pairs, (N, M)."""
    u, h = _factors(outer)

    def row(pair: tuple[Array, Array]) -> Array:
        indices, values = pair
        seen = exact_einsum("jsd,td->jst", h, values)
        return jnp.sum(jax.vmap(_at, (0, None))(u, indices) * seen, axis=(1, 2))

    most = blocks.CHUNK_BYTES // max(2 * u.shape[0] * u.shape[1] * sparse.indices.shape[1] * u.dtype.itemsize, 1)
    return lax.map(row, (sparse.indices, sparse.values), batch_size=min(max(most, 1), max(sparse.examples, 1)))


def _factors(outer: Outer) -> tuple[Array, Array]:
    """u (M, S, rows) and h (M, S, D) of a form with one group, in the accumulation dtype."""
    return accumulate(outer.a[:, :, 0]), accumulate(outer.delta[:, :, 0])


def _at(u: Array, indices: Array) -> Array:
    """u (S, rows) at the rows `indices` (T,): (S, T), 0 at padding."""
    return u.at[:, indices].get(mode="fill", fill_value=0, wrap_negative_indices=False)

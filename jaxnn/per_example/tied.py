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

from jaxnn.numerics import accumulation_dtype, exact_einsum
from jaxnn.per_example.blocks import in_gram_chunks
from jaxnn.per_example.outer import Outer, some_outputs
from jaxnn.per_example.sparse import Sparse
from jaxnn.types import Array, DType, Shape


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
    def block(self) -> Shape:
        """(1, rows, D)."""
        return self.outer.block

    @property
    def dtype(self) -> DType:
        """The dtype of the gradients."""
        return self.outer.dtype

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

    def at_outputs(self, start: Array, size: int) -> Tied:
        """The form of columns start to start + size - 1, start a multiple of size; gradients beyond D are 0."""
        values = some_outputs(self.sparse.values, start, size)
        return Tied(dataclasses.replace(self.sparse, values=values), self.outer.at_outputs(start, size))

    def total(self) -> Array:
        """sum_i g_i, (P,)."""
        return (self.outer.total()[0] + self.sparse.total()).reshape(-1)


def fit(sparse: Sparse, outer: Outer) -> bool:
    """Whether both are of one table (rows, D)."""
    return outer.block == (1, sparse.rows, sparse.values.shape[-1])


def cross(sparse: Sparse, outer: Outer) -> Array:
    """<L_i, O_i> of each example, (N,): a sum over positions t of the lookups and s of the products."""
    wide = accumulation_dtype(sparse.values.dtype, outer.dtype)

    def of_some(indices: Array, values: Array, u: Array, h: Array) -> Array:
        seen = exact_einsum("nsd,ntd->nst", h, values).astype(wide)
        return jnp.sum(jax.vmap(_at)(u, indices).astype(wide) * seen, axis=(1, 2))

    factors = outer.a[:, :, 0], outer.delta[:, :, 0]  # (N, S, rows), (N, S, D)
    return in_gram_chunks(of_some, bytes_of_cross(sparse, outer), sparse.indices, sparse.values, *factors)


def bytes_of_cross(sparse: Sparse, outer: Outer) -> int:
    """Bytes of the two arrays (S, T) of one example."""
    return 2 * outer.times * sparse.indices.shape[1] * outer.dtype.itemsize


def cross_of_pairs(sparse: Sparse, outer: Outer) -> Array:
    """<L_i, O_j> of all pairs, (N, M)."""
    wide = accumulation_dtype(sparse.values.dtype, outer.dtype)
    u, h = outer.a[:, :, 0], outer.delta[:, :, 0].astype(wide)

    def rows(indices: Array, values: Array) -> Array:
        seen = exact_einsum("jsd,itd->ijst", h, values.astype(wide))
        there = jax.vmap(lambda indices: jax.vmap(_at, (0, None))(u, indices))(indices)
        return jnp.sum(there.astype(wide) * seen, axis=(2, 3))

    return in_gram_chunks(rows, outer.examples * bytes_of_cross(sparse, outer), sparse.indices, sparse.values)


def _at(u: Array, indices: Array) -> Array:
    """u (S, rows) at the rows `indices` (T,): (S, T), 0 at padding."""
    return u.at[:, indices].get(mode="fill", fill_value=0, wrap_negative_indices=False)

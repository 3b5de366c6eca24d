"""Gradients of an output layer whose cotangents are formed a chunk of classes at a time.

Chunk c of V classes is a product of its own, with the inputs a and the cotangents delta at these classes; its gradient
is that of the matrix at these classes. What adds up over entries (norms, inner products) is added up over the chunks,
what is computed entry by entry is put together from them, and no cotangents of all classes are in memory. Of a table
that is looked up too, chunk c has the lookups of its rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn.losses.logits import put
from jaxnn.numerics import accumulate
from jaxnn.per_example.blocks import explicit
from jaxnn.per_example.outer import Pairs, of_product
from jaxnn.per_example.sparse import Sparse
from jaxnn.per_example.tied import Tied
from jaxnn.placement import filled_as
from jaxnn.tape import SoftmaxProduct
from jaxnn.types import Array, DType


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Chunked:
    """The gradients of one `SoftmaxProduct`, and of the lookups in its table (V, D), if there are any.

    Its matrix has no axis of examples: not for loops over a few of them.
    """

    use: SoftmaxProduct
    sparse: Sparse | None = None

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.use.a.shape[0]

    @property
    def times(self) -> int:
        """T, the number of positions of an example."""
        return self.use.a.shape[1]

    @property
    def dtype(self) -> DType:
        """The dtype of the gradients."""
        return self.use.logits.dtype

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        return math.prod(self.use.shape) * self.dtype.itemsize

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example, its a and its delta."""
        return self.gradient_bytes + self.times * sum(self.use.shape) * self.dtype.itemsize

    def gradients(self) -> Array:
        """g_i, (N, P), of all classes at once."""
        return explicit(self.whole())

    def whole(self) -> Pairs | Tied:
        """The form with all cotangents in memory."""
        outer = of_product(self.use.whole())
        return outer if self.sparse is None else Tied(self.sparse, outer)

    def at(self, c: Array) -> Pairs | Tied:
        """The form of chunk c; gradients are 0 at classes of the chunk before it."""
        outer = of_product(self.use.at(c))
        return outer if self.sparse is None else Tied(self._lookups_at(c, self.sparse), outer)

    def _lookups_at(self, c: Array, sparse: Sparse) -> Sparse:
        """The lookups of the rows of chunk c that are in none before it."""
        logits = self.use.logits
        indices = sparse.indices.astype(jnp.int32)
        inside = (indices >= c * logits.size) & (indices < jnp.minimum((c + 1) * logits.size, sparse.rows))
        places = jnp.where(inside, indices - logits.start(c), logits.size)
        values = jnp.where(inside[:, :, None], sparse.values, jnp.zeros((), sparse.values.dtype))
        return Sparse(places, values, logits.size)

    def sum(self, f: Callable[[Array], Array]) -> Array:
        """The sum of f(c) over the chunks c."""

        def add(total: Array, c: Array) -> tuple[Array, None]:
            return total + f(c), None

        logits = self.use.logits
        if logits.count == 1:
            return f(jnp.int32(0))
        return logits.scan(add, filled_as(jax.eval_shape(f, jnp.int32(0))))[0]

    def put_together(self, f: Callable[[Pairs | Tied], Array]) -> Array:
        """(P,) from f, element-wise in the entries: the form of a chunk -> the entries of its gradient, flat."""
        logits, axis, shape = self.use.logits, self.use.class_axis, self.use.chunk_shape

        def add(total: Array, c: Array) -> tuple[Array, None]:
            return put(logits, total, accumulate(f(self.at(c))).reshape(shape), c, axis), None

        return logits.scan(add, logits.zeros(self.use.shape))[0].reshape(-1)


def alike(form: Chunked, other: Chunked) -> bool:
    """Whether chunks of both are of the same entries."""
    mine, others = form.use, other.use
    return (form.sparse is None) == (other.sparse is None) and (mine.shape, mine.class_axis, mine.size) == (
        others.shape,
        others.class_axis,
        others.size,
    )

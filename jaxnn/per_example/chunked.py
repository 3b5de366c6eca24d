"""Gradients of an output layer whose cotangents are formed a chunk of classes at a time.

Chunk c of V classes is a product of its own, with the inputs a and the cotangents delta at these classes; its gradient
is that of the matrix at these classes. What adds up over entries (norms, inner products) is added up over the chunks,
what is computed entry by entry is put together from them, and no cotangents of all classes are in memory.
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
from jaxnn.placement import filled_as
from jaxnn.tape import SoftmaxProduct
from jaxnn.types import Array, DType


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Chunked:
    """The gradients of one `SoftmaxProduct`. Its matrix has no axis of examples: not for loops over a few of them."""

    use: SoftmaxProduct

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

    def whole(self) -> Pairs:
        """The form with all cotangents in memory."""
        return of_product(self.use.whole())

    def at(self, c: Array) -> Pairs:
        """The form of chunk c; gradients are 0 at classes of the chunk before it."""
        return of_product(self.use.at(c))

    def total(self) -> Array:
        """sum_i g_i, (P,)."""
        return self.use.grad().reshape(-1)

    def sum(self, f: Callable[[Array], Array]) -> Array:
        """The sum of f(c) over the chunks c."""

        def add(total: Array, c: Array) -> tuple[Array, None]:
            return total + f(c), None

        logits = self.use.logits
        if logits.count == 1:
            return f(jnp.int32(0))
        return logits.scan(add, filled_as(jax.eval_shape(f, jnp.int32(0))))[0]

    def put_together(self, f: Callable[[Pairs], Array]) -> Array:
        """(P,) from f, element-wise in the entries: the form of a chunk -> the entries of its gradient, flat."""
        logits, axis = self.use.logits, self.use.class_axis
        shape = [*self.use.shape]
        shape[axis] = logits.size

        def add(total: Array, c: Array) -> tuple[Array, None]:
            return put(logits, total, accumulate(f(self.at(c))).reshape(shape), c, axis), None

        return logits.scan(add, logits.zeros(self.use.shape))[0].reshape(-1)


def alike(form: Chunked, other: Chunked) -> bool:
    """Whether chunks of both are of the same entries."""
    mine, others = form.use, other.use
    return (mine.shape, mine.class_axis, mine.size) == (others.shape, others.class_axis, others.size)

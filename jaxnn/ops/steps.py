"""Loops over a few examples at a time, to bound intermediate arrays; on CPU, to keep them in cache.

On CPU an array of tens of MiB that is written, read once and dropped costs more than the arithmetic on it: fresh memory
comes from the operating system page by page. On an accelerator, as much as memory allows is best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.placement import filled_as
from jaxnn.types import Array, PyTree

CPU_BYTES = 2**20
"""Bytes of the intermediate arrays of one step on CPU: 1 MiB, half of a common L2 cache."""

OTHER_BYTES = 2**28
"""The same elsewhere: 256 MiB."""

Tree = TypeVar("Tree", bound=PyTree)


class Step(NamedTuple):
    """How a loop divides N examples into `count` = N / size chunks of `size` examples.

    Chunk c holds examples c size, ..., (c + 1) size - 1, neighbours in memory. If `apart`, it holds c, c + count,
    c + 2 count, ...: of a batch sharded in contiguous blocks over a number of devices that divides `size`, every device
    then has its share of each chunk; of neighbours, one device has all, and the compiler gathers the batch.
    """

    size: int
    apart: bool = False

    def chunk(self, c: Array, arrays: Sequence[Array]) -> list[Array]:
        """Chunk c of arrays (N, ...)."""
        if not self.apart:
            return [lax.dynamic_slice_in_dim(a, c * self.size, self.size) for a in arrays]
        split = [a.reshape(self.size, -1, *a.shape[1:]) for a in arrays]
        return [lax.dynamic_index_in_dim(a, c, 1, keepdims=False) for a in split]

    def joined(self, chunks: Array) -> Array:
        """The results (count, size, ...) of all chunks in the order of the examples, (N, ...)."""
        ordered = jnp.swapaxes(chunks, 0, 1) if self.apart else chunks
        return ordered.reshape(-1, *chunks.shape[2:])


def by_steps(form: Callable[[Step], Callable[..., Tree]], bytes_each: int, *arrays: Array) -> Tree:
    """form(step)(*arrays), the step chosen at lowering.

    On CPU it takes the examples that fit CPU_BYTES, neighbours: examples apart took up to 1.6 times as long, since
    their rows are copied one by one. Elsewhere it takes those that fit OTHER_BYTES, apart.

    Args:
        form: step -> function of the arrays.
        bytes_each: bytes of the intermediate arrays per example.
        arrays: each (N, ...).
    """
    n = arrays[0].shape[0]
    few, many = step_of(n, bytes_each, CPU_BYTES), step_of(n, bytes_each, OTHER_BYTES)
    if few == many == n:
        return form(Step(n))(*arrays)
    return lax.platform_dependent(*arrays, cpu=form(Step(few)), default=form(Step(many, apart=True)))


def step_of(n: int, bytes_each: int, most_bytes: int) -> int:
    """The largest divisor d of n such that d examples fill at most `most_bytes`; 1 if there is none, 0 for n = 0."""
    most = most_bytes // max(bytes_each, 1)
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), min(n, 1))


def map_examples(f: Callable[..., Tree], step: Step, *arrays: Array) -> Tree:
    """f(*arrays), one chunk at a time; f returns a pytree of arrays (size, ...)."""
    n = arrays[0].shape[0]
    if step.size == n:
        return f(*arrays)
    found = lax.map(lambda c: f(*step.chunk(c, arrays)), jnp.arange(n // step.size))
    return jax.tree.map(step.joined, found)


def sum_examples(f: Callable[..., Array], step: Step, *arrays: Array) -> Array:
    """The sum over chunks of f, from arrays (size, ...) to an array."""
    n = arrays[0].shape[0]
    if step.size == n:
        return f(*arrays)

    def add(total: Array, c: Array) -> tuple[Array, None]:
        return total + f(*step.chunk(c, arrays)), None

    first = jax.eval_shape(lambda: f(*step.chunk(jnp.int32(0), arrays)))
    return lax.scan(add, filled_as(first), jnp.arange(n // step.size))[0]


def map_and_sum_examples(f: Callable[..., tuple[Tree, Tree]], step: Step, *arrays: Array) -> tuple[Tree, Tree]:
    """f(*arrays) -> (arrays (size, ...), arrays), one chunk at a time: (those of all examples, the sums of the
    others)."""
    n = arrays[0].shape[0]
    if step.size == n:
        return f(*arrays)

    def add(totals: Tree, c: Array) -> tuple[Tree, Tree]:
        rows, sums = f(*step.chunk(c, arrays))
        return jax.tree.map(jnp.add, totals, sums), rows

    first = jax.eval_shape(lambda: f(*step.chunk(jnp.int32(0), arrays)))[1]
    totals, rows = lax.scan(add, jax.tree.map(filled_as, first), jnp.arange(n // step.size))
    return jax.tree.map(step.joined, rows), totals

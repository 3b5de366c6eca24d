"""Loops over a few examples at a time, to bound intermediate arrays; on CPU, to keep them in cache.

On CPU an array of tens of MiB that is written, read once and dropped costs more than the arithmetic on it: fresh memory
comes from the operating system page by page. On an accelerator, as much as memory allows is best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.placement import filled_as, shards
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

    With `parts` > 1, for a batch sharded over a number of devices that divides it, N examples are so many parts, and a
    chunk has size / parts neighbours of each. Each part has its own running sum: the devices add theirs up once,
    after the loop.
    """

    size: int
    apart: bool = False
    parts: int = 1

    def chunk(self, c: Array, arrays: Sequence[Array]) -> list[Array]:
        """Chunk c of arrays (N, ...): (size, ...), or (parts, size / parts, ...)."""
        if self.parts > 1:
            split = [a.reshape(self.parts, -1, self.size // self.parts, *a.shape[1:]) for a in arrays]
            return [lax.dynamic_index_in_dim(a, c, 1, keepdims=False) for a in split]
        if not self.apart:
            return [lax.dynamic_slice_in_dim(a, c * self.size, self.size) for a in arrays]
        split = [a.reshape(self.size, -1, *a.shape[1:]) for a in arrays]
        return [lax.dynamic_index_in_dim(a, c, 1, keepdims=False) for a in split]

    def of_chunk(self, f: Callable[..., Tree]) -> Callable[..., Tree]:
        """f, a function of arrays (n, ...), of each part of a chunk."""
        return jax.vmap(f) if self.parts > 1 else f

    def joined(self, rows: Array) -> Array:
        """The results (count, size, ...) or (count, parts, size / parts, ...) of all chunks in the order of the
        examples, (N, ...)."""
        ordered = jnp.swapaxes(rows, 0, 1) if self.apart or self.parts > 1 else rows
        return ordered.reshape(-1, *rows.shape[3 if self.parts > 1 else 2 :])

    def total(self, sums: Array) -> Array:
        """The sum over parts, of an array with a leading axis of parts if there are several."""
        return jnp.sum(sums, axis=0) if self.parts > 1 else sums


def by_steps(form: Callable[[Step], Callable[..., Tree]], bytes_each: int, *arrays: Array) -> Tree:
    """form(step)(*arrays), the step chosen at lowering.

    On CPU it takes the examples that fit CPU_BYTES, neighbours: examples apart took up to 1.6 times as long, since
    their rows are copied one by one. Elsewhere it takes those that fit OTHER_BYTES, apart.

    Args:
        form: step -> function of the arrays.
        bytes_each: bytes of the intermediate arrays per example.
        arrays: each (N, ...).
    """
    few, many = chunks(bytes_each, CPU_BYTES, *arrays), chunks(bytes_each, OTHER_BYTES, *arrays, apart=True)
    if few.size == many.size == arrays[0].shape[0]:
        return form(few)(*arrays)
    return lax.platform_dependent(*arrays, cpu=form(few), default=form(many))


def chunks(bytes_each: int, most_bytes: int, *arrays: Array, apart: bool = False) -> Step:
    """The largest chunks of which each device has examples that fill at most `most_bytes`, one example at least.

    The batch is taken to be sharded over as many devices of its mesh as possible. Where it is sharded over fewer, the
    others shard what is computed for an example, or compute the same.

    Args:
        bytes_each: bytes of the intermediate arrays per example.
        most_bytes: a bound on them.
        arrays: each (N, ...).
        apart: whether their examples are apart where no mesh is known.
    """
    n = arrays[0].shape[0]
    parts = max(math.gcd(n, shards(arrays)), 1)
    return Step(parts * step_of(n // parts, bytes_each, most_bytes), apart and parts == 1, parts)


def step_of(n: int, bytes_each: int, most_bytes: int) -> int:
    """The largest divisor d of n such that d examples fill at most `most_bytes`; 1 if there is none, 0 for n = 0."""
    most = most_bytes // max(bytes_each, 1)
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), min(n, 1))


def map_examples(f: Callable[..., Tree], step: Step, *arrays: Array) -> Tree:
    """f(*arrays), one chunk at a time; f is a function of arrays (n, ...), of any n, to a pytree of such arrays."""
    n = arrays[0].shape[0]
    if step.size == n:
        return f(*arrays)
    found = lax.map(lambda c: step.of_chunk(f)(*step.chunk(c, arrays)), jnp.arange(n // step.size))
    return jax.tree.map(step.joined, found)


def sum_examples(f: Callable[..., Array], step: Step, *arrays: Array) -> Array:
    """The sum over chunks of f, from arrays (n, ...), of any n, to an array."""
    return map_and_sum_examples(lambda *some: ((), f(*some)), step, *arrays)[1]


def map_and_sum_examples(f: Callable[..., tuple[Any, Tree]], step: Step, *arrays: Array) -> tuple[Any, Tree]:
    """f, from arrays (n, ...), of any n, to (a pytree of such arrays, a pytree of arrays), one chunk at a time: (those
    of all examples, the sums of the others)."""
    n = arrays[0].shape[0]
    if step.size == n:
        return f(*arrays)

    def add(totals: Tree, c: Array) -> tuple[Tree, Any]:
        rows, sums = step.of_chunk(f)(*step.chunk(c, arrays))
        return jax.tree.map(jnp.add, totals, sums), rows

    first = jax.eval_shape(lambda: step.of_chunk(f)(*step.chunk(jnp.int32(0), arrays)))[1]
    totals, rows = lax.scan(add, jax.tree.map(filled_as, first), jnp.arange(n // step.size))
    return jax.tree.map(step.joined, rows), jax.tree.map(step.total, totals)

"""Loops over a few examples at a time, to bound intermediate arrays; on CPU, to keep them in cache.

On CPU an array of tens of MiB that is written, read once and dropped costs more than the arithmetic on it: fresh memory
comes from the operating system page by page. On an accelerator, as much as memory allows is best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

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


def by_steps(form: Callable[[int], Callable[..., Tree]], bytes_each: int, *arrays: Array) -> Tree:
    """form(step)(*arrays), the step chosen at lowering: the examples that fit CPU_BYTES on CPU, OTHER_BYTES elsewhere.

    Args:
        form: step -> function of the arrays; `step` is the number of examples at a time, a divisor of N.
        bytes_each: bytes of the intermediate arrays per example.
        arrays: each (N, ...).
    """
    n = arrays[0].shape[0]
    few, many = step_of(n, bytes_each, CPU_BYTES), step_of(n, bytes_each, OTHER_BYTES)
    if few == many:
        return form(few)(*arrays)
    return lax.platform_dependent(*arrays, cpu=form(few), default=form(many))


def step_of(n: int, bytes_each: int, most_bytes: int) -> int:
    """The largest divisor d of n such that d examples fill at most `most_bytes`; 1 if there is none, 0 for n = 0."""
    most = most_bytes // max(bytes_each, 1)
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), min(n, 1))


def map_examples(f: Callable[..., Tree], step: int, *arrays: Array) -> Tree:
    """f(*arrays), `step` examples at a time, a divisor of N; f returns a pytree of arrays (step, ...)."""
    n = arrays[0].shape[0]
    if step == n:
        return f(*arrays)
    found = lax.map(lambda start: f(*_examples(start, step, arrays)), jnp.arange(0, n, step))
    return jax.tree.map(lambda y: y.reshape(n, *y.shape[2:]), found)


def sum_examples(f: Callable[..., Array], step: int, *arrays: Array) -> Array:
    """The sum of f, from arrays (step, ...) to an array, over blocks of `step` examples, a divisor of N."""
    n = arrays[0].shape[0]
    if step == n:
        return f(*arrays)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        return total + f(*_examples(start, step, arrays)), None

    first = jax.eval_shape(lambda: f(*_examples(jnp.int32(0), step, arrays)))
    return lax.scan(add, filled_as(first), jnp.arange(0, n, step))[0]


def _examples(start: Array, step: int, arrays: tuple[Array, ...]) -> list[Array]:
    return [lax.dynamic_slice_in_dim(a, start, step) for a in arrays]


def map_and_sum_examples(f: Callable[..., tuple[Tree, Tree]], step: int, *arrays: Array) -> tuple[Tree, Tree]:
    """f(*arrays) -> (arrays (step, ...), arrays), `step` examples at a time, a divisor of N: (those of all examples,
    the sums of the others)."""
    n = arrays[0].shape[0]
    if step == n:
        return f(*arrays)

    def add(totals: Tree, start: Array) -> tuple[Tree, Tree]:
        rows, sums = f(*_examples(start, step, arrays))
        return jax.tree.map(jnp.add, totals, sums), rows

    first = jax.eval_shape(lambda: f(*_examples(jnp.int32(0), step, arrays)))[1]
    totals, rows = lax.scan(add, jax.tree.map(filled_as, first), jnp.arange(0, n, step))
    return jax.tree.map(lambda y: y.reshape(n, *y.shape[2:]), rows), totals

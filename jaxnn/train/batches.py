"""The batches of an epoch: those of a permuted data set, or drawn ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_leading_axis, require_positive_int
from jaxnn.data import Draws, Partial, batch_indices, take
from jaxnn.types import Array, Key, PyTree


class Batch(NamedTuple):
    """The examples of one step: x and y (B, ...), and weights (B,), 1 for examples and 0 for padding."""

    x: PyTree
    y: PyTree
    weights: Array


class Plan(NamedTuple):
    """One epoch: the number of steps, a pytree of rows (steps, ...), the batch of a row, and whether weights count."""

    steps: int
    rows: PyTree
    batch: Callable[[PyTree], Batch]
    weighted: bool


def plan(x: PyTree, y: PyTree, key: Key, batch_size: int, partial: Partial) -> Plan:
    """The batches of the epoch whose order this key determines.

    Args:
        x, y: N examples, in pytrees of arrays (N, ...); or a `Draws` and (): batch i is drawn with `fold_in(key, i)`.
        key: typed random key, a new one for each epoch.
        batch_size, partial: as for `make_epoch`; every drawn batch is full.
    """
    if isinstance(x, Draws):
        if jax.tree.leaves(y):
            raise ValueError(f"make_epoch: a Draws makes x and y: pass () as y, got {jax.tree.structure(y)}.")
        draws, size = x, require_positive_int("make_epoch", "batch_size", batch_size)

        def drawn(i: Array) -> Batch:
            xs, ys = draws.batch(jax.random.fold_in(key, i), size)
            return Batch(xs, ys, jnp.ones(size, jnp.float32))

        return Plan(draws.steps, jnp.arange(draws.steps), drawn, False)
    n = require_leading_axis("make_epoch", "x", x)
    indices, weights = batch_indices(key, n, batch_size, partial=partial)

    def taken(row: tuple[Array, Array]) -> Batch:
        index, weight = row
        xs, ys = take((x, y), index)
        return Batch(xs, ys, weight)

    return Plan(indices.shape[0], (indices, weights), taken, partial is Partial.WEIGHT)


def one_of(x: PyTree) -> PyTree:
    """Shape and dtype of ONE example, without the batch axis, of arrays (N, ...)."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def example_of(x: PyTree, batch_size: int) -> PyTree:
    """`one_of` arrays (N, ...), or of a batch of a `Draws`."""
    if isinstance(x, Draws):
        draws = x
        x, _ = jax.eval_shape(lambda: draws.batch(jax.random.key(0), batch_size))
    return one_of(x)


def concrete(x: PyTree, y: PyTree, key: Key, batch_size: int) -> tuple[PyTree, PyTree]:
    """Examples to check before training: all, or one batch of a `Draws`."""
    return _drawn(x, key, batch_size) if isinstance(x, Draws) else (x, y)


@functools.partial(jax.jit, static_argnums=2)
def _drawn(draws: Draws, key: Key, n: int) -> tuple[PyTree, PyTree]:
    return draws.batch(key, n)

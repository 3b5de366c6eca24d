"""Microbatches: a batch larger than memory, in parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxnn.checks import require_leading_axis, require_positive_int
from jaxnn.per_example.memory import fitting_size
from jaxnn.placement import compiler_sharded, explicit_spec, filled_as
from jaxnn.types import PyTree

Sums = TypeVar("Sums")
Each = TypeVar("Each")


def over_microbatches(
    f: Callable[..., tuple[Sums, Each]], data: tuple[PyTree, ...], size: int | None = None, *, memory: int | None = None
) -> tuple[Sums, Each]:
    """(the sum over microbatches of f's first result, the concatenation of f's second result).

    f's tape is freed after each microbatch, so memory is that of `size` examples. Sums keep f's dtypes. Use the first
    result for gradients, squares and clipped gradients, the second for norms and losses; a variance or a noise scale is
    NOT the sum of its parts. `lambda x, y: ((), record(params, state, x, y))` returns the tape of the whole batch.
    `microbatched_value_and_grad` does all this for `value_and_grad`.

    Microbatches are steps of one `lax.scan`. On CPU, XLA compiles the convolutions of other libraries to code several
    times slower inside a loop (those of `jaxnn.layers` are matrix products there): call a jitted f in a Python loop
    instead.

    Args:
        f: function of one microbatch `(*data)` that returns the pair (sums, arrays with a leading axis of examples),
            either of them () if empty.
        data: tuple of pytrees of arrays (N, ...).
        size: examples in a microbatch, >= 1. Where it does not divide N, the last microbatch is smaller.
        memory: instead of size, the bytes that f's intermediate arrays may take (`memory.peak_bytes`); the size
            is then `memory.fitting_size`. A compiled f needs about as much or less.

    Raises:
        TypeError: data is not a tuple; size or memory not an int.
        ValueError: arrays of different N, N = 0, f returns no pair; both or neither of size and memory; memory below
            that of one example.

    Example:
        >>> from jaxnn import backprop, losses, models, per_example
        >>> net = models.linear(3)
        >>> params, state = jax.jit(lambda key: net.init(key, (4,)))(jax.random.key(0))
        >>> record = backprop.record(net, losses.softmax_cross_entropy)
        >>> clipped = lambda x, y: per_example.clipped_grad(record(params, state, x, y), 1.0)
        >>> in_fours = jax.jit(lambda *batch: over_microbatches(clipped, batch, 4))
        >>> sums, norms = in_fours(jnp.ones((10, 4)), jnp.zeros(10, jnp.int32))
        >>> norms.shape
        (10,)
    """
    if (size is None) == (memory is None):
        raise ValueError(f"over_microbatches: pass one of size and memory, got size={size!r} and memory={memory!r}.")
    if not isinstance(data, tuple):
        raise TypeError(
            f"over_microbatches: data must be the tuple of f's arguments, (x, y), got {type(data).__name__}."
        )
    n = require_leading_axis("over_microbatches", "data", data)
    if memory is None:
        size = require_positive_int("over_microbatches", "size", size)
    else:
        size = fitting_size(f, data, require_positive_int("over_microbatches", "memory", memory))
    whole = n // size

    def split(data: PyTree) -> tuple[PyTree, PyTree]:
        parts = jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), data)
        return parts, jax.tree.map(lambda x: x[whole * size :], data)

    def together(each: PyTree, last: PyTree) -> PyTree:
        each = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), each)
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), each, last) if n > whole * size else each

    if whole == 0:
        return _pair(f(*data))

    def step(sums: Any, microbatch: tuple[PyTree, ...]) -> tuple[Any, Any]:
        found, each = _pair(f(*microbatch))
        return jax.tree.map(jnp.add, sums, found), each

    parts, rest = compiler_sharded(split, (_rows(data, size, None), _rows(data, n % size)), data)
    shapes = jax.eval_shape(lambda *d: _pair(f(*d))[0], *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(filled_as, shapes)
    sums, each = lax.scan(step, zeros, parts)
    last: PyTree = ()
    if n > whole * size:
        more, last = _pair(f(*rest))
        sums = jax.tree.map(jnp.add, sums, more)
    return sums, compiler_sharded(together, _rows(data, n), each, last)


def _rows(data: PyTree, rows: int, *before: None) -> PartitionSpec:
    """The spec of an array of `rows` examples on an Explicit mesh, after the axes `before`: sharded as the data if the
    devices divide them evenly, else replicated."""
    x: Any = jax.tree.leaves(data)[0]
    spec = explicit_spec(x)
    if spec is None or spec[0] is None:
        return PartitionSpec()
    names = spec[0] if isinstance(spec[0], tuple) else (spec[0],)
    devices = math.prod(jax.typeof(x).sharding.mesh.shape[name] for name in names)
    return PartitionSpec(*before, spec[0]) if rows % devices == 0 else PartitionSpec()


def _pair(found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(
            "over_microbatches: f must return the pair (sums, arrays with one entry for each example), "
            f"got {type(found).__name__}. Return (sums, ()) if there are no such arrays."
        )
    return found

"""Attention a block of queries or keys at a time: the sizes of blocks by platform, and the loop over them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.placement import filled_as
from jaxnn.types import Array, PyTree, Scalar

SCORE_BYTES = 4
"""Of one score, a float32."""

BLOCK = 256
"""Queries at a time, in the backward pass keys. The loop over blocks is a `lax.scan` also where causality would spare
later keys: unrolled, XLA keeps the probabilities of all blocks (on CPU despite barriers between them), which is
quadratic memory again."""

GPU_BYTES = 2**30
"""The float32 scores of a block on a GPU, where fewer and larger kernels are faster: larger blocks than BLOCK, if their
scores fit."""

TPU_BYTES = 2**26
"""The same on a TPU: what XLA keeps in the on-chip memory of 128 MiB, so that scores are never written to the other. In
the backward pass twice as much."""

TPU_LEAST = 32
"""Queries or keys of a block from which that is faster: each block reads all keys, or adds to all of dq."""

Part: TypeAlias = Callable[[tuple[Array, ...], Any], tuple[PyTree, PyTree]]
"""(arrays of a block (N, t, ...), what its queries see) -> (rows (N, t, ...), sums over the block's positions)."""


class Blocks(NamedTuple):
    """Positions of a block by platform."""

    cpu: int
    gpu: int
    tpu: int

    @classmethod
    def of(cls, bytes_each: int, on_chip: int = TPU_BYTES) -> Blocks:
        """Those for scores of so many bytes of each position."""

        def fitting(most: int, least: int) -> int:
            fits = most // max(bytes_each, 1)
            return 2 ** (fits.bit_length() - 1) if fits >= least else BLOCK

        return cls(BLOCK, fitting(GPU_BYTES, BLOCK), fitting(on_chip, TPU_LEAST))


def by_platform(f: Callable[..., Any], blocks: Blocks, count: int, *args: Any) -> Any:
    """f(*args, block=) with the block of the platform that the program is lowered for, of `count` positions in all."""
    cpu, gpu, tpu = (functools.partial(f, block=block) for block in blocks)
    # Without a choice, or outside of `jax.jit`, where each choice would be compiled anew.
    if count <= min(blocks) or not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
        return cpu(*args)
    return lax.platform_dependent(*args, cuda=gpu, rocm=gpu, tpu=tpu, default=cpu)


def by_queries(f: Part, arrays: tuple[Array, ...], visible: Any, block: int) -> tuple[PyTree, PyTree]:
    """f over blocks of queries, arrays (N, T, ...), each with what it sees: (rows (N, T, ...), sums)."""
    mask = visible.mask

    def of_block(start: Scalar, parts: tuple[Array, ...], mask_part: Array | None) -> tuple[PyTree, PyTree]:
        first = jnp.asarray(visible.first, jnp.int32) + start
        here = mask if mask_part is None else mask_part
        return f(parts, dataclasses.replace(visible, first=first, mask=here))

    if arrays[0].shape[1] <= block:
        return f(arrays, visible)
    return _by_blocks(of_block, arrays, mask if mask is not None and mask.ndim == 3 else None, block)


def by_keys(f: Part, arrays: tuple[Array, ...], visible: Any, block: int) -> tuple[PyTree, PyTree]:
    """f over blocks of keys, arrays (N, S, ...), each with who sees it: (rows (N, S, ...), sums)."""
    keys = arrays[0].shape[1]
    if keys <= block:
        return f(arrays, visible)
    mask = visible.mask
    if mask is None and keys % block:  # what fills the last block is no key
        mask = jnp.ones((1, keys), bool)

    def of_block(start: Scalar, parts: tuple[Array, ...], mask_part: Array | None) -> tuple[PyTree, PyTree]:
        first = jnp.asarray(visible.first, jnp.int32) - start
        here = None if mask_part is None else jnp.moveaxis(mask_part, 1, -1)
        return f(parts, dataclasses.replace(visible, first=first, mask=here))

    return _by_blocks(of_block, arrays, None if mask is None else jnp.moveaxis(mask, -1, 1), block)


def _by_blocks(
    f: Callable[..., tuple[PyTree, PyTree]], arrays: tuple[Array, ...], mask: Array | None, block: int
) -> tuple[PyTree, PyTree]:
    """f(start of a block, arrays of it, mask of it) -> (rows, sums over its positions), for all blocks.

    Args:
        f: its rows are arrays (N, t, ...).
        arrays: each (N, T, ...); the last block is filled with 0.
        mask: (N, T, ...), filled with False, or None.
        block: positions at a time, fewer than T.

    Returns:
        The rows (N, T, ...), and the sums.
    """
    count = arrays[0].shape[1]
    starts = range(0, count, block)
    whole = len(starts) * block

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, whole - count), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(padded.reshape(x.shape[0], len(starts), block, *x.shape[2:]), 1, 0)

    def body(sums: PyTree, some: tuple[Array, tuple[Array, ...], Array | None]) -> tuple[PyTree, PyTree]:
        rows, more = f(*some)
        return jax.tree.map(jnp.add, sums, more), rows

    places = jnp.arange(0, whole, block, dtype=jnp.int32)
    every = (places, tuple(map(blocks, arrays)), None if mask is None else blocks(mask))
    first = jax.eval_shape(lambda: f(*jax.tree.map(lambda x: x[0], every))[1])
    sums, rows = lax.scan(body, jax.tree.map(filled_as, first), every)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], whole, *x.shape[3:])[:, :count], rows), sums

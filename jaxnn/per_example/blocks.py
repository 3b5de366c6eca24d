"""Gradients of single examples a slice of the parameter at a time, so that not all of them are ever in memory.

A slice holds some of the d rows of the gradients sum_t a_it' delta_it of ALL examples; statistics over examples are
then exact within a slice, two passes included, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.types import Array

CHUNK_BYTES = 2**25
"""How much a slice of the gradients of all examples may take: 32 MiB."""

HIGHEST = lax.Precision.HIGHEST


def gradients(a: Array, delta: Array) -> Array:
    """g_i = sum_t a_it' delta_it in each group: a (N, T, G, d), delta (N, T, G, p) -> (N, G, d, p).

    Example:
        >>> gradients(jnp.ones((4, 5, 1, 3)), jnp.ones((4, 5, 1, 2))).shape
        (4, 1, 3, 2)
    """
    if a.shape[1] == 1:
        return a[:, 0, :, :, None] * delta[:, 0, :, None, :]
    return jnp.einsum("ntgd,ntgp->ngdp", a, delta, precision=HIGHEST)


def rows_of_chunk(*pairs: tuple[Array, Array]) -> int:
    """How many of the d rows make a slice of at most CHUNK_BYTES.

    Example:
        >>> rows_of_chunk((jnp.ones((4, 5, 1, 3)), jnp.ones((4, 5, 1, 2))))
        3
    """
    row = sum(a.shape[0] * delta.shape[2] * delta.shape[3] * a.dtype.itemsize for a, delta in pairs)
    return max(1, min(pairs[0][0].shape[3], CHUNK_BYTES // max(row, 1)))


def fits(a: Array, delta: Array) -> bool:
    """Whether the gradients of all examples together are one slice.

    Example:
        >>> fits(jnp.ones((4, 5, 1, 3)), jnp.ones((4, 5, 1, 2)))
        True
    """
    return rows_of_chunk((a, delta)) == a.shape[3]


def sum_over_chunks(f: Callable[..., Array], *pairs: tuple[Array, Array]) -> Array:
    """The sum of f(slice of the gradients of each pair) over slices; each slice (N, G, rows, p).

    Example:
        >>> pair = (jnp.ones((4, 5, 1, 3)), jnp.ones((4, 5, 1, 2)))
        >>> sum_over_chunks(lambda g: jnp.sum(g * g, (1, 2, 3)), pair)
        Array([150., 150., 150., 150.], dtype=float32)
    """
    rows = rows_of_chunk(*pairs)
    if rows == pairs[0][0].shape[3]:
        return f(*(gradients(a, delta) for a, delta in pairs))
    padded = _padded(pairs, rows)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        return total + f(*_slices(padded, start, rows)), None

    shape = jax.eval_shape(lambda: f(*_slices(padded, 0, rows)))
    return lax.scan(add, jnp.zeros(shape.shape, shape.dtype), _starts(padded, rows))[0]


def map_over_chunks(f: Callable[[Array], Array], a: Array, delta: Array) -> Array:
    """f of each slice, (N, G, rows, p) -> (G, rows, p), put together again: (G, d, p).

    Example:
        >>> map_over_chunks(lambda g: jnp.sum(g, 0), jnp.ones((4, 5, 1, 3)), jnp.ones((4, 5, 1, 2))).shape
        (1, 3, 2)
    """
    rows, d = rows_of_chunk((a, delta)), a.shape[3]
    if rows == d:
        return f(gradients(a, delta))
    padded = _padded([(a, delta)], rows)
    parts = lax.map(lambda start: f(*_slices(padded, start, rows)), _starts(padded, rows))  # (slices, G, rows, p)
    return jnp.moveaxis(parts, 0, 1).reshape(parts.shape[1], -1, parts.shape[3])[:, :d]


def _padded(pairs: Sequence[tuple[Array, Array]], rows: int) -> list[tuple[Array, Array]]:
    """Zeros added so that slices are equal: their gradients are 0."""
    short = -pairs[0][0].shape[3] % rows
    return [(jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, short))), delta) for a, delta in pairs]


def _starts(padded: Sequence[tuple[Array, Array]], rows: int) -> Array:
    return jnp.arange(0, padded[0][0].shape[3], rows)


def _slices(padded: Sequence[tuple[Array, Array]], start: Array | int, rows: int) -> list[Array]:
    return [gradients(lax.dynamic_slice_in_dim(a, start, rows, axis=3), delta) for a, delta in padded]

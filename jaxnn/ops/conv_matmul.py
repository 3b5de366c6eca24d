"""Convolution written as matrix products, for CPUs.

XLA compiles the weight gradient of a convolution inside a loop on CPU to a naive nest of loops, some fifty times slower
than outside one (jax issue 12868), and every scanned epoch is such a loop. Strided slices and matrix products run at
full speed anywhere, forward and backward.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator

import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, Shape

ENOUGH_TERMS = 64
"""Contraction length from which a matrix product is efficient: window axes are joined to the channels up to it."""


def conv_as_matmul(
    x: Array, w: Array, *, stride: Shape, pads: tuple[tuple[int, int], ...], dilation: Shape, groups: int
) -> Array:
    """y[n, o, c] = sum over k and i of x[n, o s + k d - p, i] w[k, i, c], as sums of matrix products.

    The trailing window axes are joined to the channels: the slices of x that they select stand side by side, and meet
    the kernel in one product. Over the window axes before those, products are summed.

    Args:
        x: (N, *spatial, C_in).
        w: (*window, C_in / groups, C_out), of the dtype of x.
        stride, pads, dilation: for each spatial axis; pads are (low, high) pairs.
        groups: channel groups.

    Returns:
        (N, *spatial', C_out) in the dtype of x; sums run in float32 (float64 for float64).

    Example:
        >>> x, w = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 2))
        >>> conv_as_matmul(x, w, stride=(1, 1), pads=((0, 0), (0, 0)), dilation=(1, 1), groups=1)[0, 0, 0]
        Array([9., 9.], dtype=float32)
    """
    *window, c_in, c_out = w.shape
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
    out = tuple(
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape[1:-1], window, dilation, stride, strict=True)
    )
    joined = _joined_axes(tuple(window), c_in)
    split = len(window) - joined

    def slice_at(offset: tuple[int, ...]) -> Array:
        starts = [k * d for k, d in zip(offset, dilation, strict=True)]
        stops = [start + (o - 1) * s + 1 for start, o, s in zip(starts, out, stride, strict=True)]
        part = lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *stride, 1))
        return part.reshape(-1, groups, c_in)

    def product(outer: tuple[int, ...]) -> Array:
        inner = itertools.product(*map(range, window[split:]))
        columns = lax.concatenate([slice_at((*outer, *k)) for k in inner], dimension=2)
        kernel = w[outer].reshape(columns.shape[2], groups, c_out // groups)
        return _grouped_product(columns, kernel)

    terms = [product(outer) for outer in itertools.product(*map(range, window[:split]))]
    return functools.reduce(operator.add, terms).reshape(x.shape[0], *out, c_out).astype(x.dtype)


def _joined_axes(window: Shape, c_in: int) -> int:
    """How many trailing window axes are joined to the channels: the last one, and more while the product is short."""
    joined = 1
    while joined < len(window) and math.prod(window[-joined:]) * c_in < ENOUGH_TERMS:
        joined += 1
    return joined


def _grouped_product(columns: Array, kernel: Array) -> Array:
    """columns (M, G, D) times kernel (D, G, E), group by group: (M, G E), accumulated."""
    m, groups, d = columns.shape
    wide = accumulation_dtype(columns.dtype)
    if groups == 1:
        return lax.dot_general(
            columns.reshape(m, d), kernel.reshape(d, -1), (((1,), (0,)), ((), ())), preferred_element_type=wide
        )
    by_group = lax.dot_general(columns, kernel, (((2,), (0,)), ((1,), (1,))), preferred_element_type=wide)
    return jnp.swapaxes(by_group, 0, 1).reshape(m, -1)

"""Convolution as matrix products (im2col), the path on CPU.

Inside a loop, XLA on CPU compiles the weight gradient of a convolution to a naive loop nest, some fifty times slower
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

from jaxnn.numerics import Precision, accumulation_dtype, dot_general
from jaxnn.ops.steps import Step, map_examples, sum_examples
from jaxnn.types import Array, Shape

ENOUGH_TERMS = 64
"""Contraction length at which a matrix product is efficient: window axes join the channels until it is reached."""


def conv_as_matmul(
    x: Array, w: Array, *, stride: Shape, pads: tuple[tuple[int, int], ...], dilation: Shape, groups: int
) -> Array:
    """y[n, o, c] = sum over k and i of x[n, o s + k d - p, i] w[k, i, c], as a sum of matrix products.

    Trailing window axes (`_joined_axes`) are merged with the channels: the slices of x are concatenated into columns
    and multiplied with the kernel in one product. Over the leading window axes, products are summed.

    Args:
        x: (N, *spatial, C_in).
        w: (*window, C_in / groups, C_out), of the dtype of x.
        stride, pads, dilation: per spatial axis; pads are (low, high) pairs.
        groups: number of channel groups.

    Returns:
        (N, *spatial', C_out) in the dtype of x; sums run in float32 (float64 for float64).
    """
    *window, c_in, c_out = w.shape
    x = padded(x, pads)
    out = output_sizes(x.shape[1:-1], tuple(window), stride, dilation)
    inner, outer = _split(tuple(window), c_in)

    # All window axes in the columns would copy x as many times as the window is large; the leading ones only shift x.
    def product(k: tuple[int, ...]) -> Array:
        columns = columns_of(x, k, inner, out, stride, dilation, groups)
        return _grouped_product(columns, w[k].reshape(columns.shape[2], groups, c_out // groups))

    return functools.reduce(operator.add, map(product, outer)).reshape(x.shape[0], *out, c_out).astype(x.dtype)


def conv_weight_grad_as_matmul(
    x: Array,
    dy: Array,
    window: Shape,
    *,
    stride: Shape,
    pads: tuple[tuple[int, int], ...],
    dilation: Shape,
    groups: int,
    step: Step,
    precision: Precision = None,
) -> Array:
    """dw[k, i, c] = sum over n and o of x[n, o s + k d - p, i] dy[n, o, c]: the columns of x, transposed, times dy.

    Args:
        x: (N, *spatial, C_in).
        dy: (N, *spatial', C_out).
        window: spatial sizes of the kernel.
        stride, pads, dilation, groups: as for `conv_as_matmul`.
        step: the examples whose columns are materialized at a time.
        precision: as for `numerics.dot_general`.

    Returns:
        (*window, C_in / groups, C_out), in the accumulation dtype.
    """

    def some(x: Array, dy: Array) -> Array:
        columns, errors = _columns_and_errors(x, dy, window, stride, dilation, groups)
        # The wider factor comes second: the inner loop of a product runs along its rows.
        a, b = (errors, columns) if columns.shape[-1] > errors.shape[-1] else (columns, errors)
        return _over_positions(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:]), precision)

    found = sum_examples(some, step, padded(x, pads), dy)  # (G, D, p) or (G, p, D)
    c_in, c_out = x.shape[-1] // groups, dy.shape[-1]
    by_group = jnp.moveaxis(found, 0, 1) if found.shape[-1] == c_out // groups else jnp.moveaxis(found, 2, 0)
    return by_group.reshape(*window, c_in, c_out)


def conv_weight_grads_as_matmul(
    x: Array,
    dy: Array,
    window: Shape,
    *,
    stride: Shape,
    pads: tuple[tuple[int, int], ...],
    dilation: Shape,
    groups: int,
    step: Step,
    precision: Precision = None,
) -> Array:
    """Per-example `conv_weight_grad_as_matmul`: (N, *window, C_in / groups, C_out), in the accumulation dtype."""

    def some(x: Array, dy: Array) -> Array:
        by_group = _over_positions(*_columns_and_errors(x, dy, window, stride, dilation, groups), precision)
        return jnp.swapaxes(by_group, 1, 2).reshape(x.shape[0], *window, x.shape[-1] // groups, dy.shape[-1])

    return map_examples(some, step, padded(x, pads), dy)


def bytes_of_columns(x: Array, dy: Array, window: Shape) -> int:
    """Bytes of one example's columns and cotangent."""
    columns, errors = math.prod(window) * x.shape[-1] * x.dtype.itemsize, dy.shape[-1] * dy.dtype.itemsize
    return math.prod(dy.shape[1:-1]) * (columns + errors)


def _columns_and_errors(
    x: Array, dy: Array, window: Shape, stride: Shape, dilation: Shape, groups: int
) -> tuple[Array, Array]:
    """The columns of a padded x, (n, T, G, D), and the cotangent, (n, T, G, p), for T positions and G groups."""
    offsets = list(itertools.product(*map(range, window)))
    columns = columns_of(x, (), offsets, dy.shape[1:-1], stride, dilation, groups)
    errors = dy.reshape(dy.shape[0], -1, groups, dy.shape[-1] // groups)
    return columns.reshape(*errors.shape[:3], -1), errors


def _over_positions(a: Array, b: Array, precision: Precision) -> Array:
    """a (..., T, G, D) and b (..., T, G, E): their products summed over T, (..., G, D, E)."""
    kept = a.ndim - 3
    product = functools.partial(dot_general, precision=precision)
    examples = tuple(range(kept))
    if a.shape[-2] == 1:  # one group: drop its axis, for a product of plain matrices
        found = product(a[..., 0, :], b[..., 0, :], (((kept,), (kept,)), (examples, examples)))
        return jnp.expand_dims(found, kept)
    batch = (*examples, kept + 1)
    return product(a, b, (((kept,), (kept,)), (batch, batch)))


def padded(x: Array, pads: tuple[tuple[int, int], ...]) -> Array:
    """x zero-padded on its spatial axes; negative padding crops."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])


def output_sizes(sizes: Shape, window: Shape, stride: Shape, dilation: Shape) -> Shape:
    """The spatial sizes of the outputs, from those of the padded inputs."""
    return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(sizes, window, dilation, stride, strict=True))


def _split(window: Shape, c_in: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Offsets in the window axes that are merged with the channels, and in those that are summed over."""
    split = len(window) - _joined_axes(window, c_in)
    return [list(itertools.product(*map(range, axes))) for axes in (window[split:], window[:split])]  # type: ignore


def columns_of(
    x: Array,
    outer: tuple[int, ...],
    inner: list[tuple[int, ...]],
    out: Shape,
    stride: Shape,
    dilation: Shape,
    groups: int,
) -> Array:
    """im2col of a padded x at the offsets (*outer, *k), k in `inner`: (N T, groups, len(inner) C_in / groups)."""

    def slice_at(offset: tuple[int, ...]) -> Array:
        starts = [k * d for k, d in zip(offset, dilation, strict=True)]
        stops = [start + (o - 1) * s + 1 for start, o, s in zip(starts, out, stride, strict=True)]
        part = lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *stride, 1))
        return part if groups == 1 else part.reshape(*part.shape[:-1], groups, x.shape[-1] // groups)

    parts = [slice_at((*outer, *k)) for k in inner]
    columns = lax.concatenate(parts, dimension=parts[0].ndim - 1)  # before any reshape: XLA then copies only once
    return columns.reshape(-1, groups, columns.shape[-1])


def _joined_axes(window: Shape, c_in: int) -> int:
    """How many trailing window axes are merged with the channels: one, and more while the contraction is short."""
    joined = 1
    while joined < len(window) and math.prod(window[-joined:]) * c_in < ENOUGH_TERMS:
        joined += 1
    return joined


def _grouped_product(columns: Array, kernel: Array) -> Array:
    """columns (M, G, D) times kernel (D, G, E), per group: (M, G E), in the accumulation dtype."""
    m, groups, d = columns.shape
    wide = accumulation_dtype(columns.dtype)
    if groups == 1:
        return lax.dot_general(
            columns.reshape(m, d), kernel.reshape(d, -1), (((1,), (0,)), ((), ())), preferred_element_type=wide
        )
    by_group = lax.dot_general(columns, kernel, (((2,), (0,)), ((1,), (1,))), preferred_element_type=wide)
    return jnp.swapaxes(by_group, 0, 1).reshape(m, -1)

"""Pooling over windows of any number of spatial axes, and its adjoints; n, o, k, s, p are as in `ops.conv`.

Both pools are separable: a window is reduced along its last axis, then the one before, and so on. That costs
sum(window) instead of prod(window) operations and keeps the tie rule exact: the first maximum in row-major order is
the first one in the first row that contains the maximum.

The gradient of a `lax.reduce_window` maximum is a select-and-scatter, slow on CPU; that of strided slices combined by
`where` consists of masks and pads. Where the stride equals the window, a reshape takes the place of the slices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.checks import pair, require_floating
from jaxnn.numerics import accumulate
from jaxnn.ops.conv import Padding, resolve_padding
from jaxnn.types import Array, Shape


def max_pool(
    x: Array, *, window: int | Sequence[int], stride: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> Array:
    """y[n, o, c] = max over k of x[n, o s + k - p, c].

    Ties: the derivative is 1 at the first maximum of a window in row-major order and 0 at the others. NaN propagates.
    Padding repeats the edge, which is in the window already, so it never changes the maximum.

    Args:
        x: (N, *spatial, C), one spatial axis or more.
        window: an int, or one for each spatial axis.
        stride: an int, or one for each spatial axis; None means the window (no overlap).
        padding: "VALID", "SAME", or a (low, high) pair for each spatial axis, each less than the window.

    Returns:
        (N, *spatial', C) in the dtype of x.

    Raises:
        ValueError: x has no spatial axis or an empty one, a window does not fit, or padding >= window.

    Reference: Ranzato, M., Huang, F. J., Boureau, Y.-L. & LeCun, Y. (2007). Unsupervised learning of invariant feature
        hierarchies with applications to object recognition, section 2.

    Example:
        >>> max_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), window=2).ravel()
        Array([3., 2.], dtype=float32)
    """
    windows, strides, pads = _geometry("max_pool", x.shape, window, stride, padding)
    for axis in range(x.ndim - 2, 0, -1):
        x = _first_maximum(_max_parts(x, axis, windows[axis - 1], strides[axis - 1], pads[axis - 1]))[0]
    return x


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Winners:
    """The argmax of each window, all that `max_pool_input_grad` needs.

    `indices` are, from the last spatial axis to the first, the index of the first maximum along that axis, with later
    axes already pooled; int8, or int32 for windows longer than 127. `windows`, `strides` and `pads` have one entry per
    spatial axis; `shape` is that of x.
    """

    indices: tuple[Array, ...]
    windows: Shape = dataclasses.field(metadata={"static": True})
    strides: Shape = dataclasses.field(metadata={"static": True})
    pads: tuple[tuple[int, int], ...] = dataclasses.field(metadata={"static": True})
    shape: Shape = dataclasses.field(metadata={"static": True})


def max_pool_winners(
    x: Array, *, window: int | Sequence[int], stride: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> tuple[Array, Winners]:
    """`max_pool` and its argmax, (y (N, *spatial', C), winners), so that x is not a residual of the backward pass.

    Example:
        >>> y, winners = max_pool_winners(jnp.array([5.0, 5.0, 2.0, 7.0]).reshape(1, 4, 1), window=2)
        >>> winners.indices[0].ravel()
        Array([0, 1], dtype=int8)
    """
    windows, strides, pads = _geometry("max_pool", x.shape, window, stride, padding)
    y, indices = x, []
    for axis in range(x.ndim - 2, 0, -1):
        y, winner = _first_maximum(_max_parts(y, axis, windows[axis - 1], strides[axis - 1], pads[axis - 1]))
        indices.append(winner)
    # Without the barrier XLA may recompute them in the backward pass, and keep x alive for it.
    return y, Winners(lax.optimization_barrier(tuple(indices)), windows, strides, pads, x.shape)


def max_pool_input_grad(winners: Winners, dy: Array) -> Array:
    """The adjoint of the derivative of `max_pool`: each cotangent goes to the first maximum of its window.

    dx[n, j, c] = sum of dy[n, o, c] over the windows o whose first maximum in row-major order is at j.

    Args:
        winners: from `max_pool_winners` in the forward pass.
        dy: cotangent (N, *spatial', C) of the output.

    Returns:
        dx (N, *spatial, C) in the dtype of dy; sums over overlapping windows run in float32 (float64 for float64).

    Example:
        >>> y, winners = max_pool_winners(jnp.array([5.0, 5.0, 2.0, 7.0]).reshape(1, 4, 1), window=2)
        >>> max_pool_input_grad(winners, jnp.array([1.0, 10.0]).reshape(1, 2, 1)).ravel()
        Array([ 1.,  0.,  0., 10.], dtype=float32)
    """
    _require_output("max_pool", winners.shape, dy, winners.windows, winners.strides, winners.pads)
    dx = accumulate(dy)
    spatial = zip(winners.windows, winners.strides, winners.pads, reversed(winners.indices), strict=True)
    for axis, (k, s, (low, high), index) in enumerate(spatial, start=1):
        size = winners.shape[axis] + low + high
        dx = _fold_edges(_route(dx, index, axis, k, s, size), axis, low, high)
    return dx.astype(dy.dtype)


def _route(dx: Array, index: Array, axis: int, k: int, s: int, size: int) -> Array:
    """Each cotangent at the `index`-th of its k positions on an axis of this size, summed where windows overlap."""
    zero = jnp.zeros((), dx.dtype)
    if s != k:
        return _gather_parts([jnp.where(index == i, dx, zero) for i in range(k)], axis, s, size)
    shape = (*dx.shape[: axis + 1], k, *dx.shape[axis + 1 :])
    old_axes = [a for a in range(len(shape)) if a != axis + 1]
    here = lax.broadcast_in_dim(index, shape, old_axes) == lax.broadcasted_iota(index.dtype, shape, axis + 1)
    routed = jnp.where(here, lax.broadcast_in_dim(dx, shape, old_axes), zero)
    whole = routed.reshape(*dx.shape[:axis], -1, *dx.shape[axis + 1 :])
    return _pad(whole, axis, 0, size - whole.shape[axis])


def average_pool(
    x: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_padding: bool = True,
) -> Array:
    """y[n, o, c] = (1 / m_o) sum over k of x[n, o s + k - p, c], padding counting as 0.

    Args:
        x, window, stride, padding: as for `max_pool`; x floating.
        count_padding: True (as in flax and PyTorch): m_o = prod(window) everywhere. False: m_o counts only the entries
            of x in the window: a constant image stays constant.

    Returns:
        (N, *spatial', C) in the dtype of x; sums run in float32 (float64 for float64).

    Reference: LeCun, Y., Boser, B., Denker, J. S., et al. (1990). Handwritten digit recognition with a back-propagation
        network, section 4.

    Example:
        >>> average_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), window=2).ravel()
        Array([2., 1.], dtype=float32)
    """
    require_floating("average_pool", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    windows, strides, pads = _geometry("average_pool", x.shape, window, stride, padding)
    y = accumulate(x)
    for axis in range(x.ndim - 2, 0, -1):
        k, s, (low, high) = windows[axis - 1], strides[axis - 1], pads[axis - 1]
        shares = _shares(x.shape[axis], k, s, low, high, count_padding)
        y = _along(shares, axis, reduce(add, _parts(_pad(y, axis, low, high), axis, k, s)))
    return y.astype(x.dtype)


def average_pool_input_grad(
    dy: Array,
    sizes: Shape,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_padding: bool = True,
) -> Array:
    """The adjoint of `average_pool`: each cotangent is distributed equally over its window.

    dx[n, j, c] = sum over the windows o that contain j of dy[n, o, c] / m_o, m_o as in `average_pool`.

    Args:
        dy: cotangent (N, *spatial', C) of the output.
        sizes: the spatial sizes of x; the shape of dy does not determine them if stride > 1.
        window, stride, padding, count_padding: as in the forward call.

    Returns:
        dx (N, *sizes, C) in the dtype of dy; sums run in float32 (float64 for float64).

    Example:
        >>> average_pool_input_grad(jnp.array([2.0, 4.0]).reshape(1, 2, 1), (4,), window=2).ravel()
        Array([1., 1., 2., 2.], dtype=float32)
    """
    shape = (dy.shape[0], *sizes, dy.shape[-1])
    windows, strides, pads = _geometry("average_pool", shape, window, stride, padding)
    _require_output("average_pool", shape, dy, windows, strides, pads)
    dx = accumulate(dy)
    for axis, n in enumerate(sizes, start=1):
        k, s, (low, high) = windows[axis - 1], strides[axis - 1], pads[axis - 1]
        share = _along(_shares(n, k, s, low, high, count_padding), axis, dx)
        dx = lax.slice_in_dim(_gather_parts([share] * k, axis, s, n + low + high), low, low + n, axis=axis)
    return dx.astype(dy.dtype)


def _geometry(
    where: str, shape: Shape, window: int | Sequence[int], stride: int | Sequence[int] | None, padding: Padding
) -> tuple[Shape, Shape, tuple[tuple[int, int], ...]]:
    """Window, stride and (low, high) padding of each spatial axis, checked."""
    dims = len(shape) - 2
    if dims < 1:
        raise ValueError(
            f"{where}: x must be (N, *spatial, C) with at least one spatial axis, got shape {shape}. "
            "Add the missing batch axis (x[None]) or channel axis (x[..., None])."
        )
    windows = pair(where, "window", window, dims)
    strides = windows if stride is None else pair(where, "stride", stride, dims)
    pads = resolve_padding(where, padding, shape[1:-1], windows, strides, (1,) * dims)
    for k, (low, high) in zip(windows, pads, strict=True):
        if max(low, high) >= k:
            raise ValueError(
                f"{where}: padding ({low}, {high}) must be less than the window {k}, else a window contains only "
                "padding. Use less padding or a larger window."
            )
    if 0 in shape[1:-1]:
        raise ValueError(f"{where}: every spatial axis must have size >= 1, got shape {shape}.")
    return windows, strides, pads


def _require_output(
    where: str, shape: Shape, dy: Array, windows: Shape, strides: Shape, pads: Sequence[tuple[int, int]]
) -> None:
    """Raise unless dy has the shape of the pooled x."""
    spatial = zip(shape[1:-1], windows, strides, pads, strict=True)
    expected = (shape[0], *(_outputs(n + sum(p), k, s) for n, k, s, p in spatial), shape[-1])
    if dy.shape != expected:
        raise ValueError(
            f"{where}: the cotangent for an input {shape} must have the shape of its output, {expected}, got "
            f"{dy.shape}. Pass the adjoint the window, stride and padding of the forward call."
        )


def _outputs(size: int, k: int, s: int) -> int:
    """The number of windows on a padded axis."""
    return (size - k) // s + 1


def _parts(x: Array, axis: int, k: int, s: int) -> list[Array]:
    """Entry i of every window along one axis, for i = 0 .. k - 1: arrays with one entry per window."""
    out = _outputs(x.shape[axis], k, s)
    if s == k:
        whole = lax.slice_in_dim(x, 0, out * k, axis=axis)
        split = whole.reshape(*x.shape[:axis], out, k, *x.shape[axis + 1 :])
        return [lax.index_in_dim(split, i, axis + 1, keepdims=False) for i in range(k)]
    return [lax.slice_in_dim(x, i, i + (out - 1) * s + 1, s, axis) for i in range(k)]


def _gather_parts(parts: Sequence[Array], axis: int, s: int, size: int) -> Array:
    """The adjoint of `_parts`: every part scattered back to its positions on an axis of this size, and summed."""
    k, out = len(parts), parts[0].shape[axis]
    zero = jnp.zeros((), parts[0].dtype)
    none = [(0, 0, 0)] * parts[0].ndim
    if s == k:
        shape = parts[0].shape
        whole = jnp.stack(parts, axis + 1).reshape(*shape[:axis], out * k, *shape[axis + 1 :])
        return _pad(whole, axis, 0, size - out * k)
    spread = [(i, size - i - (out - 1) * s - 1, s - 1) for i in range(k)]
    padded = [lax.pad(p, zero, [*none[:axis], c, *none[axis + 1 :]]) for p, c in zip(parts, spread, strict=True)]
    return reduce(add, padded)


def _max_parts(x: Array, axis: int, k: int, s: int, pads: tuple[int, int]) -> list[Array]:
    """The parts of the edge-padded x."""
    low, high = pads
    if low or high:
        n = x.shape[axis]
        first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, n - 1, n, axis=axis)
        x = lax.concatenate([first] * low + [x] + [last] * high, axis)
    return _parts(x, axis, k, s)


def _fold_edges(dx: Array, axis: int, low: int, high: int) -> Array:
    """The adjoint of edge padding: cotangents of the padding are added to the first and the last entry."""
    n = dx.shape[axis] - low - high
    inner = lax.slice_in_dim(dx, low, low + n, axis=axis)
    if low:
        inner = inner + _pad(lax.slice_in_dim(dx, 0, low, axis=axis).sum(axis, keepdims=True), axis, 0, n - 1)
    if high:
        inner = inner + _pad(lax.slice_in_dim(dx, low + n, None, axis=axis).sum(axis, keepdims=True), axis, n - 1, 0)
    return inner


def _first_maximum(parts: Sequence[Array]) -> tuple[Array, Array]:
    """The element-wise maximum of the parts and the index of the first one that attains it; NaN is the largest."""
    dtype = jnp.int8 if len(parts) <= 127 else jnp.int32
    best, winner = parts[0], jnp.zeros(parts[0].shape, dtype)
    for i, part in enumerate(parts[1:], start=1):
        keep = (best >= part) | (best != best)  # a comparison with NaN is False, so that a new NaN wins
        best, winner = jnp.where(keep, best, part), jnp.where(keep, winner, jnp.asarray(i, dtype))
    return best, winner


def _pad(x: Array, axis: int, low: int, high: int) -> Array:
    """x zero-padded along one axis."""
    widths = [(low, high, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), widths) if low or high else x


def _shares(n: int, k: int, s: int, low: int, high: int, count_padding: bool) -> np.ndarray:
    """The factor of 1 / m_o that one axis contributes, for each window on it."""
    starts = np.arange(_outputs(n + low + high, k, s)) * s - low
    real = np.minimum(starts + k, n) - np.maximum(starts, 0)
    return 1.0 / (np.full_like(real, k) if count_padding else real)


def _along(factors: np.ndarray, axis: int, x: Array) -> Array:
    """x times one factor for each position on one axis."""
    shape = [1] * x.ndim
    shape[axis] = len(factors)
    return x * jnp.asarray(factors.reshape(shape), x.dtype)

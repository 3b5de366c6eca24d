"""Convolution over any number of spatial axes, and its adjoints.

As in all of deep learning this is a cross-correlation, without flipping the kernel:

    y[n, o, :] = sum_k x[n, o s + k d - p, :] w[k, :, :]

for example n, output position o and kernel position k, with stride s, dilation d and p entries of padding before the
first, in each spatial axis (for groups = 1). Images are channels-last (N, ..., C_in), kernels
(..., C_in / groups, C_out): NHWC and HWIO for two axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import pair
from jaxnn.numerics import EXACT, OF_HALF, SIX_PRODUCTS, Precision, accumulate, multiplied
from jaxnn.ops.conv_matmul import (
    bytes_of_columns,
    conv_as_matmul,
    conv_weight_grad_as_matmul,
    conv_weight_grads_as_matmul,
)
from jaxnn.ops.steps import CPU_BYTES, by_steps, chunks
from jaxnn.placement import compiler_sharded, spec_of
from jaxnn.types import Array, DTypeLike, Shape

Padding: TypeAlias = str | Sequence[tuple[int, int]]
"""\"VALID\" (none), "SAME" (ceil(size / stride) outputs), or a (low, high) pair for each spatial axis."""


def resolve_padding(
    where: str, padding: Padding, sizes: Shape, window: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...]:
    """(low, high) per spatial axis; "SAME" has an odd one at the end. ValueError if a window does not fit."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    if padding == "VALID":
        pads = [(0, 0)] * len(sizes)
    elif padding == "SAME":
        totals = [max((-(-n // s) - 1) * s + span - n, 0) for n, s, span in zip(sizes, stride, spans, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = _explicit_pads(where, padding, len(sizes))
    for n, (low, high), span in zip(sizes, pads, spans, strict=True):
        if n + low + high < span:
            raise ValueError(
                f"{where}: a window that spans {span} does not fit an axis of size {n} padded by ({low}, {high}). "
                'Use a smaller window or dilation, more padding, or padding="SAME".'
            )
    return tuple(pads)


def require_padding_form(where: str, padding: Padding) -> None:
    """Raise ValueError for a string other than "SAME" and "VALID"; pairs are checked once the axes are known."""
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f'{where}: padding must be "SAME", "VALID" or (low, high) pairs, got {padding!r}.')


def _explicit_pads(where: str, padding: Padding, dims: int) -> list[tuple[int, int]]:
    """The pairs as ints, or an error with the expected form."""
    expected = f'"SAME", "VALID" or a (low, high) pair of ints >= 0 for each of {dims} spatial axes'
    if isinstance(padding, str) or not hasattr(padding, "__len__") or len(padding) != dims:
        raise ValueError(f"{where}: padding must be {expected}, got {padding!r}.")
    pairs = [pair(where, "padding", p, 2, minimum=0) for p in padding]
    return [(p[0], p[1]) for p in pairs]


def _dimensions(ndim: int) -> tuple[str, str, str]:
    """Channels-last dimension numbers for `lax.conv_general_dilated`: ("NHWC", "HWIO", "NHWC") with digits for axes."""
    spatial = "".join(str(i) for i in range(ndim - 2))
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def conv(
    x: Array,
    w: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """y[n, o, c] = sum over k and i of x[n, o s + k d - p, i] w[k, i, c].

    Args:
        x: (N, ..., C_in), any number of spatial axes >= 1.
        w: (..., C_in / groups, C_out).
        stride, dilation: an int, or one for each spatial axis.
        padding: "SAME", "VALID", or (low, high) pairs.
        groups: number of channel groups; output channels [g C_out/groups, (g+1) C_out/groups) see only input group g.
            groups = C_in is the depthwise convolution.

    Returns:
        (N, ..., C_out) in the promoted dtype of x and w. On CPU it lowers to matrix products (`conv_as_matmul`), whose
        `jax.grad` stays fast inside a loop; elsewhere to XLA's convolution (`conv_native`).

    Raises:
        TypeError: channels of x that are not groups times those of w; settings that are not ints.
        ValueError: a window that does not fit the padded x; settings out of range or of another length.

    Example:
        >>> conv(jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 2))).shape
        (1, 3, 3, 2)
    """
    dims = x.ndim - 2
    stride, dilation = pair("conv", "stride", stride, dims), pair("conv", "dilation", dilation, dims)
    pads = resolve_padding("conv", padding, x.shape[1:-1], w.shape[:-2], stride, dilation)
    dtype = jnp.promote_types(x.dtype, w.dtype)
    geometry: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation, "groups": groups}
    # Both branches share one set of residuals: without `checkpoint` other platforms would store the CPU's columns.
    as_products = jax.checkpoint(partial(conv_as_matmul, **geometry))
    as_convolution = partial(conv_native, **geometry)
    # By the platform of the lowering, not of this process: a program may be traced here and compiled for another.
    by_platform = partial(lax.platform_dependent, cpu=as_products, default=as_convolution)
    # With Explicit axes, the reshape that merges examples and positions has no sharding type.
    place = spec_of(jax.typeof(x).sharding.spec[0], *[None] * dims, jax.typeof(w).sharding.spec[-1])
    return compiler_sharded(by_platform, place, x.astype(dtype), w.astype(dtype))


def conv_value(
    x: Array,
    w: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """Same as `conv` up to rounding, by XLA's convolution where it is faster on CPU; `jax.grad` in a loop is slow."""
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    dims = x.ndim - 2
    if not _natively_fast(dims, x.shape[-1], groups):
        return conv(x, w, **settings)
    steps = {name: pair("conv", name, settings[name], dims) for name in ("stride", "dilation")}
    pads = resolve_padding("conv", padding, x.shape[1:-1], w.shape[:-2], steps["stride"], steps["dilation"])
    dtype = jnp.promote_types(x.dtype, w.dtype)
    return conv_native(x.astype(dtype), w.astype(dtype), pads=pads, groups=groups, **steps)


def _natively_fast(dims: int, c_in: int, groups: int) -> bool:
    """Whether XLA's convolution beats matrix products on CPU: up to 2 axes, and 1 group or over 2 inputs a group."""
    return dims <= 2 and (groups == 1 or c_in // groups > 2)


def conv_native(
    x: Array, w: Array, *, stride: Shape, pads: tuple[tuple[int, int], ...], dilation: Shape, groups: int
) -> Array:
    """`conv` by XLA's convolution, the path on every platform but CPU; x and w of one dtype, settings per axis."""
    return lax.conv_general_dilated(
        x, w, stride, pads, rhs_dilation=dilation, dimension_numbers=_dimensions(x.ndim), feature_group_count=groups
    )


def conv_input_grad(
    w: Array,
    dy: Array,
    sizes: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """The adjoint of `conv` in x: dy dilated by the stride, convolved with the flipped, transposed kernel.

    dx[n, m, i] = sum over (o, k) with o s + k d - p = m of sum_c dy[n, o, c] w[k, i, c].

    Args:
        w: kernel (..., C_in / groups, C_out).
        dy: cotangent (N, ..., C_out) of the output.
        sizes: the spatial sizes of x; the shape of dy does not determine them if stride > 1.
        stride, padding, dilation, groups: as in the forward call.

    Returns:
        dx (N, *sizes, C_in) in the dtype of dy.

    Example:
        >>> conv_input_grad(jnp.ones((3, 3, 1, 2)), jnp.ones((1, 3, 3, 2)), (5, 5)).shape
        (1, 5, 5, 1)
    """
    dims = dy.ndim - 2
    stride, dilation = pair("conv", "stride", stride, dims), pair("conv", "dilation", dilation, dims)
    pads = resolve_padding("conv", padding, sizes, w.shape[:-2], stride, dilation)
    back = []
    for n, out, k, s, d, (low, _) in zip(sizes, dy.shape[1:-1], w.shape[:-2], stride, dilation, pads, strict=True):
        span = (k - 1) * d + 1
        first = span - 1 - low
        back.append((first, n - ((out - 1) * s + 1) - first + span - 1))
    flipped = _flip_and_transpose(w.astype(dy.dtype), groups)
    native = partial(
        lax.conv_general_dilated,
        window_strides=(1,) * dims,
        padding=back,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=_dimensions(dy.ndim),
        feature_group_count=groups,
    )
    if _natively_fast(dims, w.shape[-2] * groups, groups):
        return native(dy, flipped)

    def as_products(dy: Array, flipped: Array) -> Array:
        # `lhs_dilation` by interior padding, as `conv_as_matmul` has no such option.
        spread = [(0, 0, 0), *((low, high, s - 1) for (low, high), s in zip(back, stride, strict=True)), (0, 0, 0)]
        wide = lax.pad(dy, jnp.zeros((), dy.dtype), spread)
        ones, none = (1,) * dims, ((0, 0),) * dims
        return conv_as_matmul(wide, flipped, stride=ones, pads=none, dilation=dilation, groups=groups)

    return lax.platform_dependent(dy, flipped, cpu=as_products, default=native)


def _flip_and_transpose(w: Array, groups: int) -> Array:
    """Reverse the spatial axes and swap input with output channels inside each group."""
    *window, c_in, c_out = w.shape
    grouped = jnp.flip(w, range(len(window))).reshape(*window, c_in, groups, c_out // groups)
    swapped = jnp.moveaxis(grouped, -1, -3)  # (..., C_out / groups, C_in / groups, groups)
    return jnp.swapaxes(swapped, -1, -2).reshape(*window, c_out // groups, groups * c_in)


def conv_weight_grad(
    x: Array,
    dy: Array,
    window: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: Precision = None,
) -> Array:
    """The adjoint of `conv` in w: the correlation of x with dy, with stride and dilation exchanged.

    dw[k, i, c] = sum over n and o of x[n, o s + k d - p, i] dy[n, o, c].

    Args:
        x: inputs (N, ..., C_in).
        dy: cotangent (N, ..., C_out) of the output.
        window: the spatial sizes of the kernel; the shapes of x and dy do not determine them if stride > 1.
        stride, padding, dilation, groups: as in the forward call.
        precision: as for `numerics.dot_general`; `EXACT` convolutions of float32 run at `lax.Precision.HIGHEST`. With
            None those of half precision are rounded to it, but on CPU: XLA widens the operands of a float32 result.

    Returns:
        dw (*window, C_in / groups, C_out) in the accumulation dtype.

    Example:
        >>> conv_weight_grad(jnp.ones((1, 5, 5, 1)), jnp.ones((1, 3, 3, 2)), (3, 3)).shape
        (3, 3, 1, 2)
    """
    dims = x.ndim - 2
    stride, dilation = pair("conv", "stride", stride, dims), pair("conv", "dilation", dilation, dims)
    pads = resolve_padding("conv", padding, x.shape[1:-1], window, stride, dilation)
    ends = []
    for n, out, k, s, d, (low, _) in zip(x.shape[1:-1], dy.shape[1:-1], window, stride, dilation, pads, strict=True):
        ends.append((low, (k - 1) * d + (out - 1) * s + 1 - n - low))
    spatial = "".join(str(i) for i in range(dims))
    native = partial(
        lax.conv_general_dilated,
        window_strides=dilation,
        padding=ends,
        rhs_dilation=stride,
        # The channels of x act as the batch, the examples as the channels that are summed over.
        dimension_numbers=(f"C{spatial}N", f"I{spatial}O", f"{spatial}NC"),
        batch_group_count=groups,
    )
    geometry: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation, "groups": groups}
    step = chunks(bytes_of_columns(x, dy, window), CPU_BYTES, x, dy)
    # On CPU, inside a loop, the native form would be a naive loop nest (see conv_matmul); steps keep columns in cache.
    as_products = partial(conv_weight_grad_as_matmul, window=window, **geometry, step=step, precision=precision)

    def as_convolution(x: Array, dy: Array) -> Array:
        if precision is None and x.dtype == dy.dtype and x.dtype in OF_HALF:  # a gradient, as that of `conv_native`
            return accumulate(native(x, dy))
        return multiplied(partial(_widened_conv, native), x, dy, precision)

    return lax.platform_dependent(x, dy, cpu=as_products, default=as_convolution)


def _widened_conv(
    native: Callable[..., Array], x: Array, dy: Array, *, precision: Precision, preferred_element_type: DTypeLike
) -> Array:
    """`native` on x and dy in the dtype of its result, half-precision operands at a precision exact for them."""

    def at(precision: Precision) -> Callable[[Array, Array], Array]:
        wide = preferred_element_type
        return lambda x, dy: native(x.astype(wide), dy.astype(wide), precision=precision)

    # XLA widens half-precision operands of a float32 convolution itself; JAX cannot differentiate that form. In TF32, a
    # GPU's default, both half precisions are exact; a TPU's default is bfloat16.
    if x.dtype == dy.dtype == jnp.float16:
        return lax.platform_dependent(x, dy, tpu=at(EXACT), default=at(lax.Precision.DEFAULT))
    # There are no algorithms for convolutions.
    return at(EXACT if precision == SIX_PRODUCTS else precision)(x, dy)


def conv_weight_grads(
    x: Array,
    dy: Array,
    window: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: Precision = None,
) -> Array:
    """Per-example `conv_weight_grad`: dw[n, k, i, c] = sum over o of x[n, o s + k d - p, i] dy[n, o, c].

    Returns (N, *window, C_in / groups, C_out) in the accumulation dtype; a few examples at a time (`by_steps`).
    """
    dims = x.ndim - 2
    stride, dilation = pair("conv", "stride", stride, dims), pair("conv", "dilation", dilation, dims)
    pads = resolve_padding("conv", padding, x.shape[1:-1], window, stride, dilation)
    geometry: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation, "groups": groups}
    form = partial(conv_weight_grads_as_matmul, window=window, **geometry, precision=precision)
    return by_steps(lambda step: partial(form, step=step), bytes_of_columns(x, dy, window), x, dy)

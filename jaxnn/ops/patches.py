"""Convolution as a product: what each output position of a convolution saw, side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import pair
from jaxnn.ops.conv import Padding, resolve_padding
from jaxnn.types import Array, Shape


def conv_patches(
    x: Array,
    window: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """patch[n, o, g, (k, i)] = x[n, o s + k d - p, (g, i)], so that conv(x, w) is patch times w, group by group.

    Args:
        x: (N, ..., C_in), any number of spatial axes >= 1.
        window: the spatial sizes of the kernel.
        stride, padding, dilation, groups: as for `conv`.

    Returns:
        (N, T, groups, K C_in / groups) in the dtype of x: T output positions in row-major order, K = prod(window), the
        last axis in the order of the kernel's first axes.

    Raises:
        ValueError: the window does not fit (see `conv`).

    Reference:
        Chellapilla, K., Puri, S. & Simard, P. (2006). High performance convolutional neural networks for document
        processing, section 2.1.

    Example:
        >>> conv_patches(jnp.arange(4.0).reshape(1, 4, 1), (2,))[0, :, 0]
        Array([[0., 1.],
               [1., 2.],
               [2., 3.]], dtype=float32)
    """
    dims = x.ndim - 2
    stride, dilation = pair("conv_patches", "stride", stride, dims), pair("conv_patches", "dilation", dilation, dims)
    pads = resolve_padding("conv_patches", padding, x.shape[1:-1], window, stride, dilation)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
    out = tuple(
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape[1:-1], window, dilation, stride, strict=True)
    )

    def seen_at(offset: tuple[int, ...]) -> Array:
        starts = [k * d for k, d in zip(offset, dilation, strict=True)]
        stops = [start + (o - 1) * s + 1 for start, o, s in zip(starts, out, stride, strict=True)]
        part = lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *stride, 1))
        return part.reshape(x.shape[0], math.prod(out), groups, x.shape[-1] // groups)

    return lax.concatenate([seen_at(offset) for offset in itertools.product(*map(range, window))], dimension=3)

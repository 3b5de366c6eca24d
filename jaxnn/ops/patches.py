"""The patches of a convolution (im2col): the inputs that each output position sees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from jaxnn.checks import pair
from jaxnn.ops.conv import Padding, resolve_padding
from jaxnn.ops.conv_matmul import columns_of, output_sizes, padded
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
    """patch[n, o, g, (k, i)] = x[n, o s + k d - p, (g, i)], so that conv(x, w) is patch times w, per group.

    Args:
        x: (N, ..., C_in), any number of spatial axes >= 1.
        window: the spatial sizes of the kernel.
        stride, padding, dilation, groups: as for `conv`.

    Returns:
        (N, T, groups, K C_in / groups) in the dtype of x: T output positions in row-major order, K = prod(window), the
        last axis in the order (*window, C_in / groups) of the kernel.

    Reference: Chellapilla, K., Puri, S. & Simard, P. (2006). High performance convolutional neural networks for
        document processing, section 2.1.

    Example:
        >>> import jax.numpy as jnp
        >>> conv_patches(jnp.arange(4.0).reshape(1, 4, 1), (2,))[0, :, 0]
        Array([[0., 1.],
               [1., 2.],
               [2., 3.]], dtype=float32)
    """
    dims = x.ndim - 2
    stride, dilation = pair("conv_patches", "stride", stride, dims), pair("conv_patches", "dilation", dilation, dims)
    pads = resolve_padding("conv_patches", padding, x.shape[1:-1], window, stride, dilation)
    x = padded(x, pads)
    out = output_sizes(x.shape[1:-1], window, stride, dilation)
    offsets = list(itertools.product(*map(range, window)))
    columns = columns_of(x, (), offsets, out, stride, dilation, groups)
    return columns.reshape(x.shape[0], math.prod(out), *columns.shape[1:])

"""Pooling layers: over windows, or over all positions of an example. No parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import pair, require_floating
from jaxnn.layers.base import Kind, Layer, stateless
from jaxnn.numerics import accumulate
from jaxnn.ops.conv import Padding
from jaxnn.ops.pooling import average_pool, max_pool
from jaxnn.types import Array, Params

MAX_POOL = Kind("max_pool")
AVERAGE_POOL = Kind("average_pool")
GLOBAL_AVERAGE_POOL = Kind("global_average_pool")
GLOBAL_MAX_POOL = Kind("global_max_pool")


def MaxPool(
    window: int | Sequence[int], *, stride: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> Layer:
    """The maximum of each window, per channel, on inputs (N, *spatial, C).

    Args:
        window: an int, or one for each spatial axis.
        stride: an int, or one for each spatial axis; None means the window.
        padding: "VALID", "SAME" or (low, high) pairs; padding is never the maximum.

    Ties give the whole derivative to the first maximum in row-major order.

    Example:
        >>> import jax
        >>> jax.jit(MaxPool(2).predict)((), (), jnp.arange(4.0).reshape(1, 2, 2, 1)).ravel()
        Array([3.], dtype=float32)
    """
    _require_ints("max_pool", window=window, stride=stride)

    def apply(params: Params, x: Array) -> Array:
        return max_pool(x, window=window, stride=stride, padding=padding)

    return stateless(MAX_POOL, apply, window=window, stride=stride, padding=padding)


def AveragePool(
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_padding: bool = True,
) -> Layer:
    """The mean of each window, per channel, on inputs (N, *spatial, C).

    Args:
        window, stride, padding: as for `MaxPool`; padding is of zeros.
        count_padding: whether padding counts in the divisor (True in flax and PyTorch).

    Example:
        >>> import jax
        >>> jax.jit(AveragePool(2).predict)((), (), jnp.arange(4.0).reshape(1, 2, 2, 1)).ravel()
        Array([1.5], dtype=float32)
    """
    _require_ints("average_pool", window=window, stride=stride)

    def apply(params: Params, x: Array) -> Array:
        return average_pool(x, window=window, stride=stride, padding=padding, count_padding=count_padding)

    return stateless(AVERAGE_POOL, apply, window=window, stride=stride, padding=padding, count_padding=count_padding)


def global_average(x: Array) -> Array:
    """y[n, c] = mean of x[n, ..., c] over all positions.

    Args:
        x: (N, *spatial, C), floating, one spatial axis or more.

    Returns:
        (N, C) in the dtype of x; sums run in float32 (float64 for float64).

    Reference: Lin, M., Chen, Q. & Yan, S. (2014). Network in network, section 3.2.

    Example:
        >>> global_average(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[1.5]], dtype=float32)
    """
    require_floating("global_average_pool", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    _require_spatial("global_average_pool", x)
    return jnp.mean(accumulate(x), tuple(range(1, x.ndim - 1))).astype(x.dtype)


def global_max(x: Array) -> Array:
    """y[n, c] = max of x[n, ..., c] over all positions; NaN propagates.

    Ties: the derivative is 1 at the first maximum in row-major order, else 0 (`jnp.max` would divide it).

    Args:
        x: (N, *spatial, C), floating, one spatial axis or more.

    Returns:
        (N, C) in the dtype of x.

    Example:
        >>> global_max(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[3.]], dtype=float32)
    """
    require_floating("global_max_pool", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    _require_spatial("global_max_pool", x)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    # A one-hot sum, not a gather: its gradient is a mask, that of a gather a scatter. argmax returns the first.
    first = jnp.argmax(lax.stop_gradient(flat), axis=1, keepdims=True)
    chosen = lax.broadcasted_iota(first.dtype, flat.shape, 1) == first
    return jnp.sum(jnp.where(chosen, flat, jnp.zeros((), x.dtype)), axis=1)


def _global_average_apply(params: Params, x: Array) -> Array:
    return global_average(x)


def _global_max_apply(params: Params, x: Array) -> Array:
    return global_max(x)


GlobalAveragePool = stateless(GLOBAL_AVERAGE_POOL, _global_average_apply)
GlobalMaxPool = stateless(GLOBAL_MAX_POOL, _global_max_apply)


def _require_ints(where: str, **sizes: int | Sequence[int] | None) -> None:
    """Raise unless every size is an int >= 1 or a sequence of them; None passes."""
    for name, value in sizes.items():
        if value is not None:
            pair(where, name, value, len(value) if isinstance(value, Sequence) else 1)


def _require_spatial(where: str, x: Array) -> None:
    """Raise unless x has a spatial axis, and none is empty."""
    if x.ndim < 3 or 0 in x.shape[1:-1]:
        raise ValueError(
            f"{where}: x must be (N, *spatial, C) with at least one spatial axis, none of them empty, got shape "
            f"{x.shape}. Add the missing batch axis (x[None]) or channel axis (x[..., None])."
        )

"""Reshaping of each example, and upsampling of its positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp

from jaxnn.checks import pair, require_positive_int
from jaxnn.layers.base import Kind, Layer, stateless
from jaxnn.placement import compiler_sharded, rows_spec
from jaxnn.types import Array, Params, Shape

RESHAPE, UPSAMPLE = Kind("reshape"), Kind("upsample")


def Reshape(*shape: int) -> Layer:
    """x (N, ...) -> (N, *shape), the entries of each example in row-major order.

    Args:
        shape: of one example; one of the sizes may be -1, for what remains.

    Raises:
        ValueError: when applied: an example has another number of entries.

    Example:
        >>> Reshape(2, -1).predict((), (), jnp.zeros((5, 6))).shape
        (5, 2, 3)
    """
    for size in shape:
        require_positive_int("Reshape", "each of shape", 1 if size == -1 else size)
    if shape.count(-1) > 1:
        raise ValueError(f"Reshape: at most one size may be -1, got {shape}.")

    def apply(params: Params, x: Array) -> Array:
        entries, known = math.prod(x.shape[1:]), math.prod(size for size in shape if size != -1)
        if entries % known or (-1 not in shape and entries != known):
            raise ValueError(
                f"Reshape: an example of shape {x.shape[1:]} has {entries} entries, which do not fit {shape}."
            )
        sizes = (x.shape[0], *(entries // known if size == -1 else size for size in shape))
        # With Explicit axes a reshape of several axes into several others needs its output sharding: that of the rows.
        return compiler_sharded(lambda x: x.reshape(sizes), rows_spec(x), x)

    return stateless(RESHAPE, apply, shape=shape)


def upsample(x: Array, factor: Shape) -> Array:
    """y[n, m, c] = x[n, floor(m / f), c]: each position repeated f times along each spatial axis (nearest neighbour).

    Example:
        >>> upsample(jnp.array([1.0, 2.0]).reshape(1, 2, 1), (2,)).ravel()
        Array([1., 1., 2., 2.], dtype=float32)
    """
    for axis, f in enumerate(factor, 1):
        x = jnp.repeat(x, f, axis=axis)
    return x


def Upsample(factor: int | Sequence[int]) -> Layer:
    """Each position of inputs (N, *spatial, C) repeated, `factor` times along each spatial axis.

    Args:
        factor: an int, or one for each spatial axis.

    Reference: Odena, A., Dumoulin, V. & Olah, C. (2016). Deconvolution and checkerboard artifacts (followed by a
        convolution, instead of a transposed one).

    Example:
        >>> Upsample(2).predict((), (), jnp.zeros((5, 7, 7, 3))).shape
        (5, 14, 14, 3)
    """

    def apply(params: Params, x: Array) -> Array:
        if x.ndim < 3:
            raise ValueError(f"Upsample: x must be (N, *spatial, C) with at least one spatial axis, got {x.shape}.")
        return upsample(x, pair("Upsample", "factor", factor, x.ndim - 2))

    return stateless(UPSAMPLE, apply, factor=factor)

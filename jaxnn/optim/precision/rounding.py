"""Rounding to what a narrower dtype can store, to the nearest and at random."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import Array, DType, Key

float_info: Any = jnp.finfo
"""Limits of a floating dtype; `jnp.finfo` has no types."""


def rounded(x: Array, dtype: DType) -> Array:
    """x as the given dtype would store it, in the dtype of x.

    A cast there and back would do, but inside `jit` XLA may drop such a pair.
    """
    if x.dtype == dtype:
        return x
    info, own = (float_info(d) for d in (dtype, x.dtype))
    nearest = jax.lax.reduce_precision(x, info.nexp, info.nmant)
    spacing = float(info.smallest_subnormal)
    if spacing < own.tiny:
        return nearest
    # reduce_precision takes numbers below the smallest normal one to 0; those of float16 are ordinary in float32.
    return jnp.where(jnp.abs(x) < float(info.tiny), jnp.round(x / spacing) * spacing, nearest)


def rounded_at_random(key: Key, x: Array, dtype: DType) -> Array:
    """x rounded to one of its two neighbours in the given dtype, unbiased; in the dtype of x."""
    info, own = (float_info(d) for d in (dtype, x.dtype))
    lowest = max(info.minexp, own.minexp + info.nmant)  # so that the spacing is no subnormal of x's
    exponent = jnp.maximum(jnp.frexp(x)[1] - 1, lowest)
    spacing = jnp.ldexp(jnp.ones_like(x), exponent - info.nmant)
    ratio = x / spacing
    below = jnp.floor(ratio)
    up = jax.random.uniform(key, x.shape, x.dtype) < ratio - below
    return jnp.where(jnp.isfinite(x), (below + up.astype(x.dtype)) * spacing, x)

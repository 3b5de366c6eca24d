"""Rounding to a narrower dtype, to nearest and stochastic."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import Array, DType, Key

float_info: Any = jnp.finfo
"""Limits of a floating dtype; `jnp.finfo` has no types."""


def rounded(x: Array, dtype: DType) -> Array:
    """x rounded to `dtype`, in the dtype of x. (A cast to `dtype` and back may be dropped by XLA inside `jit`.)"""
    if x.dtype == dtype:
        return x
    info, own = (float_info(d) for d in (dtype, x.dtype))
    nearest = jax.lax.reduce_precision(x, info.nexp, info.nmant)
    spacing = float(info.smallest_subnormal)
    if spacing < own.tiny:
        return nearest
    # reduce_precision flushes subnormal numbers to 0; those of float16 are normal in float32.
    return jnp.where(jnp.abs(x) < float(info.tiny), jnp.round(x / spacing) * spacing, nearest)


def rounded_at_random(key: Key, x: Array, dtype: DType) -> Array:
    """x stochastically rounded to one of its two neighbours in `dtype`, unbiased; in the dtype of x."""
    info, own = (float_info(d) for d in (dtype, x.dtype))
    lowest = max(info.minexp, own.minexp + info.nmant)  # keeps the spacing a normal number of x's dtype
    exponent = jnp.maximum(jnp.frexp(x)[1] - 1, lowest)
    spacing = jnp.ldexp(jnp.ones_like(x), exponent - info.nmant)
    ratio = x / spacing
    below = jnp.floor(ratio)
    up = jax.random.uniform(key, x.shape, x.dtype) < ratio - below
    return jnp.where(jnp.isfinite(x), (below + up.astype(x.dtype)) * spacing, x)

"""Initializers with independent entries from a named distribution.

A standard deviation is finite and >= 0. Settings may be traced. TypeError: one is not a real number. ValueError: one
has axes or is out of range.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn.checks import concrete_number
from jaxnn.initializers.base import Initializer, arguments, require_number, require_stddev, shape_of
from jaxnn.types import Array, DTypeLike, Key, Scalar, Shape

CUT = 2.0
"""Truncation of `truncated_normal`, in standard deviations of the untruncated normal."""

TRUNCATED_STDDEV = math.sqrt(
    1 - 2 * CUT * math.exp(-(CUT**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CUT / math.sqrt(2))
)
"""Standard deviation of a standard normal truncated at +-2: 0.87963."""


def zeros(key: Key | None, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """All zeros, the usual initial bias; `key` is ignored and may be None.

    Example:
        >>> zeros(None, (3,))
        Array([0., 0., 0.], dtype=float32)
    """
    return jnp.zeros(shape_of("zeros", shape, dtype), dtype)


def constant(value: Scalar) -> Initializer:
    """Every entry `value`.

    Args:
        value: one real number; may be traced. The initializer ignores its key, which may be None.

    Example:
        >>> constant(0.5)(None, (2,))
        Array([0.5, 0.5], dtype=float32)
    """
    require_number("constant", "value", value)

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        return jnp.full(shape_of("constant", shape, dtype), jnp.asarray(value).astype(dtype))

    return init


def uniform(low: Scalar, high: Scalar) -> Initializer:
    """Entries uniform between two bounds.

    w ~ U(low, high), mean (low + high) / 2, variance (high - low)^2 / 12

    Args:
        low, high: the bounds, low <= high, both included after rounding. May be traced.

    Example:
        >>> w = uniform(-0.5, 0.5)(jax.random.key(0), (3, 4))
        >>> bool((w >= -0.5).all() & (w <= 0.5).all())
        True
    """
    require_number("uniform", "low", low)
    require_number("uniform", "high", high)
    a, b = concrete_number(low), concrete_number(high)
    if a is not None and b is not None and not a <= b:
        raise ValueError(f"uniform: low must not exceed high, got low={a:g}, high={b:g}.")

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        shape, wide = arguments("uniform", key, shape, dtype)
        lower, upper = jnp.asarray(low).astype(wide), jnp.asarray(high).astype(wide)
        u = jax.random.uniform(key, shape, wide)
        return jnp.clip(lower + (upper - lower) * u, lower, upper).astype(dtype)

    return init


def centered_uniform(stddev: Scalar) -> Initializer:
    """Uniform entries with mean 0 and standard deviation `stddev`.

    w ~ U(-sqrt(3) stddev, sqrt(3) stddev)

    Example:
        >>> print(f"{centered_uniform(0.1)(jax.random.key(0), (100, 100)).std():.2f}")
        0.10
    """
    require_stddev("centered_uniform", stddev)
    return uniform(-math.sqrt(3) * stddev, math.sqrt(3) * stddev)


def normal(stddev: Scalar) -> Initializer:
    """Normal entries.

    w ~ N(0, stddev^2)

    Example:
        >>> print(f"{normal(0.01)(jax.random.key(0), (100, 100)).std():.3f}")
        0.010
    """
    require_stddev("normal", stddev)

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        shape, wide = arguments("normal", key, shape, dtype)
        return (jnp.asarray(stddev).astype(wide) * jax.random.normal(key, shape, wide)).astype(dtype)

    return init


def truncated_normal(stddev: Scalar) -> Initializer:
    """Truncated normal entries, with standard deviation `stddev` after truncation.

    w = (stddev / 0.87963) z, z ~ N(0, 1) given |z| <= 2; so |w| <= 2.27370 stddev

    0.87963 is the standard deviation of z; without the division that of w would be 12% below `stddev`.

    Example:
        >>> w = truncated_normal(1.0)(jax.random.key(0), (3, 4))
        >>> bool((abs(w) <= 2.2738).all())
        True
    """
    require_stddev("truncated_normal", stddev)

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        shape, wide = arguments("truncated_normal", key, shape, dtype)
        z = jax.random.truncated_normal(key, -CUT, CUT, shape, wide)
        return (jnp.asarray(stddev).astype(wide) / TRUNCATED_STDDEV * z).astype(dtype)

    return init

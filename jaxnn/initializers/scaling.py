"""Initializers whose variance depends on the fan: variance scaling, LeCun, Glorot, He.

The initializers take a typed random key, a shape (..., in, out) and a floating dtype; ValueError: fewer than 2 axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.initializers.base import Initializer, arguments, require_number, require_two_axes
from jaxnn.initializers.distributions import centered_uniform, normal
from jaxnn.types import Array, DTypeLike, Key, Scalar, Shape

Fan: TypeAlias = Callable[[Shape], float]
"""From the shape of a weight to a number of connections: `fan_in`, `fan_out`, `fan_avg`."""

Distribution: TypeAlias = Callable[[Scalar], Initializer]
"""From a standard deviation to an initializer with mean 0: `normal`, `truncated_normal`, `centered_uniform`."""


def fan_in(shape: Shape) -> int:
    """Inputs summed into one output of a weight (..., in, out): prod(shape[:-1]); ValueError below 2 axes.

    Example:
        >>> fan_in((3, 3, 16, 32))
        144
    """
    require_two_axes("fan_in", shape)
    return math.prod(shape[:-1])


def fan_out(shape: Shape) -> int:
    """Outputs that one input of a weight (..., in, out) without groups reaches: prod(shape[:-2]) out.

    Example:
        >>> fan_out((3, 3, 16, 32))
        288
    """
    require_two_axes("fan_out", shape)
    return math.prod(shape[:-2]) * shape[-1]


def fan_avg(shape: Shape) -> float:
    """The mean of `fan_in` and `fan_out`.

    Example:
        >>> fan_avg((3, 3, 16, 32))
        216.0
    """
    require_two_axes("fan_avg", shape)
    return (fan_in(shape) + fan_out(shape)) / 2


def variance_scaling(scale: Scalar, *, fan: Fan = fan_in, distribution: Distribution = normal) -> Initializer:
    """Entries whose variance is inversely proportional to the fan.

    Var w = scale / max(fan(shape), 1), mean 0

    Args:
        scale: variance times fan, >= 0. May be traced.
        fan: `fan_in`, `fan_out`, `fan_avg` or your own function of the shape.
        distribution: `normal`, `truncated_normal`, `centered_uniform` or your own function from a standard deviation to
            an initializer.

    Raises:
        TypeError: fan or distribution is not a function, or scale not a number.
        ValueError: scale is not one finite number >= 0; from the initializer, a shape with fewer than 2 axes.

    Example:
        >>> import jax
        >>> from jaxnn.initializers import truncated_normal
        >>> init = variance_scaling(2.0, fan=fan_out, distribution=truncated_normal)
        >>> print(f"{init(jax.random.key(0), (3, 3, 16, 32)).std():.2f}")  # sqrt(2 / 288)
        0.08
    """
    require_number("variance_scaling", "scale", scale)
    require_between("variance_scaling", "scale", scale, 0, math.inf, open_high=True)
    for name, function, known in (("fan", fan, "fan_in"), ("distribution", distribution, "truncated_normal")):
        if not callable(function):
            raise TypeError(
                f"variance_scaling: {name} must be a function such as jaxnn.initializers.{known}, got {function!r}."
            )

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        shape, wide = arguments("variance_scaling", key, shape, dtype)
        connections = max(fan(shape), 1)  # 0 only for an empty array
        return distribution(jnp.sqrt(jnp.asarray(scale).astype(wide) / connections))(key, shape, dtype)

    return init


def lecun_normal(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ N(0, 1 / fan_in): a linear layer preserves the variance of its inputs; for tanh and SELU.

    Example:
        >>> import jax
        >>> print(f"{lecun_normal(jax.random.key(0), (400, 100)).std():.3f}")  # sqrt(1 / 400)
        0.050

    Reference: LeCun, Bottou, Orr & Müller (1998), Efficient BackProp, section 4.6, equation 16.
    """
    return variance_scaling(1.0, fan=fan_in, distribution=normal)(key, shape, dtype)


def lecun_uniform(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ U(-r, r), r = sqrt(3 / fan_in), variance 1 / fan_in; otherwise as `lecun_normal`.

    Example:
        >>> import jax
        >>> print(f"{lecun_uniform(jax.random.key(0), (300, 100)).max():.3f}")  # sqrt(3 / 300)
        0.100
    """
    return variance_scaling(1.0, fan=fan_in, distribution=centered_uniform)(key, shape, dtype)


def glorot_normal(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ N(0, 2 / (fan_in + fan_out)): a compromise between the variances of activations and of gradients; for tanh.

    Example:
        >>> import jax
        >>> print(f"{glorot_normal(jax.random.key(0), (700, 100)).std():.3f}")  # sqrt(2 / 800)
        0.050

    Reference: Glorot & Bengio (2010), Understanding the difficulty of training deep feedforward neural networks,
        equation 12.
    """
    return variance_scaling(1.0, fan=fan_avg, distribution=normal)(key, shape, dtype)


def glorot_uniform(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ U(-r, r), r = sqrt(6 / (fan_in + fan_out)) (equation 16); otherwise as `glorot_normal`.

    Example:
        >>> import jax
        >>> print(f"{glorot_uniform(jax.random.key(0), (500, 100)).max():.3f}")  # sqrt(6 / 600)
        0.100
    """
    return variance_scaling(1.0, fan=fan_avg, distribution=centered_uniform)(key, shape, dtype)


def he_normal(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ N(0, 2 / fan_in): the 2 compensates for the half that a ReLU sets to zero.

    The normal is not truncated, as published; `variance_scaling(2.0, distribution=truncated_normal)` is.

    Example:
        >>> import jax
        >>> print(f"{he_normal(jax.random.key(0), (800, 100)).std():.3f}")  # sqrt(2 / 800)
        0.050

    Reference: He, Zhang, Ren & Sun (2015), Delving deep into rectifiers, equation 10.
    """
    return variance_scaling(2.0, fan=fan_in, distribution=normal)(key, shape, dtype)


def he_uniform(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """w ~ U(-r, r), r = sqrt(6 / fan_in), variance 2 / fan_in; otherwise as `he_normal`.

    Example:
        >>> import jax
        >>> print(f"{he_uniform(jax.random.key(0), (600, 100)).max():.3f}")  # sqrt(6 / 600)
        0.100
    """
    return variance_scaling(2.0, fan=fan_in, distribution=centered_uniform)(key, shape, dtype)

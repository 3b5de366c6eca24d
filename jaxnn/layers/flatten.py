"""Flattening: all axes but the first become one."""

from __future__ import annotations

import math

from jaxnn.layers.base import Kind, stateless
from jaxnn.types import Array, Params

KIND = Kind("flatten")


def apply(x: Array) -> Array:
    """x (N, ...) -> (N, D), D the product of the other axes, in row-major order; also for N = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> apply(jnp.zeros((2, 28, 28, 1))).shape
        (2, 784)
    """
    if x.ndim == 0:
        raise ValueError("flatten: x must have a batch axis, got shape (); use x[None].")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _layer_apply(params: Params, x: Array) -> Array:
    return apply(x)


Flatten = stateless(KIND, _layer_apply)

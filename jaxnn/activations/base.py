"""What all activations share: the dtype of their arithmetic and the checks of their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_floating
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DType, Scalar

F = TypeVar("F", bound=Callable[..., Array])


def elementwise(function: F) -> F:
    """`function` of z, computed in z's accumulation dtype and returned in z's dtype.

    Args:
        function: (z, **settings) -> an array of z's shape.

    Returns:
        The same function for z of any real floating dtype: bfloat16 and float16 are widened to float32 inside.

    Raises:
        TypeError: (from the result) z is not floating.

    Example:
        >>> elementwise(lambda z: z / z.dtype.itemsize)(jnp.ones(2, jnp.float16))  # a float32 has 4 bytes
        Array([0.25, 0.25], dtype=float16)
    """

    @functools.wraps(function)
    def widened(z: Array, **settings: Any) -> Array:
        z = floating(function.__name__, "z", z)
        wide = accumulation_dtype(z.dtype)
        return function(z.astype(wide), **settings).astype(z.dtype)

    return cast(F, widened)


def floating(where: str, name: str, z: Array) -> Array:
    """z as an array; TypeError unless its dtype is a real floating one.

    Example:
        >>> floating("relu", "z", jnp.arange(3))
        Traceback (most recent call last):
        TypeError: relu: z must have a floating dtype, got int32. Convert it: z.astype(jnp.float32).
    """
    z = jnp.asarray(z)
    require_floating(where, name, z.dtype, f"Convert it: {name}.astype(jnp.float32).")
    return z


def real_setting(where: str, name: str, value: Scalar, dtype: DType) -> Array:
    """A setting (possibly traced) as an array of shape () and of `dtype`; ValueError if it is not one number.

    Example:
        >>> real_setting("elu", "alpha", [1.0, 2.0], jnp.float32)
        Traceback (most recent call last):
        ValueError: elu: alpha must be one number, got shape (2,). Use jax.vmap for several settings.
    """
    if np.shape(value) != ():
        raise ValueError(
            f"{where}: {name} must be one number, got shape {np.shape(value)}. Use jax.vmap for several settings."
        )
    return jnp.asarray(value).astype(dtype)

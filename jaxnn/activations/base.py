"""The accumulation dtype and argument checks shared by all activations."""

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
    """Decorator: `function(z, **settings)` runs in the accumulation dtype of z and returns z's dtype."""

    @functools.wraps(function)
    def widened(z: Array, **settings: Any) -> Array:
        z = floating(function.__name__, "z", z)
        wide = accumulation_dtype(z.dtype)
        return function(z.astype(wide), **settings).astype(z.dtype)

    return cast(F, widened)


def floating(where: str, name: str, z: Array) -> Array:
    """z as an array; TypeError unless its dtype is real floating."""
    z = jnp.asarray(z)
    require_floating(where, name, z.dtype, f"Convert it: {name}.astype(jnp.float32).")
    return z


def real_setting(where: str, name: str, value: Scalar, dtype: DType) -> Array:
    """A setting, possibly traced, as a scalar array of `dtype`; ValueError if it has axes."""
    if np.shape(value) != ():
        raise ValueError(
            f"{where}: {name} must be one number, got shape {np.shape(value)}. Use jax.vmap for several settings."
        )
    return jnp.asarray(value).astype(dtype)

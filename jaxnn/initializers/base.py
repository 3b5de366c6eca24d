"""The protocol of an initializer, and argument checks."""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_between, require_floating, require_key
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DType, DTypeLike, Key, Scalar, Shape


class Initializer(Protocol):
    """(key, shape, dtype=jnp.float32) -> an array of that shape and dtype; the same key gives the same array."""

    def __call__(self, key: Key, shape: Shape, dtype: DTypeLike = jnp.float32, /) -> Array: ...


def shape_of(where: str, shape: Any, dtype: DTypeLike) -> Shape:
    """The shape as a tuple of ints; TypeError or ValueError unless it is one and `dtype` is floating."""
    require_floating(where, "dtype", dtype, "Parameters are floating: use jnp.float32.")
    if hasattr(shape, "__index__"):
        raise TypeError(f"{where}: shape must be a tuple of ints, got {shape!r}. Write ({shape},) for a vector.")
    try:
        sizes = tuple(size.__index__() for size in shape)
    except (TypeError, AttributeError) as error:
        raise TypeError(f"{where}: shape must be a tuple of ints, got {shape!r}.") from error
    if any(size < 0 for size in sizes):
        raise ValueError(f"{where}: sizes in shape must be at least 0, got {shape!r}.")
    return sizes


def arguments(where: str, key: Any, shape: Any, dtype: DTypeLike) -> tuple[Shape, DType]:
    """The shape, and the dtype to draw in, of a random initializer, after checks of all three arguments."""
    if key is None:
        raise ValueError(f"{where}: needs a random key, got None. Pass jax.random.key(seed).")
    require_key(where, key)
    return shape_of(where, shape, dtype), accumulation_dtype(dtype)


def require_number(where: str, name: str, value: Scalar) -> None:
    """TypeError for a string or None, ValueError for an array with axes; a traced number passes."""
    if isinstance(value, str) or value is None:
        raise TypeError(f"{where}: {name} must be a number, got {value!r}.")
    if np.shape(value) != ():
        raise ValueError(f"{where}: {name} must be one number, got shape {np.shape(value)}.")


def require_stddev(where: str, stddev: Scalar) -> None:
    """Raise unless `stddev` is one number, and finite and >= 0 if concrete."""
    require_number(where, "stddev", stddev)
    require_between(where, "stddev", stddev, 0, math.inf, open_high=True)


def require_two_axes(where: str, shape: Shape) -> None:
    """ValueError unless the shape has at least two axes, (..., in, out)."""
    if len(shape) < 2:
        raise ValueError(
            f"{where}: shape must have at least 2 axes (..., in, out), got {tuple(shape)}. "
            "For a vector such as a bias use zeros, constant(value) or normal(stddev)."
        )

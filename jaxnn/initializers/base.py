"""What an initializer is, and the checks that all of them share."""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_between, require_floating, require_key
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DType, Key, Scalar, Shape


class Initializer(Protocol):
    """(key, shape, dtype=jnp.float32) -> an array of that shape and dtype; the same key gives the same array."""

    def __call__(self, key: Key, shape: Shape, dtype: DType = jnp.float32, /) -> Array: ...


def shape_of(where: str, shape: Any, dtype: DType) -> Shape:
    """The shape as a tuple of ints, after a check of shape and dtype.

    Raises:
        TypeError: shape is no sequence of whole numbers; dtype is not floating.
        ValueError: a size is negative.

    Example:
        >>> shape_of("normal", 3, jnp.float32)
        Traceback (most recent call last):
        TypeError: normal: shape must be a tuple of ints, got 3. Write (3,) for a vector.
    """
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


def arguments(where: str, key: Any, shape: Any, dtype: DType) -> tuple[Shape, DType]:
    """The shape, and the dtype in which to draw, of a random initializer, after a check of all three arguments.

    Raises:
        TypeError, ValueError: as in `shape_of`; key is not a typed key.

    Example:
        >>> import jax
        >>> arguments("normal", jax.random.key(0), [3, 4], jnp.bfloat16)
        ((3, 4), dtype('float32'))
    """
    if key is None:
        raise ValueError(f"{where}: needs a random key, got None. Pass jax.random.key(seed).")
    require_key(where, key)
    return shape_of(where, shape, dtype), accumulation_dtype(dtype)


def require_number(where: str, name: str, value: Scalar) -> None:
    """Raise unless `value` is one real number, possibly traced.

    Example:
        >>> require_number("constant", "value", [1.0, 2.0])
        Traceback (most recent call last):
        ValueError: constant: value must be one number, got shape (2,).
    """
    if isinstance(value, str) or value is None:
        raise TypeError(f"{where}: {name} must be a number, got {value!r}.")
    if np.shape(value) != ():
        raise ValueError(f"{where}: {name} must be one number, got shape {np.shape(value)}.")


def require_stddev(where: str, stddev: Scalar) -> None:
    """Raise unless `stddev` is one number >= 0, possibly traced.

    Example:
        >>> require_stddev("normal", -1.0)
        Traceback (most recent call last):
        ValueError: normal: stddev must lie in [0, inf), got -1.
    """
    require_number(where, "stddev", stddev)
    require_between(where, "stddev", stddev, 0, math.inf, open_high=True)


def require_two_axes(where: str, shape: Shape) -> None:
    """Raise unless the shape has axes (in, out) at its end.

    Example:
        >>> require_two_axes("fan_in", (3,))
        Traceback (most recent call last):
        ValueError: fan_in: shape must have at least 2 axes (..., in, out), got (3,). ...
    """
    if len(shape) < 2:
        raise ValueError(
            f"{where}: shape must have at least 2 axes (..., in, out), got {tuple(shape)}. "
            "For a vector such as a bias use zeros, constant(value) or normal(stddev)."
        )

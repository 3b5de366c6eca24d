"""The dtype of values, exact differences of counts, and argument checks of all schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import concrete_number
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DType, Scalar

Count: TypeAlias = Scalar
"""A step count, or an array of step counts."""

Schedule: TypeAlias = Callable[[Count], Array]
"""count (int, or int array of any shape, traced or not) -> value, float, of the count's shape for scalar parameters."""


def value_dtype(*values: Any) -> DType:
    """The dtype of a schedule with these parameters: float64 if any floating array is, else float32.

    Python numbers and integers do not count; with nothing else, it is the dtype of `jnp.asarray(0.5)`.
    """
    strong = [jnp.result_type(v) for v in values if not _is_weak(v)]
    floats = [dtype for dtype in strong if jnp.issubdtype(dtype, jnp.floating)]
    return accumulation_dtype(*floats) if floats else jnp.result_type(float)


def as_value(x: Scalar, dtype: DType) -> Array:
    """`x` as an array of `dtype`."""
    return jnp.asarray(x).astype(dtype) if hasattr(x, "dtype") else jnp.asarray(x, dtype)


def as_count(x: Scalar) -> Array:
    """`x` as an array; integers in the default integer dtype, so that two subtract under strict promotion."""
    array = jnp.asarray(x)
    return array.astype(jnp.result_type(int)) if jnp.issubdtype(array.dtype, jnp.integer) else array


def difference(a: Scalar, b: Scalar) -> Array:
    """a - b of two step counts, in integers if both are, which is exact beyond 2^24."""
    a, b = as_count(a), as_count(b)
    dtype = a.dtype if a.dtype == b.dtype else value_dtype(a, b)
    return a.astype(dtype) - b.astype(dtype)


def steps_since(count: Scalar, begin: Scalar) -> Array:
    """max(count - begin, 0), an integer if both are."""
    return jnp.maximum(difference(count, begin), 0)


def reached(count: Scalar, boundary: Scalar) -> Array:
    """Whether count >= boundary."""
    return difference(count, boundary) >= 0


def ratio(a: Scalar, b: Scalar) -> Scalar:
    """a / b: a Python number for Python numbers, else an array of their `value_dtype`."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a / b
    dtype = value_dtype(a, b)
    return as_value(a, dtype) / as_value(b, dtype)


def elapsed(count: Scalar, begin: Scalar, steps: Scalar, dtype: DType) -> tuple[Array, Array]:
    """(t, T), t / T in [0, 1] the elapsed fraction of a transition: t = clip(count - begin, 0, T), T = steps.

    T <= 0 gives (1, 1), a transition that ends as it begins, instead of 0/0.
    """
    length = as_value(steps, dtype)
    empty = length <= 0
    one = jnp.ones_like(length)
    t = jnp.minimum(steps_since(count, begin).astype(dtype), length)
    return jnp.where(empty, one, t), jnp.where(empty, one, length)


def require(
    where: str, name: str, value: Any, *, minimum: float = 0.0, strictly: bool = False, remedy: str = ""
) -> None:
    """ValueError unless `value` is finite and >= minimum (> minimum if `strictly`); traced values and arrays pass."""
    number = concrete_number(value)
    if number is None:
        return
    if not math.isfinite(number) or number < minimum or (strictly and number == minimum):
        sign = ">" if strictly else ">="
        raise ValueError(f"{where}: {name} must be finite and {sign} {minimum:g}, got {number:g}. {remedy}".rstrip())


def _is_weak(x: Any) -> bool:
    """Whether `x` is weakly typed: Python numbers and JAX arrays made of them."""
    return bool(getattr(x, "weak_type", isinstance(x, int | float) and not isinstance(x, np.generic)))

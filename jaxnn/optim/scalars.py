"""Step counts and hyperparameters (Python numbers, traced scalars, schedules) in a rule's arithmetic."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxnn.checks import require_number
from jaxnn.optim.base import real_dtype
from jaxnn.types import Array, Scalar, ScalarOrSchedule

LAST_COUNT = 2**31 - 1


def zero_count() -> Array:
    """The step count before the first step."""
    return jnp.zeros((), jnp.int32)


def increment(count: Array) -> Array:
    """count + 1, saturating at the largest int32.

    TypeError if it is not an array, as in another rule's state.
    """
    if not hasattr(count, "dtype"):
        raise TypeError(
            f"optimizer: the state must be what this rule's init made, with an array `count`, got count={count!r}. "
            "Call opt.update(grads, state, params), in this order."
        )
    return jnp.where(count < LAST_COUNT, count + 1, LAST_COUNT)


def at_count(value: ScalarOrSchedule, count: Array) -> Scalar:
    """The value of a schedule at a step count (0 at the first update); a number is returned unchanged.

    TypeError or ValueError unless a schedule returns a real scalar.
    """
    if not callable(value):
        return value
    now: Any = value(count)
    require_number("optimizer", f"the value of the schedule {getattr(value, '__name__', 'given')}", now)
    return now


def cast_like(value: Scalar, x: Array) -> Any:
    """A real hyperparameter, traced or not, as a scalar in the precision of x, so that it never promotes arithmetic.

    The scalar form of `tree.cast_like`. A Python number stays a constant: NumPy does its arithmetic while tracing.
    """
    if isinstance(value, int | float):
        return real_dtype(x.dtype).type(value)
    return jnp.asarray(value).astype(real_dtype(x.dtype))


def one_minus_power(decay: Scalar, count: Array) -> Array:
    """1 - decay^count, the sum of the weights in a running mean after `count` steps; in the default float dtype.

    Computed once for all leaves, outside the rule.
    """
    return 1 - jnp.asarray(decay, float) ** count.astype(float)


def abs_sq(x: Array) -> Array:
    """|x|^2: x squared, and for complex x the squared magnitude, which is real."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the Python number 0, known while tracing (a traced 0 is not)."""
    return isinstance(value, int | float) and value == 0

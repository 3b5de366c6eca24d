"""Schedules with one transition: constant, polynomial, linear, exponential, cosine."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.schedules.base import Count, Schedule, as_count, as_value, elapsed, require, steps_since, value_dtype
from jaxnn.types import Array, DType, Scalar

CONSTANT_REMEDY = "For a value that never changes use constant_schedule."


def constant_schedule(value: Scalar) -> Schedule:
    """The same value at every step: f(t) = value.

    Args:
        value: a real scalar.

    Example:
        >>> constant_schedule(0.5)(jnp.arange(4))
        Array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """

    def schedule(count: Count) -> Array:
        held = as_value(value, value_dtype(value))
        return jnp.broadcast_to(held, jnp.broadcast_shapes(jnp.shape(count), jnp.shape(held)))

    return schedule


def polynomial_schedule(
    init_value: Scalar, end_value: Scalar, power: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0
) -> Schedule:
    """Polynomial interpolation: f(t) = (init - end) (1 - s/T)^power + end, s = clip(t - begin, 0, T).

    Args:
        init_value: value up to step `transition_begin`.
        end_value: value from step `transition_begin + transition_steps` on.
        power: exponent, >= 0; 1 is linear, 0 the constant `init_value`.
        transition_steps: T, in steps, > 0. A traced 0 gives `end_value` at every step.
        transition_begin: steps before the transition, >= 0.

    Example:
        >>> polynomial_schedule(1.0, 0.0, 2, transition_steps=4)(jnp.array([0, 2, 4, 9]))
        Array([1.  , 0.25, 0.  , 0.  ], dtype=float32)
    """
    where = "polynomial_schedule"
    _require_transition(where, transition_steps, transition_begin)
    require(where, "power", power)

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, end_value, power)
        first, last = as_value(init_value, dtype), as_value(end_value, dtype)
        t, steps = elapsed(count, transition_begin, transition_steps, dtype)
        # (T - t) / T, not 1 - t / T: XLA's t * (1 / T) may exceed 1 at t = T, and a power of a negative number is NaN.
        return (first - last) * ((steps - t) / steps) ** as_value(power, dtype) + last

    return schedule


def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0
) -> Schedule:
    """Linear interpolation: f(t) = (init - end) (1 - s/T) + end, s = clip(t - begin, 0, T).

    Arguments as for `polynomial_schedule`, of power 1.

    Example:
        >>> linear_schedule(1.0, 0.0, transition_steps=4)(jnp.array([0, 1, 4, 9]))
        Array([1.  , 0.75, 0.  , 0.  ], dtype=float32)
    """
    _require_transition("linear_schedule", transition_steps, transition_begin)
    return ramp(init_value, end_value, transition_steps, transition_begin)


def ramp(init_value: Scalar, end_value: Scalar, steps: Scalar, begin: Scalar = 0) -> Schedule:
    """`linear_schedule` that also takes a concrete length of 0: then `end_value` everywhere (no warm-up)."""

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, end_value)
        first, last = as_value(init_value, dtype), as_value(end_value, dtype)
        t, length = elapsed(count, begin, steps, dtype)
        return (first - last) * ((length - t) / length) + last

    return schedule


def exponential_decay(
    init_value: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Exponential decay: f(t) = init * decay_rate^p, p = max(t - begin, 0) / T (its floor if `staircase`).

    Args:
        init_value: value up to step `transition_begin`.
        transition_steps: T, in steps, > 0: the value is multiplied by `decay_rate` every T steps.
        decay_rate: > 0; above 1 the value grows.
        transition_begin: steps before the decay, >= 0.
        staircase: decay in jumps, every T steps from `transition_begin` on, instead of at every step.
        end_value: bound on the value: from below if decay_rate < 1, from above if decay_rate >= 1; None for no bound.

    Example:
        >>> exponential_decay(1.0, 2, 0.25)(jnp.array([0, 1, 2, 4]))
        Array([1.    , 0.5   , 0.25  , 0.0625], dtype=float32)
    """
    where = "exponential_decay"
    _require_transition(where, transition_steps, transition_begin)
    require(where, "decay_rate", decay_rate, strictly=True, remedy=CONSTANT_REMEDY)

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, decay_rate, 0.0 if end_value is None else end_value)
        rate = as_value(decay_rate, dtype)
        periods = _periods(count, transition_begin, transition_steps, staircase, dtype)
        decayed = as_value(init_value, dtype) * rate**periods
        if end_value is None:
            return decayed
        bound = as_value(end_value, dtype)
        return jnp.where(rate < 1, jnp.maximum(decayed, bound), jnp.minimum(decayed, bound))

    return schedule


def cosine_decay_schedule(
    init_value: Scalar, decay_steps: Scalar, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    """Half a cosine: f(t) = init ((1 - alpha) [(1 + cos(pi s/T)) / 2]^exponent + alpha), s = min(t, T).

    Args:
        init_value: value at step 0.
        decay_steps: T, in steps, > 0. A traced 0 gives the final value at every step.
        alpha: the final value as a fraction of the first; it holds from step T on.
        exponent: >= 0; 1 is the plain cosine, 0 the constant `init_value`.

    Example:
        >>> import jax
        >>> jax.jit(cosine_decay_schedule(1.0, 4))(jnp.array([0, 2, 4, 9])).round(3)
        Array([1. , 0.5, 0. , 0. ], dtype=float32)

    Reference: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation (5).
    """
    where = "cosine_decay_schedule"
    require(where, "decay_steps", decay_steps, strictly=True, remedy=CONSTANT_REMEDY)
    require(where, "exponent", exponent)

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, alpha, exponent)
        floor = as_value(alpha, dtype)
        t, steps = elapsed(count, 0, decay_steps, dtype)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
        return as_value(init_value, dtype) * ((1 - floor) * cosine ** as_value(exponent, dtype) + floor)

    return schedule


def _periods(count: Count, begin: Scalar, steps: Scalar, staircase: bool, dtype: DType) -> Array:
    """max(count - begin, 0) / steps, floored if `staircase`, by integer division (exact) if all are integers."""
    since, length = steps_since(count, begin), as_count(steps)
    if staircase and since.dtype == length.dtype and jnp.issubdtype(since.dtype, jnp.integer):
        return (since // length).astype(dtype)
    periods = since.astype(dtype) / as_value(steps, dtype)
    return jnp.floor(periods) if staircase else periods


def _require_transition(where: str, steps: Scalar, begin: Scalar) -> None:
    require(where, "transition_steps", steps, strictly=True, remedy=CONSTANT_REMEDY)
    require(where, "transition_begin", begin, remedy="It is the number of steps to wait, 0 for none.")

"""Sequences of schedules: joining, warm-up, warm restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxnn.checks import concrete_number
from jaxnn.numerics import safe_divide
from jaxnn.schedules.base import (
    Count,
    Schedule,
    as_count,
    as_value,
    difference,
    reached,
    require,
    steps_since,
    value_dtype,
)
from jaxnn.schedules.decay import cosine_decay_schedule, exponential_decay, ramp
from jaxnn.types import Array, Scalar

WARMUP_REMEDY = "Use 0 for no warm-up."


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[Scalar]) -> Schedule:
    """Schedules one after the other: f(t) = f_i(t - b_i) for b_i <= t < b_(i+1), with b_0 = 0.

    Each schedule counts from its own boundary. All are evaluated, those before their boundary at count 0; one is
    selected.

    Args:
        schedules: n >= 1 functions from a count to a value.
        boundaries: n - 1 steps, >= 0, in ascending order; at equal ones the last schedule wins. May be traced.

    Example:
        >>> from jaxnn import schedules
        >>> pieces = [schedules.constant_schedule(1.0), schedules.linear_schedule(1.0, 0.0, 2)]
        >>> join_schedules(pieces, [2])(jnp.arange(5))
        Array([1. , 1. , 1. , 0.5, 0. ], dtype=float32)
    """
    where = "join_schedules"
    pieces, ends = tuple(schedules), tuple(boundaries)
    if not pieces or len(ends) != len(pieces) - 1:
        raise ValueError(
            f"{where}: needs one boundary fewer than schedules, got {len(pieces)} schedules and {len(ends)} "
            "boundaries. A boundary is the step at which the next schedule takes over."
        )
    for end in ends:
        require(where, "a boundary", end)
    known = [number for end in ends if (number := concrete_number(end)) is not None]
    if known != sorted(known):
        raise ValueError(f"{where}: boundaries must ascend, got {known}. Sort them, and the schedules with them.")

    def schedule(count: Count) -> Array:
        now = as_count(count)
        values = [pieces[0](now)]
        values += [piece(steps_since(now, end)) for end, piece in zip(ends, pieces[1:], strict=True)]
        dtype = value_dtype(*values)
        joined = as_value(values[0], dtype)
        for end, value in zip(ends, values[1:], strict=True):
            joined = jnp.where(reached(now, end), as_value(value, dtype), joined)
        return joined

    return schedule


def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Scalar) -> Schedule:
    """A linear ramp from init to peak over W = `warmup_steps` steps, then peak.

    Args:
        init_value: value at step 0.
        peak_value: value from step W on.
        warmup_steps: W, in steps, >= 0; with 0 the value is `peak_value` at once.

    Example:
        >>> warmup_constant_schedule(0.0, 1.0, 2)(jnp.arange(4))
        Array([0. , 0.5, 1. , 1. ], dtype=float32)

    Reference: Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", section 2.2 (gradual
        warm-up).
    """
    require("warmup_constant_schedule", "warmup_steps", warmup_steps, remedy=WARMUP_REMEDY)
    return ramp(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """A linear ramp from init to peak over W = `warmup_steps` steps, then half a cosine to `end_value` at step D.

    From step W: end + (peak - end) [(1 + cos(pi (t - W)/(D - W))) / 2]^exponent. If peak is 0, the
    value is 0 from step W on, whatever `end_value` is.

    Args:
        init_value: value at step 0.
        peak_value: value at step W.
        warmup_steps: W, in steps, >= 0.
        decay_steps: D, in steps, > W: the length of the whole schedule, INCLUDING the warm-up.
        end_value: value from step D on.
        exponent: >= 0; 1 is the plain cosine.

    Example:
        >>> warmup_cosine_decay_schedule(0.0, 1.0, 2, 6)(jnp.array([0, 1, 2, 4, 6])).round(3)
        Array([0. , 0.5, 1. , 0.5, 0. ], dtype=float32)

    Reference: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation (5).
    """
    where = "warmup_cosine_decay_schedule"
    require(where, "warmup_steps", warmup_steps, remedy=WARMUP_REMEDY)
    require(
        where,
        "decay_steps",
        decay_steps,
        minimum=concrete_number(warmup_steps) or 0.0,
        strictly=True,
        remedy="decay_steps counts the whole schedule, warm-up included.",
    )
    require(where, "exponent", exponent)

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, peak_value, end_value, exponent)
        peak = as_value(peak_value, dtype)
        alpha = safe_divide(as_value(end_value, dtype), peak)
        pieces = [
            ramp(as_value(init_value, dtype), peak, warmup_steps),
            cosine_decay_schedule(peak, difference(decay_steps, warmup_steps), alpha, as_value(exponent, dtype)),
        ]
        return join_schedules(pieces, [warmup_steps])(count)

    return schedule


def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """A linear ramp from init to peak over W = `warmup_steps` steps, then `exponential_decay` from peak.

    Args:
        init_value: value at step 0.
        peak_value: value at step W.
        warmup_steps: W, in steps, >= 0.
        transition_steps: steps, > 0, over which the value is multiplied by `decay_rate`.
        decay_rate: > 0.
        transition_begin: steps, >= 0, at `peak_value` after the warm-up.
        staircase: decay in jumps at multiples of `transition_steps` after W + begin.
        end_value: bound on the decayed value: from below if decay_rate < 1, else from above; None for no bound.

    Example:
        >>> warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, 0.5)(jnp.arange(5))
        Array([0.  , 0.5 , 1.  , 0.5 , 0.25], dtype=float32)
    """
    require("warmup_exponential_decay_schedule", "warmup_steps", warmup_steps, remedy=WARMUP_REMEDY)
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return join_schedules([ramp(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Warm restarts: cycles of `warmup_cosine_decay_schedule`, one after the other.

    Cycle i begins at step decay_steps_1 + ... + decay_steps_(i-1) and counts from there; the last cycle holds its
    end value.

    Args:
        cosine_kwargs: for each cycle the arguments of `warmup_cosine_decay_schedule`, by name; all may be traced.

    Raises:
        ValueError: no cycle, or as `warmup_cosine_decay_schedule`.
        TypeError: a cycle lacks an argument or has an unknown one.

    Example:
        >>> import jax
        >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
        >>> schedule = jax.jit(sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}]))
        >>> schedule(jnp.arange(7)).round(3)
        Array([0.  , 1.  , 0.5 , 0.  , 0.5 , 0.25, 0.  ], dtype=float32)

    Reference: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation (5).
    """
    cycles = [dict(kwargs) for kwargs in cosine_kwargs]
    if not cycles:
        raise ValueError("sgdr_schedule: needs at least one cycle, got none. Pass a list of dicts of arguments.")
    pieces = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cycles]
    boundaries: list[Scalar] = []
    for kwargs in cycles[:-1]:
        boundaries.append(kwargs["decay_steps"] + (boundaries[-1] if boundaries else 0))
    return join_schedules(pieces, boundaries)

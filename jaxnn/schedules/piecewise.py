"""Piecewise schedules: jumps, interpolation between steps, and the one-cycle policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp

from jaxnn.checks import concrete_number
from jaxnn.schedules.base import Count, Schedule, as_value, difference, elapsed, ratio, reached, require, value_dtype
from jaxnn.types import Array, Scalar


def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None
) -> Schedule:
    """Jumps: f(t) = init * product of the scales whose boundary b <= t.

    Args:
        init_value: value before the first boundary; may be traced.
        boundaries_and_scales: {step: factor}; steps >= 0, in any order; factors >= 0, may be traced. None for no jump.

    Example:
        >>> piecewise_constant_schedule(1.0, {2: 0.5, 3: 0.5})(jnp.arange(5))
        Array([1.  , 1.  , 0.5 , 0.25, 0.25], dtype=float32)
    """
    points = _sorted_points("piecewise_constant_schedule", boundaries_and_scales)

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, *(scale for _, scale in points))
        value = jnp.zeros(jnp.shape(count), dtype) + as_value(init_value, dtype)
        for boundary, scale in points:
            factor = as_value(scale, dtype)
            value = value * jnp.where(reached(count, boundary), factor, jnp.ones_like(factor))
        return value

    return schedule


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None
) -> Schedule:
    """Interpolation of the points (b_i, v_i): b_0 = 0, then the boundaries; v_i = init s_1 ... s_i, s_i the factors.

    With p = (t - b_i) / (b_(i+1) - b_i), t the count: "linear" is v_i + (v_(i+1) - v_i) p, "cosine" is
    v_(i+1) + (v_i - v_(i+1)) (1 + cos(pi p)) / 2. From the last boundary on the value is the last v_i.

    Args:
        interpolate_type: "linear" or "cosine".
        init_value: value at step 0; may be traced.
        boundaries_and_scales: {step: factor on the value before} = {b_i: s_i}; steps >= 0, in any order; factors >= 0,
            may be traced. None for a constant. A boundary at step 0 is a jump there.

    Example:
        >>> import jax
        >>> jax.jit(piecewise_interpolate_schedule("linear", 1.0, {2: 0.5, 4: 0.0}))(jnp.arange(6))
        Array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ], dtype=float32)
    """
    where = "piecewise_interpolate_schedule"
    if interpolate_type not in INTERPOLATIONS:
        raise ValueError(f"{where}: interpolate_type must be 'linear' or 'cosine', got {interpolate_type!r}.")
    return _path(INTERPOLATIONS[interpolate_type], init_value, _sorted_points(where, boundaries_and_scales))


def linear_onecycle_schedule(
    transition_steps: Scalar,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    pct_final: Scalar = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """One cycle in three linear phases: peak/div -> peak -> peak/div -> peak/(div final_div).

    The phases end at steps floor(pct_start T), floor(pct_final T) and T; then the value is constant. The products are
    floating-point (of Python floats unless pct or T is traced), so where pct T is an integer a phase may end one step
    early: floor(0.29 * 100) is 28.

    Args:
        transition_steps: T, in steps, > 0.
        peak_value: value at the end of the first phase.
        pct_start: fraction of T at which the value is the peak, in [0, 1].
        pct_final: fraction of T at which the value is back at the first one, in [pct_start, 1].
        div_factor: peak / first value, > 0.
        final_div_factor: first / last value, > 0.

    Example:
        >>> linear_onecycle_schedule(10, 1.0, 0.2, 0.8, div_factor=4.0, final_div_factor=5.0)(jnp.array([0, 2, 8, 10]))
        Array([0.25, 1.  , 0.25, 0.05], dtype=float32)

    Reference: Smith & Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
        Rates".
    """
    where = "linear_onecycle_schedule"
    _require_onecycle(where, transition_steps, pct_start, div_factor, final_div_factor)
    require(where, "pct_final", pct_final, minimum=concrete_number(pct_start) or 0.0, remedy="It follows pct_start.")
    _require_fraction(where, "pct_final", pct_final)
    points = [
        (_step_at(pct_start, transition_steps), div_factor),
        (_step_at(pct_final, transition_steps), ratio(1.0, div_factor)),
        (transition_steps, ratio(1.0, final_div_factor)),
    ]
    return _path(_linear, ratio(peak_value, div_factor), points)


def cosine_onecycle_schedule(
    transition_steps: Scalar,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """One cycle in two half cosines: peak/div -> peak -> peak/(div final_div).

    The phases end at steps floor(pct_start T) and T; then the value is constant.

    Args:
        transition_steps, peak_value, pct_start, div_factor, final_div_factor: as for `linear_onecycle_schedule`.

    Example:
        >>> cosine_onecycle_schedule(10, 1.0, 0.2, div_factor=4.0, final_div_factor=5.0)(jnp.array([0, 2, 10, 11]))
        Array([0.25, 1.  , 0.05, 0.05], dtype=float32)

    Reference: Smith & Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
        Rates".
    """
    _require_onecycle("cosine_onecycle_schedule", transition_steps, pct_start, div_factor, final_div_factor)
    points = [
        (_step_at(pct_start, transition_steps), div_factor),
        (transition_steps, ratio(ratio(1.0, div_factor), final_div_factor)),
    ]
    return _path(_cosine, ratio(peak_value, div_factor), points)


def _linear(start: Array, end: Array, t: Array, steps: Array) -> Array:
    return (end - start) * (t / steps) + start


def _cosine(start: Array, end: Array, t: Array, steps: Array) -> Array:
    return end + (start - end) / 2.0 * (jnp.cos(jnp.pi * (t / steps)) + 1)


INTERPOLATIONS: Mapping[str, Callable[[Array, Array, Array, Array], Array]] = {"linear": _linear, "cosine": _cosine}


def _path(
    interpolate: Callable[[Array, Array, Array, Array], Array],
    init_value: Scalar,
    points: Sequence[tuple[Scalar, Scalar]],
) -> Schedule:
    """Interpolation between points (step, factor on the value before); of several at one step the last one holds."""

    def schedule(count: Count) -> Array:
        dtype = value_dtype(init_value, *(scale for _, scale in points))
        begin: Scalar = 0
        start = as_value(init_value, dtype)
        value = jnp.zeros(jnp.shape(count), dtype) + start
        for boundary, scale in points:
            end = start * as_value(scale, dtype)
            t, steps = elapsed(count, begin, difference(boundary, begin), dtype)
            value = jnp.where(reached(count, begin), interpolate(start, end, t, steps), value)
            begin, start = boundary, end
        return jnp.where(reached(count, begin), start, value)

    return schedule


def _sorted_points(where: str, boundaries_and_scales: Mapping[int, Scalar] | None) -> list[tuple[int, Scalar]]:
    points = sorted((boundaries_and_scales or {}).items(), key=lambda point: point[0])
    for boundary, scale in points:
        require(where, "a boundary", boundary)
        require(where, f"the factor at step {boundary}", scale)
    return points


def _step_at(fraction: Scalar, steps: Scalar) -> Scalar:
    """floor(fraction * steps), a Python int if both are concrete."""
    known = concrete_number(fraction), concrete_number(steps)
    if known[0] is not None and known[1] is not None:
        return int(known[0] * known[1])
    dtype = value_dtype(fraction, steps)
    return jnp.floor(as_value(fraction, dtype) * as_value(steps, dtype))


def _require_onecycle(where: str, steps: Scalar, pct_start: Scalar, div: Scalar, final_div: Scalar) -> None:
    require(where, "transition_steps", steps, strictly=True, remedy="It is the number of steps of the whole cycle.")
    _require_fraction(where, "pct_start", pct_start)
    require(where, "div_factor", div, strictly=True)
    require(where, "final_div_factor", final_div, strictly=True)


def _require_fraction(where: str, name: str, value: Scalar) -> None:
    number = concrete_number(value)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"{where}: {name} is a fraction of transition_steps, in [0, 1], got {number:g}.")

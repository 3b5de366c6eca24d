"""The leaky integrate-and-fire unit: a potential that charges, fires at a threshold, and is reset.

tau dv/dt = rest - v + resistance I(t); at v = threshold a spike, then v = reset for the refractory period

Between spikes the equation is solved exactly for a current that is constant in each time step, as is the time of each
spike: the step limits how finely the current varies, not the precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import as_array, concrete_number, require_number, require_positive
from jaxnn.numerics import accumulate
from jaxnn.types import Array, ArrayLike, DType, Scalar


class Unit(NamedTuple):
    """Parameters, each a number, possibly traced; in ms, mV and megohms with currents in nA, or in units that agree."""

    tau: Scalar = 10.0
    resistance: Scalar = 10.0
    rest: Scalar = -65.0
    threshold: Scalar = -50.0
    reset: Scalar = -65.0
    refractory: Scalar = 2.0


class Spikes(NamedTuple):
    """v (T,), the potential at the end of each step; times (T,), of the spike in each step, NaN where there is none."""

    v: Array
    times: Array


def rate(unit: Unit, current: ArrayLike) -> Array:
    """The firing rate under a constant current, in closed form.

    1 / (refractory + tau log((v_inf - reset) / (v_inf - threshold))) with v_inf = rest + resistance I, if v_inf >
    threshold; else 0: the potential tends to v_inf without a spike.

    Args:
        unit: with tau > 0, reset < threshold and refractory >= 0, all finite.
        current: I (...); NaN gives NaN.

    Returns:
        (...), spikes per unit of time: per ms for tau in ms.

    Raises:
        ValueError: a concrete parameter of the unit is out of range.

    Reference: Stein, R. B. (1965). A theoretical analysis of neuronal variability. Knight, B. W. (1972). Dynamics of
        encoding in a population of neurons.

    Example:
        >>> print(f"{rate(Unit(), 2.0) * 1000:.1f} spikes per second at 2 nA, {rate(Unit(), 1.5):.0f} at 1.5 nA")
        63.0 spikes per second at 2 nA, 0 at 1.5 nA
    """
    amperes = accumulate(as_array("spiking.rate", "current", current))
    tau, resistance, rest, threshold, reset, refractory = _numbers("spiking.rate", unit, amperes.dtype)
    limit = rest + resistance * amperes
    fires = limit > threshold
    above = jnp.where(fires, limit - threshold, 1)
    interval = refractory + tau * jnp.log1p((threshold - reset) / above)
    return jnp.where(fires, 1 / interval, jnp.where(jnp.isnan(limit), limit, 0))


def simulate(unit: Unit, current: ArrayLike, *, step: Scalar, start: Scalar | None = None) -> Spikes:
    """The potential and the spikes under a current that is constant in each time step.

    v(t + s) = v_inf + (v(t) - v_inf) e^(-s / tau), v_inf = rest + resistance I, up to the threshold

    Args:
        unit: with tau > 0, reset < threshold and refractory >= 0.
        current: I (T,), of each step.
        step: > 0, shorter than the interval between spikes at the largest current; v becomes NaN at a second spike
            within one step. May be traced.
        start: v at time 0, less than the threshold; None for `rest`, or `reset` if `rest` is not less.

    Returns:
        Spikes. Step k = 0, 1, .. lasts from time k step to (k + 1) step.

    Raises:
        ValueError: a concrete parameter is out of range, or current is not (T,).

    Reference: Lapicque, L. (1907). Recherches quantitatives sur l'excitation electrique des nerfs traitee comme une
        polarisation. Morrison, A., Straube, S., Plesser, H. E. & Diesmann, M. (2007). Exact subthreshold integration
        with continuous spike times in discrete-time neural network simulations.

    Example:
        >>> found = simulate(Unit(), jnp.full(50, 2.0), step=1.0)
        >>> print(found.times[~jnp.isnan(found.times)].round(2))
        [13.86 29.73 45.59]
    """
    amperes = accumulate(as_array("spiking.simulate", "current", current))
    if amperes.ndim != 1:
        raise ValueError(f"spiking.simulate: current must be (T,), one for each step, got {amperes.shape}.")
    require_positive("spiking.simulate", "step", step)
    numbers = _numbers("spiking.simulate", unit, amperes.dtype)
    _, _, rest, threshold, reset, _ = numbers
    if start is not None:
        require_number("spiking.simulate", "start", start)
        begin, top = concrete_number(start), concrete_number(unit.threshold)
        if begin is not None and top is not None and not begin < top:
            raise ValueError(f"spiking.simulate: start must be less than threshold, got {begin:g} and {top:g}.")
    first = jnp.where(rest < threshold, rest, reset) if start is None else start
    h, first = (jnp.asarray(value, amperes.dtype) for value in (step, first))
    return _simulate(numbers, amperes, h, first)


@jax.jit
def _simulate(numbers: tuple[Array, ...], current: Array, h: Array, start: Array) -> Spikes:
    tau, resistance, rest, threshold, reset, refractory = numbers

    def charged(v: Array, limit: Array, time: Array) -> Array:
        return limit + (v - limit) * jnp.exp(-time / tau)

    def one_step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Spikes]:
        (v, wait), (limit, time) = carry, now  # `wait`: what is left of the refractory period
        active = jnp.maximum(h - wait, 0)
        end = charged(v, limit, active)
        fires = (end >= threshold) & (limit > threshold)
        above = jnp.where(fires, limit - threshold, 1)
        needed = jnp.where(fires, tau * jnp.log1p((threshold - v) / above), 0)
        left = active - needed
        again = charged(reset, limit, jnp.maximum(left - refractory, 0))
        again = jnp.where(again < threshold, again, jnp.nan)  # a second spike
        after = jnp.where(fires, again, end)
        rest_of = jnp.where(fires, jnp.maximum(refractory - left, 0), jnp.maximum(wait - h, 0))
        return (after, rest_of), Spikes(after, jnp.where(fires, time + h - active + needed, jnp.nan))

    times = jnp.arange(len(current), dtype=h.dtype) * h
    return lax.scan(one_step, (start, jnp.zeros_like(h)), (rest + resistance * current, times))[1]


def _numbers(where: str, unit: Unit, dtype: DType) -> tuple[Array, ...]:
    """The parameters as arrays, checked where they are concrete."""
    if not isinstance(unit, Unit):
        raise TypeError(f"{where}: unit must be a spiking.Unit, got {type(unit).__name__}.")
    for name, value in zip(unit._fields, unit, strict=True):
        require_number(where, name, value)
        number = concrete_number(value)
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{where}: {name} must be finite, got {number:g}.")
    require_positive(where, "tau", unit.tau)
    threshold, reset, pause = (concrete_number(value) for value in unit[3:])
    if threshold is not None and reset is not None and not reset < threshold:
        raise ValueError(f"{where}: reset must be less than threshold, got {reset:g} and {threshold:g}.")
    if pause is not None and not pause >= 0:
        raise ValueError(f"{where}: refractory must be >= 0, got {pause:g}.")
    return tuple(jnp.asarray(value, dtype) for value in unit)

"""The integrate-and-fire unit: its rate against the closed form, its potential against an integrated equation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxnn.classic import spiking
from jaxnn.classic.spiking import Unit
from tests.helpers import float64, strict

UNITS = {
    "default": Unit(),
    "no refractory period": Unit(refractory=0.0),
    "other reset": Unit(tau=20.0, resistance=5.0, rest=-60.0, threshold=-45.0, reset=-70.0, refractory=3.3),
    "dimensionless": Unit(tau=1.0, resistance=1.0, rest=0.0, threshold=1.0, reset=0.0, refractory=0.1),
}
simulate = jax.jit(spiking.simulate)


def spikes(found: spiking.Spikes) -> np.ndarray:
    times = np.asarray(found.times)
    return times[~np.isnan(times)]


@pytest.mark.parametrize("name", UNITS)
def test_the_rate_is_the_closed_form(name: str) -> None:
    """Every interval of the simulation, at several currents, is 1 / rate: to rounding, whatever the step."""
    unit = UNITS[name]
    rheobase = (unit.threshold - unit.rest) / unit.resistance
    with float64(), strict():
        for factor in (1.001, 1.2, 2.0, 5.0):
            interval = 1 / float(spiking.rate(unit, factor * rheobase))
            for step in (0.07, 0.6):
                current = np.full(int(12 / step), factor * rheobase)
                found = spikes(simulate(unit, current, step=step * interval, start=unit.reset))
                assert len(found) >= 11
                first = interval - unit.refractory
                np.testing.assert_allclose(found, first + interval * np.arange(len(found)), rtol=1e-10)


def test_below_the_threshold_it_never_fires() -> None:
    unit = Unit()
    with float64():
        current = np.full(500, 1.499)
        found = simulate(unit, current, step=0.5)
        assert len(spikes(found)) == 0
        time = 0.5 * np.arange(1, 501)
        np.testing.assert_allclose(found.v, -65 + 14.99 * (1 - np.exp(-time / 10)), rtol=1e-12)
    assert spiking.rate(unit, 1.499) == spiking.rate(unit, 1.5) == spiking.rate(unit, -3.0) == 0
    assert spiking.rate(unit, 1.501) > 0
    assert spiking.rate(unit, 1e6) == pytest.approx(1 / 2, rel=1e-3), "at most one spike in a refractory period"


def test_a_varying_current_against_an_integrated_equation() -> None:
    unit, step = Unit(), 0.5
    current = np.random.default_rng(0).uniform(0, 4, 300)
    with float64(), strict():
        found = simulate(unit, current, step=step)
    v, t, expected, potential = unit.rest, 0.0, [], []
    free = 0.0  # the end of the refractory period
    for k, i in enumerate(current):
        end = (k + 1) * step
        while t < end:
            if t < free:
                t = min(free, end)
                continue

            def crosses(t: float, v: Any) -> float:
                return float(v[0] - unit.threshold)

            crosses.terminal, crosses.direction = True, 1  # type: ignore[attr-defined]
            piece = integrate.solve_ivp(
                lambda t, v, i=i: (unit.rest - v + unit.resistance * i) / unit.tau,
                (t, end),
                [v],
                events=crosses,
                rtol=1e-10,
                atol=1e-12,
            )
            t, v = piece.t[-1], piece.y[0, -1]
            if piece.status == 1:
                expected.append(t)
                v, free = unit.reset, t + unit.refractory
        potential.append(v)
    assert len(expected) > 8
    np.testing.assert_allclose(spikes(found), expected, rtol=1e-7)
    np.testing.assert_allclose(found.v, potential, atol=1e-6)


def test_euler_with_spikes_on_the_grid_has_another_rate() -> None:
    """The wrong variant that this one replaces: its rate is off by a step per spike."""
    unit, step, current = Unit(), 0.5, 2.0
    v, wait, count, steps = unit.rest, 0.0, 0, 40_000
    for _ in range(steps):
        if wait > 0:
            wait -= step
            continue
        v += step / unit.tau * (unit.rest - v + unit.resistance * current)
        if v >= unit.threshold:
            count, v, wait = count + 1, unit.reset, unit.refractory
    assert abs(count / (steps * step) / float(spiking.rate(unit, current)) - 1) > 0.005


def test_a_second_spike_in_one_step_is_not_lost_silently() -> None:
    found = simulate(Unit(refractory=0.1), np.full(5, 100.0), step=2.0)
    assert jnp.isnan(found.v).any()
    assert not jnp.isnan(simulate(Unit(refractory=2.0), np.full(50, 100.0), step=2.0).v).any()


def test_dtypes_and_transformations() -> None:
    currents = np.stack([np.full(100, 2.0), np.full(100, 3.0)])
    many = jax.vmap(lambda current, tau: simulate(Unit(tau=tau), current, step=1.0))(currents, jnp.array([10.0, 20.0]))
    for i, tau in enumerate((10.0, 20.0)):
        np.testing.assert_allclose(many.v[i], simulate(Unit(tau=tau), currents[i], step=1.0).v, rtol=1e-4)
    for dtype in (np.float64, jnp.bfloat16, int):
        assert simulate(Unit(), currents[0].astype(dtype), step=1.0).v.dtype == jnp.float32
    slope = jax.grad(lambda current: spiking.rate(Unit(), current))
    assert slope(2.0) > 0
    assert slope(1.0) == slope(1.5) == 0
    np.testing.assert_allclose(slope(2.0), (spiking.rate(Unit(), 2.01) - spiking.rate(Unit(), 1.99)) / 0.02, rtol=1e-2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: spiking.rate(Unit(tau=0.0), 1.0), "tau must be a finite number > 0"),
        (lambda: spiking.rate(Unit(reset=-50.0), 1.0), "reset must be less than threshold, got -50 and -50"),
        (lambda: spiking.rate(Unit(refractory=-1.0), 1.0), "refractory must be >= 0, got -1"),
        (lambda: spiking.rate(Unit(rest="0"), 1.0), "rest must be a real number"),  # type: ignore[arg-type]
        (lambda: spiking.simulate(Unit(), 2.0, step=1.0), r"current must be \(T,\)"),
        (lambda: spiking.simulate(Unit(), np.ones(3), step=0.0), "step must be a finite number > 0"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_a_current_that_is_not_a_number_gives_no_rate() -> None:
    np.testing.assert_array_equal(np.isnan(spiking.rate(spiking.Unit(), [np.nan, 2.0, 0.0])), [True, False, False])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: spiking.rate(spiking.Unit(rest=np.nan), 2.0), "rest must be finite"),
        (
            lambda: spiking.simulate(spiking.Unit(), [2.0], step=1.0, start=0.0),
            "start must be less than threshold, got 0 and -50",
        ),
        (lambda: spiking.simulate(spiking.Unit(), [2.0], step=1.0, start=np.ones(2)), "start must be one number"),
    ],
)
def test_parameters_out_of_range_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

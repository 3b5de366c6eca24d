"""Pulses, staircases, ridges, bumps and surfaces: their values, their accuracy, and how many units they take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxnn.classic import approximation
from jaxnn.classic.approximation import bump, pulses, ridge, staircase, surface
from jaxnn.classic.threshold import Network
from tests.classic.nets import run, widened
from tests.helpers import float64


def values(network: Network, x: np.ndarray) -> np.ndarray:
    with float64():
        return run(network, x)


@dataclasses.dataclass(frozen=True)
class Waves:
    """A random sum of sines of one or two variables, and how much it can change over a distance of 1 along an axis."""

    amplitudes: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray

    def __call__(self, *x: np.ndarray) -> np.ndarray:
        z = sum(f.reshape(-1, *[1] * x[0].ndim) * xi for f, xi in zip(self.frequencies, x, strict=True))
        each = np.sin(z + self.phases.reshape(-1, *[1] * x[0].ndim))
        return np.tensordot(self.amplitudes, each, 1)

    @property
    def slope(self) -> float:
        return float((np.abs(self.amplitudes) * np.abs(self.frequencies).sum(0)).sum())


def waves(dimensions: int, seed: int) -> Waves:
    rng = np.random.default_rng(seed)
    return Waves(rng.normal(size=4) / 2, rng.normal(size=(dimensions, 4)) * 4, rng.uniform(0, 7, 4))


def test_a_pulse_lies_between_its_two_thresholds() -> None:
    network = pulses(1.0, 2.0, 3.0)
    np.testing.assert_array_equal(values(network, np.array([[0.9], [1.0], [1.9], [2.0], [2.1]])), [0, 3, 3, 0, 0])
    assert (network.units, network.layers) == (3, 2)


def test_pulses_add_up() -> None:
    network = pulses([0, 0.5], [1, 2], [1, 10])
    np.testing.assert_array_equal(values(network, np.array([[0.2], [0.7], [1.5], [3.0]])), [1, 11, 10, 0])
    edges = np.linspace(0, 1, 101)
    comb = pulses(edges[:-1], edges[1:], np.square(edges[:-1]))  # narrow pulses approximate x^2 on [0, 1)
    x = np.random.default_rng(0).uniform(0, 1, (500, 1))
    with float64():
        assert np.abs(values(comb, x) - x[:, 0] ** 2).max() < 0.021
    assert comb.units == 201


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.1, 0.03]))
@hypothesis.settings(max_examples=12)
def test_a_staircase_keeps_within_the_tolerance(seed: int, tolerance: float) -> None:
    function = waves(1, seed)
    with float64():
        found = staircase(function, -1, 2, tolerance)
        x = np.random.default_rng(seed).uniform(-1, 2, 2000)
        errors = np.abs(values(widened(found.network, 512), x[:, None]) - function(x))
    assert found.error <= tolerance + 1e-12
    assert errors.max() <= tolerance + function.slope * 3 / 4096
    assert found.units == found.network.units - 1


def test_a_staircase_takes_as_few_units_as_can_be() -> None:
    """A monotone function that rises by R takes R / (2 tolerance) steps; sines up and down as many for each rise."""
    for tolerance in (0.3, 0.1, 0.02, 0.005):
        steps = math.ceil((math.e - 1) / (2 * tolerance))
        assert steps - 1 <= staircase(np.exp, 0, 1, tolerance).units <= 1.02 * steps
    coarse, fine = (staircase(np.sin, 0, 2 * np.pi, t) for t in (0.04, 0.01))
    assert 3.7 < fine.units / coarse.units < 4.3
    assert staircase(np.cos, 0, 1, 2.0).units == 1  # a constant will do


def test_a_staircase_with_one_step_moved_is_found() -> None:
    with float64():
        (net, (hidden, _, output)), *_ = staircase(np.exp, 0, 1, 0.05)
        shifted = {**hidden, "b": hidden["b"].at[5].add(0.05)}
        x = np.linspace(0, 1, 4000)
        errors = np.abs(values(Network(net, (shifted, (), output)), x[:, None]) - np.exp(x))
        assert errors.max() > 0.06


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.1, 3))
@hypothesis.settings(max_examples=8)
def test_a_ridge_is_a_strip_and_a_bump_a_rectangle(seed: int, low: float, width: float) -> None:
    rng = np.random.default_rng(seed)
    x, d = rng.uniform(-4, 4, (500, 2)), rng.normal(size=2)
    high = low + width
    with float64():
        along = x @ d
        np.testing.assert_array_equal(values(ridge(d, low, high), x), (low <= along) & (along <= high))
        inside = ((low <= x[:, 0]) & (x[:, 0] <= high)) & (np.abs(x[:, 1]) <= 1)
        np.testing.assert_array_equal(values(bump([low, -1], [high, 1], 2.5), x), 2.5 * inside)


def test_two_ridges_and_a_threshold_are_a_bump() -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (300, 2))
    across, along = (values(ridge(d, -1, 1), x) for d in ([1, 0], [0, 1]))
    assert set(across + along) == {0, 1, 2}
    np.testing.assert_array_equal(values(bump([-1, -1], [1, 1]), x), across + along > 1.5)
    box = bump([-1] * 3, [1] * 3)
    assert (box.units, box.layers) == (6 + 1 + 1, 3)
    np.testing.assert_array_equal(values(box, np.array([[0.0, 0, 0], [0, 0, 1.5], [2, 2, 2]])), [1, 0, 0])


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=3)
def test_a_surface_keeps_within_the_tolerance(seed: int) -> None:
    function, tolerance = waves(2, seed), 0.35
    with float64():
        found = surface(function, -1, 1, tolerance)
        x = np.random.default_rng(seed).uniform(-1, 1, (2000, 2))
        errors = np.abs(values(found.network, x) - function(*x.T))
    assert found.error <= tolerance
    assert errors.max() <= tolerance + function.slope * 2 / 240
    assert found.units == found.network.units - 1


def test_every_cell_of_a_surface_has_its_own_height() -> None:
    with float64():
        found = surface(lambda x, y: x + 10 * y, 0, 1, 11 / 8 + 1e-9)
        assert found.units == 2 * 3 + 16
        i, j = (a.ravel() for a in np.meshgrid(range(4), range(4), indexing="ij"))
        centres = np.stack([i + 0.5, j + 0.5], 1) / 4
        np.testing.assert_allclose(values(found.network, centres), centres @ [1, 10], rtol=1e-12)
        corners = np.stack([i, j], 1) / 4  # half-open: a corner belongs to the cell above it
        np.testing.assert_allclose(values(found.network, corners), centres @ [1, 10], rtol=1e-12)
        far = np.array([[-5.0, 0.1], [9.0, 9.0]])
        np.testing.assert_allclose(values(found.network, far), [0.125 + 1.25, 0.875 + 8.75], rtol=1e-12)


def test_a_surface_takes_four_times_the_units_for_half_the_error() -> None:
    coarse, fine = (surface(lambda x, y: x * y, 0, 1, t).units for t in (0.1, 0.05))
    assert 3.2 < fine / coarse < 4.4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pulses(2, 1), "and low < high for each"),
        (lambda: pulses([0, 1], [1]), r"got shapes \(2,\), \(1,\)"),
        (lambda: pulses([0, 1], [1, 2], [1, 2, 3]), r"and \(3,\)"),
        (lambda: pulses([], []), "at least one pulse"),
        (lambda: ridge([0, 0], -1, 1), "a direction .* that is not 0"),
        (lambda: bump([0], [1], height=[1, 2]), "height must be a real number"),
        (lambda: staircase(np.sign, -1, 1, 0.1), "a jump cannot be approximated"),
        (lambda: staircase(np.exp, 0, 1, 0.0), "tolerance > 0"),
        (lambda: staircase(np.exp, 1, 1, 0.1), "expected low < high"),
        (lambda: staircase(lambda x: 1 / x, 0, 1, 0.1), "values that are not finite"),
        (lambda: staircase(np.sum, 0, 1, 0.1), r"element-wise and finite, got shape \(\) for inputs \(4097,\)"),
        (lambda: surface(lambda x, y: x > y, 0, 1, 0.1), "changes by 1 between two samples"),
        (lambda: surface(lambda x, y: x, 0, 1, 0.1, samples=1), "samples must be at least 2"),
        (lambda: ridge([1, 0], 1, 0), "and low < high, got .* low 1, high 0"),
        (lambda: bump([0, 0], [1, 0]), r"low < high, got \[0.0, 0.0\] and \[1.0, 0.0\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_an_approximation_is_a_network_its_units_and_its_error() -> None:
    assert approximation.Approximation._fields == ("network", "units", "error")

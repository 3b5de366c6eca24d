"""The pictures of outputs and losses: what titles and captions say, read from what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from jaxnn.gallery import outputs
from tests.gallery.reading import drawn, line


@pytest.mark.slow
def test_saturation_costs_the_squared_error_exponentially_many_steps() -> None:
    slopes, curves, steps = drawn("saturation").axes
    z, slope = line(slopes, "squared error").T
    np.testing.assert_allclose(slope, np.exp(-z) / (1 + np.exp(-z)) ** 3, rtol=1e-4, atol=1e-6)
    z, slope = line(slopes, "cross-entropy").T
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-z)), rtol=1e-4, atol=1e-6)
    stuck = curves.lines[1].get_ydata()
    assert f"from y = {stuck[0]:.2f}" == "from y = 0.99"
    assert stuck[0] - stuck[100] < 0.03, "hardly moves for 100 steps"
    z, needed = line(steps, "squared error").T
    late = z >= 6
    np.testing.assert_allclose(np.diff(np.log(needed[late])), np.diff(z[late]), rtol=0.2)  # e-fold for each unit of z
    z, needed = line(steps, "cross-entropy").T
    assert (np.diff(needed[z >= 2]) <= 1).all()


@pytest.mark.slow
def test_least_squares_learns_the_mean_and_branches_lie_on_data() -> None:
    left, middle, right = drawn("mixture-density").axes
    colours = [each.get_color() for ax in (left, middle) for each in ax.lines if each.get_linewidth() > 2]
    assert len(set(colours)) == len(colours) == 4, "least squares is none of the components"
    contours = next(each for each in middle.collections if hasattr(each, "levels"))
    assert list(contours.levels) == list(outputs.LEVELS) == [0.5, 1, 2, 4, 8]
    y = np.linspace(0, 1, 20_001)
    forward = y + 0.3 * np.sin(2 * np.pi * y)
    x, found = line(left, "least squares").T
    inside = (x > 0) & (x < 1) & (np.abs(np.abs(x - 0.5) - 0.143) > 0.03)  # the mean jumps at 0.357 and 0.643
    mean = np.array([y[np.abs(forward - at) <= outputs.NOISE].mean() for at in x[inside]])
    assert np.abs(found[inside] - mean).max() < 0.05
    assert abs(np.interp(0.3, x, found) - 0.110) < 0.04
    dots = line(left, "mean of y in 200,000 draws")
    exact = np.array([y[np.abs(forward - at) <= outputs.NOISE].mean() for at in dots[:, 0]])
    calm = np.abs(np.abs(dots[:, 0] - 0.5) - 0.143) > 0.03
    np.testing.assert_allclose(dots[calm, 1], exact[calm], atol=0.01)
    rms = np.sqrt(np.mean((np.interp(dots[:, 0], x, found) - dots[:, 1]) ** 2))
    assert left.get_title() == f"squared error: the mean, to {rms:.2f} (rms)"
    assert rms < 0.03
    for m in (1, 2, 3):
        x, mean = line(middle, f"component {m}").T
        there = np.isfinite(mean)
        assert there.any()
        beside = np.maximum(np.abs(x[there, None] - forward[None]) - outputs.NOISE, 0)
        away = np.hypot(beside, mean[there, None] - y[None]).min(axis=1)
        assert away.max() < 0.021, "a branch is drawn where no example can lie"
        weights = line(right, f"component {m}")[:, 1]
        assert weights[there].min() > 0.1
    at = np.array([line(right, f"component {m}")[:, 1] for m in (1, 2, 3)])
    np.testing.assert_allclose(at.sum(0), 1, rtol=1e-5)
    assert at[:, np.abs(line(right, "component 1")[:, 0] - 0.5).argmin()].min() > 0.1, "three branches at x = 1/2"

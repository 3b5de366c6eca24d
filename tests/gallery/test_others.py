"""The pictures of other networks: what titles and captions say is read from what is drawn, or computed again."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import hopfield, kernel, spiking
from jaxnn.gallery import kernels, others
from tests.gallery.reading import drawn, line

BY_NAME = {picture.name: picture for picture in others.PICTURES}


def cells(ax: Any, rows: int, columns: int) -> np.ndarray:
    """The images of a mosaic, (rows, columns, H, W)."""
    whole = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    height, width = (whole.shape[0] + 1) // rows, (whole.shape[1] + 1) // columns
    padded = np.pad(whole, ((0, 1), (0, 1)), constant_values=np.nan)
    found = padded.reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
    return found[:, :, :-1, :-1]


def numbers(text: str) -> list[float]:
    return [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\.?\d*", text)]


@pytest.mark.slow
def test_digits_are_recalled_and_no_update_raises_the_energy() -> None:
    images, energies, _ = drawn("hopfield").axes
    stored, start, *_, last = cells(images, 5, 5).transpose(1, 0, 2, 3)
    assert set(np.unique(stored)) == {0, 1}
    assert ((stored != start).sum(axis=(1, 2)) == 10).all()
    assert (stored == last).all()
    assert len(energies.lines) == 5
    for each in energies.lines:
        values = np.asarray(each.get_ydata())
        assert len(values) == 129
        assert (np.diff(values) <= 1e-5).all()
        assert values[-1] < values[0] - 10
    signs = 2 * stored.reshape(5, 64) - 1
    w = hopfield.hebb(signs)
    assert (np.sign(signs @ np.asarray(w)) != signs).any(), "too much alike for Hebb's rule"


@pytest.mark.slow
def test_recall_breaks_down_beyond_the_critical_load() -> None:
    capacity = drawn("hopfield").axes[2]
    assert f"{float(hopfield.critical_load()):.3f}" == "0.138"
    assert "0.138 N" in capacity.get_title()
    small, large = line(capacity, "N = 100"), line(capacity, "N = 500")
    for found in (small, large):
        assert found[found[:, 0] < 0.138, 1].min() > 0.95
    beyond = large[:, 0] > 0.16
    assert (large[beyond, 1] < small[beyond, 1]).all()
    assert large[-1, 1] < 0.7
    theory = line(capacity, "mean field")
    at = np.interp(large[large[:, 0] < 0.13, 0], *theory[:-2].T)
    np.testing.assert_allclose(large[large[:, 0] < 0.13, 1], at, atol=0.02)


@pytest.mark.slow
def test_longer_chains_come_nearer_to_the_best_likelihood() -> None:
    curves, samples, angles = drawn("boltzmann-machine").axes
    one, ten, best = line(curves, "CD-1")[:, 1], line(curves, "CD-10")[:, 1], -np.log(30)
    assert line(curves, "CD-1").shape == (50, 2)
    assert one[-1] < ten[-1] < best
    assert best - ten[-1] < 0.5 * (best - one[-1])
    images = cells(samples, 8, 8).reshape(64, 4, 4)
    right = [((image == image[:1]).all() or (image == image[:, :1]).all()) for image in images]
    grey = [(image == 0.5).any() for image in images]
    assert [not each for each in grey] == right
    assert numbers(samples.get_title()) == [10, sum(right), 64]
    assert len(others.bars_and_stripes()) == 30
    early, late = line(angles, "after epoch 500")[:, 1], line(angles, "after epoch 2,000")[:, 1]
    assert early.min() > 0.5
    assert late[0] < -0.1
    assert late[-1] > 0.85


@pytest.mark.slow
def test_gaussians_at_every_example_reproduce_the_noise() -> None:
    curve, errors, plane = drawn("radial-basis").axes
    at_examples, against = line(errors, "at the examples"), line(errors, "against the function")
    assert at_examples[-1, 0] == 40
    assert at_examples[-1, 1] < 1e-3 < 0.1 < at_examples[1, 1]
    assert against[1, 0] == 8
    assert against[-1, 1] / against[1, 1] == pytest.approx(2, abs=0.25)
    examples = line(curve, "40 examples")
    through = np.interp(examples[:, 0], *line(curve, "40 units").T)
    assert np.abs(through - examples[:, 1]).max() < 0.05
    crosses = next(each for each in plane.lines if each.get_marker() == "x")
    assert len(crosses.get_xdata()) == numbers(plane.get_title())[0] == 12
    assert 0 < numbers(plane.get_title())[1] < 20
    assert plane.get_aspect() == 1, "circles are round"
    assert [text.get_text() for text in plane.get_legend().get_texts()] == ["y = -1", "y = +1"]


@pytest.mark.slow
def test_kernel_machines_use_the_examples_that_are_ringed() -> None:
    axes = drawn("kernel-machines").axes
    points = kernels.moons(120)
    used = []
    for ax in axes:
        rings = next(each for each in ax.collections if len(each.get_offsets()) > 1)
        used.append(len(rings.get_offsets()))
        assert used[-1] == numbers(ax.get_title().split("\n")[1])[0]
    assert used[1] == 120 > max(used[0], used[2])
    assert numbers(axes[0].get_title())[-1] == 0
    gram = kernel.gaussian(points.x, points.x, width=kernels.WIDTH)
    machine = kernel.support(gram, points.y, c=1.0)
    margin = np.asarray(points.y) * (np.asarray(gram) @ machine.a + machine.bias)
    assert (margin[machine.a != 0] < 1 + 1e-4).all()
    assert (margin[machine.a == 0] > 1 - 1e-4).all()
    assert (machine.a != 0).sum() == used[2]
    assert numbers(axes[2].get_title())[-1] == (margin <= 0).sum()


@pytest.mark.slow
def test_the_map_unfolds() -> None:
    *squares, digits = drawn("kohonen-map").axes
    shares = [numbers(ax.get_title()) for ax in squares]
    assert [count for count, _ in shares] == [0, 300, 12_000]
    assert shares[0][1] > 70
    assert shares[-1][1] == 0
    units = squares[-1].lines[-1].get_xydata().reshape(10, 10, 2)
    down, right = np.diff(units, axis=0)[:, :-1], np.diff(units, axis=1)[:-1]
    areas = down[..., 0] * right[..., 1] - down[..., 1] * right[..., 0]
    assert (np.sign(areas) == np.sign(areas[0, 0])).all(), "no mesh is folded over"
    assert units.min() < 0.1 < 0.9 < units.max(), "it covers the square"
    assert numbers(digits.get_title())[0] < 15
    images = cells(digits, 10, 10)
    beside = np.abs(np.diff(images, axis=1)).mean()
    apart = np.abs(
        images - np.random.default_rng(0).permutation(images.reshape(100, 8, 8)).reshape(images.shape)
    ).mean()
    assert beside < 0.6 * apart, "neighbours are similar"


@pytest.mark.slow
def test_the_reservoir_forgets_remembers_and_continues() -> None:
    forgetting, remembering, alone = drawn("echo-state").axes
    last = {radius: line(forgetting, f"spectral radius {radius:g}")[-1, 1] for radius in (0.5, 0.8, 1.3)}
    assert max(last[0.5], last[0.8]) < 1e-7 < 1 < last[1.3]
    assert "radius of 0.5 or 0.8, with 1.3" in BY_NAME["echo-state"].caption
    for each in remembering.lines:
        total = float(np.sum(each.get_ydata()))
        assert numbers(str(each.get_label()))[-1] == round(total)
        assert total <= (30.5 if "delay line" in str(each.get_label()) else 100)
    assert line(remembering, "delay line")[:, 1].sum() == pytest.approx(30, abs=0.2)
    truth, guess = line(alone, "Mackey-Glass")[:, 1], line(alone, "network on its own")[:, 1]
    assert len(truth) == 800
    assert np.abs(truth - guess)[:300].max() < 0.1 * truth.std()


@pytest.mark.slow
def test_the_simulated_rates_are_the_closed_form() -> None:
    trace, rates = drawn("spiking-unit").axes
    assert next(text.get_text() for text in trace.texts).endswith("\n0 spikes")
    for pause in (0.0, 2.0, 5.0):
        markers = line(rates, f"refractory period {pause:g} ms")
        unit = spiking.Unit(refractory=pause)
        np.testing.assert_allclose(markers[:, 1], 1000 * np.asarray(spiking.rate(unit, markers[:, 0])), rtol=2e-3)
        assert (markers[markers[:, 0] <= 1.5, 1] == 0).all()
        assert pause == 0 or markers[:, 1].max() < 1000 / pause
    unit = spiking.Unit()
    found = np.asarray(spiking.simulate(unit, jnp.full(1000, 2.0), step=0.1).times)
    assert unit.refractory == 2
    assert np.diff(found[~np.isnan(found)]).min() > 2

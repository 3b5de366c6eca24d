"""The pictures of optimization: each is drawn, and shows what its caption says."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from jaxnn import landscapes
from jaxnn.gallery import optimization
from tests.gallery.reading import drawn, line


@pytest.mark.slow
def test_steps_of_each_size_do_what_is_said() -> None:
    height = drawn("step-sizes").axes[-1]
    ways = {name: line(height, name)[:, 1] for name in ("too small", "good", "oscillating", "diverging")}
    assert len(ways["good"]) < 40 < len(ways["too small"]) == 61
    assert ways["too small"][-1] > 1e-2
    assert ways["diverging"][-1] > ways["diverging"][0]
    assert ways["good"][-1] < 1e-4 < ways["oscillating"][-1] < ways["oscillating"][0]
    assert ways["oscillating"][-1] < 0.01 * ways["oscillating"][0], "more slowly, but it descends"


@pytest.mark.slow
def test_every_trajectory_is_seen_in_axes_of_its_own() -> None:
    *ways, valley, plain = drawn("optimizers").axes
    titles = [ax.get_title().splitlines() for ax in ways]
    names = [first for first, _ in titles[:5]]
    assert names == ["gradient descent", "momentum 0.9", "RMSprop", "Adam", "sign step"]
    values = {(ax, name): line(ax, name)[:, 1] for ax in (valley, plain) for name in names}
    for i, (ax, (name, told)) in enumerate(zip(ways, titles, strict=True)):
        last = values[valley if i < 5 else plain, name][-1]
        said = told.split("= ")[1]
        value = 1 - float(said.removeprefix("1 - ")) if said.startswith("1 - ") else float(said)
        assert value == pytest.approx(last, rel=0.05), f"{name}: {told}"
        assert len(line(ax, name)) == (301 if i < 5 else 101)
    least = {name: values[valley, name][-1] for name in names}
    assert min(least, key=lambda name: least[name]) == "momentum 0.9", "the lowest value"
    assert (np.diff(values[valley, "gradient descent"][10:]) < 0).all(), "slowly along the floor"
    assert least["gradient descent"] > 1
    jumps = np.diff(values[valley, "sign step"][100:])
    assert (jumps[:-1] * jumps[1:] < 0).all(), "from wall to wall"
    moved = {name: np.linalg.norm(line(ways[5 + j], name)[-1] - [4, 3]) for j, name in enumerate(names)}
    assert moved["gradient descent"] < 0.01
    assert min(moved[name] for name in ("RMSprop", "Adam", "sign step")) > 4.5
    assert max(values[plain, name][-1] for name in ("RMSprop", "Adam", "sign step")) < 0.01, "close to the minimum"
    assert float(jax.grad(landscapes.plateau())(np.float32([4, 3]))[0]) < 2.5e-5


@pytest.mark.slow
def test_the_gan_reaches_the_ring() -> None:
    found = [int(ax.get_title().split(": ")[1].split()[0]) for ax in drawn("gan-samples").axes]
    assert found[0] < found[2] < found[4] >= 7
    assert 3 == found[5] < found[9] >= 9, "even noise finds three"
    start, end = (line(drawn("gan-samples").axes[i], "generated") for i in (0, 4))
    assert np.median(np.hypot(*start.T)) < 1.2 < 1.7 < np.median(np.hypot(*end.T))
    sectors = np.bincount(np.round(np.arctan2(*start[np.hypot(*start.T) > 0.7].T) * 6 / np.pi).astype(int) % 12)
    assert np.sort(sectors)[-3:].sum() > 0.6 * sectors.sum(), "mostly three rays"


@pytest.mark.slow
def test_extragradient_finds_modes_soonest_and_rules_end_about_alike() -> None:
    left, right = drawn("gan-coverage").axes
    rules = ("descent-ascent", "alternating", "optimistic", "extragradient")
    soonest = {name: int(np.argmax(line(left, name)[:, 1] >= 6)) for name in rules}
    assert min(soonest, key=lambda name: soonest[name]) == "extragradient"
    ends = np.array([line(right, name)[-1, 1] for name in rules])
    seeds = np.array([each.get_ydata() for each in right.lines if each.get_marker() == "o"])
    assert seeds.shape == (4, optimization.SEEDS)
    np.testing.assert_allclose(seeds.mean(axis=1), ends, rtol=1e-5)
    assert np.ptp(ends) < np.ptp(seeds, axis=1).mean(), "no more than the seeds of a rule"
    for ax in (left, right):
        told = {text.get_text() for text in ax.get_legend().get_texts()}
        assert told == {f"{name}: {line(ax, name)[-1, 1]:.1f}" for name in rules}, "at the end"


@pytest.mark.slow
def test_basins_of_attraction() -> None:
    left, middle, right = drawn("basins").axes[:3]
    pixels = [next(each for each in ax.collections if isinstance(each, QuadMesh)) for ax in (left, middle)]
    plain, moved = (np.asarray(each.get_array()).reshape(-1) for each in pixels)
    assert len(plain) == len(moved) == 19_600
    assert np.mean(plain != moved) > 0.2, "irregular borders"
    assert (plain < 0).sum() < 10, "a few stop at a saddle"
    assert (moved < 0).any(), "from grey starts it diverges"
    share = float(right.get_title().split("from ")[1].split("%")[0])
    assert 2 < share < 6


def test_the_bilinear_game_circles_outward_and_is_mended() -> None:
    right = drawn("bilinear").axes[1]
    far = {name: line(right, name)[:, 1] for name in ("simultaneous", "alternating", "optimistic", "extragradient")}
    np.testing.assert_allclose(far["simultaneous"], line(right, "√2")[:, 1], rtol=1e-4)
    assert far["simultaneous"][-1] > 10
    assert 1 < far["alternating"].min() < far["alternating"].max() < 2
    assert max(far["optimistic"][-1], far["extragradient"][-1]) < 0.2

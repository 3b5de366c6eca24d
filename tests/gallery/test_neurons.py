"""The pictures of single neurons show what they say: read back from their axes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jaxnn.classic import perceptron
from jaxnn.gallery import neurons
from tests.gallery.reading import drawn


@pytest.mark.slow
def test_learning_counts_the_mistakes_up_to_the_last_pass() -> None:
    fig = drawn("perceptron-learning")
    _, count = fig.axes
    made, bound = count.lines[0].get_ydata(), count.lines[1].get_ydata()[0]
    assert made[0] == 0
    assert 5 < made[-1] <= bound
    last_pass = int(count.lines[2].get_xdata()[0])
    assert (np.diff(made)[last_pass:] == 0).all()
    assert (np.diff(made)[last_pass - 40 : last_pass] > 0).any()


@pytest.mark.slow
def test_problems_are_separable_by_their_gap() -> None:
    for seed, gap in ((0, 0.1), (1, 2.0)):
        x, y, w = neurons.separable_problem(jax.random.key(seed), 100, 4, gap)
        assert (np.asarray(y * (x @ w)) >= gap - 1e-5).all()
        assert set(np.asarray(y).tolist()) == {-1.0, 1.0}
        assert perceptron.fit(x, y).converged


@pytest.mark.slow
def test_no_problem_lies_above_the_bound() -> None:
    axes = drawn("perceptron-bound").axes
    points = np.asarray(axes[0].collections[-1].get_offsets())
    assert len(points) == 1000
    assert (points[:, 1] <= points[:, 0]).all()
    shares = [np.median(each[:, 1] / each[:, 0]) for each in np.array_split(points[points[:, 0].argsort()], 4)]
    assert (np.diff(shares) < 0).all(), "the farther below it, the smaller the margin"
    assert "1,000 of 1,000 converged, 0 over the bound" in axes[0].get_title()


def test_xor_comes_back_to_its_weights() -> None:
    time, plane = drawn("xor-cycle").axes
    assert "drawn slightly apart" in time.get_ylabel()
    for line in time.lines[:3]:
        steps = np.asarray(line.get_ydata())
        assert 0 <= np.abs(steps - np.round(steps)).max() < 0.1
        assert steps[5] == steps[9] == steps[13]
    assert "after 9 steps the weights equal those of step 5" in time.get_title()
    shared = next(line for line in plane.lines if line.get_marker() == "X")
    np.testing.assert_allclose([shared.get_xdata()[0], shared.get_ydata()[0]], 0.5, atol=1e-6)


@pytest.mark.slow
def test_easy_examples_turn_adaline_and_not_logistic_regression() -> None:
    def wrong(ax: Any) -> dict[str, int]:
        words = (line.get_label() for line in ax.lines)
        return {w.split(":")[0]: int(w.split(":")[1].split()[0]) for w in words if ":" in w}

    fig = drawn("linear-units")
    left, right, _ = fig.axes
    fig.canvas.draw()
    for ax in (left, right):
        assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0, "legends cover no line"
    assert wrong(right)["Adaline"] > wrong(left)["Adaline"] + 3
    assert abs(wrong(right)["logistic regression"] - wrong(left)["logistic regression"]) <= 2


@pytest.mark.slow
def test_small_batches_climb_sooner_and_the_batch_goes_on() -> None:
    by_epoch, by_update = drawn("logistic-ascent").axes
    batch, mini, single = (line.get_ydata() for line in by_epoch.lines)
    assert batch[0] == pytest.approx(mini[0]) == pytest.approx(single[0])
    assert single[1] < batch[1]
    assert mini[1] < batch[1]
    assert batch[-1] < batch[-10] < batch[1]
    assert min(batch[-1], mini[-1], single[-1]) > -1e-4  # nothing climbs above the maximum
    assert (np.diff(single[20:]) > 0).any(), "it fluctuates"
    # Right: only losses that occurred, the first after update 1; at the end of each epoch they are those on the left.
    ways = [np.asarray(line.get_xydata()) for line in by_update.lines[:3]]
    for way, left, each in zip(ways, (batch, mini, single), (1, 20, 400), strict=True):
        assert way[0, 0] == 1
        assert way[0, 1] < 1.2 * left[0]
        at = {int(x): y for x, y in way}
        both = [(at[e * each], left[e]) for e in range(1, 31) if e * each in at]
        np.testing.assert_allclose(*np.transpose(both))
        assert len(both) >= 2
    after = [dict(way.tolist()) for way in ways]
    assert after[0][20] < after[1][20] < after[2][20]
    assert by_update.lines[3].get_ydata()[0] == pytest.approx(batch[0])

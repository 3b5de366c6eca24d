"""Figures of a comparison: what is drawn is what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest

from jaxnn.plots import bench, figure


def test_bands_are_medians_and_quartiles_and_end_where_runs_do() -> None:
    _, ax = figure()
    values = np.array([[5.0, 1.0, 1.0], [1.0, 2.0, np.nan], [2.0, 3.0, np.nan], [4.0, np.nan, np.nan], [3.0, 4.0, 2.0]])
    bench.bands(ax, {"a": values, "b": values + 1})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3.0, 3.0, np.nan])
    low, high = (band(ax.collections[0].get_paths()[0].vertices[:, 1]) for band in (min, max))
    assert (low, high) == (2.0, 4.0)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(looks) == 2
    with pytest.raises(ValueError, match=r"expected values \(R, E\) of 'a', got shape \(3,\)"):
        bench.bands(ax, {"a": np.ones(3)})


def test_every_line_differs_in_more_than_colour() -> None:
    styles = [bench.line_style(i) for i in range(16)]
    assert len({str(style) for style in styles}) == 16
    first = styles[:8]
    for name in ("color", "linestyle", "marker"):
        assert len({str(style[name]) for style in first}) == 8


def test_divergence_is_a_cross_above_and_the_choice_has_a_ring() -> None:
    _, ax = figure()
    bench.sensitivity(ax, [0.1, 1.0, 10.0], {"sgd": [2.0, 1.0, np.inf], "adam": [3.0, 2.0, 1.5]}, {"sgd": 1.0})
    curve, ring, crosses = ax.lines[:3]
    np.testing.assert_array_equal(curve.get_ydata(), [2.0, 1.0, np.nan])
    assert (float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) == (1.0, 1.0)
    np.testing.assert_array_equal(crosses.get_xdata(), [10.0])
    assert len(ax.texts) == 1  # one cliff


def test_a_profile_is_the_share_of_problems_within_a_factor_of_the_best() -> None:
    _, ax = figure()
    bench.profile(ax, {"a": [1.0, 3.0, np.inf], "b": [2.0, 1.0, np.inf]}, most=4.0)
    for line, (first, second) in zip(ax.lines, ((1, 3), (2, 1)), strict=True):
        taus, share = line.get_xdata(), line.get_ydata()
        expected = ((taus >= first / 1).astype(float) + (taus >= second / 1)) / 3
        np.testing.assert_allclose(share[1:-1], expected[1:-1])
    _, none = figure()
    bench.profile(none, {"a": [np.inf, np.inf], "b": [np.inf, 1.0]})
    assert [line.get_ydata().max() for line in none.lines] == [0.0, 0.5]
    with pytest.raises(ValueError, match=r"the same number of problems, got \[1, 2\]"):
        bench.profile(ax, {"a": [1.0], "b": [1.0, 2.0]})


def test_bars_stand_under_each_other_with_their_numbers() -> None:
    _, ax = figure()
    bench.bars(ax, {"sgd": 1.25, "adam": 300.0}, unit="ms")
    assert [text.get_text() for text in ax.texts] == [" 1.25", " 300"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sgd", "adam"]
    assert ax.get_xlim()[1] > 300

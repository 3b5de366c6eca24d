"""The pictures of functions of one and two variables: each is drawn, and shows what its caption says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from jaxnn.classic import stationary
from jaxnn.gallery import functions, surfaces
from tests.gallery.reading import drawn, line


def marks(ax: Any) -> list[tuple[str, float, float]]:
    """(kind, x, y) of the stationary points that are marked, from left to right."""
    of_marker = {marker: kind for kind, (marker, _) in surfaces.MARKS.items()}
    found = [(of_marker[each.get_marker()], *each.get_xydata()[0]) for each in ax.lines
             if each.get_marker() in of_marker and len(each.get_xydata())]  # fmt: skip
    return sorted(found, key=lambda each: each[1])


@pytest.mark.slow
def test_kinds_by_the_sign_of_the_derivative() -> None:
    axes = np.reshape(drawn("turning-points").axes, (2, 3))
    kinds = [[kind for kind, *_ in marks(ax)] for ax in axes[0]]
    # The handles of the legend are on the first axes, without points.
    assert kinds == [["maximum", "inflection", "minimum"], ["minimum", "maximum"], ["degenerate"]]
    for above, below in axes.T:
        (x, y), slope = above.lines[0].get_xydata().T, below.lines[0].get_xydata()[:, 1]
        for kind, at, height in marks(above):
            np.testing.assert_allclose(np.interp(at, x, y), height, atol=0.01)
            signs = tuple(np.sign(np.interp(at + side * 0.2, x, slope)) for side in (-1, 1))
            allowed = {"minimum": [(-1, 1)], "maximum": [(1, -1)], "inflection": [(1, 1), (-1, -1)],
                       "degenerate": [(0, 0)]}  # fmt: skip
            assert signs in allowed[kind]
    flat = stationary.in_interval(functions.CURVES["$x^4 e^{-x}$"][0], -0.9, 9.0)[0]
    assert (flat.kind, float(flat.x), float(flat.curvatures[0])) == (
        "minimum", pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-12),
    )  # fmt: skip


@pytest.mark.slow
def test_regimes_of_descent_in_one_variable() -> None:
    axes = drawn("descent-one-variable").axes
    far = {name.partition(":")[0]: line(axes[-1], name)[:, 1] for name in functions.REGIMES}
    for name, rate in (("too small", 0.02), ("good", 0.3), ("oscillating", 0.95), ("diverging", 1.03)):
        np.testing.assert_allclose(far[name][1:] / far[name][:-1], abs(1 - 2 * rate), rtol=1e-3)
    signed = line(axes[2], "oscillating")[:, 0]
    assert np.all(signed[1:] * signed[:-1] < 0)
    ends = line(axes[4], "sign rule")[:, 0]
    np.testing.assert_allclose(np.abs(np.diff(ends)), 0.4, rtol=1e-5)
    np.testing.assert_allclose(ends[-6:], np.tile([0.1, -0.3], 3), atol=1e-5)
    for ax, name in zip(axes, functions.REGIMES, strict=False):
        assert f"{line(ax, name)[-1, 0]:.2g}" == ax.get_title().split("= ")[-1]


@pytest.mark.slow
def test_only_the_ball_with_the_most_momentum_leaves_the_shallow_basin() -> None:
    fig, runs = drawn("ball-momentum"), functions.balls()
    shallow, top, deep = stationary.in_interval(functions.basin, -2, 3)
    assert (shallow.kind, top.kind, deep.kind) == ("minimum", "maximum", "minimum")
    np.testing.assert_allclose([float(p.x) for p in (shallow, top, deep)], [-1, 0, 2], atol=1e-9)
    assert deep.value < shallow.value
    assert [round(float(way[-1]), 2) for way in runs.values()] == [-1, -1, 2]
    assert runs[0.0].max() < -0.99, "without momentum it does not pass the minimum"
    assert -1 + 0.3 < runs[0.8].max() < 0, "it runs up the far side and rolls back"
    assert [ax.get_title().rpartition("= ")[2] for ax in fig.axes[:3]] == ["-1", "-1", "2"]


@pytest.mark.slow
def test_no_direction_rises_more_than_the_gradient() -> None:
    fig = drawn("steepest-ascent")
    right = fig.axes[2]
    fig.canvas.draw()
    assert right.get_legend().get_window_extent().y1 < right.get_window_extent().y0, "the legend covers no line"
    degrees, rise = line(right, "change").T
    cosine = line(right, "$|")[:, 1]
    assert len(degrees) == 360
    np.testing.assert_allclose(rise, cosine, atol=0.01 * cosine.max())
    angle = float(re.search(r"= ([\d.]+)°", next(
        each.get_label() for each in right.lines if str(each.get_label()).startswith("gradient")))[1])  # fmt: skip
    assert abs(degrees[np.argmax(rise)] - angle) <= 0.5
    assert abs(degrees[np.argmin(rise)] - (angle - 180) % 360) <= 0.5
    across = rise[[round(angle + 90) % 360, round(angle - 90) % 360]]
    assert np.abs(across).max() < 0.02 * rise.max()


@pytest.mark.slow
def test_eigenvalues_tell_the_kind() -> None:
    axes = drawn("stationary-kinds").axes
    below = [ax for ax in axes if "eigenvalues" in ax.get_title()]
    assert [ax.get_title() for ax in below] == [
        "minimum: eigenvalues 2, 6", "maximum: eigenvalues -6, -2", "saddle: eigenvalues -2, 2",
        "degenerate: eigenvalues 0, 0",
    ]  # fmt: skip
    monkey = stationary.around(list(surfaces.SURFACES.values())[3], [0.0, 0.0], radius=0.5, n=359).changes < 0
    assert np.sum(monkey & ~np.roll(monkey, 1)) == 3, "three valleys"


@pytest.mark.slow
def test_saddles_and_how_long_descent_stays() -> None:
    left, middle, right = drawn("saddle-points").axes[:3]
    ways = [line(middle, f"{offset:g}") for offset in surfaces.OFFSETS]
    bent = [np.abs(way).min(axis=1).max() for way in ways]
    assert [gap < 0.02 for gap in bent] == [True, True, True, False], "along the axes, so that three look like one"
    kinds = [kind for kind, *_ in marks(left)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"minimum": 4, "saddle": 4, "maximum": 1}
    far = {offset: line(right, f"$x_2$ = {offset:g}")[:, 1] for offset in surfaces.OFFSETS}
    assert far[0.0][-1] < 1e-8
    assert far[1e-8].min() < 1e-3, "it first comes near"
    leaves = {offset: int(np.argmax(way[20:] > 5)) for offset, way in far.items() if offset}
    assert leaves[1e-8] - leaves[1e-4] == pytest.approx(np.log(1e4) / np.log(1.1), abs=1)
    assert round(np.log(1e4) / np.log(1.1)) == 97
    for ways in surfaces.escapes().items():
        offset, way = ways
        np.testing.assert_allclose(way[:50, 1], offset * 1.1 ** np.arange(50), rtol=1e-4)


@pytest.mark.slow
def test_the_mean_of_the_examples_gradients_is_the_gradient() -> None:
    found = surfaces.line()
    np.testing.assert_allclose(found.gradients.mean(axis=0), found.mean, rtol=1e-5)
    angles = np.degrees(np.arctan2(*found.gradients.T[::-1]))
    assert angles.max() - angles.min() > 180, "each points its own way"
    left, _, right = drawn("examples-gradients").axes
    updates = [len(line(left, name)) - 1 for name in ("stochastic", "batch")]
    assert left.get_title() == "{} stochastic and {} batch updates".format(*updates)
    batch, stochastic = line(right, "batch"), line(right, "stochastic")
    assert (len(batch), len(stochastic)) == (3, 41)
    n = surfaces.LINE_N
    assert batch[1, 0] == n
    assert stochastic[n, 1] < batch[1, 1] / 10, "far nearer after the first pass"
    turns = [np.abs(np.diff(np.unwrap(np.arctan2(*np.diff(way[: n + 1], axis=0).T)))) for way in
             (found.batch, found.stochastic)]  # fmt: skip
    assert turns[0].max() < 0.1 < 1 < turns[1].max(), "smoothly, and wandering"
    np.testing.assert_allclose(found.place.minimum_value, found.values[1].min(), atol=1e-3)


@pytest.mark.slow
def test_orders_of_differences_and_what_a_wrong_rule_shows() -> None:
    steps = functions.STEPS
    errors = functions.quotient_errors("float64")
    order = {name: np.polyfit(np.log(steps[8:24]), np.log(e[8:24]), 1)[0] for name, e in errors.items()}
    assert order == {"one-sided": pytest.approx(1, abs=0.05), "central": pytest.approx(2, abs=0.15),
                     "complex step": pytest.approx(2, abs=0.05)}  # fmt: skip
    tail = steps < 1e-9
    assert errors["complex step"][tail].max() < 1e-15
    grown = (steps < 1e-9) & (steps > 1e-14)
    assert np.polyfit(np.log(steps[grown]), np.log(errors["central"][grown]), 1)[0] == pytest.approx(-1, abs=0.2)
    right, wrong = functions.rule_errors().values()
    assert right.min() < 1e-10
    assert wrong.min() > 0.3


@pytest.mark.slow
def test_of_all_settings_ten_compute_xor() -> None:
    mistakes, found = functions.enumerated()
    assert (found.settings, found.ties, mistakes[0]) == (19_683, 10, 10)
    fig = drawn("brute-force")
    left, middle, right = fig.axes
    fig.canvas.draw()
    names = [Text.get_window_extent(each) for each in right.texts]
    for name in names:
        assert not any(name.count_contains(right.transData.transform(each.get_xydata())) for each in right.lines[:3])
        assert name.count_overlaps(names) == 1, "names cover neither lines nor each other"
    assert [bar.get_height() for bar in left.patches] == mistakes.tolist()
    shown = {(int(t.xy[0]), int(t.xy[1])): t.get_text() for t in middle.texts}
    assert shown == {(0, 0): "0", (0, 1): "1", (1, 0): "1", (1, 1): "0"}
    settings = {size: 3**size for size in functions.SIZES.values()}
    assert len(str(settings[650])) == 311
    growth = line(right, "3 values")
    np.testing.assert_allclose(2 / np.diff(growth[:, 1]).mean() * 0.5, 2.1, rtol=0.01)  # weights for a digit more
    assert pytest.approx(3.17, abs=0.01) == 1e17 / 1e9 / (365.25 * 24 * 3600)

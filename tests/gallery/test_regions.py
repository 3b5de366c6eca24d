"""The pictures of decision regions show what they say: numbers and colours are read back from the axes."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import pytest
from scipy.spatial import Delaunay

from jaxnn import plots
from jaxnn.classic import boolean, logistic, separability
from jaxnn.classic.neurons import with_bias
from jaxnn.gallery import regions
from jaxnn.plots.regions import TINT
from tests.gallery.reading import drawn

BY_NAME = {picture.name: picture for picture in regions.PICTURES}


def classes(ax: Any, count: int = 3) -> np.ndarray:
    """The class of each pixel, by its colour, rows from below."""
    tints = np.array([TINT * np.array(matplotlib.colors.to_rgb(c)) + 1 - TINT for c in plots.COLOURS[:count]])
    return np.square(np.asarray(ax.images[0].get_array())[:, :, None] - tints).sum(-1).argmin(-1)


def at(ax: Any, points: Any) -> np.ndarray:
    """The class of the pixels at points (N, 2)."""
    pixels, (left, right, low, high) = classes(ax), ax.images[0].get_extent()
    columns, rows = ((np.asarray(points) - [left, low]) / [right - left, high - low] * pixels.shape[::-1]).astype(int).T
    return pixels[rows, columns]


def border(ax: Any) -> np.ndarray:
    """The points of the lines between classes, (P, 2)."""
    return np.concatenate([p.vertices for c in ax.collections if hasattr(c, "levels") for p in c.get_paths()])


def off_a_line(points: np.ndarray) -> float:
    """The largest distance of points from their best straight line."""
    centred = points - points.mean(0)
    return float(np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2][1]).max())


def share(title: str) -> float:
    return float(re.search(r"([\d.]+)%", title)[1])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_pictures_have_titles_and_labels(name: str, tmp_path: Any) -> None:
    fig = drawn(name)
    assert fig.get_suptitle()
    assert all(ax.get_title() for ax in fig.axes)
    assert fig.axes[0].get_ylabel()
    assert fig.axes[-1].get_xlabel()
    assert plots.save(fig, tmp_path / f"{name}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_or_and_and_are_separated_and_xor_is_not() -> None:
    axes = np.reshape(drawn("or-and-xor").axes, (2, 3))
    tables = [boolean.parse(formula).table for formula in ("A + B", "AB", "A ^ B")]
    for row, x in zip(axes, (2 * boolean.inputs(2) - 1, boolean.inputs(2)), strict=True):
        for ax, table, right in zip(row, tables, (4, 4, 3), strict=True):
            fires = at(ax, x) == 1
            assert (fires == table).sum() == right
            assert f": {right} of 4 by" in ax.get_title()
            filled = [line.get_markerfacecolor() == "black" for line in ax.lines if line.get_marker() == "o"]
            np.testing.assert_array_equal(filled, table)
            assert off_a_line(border(ax)) < 0.02
            crosses = np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == "x"])
            np.testing.assert_array_equal(crosses, x[fires != table])
            # The condition in the title is that of the region.
            told = ax.get_title().split(" by ")[1].removesuffix(" ≥ 0")
            np.testing.assert_array_equal(eval(told, {"A": x[:, 0], "B": x[:, 1]}) >= 0, fires)
    found = separability.boolean_functions(2)
    agree = (found.tables == tables[2]).sum(1)
    assert agree[found.separable].max() == 3, "at most 3 of 4 right"


@pytest.mark.slow
def test_the_cliff_is_moved_turned_and_steepened() -> None:
    axes = drawn("sigmoid-cliff").axes
    for ax in axes:
        assert min(ax.get_xticks()) > ax.get_xlim()[0], "none in the corner, where those of two axes run together"
        assert min(ax.get_yticks()) > ax.get_ylim()[0]
    expected = (("a unit", 0, 0, 0.5), ("moved", 1.5, 0, 0.5), ("turned", 0, 60, 0.5), ("steepened", 0, 0, 1.5))
    for ax, (name, away, turn, slope), (w, b) in zip(axes, expected, regions.CLIFF.values(), strict=True):
        assert ax.get_title().startswith(name)
        assert ax.get_title().endswith(f"slope {slope:.2f}")
        size = np.hypot(*w)
        assert abs(b) / size == pytest.approx(away)
        assert np.degrees(np.arctan2(w[1], w[0])) == pytest.approx(turn, abs=1e-4)
        assert size / 4 == pytest.approx(slope)
        x = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, (500, 2)))
        y = regions.sigmoid_unit(w, b)(x)
        slopes = np.linalg.norm(jax.vmap(jax.grad(regions.sigmoid_unit(w, b)))(x), axis=1)
        np.testing.assert_allclose(slopes, size * y * (1 - y), rtol=1e-4, atol=1e-6)
        assert (slopes <= slope + 1e-6).all()
        low, high = ax.get_zlim()
        assert low < -0.3 < 0.9 < high < 1.05


@pytest.mark.slow
def test_three_classes_meet_in_one_point() -> None:
    fig = drawn("softmax-regions")
    left, middle, solid = fig.axes
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert [name.partition(":")[0] for name in names] == ["class 1", "class 2", "class 3"], "points, by their class"
    x, y, w = (np.asarray(a) for a in regions.softmax_problem())
    meeting = regions.meeting_point(w)
    star = next(line for line in left.lines if line.get_marker() == "*").get_xydata()[0]
    np.testing.assert_allclose(star, meeting, atol=1e-6)
    np.testing.assert_allclose(logistic.softmax_probability(w, with_bias(meeting)), 1 / 3, atol=1e-5)
    assert "star: 0.333 each" in middle.get_title()
    outputs = np.asarray(with_bias(x) @ w)
    assert share(left.get_title()) == pytest.approx(100 * np.mean(outputs.argmax(1) != y), abs=0.05)
    assert (at(left, x) != outputs.argmax(1)).sum() <= 1, "an example within a pixel of a border"
    for k in range(3):
        other = np.abs(border(left) - meeting).sum(1) > 0.1
        points = border(left)[other]
        near = np.asarray(with_bias(points) @ w)
        mine = np.argsort(near, axis=1)[:, 0] == k
        assert mine.sum() > 20
        assert off_a_line(points[mine]) < 0.02, "straight, on one side of the meeting point"
    away = np.sort(np.asarray(with_bias(left.get_xlim()[0] * np.array([[1, 0.5]]))) @ w)[0]
    assert jax.nn.softmax(away).max() > 0.99
    assert solid.name == "3d"


@pytest.mark.slow
def test_layers_separate_what_is_said() -> None:
    axes = np.reshape(drawn("layers-and-regions").axes, (3, 3))
    told = [[share(ax.get_title()) for ax in row[:2]] for row in axes]
    assert told[0][0] < 80 < told[1][0] == told[2][0] == 100, "XOR: two layers suffice"
    assert told[0][1] < told[1][1] < 100 == told[2][1], "meshed: three are needed"
    for k, problem in enumerate((regions.xor_problem(), regions.meshed_problem())):
        for ax in axes[:, k]:
            right = np.mean(at(ax, problem.x) == problem.y)
            assert share(ax.get_title()) == pytest.approx(100 * right, abs=0.5)  # pixels may cross the border
    assert "XOR: 100.0% right, 3 units" in axes[1, 0].get_title()
    x = regions.meshed_problem()
    middle = x.x[x.y == 1].mean(0)
    assert not any(regions._inside(middle[None], *part)[0] for part in x.parts), "the C is not convex"
    assert off_a_line(border(axes[0, 0])) < 0.03
    counts = [np.bincount(classes(ax).ravel(), minlength=3) for ax in axes[:, 2]]
    assert [(each > 0).sum() for each in counts] == [2, 3, 2]
    edges = classes(axes[1, 2])[[0, -1]], classes(axes[1, 2])[:, [0, -1]]
    touched = set(np.unique(np.concatenate([edge.ravel() for edge in edges])))
    assert touched == {0, 1}, "the open region reaches the border of the plot, the closed one does not"
    ring = classes(axes[2, 2])
    n = len(ring)
    assert [ring[n // 2, n // 2], ring[n // 2, n // 2 + n // 5], ring[n // 2, n // 2 + n * 7 // 20]] == [1, 0, 1]


@pytest.mark.slow
def test_no_convex_region_separates_the_meshed_classes() -> None:
    """A point of one class lies in the convex hull of the other, both ways."""
    problem = regions.meshed_problem()
    for label in (0, 1):
        hull = Delaunay(problem.x[problem.y == label])
        assert (hull.find_simplex(problem.x[problem.y != label]) >= 0).any()


@pytest.mark.slow
def test_linear_layers_stay_linear() -> None:
    one, eight, bent = drawn("linear-layers").axes
    assert off_a_line(border(one)) < 1e-3
    assert off_a_line(border(eight)) < 1e-3
    assert off_a_line(border(bent)) > 0.3
    wrong = [share(ax.get_title()) for ax in (one, eight, bent)]
    assert abs(wrong[0] - wrong[1]) <= 2
    assert wrong[2] < 1 < 10 < wrong[0]
    assert float(eight.get_title().split("differ by ")[1].removesuffix(")")) < 1e-4


def test_the_product_of_linear_layers_is_one_layer() -> None:
    for name, net in regions.deep_nets().items():
        params, _ = net.init(jax.random.key(0), (2,))
        x = np.random.default_rng(0).standard_normal((50, 2))
        if "linear" in name:
            w, b = regions.collapsed(params)
            np.testing.assert_allclose(net.predict(params, (), x), x @ w + b, rtol=1e-5, atol=1e-4)
            assert len(params) == int(name.split()[0])


def test_conditions_are_written() -> None:
    unit = regions.gates.unit
    assert regions.condition(unit([-1, 2], 0.5)) == "-A + 2B + 0.5 ≥ 0"
    assert regions.condition(unit([0, 1], -0.5)) == "B - 0.5 ≥ 0"
    assert regions.condition(unit([0, 0], -0.5)) == "-0.5 ≥ 0"
    assert regions.condition(unit([1, -1], 0)) == "A - B ≥ 0"

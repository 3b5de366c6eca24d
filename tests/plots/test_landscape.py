"""Landscape figures: what they show can be read back from their axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import landscapes, optim, plots, train
from jaxnn.plots import landscape as view

SADDLE = landscapes.saddle()
HIMMELBLAU = landscapes.himmelblau()


def test_the_lattice_has_x_along_columns_and_y_from_below() -> None:
    points = view.lattice(SADDLE, 5, bounds=((0.0, 4.0), (-1.0, 1.0)))
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[3, 1], [1.0, 0.5])
    np.testing.assert_allclose(view.lattice(SADDLE, 3)[[0, -1], [0, -1]], [[-2, -2], [2, 2]])


def test_contours_fill_the_bounds_and_mark_the_minima() -> None:
    _, ax = plots.figure()
    view.contours(ax, HIMMELBLAU)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-6, 6), (-6, 6))
    stars = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(stars, HIMMELBLAU.minima)
    _, ax = plots.figure()
    view.contours(ax, SADDLE, bounds=((0.0, 1.0), (0.0, 0.5)), levels=5)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 0.5))
    assert not ax.lines


def test_contour_lines_are_lines_of_equal_height() -> None:
    _, ax = plots.figure()
    view.contours(ax, SADDLE, levels=6)
    lines = ax.collections[-1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        heights = path.vertices[:, 0] ** 2 - path.vertices[:, 1] ** 2
        np.testing.assert_allclose(heights, level, atol=0.01)
    assert len(lines.levels) >= 6


def test_trajectories_show_every_run_from_its_start() -> None:
    runs = {"a": np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 9.0]]), "b": np.array([[1.0, -1.0], [900.0, 0.0]])}
    ax = view.trajectories(HIMMELBLAU, runs, title="two").axes[0]
    assert ax.get_title() == "two"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    named = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(named["a"].get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(named["b"].get_xydata(), runs["b"])
    assert ax.get_xlim() == (-6, 6), "a run that leaves the picture does not widen it"
    assert named["a"].get_color() != named["b"].get_color()
    assert view.trajectories(HIMMELBLAU, runs).axes[0].get_title() == "Himmelblau"


def test_basins_colour_each_start_by_its_minimum() -> None:
    reached = np.array([[0, 1, 2], [3, -1, 0], [1, 1, 1]])
    _, ax = plots.figure()
    view.basins(ax, HIMMELBLAU, reached)
    mesh = ax.collections[0]
    colours = mesh.to_rgba(mesh.get_array()).reshape(3, 3, -1)[..., :3]
    for index, colour in {0: plots.COLOURS[0], 3: plots.COLOURS[3], -1: view.NOWHERE}.items():
        expected = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        np.testing.assert_allclose(colours[reached == index], np.tile(expected, ((reached == index).sum(), 1)))
    assert (ax.get_xlim(), ax.get_ylim()) == ((-6, 6), (-6, 6))


def test_depths_hold_the_values_and_hide_what_is_not_finite() -> None:
    values = np.arange(16.0).reshape(4, 4)
    values[0, 0] = np.inf
    _, ax = plots.figure()
    shown = view.depths(ax, landscapes.schwefel(), values).get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), ~np.isfinite(values))
    np.testing.assert_array_equal(shown.compressed(), np.arange(1.0, 16.0))


THREE = landscapes.rosenbrock(dimensions=3)
BAD: list[tuple[str, Callable[[Any], Any]]] = [
    ("expected a landscape of 2 dimensions, got Rosenbrock of 3", lambda ax: view.contours(ax, THREE)),
    (r"expected points \(T, 2\) of 'a', got \(4,\)", lambda ax: view.paths(ax, {"a": np.zeros(4)})),
    (r"expected \(n, n\) indices, got \(2, 3\)", lambda ax: view.basins(ax, HIMMELBLAU, np.zeros((2, 3), int))),
    (r"indices -1 \.\. 3 .* of Himmelblau, got 4 to 4", lambda ax: view.basins(ax, HIMMELBLAU, np.full((2, 2), 4))),
]


@pytest.mark.parametrize(("text", "call"), BAD)
def test_bad_input_is_named(text: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=text):
        call(plots.figure()[1])


def test_a_function_is_no_landscape() -> None:
    with pytest.raises(TypeError, match=r"got <function .* landscapes\.make_landscape makes one"):
        view.contours(plots.figure()[1], lambda x: x @ x)


def own_landscape(shift: float) -> landscapes.Landscape:
    """The squared error of a line on 20 examples, NumPy float64 data in the closure, with a loop of JAX inside."""
    x = np.linspace(0, 1, 20)
    y = 2 * x + 1 + shift

    def f(p: Any) -> Any:
        value = jnp.mean((p[0] * x + p[1] - y) ** 2)
        value = jax.lax.fori_loop(0, 2, lambda i, v: v + 0 * p[0] * jnp.sum(x * y), value)
        return jax.lax.cond(value < 0, lambda v: v + 1, lambda v: v, value)

    fields = {"name": "mine", "start": np.zeros(2), "bounds": (-3.0, 3.0), "minima": np.array([[2.0, 1.0 + shift]])}
    return landscapes.Landscape(function=f, minimum_value=0.0, saddle_points=np.zeros((0, 2)), **fields)  # type: ignore[arg-type]


@pytest.mark.slow
def test_ones_own_landscape_over_numpy_data_is_drawn_after_a_run_and_before() -> None:
    def run(place: landscapes.Landscape) -> Any:
        return train.trajectory(place, optim.sgd(0.3), jnp.zeros(2), steps=30)

    first, second = own_landscape(0.0), own_landscape(0.5)
    after = view.trajectories(first, {"descent": run(first).x})
    assert after.axes[0].get_title() == "mine"
    view.trajectories(second, {"nothing": np.zeros((1, 2))})
    assert run(second).x.dtype == np.float32
    lines = after.axes[0].collections[-1]
    x = np.linspace(0, 1, 20)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        p = path.vertices
        heights = np.mean((p[:, :1] * x + p[:, 1:] - (2 * x + 1)) ** 2, axis=1)
        np.testing.assert_allclose(heights, level, rtol=0.02, atol=1e-3)

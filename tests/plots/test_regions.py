"""Decision regions: classes, colours and borders can be read back from what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import pytest

from jaxnn import plots
from jaxnn.classic import gates, threshold
from jaxnn.plots.regions import CHUNK, TINT

SOLID = {"subplot_kw": {"projection": "3d"}}
W = np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
"""Three outputs w_k.x whose regions are the sectors of a plane."""


def tint(k: int) -> np.ndarray:
    return TINT * np.array(matplotlib.colors.to_rgb(plots.COLOURS[k])) + 1 - TINT


def borders(ax: Any) -> np.ndarray:
    """All points of the lines between classes, (P, 2)."""
    found = [path.vertices for lines in ax.collections for path in lines.get_paths() if hasattr(lines, "levels")]
    return np.concatenate(found)


def of_sums(x: np.ndarray) -> np.ndarray:
    return x[:, 0] + 2 * x[:, 1]


PREDICTORS: dict[str, tuple[Callable[[np.ndarray], Any], float, Callable[[np.ndarray], np.ndarray]]] = {
    "a score": (of_sums, 0.25, lambda x: of_sums(x) >= 0.25),
    "a column": (lambda x: of_sums(x)[:, None], 0.25, lambda x: of_sums(x) >= 0.25),
    "bfloat16": (lambda x: jnp.asarray(x[:, 0], jnp.bfloat16), 0.0, lambda x: x[:, 0] >= 0),
    "several outputs": (lambda x: x @ W, 0.5, lambda x: (x @ W).argmax(1)),
    "classes": (lambda x: (x > 0).sum(1), 0.5, lambda x: (x > 0).sum(1)),
    "truth values": (lambda x: x[:, 0] > 0, 0.5, lambda x: x[:, 0] > 0),
    "a network": (gates.unit([1.0, 2.0], -0.25), 0.5, lambda x: of_sums(x) >= 0.25),
    "signs": (threshold.bipolar(gates.unit([1, 1], -1)), 0.0, lambda x: x.sum(1) >= 0),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_point_has_the_colour_of_its_class(name: str) -> None:
    predict, level, expected = PREDICTORS[name]
    _, ax = plots.figure()
    drawn = plots.regions(ax, predict, threshold=level, bounds=((-2.0, 1.0), (-1.0, 3.0)), n=30)
    assert drawn.points.shape == (30, 30, 2)
    np.testing.assert_allclose(drawn.points[[0, 0, -1], [0, -1, 0]], [[-2, -1], [1, -1], [-2, 3]])
    classes = expected(drawn.points.reshape(-1, 2)).astype(int).reshape(30, 30)
    np.testing.assert_array_equal(drawn.classes, classes)
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), np.stack([tint(k) for k in range(3)])[classes])
    left, right, low, high = image.get_extent()
    step = np.array([3, 4]) / 29
    np.testing.assert_allclose([left, low], [-2, -1] - step / 2, rtol=1e-5)
    np.testing.assert_allclose([right, high], [1, 3] + step / 2, rtol=1e-5)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 1), (-1, 3))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("$x_1$", "$x_2$", "auto")


def test_borders_lie_where_two_outputs_are_largest() -> None:
    _, ax = plots.figure()
    plots.regions(ax, lambda x: x @ W, n=101)
    outputs = np.sort(borders(ax) @ W, axis=1)
    assert len(outputs) > 100
    np.testing.assert_allclose(outputs[:, -1], outputs[:, -2], atol=0.02)
    pairs = {tuple(sorted(np.argsort(row)[-2:])) for row in borders(ax) @ W}
    assert pairs == {(0, 1), (0, 2), (1, 2)}, "each pair of classes has a border"


def test_the_border_of_a_score_is_its_threshold() -> None:
    _, ax = plots.figure()
    plots.regions(ax, of_sums, threshold=0.25, n=50)
    np.testing.assert_allclose(of_sums(borders(ax)), 0.25, atol=1e-6)
    _, ax = plots.figure()
    plots.regions(ax, lambda x: of_sums(x) + 99, n=10)
    assert not ax.collections, "one class, no border"


def test_blended_colours_are_means_of_the_tints() -> None:
    _, ax = plots.figure()
    drawn = plots.regions(ax, lambda x: jax.nn.softmax(x @ W), blend=True, n=9)
    np.testing.assert_allclose(drawn.outputs.sum(-1), 1, atol=1e-5)
    expected = sum(drawn.outputs[..., k, None] * tint(k) for k in range(3))
    np.testing.assert_allclose(ax.images[0].get_array(), expected, atol=1e-5)
    _, ax = plots.figure()
    drawn = plots.regions(ax, lambda x: jax.nn.sigmoid(3 * x[:, 0]), blend=True, n=9)
    chance = drawn.outputs[..., None]
    np.testing.assert_allclose(ax.images[0].get_array(), chance * tint(1) + (1 - chance) * tint(0), atol=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [-1, 1, 1, -1], np.array([0, 1, 1, 0], float)])
def test_examples_are_points_with_names_and_set_the_bounds(labels: Any) -> None:
    x = np.array([[0, 0], [0, 10], [20, 0], [20, 10]])
    _, ax = plots.figure()
    drawn = plots.regions(ax, of_sums, examples=(x, labels), names=("low", "high"), n=5)
    np.testing.assert_allclose(drawn.points[[0, -1], [0, -1]], [[-2, -1], [22, 11]])
    low, high = (points for points in ax.collections if points.get_label() in ("low", "high"))
    np.testing.assert_array_equal(low.get_offsets(), x[[0, 3]])
    np.testing.assert_array_equal(high.get_offsets(), x[[1, 2]])
    ax.legend()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["low", "high"]
    assert len({tuple(map(tuple, points.get_paths()[0].vertices[:3])) for points in (low, high)}) == 2, "shapes differ"


def test_names_without_examples_belong_to_colours() -> None:
    for settings in ({}, SOLID):
        _, ax = plots.figure(**settings)
        plots.regions(ax, of_sums, names=("low", "high"), n=5)
        handles, names = ax.get_legend_handles_labels()
        assert names == ["low", "high"]
        np.testing.assert_allclose([matplotlib.colors.to_rgb(h.get_color()) for h in handles], [tint(0), tint(1)])


def test_a_surface_has_the_largest_output_as_height(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ax = plots.figure(**SOLID)
    surfaces, draw = [], ax.plot_surface

    def seen(x: Any, y: Any, z: Any, **settings: Any) -> Any:
        surfaces.append((np.stack([x, y], -1), z, settings["facecolors"]))
        return draw(x, y, z, **settings)

    monkeypatch.setattr(ax, "plot_surface", seen)
    drawn = plots.regions(ax, lambda x: x @ W, n=11)
    assert ax.get_zlabel() == "output"
    ((points, heights, colours),) = surfaces
    np.testing.assert_allclose(heights, (points @ W).max(-1), atol=1e-6)
    np.testing.assert_allclose(colours, np.stack([tint(k) for k in range(3)])[drawn.classes])
    low, high = ax.get_zlim()
    assert low < drawn.outputs.max(-1).min() - 0.3 * (high - low), "the floor lies beneath"
    plane = plots.figure()[1]
    flat = plots.regions(plane, lambda x: x @ W, n=11)
    np.testing.assert_array_equal(flat.classes, drawn.classes)


def test_predict_gets_chunks_of_one_size() -> None:
    sizes = []

    def predict(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return of_sums(x)

    drawn = plots.regions(plots.figure()[1], predict, n=131)
    assert drawn.outputs.shape == (131, 131)
    assert len(sizes) == 3
    assert len(set(sizes)) == 1
    assert sizes[0] <= CHUNK
    np.testing.assert_allclose(drawn.outputs, of_sums(drawn.points.reshape(-1, 2)).reshape(131, 131), rtol=1e-6)


def test_points_without_a_class_are_grey() -> None:
    _, ax = plots.figure()
    drawn = plots.regions(ax, lambda x: np.where(x[:, :1] > 0.5, np.nan, x @ W), n=9)
    nowhere = drawn.points[..., 0] > 0.5
    assert (drawn.classes[nowhere] == -1).all()
    assert (drawn.classes[~nowhere] >= 0).all()
    grey = np.array(matplotlib.colors.to_rgb(plots.landscape.NOWHERE))
    np.testing.assert_allclose(ax.images[0].get_array()[nowhere], np.tile(grey, (nowhere.sum(), 1)))


X = np.zeros((2, 2))
BAD: list[tuple[str, Callable[[Any], Any]]] = [
    (r"one row per point, \(25,\) or \(25, K\) .* got shape \(\)", lambda ax: plots.regions(ax, lambda x: 1.0, n=5)),
    (r"got shape \(2,\)", lambda ax: plots.regions(ax, lambda x: np.zeros(2), n=5)),
    (r"got shape \(25, 0\)", lambda ax: plots.regions(ax, lambda x: np.zeros((25, 0)), n=5)),
    ("integer outputs are classes 0 .. K - 1, got -1", lambda ax: plots.regions(ax, lambda x: -np.ones(25, int), n=5)),
    ("blend needs probabilities", lambda ax: plots.regions(ax, lambda x: 2 + x[:, 0], n=5, blend=True)),
    ("blend needs probabilities", lambda ax: plots.regions(ax, lambda x: x > 0, n=5, blend=True)),
    ("one name per class, 3, got 2", lambda ax: plots.regions(ax, lambda x: x @ W, n=5, names="ab")),
    ("9 classes need as many colours, got 8", lambda ax: plots.regions(ax, lambda x: np.zeros((25, 9)), n=5)),
    (r"low < high, got \(\(1, 1\), \(0, 1\)\)", lambda ax: plots.regions(ax, of_sums, bounds=((1, 1), (0, 1)))),
    (r"low < high, got \[-1, 1\]", lambda ax: plots.regions(ax, of_sums, bounds=[-1, 1])),
    ("n must be at least 2, got 1", lambda ax: plots.regions(ax, of_sums, n=1)),
    (r"got shapes \(2, 2\), \(3,\)", lambda ax: plots.regions(ax, of_sums, examples=(X, [0, 1, 1]))),
    ("must be integers, got 0.5", lambda ax: plots.regions(ax, of_sums, examples=(X, [0, 0.5]))),
    (r"0 .. K - 1, or -1 and \+1, got -2", lambda ax: plots.regions(ax, of_sums, examples=(X, [0, -2]))),
    (
        r"predict tells 3 classes, 0 .. 2, apart, got examples of class 3",
        lambda ax: plots.regions(ax, lambda x: x @ W, n=5, examples=(X, [1, 3])),
    ),
    ("predict tells 2 classes", lambda ax: plots.regions(ax, of_sums, n=5, examples=(X, [1, 2]))),
    ("examples must be finite", lambda ax: plots.regions(ax, of_sums, examples=(X + np.nan, [0, 1]))),
]


@pytest.mark.parametrize(("text", "call"), BAD)
def test_bad_input_is_named(text: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=text):
        call(plots.figure()[1])


def test_bad_types_are_named() -> None:
    with pytest.raises(TypeError, match="must return real numbers, got dtype complex"):
        plots.regions(plots.figure()[1], lambda x: x[:, 0] * 1j, n=5)
    with pytest.raises(ValueError, match="examples are drawn on the plane only"):
        plots.regions(plots.figure(**SOLID)[1], of_sums, examples=(X, [0, 1]))


@pytest.mark.parametrize("settings", [{"bounds": ((-np.inf, np.inf), (0, 1))}, {"bounds": ((1e8, 1e8 + 1), (0, 1))}])
def test_bounds_that_are_no_square_in_float32_are_named(settings: Any) -> None:
    with pytest.raises(ValueError, match="in float32"):
        plots.regions(plots.figure()[1], lambda x: x[:, 0], n=5, **settings)
    with pytest.raises(ValueError, match="threshold must be a number"):
        plots.regions(plots.figure()[1], lambda x: x[:, 0], n=5, threshold=np.nan)

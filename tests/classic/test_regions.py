"""Regions of the plane against their geometry."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from jaxnn.classic import regions
from jaxnn.classic.threshold import Network
from tests.classic.nets import run
from tests.helpers import float64, slow

POINTS = np.random.default_rng(0).uniform(-2, 2, (2000, 2))
PENTAGON = regions.regular_polygon(5, turn=0.3)
seeds = st.integers(0, 2**32 - 1)


def fires(network: Network, x: np.ndarray = POINTS) -> np.ndarray:
    net, params = network
    with float64():
        return run(Network(net, jax.tree.map(lambda p: p.astype(float), params)), x) == 1


def in_triangles(vertices: np.ndarray, x: np.ndarray = POINTS) -> np.ndarray:
    """Inside a convex polygon, by another way: in one of the triangles of a fan, by barycentric coordinates."""
    inside = np.zeros(len(x), bool)
    for b, c in itertools.pairwise(vertices[1:]):
        weights = np.linalg.solve(np.stack([b - vertices[0], c - vertices[0]], 1), (x - vertices[0]).T)
        inside |= (weights.min(0) >= 0) & (weights.sum(0) <= 1)
    return inside


def random_polygon(seed: int, corners: int = 9) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(-1.8, 1.8, (corners, 2))
    return points[ConvexHull(points).vertices]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_half_plane_holds_its_border(n: int) -> None:
    x = np.random.default_rng(1).integers(-3, 4, (200, n)).astype(float)
    normal = np.arange(1, n + 1)
    expected = x @ normal - 2 >= 0
    assert (x @ normal == 2).any()
    np.testing.assert_array_equal(fires(regions.half_plane(normal, -2), x), expected)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_convex_polygons_in_either_order(seed: int) -> None:
    with float64():
        vertices = random_polygon(seed)
        expected = in_triangles(vertices)
        network = regions.polygon(vertices)
        assert network.units == len(vertices) + 1
        np.testing.assert_array_equal(fires(network), expected)
        np.testing.assert_array_equal(fires(regions.polygon(vertices[::-1])), expected)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=5)
def test_unions(seed: int) -> None:
    with float64():
        polygons = [random_polygon(seed, 4), random_polygon(seed + 1, 6), 0.3 * PENTAGON]
        network = regions.union(polygons)
        np.testing.assert_array_equal(fires(network), np.any([in_triangles(p) for p in polygons], 0))
        assert network.units == sum(map(len, polygons)) + 3 + 1
        assert network.layers == 3


def test_a_pentagon_and_two_joined_pentagons() -> None:
    with float64():
        other = regions.mirrored(PENTAGON, 2)
        joined = regions.union([PENTAGON, other])
        np.testing.assert_allclose(other[[2, 3]], PENTAGON[[2, 3]], atol=1e-12)  # the side that they share
        assert (regions.polygon(PENTAGON).units, joined.units) == (6, 13)
        np.testing.assert_array_equal(fires(joined), in_triangles(PENTAGON) | in_triangles(other))
        # Not convex: half-way between two far corners lies outside.
        ends = np.array([PENTAGON[1], other[1]])
        assert fires(joined, 0.999 * ends + 0.001 * np.stack([PENTAGON.mean(0), other.mean(0)])).all()
        assert not fires(joined, ends.mean(0, keepdims=True)).any()


def half_spaces(seed: int, count: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, d)), rng.uniform(0, 1, count)


@pytest.mark.parametrize(("count", "d"), [(1, 1), (2, 2), (3, 5), (6, 3)])
def test_polyhedra_in_any_dimension(count: int, d: int) -> None:
    x = np.random.default_rng(1).uniform(-2, 2, (3000, d))
    parts = [half_spaces(seed, count + seed, d) for seed in range(3)]
    with float64():
        inside = [np.all([x @ n + c >= 0 for n, c in zip(*part, strict=True)], axis=0) for part in parts]
        for part, expected in zip(parts, inside, strict=True):
            network = regions.polyhedron(*part)
            assert (network.units, network.layers) == (len(part[1]) + 1, 2)
            np.testing.assert_array_equal(fires(network, x), expected)
            assert expected.any()
        union = regions.polyhedra(parts)
        assert (union.units, union.layers) == (3 * count + 3 + 3 + 1, 3)
        np.testing.assert_array_equal(fires(union, x), np.any(inside, axis=0))


def test_open_regions_have_no_end() -> None:
    wedge = regions.polyhedron([[0, 1], [1, -1]], [0, 0])
    far = 10.0 ** np.arange(0, 30, 3)
    assert fires(wedge, np.stack([far, far / 2], 1)).all()
    assert not fires(wedge, np.stack([far, -far], 1)).any()
    assert not fires(wedge, np.stack([far, 2 * far], 1)).any()
    quadrants = regions.polyhedra([(np.eye(2), [0, 0]), (-np.eye(2), [0, 0])])
    np.testing.assert_array_equal(fires(quadrants), POINTS.prod(1) >= 0)
    empty = regions.polyhedron([[1, 0], [-1, 0]], [-1, -1])
    assert not fires(empty).any()


def test_a_polygon_is_the_polyhedron_of_its_sides() -> None:
    with float64():
        for vertices in (PENTAGON, random_polygon(5)):
            same = regions.polyhedron(*regions.sides(vertices))
            np.testing.assert_array_equal(fires(regions.polygon(vertices)), fires(same))


def test_an_and_with_a_lower_threshold_is_found() -> None:
    with float64():
        net, (half_planes, _, both, _) = regions.polygon(PENTAGON)
        broken = Network(net, (half_planes, (), {**both, "b": both["b"] + 1}, ()))
        assert (fires(broken) != in_triangles(PENTAGON)).mean() > 0.05


def joined_pentagons(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    small = 0.7 * PENTAGON - [0.5, 0]
    points = np.stack([x, y], 1)
    return in_triangles(small, points) | in_triangles(regions.mirrored(small, 4), points)


REGIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: (x - 0.5) ** 2 + (y + 0.2) ** 2 < 1,
    "ring": lambda x, y: abs(np.hypot(x, y) - 1.2) < 0.4,
    "two discs apart": lambda x, y: (abs(x) - 1) ** 2 + y**2 < 0.5,
    "an L": lambda x, y: (np.maximum(abs(x), abs(y)) < 1.2) & ((x < 0) | (y < 0)),
    "joined pentagons": joined_pentagons,
}


@pytest.mark.parametrize("name", ["ring", *slow(*(name for name in REGIONS if name != "ring"))])
def test_any_region_by_one_hidden_layer(name: str) -> None:
    inside = REGIONS[name]
    expected = inside(*POINTS.T)
    network = regions.one_hidden_layer(inside, -2, 2, directions=24, steps=48)
    assert network.layers == 2
    assert network.units - 1 == 24 * 47
    wrong = (fires(network) != expected).mean()
    assert wrong < 0.03 < 0.1 < min(expected.mean(), 1 - expected.mean())
    coarse = regions.one_hidden_layer(inside, -2, 2, directions=6, steps=12)
    assert wrong < (fires(coarse) != expected).mean()


def test_one_hidden_layer_away_from_the_origin() -> None:
    network = regions.one_hidden_layer(lambda x, y: np.hypot(x - 12, y - 12) < 1, 10, 14, directions=24, steps=48)
    expected = np.hypot(*POINTS.T) < 1
    assert (fires(network, POINTS + 12) != expected).mean() < 0.03


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: regions.polygon([[0, 0], [1, 0]]), r"\(S, 2\) with S >= 3, got shape \(2, 2\)"),
        (lambda: regions.polygon([[0, 0], [2, 0], [0.5, 0.5], [0, 2]]), "Use the union of convex ones"),
        (lambda: regions.polygon(PENTAGON[[0, 2, 4, 1, 3]]), "do not form a convex polygon"),
        (lambda: regions.polygon([[0, 0], [1, 0], [1, 0], [0, 1]]), "vertex 1 is repeated"),
        (lambda: regions.polygon([[0, 0], [1, 0], [2, 0]]), "lie on one line"),
        (lambda: regions.polygon([[0, 0], [np.nan, 0], [0, 1]]), "vertices must be finite"),
        (lambda: regions.half_plane([0, 0], 1), "normal must not be 0"),
        (lambda: regions.regular_polygon(5, radius=-1), "radius must be a finite number > 0, got -1"),
        (lambda: regions.mirrored(PENTAGON, 5), r"side must be in 0 .. 4, got 5"),
        (lambda: regions.union(PENTAGON), r"a list of polygons, each \(S, 2\)"),
        (
            lambda: regions.one_hidden_layer(lambda x, y: True, 0, 1),
            r"one truth value per point, .* got shape \(\)",
        ),
        (lambda: regions.union([]), "at least one polygon"),
        (lambda: regions.polyhedron([1, 0], [1, 0]), r"got shapes \(2,\) and \(2,\)"),
        (lambda: regions.polyhedron([[1, 0]], [1, 0]), r"normals \(S, D\) and offsets \(S,\), got shapes \(1, 2\)"),
        (lambda: regions.polyhedron(np.zeros((0, 2)), []), r"got shapes \(0, 2\) and \(0,\)"),
        (lambda: regions.polyhedron([[1, 0], [0, 0]], [1, 0]), "normal 1 is 0"),
        (lambda: regions.polyhedron([[1, np.inf]], [1]), "normals and offsets must be finite"),
        (lambda: regions.polyhedra([]), "with one D, got none"),
        (lambda: regions.polyhedra([([[1, 0]], [0]), ([[1]], [0])]), r"with one D, got \(1, 2\), \(1, 1\)"),
        (lambda: regions.regular_polygon(2), "count must be at least 3"),
        (lambda: regions.one_hidden_layer(joined_pentagons, 1, 1), "expected low < high, both finite"),
        (lambda: regions.one_hidden_layer(joined_pentagons, 0, 1, steps=1), "steps must be at least 2"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_half_spaces_beyond_float32_are_named() -> None:
    for scale in (1e-300, 1e300):
        with pytest.raises(ValueError, match="leave the range of float32"):
            regions.polyhedron([[scale, 0]], [scale])
    with pytest.raises(ValueError, match="both finite"):
        regions.one_hidden_layer(joined_pentagons, -np.inf, np.inf)

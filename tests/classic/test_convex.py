"""The best convex region: counted again, against all half-planes, and where a perfect one is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jaxnn.classic import convex, regions
from jaxnn.classic.convex import Convex

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
XOR = np.array([0, 1, 1, 0])


def points(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 2))


def counted(found: Convex, x: np.ndarray, y: np.ndarray) -> int:
    """Correct points, by the network of the region, moved by nothing."""
    inside = (x @ found.normals.T + found.offsets >= 0).all(1)
    return int((inside == (y == 1)).sum())


@pytest.mark.parametrize("sides", [1, 2, 3, 5])
def test_the_count_is_that_of_the_region(sides: int) -> None:
    for seed in range(2):
        x = points(seed)
        y = np.random.default_rng(seed).integers(0, 2, len(x))
        found = convex.fit(x, y, sides, directions=36, steps=20)
        assert found.correct == counted(found, x, y)
        assert 1 <= len(found.offsets) <= sides
        assert found.normals.shape == (len(found.offsets), 2)
        np.testing.assert_allclose(np.linalg.norm(found.normals, axis=1), 1)
        assert found.correct >= max(y.sum(), len(y) - y.sum()), "better than one class for all"


def test_one_side_is_the_best_half_plane_of_the_set() -> None:
    x = points(0, 60)
    y = (x[:, 0] + 0.3 * np.random.default_rng(1).standard_normal(60) > 0).astype(int)
    found = convex.fit(x, y, 1, directions=24, steps=30)
    normals, offsets = convex._half_planes(x, 24, 30)
    best = max(counted(Convex(n[None], np.array([c]), 0), x, y) for n, c in zip(normals, offsets, strict=True))
    assert found.correct == best > 45


@pytest.mark.parametrize("sides", [3, 4, 6])
def test_a_polygon_is_found_again(sides: int) -> None:
    x = points(1, 300)
    vertices = regions.regular_polygon(sides, radius=0.8, turn=0.2)
    normals, offsets = regions.sides(vertices)
    y = (x @ normals.T + offsets >= 0).all(1)
    found = convex.fit(x, y, sides, directions=60, steps=50)
    assert found.correct >= 0.97 * len(x)
    assert len(found.offsets) == sides


def test_xor_is_an_and_of_two_half_planes() -> None:
    found = convex.fit(CORNERS, XOR, 4)
    assert found.correct == 4
    assert len(found.offsets) == 2, "half-planes that change nothing are dropped"
    assert convex.fit(CORNERS, XOR, 1).correct == 3


def test_more_sides_are_no_worse() -> None:
    x = points(2)
    y = (np.hypot(*x.T) < 0.6).astype(int)
    correct = [convex.fit(x, y, sides, directions=36, steps=32).correct for sides in (1, 3, 4, 6, 12)]
    assert correct == sorted(correct)
    assert correct[0] < 0.8 * len(x) < 0.97 * len(x) < correct[-1]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: convex.fit(CORNERS[:, :1], XOR, 2), r"points x \(N, 2\) and classes y \(N,\), got shapes \(4, 1\)"),
        (lambda: convex.fit(CORNERS, XOR[:3], 2), r"and \(3,\)"),
        (lambda: convex.fit(CORNERS, 2 * XOR - 1, 2), r"0 and 1, at least one 1, got \[-1, 1\]"),
        (lambda: convex.fit(CORNERS, 0 * XOR, 2), r"got \[0\]"),
        (lambda: convex.fit(CORNERS + np.nan, XOR, 2), "x must be finite"),
        (lambda: convex.fit(CORNERS, XOR, 0), "sides must be at least 1, got 0"),
        (lambda: convex.fit(CORNERS, XOR, 1, directions=2), "directions must be at least 3"),
        (lambda: convex.fit(CORNERS, XOR, 1, steps=1), "steps must be at least 2"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

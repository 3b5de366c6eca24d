"""The best convex region for two classes of points in the plane: an AND of half-planes, fitted by coordinate ascent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxnn.checks import as_numpy, require_positive_int
from jaxnn.types import ArrayLike


class Convex(NamedTuple):
    """A convex region, for `regions.polyhedron(normals, offsets)`.

    Attributes:
        normals: (S, 2), of norm 1.
        offsets: (S,); n_s.x + c_s >= 0 inside.
        correct: number of points that lie on the side of their class.
    """

    normals: np.ndarray
    offsets: np.ndarray
    correct: int


def fit(x: ArrayLike, y: ArrayLike, sides: int, *, directions: int = 72, steps: int = 64) -> Convex:
    """An AND of at most `sides` half-planes that holds many points of class 1 and few of class 0.

    correct = #{i : [n_s.x_i + c_s >= 0 for all s] = y_i}

    One half-plane after the other is replaced by the best of a fine set, given the others, until none improves. For one
    side the result is the best half-plane of the set; for more it is a local optimum, the best over several starts
    around class 1. Half-planes that change nothing are dropped.

    Args:
        x: points (N, 2).
        y: classes (N,) of 0 and 1, at least one of them 1.
        sides: the largest number S of half-planes, >= 1.
        directions: number of normals, evenly spaced over a turn, >= 3.
        steps: number of offsets for each normal, evenly spaced over the points, >= 2.

    Returns:
        Convex, with 1 to `sides` half-planes.

    Raises:
        ValueError: shapes do not match, points that are not finite, classes other than 0 and 1, none of class 1, or too
            few directions or steps.

    Reference: Lippmann (1987), An introduction to computing with neural nets (the regions of two layers); Wright
        (2015), Coordinate descent algorithms.

    Example:
        >>> strip = fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], 2)  # XOR by an AND of two half-planes
        >>> strip.correct, len(strip.offsets)
        (4, 2)
        >>> fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], 1).correct
        3
    """
    points, labels = as_numpy("convex.fit", "x", x).astype(float), as_numpy("convex.fit", "y", y)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(
            f"convex.fit: expected points x (N, 2) and classes y (N,), got shapes {points.shape} and {labels.shape}."
        )
    if not np.isfinite(points).all():
        raise ValueError("convex.fit: x must be finite.")
    if not np.isin(labels, (0, 1)).all() or not labels.any():
        raise ValueError(f"convex.fit: y must hold 0 and 1, at least one 1, got {np.unique(labels)[:5].tolist()}.")
    require_positive_int("convex.fit", "sides", sides)
    require_positive_int("convex.fit", "directions", directions, 3)
    require_positive_int("convex.fit", "steps", steps, 2)
    normals, offsets = _half_planes(points, directions, steps)
    holds = (normals @ points.T + offsets[:, None] >= 0).astype(np.float32)
    gain = np.where(labels == 1, 1.0, -1.0).astype(np.float32)
    found = [_ascended(holds, gain, start) for start in _starts(holds, labels == 1, sides, directions, steps)]
    best = max(found, key=lambda chosen: float(holds[chosen].prod(0) @ gain))
    kept = _needed(holds, best)
    correct = int((labels == 0).sum() + holds[kept].prod(0) @ gain)
    return Convex(normals[kept], offsets[kept], correct)


def _half_planes(points: np.ndarray, directions: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All candidates, direction by direction, from one that holds no point to one that holds every point."""
    angles = 2 * np.pi * np.arange(directions) / directions
    normals = np.stack([np.cos(angles), np.sin(angles)], 1)
    along = normals @ points.T
    low, high = along.min(1), along.max(1)
    margin = (high - low) / (steps - 1) + 1e-9
    offsets = -np.linspace(high + margin, low - margin, steps, axis=1)
    return normals.repeat(steps, axis=0), offsets.ravel()


def _starts(
    holds: np.ndarray, inside: np.ndarray, sides: int, directions: int, steps: int, turns: int = 12
) -> list[np.ndarray]:
    """Polygons around class 1, with evenly spaced normals, in several orientations; for one side any half-plane."""
    if sides == 1:
        return [np.zeros(1, int)]
    whole = holds[:, inside].all(1).reshape(directions, steps)
    tight = np.arange(directions) * steps + whole.argmax(1)  # the first of each direction that holds all of class 1
    spaced = np.arange(sides) * directions // sides
    return [tight[(spaced + turn) % directions] for turn in range(0, directions, -(-directions // turns))]


def _ascended(holds: np.ndarray, gain: np.ndarray, start: np.ndarray) -> np.ndarray:
    """As many rows of `holds` (H, N) as `start`, whose product has a locally largest sum of gains (N,)."""
    chosen, value = start.copy(), -np.inf
    while (now := float(holds[chosen].prod(0) @ gain)) > value:
        value = now
        for k in range(len(chosen)):
            others = holds[np.delete(chosen, k)].prod(0)
            chosen[k] = (holds @ (others * gain)).argmax()
    return chosen


def _needed(holds: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The half-planes without those whose removal changes no point, at least one of them."""
    kept = list(chosen)
    for k in chosen:
        rest = list(kept)
        rest.remove(k)
        if rest and (holds[rest].prod(0) == holds[kept].prod(0)).all():
            kept = rest
    return np.array(kept, int)

"""Regions by threshold units: half-spaces, convex polyhedra and their unions in any dimension, polygons, any region.

| region | layers | units |
|---|---|---|
| half-plane, half-space | 1 | 1 |
| convex polyhedron of S half-spaces, open or bounded; convex polygon of S sides | 2 | S half-spaces, an AND |
| union of P convex polyhedra or polygons | 3 | all their half-spaces, P ANDs, an OR |
| any region of the plane, approximately | 2 | directions x (steps - 1) half-planes, a weighted sum with a threshold |

An output is 1 inside the region and on the border, up to rounding, and 0 outside. Vertices are (S, 2), S >= 3, in
either orientation. ValueError: not a convex polygon, or vertices, normals or offsets that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxnn.checks import require_positive, require_positive_int
from jaxnn.classic import gates
from jaxnn.classic.threshold import THRESHOLD, Network, dense_params
from jaxnn.layers import Dense
from jaxnn.models import serial
from jaxnn.types import ArrayLike


def half_plane(normal: ArrayLike, offset: float) -> Network:
    """The side of a line, or of a hyperplane, to which its normal points.

    y = 1 if n.x + c >= 0 else 0

    Args:
        normal: n, (D,), not 0.
        offset: c; the border is |c| / |n| away from the origin.

    Returns:
        Network: (N, D) -> (N, 1).

    Reference: Minsky & Papert (1969), Perceptrons: an introduction to computational geometry.

    Example:
        >>> half_plane([1, 1], -1)([[1, 1], [0, 0]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    if not np.any(np.asarray(normal)):
        raise ValueError("half_plane: normal must not be 0. It points into the half-plane.")
    return gates.unit(normal, offset)


def polygon(vertices: ArrayLike) -> Network:
    """A convex polygon: the AND of one half-plane per side.

    h_s = 1 if n_s.x + c_s >= 0, y = 1 if sum_s h_s >= S - 1/2

    Returns:
        Network: (N, 2) -> (N, 1), S + 1 units.

    Reference: Lippmann (1987), An introduction to computing with neural nets, figure 14.

    Example:
        >>> polygon(regular_polygon(5))([[0, 0], [2, 0]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    return polyhedron(*sides(vertices))


def polyhedron(normals: ArrayLike, offsets: ArrayLike) -> Network:
    """A convex polyhedron in any number of dimensions, bounded or open: the AND of half-spaces.

    h_s = 1 if n_s.x + c_s >= 0, y = 1 if sum_s h_s >= S - 1/2

    Args:
        normals: (S, D), S and D >= 1; each points into its half-space, none is 0.
        offsets: c, (S,).

    Returns:
        Network: (N, D) -> (N, 1), S + 1 units. The output is always 0 if the half-spaces have no common point.

    Raises:
        ValueError: shapes do not match, or a normal is 0.

    Reference: Lippmann (1987), An introduction to computing with neural nets, figure 14 (convex open or closed
        regions).

    Example:
        >>> wedge = polyhedron([[0, 1], [1, -1]], [0, 0])  # 0 <= x_2 <= x_1, without end
        >>> wedge([[1e6, 3], [1, 2]]).ravel()
        Array([1., 0.], dtype=float32)
        >>> simplex = polyhedron([*np.eye(3), [-1, -1, -1]], [0, 0, 0, 1])
        >>> simplex([[0.2, 0.3, 0.4], [0.5, 0.5, 0.5]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    w, b = _half_spaces("polyhedron", normals, offsets)
    params = (dense_params(w.T, b), (), dense_params(np.ones((len(b), 1)), [0.5 - len(b)]), ())
    return Network(serial(Dense(len(b)), THRESHOLD, Dense(1), THRESHOLD), params)


def union(polygons: Sequence[ArrayLike]) -> Network:
    """The union of convex polygons: an OR of ANDs of half-planes; the first layer holds the sides of all polygons.

    Args:
        polygons: each (S, 2); they may overlap, touch or be disjoint, so that the union need not be convex or
            connected.

    Returns:
        Network: (N, 2) -> (N, 1), sum of S hidden units, P of the second layer, 1 output.

    Reference: Lippmann (1987), An introduction to computing with neural nets, figure 14.

    Example:
        >>> pentagon = regular_polygon(5)
        >>> joined = union([pentagon, mirrored(pentagon, 0)])
        >>> joined.units, joined.layers
        (13, 3)
    """
    if not len(polygons):
        raise ValueError("union: expected at least one polygon, (S, 2) vertices, got none.")
    if any(np.ndim(vertices) != 2 for vertices in polygons):
        raise ValueError("union: expected a list of polygons, each (S, 2) vertices. For a single one pass [vertices].")
    parts = [sides(vertices) for vertices in polygons]
    return polyhedra(parts)


def polyhedra(parts: Sequence[tuple[ArrayLike, ArrayLike]]) -> Network:
    """The union of convex polyhedra, bounded or open: an OR of ANDs of half-spaces.

    y = 1 if any of the P polyhedra contains x

    Args:
        parts: P pairs (normals (S, D), offsets (S,)) as for `polyhedron`; S may differ, D may not.

    Returns:
        Network: (N, D) -> (N, 1), sum of S hidden units, P of the second layer, 1 output.

    Raises:
        ValueError: no part, parts of several dimensions, shapes that do not match, or a normal is 0.

    Reference: Lippmann (1987), An introduction to computing with neural nets, figure 14.

    Example:
        >>> quadrants = polyhedra([(np.eye(2), [0, 0]), (-np.eye(2), [0, 0])])  # the signs agree: not XOR
        >>> quadrants([[3, 4], [-3, -4], [3, -4]]).ravel()
        Array([1., 1., 0.], dtype=float32)
    """
    spaces = [_half_spaces("polyhedra", normals, offsets) for normals, offsets in parts]
    if len({w.shape[1] for w, _ in spaces}) != 1:
        got = ", ".join(str(w.shape) for w, _ in spaces) or "none"
        raise ValueError(f"polyhedra: parts must be pairs of normals (S, D) and offsets (S,) with one D, got {got}.")
    w, b = (np.concatenate(arrays) for arrays in zip(*spaces, strict=True))
    owner = np.repeat(np.arange(len(spaces)), [len(c) for _, c in spaces])
    member = (owner[:, None] == np.arange(len(spaces))).astype(float)
    ands, either = dense_params(member, 0.5 - member.sum(0)), dense_params(np.ones((len(spaces), 1)), [-0.5])
    net = serial(Dense(len(b)), THRESHOLD, Dense(len(spaces)), THRESHOLD, Dense(1), THRESHOLD)
    return Network(net, (dense_params(w.T, b), (), ands, (), either, ()))


def one_hidden_layer(
    inside: Callable[[np.ndarray, np.ndarray], np.ndarray],
    low: float,
    high: float,
    *,
    directions: int = 32,
    steps: int = 64,
) -> Network:
    """Any region by half-planes and one weighted sum: filtered back-projection of its Radon transform.

    With f the indicator of the region and u = (cos phi, sin phi): f(x) = int_0^pi q_u(x.u) dphi,
    q_u(t) = (the integral of f over the line x.u = t) filtered by |frequency|

    The integral over angles becomes a sum over `directions`, and each q_u a staircase of `steps` levels, which is a sum
    of half-planes with normal u. The output is 1 where the sum is at least 1/2. Corners are rounded, and the border
    has an error of about one step, (high - low) sqrt(2) / steps.

    Args:
        inside: (x (M,), y (M,)) -> (M,) bool, whether points (x, y) belong to the region, which must lie in the square.
        low, high: the square [low, high]^2 in which the network is valid.
        directions: number of normals, evenly spaced over half a turn.
        steps: levels of each staircase.

    Returns:
        Network: (N, 2) -> (N, 1), directions (steps - 1) hidden units.

    Raises:
        ValueError: an empty square, directions < 1, steps < 2, or `inside` returns another shape.

    Reference: Carroll & Dickinson (1989), Construction of neural nets using the Radon transform; filter of Shepp &
        Logan (1974), The Fourier reconstruction of a head section.

    Example:
        >>> ring = one_hidden_layer(lambda x, y: abs(x**2 + y**2 - 0.4) < 0.3, -1, 1)
        >>> ring([[0, 0], [0.6, 0], [0, -0.6], [0.9, 0.9]]).ravel()
        Array([0., 1., 1., 0.], dtype=float32)
    """
    where = "one_hidden_layer"
    require_positive_int(where, "directions", directions)
    require_positive_int(where, "steps", steps, 2)
    if not (low < high and np.isfinite(high - low)):
        raise ValueError(f"{where}: expected low < high, both finite, got low {low}, high {high}.")
    pixels = 4 * steps  # several per strip, so that their counts approximate the integrals
    centres = low + (high - low) * (np.arange(pixels) + 0.5) / pixels
    x, y = (grid.ravel() for grid in np.meshgrid(centres, centres))
    member = np.asarray(inside(x, y), float)
    if not np.isfinite(member).all():
        raise ValueError(f"{where}: inside must return truth values, got some that are not finite.")
    if member.shape != x.shape:
        raise ValueError(
            f"{where}: inside must return one truth value per point, shape {x.shape}, got shape {member.shape}. "
            "Combine conditions on arrays by & and |."
        )
    middle, reach = (low + high) / 2, (high - low) / np.sqrt(2)
    edges = np.linspace(-reach, reach, steps + 1)
    angles = np.pi * np.arange(directions) / directions
    normals = np.stack([np.cos(angles), np.sin(angles)], 1)
    along = normals @ np.stack([x - middle, y - middle])
    area = ((high - low) / pixels) ** 2
    levels = np.stack([_filtered(np.histogram(t, edges, weights=member)[0] * area, edges) for t in along])
    levels *= np.pi / directions
    jumps = np.diff(levels, axis=1)
    thresholds = edges[None, 1:-1] + middle * normals.sum(1, keepdims=True)
    hidden = dense_params(np.repeat(normals, steps - 1, axis=0).T, -thresholds.ravel())
    output = dense_params(jumps.reshape(-1, 1), [levels[:, 0].sum() - 0.5])
    return Network(serial(Dense(jumps.size), THRESHOLD, Dense(1), THRESHOLD), (hidden, (), output, ()))


def sides(vertices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The half-planes whose intersection is a convex polygon: n.x + c >= 0 inside, |n| = 1.

    Returns:
        (normals (S, 2), offsets (S,)), float64; side s is from vertex s to the next.

    Example:
        >>> sides([[0, 0], [1, 0], [0, 1]])[1].round(3) + 0.0
        array([0.   , 0.707, 0.   ])
    """
    corners = np.asarray(vertices, float)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"polygon: vertices must be (S, 2) with S >= 3, got shape {corners.shape}.")
    if not np.isfinite(corners).all():
        raise ValueError(f"polygon: vertices must be finite, got {corners.tolist()}.")
    along = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(along, axis=1)
    if not lengths.all():
        raise ValueError(f"polygon: vertex {int(lengths.argmin())} is repeated; remove one of the two.")
    following = np.roll(corners, -1, axis=0)
    (x, y), (next_x, next_y) = (corners - corners[0]).T, (following - corners[0]).T
    area = (x * next_y - next_x * y).sum() / 2
    if abs(area) < 1e-9 * lengths.max() ** 2:
        raise ValueError("polygon: the vertices lie on one line and enclose no area.")
    normals = np.stack([-along[:, 1], along[:, 0]], 1) / lengths[:, None]
    normals = normals if area > 0 else -normals
    offsets = -(normals * corners).sum(1)
    if (normals @ corners.T + offsets[:, None]).min() < -1e-9 * lengths.max():
        raise ValueError("polygon: the vertices do not form a convex polygon. Use the union of convex ones.")
    return normals, offsets


def regular_polygon(
    count: int, *, centre: Sequence[float] = (0.0, 0.0), radius: float = 1.0, turn: float = 0.0
) -> np.ndarray:
    """Vertices of a regular polygon, anticlockwise.

    Args:
        count: S >= 3.
        centre: (x, y).
        radius: from the centre to a vertex.
        turn: angle of the first vertex from the x axis, radians.

    Returns:
        (S, 2), float64.

    Example:
        >>> regular_polygon(4).round(3) + 0.0
        array([[ 1.,  0.],
               [ 0.,  1.],
               [-1.,  0.],
               [ 0., -1.]])
    """
    count = require_positive_int("regular_polygon", "count", count, 3)
    require_positive("regular_polygon", "radius", radius)
    angles = turn + 2 * np.pi * np.arange(count) / count
    if np.shape(centre) != (2,):
        raise ValueError(f"regular_polygon: centre must be (x, y), got {centre!r}.")
    return np.asarray(centre, float) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def mirrored(vertices: ArrayLike, side: int) -> np.ndarray:
    """The vertices of a polygon reflected in one of its sides, which the two polygons share.

    Args:
        vertices: (S, 2), convex.
        side: from vertex `side` to the next, 0 .. S - 1.

    Returns:
        (S, 2), float64, in the order of the originals.

    Example:
        >>> mirrored([[0, 0], [1, 0], [0, 1]], 0) + 0.0
        array([[ 0.,  0.],
               [ 1.,  0.],
               [ 0., -1.]])
    """
    corners = np.asarray(vertices, float)
    normals, offsets = sides(corners)
    side = require_positive_int("mirrored", "side", side, 0)
    if side >= len(corners):
        raise ValueError(f"mirrored: side must be in 0 .. {len(corners) - 1}, got {side}.")
    distance = corners @ normals[side] + offsets[side]
    return corners - 2 * distance[:, None] * normals[side]


def _half_spaces(where: str, normals: ArrayLike, offsets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Normals (S, D) and offsets (S,) as floats, checked."""
    w, b = np.asarray(normals, float), np.asarray(offsets, float)
    if w.ndim != 2 or not w.size or b.shape != w.shape[:1]:
        raise ValueError(f"{where}: expected normals (S, D) and offsets (S,), got shapes {w.shape} and {b.shape}.")
    if not (np.isfinite(w).all() and np.isfinite(b).all()):
        raise ValueError(f"{where}: normals and offsets must be finite.")
    if not w.any(1).all():
        raise ValueError(f"{where}: normal {int(w.any(1).argmin())} is 0. It must point into its half-space.")
    lengths, info = np.abs(w).max(1), np.finfo(np.float32)
    if (lengths < info.tiny).any() or (np.maximum(lengths, np.abs(b)) > info.max).any():
        raise ValueError(
            f"{where}: normals and offsets leave the range of float32. Divide both by the normal's length."
        )
    return w, b


def _filtered(masses: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A projection, as masses (K,) in strips, convolved with Shepp and Logan's filter -2 / (pi^2 d^2 (4 k^2 - 1))."""
    width = edges[1] - edges[0]
    k = np.arange(-len(masses) + 1, len(masses))
    kernel = -2 / (np.pi**2 * width**2 * (4 * k**2 - 1))
    return np.convolve(masses, kernel, mode="valid")

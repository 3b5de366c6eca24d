"""Continuous functions by threshold units: pulses and staircases on a line, ridges, bumps and surfaces in the plane.

All networks end in a linear output unit. H is the unit step, H(0) = 1. For an error epsilon of a Lipschitz function the
number of threshold units grows like 1 / epsilon on a line and like 1 / epsilon^2 in the plane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.checks import require_between, require_number, require_positive_int
from jaxnn.classic.threshold import THRESHOLD, Network, dense_params
from jaxnn.layers import Dense
from jaxnn.models import serial
from jaxnn.types import ArrayLike


class Approximation(NamedTuple):
    """A network that approximates a function.

    Attributes:
        network: the net and its parameters.
        units: the number of threshold units, in all hidden layers.
        error: upper bound on |network - function| at the samples; on the whole interval or square, if between
            neighbouring samples the function is monotone in each coordinate.

    Example:
        >>> found = staircase(np.sin, 0, np.pi, 0.1)
        >>> net, params = found.network
    """

    network: Network
    units: int
    error: float


def pulses(low: ArrayLike, high: ArrayLike, height: ArrayLike = 1.0) -> Network:
    """A sum of square pulses on a line, each from two thresholds.

    y = sum_j height_j (H(x - low_j) - H(x - high_j)): pulse j lies on [low_j, high_j)

    Args:
        low, high: (J,), or one number each: the ends of the pulses.
        height: (J,), or one number for all.

    Returns:
        Network: (N, 1) -> (N, 1), 2 J hidden units and a linear output.

    Raises:
        ValueError: shapes do not agree, there is no pulse, or not low < high for each.

    Reference: Cybenko (1989), Approximation by superpositions of a sigmoidal function.

    Example:
        >>> pulses(1, 2, 3.0)([[0.5], [1.0], [1.5], [2.0]]).ravel()
        Array([0., 3., 3., 0.], dtype=float32)
    """
    begin, end = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    heights = np.asarray(height, float)
    if begin.ndim != 1 or begin.shape != end.shape or heights.shape not in ((), begin.shape):
        raise ValueError(
            f"pulses: low, high and height must be (J,) each, or one number, got shapes {begin.shape}, {end.shape} and "
            f"{heights.shape}."
        )
    if not begin.size or not (begin < end).all():
        raise ValueError("pulses: expected at least one pulse, and low < high for each.")
    heights = np.broadcast_to(heights, begin.shape)
    return _steps(np.concatenate([begin, end]), np.concatenate([heights, -heights]), 0.0)


def staircase(
    function: Callable[[np.ndarray], ArrayLike], low: float, high: float, tolerance: float, *, samples: int = 4096
) -> Approximation:
    """A continuous function on [low, high] by the fewest steps with an error of at most the tolerance.

    y = v_0 + sum_(j >= 1) (v_j - v_(j-1)) H(x - e_j)

    Step j = 0, 1, .. has height v_j and begins at e_j, e_0 = low. It is as long as possible with the sampled maximum
    and minimum of the function on it at most 2 tolerance apart; its height is their midpoint. No staircase with jumps
    at samples has fewer steps.

    Args:
        function: of an array (samples + 1,) of float64, element-wise; called once.
        low, high: the interval, finite.
        tolerance: the largest error allowed, > 0.
        samples: number of intervals between sample points, >= 2.

    Returns:
        Approximation: of a network (N, 1) -> (N, 1), constant beyond the interval.

    Raises:
        ValueError: not low < high, or not tolerance > 0; the function changes by more than 2 tolerance between two
            samples, or is not finite or not element-wise.

    Reference: Cybenko (1989), Approximation by superpositions of a sigmoidal function; Hornik (1991), Approximation
        capabilities of multilayer feedforward networks.

    Example:
        >>> found = staircase(lambda x: x, 0, 1, 0.125)  # four steps, three jumps
        >>> found.units, found.network([[0.1], [0.9]]).ravel()
        (3, Array([0.125, 0.875], dtype=float32))
    """
    where = "staircase"
    points = _grid(where, low, high, tolerance, samples)
    values = _values(where, function(points), points.shape)
    least, greatest = np.minimum(values[:-1], values[1:]), np.maximum(values[:-1], values[1:])
    _require_fine(where, greatest - least, tolerance)
    starts, bottom, top = [0], [least[0]], [greatest[0]]
    for i in range(1, samples):
        lower, upper = min(bottom[-1], least[i]), max(top[-1], greatest[i])
        if upper - lower <= 2 * tolerance:
            bottom[-1], top[-1] = lower, upper
        else:
            starts.append(i)
            bottom.append(least[i])
            top.append(greatest[i])
    levels, error = (np.array(top) + bottom) / 2, float((np.array(top) - bottom).max() / 2)
    if len(starts) == 1:  # a layer has at least one unit: a jump of height 0
        starts, levels = [0, 0], np.repeat(levels, 2)
    network = _steps(points[starts[1:]], np.diff(levels), levels[0])
    return Approximation(network, len(starts) - 1, error)


def ridge(direction: ArrayLike, low: float, high: float) -> Network:
    """A ridge in the plane (or in R^D), 1 on a strip and 0 outside, from two opposite thresholds.

    y = H(d.x - low) + H(high - d.x) - 1

    Args:
        direction: d, (D,), across the ridge.
        low, high: the strip is low <= d.x <= high.

    Returns:
        Network: (N, D) -> (N, 1), 2 hidden units and a linear output.

    Raises:
        ValueError: not low < high, or a direction that is 0 or not (D,).

    Reference: Cybenko (1989), Approximation by superpositions of a sigmoidal function.

    Example:
        >>> ridge([1, 0], -1, 1)([[0, 5], [2, 5]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    d = np.asarray(direction, float)
    if not low < high or d.ndim != 1 or not d.any():
        raise ValueError(
            f"ridge: expected a direction (D,) that is not 0, and low < high, got {d.tolist()}, low {low}, high {high}."
        )
    opposite = dense_params(np.stack([d, -d], 1), [-low, high])
    return Network(serial(Dense(2), THRESHOLD, Dense(1)), (opposite, (), dense_params([[1], [1]], [-1.0])))


def bump(low: ArrayLike, high: ArrayLike, height: float = 1.0) -> Network:
    """A bump over a rectangle or a box: the intersection of the ridges along all axes.

    y = height H(sum_i (H(x_i - low_i) + H(high_i - x_i)) - 2 D + 1/2)

    Args:
        low, high: (D,), opposite corners.
        height: of the bump.

    Returns:
        Network: (N, D) -> (N, 1), 2 D + 1 hidden units and a linear output.

    Raises:
        ValueError: not low < high in every coordinate.

    Reference: Cybenko (1989), Approximation by superpositions of a sigmoidal function.

    Example:
        >>> bump([-1, -1], [1, 1], 2.0)([[0, 0], [0, 2]]).ravel()
        Array([2., 0.], dtype=float32)
    """
    require_number("bump", "height", height)
    a, b = np.asarray(low, float), np.asarray(high, float)
    if a.ndim != 1 or a.shape != b.shape or not (a < b).all():
        raise ValueError(f"bump: low and high must be corners (D,), low < high, got {a.tolist()} and {b.tolist()}.")
    axes = np.eye(len(a))
    ridges = dense_params(np.concatenate([axes, -axes], 1), np.concatenate([-a, b]))
    both = dense_params(np.ones((2 * len(a), 1)), [0.5 - 2 * len(a)])
    net = serial(Dense(2 * len(a)), THRESHOLD, Dense(1), THRESHOLD, Dense(1))
    return Network(net, (ridges, (), both, (), dense_params([[height]], [0.0])))


def surface(
    function: Callable[[np.ndarray, np.ndarray], ArrayLike],
    low: float,
    high: float,
    tolerance: float,
    *,
    samples: int = 240,
) -> Approximation:
    """A continuous function on [low, high]^2 by bumps on the coarsest grid of equal cells within the tolerance.

    y = sum_ij v_ij H(r_i(x_1) + r_j(x_2) - 3/2), r_i the ridge between grid lines i and i + 1

    The grid is at least 2 x 2, its lines rounded to samples. The first layer holds the inner grid lines of both
    axes, which neighbouring ridges share; the second one bump per cell; the output adds them, each with the midpoint of
    the function's range over the cell as its height. Cells are half-open: every point lies in exactly one, and the
    outer cells extend to infinity.

    Args:
        function: of two arrays (samples + 1, samples + 1) of float64, element-wise; called once.
        low, high: bounds of both coordinates, finite.
        tolerance: the largest error allowed, > 0.
        samples: number of intervals between sample points along each axis, >= 2.

    Returns:
        Approximation: of a network (N, 2) -> (N, 1) with 2 (m - 1) + m^2 threshold units for m x m cells.

    Raises:
        ValueError: as for `staircase`.

    Reference: Cybenko (1989), Approximation by superpositions of a sigmoidal function; Hornik (1991), Approximation
        capabilities of multilayer feedforward networks.

    Example:
        >>> found = surface(lambda x, y: x + y, 0, 1, 0.26)
        >>> found.units, found.network([[0.1, 0.1], [0.9, 0.9]]).ravel()
        (22, Array([0.25, 1.75], dtype=float32))
    """
    where = "surface"
    points = _grid(where, low, high, tolerance, samples)
    x, y = np.meshgrid(points, points, indexing="ij")
    values = _values(where, function(x, y), x.shape)
    corners = np.stack([values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:]])
    least, greatest = corners.min(0), corners.max(0)
    _require_fine(where, greatest - least, tolerance)
    for cells in range(2, samples + 1):
        starts = np.round(np.linspace(0, samples, cells + 1)).astype(int)[:-1]
        bottom, top = _over_cells(np.minimum, least, starts), _over_cells(np.maximum, greatest, starts)
        if (top - bottom).max() <= 2 * tolerance:
            break
    network = _bumps(points[starts[1:]], (top + bottom) / 2)
    return Approximation(network, 2 * (cells - 1) + cells**2, float((top - bottom).max() / 2))


def _steps(edges: np.ndarray, jumps: np.ndarray, first: float) -> Network:
    """y = first + sum_j jumps_j H(x - edges_j)."""
    hidden, output = dense_params(np.ones((1, len(edges))), -edges), dense_params(jumps[:, None], [first])
    return Network(serial(Dense(len(edges)), THRESHOLD, Dense(1)), (hidden, (), output))


def _bumps(lines: np.ndarray, heights: np.ndarray) -> Network:
    """One bump per cell between grid lines (m - 1,), the same for both axes; heights (m, m)."""
    m = len(heights)
    # Column i of `ridge`, over the thresholds H(x - line), is r_i: +1 at its lower line, -1 at its upper one. The first
    # cell has no lower line: its ridge is 1 minus the threshold at its upper one.
    ridge_weights = np.eye(m - 1, m, 1) - np.eye(m - 1, m)
    first = (np.arange(m) == 0).astype(float)
    i, j = (index.ravel() for index in np.meshgrid(np.arange(m), np.arange(m), indexing="ij"))
    grid = dense_params(np.repeat(np.eye(2), m - 1, axis=1), -np.tile(lines, 2))
    cells = dense_params(np.concatenate([ridge_weights[:, i], ridge_weights[:, j]]), first[i] + first[j] - 1.5)
    net = serial(Dense(2 * (m - 1)), THRESHOLD, Dense(m * m), THRESHOLD, Dense(1))
    return Network(net, (grid, (), cells, (), dense_params(heights.reshape(-1, 1), [0.0])))


def _over_cells(reduce: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.asarray(reduce.reduceat(reduce.reduceat(values, starts, axis=0), starts, axis=1))


def _grid(where: str, low: float, high: float, tolerance: float, samples: int) -> np.ndarray:
    require_positive_int(where, "samples", samples, 2)
    require_between(where, "tolerance", tolerance, 0, np.inf, open_high=True)
    if not low < high or not tolerance > 0:
        raise ValueError(f"{where}: expected low < high and tolerance > 0, got {low}, {high}, {tolerance}.")
    return np.linspace(low, high, samples + 1)


def _values(where: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(values, float)
    if found.shape != shape or not np.isfinite(found).all():
        got = "values that are not finite" if found.shape == shape else f"shape {found.shape} for inputs {shape}"
        raise ValueError(f"{where}: function must be element-wise and finite, got {got}.")
    return found


def _require_fine(where: str, change: np.ndarray, tolerance: float) -> None:
    if change.max() > 2 * tolerance:
        raise ValueError(
            f"{where}: the function changes by {change.max():.3g} between two samples, more than 2 tolerance = "
            f"{2 * tolerance:.3g}. Pass more samples or a larger tolerance; a jump cannot be approximated."
        )

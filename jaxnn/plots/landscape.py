"""Landscapes in two dimensions: contours, trajectories of optimizers, and basins of attraction.

Landscapes have two dimensions, else ValueError; `landscapes.make_landscape` makes one of your own function. `ax` are
matplotlib axes. `bounds` are those of the plot or the lattice; None for the landscape's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from jaxnn.landscapes import Landscape
from jaxnn.plots.style import COLOURS, figure

Bounds = tuple[tuple[float, float], tuple[float, float]]
"""((lowest x, highest x), (lowest y, highest y)) of a plot."""

NOWHERE = "#BBBBBB"
"""The colour of starts from which no minimum was reached (`basins`), or whose value is not finite (`depths`)."""


def lattice(landscape: Landscape, n: int, *, bounds: Bounds | None = None) -> np.ndarray:
    """n x n grid points (x, y) over a plot of the landscape, (n, n, 2) float32: rows ascend in y, columns in x.

    Args:
        n: points per side.

    Example:
        >>> from jaxnn import landscapes
        >>> lattice(landscapes.saddle(), 3)[0, 1].tolist()
        [0.0, -2.0]
    """
    if not isinstance(landscape, Landscape):
        raise TypeError(
            f"lattice: expected a Landscape, got {landscape!r}. landscapes.make_landscape makes one of a function."
        )
    if landscape.dimensions != 2:
        raise ValueError(
            f"lattice: expected a landscape of 2 dimensions, got {landscape.name} of {landscape.dimensions}."
        )
    xs, ys = bounds or (landscape.bounds, landscape.bounds)
    return np.stack(np.meshgrid(np.linspace(*xs, n), np.linspace(*ys, n)), axis=-1).astype(np.float32)


def contours(ax: Any, landscape: Landscape, *, bounds: Bounds | None = None, levels: int = 14) -> None:
    """Contour lines on axes, dark where the value is low, and a star at each known minimum.

    The levels are quantiles of the values, with equal areas between neighbouring lines: valleys show, however steep
    the walls.

    Args:
        levels: number of lines; fewer where quantiles are equal.

    Example:
        >>> from jaxnn import landscapes
        >>> fig, ax = figure()
        >>> contours(ax, landscapes.himmelblau())
        >>> ax.get_xlabel()
        '$x_1$'
    """
    points, heights = _heights(landscape, bounds)
    at = np.unique(np.quantile(heights, np.linspace(0.005, 1, levels + 1)))
    ax.contourf(points[0, :, 0], points[:, 0, 1], heights, at, cmap="Greys_r", alpha=0.35, extend="min",
                norm=BoundaryNorm(at, 256, extend="min"))  # fmt: skip
    ax.contour(points[0, :, 0], points[:, 0, 1], heights, at, colors="#888888", linewidths=0.5)
    for minimum in landscape.minima:
        ax.plot(*minimum, "*", color="white", markeredgecolor="black", markersize=13, zorder=4)
    ax.set_xlim(points[0, 0, 0], points[0, -1, 0])
    ax.set_ylim(points[0, 0, 1], points[-1, 0, 1])
    ax.set_xlabel("$x_1$", fontsize=11)
    ax.set_ylabel("$x_2$", fontsize=11)


def paths(ax: Any, runs: Mapping[str, Any], *, marked: int = 40, colours: Sequence[str] = COLOURS) -> None:
    """Trajectories on axes: a line each, a dot at each of the first steps, a ring at the start.

    Args:
        ax: matplotlib axes, e.g. with `contours`; their limits do not change.
        runs: name -> points (T, 2). Points that are not finite are omitted; at least one must be finite.
        marked: number of points with dots, the start included.
        colours: one per run, reused cyclically.

    Raises:
        ValueError: points that are not (T, 2).

    Example:
        >>> fig, ax = figure()
        >>> paths(ax, {"straight": np.array([[0.0, 0.0], [1.0, 1.0]])})
        >>> len(ax.lines)
        2
    """
    for i, (name, points) in enumerate(runs.items()):
        width = 1.3 + 0.35 * (len(runs) - 1 - i)  # the edges of lines below remain visible
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"paths: expected points (T, 2) of {name!r}, got {points.shape}.")
        points = points[np.isfinite(points).all(axis=1)]
        dots = {"marker": "o", "markersize": width + 1.5, "markevery": range(min(marked, len(points)))}
        ax.plot(points[:, 0], points[:, 1], color=colours[i % len(colours)], linewidth=width, label=name, **dots,
                scalex=False, scaley=False)  # fmt: skip
        ax.plot(*points[0], "o", markerfacecolor="white", markeredgecolor="black", markersize=7, zorder=5,
                scalex=False, scaley=False)  # fmt: skip


def trajectories(
    landscape: Landscape, runs: Mapping[str, Any], *, bounds: Bounds | None = None, title: str = ""
) -> Figure:
    """A landscape with the trajectories of several runs.

    Args:
        runs: name -> points (T, 2), such as `train.trajectory(...).x`.
        title: "" for the landscape's name.

    Example:
        >>> from jaxnn import landscapes
        >>> fig = trajectories(landscapes.saddle(), {"down": np.array([[1.0, 0.0], [0.0, 1.0]])})
        >>> fig.axes[0].get_title()
        'saddle'
    """
    fig, ax = figure(width=6.0, height=4.8)
    contours(ax, landscape, bounds=bounds)
    paths(ax, runs)
    ax.set_title(title or landscape.name, fontsize=12)
    ax.legend(fontsize=9)
    return fig


def basins(ax: Any, landscape: Landscape, reached: Any, *, bounds: Bounds | None = None) -> None:
    """Basins of attraction on axes: every start in the colour of the minimum that was reached from it, grey for none.

    Args:
        landscape: of two dimensions; its contours are drawn above the colours.
        reached: (n, n) ints, for the starts of `lattice(landscape, n)`: the index of the minimum in `landscape.minima`,
            -1 for none, as `train.nearest` returns.

    Raises:
        ValueError: `reached` is not square, or an index is out of range.

    Example:
        >>> from jaxnn import landscapes
        >>> fig, ax = figure()
        >>> basins(ax, landscapes.himmelblau(), np.zeros((4, 4), int))
        >>> ax.get_aspect()
        'auto'
    """
    reached = np.asarray(reached)
    if reached.ndim != 2 or reached.shape[0] != reached.shape[1]:
        raise ValueError(f"basins: expected (n, n) indices, got {reached.shape}.")
    if reached.max() >= min(len(landscape.minima), len(COLOURS)) or reached.min() < -1:
        raise ValueError(
            f"basins: expected indices -1 .. {min(len(landscape.minima), len(COLOURS)) - 1} of the minima of "
            f"{landscape.name}, got {reached.min()} to {reached.max()}."
        )
    colours = ListedColormap([NOWHERE, *COLOURS[: len(landscape.minima)]])
    _image(ax, landscape, reached, bounds, cmap=colours, vmin=-1.5, vmax=len(landscape.minima) - 0.5, alpha=0.75)


def depths(ax: Any, landscape: Landscape, values: Any, *, bounds: Bounds | None = None) -> Any:
    """Every start in the colour of the value at which its run ended, for landscapes with many local minima.

    Args:
        values: (n, n), for the starts of `lattice(landscape, n)`; grey where not finite.

    Returns:
        The image, for a colour bar: `fig.colorbar(image, ax=ax, label=...)`.

    Example:
        >>> from jaxnn import landscapes
        >>> fig, ax = figure()
        >>> depths(ax, landscapes.schwefel(), np.eye(4)).get_array().shape
        (4, 4)
    """
    values = np.asarray(values, np.float64)
    ax.set_facecolor(NOWHERE)
    return _image(ax, landscape, np.ma.masked_invalid(values), bounds, cmap="viridis_r", alpha=0.9)


def _heights(landscape: Landscape, bounds: Bounds | None, n: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """A fine lattice, and the landscape on it in float64: plains that are flat in float32 have contours too."""
    points = lattice(landscape, n, bounds=bounds)
    # Without jit: JAX's caches of jitted functions hold NumPy data of a landscape in the dtype of the mode in which it
    # was first traced, float32 after a run, and float64 here would pollute them for the next run.
    with jax.enable_x64(True), jax.disable_jit():
        heights = np.asarray(jax.vmap(jax.vmap(landscape))(jnp.asarray(points, jnp.float64)))
    return points, heights


def _image(ax: Any, landscape: Landscape, image: Any, bounds: Bounds | None, **settings: Any) -> Any:
    """Pixels centred on the points of the lattice, under thin contours."""
    points = lattice(landscape, len(image), bounds=bounds)
    drawn = ax.pcolormesh(points[0, :, 0], points[:, 0, 1], image, shading="nearest", rasterized=True, **settings)
    fine, heights = _heights(landscape, bounds)
    ax.contour(fine[0, :, 0], fine[:, 0, 1], heights, np.unique(np.quantile(heights, np.linspace(0.02, 0.98, 9))),
               colors="black", linewidths=0.4, alpha=0.5)  # fmt: skip
    for minimum in landscape.minima:
        ax.plot(*minimum, "*", color="white", markeredgecolor="black", markersize=13, zorder=4)
    ax.set_xlim(points[0, 0, 0], points[0, -1, 0])
    ax.set_ylim(points[0, 0, 1], points[-1, 0, 1])
    ax.set_xlabel("$x_1$", fontsize=11)
    ax.set_ylabel("$x_2$", fontsize=11)
    return drawn

"""Decision regions of a classifier of two inputs: coloured on the plane, or as a surface above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.colors import to_rgb

from jaxnn.checks import as_numpy, require_number, require_positive_int
from jaxnn.plots.landscape import NOWHERE, Bounds
from jaxnn.plots.style import COLOURS
from jaxnn.types import ArrayLike

CHUNK = 8192
"""The largest number of points that `predict` gets at once: the hidden layers of wide nets are large."""

TINT = 0.42
"""How much of a class's colour its region has; the rest is white, so that lines and points stay visible."""

FLOOR = 0.5
"""The distance of the floor from the lowest point of a surface, as a fraction of the surface's height."""

MARKERS = "osD^vP*X"

Examples = tuple[ArrayLike, ArrayLike]
"""Points (N, 2) and their classes (N,)."""


# To mypy a named tuple with `__call__`, such as a network of `classic`, is this, but no Callable.
class Predict(Protocol):
    """A classifier, from points (M, 2) to outputs."""

    def __call__(self, x: Any, /) -> Any: ...


class Regions(NamedTuple):
    """What `regions` has drawn.

    Attributes:
        points: (n, n, 2), float32; rows ascend in x_2, columns in x_1.
        outputs: of `predict` at these points: (n, n) floats, (n, n, K) floats, or (n, n) integers.
        classes: (n, n), int; the class of each point, -1 where an output is NaN.
    """

    points: np.ndarray
    outputs: np.ndarray
    classes: np.ndarray


def regions(
    ax: Any,
    predict: Predict,
    *,
    bounds: Bounds | None = None,
    examples: Examples | None = None,
    names: Sequence[str] = (),
    threshold: float = 0.5,
    blend: bool = False,
    n: int | None = None,
    colours: Sequence[str] = COLOURS,
) -> Regions:
    """Decision regions on axes: every point in the colour of its class, black lines between the classes.

    | outputs of `predict` | class of a point | height over the plane |
    |---|---|---|
    | (M,) or (M, 1) floats | 1 where the output is at least `threshold`, else 0 | the output |
    | (M, K) floats, K >= 2 | that of the largest output, the first in a tie | the largest output |
    | (M,) or (M, 1) integers or booleans | the output, 0 .. K - 1 | the output |

    On ordinary axes the plane is coloured. On 3D axes (`figure(subplot_kw={"projection": "3d"})`) a surface with these
    colours is drawn, and the lines between the classes on the floor beneath it.

    Args:
        ax: matplotlib axes.
        predict: points (M, 2), float32, to outputs; any classifier, in JAX or not. It gets at most 8,192 points at
            once, always the same number.
        bounds: ((lowest x_1, highest x_1), (lowest x_2, highest x_2)); None for the examples with a margin of a tenth,
            or [-1, 1]^2 where there are none.
        examples: points (N, 2) and their classes (N,), integers 0 .. K - 1, or -1 and +1 for two classes, to be drawn
            on the plane, each class with its own marker.
        names: of the classes 0 .. K - 1, for `ax.legend()`; () for no labels.
        threshold: of single outputs: 1/2 for probabilities and units of 0 and 1, 0 for units of -1 and +1 and logits.
        blend: whether colours are mixed in proportion to the outputs, which must be probabilities: (M,) in [0, 1], or
            (M, K) with rows that add up to 1.
        n: points per side; None for 240 on the plane, 81 for a surface.
        colours: one per class.

    Returns:
        Regions: points, outputs and classes, for titles and tests.

    Raises:
        ValueError: outputs or examples of another shape; more classes than colours or names; classes that are not 0 ..
            K - 1, or one of the examples that `predict` has no output for; with `blend`, outputs that are not
            probabilities; empty bounds; examples on 3D axes.
        TypeError: outputs that are not real numbers.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> drawn = regions(ax, lambda x: x[:, 0] + x[:, 1], threshold=0.0, names=("below", "above"), n=5)
        >>> drawn.classes[0]  # x_2 = -1, x_1 from -1 to 1
        array([0, 0, 0, 0, 1])
    """
    solid = ax.name == "3d"
    if examples is not None and solid:
        raise ValueError("regions: examples are drawn on the plane only. Pass examples=None on 3D axes.")
    require_number("regions", "threshold", threshold)
    if np.isnan(threshold):
        raise ValueError("regions: threshold must be a number, got nan: no output would reach it.")
    points, labels = (np.zeros((0, 2)), np.zeros(0, int)) if examples is None else _examples(*examples)
    limits = np.asarray(_around(points) if bounds is None else bounds, float)
    with np.errstate(over="ignore"):
        ends = limits.astype(np.float32)  # the dtype of the points
    if ends.shape != (2, 2) or not (np.isfinite(ends).all() and np.less(*ends.T).all()):
        raise ValueError(f"regions: expected bounds ((low, high), (low, high)), low < high, got {bounds} in float32.")
    (left, right), (low, high) = limits
    side = require_positive_int("regions", "n", n if n is not None else 81 if solid else 240, 2)
    grid = np.stack(np.meshgrid(np.linspace(left, right, side), np.linspace(low, high, side)), -1).astype(np.float32)
    outputs = _outputs(predict, grid.reshape(-1, 2))
    outputs = outputs.reshape(side, side, *outputs.shape[1:])
    classes = _classes(outputs, threshold)
    count = _count(outputs, classes, labels, names, colours)
    tints = np.array([TINT * np.array(to_rgb(colour)) + 1 - TINT for colour in colours[:count]])
    image = _shares(outputs) @ tints if blend else np.array([*tints, to_rgb(NOWHERE)])[classes]
    draw = _surface if solid else _plane
    draw(ax, grid, outputs, image)
    heights = _above_floor(*ax.get_zlim()) if solid else None
    floor = {"zdir": "z", "offset": heights[0]} if heights else {}
    for margin in _margins(outputs, classes, threshold):
        if (margin < 0).any() and (margin >= 0).any():
            ax.contour(grid[0, :, 0], grid[:, 0, 1], margin, [0.0], colors="black", linewidths=1.2, **floor)
    _name(ax, points, labels, tints, colours, names)
    ax.set(xlim=(left, right), ylim=(low, high), **({"zlim": heights} if heights else {}))
    ax.set_xlabel("$x_1$", fontsize=11)
    ax.set_ylabel("$x_2$", fontsize=11)
    return Regions(grid, outputs, classes)


def _plane(ax: Any, grid: np.ndarray, outputs: np.ndarray, image: np.ndarray) -> None:
    """Pixels centred on the points of the grid."""
    corners = grid[0, 0], grid[-1, -1]
    half = (corners[1] - corners[0]) / (len(grid) - 1) / 2
    (left, low), (right, high) = corners[0] - half, corners[1] + half
    ax.imshow(image, origin="lower", extent=(left, right, low, high), aspect=ax.get_aspect())


def _surface(ax: Any, grid: np.ndarray, outputs: np.ndarray, image: np.ndarray) -> None:
    """The outputs, of several the largest, as heights."""
    heights = (outputs if outputs.ndim == 2 else outputs.max(-1)).astype(float)
    every = {"rcount": len(grid), "ccount": len(grid)}
    ax.plot_surface(
        grid[..., 0], grid[..., 1], heights, facecolors=image, shade=False, linewidth=0, antialiased=False, **every
    )
    ax.set_zlabel("output", fontsize=11)


def _above_floor(low: float, high: float) -> tuple[float, float]:
    """Limits with a floor so far below a surface between low and high that the surface does not hide it."""
    return low - FLOOR * (high - low), high


def _examples(points: ArrayLike, classes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Examples as points (N, 2) and classes (N,) ints, -1 and +1 as 0 and 1."""
    x, y = as_numpy("regions", "examples", points).astype(float), as_numpy("regions", "examples", classes)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"regions: expected examples (points (N, 2), classes (N,)), got shapes {x.shape}, {y.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("regions: examples must be finite.")
    labels = y.astype(int)
    if (labels != y).any():
        raise ValueError(f"regions: classes of examples must be integers, got {y[labels != y][0]}.")
    labels = (labels + 1) // 2 if set(labels.tolist()) == {-1, 1} else labels
    if labels.min() < 0:
        raise ValueError(f"regions: classes of examples must be 0 .. K - 1, or -1 and +1, got {labels.min()}.")
    return x, labels


def _around(points: np.ndarray) -> Bounds:
    """The bounds of points with a margin of a tenth, [-1, 1]^2 for none."""
    if not len(points):
        return (-1.0, 1.0), (-1.0, 1.0)
    low, high = points.min(0), points.max(0)
    margin = np.where(high > low, 0.1 * (high - low), 1.0)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return (left, right), (bottom, top)


def _outputs(predict: Predict, points: np.ndarray) -> np.ndarray:
    """`predict` at points (M, 2), in chunks of one shape, so that a compiled function is compiled once."""
    chunks = -(-len(points) // CHUNK)
    size = -(-len(points) // chunks)
    padded = np.concatenate([points, np.repeat(points[-1:], chunks * size - len(points), 0)])
    made = [np.asarray(predict(chunk)) for chunk in np.split(padded, chunks)]
    outputs = np.concatenate(made) if made[0].ndim else made[0]
    if outputs.ndim not in (1, 2) or len(outputs) != len(padded) or not outputs.size:
        raise ValueError(
            f"regions: predict must return one row per point, ({size},) or ({size}, K) for points {(size, 2)}, got "
            f"shape {made[0].shape}."
        )
    outputs = outputs[: len(points)]
    outputs = outputs[:, 0] if outputs.shape[1:] == (1,) else outputs
    if outputs.dtype.kind in "cOSU":
        raise TypeError(f"regions: predict must return real numbers, got dtype {outputs.dtype}.")
    if outputs.dtype.kind in "iub" and outputs.ndim == 1:
        return outputs.astype(int)
    return outputs.astype(np.float64)


def _classes(outputs: np.ndarray, threshold: float) -> np.ndarray:
    """The class of each point, -1 where an output is NaN."""
    if outputs.dtype.kind == "i":
        return outputs
    if outputs.ndim == 2:
        return np.where(np.isnan(outputs), -1, outputs >= threshold)
    return np.where(np.isnan(outputs).any(-1), -1, outputs.argmax(-1))


def _count(
    outputs: np.ndarray, classes: np.ndarray, labels: np.ndarray, names: Sequence[str], colours: Sequence[str]
) -> int:
    """The number of classes, that of the outputs or the names where they tell it."""
    if outputs.dtype.kind == "i" and classes.min() < 0:
        raise ValueError(
            f"regions: integer outputs are classes 0 .. K - 1, got {classes.min()}. Outputs -1 and +1 are floats with "
            "threshold=0."
        )
    told = 0 if outputs.dtype.kind == "i" else 2 if outputs.ndim == 2 else outputs.shape[-1]
    if told and labels.max(initial=-1) >= told:
        raise ValueError(
            f"regions: predict tells {told} classes, 0 .. {told - 1}, apart, got examples of class {labels.max()}. "
            "Number the classes from 0."
        )
    count = max(told, len(names), int(classes.max()) + 1, int(labels.max(initial=-1)) + 1)
    if names and len(names) < count:
        raise ValueError(f"regions: expected one name per class, {count}, got {len(names)}.")
    if count > len(colours):
        raise ValueError(f"regions: {count} classes need as many colours, got {len(colours)}. Pass colours=...")
    return count


def _shares(outputs: np.ndarray) -> np.ndarray:
    """Probabilities of the classes (n, n, K)."""
    shares = np.stack([1 - outputs, outputs], -1) if outputs.ndim == 2 else outputs
    if outputs.dtype.kind == "i" or not ((shares >= 0).all() and np.allclose(shares.sum(-1), 1, atol=1e-2)):
        raise ValueError(
            "regions: blend needs probabilities, (M,) in [0, 1] or (M, K) with rows that add up to 1. Apply a sigmoid "
            "or softmax, or pass blend=False."
        )
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def _margins(outputs: np.ndarray, classes: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Functions on the grid that change sign where the class changes; together all borders."""
    if outputs.dtype.kind == "i":
        return [np.where(classes == k, 0.5, -0.5) for k in np.unique(classes)[1:]]
    if outputs.ndim == 2:
        return [outputs - threshold]
    others = [np.delete(outputs, k, -1).max(-1) for k in range(outputs.shape[-1] - 1)]
    return [outputs[..., k] - other for k, other in enumerate(others)]


def _name(
    ax: Any, points: np.ndarray, labels: np.ndarray, tints: np.ndarray, colours: Sequence[str], names: Sequence[str]
) -> None:
    """The examples, and the names of the classes: at their markers, else at their colours."""
    for k, tint in enumerate(tints):
        name = names[k] if names else None
        if len(points):
            style = {"marker": MARKERS[k % len(MARKERS)], "color": colours[k], "edgecolors": "white"}
            ax.scatter(*points[labels == k].T, s=26, linewidths=0.7, zorder=3, label=name, **style)
        elif name:
            nowhere: list[float] = []
            ax.plot(
                *[nowhere] * (3 if ax.name == "3d" else 2),
                "s",
                markersize=10,
                color=tint,
                markeredgecolor="black",
                label=name,
            )

"""Images in rows, each with a caption; weights as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnn.checks import as_numpy, pair, require_positive_int
from jaxnn.plots.style import figure


def pictures(images: Sequence[Any], captions: Sequence[str], *, columns: int = 8, title: str = "") -> Figure:
    """Images with captions above them, row by row; grey levels inverted, as ink on paper; "none" if there are none.

    Args:
        images: each (H, W), (H, W, 1) or (H, W, 3), values in [0, 1]; the colours of (H, W, 3) are not inverted.
        captions: one per image, of short lines.
        columns: images per row, >= 1.

    Raises:
        ValueError: the numbers of images and captions differ, or columns < 1.

    Example:
        >>> pictures(np.zeros((3, 8, 8, 1)), ["a", "b", "c"]).axes[2].get_title()
        'c'
    """
    if len(images) != len(captions):
        raise ValueError(f"pictures: expected one caption per image, {len(images)}, got {len(captions)}.")
    columns = require_positive_int("pictures", "columns", columns)
    rows = max(-(-len(images) // columns), 1)
    tallest = max((caption.count("\n") + 1 for caption in captions), default=1)
    fig, axes = figure(rows, columns, width=1.25, height=1.25 + 0.18 * tallest, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, caption in zip(axes.flat, images, captions, strict=False):
        show(ax, image)
        ax.set_title(caption, fontsize=9)
    if not len(images):
        axes[0, 0].text(0.5, 0.5, "none", ha="center", va="center", fontsize=12)
    fig.suptitle(title, fontsize=12)
    return fig


def show(ax: Any, image: Any, *, limit: float | None = None) -> Any:
    """Draw an image (H, W), (H, W, 1) or (H, W, 3) on axes: values in [0, 1], grey ones inverted, as ink on paper.

    Args:
        limit: None, or > 0 for numbers of both signs, such as weights: from -limit, orange, over 0, white, to limit,
            purple.

    Returns:
        Matplotlib's image, for a colour bar.

    Example:
        >>> fig, ax = figure()
        >>> show(ax, [[0.5, -1.0]], limit=1.0).get_clim()
        (-1.0, 1.0)
    """
    image = np.asarray(image)
    colours = {"cmap": "gray_r", "vmin": 0, "vmax": 1}
    if limit is not None:
        colours = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    return ax.imshow(image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image, **colours)


def templates(
    weights: Any, shape: Sequence[int], captions: Sequence[str] = (), *, columns: int = 8, title: str = ""
) -> Figure:
    """The weights of each unit as an image in the shape of its input: z is large where the input resembles it.

    z_j = w_j . x + b_j, the match of the input x with the template w_j. White is 0, purple positive, orange negative,
    on one scale for all units.

    Args:
        weights: (D, units), such as `params[i]["w"]` of the first dense layer.
        shape: (H, W), or (H, W, 1), of the inputs before they were flattened; H W = D.
        captions: one per unit, above it; () numbers them from 1.
        columns: images per row, >= 1.

    Raises:
        ValueError: weights that are not (D, units) of that shape or not finite, another number of captions, or columns
            below 1.

    Example:
        >>> fig = templates(np.eye(4), (2, 2))
        >>> fig.axes[3].get_title(), fig.axes[3].images[0].get_array().tolist()
        ('4', [[0.0, 0.0], [0.0, 1.0]])
    """
    weights = as_numpy("templates", "weights", weights).astype(np.float64)
    shape = pair("templates", "shape", shape, dims=np.size(shape))
    columns = require_positive_int("templates", "columns", columns)
    if (
        weights.ndim != 2
        or not weights.size
        or len(shape) not in (2, 3)
        or shape[2:] not in ((), (1,))
        or weights.shape[0] != math.prod(shape)
    ):
        raise ValueError(
            f"templates: expected weights (D, units) with D = H W of a shape (H, W) or (H, W, 1), got {weights.shape} "
            f"and {shape}."
        )
    if not np.isfinite(weights).all():
        raise ValueError("templates: weights must be finite: all are drawn on one scale.")
    units = weights.shape[1]
    captions = [str(caption) for caption in captions] or [str(j + 1) for j in range(units)]
    if len(captions) != units:
        raise ValueError(f"templates: expected one caption per unit, {units}, got {len(captions)}.")
    limit = float(np.abs(weights).max()) or 1.0
    columns = min(columns, units)
    tallest = max(caption.count("\n") + 1 for caption in captions)
    fig, axes = figure(-(-units // columns), columns, width=1.25, height=1.25 + 0.18 * tallest, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, w, caption in zip(axes.flat, weights.T, captions, strict=False):
        image = show(ax, w.reshape(shape[:2]), limit=limit)
        ax.set_title(caption, fontsize=9)
    fig.colorbar(image, ax=axes, label="weight", shrink=0.9)
    fig.suptitle(title, fontsize=12)
    return fig

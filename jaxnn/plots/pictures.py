"""Images in rows, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnn.plots.style import figure


def pictures(images: Sequence[Any], captions: Sequence[str], *, columns: int = 8, title: str = "") -> Figure:
    """Images with captions above them, row by row; grey levels inverted, as ink on paper; "none" if there are none.

    Args:
        images: each (H, W), (H, W, 1) or (H, W, 3), values in [0, 1]; the colours of (H, W, 3) are not inverted.
        captions: one per image, of short lines.
        columns: images per row, >= 1.

    Raises:
        ValueError: the numbers of images and captions differ.

    Example:
        >>> pictures(np.zeros((3, 8, 8, 1)), ["a", "b", "c"]).axes[2].get_title()
        'c'
    """
    if len(images) != len(captions):
        raise ValueError(f"pictures: expected one caption per image, {len(images)}, got {len(captions)}.")
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


def show(ax: Any, image: Any) -> None:
    """Draw an image (H, W), (H, W, 1) or (H, W, 3) on axes: values in [0, 1], grey ones inverted, as ink on paper."""
    image = np.asarray(image)
    ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray_r", vmin=0, vmax=1)

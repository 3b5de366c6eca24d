"""The look that all figures share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn import files

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's palette: blue, vermilion, green, purple, orange, sky blue, yellow, black."""


PASSES = 5
"""How often the layout of a figure is repeated whose labels stick out."""


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.6, **settings: Any
) -> tuple[Figure, Any]:
    """A figure of rows x columns axes, each `width` x `height` inches; without display or global state.

    Args:
        rows, columns: the grid of axes.
        width, height: of one axes, in inches.
        settings: passed to `Figure.subplots`, such as `sharey=True`.

    Returns:
        (figure, axes): one Axes, or an array of them.

    Example:
        >>> fig, axes = figure(1, 2)
        >>> axes.shape
        (2,)
    """
    fig = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns, **settings)
    for ax in getattr(axes, "flat", [axes]):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=10)
    return fig, axes


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure atomically and return its path; the suffix names the format (.png, .pdf, .svg, ...), none is PNG.

    Raises:
        ValueError: matplotlib does not know the format.
        files.UnwrittenError: the folder does not exist or cannot be written.

    Example:
        >>> import tempfile
        >>> save(figure()[0], Path(tempfile.mkdtemp()) / "empty.png").name
        'empty.png'
    """
    suffix = Path(path).suffix.removeprefix(".").lower() or "png"
    written = _written(fig, suffix)
    engine = fig.get_layout_engine()
    if engine is not None and _sticks_out(fig):
        # Axes of equal aspect are narrower than the space that the layout gave them, so it needs more passes.
        for _ in range(PASSES):
            engine.execute(fig)
        written = _written(fig, suffix)
    return files.write_bytes(path, written)


def _written(fig: Figure, suffix: str) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format=suffix)
    return out.getvalue()


def _sticks_out(fig: Figure) -> bool:
    """Whether something that is drawn, such as a label or a legend, reaches over the border of the figure."""
    box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
    return box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height

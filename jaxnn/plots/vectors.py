"""Arrows, such as the vectors of one update."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxnn.checks import as_numpy
from jaxnn.plots.style import COLOURS
from jaxnn.types import ArrayLike


def arrow(
    ax: Any,
    start: ArrayLike,
    change: ArrayLike,
    text: str = "",
    *,
    colour: str = COLOURS[0],
    dashed: bool = False,
    side: float = 1.0,
    along: float = 0.5,
) -> None:
    """An arrow from `start` to `start + change`, with its name beside it.

    The limits of the axes are not changed. A change of 0 is drawn as a dot.

    Args:
        ax: matplotlib axes.
        start, change: (2,), finite.
        text: the name, in the arrow's colour; "" for none.
        colour: of matplotlib.
        dashed: whether its line is.
        side: where the name stands: 1 is left of the arrow, seen in its direction, -1 right; other numbers are
            nearer or farther.
        along: how far along the arrow the name stands, 0 at its start, 1 at its head.

    Raises:
        ValueError: start or change is not (2,) or not finite.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> arrow(ax, [0.0, 0.0], [1.0, 2.0], "w")
        >>> ax.texts[0].xy, ax.texts[1].get_text()
        ((1.0, 2.0), 'w')
    """
    start, change = (
        np.asarray(as_numpy("arrow", name, value), np.float64) for name, value in (("start", start), ("change", change))
    )
    if start.shape != (2,) or change.shape != (2,) or not np.isfinite([start, change]).all():
        raise ValueError(f"arrow: expected a finite start and change (2,), got {start.tolist()} and {change.tolist()}.")
    head = start + change
    style = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": colour, "linewidth": 2, "shrinkA": 0,
             "shrinkB": 0, "linestyle": (0, (4, 2)) if dashed else "-"}  # fmt: skip
    if change.any():
        ax.annotate("", xy=tuple(map(float, head)), xytext=tuple(map(float, start)), arrowprops=style, zorder=4)
    else:
        ax.plot(*start, "o", color=colour, markersize=6, zorder=4, scalex=False, scaley=False)
    if text:
        length = float(np.hypot(*change)) or 1.0
        left = np.array([-change[1], change[0]]) / length if change.any() else np.array([0.0, 1.0])
        at, aside = start + along * change, 12 * side * left
        ax.annotate(text, xy=tuple(map(float, at)), xytext=tuple(map(float, aside)), textcoords="offset points",
                    color=colour, fontsize=11, ha="center", va="center", zorder=5)  # fmt: skip

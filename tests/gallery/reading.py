"""Drawing a figure of the gallery once, and reading it: faults of its looks, lines by label.

`drawn` refuses a figure with faults, so each test that reads a figure holds its looks, too; tests/gallery/test_build.py
draws those that no other test reads.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from jaxnn.gallery.build import chapters


@functools.cache
def drawn(name: str) -> Any:
    """The figure of this name, without faults."""
    fig = next(picture for each in chapters().values() for picture in each if picture.name == name).draw()
    assert faults(fig) == []
    return fig


def faults(fig: Any) -> list[str]:
    """Legends over data, small print, blank axes, figures without labels."""
    found = [f"a legend covers {label}" for label in covered(fig)]
    if (size := smallest_print(fig)) < 12:
        found.append(f"print of {size:.1f} pixels")
    shown = [ax for ax in fig.axes if ax.get_visible() and ax.axison]
    # Panels of one kind share the labels of the outer ones; images, colour bars and words in place of ticks need none.
    plotted = [ax for ax in shown if (ax.lines or ax.collections) and not ax.images and ax.get_label() != "<colorbar>"]
    for side in ([ax.xaxis for ax in plotted], [ax.yaxis for ax in plotted]):
        if side and not any(each.get_label_text() or _has_words(each) for each in side):
            found.append(f"no label of {side[0].axis_name}")
    drawings = (ax.lines or ax.images or ax.collections or ax.patches or ax.texts for ax in shown)
    found += ["blank axes" for each in drawings if not each]
    return found


def line(ax: Any, label: str) -> np.ndarray:
    """The points (T, 2) of the line whose label begins like this."""
    found = [each for each in ax.lines if str(each.get_label()).startswith(label)]
    if not found:
        raise LookupError(f"no line {label!r}; there are: {[str(each.get_label()) for each in ax.lines]}")
    return np.asarray(found[0].get_xydata(), float)


def covered(fig: Any) -> list[str]:
    """The labels of lines, and "points" of scatters, of which a legend inside the axes covers a part."""
    fig.canvas.draw()
    found = []
    for ax in fig.axes:
        legend = ax.get_legend()
        if legend is None:
            continue
        box = legend.get_window_extent()
        for each in ax.lines:
            if each.get_transform() != ax.transData or len(each.get_xydata()) == 0:
                continue  # lines across the axes, such as axhline, are no data
            if box.count_contains(_dense(ax.transData.transform(each.get_xydata()))):
                found.append(str(each.get_label()))
        for each in ax.collections:
            places = np.asarray(each.get_offsets(), float)
            if len(places) > 1 and box.count_contains(ax.transData.transform(places)):
                found.append("points")
    return found


def smallest_print(fig: Any, widest: float = 1376) -> float:
    """The size in pixels of the smallest text, where the page shows the figure in `widest` pixels or its own width."""
    width, dpi = fig.get_size_inches()[0], fig.dpi
    sizes = [each.get_fontsize() for each in fig.findobj(Text) if each.get_visible() and each.get_text()]
    return float(min(sizes) / 72 * min(dpi, widest / width))


def _has_words(axis: Any) -> bool:
    return isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)


def _dense(places: np.ndarray, step: float = 2.0) -> np.ndarray:
    """Points in pixels along a broken line, at most `step` apart."""
    pieces = [places[:1]]
    for a, b in itertools.pairwise(places):
        if np.isfinite(a).all() and np.isfinite(b).all():
            n = min(int(np.linalg.norm(b - a) / step) + 1, 5000)
            pieces.append(a + (b - a) * np.linspace(0, 1, n + 1)[1:, None])
    return np.concatenate(pieces)

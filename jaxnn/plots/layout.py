"""The places of units and labels in a diagram of a network, in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PITCH, TALLEST, RADIUS = 1.35, 7.6, 0.34
"""The largest distance of two units, the largest height of a column, the largest radius of a unit."""

LINE, CHARACTER = 0.16, 0.07
"""The height of a line and the width of a character of the labels."""


ALONG = np.linspace(-0.5, 0.5, 9)
"""Where the letters of a label are probed, from its left to its right end."""


class Layout(NamedTuple):
    """Where everything is.

    Attributes:
        x: of each column.
        rows: per column the index of the unit in each row, None where dots stand.
        heights: per column the y of each row, descending.
        radius: of all units.
        labels: per column how far along each edge into it the label stands, (D_in, D_out) in (0, 1); None for none.
    """

    x: list[float]
    rows: list[list[int | None]]
    heights: list[np.ndarray]
    radius: float
    labels: list[np.ndarray | None]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of what the centres of the units span."""
        return self.x[-1], max(float(heights[0] - heights[-1]) for heights in self.heights)

    def shown(self, i: int) -> list[tuple[int, float]]:
        """The units of column i that are shown, and their heights."""
        return [(n, float(h)) for n, h in zip(self.rows[i], self.heights[i], strict=True) if n is not None]

    def room(self, i: int) -> int:
        """The number of lines of text that fit below a unit of column i."""
        heights = self.heights[i]
        pitch = float(heights[0] - heights[1]) if len(heights) > 1 else PITCH
        return int((pitch - 2 * self.radius - 0.02) / LINE)


def layout(units: Sequence[int], characters: Sequence[int], below: Sequence[Sequence[int]], most: int) -> Layout:
    """The layout of columns of units.

    Args:
        units: per column.
        characters: per column those of the longest label of the edges into it, 0 for no labels. Where labels would
            overlap even between columns far apart, there are none.
        below: per column the characters of the lines below each of its units.
        most: the largest number of units shown per column.
    """
    rows = [_rows(n, most) for n in units]
    pitches = [min(PITCH, TALLEST / max(len(each) - 1, 1)) for each in rows]
    heights = [pitch * ((len(each) - 1) / 2 - np.arange(len(each))) for each, pitch in zip(rows, pitches, strict=True)]
    radius = min(RADIUS, *(0.42 * pitch for pitch in pitches))
    xs: list[float] = [0.0]
    labels: list[np.ndarray | None] = [None]
    for i in range(1, len(units)):
        gap = max(2 * radius + 1.3, 0.16 * max(len(rows[i - 1]), len(rows[i])))
        at, width = None, CHARACTER * characters[i]
        for stretch in (1.3, 2.0, 2.7, 3.4) if width else ():
            wide = max(gap, 2 * radius + stretch * width + 0.4)
            taken = [_lines_below(heights[k], below[k], radius, x) for k, x in ((i - 1, 0.0), (i, wide))]
            at = _label_places(heights[i - 1], heights[i], wide, radius, width, np.concatenate(taken))
            if at is not None:
                gap = wide
                break
        xs.append(xs[-1] + gap)
        labels.append(at)
    return Layout(xs, rows, heights, radius, labels)


def _rows(units: int, most: int) -> list[int | None]:
    """The shown units of a layer, None for the dots between them."""
    if units <= most:
        return list(range(units))
    return [*range(most - most // 2), None, *range(units - most // 2, units)]


def _lines_below(heights: np.ndarray, characters: Sequence[int], radius: float, x: float) -> np.ndarray:
    """Nine points on each line below each unit of a column at x, (lines, 9, 2)."""
    lines = [
        np.stack([x + ALONG * CHARACTER * n, np.full(len(ALONG), height - radius - LINE * (i + 0.7))], axis=1)
        for height in heights
        for i, n in enumerate(characters)
    ]
    return np.array(lines).reshape(-1, len(ALONG), 2)


def _label_places(
    before: np.ndarray, after: np.ndarray, gap: float, radius: float, width: float, placed: np.ndarray
) -> np.ndarray | None:
    """How far along each edge its label stands, (D_in, D_out) in (0, 1); None where labels would overlap.

    One edge after the other takes the place that is free of those before and of the lines `placed` (lines, 9, 2), away
    from the other edges, and near its middle.
    """
    found = np.zeros((len(before), len(after)))
    for k, j in np.ndindex(*found.shape):
        rise = after[j] - before[k]
        length = float(np.hypot(gap, rise))
        reach = (radius + 0.5 * width) / length
        if reach >= 0.5:
            return None
        middles = np.linspace(reach, 1 - reach, 41)
        at = middles[:, None] + ALONG * width / length  # (41, 9), how far along the edge each letter stands
        points = np.stack([at * gap, before[k] + at * rise], axis=-1)
        apart = np.linalg.norm(points[:, None, :, None] - placed[None, :, None, :], axis=-1)  # (41, labels, 9, 9)
        free = apart.min(axis=(1, 2, 3), initial=9.0) / LINE
        t = at[..., None, None]
        away = np.abs((1 - t) * before[:, None] + t * after - points[..., 1, None, None])  # (41, 9, D_in, D_out)
        away[..., k, j] = 9.0
        clear = away.min(axis=(1, 2, 3)) * gap / length / LINE
        best = int(np.argmax(10 * np.minimum(free, 1.1) + np.minimum(clear, 0.8) - np.abs(middles - 0.5)))
        if free[best] < 1:
            return None
        placed = np.concatenate([placed, points[best][None]])
        found[k, j] = middles[best]
    return found

"""Karnaugh maps of Boolean functions of two to six inputs, with the terms of a sum of products as frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import FancyBboxPatch, Rectangle

from jaxnn.plots.style import COLOURS
from jaxnn.types import ArrayLike

GAP = 1.3
"""Cells between the maps of a function of five or six inputs."""

ROOM = 0.16
"""How far a frame that continues at the opposite border reaches beyond its map, in cells."""

MOST_LEVELS = 5
"""Frames that overlap are drawn inside each other, on so many levels."""


class Layout(NamedTuple):
    """Where the inputs of a map stand: the first inputs choose one of several maps, the last its rows and columns.

    Attributes:
        down, across: inputs that choose the map, by its row and its column: 0 or 1 each.
        rows, columns: inputs that choose the row and the column in a map: 1 or 2 each.
    """

    down: int
    across: int
    rows: int
    columns: int


LAYOUTS = {
    2: Layout(0, 0, 1, 1),
    3: Layout(0, 0, 1, 2),
    4: Layout(0, 0, 2, 2),
    5: Layout(0, 1, 2, 2),
    6: Layout(1, 1, 2, 2),
}


def karnaugh(
    ax: Any,
    table: ArrayLike,
    terms: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    dont_care: ArrayLike | None = None,
) -> np.ndarray:
    """A Karnaugh map on axes: a truth table in which neighbours differ in one input, a frame around each term.

    Rows and columns are in the order 00, 01, 11, 10, and the borders of a map are neighbours too: a frame that is open
    at a border continues at the opposite one. Functions of 5 inputs have two maps, those of 6 four; cells at the same
    place in maps side by side are neighbours.

    Args:
        ax: matplotlib axes. Terms with frames get labels and a legend on the right.
        table: (2^n,) of 0 and 1, n = 2 .. 6; row r belongs to the bits of r, the highest first.
        terms: (T, n) in {-1, 0, 1}: NOT x_i, absent, x_i, as `classic.minimize.minimize(table)` returns; None for no
            frames.
        names: of the n inputs; None for A, B, C, ...
        dont_care: (2^n,), 1 at rows where either output is allowed; their cells show a dash.

    Returns:
        (2^n, 2): x and y of the centre of each row's cell.

    Raises:
        TypeError: a formula in place of its table.
        ValueError: another shape, other values, or another number of names.

    Reference: Karnaugh (1953), The map method for synthesis of combinational logic circuits.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> karnaugh(ax, [0, 0, 1, 0, 0, 1, 0, 1], [[1, 0, 1], [-1, 1, -1]])[:4].tolist()  # AC + A'BC'
        [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [2.0, 0.0]]
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['AC', "A'BC'"]
    """
    values, n = _table("table", table)
    free, _ = (np.zeros_like(values), n) if dont_care is None else _table("dont_care", dont_care)
    if free.shape != values.shape:
        raise ValueError(f"karnaugh: dont_care must have the table's shape {values.shape}, got {free.shape}.")
    letters = [str(name) for name in ("ABCDEF"[:n] if names is None else names)]
    if len(letters) != n:
        raise ValueError(f"karnaugh: names must hold one per input, {n}, got {len(letters)}.")
    framed = np.zeros((0, n), int) if terms is None else np.asarray(terms)
    if framed.ndim != 2 or framed.shape[1] != n or not np.isin(framed, (-1, 0, 1)).all():
        raise ValueError(f"karnaugh: terms must be rows (T, {n}) of -1, 0 and 1, got shape {framed.shape}.")
    layout = LAYOUTS[n]
    bits = (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1
    places, maps = _places(bits, layout)
    _cells(ax, places, values, free)
    _frames(ax, framed.astype(int), letters, bits, places, maps, layout)
    _axes(ax, letters, bits, places, maps, layout)
    return places


def _table(name: str, table: ArrayLike) -> tuple[np.ndarray, int]:
    """A truth table as booleans (2^n,), and n."""
    if isinstance(table, str) or hasattr(table, "table"):
        given = "a formula" if isinstance(table, str) else type(table).__name__
        raise TypeError(f"karnaugh: {name} must be (2^n,), got {given}. Pass classic.boolean.parse(formula).table.")
    bits = np.asarray(table)
    n = max(bits.size - 1, 1).bit_length()
    if bits.shape != (2**n,) or n not in LAYOUTS:
        raise ValueError(f"karnaugh: {name} must be (2^n,) for n = 2 .. 6 inputs, got shape {bits.shape}.")
    if not np.isin(bits, (0, 1)).all():
        raise ValueError(f"karnaugh: {name} must hold 0 and 1, got {np.unique(bits)[:5].tolist()}.")
    return bits.astype(bool), n


def _places(bits: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The centre (x, y) of each row's cell, (2^n, 2), and the centre of the first cell of its map, (2^n, 2)."""
    down, across, rows, columns = np.split(bits, np.cumsum(layout)[:3], axis=1)
    x, y = _order(columns), _order(rows)
    first = np.stack([_order(across) * (2**layout.columns + GAP), _order(down) * (2**layout.rows + GAP)], 1)
    return first + np.stack([x, y], 1), first


def _order(bits: np.ndarray) -> np.ndarray:
    """The position of up to two bits (R, B) in the order 0, 1, or 00, 01, 11, 10, in which neighbours differ in one."""
    code = bits @ (1 << np.arange(bits.shape[1])[::-1])
    return code ^ (code >> 1)


def _cells(ax: Any, places: np.ndarray, values: np.ndarray, free: np.ndarray) -> None:
    """The cells with their values, true ones grey."""
    for (x, y), value, either in zip(places, values, free, strict=True):
        face = "#EFEFEF" if either else "#D4D4D4" if value else "white"
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="#AAAAAA", linewidth=0.8))
        ax.text(x, y, "-" if either else str(int(value)), ha="center", va="center", fontsize=12)


def _frames(
    ax: Any,
    terms: np.ndarray,
    letters: Sequence[str],
    bits: np.ndarray,
    places: np.ndarray,
    maps: np.ndarray,
    layout: Layout,
) -> None:
    """A frame around the cells of each term, in pieces where it continues at the opposite border."""
    covers = ((terms[:, None] == 0) | (terms[:, None] == 2 * bits - 1)).all(-1)
    levels: list[int] = []
    for k, cover in enumerate(covers):
        taken = {levels[j] for j in range(k) if (covers[j] & cover).any()}
        levels.append(next(level for level in range(len(terms)) if level not in taken))
        style: dict[str, Any] = {
            "boxstyle": "round,pad=0,rounding_size=0.18",
            "linewidth": 2.2,
            "edgecolor": COLOURS[k % len(COLOURS)],
            "linestyle": ("-", "--", ":", "-.")[k // len(COLOURS) % 4],
            "facecolor": "none",
        }
        factors = (x + ("'" if s < 0 else "") for x, s in zip(letters, terms[k], strict=True) if s)
        # x1x2 reads well, but words run together do not.
        label = ("" if all(len(x.rstrip("0123456789")) == 1 for x in letters) else " ").join(factors) or "1"
        inset = 0.08 + 0.07 * (levels[-1] % MOST_LEVELS)
        for first in np.unique(maps[cover], axis=0):
            inside = np.rint(places[cover & (maps == first).all(1)] - first)  # whole cells, whatever the gap
            window = Rectangle(
                first - 0.5 - ROOM, 2**layout.columns + 2 * ROOM, 2**layout.rows + 2 * ROOM, transform=ax.transData
            )
            for left, right in _pieces(np.unique(inside[:, 0]), 2**layout.columns):
                for top, bottom in _pieces(np.unique(inside[:, 1]), 2**layout.rows):
                    corner = first + np.array([left + inset, top + inset])
                    size = right - left - 2 * inset, bottom - top - 2 * inset
                    box = ax.add_patch(FancyBboxPatch(corner, *size, label=label, **style))
                    box.set_clip_path(window)
                    label = "_nolegend_"
    if len(terms):
        ax.legend(fontsize=10, loc="center left", bbox_to_anchor=(1.0, 0.5), title="term")


def _pieces(positions: np.ndarray, size: int) -> list[tuple[float, float]]:
    """Ends of the runs of neighbours among positions 0 .. size - 1, beyond the border where a run continues there."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    ends = [(float(run[0]) - 0.5, float(run[-1]) + 0.5) for run in runs]
    if len(ends) == 2 and positions[0] == 0 and positions[-1] == size - 1:
        return [(ends[0][0] - 1, ends[0][1]), (ends[1][0], ends[1][1] + 1)]
    return ends


def _axes(
    ax: Any, letters: Sequence[str], bits: np.ndarray, places: np.ndarray, maps: np.ndarray, layout: Layout
) -> None:
    """Ticks with the bits of rows and columns, a heading over each of several maps, and labels."""
    chosen, rows, columns = np.split(np.arange(bits.shape[1]), np.cumsum([layout.down + layout.across, layout.rows]))
    for axis, inputs, at in ((ax.xaxis, columns, places[:, 0]), (ax.yaxis, rows, places[:, 1])):
        ticks, where = np.unique(at, return_index=True)
        axis.set_ticks(ticks, ["".join(map(str, bits[row, inputs])) for row in where])
        joint = "" if all(len(letters[i]) == 1 for i in inputs) else " "
        axis.set_label_text(joint.join(letters[i] for i in inputs), fontsize=11)
    if len(chosen):
        for first in np.unique(maps, axis=0):
            row = int(np.flatnonzero((maps == first).all(1))[0])
            heading = ", ".join(f"{letters[i]} = {bits[row, i]}" for i in chosen)
            ax.text(
                first[0] + 2**layout.columns / 2 - 0.5, first[1] - 0.5 - 1.5 * ROOM, heading, ha="center", fontsize=11
            )
    heading_room = 0.6 if len(chosen) else 0.0
    (left, top), (right, bottom) = places.min(0) - 0.5 - ROOM, places.max(0) + 0.5 + ROOM
    ax.set(xlim=(left, right), ylim=(bottom, top - heading_room), aspect="equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)

"""Karnaugh maps: neighbours differ in one input, frames hold the cells of their terms and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch, Rectangle

from jaxnn import plots
from jaxnn.classic import boolean, minimize, parity
from jaxnn.plots.karnaugh import GAP, ROOM


def drawn(table: Any, terms: Any = None, **settings: Any) -> tuple[Any, np.ndarray]:
    _, ax = plots.figure()
    return ax, plots.karnaugh(ax, table, terms, **settings)


def frames(ax: Any) -> list[list[FancyBboxPatch]]:
    """The pieces of each frame, in the order of the terms."""
    found: list[list[FancyBboxPatch]] = []
    for patch in ax.patches:
        if isinstance(patch, FancyBboxPatch):
            if patch.get_label() != "_nolegend_":
                found.append([])
            found[-1].append(patch)
    return found


def framed(pieces: list[FancyBboxPatch], places: np.ndarray) -> np.ndarray:
    """Which cells have their centre in a piece of a frame."""
    inside = np.zeros(len(places), bool)
    for piece in pieces:
        low = np.array([piece.get_x(), piece.get_y()])
        high = low + np.array([piece.get_width(), piece.get_height()])
        inside |= ((places > low) & (places < high)).all(1)
    return inside


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_neighbours_differ_in_one_input(n: int) -> None:
    _, places = drawn(parity.table(n))
    assert len(np.unique(places, axis=0)) == 2**n
    bits = boolean.inputs(n)
    distance = np.abs(places[:, None] - places).sum(-1)
    differ = np.abs(bits[:, None] - bits).sum(-1)
    assert (differ[np.isclose(distance, 1)] == 1).all()
    # The opposite borders of a map, and the same place in maps side by side, differ in one input too.
    rows, columns = (1, 1) if n == 2 else (1, 2) if n == 3 else (2, 2)
    maps = places - places % 1 if n < 5 else np.round(places / (4 + GAP) - 0.3) * (4 + GAP)
    local = np.round(places - maps if n > 4 else places)
    same = (maps[:, None] == maps).all(-1) if n > 4 else np.ones((2**n, 2**n), bool)
    for axis, size in ((0, 2**columns), (1, 2**rows)):
        ends = (np.abs(local[:, None, axis] - local[:, axis]) == size - 1) & same
        level = local[:, None, 1 - axis] == local[:, 1 - axis]
        assert (differ[ends & level] == 1).all()
    beside = (local[:, None] == local).all(-1) & ~same & (np.isclose(places[:, None], places).any(-1))
    assert (differ[beside] == 1).all()
    assert beside.sum() == {5: 32, 6: 128}.get(n, 0)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_frames_hold_the_cells_of_their_terms(n: int) -> None:
    rng = np.random.default_rng(n)
    for share in (0.3, 0.6, 0.9):
        table = rng.random(2**n) < share
        terms = minimize.minimize(table)
        ax, places = drawn(table, terms)
        cover = minimize.covers(terms, boolean.inputs(n))
        found = frames(ax)
        assert len(found) == len(terms)
        for pieces, cells in zip(found, cover, strict=True):
            np.testing.assert_array_equal(framed(pieces, places), cells)
        np.testing.assert_array_equal(np.any([framed(each, places) for each in found], axis=0), table)
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert " + ".join(labels) == minimize.text(terms)


def test_a_frame_over_the_border_is_open_there() -> None:
    ax, _ = drawn([1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0], [[0, -1, 0, -1]])  # the four corners
    (pieces,) = frames(ax)
    assert len(pieces) == 4
    for piece in pieces:
        assert sorted([round(piece.get_width(), 2), round(piece.get_height(), 2)]) == [1.84, 1.84]
        corners = np.array([[piece.get_x(), piece.get_y()], [piece.get_x() + 1.84, piece.get_y() + 1.84]])
        assert ((corners < -1) | (corners > 4)).any(0).all(), "it reaches beyond the map, where it is clipped"
        window = ax.transData.inverted().transform(piece.clipbox)
        np.testing.assert_allclose(np.sort(window, axis=0), [[-0.5 - ROOM] * 2, [3.5 + ROOM] * 2])


@pytest.mark.parametrize("n", [5, 6])
def test_every_map_has_the_same_frames(n: int) -> None:
    terms = np.zeros((2, n), int)
    terms[0, -4:], terms[1, -4:] = (-1, -1, 1, 0), (0, -1, 1, 1)  # two columns; two rows, over the border
    ax, _ = drawn(minimize.covers(terms, boolean.inputs(n)).any(axis=0), terms)
    beside, over = frames(ax)
    maps = 2 ** (n - 4)
    assert (len(beside), len(over)) == (maps, 2 * maps)
    assert all(piece.get_width() > 1.5 > 1 > piece.get_height() for piece in beside)
    assert all(piece.get_height() > 1.5 > 1 > piece.get_width() for piece in over), "open at the border"


def test_overlapping_frames_do_not_coincide() -> None:
    ax, _ = drawn(np.ones(8), [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    widths = [piece.get_width() for (piece,) in frames(ax)]
    assert len(set(widths)) == 3


def test_cells_hold_their_values() -> None:
    table, free = parity.table(4), np.arange(16) >= 12
    ax, places = drawn(table, dont_care=free)
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    for place, value, either in zip(places, table, free, strict=True):
        assert shown[tuple(place)] == ("-" if either else str(int(value)))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("CD", "AB")
    assert [t.get_text() for t in ax.get_xticklabels()] == [t.get_text() for t in ax.get_yticklabels()]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["00", "01", "11", "10"]
    assert ax.get_legend() is None


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_parity_is_a_checkerboard(n: int) -> None:
    ax, places = drawn(parity.table(n))
    dark = {c.get_facecolor() for c in ax.patches if isinstance(c, Rectangle)}
    assert len(dark) == 2
    shade = np.array([patch.get_facecolor()[0] < 0.9 for patch in ax.patches])
    close = np.isclose(np.abs(places[:, None] - places).sum(-1), 1)
    assert (shade[:, None] != shade)[close].all()
    assert len(minimize.minimize(parity.table(n))) == 2 ** (n - 1)


def test_names_and_headings() -> None:
    ax, _ = drawn(np.zeros(32), [[1, -1, 0, 0, 1]], names=["a", "b", "c", "x1", "x2"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x1 x2", "bc")
    assert [text.get_text() for text in ax.texts][-2:] == ["a = 0", "a = 1"]
    assert ax.get_legend().get_texts()[0].get_text() == "ab'x2"
    ax, _ = drawn(np.ones(64), [[0] * 6])
    assert [text.get_text() for text in ax.texts][-1] == "A = 1, B = 1"
    assert ax.get_legend().get_texts()[0].get_text() == "1"


def test_words_are_set_apart_and_stay_within_the_figure(tmp_path: Path) -> None:
    table = np.array([0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1])
    words = ["rain", "umbrella", "wind", "roof"]
    ax, _ = drawn(table, [[0, 0, 1, 1], [1, -1, 0, 0], [1, 0, 1, 0]], names=words)
    assert [term.get_text() for term in ax.get_legend().get_texts()] == ["wind roof", "rain umbrella'", "rain wind"]
    plots.save(ax.figure, tmp_path / "map.png")
    box, (width, height) = ax.figure.get_tightbbox(), ax.figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0


BAD: list[tuple[str, Callable[[], Any]]] = [
    (r"table must be \(2\^n,\) for n = 2 .. 6 inputs, got shape \(2,\)", lambda: drawn([0, 1])),
    (r"got shape \(128,\)", lambda: drawn(np.zeros(128))),
    (r"got shape \(5,\)", lambda: drawn(np.zeros(5))),
    (r"must hold 0 and 1, got \[0, 2\]", lambda: drawn([0, 2, 0, 0])),
    ("one per input, 2, got 3", lambda: drawn(np.zeros(4), names="ABC")),
    (r"rows \(T, 2\) of -1, 0 and 1, got shape \(1, 3\)", lambda: drawn(np.zeros(4), [[1, 0, 1]])),
    (r"dont_care must have the table's shape \(4,\), got \(8,\)", lambda: drawn(np.zeros(4), dont_care=np.zeros(8))),
]


@pytest.mark.parametrize("given", ["AB", boolean.parse("AB")])
def test_a_formula_is_no_table(given: Any) -> None:
    with pytest.raises(TypeError, match=r"table must be \(2\^n,\), got .* Pass classic.boolean.parse"):
        drawn(given)


@pytest.mark.parametrize(("text", "call"), BAD)
def test_bad_input_is_named(text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=text):
        call()

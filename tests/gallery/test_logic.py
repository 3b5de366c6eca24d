"""The pictures of Boolean functions: what titles and captions say is counted again."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch, Rectangle

from jaxnn import plots
from jaxnn.classic import boolean, minimize, parity, separability
from jaxnn.gallery import logic
from tests.gallery.reading import drawn
from tests.gallery.test_regions import at
from tests.helpers import slow

BY_NAME = {picture.name: picture for picture in logic.PICTURES}


@pytest.mark.parametrize("name", ["one-unit-share", *slow(*(name for name in BY_NAME if name != "one-unit-share"))])
def test_pictures_have_titles_and_labels(name: str, tmp_path: Any) -> None:
    fig = drawn(name)
    assert fig.get_suptitle()
    assert all(ax.get_title() for ax in fig.axes)
    assert fig.axes[0].get_xlabel() or name == "boolean-units"
    assert plots.save(fig, tmp_path / f"{name}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_fourteen_functions_are_one_units() -> None:
    fig = drawn("boolean-units")
    assert "14 of 16 by one unit" in fig.get_suptitle()
    x = boolean.inputs(2)
    single = 0
    for ax, table in zip(fig.axes, boolean.inputs(4).astype(bool), strict=True):
        np.testing.assert_array_equal(at(ax, x) == 1, table)
        formula, how = ax.get_title().split("\n")
        np.testing.assert_array_equal(boolean.parse(formula, names="AB").table, table)
        if how.endswith("≥ 0"):
            single += 1
            told = re.sub(r"(\d)([AB])", r"\1*\2", how.removesuffix(" ≥ 0"))
            np.testing.assert_array_equal(eval(told, {"A": x[:, 0], "B": x[:, 1]}) + np.zeros(4) >= 0, table)
        else:
            assert formula in ("A'B + AB'", "A'B' + AB")
    assert single == 14


def test_shares_and_counts() -> None:
    left, right = drawn("one-unit-share").axes
    told = [text.get_text() for text in left.texts]
    assert told == ["4 of 4", "14 of 16", "104 of 256", "1,882 of 65,536"]
    heights = [bar.get_height() for bar in left.patches]
    np.testing.assert_allclose(heights, [100, 87.5, 40.625, 100 * 1882 / 65536])
    assert heights == sorted(heights, reverse=True), "the share falls"
    one, none = ([bar.get_height() for bar in bars] for bars in right.containers)
    np.testing.assert_array_equal(np.add(one, none), [1, 8, 28, 56, 70, 56, 28, 8, 1])
    assert sum(one) == 104
    assert none[1] == none[7] == 0
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["by one unit: 104", "not by one unit: 152"]


@pytest.mark.slow
def test_maps_have_a_frame_for_each_term() -> None:
    for ax, formula, n in zip(drawn("karnaugh-maps").axes, logic.FORMULAS, range(2, 7), strict=True):
        table = boolean.parse(formula).table
        assert len(table) == 2**n
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        np.testing.assert_array_equal(boolean.parse(" + ".join(labels), names="ABCDEF"[:n]).table, table)
        assert ax.get_title() == f"{table.sum()} true rows, {len(labels)} terms"
        framed = {patch.get_label() for patch in ax.patches if isinstance(patch, FancyBboxPatch)} - {"_nolegend_"}
        assert framed == set(labels)
        for label in labels:  # a term of 2^k cells has k literals fewer
            cells = boolean.parse(label, names="ABCDEF"[:n]).table.sum()
            assert cells == 2 ** (n - len(label.replace("'", "")))


@pytest.mark.slow
def test_parity_needs_the_most_terms() -> None:
    for ax, n in zip(drawn("karnaugh-parity").axes, range(2, 7), strict=True):
        assert ax.get_title() == f"{n} inputs: {2 ** (n - 1)} terms"
        dark = [cell.get_facecolor()[0] < 0.9 for cell in ax.patches if isinstance(cell, Rectangle)]
        np.testing.assert_array_equal(dark, parity.table(n))
    # Of all functions of up to 3 inputs none needs more than parity.
    for n in (2, 3):
        most = max(len(minimize.minimize(table)) for table in separability.boolean_functions(n).tables)
        assert most == 2 ** (n - 1)


@pytest.mark.slow
def test_segments_are_those_of_the_digits() -> None:
    left, right = drawn("seven-segments").axes
    lit = np.array([patch.get_facecolor()[2] < 0.5 for patch in left.patches]).reshape(10, 7)
    for digit, row in enumerate(lit):
        assert "".join(name for name, on in zip("abcdefg", row, strict=True) if on) == logic.SEGMENTS[digit]
    hidden = int(left.get_title().split()[0])
    terms = [text.get_text() for text in right.get_yticklabels()]
    assert len(terms) == hidden == 9
    used = [[terms[round(y)] for y in line.get_ydata()] for line in right.lines]
    uses, apart = (int(number) for number in re.findall(r"(\d+) (?:uses|terms\))", right.get_title()))
    assert sum(map(len, used)) == uses
    assert hidden < apart
    for k, mine in enumerate(used):
        table = boolean.parse(" + ".join(mine), names="ABCD").table[:10]
        np.testing.assert_array_equal(table, lit[:, k])


def test_free_rows_make_terms_shorter() -> None:
    tables, free = logic.segment_tables()
    with_free, without = minimize.minimize_together(tables, free), minimize.minimize_together(tables)
    assert np.abs(with_free.terms).sum(1).mean() < np.abs(without.terms).sum(1).mean()

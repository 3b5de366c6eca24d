"""Boolean functions: those of one unit, Karnaugh maps, parity's checkerboard, several functions that share terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxnn import plots
from jaxnn.classic import boolean, gates, minimize, parity, separability
from jaxnn.gallery.base import Picture
from jaxnn.gallery.regions import condition, corners

BLUE, ORANGE, GREEN, *_ = plots.COLOURS

FORMULAS = (
    "A + B",
    "AB + AC + BC",
    "A'B'C' + A'BD + BCD' + AB'D' + AB'C'",
    "A'B'CE' + BD'E + ACDE + (A ^ B)C'D",
    "(A + B + C')(D ^ E)F + AB'CD' + A'BC'F'",
)
"""Functions of 2, 3, 4, 5 and 6 inputs for `karnaugh-maps`."""

SEGMENTS = {
    0: "abcdef", 1: "bc", 2: "abdeg", 3: "abcdg", 4: "bcfg",
    5: "acdfg", 6: "acdefg", 7: "abc", 8: "abcdefg", 9: "abcdfg",
}  # fmt: skip
"""The lit segments of each decimal digit: a top, b and c right, d bottom, e and f left, g middle."""

BARS = {
    "a": (0.1, 1.9, 0.8, 0.12), "b": (0.88, 1.08, 0.12, 0.84), "c": (0.88, 0.08, 0.12, 0.84),
    "d": (0.1, 0.0, 0.8, 0.12), "e": (0.0, 0.08, 0.12, 0.84), "f": (0.0, 1.08, 0.12, 0.84),
    "g": (0.1, 0.95, 0.8, 0.12),
}  # fmt: skip
"""x, y, width and height of each segment."""


def _boolean_units() -> Figure:
    """All 16 functions of two inputs: 14 by one unit, XOR and its negation by a hidden layer."""
    found, rows = separability.boolean_functions(2), boolean.inputs(2)
    fig, axes = plots.figure(4, 4, width=2.5, height=2.75, sharex=True, sharey=True)
    for ax, table, w, single in zip(axes.flat, found.tables, found.w, found.separable, strict=True):
        network = gates.unit(w[1:], w[0]) if single else boolean.minimized(table)
        plots.regions(ax, network, bounds=((-0.5, 1.5),) * 2, n=120)
        corners(ax, rows, table)
        how = condition(network) if single else f"{network.units} units"
        ax.set_title(f"{minimize.text(minimize.minimize(table))}\n{how}", fontsize=10.5)
        ax.label_outer()
    count = f"{found.separable.sum()} of {len(found.tables)}"
    fig.suptitle(f"The Boolean functions of two inputs: {count} by one unit", fontsize=12)
    return fig


def _share() -> Figure:
    """How many Boolean functions one unit computes, by the number of inputs, and of three inputs by true rows."""
    fig, (left, right) = plots.figure(1, 2, width=5.2, height=4.0)
    sizes = range(1, 5)
    found = {n: separability.boolean_functions(n) for n in sizes}
    shares = [100 * found[n].separable.mean() for n in sizes]
    left.bar(sizes, shares, color=BLUE)
    for n, share in zip(sizes, shares, strict=True):
        left.text(
            n, share + 2, f"{found[n].separable.sum():,} of {len(found[n].separable):,}", ha="center", fontsize=10
        )
    left.set_xticks(sizes)
    left.set_ylim(0, 112)
    left.set_xlabel("inputs", fontsize=11)
    left.set_ylabel("functions that one unit computes (%)", fontsize=11)
    left.set_title("by the number of inputs", fontsize=11)
    three = found[3]
    ones = three.tables.sum(1)
    counts = [np.bincount(ones[three.separable == single], minlength=9) for single in (True, False)]
    right.bar(range(9), counts[0], color=BLUE, label=f"by one unit: {counts[0].sum()}")
    right.bar(range(9), counts[1], bottom=counts[0], color=ORANGE, label=f"not by one unit: {counts[1].sum()}")
    right.set_xticks(range(9))
    right.set_ylim(0, 90)
    right.set_xlabel("true rows of the table", fontsize=11)
    right.set_ylabel("functions of three inputs", fontsize=11)
    right.set_title("the 256 functions of three inputs", fontsize=11)
    right.legend(fontsize=10)
    fig.suptitle("Most Boolean functions of three and more inputs are not linearly separable", fontsize=12)
    return fig


def _karnaugh_maps() -> Figure:
    """Karnaugh maps of functions of two to six inputs, with the fewest terms as frames."""
    fig, axes = _five()
    for ax, formula in zip(axes, FORMULAS, strict=True):
        function = boolean.parse(formula)
        terms = minimize.minimize_exactly(function.table)
        plots.karnaugh(ax, function.table, terms, names=function.names)
        ax.set_title(f"{function.table.sum()} true rows, {len(terms)} terms", fontsize=11)
    fig.suptitle("Karnaugh maps of two to six inputs: a frame for each term", fontsize=12)
    return fig


def _checkerboards() -> Figure:
    """Parity of two to six inputs: no two true cells are neighbours."""
    fig, axes = _five()
    for ax, n in zip(axes, range(2, 7), strict=True):
        table = parity.table(n)
        terms = minimize.minimize(table)
        plots.karnaugh(ax, table)
        ax.set_title(f"{n} inputs: {len(terms)} terms", fontsize=11)
    fig.suptitle("Parity is a checkerboard: each true cell needs a term of its own", fontsize=12)
    return fig


def _five() -> tuple[Figure, list[Any]]:
    """A figure with axes for maps of two to six inputs: three above, two larger ones below."""
    fig, axes = plots.figure(2, 6, width=2.2, height=4.3, height_ratios=(1, 1.35))
    grid = axes[0, 0].get_gridspec()
    for ax in axes.flat:
        ax.remove()
    places = (grid[0, :2], grid[0, 2:4], grid[0, 4:], grid[1, :3], grid[1, 3:])
    return fig, [fig.add_subplot(place) for place in places]


def segment_tables() -> tuple[np.ndarray, np.ndarray]:
    """The tables (7, 16) of the segments a to g for the binary digits of 0 to 9, and don't cares for 10 to 15."""
    lit = np.array([[name in SEGMENTS.get(digit, "") for digit in range(16)] for name in "abcdefg"])
    return lit, np.tile(np.arange(16) > 9, (7, 1))


def _segments() -> Figure:
    """The digits that a network with shared terms lights, and which segment uses which term."""
    tables, free = segment_tables()
    network = boolean.shared(tables, free)
    terms, uses = minimize.minimize_together(tables, free)
    apart = [minimize.minimize_exactly(*each) for each in zip(tables, free, strict=True)]
    fig, (left, right) = plots.figure(1, 2, width=5.4, height=3.9, width_ratios=(1.15, 1))
    lit = np.asarray(network(boolean.inputs(4)[:10]))
    for digit, row in enumerate(lit):
        x, y = 1.9 * (digit % 5), -3.0 * (digit // 5)
        for name, on in zip("abcdefg", row, strict=True):
            dx, dy, width, height = BARS[name]
            left.add_patch(Rectangle((x + dx, y + dy), width, height, facecolor=ORANGE if on else "#E8E8E8"))
        left.text(x + 0.5, y - 0.45, f"{digit:04b}", ha="center", fontsize=10)
    left.set(xlim=(-0.4, 9.0), ylim=(-3.7, 2.3), aspect="equal")
    left.set_xticks([])
    left.set_yticks([])
    left.spines[:].set_visible(False)
    left.set_xlabel("inputs ABCD, one digit each", fontsize=11)
    left.set_title(f"{network.units - 7} hidden units, 7 outputs", fontsize=11)
    for k, column in enumerate(uses):
        at = np.flatnonzero(column)
        right.plot(np.full(len(at), k), at, "o-", color=GREEN, markersize=9, linewidth=1)
    right.set_xticks(range(7), "abcdefg")
    right.set_yticks(range(len(terms)), [minimize.text(term[None]) for term in terms])
    right.invert_yaxis()
    right.grid(alpha=0.3)
    right.set_xlabel("segment", fontsize=11)
    right.set_ylabel("term", fontsize=11)
    right.set_title(f"{len(terms)} terms in {uses.sum()} uses (apart: {sum(map(len, apart))} terms)", fontsize=11)
    fig.suptitle("Seven functions of four inputs share their terms: a seven-segment display", fontsize=12)
    return fig


PICTURES: tuple[Picture, ...] = (
    Picture(
        "boolean-units",
        "The Boolean functions of two inputs",
        "Each panel is a function of A and B, its true corners filled, with a threshold unit that computes it: the "
        "inequality above is where it fires. Only XOR and its negation have no unit; theirs are regions of a network "
        "with a hidden layer. The weights are the smallest integers that do.",
        r"y = H(w_1 A + w_2 B + b)",
        "McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity; Minsky & Papert "
        "(1969), Perceptrons",
        _boolean_units,
    ),
    Picture(
        "one-unit-share",
        "How many Boolean functions one unit computes",
        "Of two inputs all but XOR and its negation, of three 104 of 256, of four 1,882 of 65,536: the share falls "
        "with every input. For each other function there are two true inputs with the same sum as two false ones, "
        "which no hyperplane separates. Functions of three inputs with one true row, or with all but one, are all "
        "separable.",
        r"x_a + x_b = x_c + x_d, \quad f(x_a) = f(x_b) = 1, \quad f(x_c) = f(x_d) = 0",
        "Muroga (1971), Threshold logic and its applications; Elgot (1961), Truth functions realizable by single "
        "threshold organs",
        _share,
    ),
    Picture(
        "karnaugh-maps",
        "Karnaugh maps of two to six inputs",
        "Neighbouring cells differ in one input, and so do opposite borders: a frame that is open at a border "
        "continues at the other side. Five inputs need two maps, six need four; cells at the same place of maps "
        "beside or above each other are neighbours too, so that a term may have a frame in each. A term of 2, 4 or 8 "
        "cells has 1, 2 or 3 literals fewer than one of a single cell.",
        r"xy + xy' = x",
        "Karnaugh (1953), The map method for synthesis of combinational logic circuits",
        _karnaugh_maps,
    ),
    Picture(
        "karnaugh-parity",
        "Parity is a checkerboard",
        "Changing one input of parity changes its value, so that no two true cells of its map are neighbours, and no "
        "frame holds more than one. The disjunctive form keeps a term for each of the 2^(N-1) true rows, the most that "
        "a minimized function of N inputs can need.",
        r"x_1 \oplus x_2 \oplus \cdots \oplus x_N: \quad 2^{N-1} \; \mathrm{terms}",
        "Karnaugh (1953), The map method for synthesis of combinational logic circuits; Minsky & Papert (1969), "
        "Perceptrons",
        _checkerboards,
    ),
    Picture(
        "seven-segments",
        "Several functions that share their terms",
        "A network with one hidden layer shows the decimal digits: four inputs, a hidden AND unit for each term, an OR "
        "for each of the seven segments. A term that several segments use is one unit. The inputs above 9 do not "
        "occur, so that their outputs are free and the terms can be shorter.",
        r"y_k = \bigvee_{t \in T_k} \bigwedge_i \ell_{ti}",
        "Bartee (1961), Computer design of multiple-output logical networks; McCluskey (1956), Minimization of Boolean "
        "functions",
        _segments,
    ),
)  # fmt: skip

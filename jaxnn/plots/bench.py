"""Figures of a comparison: quantile bands, sensitivity to a learning rate, performance profiles, bars.

Each line has its own colour, dash pattern and marker, so that no figure relies on colour alone.

Each function but `line_style` draws on matplotlib axes `ax`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxnn.plots.style import COLOURS

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 2)))
MARKERS = "os^DvPX*"


def line_style(i: int) -> dict[str, Any]:
    """Colour, dashes and marker of the i-th line."""
    # Black precedes yellow, which is faint on white; the second cycle through the colours has other dashes.
    order = (0, 1, 2, 3, 4, 5, 7, 6)
    turn = i // len(order)
    return {
        "color": COLOURS[order[i % len(order)]],
        "linestyle": DASHES[(i + turn) % len(DASHES)],
        "marker": MARKERS[(i + turn) % len(MARKERS)],
    }


def bands(ax: Any, runs: Mapping[str, Any], *, x: Sequence[float] | None = None) -> None:
    """The median of the runs of each name, and the band between their quartiles, against the epoch.

    Args:
        runs: name -> (R, E) values of R runs; NaN where a run has ended. The band ends where more than a quarter of the
            runs have ended, the line where half of them have.
        x: (E,), horizontal coordinates; None for 1 .. E.

    Raises:
        ValueError: values that are not (R, E), or empty.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> bands(ax, {"adam": np.array([[3.0, 1.0], [4.0, 2.0]])})
        >>> ax.lines[0].get_ydata().tolist()
        [3.5, 1.5]
    """
    for i, (name, values) in enumerate(runs.items()):
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or not values.size:
            raise ValueError(f"bands: expected values (R, E) of {name!r}, got shape {values.shape}.")
        at = np.arange(1, values.shape[1] + 1) if x is None else np.asarray(x)
        style = line_style(i)
        low, middle, high = (_quantile(values, q) for q in (0.25, 0.5, 0.75))
        every = max(len(at) // 8, 1)
        marks = range(i % every, len(at), every)
        ax.plot(at, middle, label=name, markevery=marks, **_width(i), **style)
        if len(at) < 3:
            ax.set_xlim(at[0] - 0.5, at[-1] + 0.5)
        shown = np.isfinite(low) & np.isfinite(high)
        ax.fill_between(at, low, high, where=shown, color=style["color"], alpha=0.18, linewidth=0)


def sensitivity(ax: Any, rates: Any, values: Mapping[str, Any], chosen: Mapping[str, float]) -> None:
    """The metric against the learning rate, on a logarithmic axis, a line per name; a cross where a run diverged.

    Args:
        rates: (S,), in ascending order.
        values: name -> (S,), inf where a run diverged: a cross at the upper edge, with a faint line to it, marks the
            divergence threshold.
        chosen: name -> the selected rate, one of `rates`, with a ring around it; no ring for a name without.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> sensitivity(ax, [0.1, 1.0, 10.0], {"sgd": np.array([2.0, 1.0, np.inf])}, {"sgd": 1.0})
        >>> ax.get_xscale()
        'log'
    """
    rates = np.asarray(rates, np.float64)
    for i, (name, found) in enumerate(values.items()):
        found, style = np.asarray(found, np.float64), line_style(i)
        fine = np.isfinite(found)
        ax.plot(rates, np.where(fine, found, np.nan), label=name, **_width(i), **style)
        if name in chosen and fine[rates == chosen[name]].all():
            ax.plot(chosen[name], found[rates == chosen[name]], "o", markersize=12, markerfacecolor="none",
                    markeredgecolor=style["color"], markeredgewidth=1.8)  # fmt: skip
        top = ax.get_xaxis_transform()
        # Crosses of several names at one rate are drawn side by side.
        heights = np.full((~fine).sum(), 1.0 - 0.035 * i)
        (crosses,) = ax.plot(rates[~fine], heights, "x", color=style["color"], markersize=8, markeredgewidth=2,
                             transform=top, clip_on=False)  # fmt: skip
        crosses.set_in_layout(False)
        for a in np.flatnonzero(fine[:-1] & ~fine[1:]):
            line_up = ax.annotate(
                "", xy=(rates[a + 1], 1.0 - 0.035 * i), xycoords=top, xytext=(rates[a], found[a]), textcoords="data",
                arrowprops={"arrowstyle": "-", "color": style["color"], "linestyle": ":", "alpha": 0.7},
            )  # fmt: skip
            line_up.set_in_layout(False)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate (ring: chosen; cross: diverged)", fontsize=11)


def profile(ax: Any, times: Mapping[str, Any], *, most: float = 16.0) -> None:
    """Performance profile: the fraction of problems solved within a factor tau of the fastest, against tau.

    Args:
        times: name -> (P,), the cost of each of P problems, > 0; inf where it was not solved. A problem that no name
            solves still counts.
        most: the largest tau shown, > 1.

    Raises:
        ValueError: the numbers of problems differ, or there is no name.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> profile(ax, {"a": np.array([1.0, 2.0]), "b": np.array([2.0, np.inf])})
        >>> [float(line.get_ydata()[-1]) for line in ax.lines]
        [1.0, 0.5]

    Reference: Dolan, E. D. & Moré, J. J. (2002). Benchmarking optimization software with performance profiles.
    """
    lengths = {len(taken) for taken in times.values()}
    if len(lengths) != 1:
        raise ValueError(f"profile: every name needs the same number of problems, got {sorted(lengths)}.")
    table = np.array([np.asarray(taken, np.float64) for taken in times.values()])
    best = table.min(axis=0)
    best = np.where(np.isfinite(best), best, 1.0)
    taus = np.geomspace(1, most, 200)
    for i, (name, taken) in enumerate(zip(times, table, strict=True)):
        share = np.isfinite(taken) & (np.where(np.isfinite(taken), taken, 0) <= taus[:, None] * best * (1 + 1e-9))
        share = share.mean(axis=1)
        ax.plot(taus, share, label=name, markevery=range(10 * i % 40, 200, 40), **_width(i), **line_style(i))
    ax.set_xscale("log", base=2)
    ax.set_ylim(-0.03, 1.03)


def bars(ax: Any, values: Mapping[str, float], *, unit: str) -> None:
    """A horizontal bar per name, the first on top, with its value (>= 0) beside it to three digits.

    Args:
        values: name -> the length of its bar.
        unit: of the values, the label of the horizontal axis.

    Example:
        >>> from jaxnn.plots import figure
        >>> fig, ax = figure()
        >>> bars(ax, {"sgd": 1.0, "adam": 2.5}, unit="ms")
        >>> [text.get_text() for text in ax.texts]
        [' 1', ' 2.5']
    """
    names = list(values)
    colours = [line_style(i)["color"] for i in range(len(names))]
    ax.barh(range(len(names)), list(values.values()), color=colours, height=0.7)
    for i, value in enumerate(values.values()):
        ax.text(value, i, f" {value:.3g}", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.2 * max([*values.values(), 1e-12]))
    ax.set_xlabel(unit, fontsize=11)


def _width(i: int) -> dict[str, float]:
    """Line widths: later lines are thinner, so that the edges of lines below remain visible."""
    return {"linewidth": max(3.0 - 0.4 * i, 1.4), "markersize": max(8.0 - i, 4.5)}


def _quantile(values: np.ndarray, q: float) -> np.ndarray:
    """The q-quantile of each column, ended runs counted as infinite; NaN where the quantile is one of them."""
    whole = np.where(np.isfinite(values), values, np.inf)
    # A quartile is one of the runs; the median of a number and infinity is infinite.
    found = np.median(whole, axis=0) if q == 0.5 else np.quantile(whole, q, axis=0, method="inverted_cdf")
    return np.where(np.isfinite(found), found, np.nan)

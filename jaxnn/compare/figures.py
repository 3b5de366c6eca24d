"""The figures of a race's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from jaxnn import landscapes, plots
from jaxnn.checks import count_of
from jaxnn.compare.result import Race, Result, shown
from jaxnn.plots import bench
from jaxnn.plots import landscape as view

DIAGNOSTICS = {
    "grad_norm": ("Gradient norm", "mean over the epoch", "log"),
    "update_norm": ("Update norm", "mean over the epoch", "log"),
    "distance": ("Distance from the start", "Euclidean norm", "linear"),
    "alignment": ("Alignment of successive updates", "mean cosine", "linear"),
    "noise_scale": ("Noise scale", "batch size (examples)", "log"),
    "snr": ("Signal-to-noise ratio of a batch", "signal / noise, squared norms", "log"),
}
"""Panels of the diagnostics: title, unit, scale."""


class Drawing(NamedTuple):
    """A figure of a report: its problem ("" for all), file name without suffix, title, caption."""

    problem: str
    name: str
    title: str
    caption: str
    figure: Figure


def figures(race: Race) -> Iterator[Drawing]:
    """The figures of a race, drawn one at a time."""
    for problem in race.problems:
        found = race.of(problem)
        yield Drawing(
            problem, f"{problem}-learning", f"{problem}: learning curves",
            f"Median over {count_of(len(found[0].final), 'fresh seed')} at each optimizer's tuned learning rate; the "
            "band lies between the quartiles.", learning(problem, found),
        )  # fmt: skip
        yield Drawing(
            problem, f"{problem}-sensitivity", f"{problem}: sensitivity to the learning rate",
            "The metric after the last epoch against the learning rate, mean over the tuning seeds. A ring marks the "
            "chosen rate, a cross a rate at which a run diverged; the dotted line to it marks the divergence "
            "threshold.", sensitivity(problem, found),
        )  # fmt: skip
        yield Drawing(
            problem, f"{problem}-diagnostics", f"{problem}: diagnostics",
            "Median and quartiles over the fresh seeds. Alignment: the cosine between successive updates, 1 along a "
            "valley, -1 from wall to wall. Noise scale: the batch size at which the noise of the mean gradient is as "
            "large as the gradient. Signal-to-noise ratio: the problem's batch size divided by the noise scale.",
            diagnostics(problem, found),
        )  # fmt: skip
    for name, ways in race.ways.items():
        yield Drawing(
            "", f"ways-{name}", f"Trajectories on {name}",
            "From the ring, at the learning rate of the grid with the lowest final value; a dot at each of the first "
            "steps, a star at each minimum. Points outside the plot are clipped.", trajectories(name, ways),
        )  # fmt: skip
    with_target = [p for p in race.problems if race.of(p)[0].target is not None]
    if len(with_target) > 1 and len(race.optimizers) > 1:
        yield Drawing(
            "", "profile", "Performance profile",
            f"For each factor, the fraction of {len(with_target)} problems on which an optimizer reaches the target "
            "within that factor of the steps (left) or seconds (right) of the fastest; medians over seeds.",
            profile(race, with_target),
        )  # fmt: skip
    if any(r.cost for r in race.results):
        yield Drawing(
            "", "costs", "Time and memory",
            "Of a single run: seconds per training step (median, optimizers taking turns), seconds to compile, bytes "
            "of the optimizer's state.", costs(race),
        )  # fmt: skip


def learning(problem: str, found: tuple[Result, ...]) -> Figure:
    """Training loss, validation loss, and the problem's metric where it is neither."""
    names = [n for n in ("loss", "validation_loss") if found and n in found[0].curves]
    names += [r.figure for r in found[:1] if r.figure not in names]
    fig, axes = plots.figure(1, max(len(names), 1), width=4.6, height=3.9, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        percent, told = shown(name)
        bench.bands(ax, {_label(r): percent * r.curves[name] for r in found})
        _finish(ax, told, "epoch")
        if _spans(ax):
            _logarithmic(ax)
        target = found[0].target
        if name == found[0].figure and target is not None:
            ax.axhline(percent * target, color="#555555", linewidth=1, linestyle=(0, (2, 2)), label="target")
    for ax in axes.flat[len(names) :]:
        ax.remove()
    _title(fig, f"{problem}: learning curves (median and quartiles)")
    _legend(fig, axes.flat[min(len(names), axes.size) - 1] if names else None)
    return fig


def sensitivity(problem: str, found: tuple[Result, ...]) -> Figure:
    """The tuning metric against the learning rate."""
    fig, ax = plots.figure(width=6.4, height=4.2)
    percent, told = shown(found[0].figure)
    tuned = {r.optimizer: percent * r.tuned for r in found}
    bench.sensitivity(ax, found[0].rates, tuned, {r.optimizer: r.rate for r in found})
    if _spans(ax):
        _logarithmic(ax)
    _finish(ax, told)
    _title(fig, f"{problem}: after the last epoch, against the learning rate")
    _legend(fig, ax)
    return fig


def diagnostics(problem: str, found: tuple[Result, ...]) -> Figure:
    """The panels of `DIAGNOSTICS`."""
    fig, axes = plots.figure(2, 3, width=4.3, height=3.2)
    for ax, (name, (title, unit, scale)) in zip(axes.flat, DIAGNOSTICS.items(), strict=True):
        shown = {r.optimizer: r.curves[name] for r in found if name in r.curves}
        if scale == "log":
            # An estimate of the noise scale may be negative, which a logarithmic axis cannot show.
            shown = {who: np.where(values > 0, values, np.nan) for who, values in shown.items()}
        bench.bands(ax, shown)
        if any(np.isfinite(values).any() for values in shown.values()):
            if scale == "log":
                _logarithmic(ax)
        else:
            ax.text(0.5, 0.5, "no noise: one example", transform=ax.transAxes, ha="center", fontsize=10)
        ax.set_title(title, fontsize=11)
        _finish(ax, unit, "epoch")
    _title(fig, f"{problem}: diagnostics (median and quartiles)")
    _legend(fig, axes.flat[0])
    return fig


def trajectories(name: str, ways: Any) -> Figure:
    """The trajectories of the optimizers on a landscape, in a plot that contains most of them."""
    place = landscapes.LANDSCAPES[name]()
    fig, ax = plots.figure(width=6.4, height=5.0)
    view.contours(ax, place, bounds=_bounds(place, [points for _, points in ways.values()]))
    shown = {f"{who} ({rate:.2g})": points for who, (rate, points) in ways.items()}
    colours = [bench.line_style(i)["color"] for i in range(len(shown))]
    view.paths(ax, shown, colours=colours)
    ax.set_title(place.name, fontsize=12)
    _legend(fig, ax)
    return fig


def profile(race: Race, problems: list[str]) -> Figure:
    """Steps and seconds to the target over the problems, as two performance profiles."""
    fig, axes = plots.figure(1, 2, width=5.0, height=4.0, sharey=True)
    for ax, unit in zip(axes, ("steps", "seconds"), strict=True):
        times = {}
        for who in race.optimizers:
            taken = {r.problem: np.median(getattr(r, f"{unit}_to_target")) for r in race.results if r.optimizer == who}
            times[who] = np.array([np.nan_to_num(taken.get(p, np.inf), nan=np.inf) for p in problems])
        if times:
            bench.profile(ax, times)
        _finish(ax, "fraction of problems", f"factor over the fewest {unit}")
    _title(fig, f"Performance profile over {len(problems)} problems")
    _legend(fig, axes[0])
    return fig


def costs(race: Race) -> Figure:
    """Bars of time and memory, one row per problem."""
    known = [p for p in race.problems if all(r.cost for r in race.of(p))]
    height = 0.9 + 0.3 * len(race.optimizers)
    fig, axes = plots.figure(max(len(known), 1), 3, width=4.3, height=height, squeeze=False)
    for row, problem in zip(axes, known, strict=False):
        found = [(r.optimizer, r.cost) for r in race.of(problem) if r.cost]
        panels = (
            ("ms a step", 1e3, "step_seconds"), ("seconds to compile", 1.0, "compile_seconds"),
            ("kB of optimizer state", 1e-3, "state_bytes"),
        )  # fmt: skip
        for ax, (unit, factor, name) in zip(row, panels, strict=True):
            bench.bars(ax, {who: factor * getattr(cost, name) for who, cost in found}, unit=unit)
            ax.set_title(problem, fontsize=11)
        for ax in row[1:]:
            ax.set_yticklabels([])
    if not known:
        for ax in axes.flat:
            ax.remove()
    _title(fig, "Time and memory of one run")
    return fig


def _label(result: Result) -> str:
    lost = f", {result.diverged} of {len(result.final)} diverged" if result.diverged else ""
    return f"{result.optimizer} ({result.rate:.2g}{lost})"


def _finish(ax: Any, y: str, x: str = "") -> None:
    ax.set_ylabel(y, fontsize=11)
    if x:
        ax.set_xlabel(x, fontsize=11)
    if x == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)


def _spans(ax: Any) -> bool:
    """Whether the plotted values are positive and span more than a decade: then the axis is logarithmic."""
    lines = [np.asarray(line.get_ydata(), np.float64) for line in ax.lines if line.get_transform() == ax.transData]
    values = np.concatenate([line[np.isfinite(line)] for line in lines]) if lines else np.zeros(0)
    return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def _logarithmic(ax: Any) -> None:
    """A logarithmic axis with plain numbers, e.g. 0.2 and 40; minor labels only where there are few."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if high / low > 3 else "all"))
    ax.yaxis.set_minor_formatter(plain if high / low < 100 else NullFormatter())


def _title(fig: Figure, text: str) -> None:
    fig.suptitle(text, fontsize=12)


def _legend(fig: Figure, ax: Any) -> None:
    """One legend for all panels, below them."""
    if ax is None or not ax.get_legend_handles_labels()[0]:
        return
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 4 if sum(map(len, labels)) < 70 else 3),
        fontsize=10,
        frameon=False,
    )


def _bounds(place: Any, ways: list[np.ndarray]) -> view.Bounds:
    """Bounds of most points, the start and a single minimum, with a margin; at most twice the landscape's own range."""
    points = np.concatenate([way[np.isfinite(way).all(axis=1)] for way in ways])
    low, high = np.quantile(points, 0.02, axis=0), np.quantile(points, 0.98, axis=0)
    marks = np.concatenate([place.start[None], place.minima]) if len(place.minima) < 2 else place.start[None]
    low, high = np.minimum(low, marks.min(axis=0)), np.maximum(high, marks.max(axis=0))
    margin = 0.15 * np.maximum(high - low, 0.2)
    width = place.bounds[1] - place.bounds[0]
    low = np.maximum(low - margin, place.bounds[0] - width / 2)
    high = np.minimum(high + margin, place.bounds[1] + width / 2)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))

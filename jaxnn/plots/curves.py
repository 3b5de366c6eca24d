"""Learning curves from the history of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from jaxnn.plots.style import COLOURS, figure


def curves(histories: Sequence[Any], *, title: str = "Learning curves", unit: str = "mean per example") -> Figure:
    """Losses, and errors in percent, against the epoch; a bold line for the mean, a faint one per run if several.

    Args:
        histories: the history of a `train.fit`, or a list of one per run (e.g. per seed). Metrics named "*loss" share
            the left axes (logarithmic), those named "*error" (fractions) the right ones; axes without any are omitted.
            Every record must hold the metrics of the first; record i is drawn at epoch i, from 1.
        title: above the figure.
        unit: of the losses, e.g. "nats per token".

    Returns:
        A matplotlib Figure with one axes for losses and one for errors, each if there are any.

    Raises:
        TypeError: the whole result of a fit in place of its history.
        ValueError: there is no run, a run without an epoch, or neither a loss nor an error.

    Example:
        >>> fig = curves([[{"epoch": 1, "loss": 1.0, "validation_loss": 1.1, "validation_error": 0.5}]])
        >>> len(fig.axes)
        2
    """
    if hasattr(histories, "history") or any(hasattr(run, "history") for run in histories):
        raise TypeError("curves: expected the history of a fit, got its whole result. Pass result.history.")
    if histories and isinstance(histories[0], Mapping):
        histories = [cast(Sequence[Mapping[str, float]], histories)]
    if not histories or not all(histories):
        raise ValueError("curves: expected at least one history with at least one epoch, got none.")
    panels = [("loss", 1.0, f"loss ({unit})"), ("error", 100.0, "error (%)")]
    panels = [panel for panel in panels if any(name.endswith(panel[0]) for name in histories[0][0])]
    if not panels:
        raise ValueError(f"curves: expected metrics named *loss or *error, got {', '.join(histories[0][0])}.")
    fig, axes = figure(1, len(panels), squeeze=False)
    for ax, (suffix, factor, label) in zip(axes.flat, panels, strict=True):
        shown = [name for name in histories[0][0] if name.endswith(suffix)]
        for name, colour in zip(shown, COLOURS, strict=False):
            _draw_runs(ax, histories, name, factor, colour)
        ax.set_xlabel("epoch", fontsize=11)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel(label, fontsize=11)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=10)
        if suffix == "loss":
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.yaxis.set_major_formatter("{x:g}")
            # Within a decade the ticks between its ends are all there is; else they would crowd.
            ax.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
        else:
            ax.set_ylim(bottom=0)
    fig.suptitle(title, fontsize=12)
    return fig


def _draw_runs(ax, histories, name, factor, colour) -> None:  # type: ignore[no-untyped-def]
    """One metric of every run: the mean over the epochs common to all, and each run faintly if there are several."""
    runs = [[factor * record[name] for record in history] for history in histories]
    common = min(map(len, runs))
    mean = [sum(run[e] for run in runs) / len(runs) for e in range(common)]
    readable = "training loss" if name == "loss" else name.replace("_", " ")
    label = f"{readable} (mean of {len(runs)} runs)" if len(runs) > 1 else readable
    ax.plot(range(1, common + 1), mean, color=colour, linewidth=2, label=label, marker="o" if common < 15 else None)
    for run in runs if len(runs) > 1 else ():
        ax.plot(range(1, len(run) + 1), run, color=colour, linewidth=0.8, alpha=0.4)

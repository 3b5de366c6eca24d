"""The type of a figure of the gallery, and legends that cover no data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Picture:
    """One figure of the gallery and its caption.

    Attributes:
        name: of its file, without extension: lower-case letters, digits and inner hyphens, else ValueError.
        title: one line.
        caption: what the figure shows, in two to four sentences of plain English.
        equation: in matplotlib's mathtext, without dollar signs; "" for none.
        source: the primary source: author, year, title.
        draw: makes the figure: `jaxnn.plots.figure` with title, labels, units and legend. No arguments: seeds and sizes
            are fixed, so that the figure is reproducible.
    """

    name: str
    title: str
    caption: str
    equation: str
    source: str
    draw: Callable[[], Figure]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"Picture: name must be lower-case letters, digits and inner hyphens, got {self.name!r}.")


def shared_legend(fig: Figure, axes: Iterable[Any], *, columns: int, fontsize: float = 11) -> None:
    """One legend below the axes, where it covers no data: each label once, with its first handle."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=fontsize,
               frameon=False)  # fmt: skip


def legend_below(ax: Any, *, columns: int, fontsize: float = 11) -> None:
    """The legend of one axes, below them."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, fontsize=fontsize, frameon=False)

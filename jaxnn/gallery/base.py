"""The type of a figure of the gallery."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

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

"""Figures: `confusion`, `computational_graph`, `curves`, `mistakes`, `network`, `pictures` and `templates` return a
finished one, `figure` one with empty axes; on axes `arrow` draws an arrow, `karnaugh` a Karnaugh map, `regions`
decision regions and `show` an image; `save` writes a file. Three modules are imported by name: `jaxnn.plots.bench`,
comparisons, `jaxnn.plots.landscape`, contours and trajectories, `jaxnn.plots.networks`, whose `diagram` draws on axes.

Colours are those of Okabe and Ito (2008), which stay distinct for the colour-blind.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.plots.classification import confusion, mistakes
from jaxnn.plots.curves import curves
from jaxnn.plots.graphs import computational_graph
from jaxnn.plots.karnaugh import karnaugh
from jaxnn.plots.networks import network
from jaxnn.plots.pictures import pictures, show, templates
from jaxnn.plots.regions import regions
from jaxnn.plots.style import COLOURS, figure, save
from jaxnn.plots.vectors import arrow

__all__ = [
    "COLOURS",
    "arrow",
    "computational_graph",
    "confusion",
    "curves",
    "figure",
    "karnaugh",
    "mistakes",
    "network",
    "pictures",
    "regions",
    "save",
    "show",
    "templates",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

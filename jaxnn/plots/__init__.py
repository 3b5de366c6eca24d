"""Figures: `confusion`, `curves`, `mistakes`, `pictures` return a finished one, `figure` one with empty axes; on axes
`regions` draws decision regions, `karnaugh` a Karnaugh map and `show` an image; `save` writes a file. Two modules are
imported by name: `jaxnn.plots.bench`, comparisons, and `jaxnn.plots.landscape`, contours and trajectories.

Colours are those of Okabe and Ito (2008), which stay distinct for the colour-blind.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.plots.classification import confusion, mistakes
from jaxnn.plots.curves import curves
from jaxnn.plots.karnaugh import karnaugh
from jaxnn.plots.pictures import pictures, show
from jaxnn.plots.regions import regions
from jaxnn.plots.style import COLOURS, figure, save

__all__ = ["COLOURS", "confusion", "curves", "figure", "karnaugh", "mistakes", "pictures", "regions", "save", "show"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

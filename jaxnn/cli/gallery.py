"""`jaxnn gallery`: all figures of the library in a folder, with a page that shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.figure import Figure

from jaxnn.cli.runs import require_own_folder, telling_kept, wide_console
from jaxnn.gallery.base import Picture
from jaxnn.gallery.build import build
from jaxnn.playground import Settings, draw, draw_sources, make_views, run

SOURCE = (
    "Smilkov, D., Carter, S., Sculley, D., Viegas, F. B. & Wattenberg, M. (2017). Direct-manipulation visualization of "
    "deep networks."
)


def _spiral() -> Figure:
    done = run(Settings(data="spiral", features=("x", "y", "sinx", "siny"), hidden=(8, 8)))
    return draw(done, make_views(done))


PLAYGROUND = (
    Picture(
        "playground-data",
        "The six data sets of the playground",
        "Four problems of classification, two of regression. Noise moves the points of gauss and spiral; of the others "
        "it moves the place at which the target is found and leaves the point, so that near a border labels are wrong.",
        r"\mathrm{circle:} \;\; d = +1 \;\mathrm{if}\; |p + \nu e| < 2.5 \;\mathrm{else}\; -1, \quad e \sim U(-5, 5)^2",
        SOURCE,
        draw_sources,
    ),
    Picture(
        "playground-spiral",
        "A network and its units after training on the spiral",
        "The last frame of jaxnn playground --data spiral --features x,y,sinx,siny --hidden 8,8: what each unit puts "
        "out over the plane, the weights between them, the output with the training points, and the losses. The page "
        "that the command writes goes through all of training.",
        r"C = \frac{1}{N} \sum_i \frac{1}{2} (y_i - t_i)^2",
        SOURCE,
        _spiral,
    ),
)
"""Pictures of the playground, which the gallery, on the same floor, does not know."""


@dataclasses.dataclass(frozen=True)
class GalleryConfig:
    """Draw the figures of the gallery and the page index.html, which opens without a network."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/gallery")
    """Folder to write: a new or empty one, or that of a gallery, whose figures of the same name are written over."""
    only: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...")] = None
    """Names of figures, with blanks or commas between them; without it all are drawn."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write into a folder that holds other things, over files of the same name."""


def gallery(config: GalleryConfig) -> Path:
    """Draw the figures, say where they are; return the path of the page."""
    if config.only == ():
        raise ValueError("gallery: --only needs at least one name; without --only all figures are drawn.")
    if not config.force:
        require_own_folder(config.out, "index.html", "<title>jaxnn gallery</title>")
    with telling_kept(config.out):
        index = build(config.out, only=config.only or (), more={"Playground": PLAYGROUND})
    wide_console().print(f"gallery: {index}", highlight=False, soft_wrap=True, markup=False)
    return index

"""`jaxnn gallery`: all figures of the library in a folder, with an HTML page."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jaxnn.cli.pictures import MORE
from jaxnn.cli.runs import require_own_folder, telling_kept, wide_console
from jaxnn.gallery.build import build, chapters
from jaxnn.gallery.drawing import brief_compilation

MOST = 4
"""Processes that draw: each takes about 1 GB of memory."""


@dataclasses.dataclass(frozen=True)
class GalleryConfig:
    """Draw the figures of the gallery and the page index.html, which needs no network."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/gallery")
    """Output folder: new, empty, or a gallery's, whose figures of the same name are overwritten."""
    only: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...")] = None
    """Names of figures, separated by blanks or commas; default all. Under each figure of the page stands its name."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write into a folder with other contents, and overwrite files of the same name."""


def listed_figures() -> str:
    """The names of all figures, a paragraph for each chapter, for --help."""
    found = chapters() | dict(MORE)
    lines = (f"{title}: {', '.join(picture.name for picture in pictures)}" for title, pictures in found.items())
    return "\n\n".join(["The figures by chapter, each name for --only:", *lines])  # tyro joins single lines


def gallery(config: GalleryConfig) -> Path:
    """Draw the figures, print their folder; return the path of the page."""
    if config.only == ():
        raise ValueError("gallery: --only needs at least one name. Omit --only to draw all figures.")
    if not config.force:
        require_own_folder(config.out, "index.html", "<title>jaxnn gallery</title>")
    with telling_kept(config.out), brief_compilation():
        # After a process of its own has taken a GPU's memory or a TPU, another finds none.
        processes = min(os.cpu_count() or 1, MOST) if jax.default_backend() == "cpu" else 1
        index = build(config.out, only=config.only or (), more=MORE, processes=processes)
    wide_console().print(f"gallery: {index}", highlight=False, soft_wrap=True, markup=False)
    return index

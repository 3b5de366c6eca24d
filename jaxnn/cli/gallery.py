"""`jaxnn gallery`: all figures of the library in a folder, with a page that shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import rich.console
import tyro

from jaxnn.gallery.build import build


@dataclasses.dataclass(frozen=True)
class GalleryConfig:
    """Draw the figures of the gallery and the page index.html, which opens without a network."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/gallery")
    """Folder to write; figures of the same name are written over."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of figures; default all of them."""


def gallery(config: GalleryConfig) -> Path:
    """Draw the figures, say where they are; return the path of the page."""
    index = build(config.out, only=config.only)
    rich.console.Console().print(f"gallery: {index}", highlight=False, soft_wrap=True, markup=False)
    return index

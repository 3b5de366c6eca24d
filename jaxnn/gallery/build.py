"""All figures in one folder, with an HTML page of captions, equations and primary sources."""

from __future__ import annotations

import base64
import functools
import html
import importlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from jaxnn import files
from jaxnn.checks import nearest_name, require_positive_int
from jaxnn.gallery.base import Picture
from jaxnn.gallery.drawing import drawn
from jaxnn.gallery.items import page as concepts
from jaxnn.train.progress import Bar

MODULES = {
    "basics": "Building blocks",
    "functions": "Functions of one and two variables",
    "neurons": "Neurons and their learning rules",
    "networks": "Networks and one update",
    "constructions": "Networks by construction",
    "regions": "Decision regions",
    "logic": "Boolean functions",
    "optimization": "Optimization",
    "batches": "Batch sizes",
    "outputs": "Outputs and their losses",
    "generalization": "Learning and generalization",
    "training": "Studies of training",
    "features": "Features and filters",
    "others": "Other networks",
}
"""The modules with PICTURES, in the order of the page, and the titles of their chapters."""

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 86rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2, h3, nav, figcaption { max-width: 60rem; }
nav li { margin: .1rem 0; }
figure { margin: 0 0 3.5rem; }
figure > a > img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption p { margin: .6rem 0; }
.equation { max-width: 100%; }
.source, .command { color: #555; font-size: 15px; }
"""
"""Text in lines of 60 rem, figures up to 86 rem (1,376 pixels), so that the small print of wide ones is legible."""


def chapters() -> dict[str, Sequence[Picture]]:
    """The pictures by the title of their chapter."""
    return {title: importlib.import_module(f"jaxnn.gallery.{name}").PICTURES for name, title in MODULES.items()}


def build(
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    more: Mapping[str, Sequence[Picture]] = MappingProxyType({}),
    processes: int = 1,
    progress: bool = True,
) -> Path:
    """Write NAME.png for each picture, and index.html, which shows all pictures with a file in the folder.

    Beside it chapters.html lists the concepts of `gallery.items`, each with code to run.

    Args:
        folder: created if necessary; files of the same name are overwritten.
        only: names of pictures; empty for all.
        more: {title: pictures} of more chapters, which come last; one with the title of a chapter replaces it.
        processes: how many draw, at most. More than one on CPU only: two cannot share a GPU's memory or a TPU. A script
            that asks for several calls this below `if __name__ == "__main__":`.
        progress: whether to show a bar (one line per figure where the output is not a terminal).

    Returns:
        The path of index.html, which needs no network.

    Raises:
        ValueError: an unknown name, two pictures with the same name, or fewer processes than one.
        TypeError: one name in place of a sequence.
        Exception: whatever a picture's `draw` raises, with its name as a note; figures and page so far are kept.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> build(folder, only=["losses"], progress=False).name, (folder / "losses.png").exists()
        ('index.html', True)
    """
    folder = Path(folder)
    require_positive_int("gallery", "processes", processes)
    found = _distinct(chapters() | dict(more))
    pictures = _chosen([picture for each in found.values() for picture in each], only)
    files.make_folder(folder)
    index = folder / "index.html"
    with Bar(len(pictures), enabled=progress) as bar:
        for i, picture in enumerate(drawn(pictures, folder, processes=processes), start=1):
            # After each figure, so that an interrupted run leaves a page of the finished ones.
            there = {title: [p for p in each if (folder / f"{p.name}.png").exists()] for title, each in found.items()}
            files.write_text(index, page({title: each for title, each in there.items() if each}))
            shown = [picture.name for each in there.values() for picture in each]
            files.write_text(folder / concepts.NAME, concepts.page(shown, STYLE))
            bar.step(f"{i}/{len(pictures)}  {picture.name}", picture.name)
    return index


def page(found: Mapping[str, Sequence[Picture]]) -> str:
    """The HTML page of pictures by chapter; the image files lie beside it."""
    return "\n".join(_page(found)) + "\n"


@functools.cache
def equation_svg(equation: str) -> bytes:
    r"""An equation in matplotlib's mathtext as a cropped SVG image.

    Args:
        equation: without dollar signs, such as r"\frac{1}{2} (y - d)^2".

    Raises:
        ValueError: the equation is not valid mathtext.
    """
    fig = Figure()
    FigureCanvasSVG(fig)
    fig.text(0, 0, f"${equation}$", fontsize=14)
    out = io.BytesIO()
    # Glyphs as paths need no font. A fixed salt and no date make the bytes reproducible.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "jaxnn", "mathtext.fontset": "cm"}):
        fig.savefig(out, format="svg", bbox_inches="tight", pad_inches=0.04, transparent=True, metadata={"Date": None})
    return out.getvalue()


def _page(found: Mapping[str, Sequence[Picture]]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # An empty icon; browsers would request one otherwise.
    yield f'<title>jaxnn gallery</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>'
    yield f'<h1>jaxnn gallery</h1>\n<nav>\n<p><a href="{concepts.NAME}">Concepts and how to run them</a></p>'
    for title, pictures in found.items():
        yield f'<p><a href="#{_anchor(title)}">{html.escape(title)}</a></p>\n<ul>'
        yield from (f'<li><a href="#{p.name}">{html.escape(p.title)}</a></li>' for p in pictures)
        yield "</ul>"
    yield "</nav>"
    for title, pictures in found.items():
        yield f'<h2 id="{_anchor(title)}">{html.escape(title)}</h2>'
        for picture in pictures:
            yield from _figure(picture)
    yield "</body>\n</html>"


def _figure(picture: Picture) -> Iterator[str]:
    title = html.escape(picture.title)
    yield f'<figure id="{picture.name}">\n<h3>{title}</h3>'
    yield f'<a href="{picture.name}.png"><img src="{picture.name}.png" alt="{title}" loading="lazy"></a>\n<figcaption>'
    yield f"<p>{html.escape(picture.caption)}</p>"
    if picture.equation:
        drawn = base64.b64encode(equation_svg(picture.equation)).decode()
        told = html.escape(picture.equation)
        yield f'<p><img class="equation" src="data:image/svg+xml;base64,{drawn}" alt="{told}"></p>'
    if picture.source:
        yield f'<p class="source">{html.escape(picture.source)}</p>'
    yield f'<p class="command">Drawn by <code>jaxnn gallery --only {picture.name}</code></p>'
    yield "</figcaption>\n</figure>"


def _anchor(title: str) -> str:
    """The id of a chapter's heading; pictures are called otherwise."""
    return "chapter-" + "-".join(re.findall("[a-z0-9]+", title.lower()))


def _distinct(found: dict[str, Sequence[Picture]]) -> dict[str, Sequence[Picture]]:
    """`found` itself; ValueError if two pictures have the same name."""
    names = [picture.name for pictures in found.values() for picture in pictures]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"gallery: the names of pictures must differ, got {', '.join(doubled)} more than once.")
    return found


def _chosen(pictures: Sequence[Picture], only: Sequence[str]) -> list[Picture]:
    if isinstance(only, str):
        raise TypeError(f"gallery: only must be a sequence of names, got {only!r}. Pass [{only!r}].")
    by_name = {picture.name: picture for picture in pictures}
    for name in only:
        if name not in by_name:
            raise ValueError(
                f"gallery: no picture {name!r}{nearest_name(name, by_name)}; there are: {', '.join(by_name)}."
            )
    return [by_name[name] for name in dict.fromkeys(only or by_name)]

"""The page of concepts: where each is, and code with its output, without drawing or running anything."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Mapping, Sequence

from jaxnn.gallery.items import SUBJECTS
from jaxnn.gallery.items.base import Item
from jaxnn.gallery.items.examples import complete

NAME = "chapters.html"
"""Of the page's file, beside index.html."""

STYLE = """
details { border-bottom: 1px solid #ddd; }
summary { padding: .45rem 0; cursor: pointer; }
summary code { color: #555; font-size: 13px; overflow-wrap: anywhere; }
details p { margin: .3rem 0; }
pre { margin: .3rem 0 .8rem; padding: .6rem .8rem; background: #f4f4f4; font-size: 14px; line-height: 1.4;
  overflow-x: auto; }
@media (max-width: 40rem) { pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; } }
"""

INTRODUCTION = (
    "Each concept with its place in the library. Open one for code that runs as it stands, with its output, or for a "
    "command, or for its figure."
)


def page(shown: Collection[str], style: str = "", subjects: Mapping[str, Sequence[Item]] = SUBJECTS) -> str:
    """The HTML page of all items by subject.

    Args:
        shown: the names of the figures on index.html, to which the page links; of others it shows the command.
        style: CSS of index.html.
        subjects: the items by the title of their subject.

    Example:
        >>> text = page([], subjects={"Units": [Item("tanh", "activations.tanh", figure="activations")]})
        >>> "<summary>tanh <code>activations.tanh</code></summary>" in text, "jaxnn gallery --only activations" in text
        (True, True)
    """
    return "\n".join(_page(frozenset(shown), style, subjects)) + "\n"


def _page(shown: frozenset[str], style: str, subjects: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<title>jaxnn concepts</title>\n<link rel="icon" href="data:,">\n<style>{style}{STYLE}</style>'
    yield "</head>\n<body>"
    yield f"<h1>jaxnn: concepts and how to run them</h1>\n<p>{INTRODUCTION}</p>"
    yield '<nav>\n<p><a href="index.html">The figures of the gallery</a></p>\n<ul>'
    for number, (title, items) in enumerate(subjects.items(), start=1):
        yield f'<li><a href="#subject-{number}">{html.escape(title)}</a> ({len(items)})</li>'
    yield "</ul>\n</nav>"
    for number, (title, items) in enumerate(subjects.items(), start=1):
        yield f'<h2 id="subject-{number}">{html.escape(title)}</h2>'
        for item in items:
            yield from _item(item, shown)
    yield "</body>\n</html>"


def _item(item: Item, shown: frozenset[str]) -> Iterator[str]:
    where = " ".join(f"<code>{html.escape(name)}</code>" for name in item.names) or f"<code>{_place(item)}</code>"
    yield f"<details>\n<summary>{html.escape(item.concept)} {where}</summary>"
    if code := complete(item):
        yield f"<pre>{html.escape(code)}</pre>"
    if item.command:
        yield f"<pre>{html.escape(item.command)}</pre>"
    if item.figure in shown:
        yield f'<p>Figure: <a href="index.html#{item.figure}">{item.figure}</a></p>'
    elif item.figure:
        yield f"<p>Figure: <code>jaxnn gallery --only {item.figure}</code></p>"
    yield "</details>"


def _place(item: Item) -> str:
    """What the page shows for an item without names: its figure or its command."""
    return f"figure {item.figure}" if item.figure else " ".join(item.command.split()[:2])

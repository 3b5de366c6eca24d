"""The reference as a static site: a page for each room and module, and the READMEs, with search.

    python .ci/docs/build.py    # needs the extra `docs`; then open .cache/site/index.html

pdoc renders the docstrings. Warnings are errors, and so are names and links that lead nowhere: a name in backquotes
that begins with a room (`optim.adam`), a link of a README, an anchor, and a public name that is not on its room's page.
"""

from __future__ import annotations

import functools
import html
import importlib
import importlib.util
import inspect
import re
import shutil
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ForwardRef

import markdown2
import pdoc.doc
import pdoc.docstrings
import pdoc.extract
import pdoc.render
import pdoc.render_helpers
import pdoc.search

import jaxnn

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SITE = ROOT / ".cache" / "site"
READMES = {
    "index": "README.md",
    "jaxnn.README": "jaxnn/README.md",
    "benchmarks.README": "benchmarks/README.md",
    "examples.README": "examples/README.md",
}
"""The page of each README: beside the files that it links to, which are copied to the same places."""

TITLES = {
    "index": "jaxnn",
    "jaxnn": "Reference",
    "jaxnn.README": "The house",
    "benchmarks.README": "Benchmarks",
    "examples.README": "Examples",
}
"""What the navigation of every page links to."""

DEEPER = ("jaxnn.compare.cases", "jaxnn.per_example.privacy.private")
"""Modules that docstrings refer to, and that are not in their package's `__all__`."""

EXTRAS = {name: value for name, value in pdoc.render_helpers.markdown_extensions.items() if name != "cuddled-lists"}
"""Markdown's, but for lists in the midst of a paragraph: a line of a formula may begin with a number or a minus."""

SHORT = 104
"""Columns of a line of prose, at least: 120, less the indentation of a method's arguments."""

EQUATION = re.compile(r"\S+ ([=<>~]|<-|<=|>=) ")
BLOCK = re.compile(r"\||```|>>>|[-*] |\d+\. ")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
NAME = re.compile(rf"`(?:jaxnn\.)?((?:{'|'.join(jaxnn.ROOMS)})(?:\.\w+)+)[`(]")


@functools.cache
def to_html(text: str) -> str:
    """Markdown without raw HTML (<g, p> is an inner product), with the line breaks of formulas."""
    links = pdoc.render_helpers.markdown_link_patterns
    found = markdown2.markdown(with_breaks(text), extras=EXTRAS, safe_mode="escape", link_patterns=links)
    once = type(found)(found.replace("&amp;lt;", "&lt;"))  # escaped twice in indented code
    once.toc_html = found.toc_html  # the table of contents, which pdoc asks for
    return once


class Written(str):
    """An annotation that is shown as it is written: `Params` says more than the `Any` that it stands for."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def as_written(annotation: Any, *_: Any) -> Any:
    text = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    return Written(text) if isinstance(text, str) else annotation


def with_breaks(text: str) -> str:
    """Markdown in which formulas stay as they are: their lines, the room between them, the stars of products.

    Markdown would join the lines. A break is meant where the next word had fitted into the line, and before `x = ...`.
    """
    lines, found, fence, shell = text.split("\n"), [], False, False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        quote = "> " if line.startswith("> ") else ""
        bare, after = line.removeprefix("> ").strip(), following.removeprefix("> ").strip()
        fence ^= bare.startswith("```")
        if not fence and shell != (bare.startswith(">>>") or (shell and bool(bare))):
            shell = not shell  # within a fence, or else a row of dashes in the output would make a heading
            found.append(f"{quote}```pycon" if shell else f"{'> ' if found[-1].startswith('> ') else ''}```")
        if not (fence or shell or not bare or bare.startswith(("|", "#"))):
            line = re.sub(
                r"(`[^`]*`)|(?<!\*)\*(?=[^*\s])", lambda star: star[1] or r"\*", line
            )  # a product, no emphasis
            line = re.sub(r"(?<=\S)  +(?=\S)", lambda gap: "\N{NO-BREAK SPACE}" * len(gap[0]), line)
            line = re.sub(r"^( *)>(?==)", r"\1&gt;", line)
            fits = after and len(line) + 1 + len(after.split()[0]) <= SHORT
            if after and not BLOCK.match(after) and (fits or EQUATION.match(after)):
                line += "  "
        found.append(line)
    if shell:
        found.append(f"{quote}```")
    return "\n".join(found)


def readme(name: str, site: Path) -> types.ModuleType:
    """A README as the docstring of a module, which pdoc renders; the files that it links to are copied."""
    path = ROOT / READMES[name]

    def place(link: re.Match[str]) -> str:
        target = (path.parent / link[1]).resolve()
        if not target.exists():
            raise ValueError(f"{path.relative_to(ROOT)}: the link {link[1]} leads to no file.")
        if target.name == "README.md":
            return link[1].replace("README.md", "index.html" if target.parent == ROOT else "README.html")
        copy = site / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.copytree(target, copy, dirs_exist_ok=True)
        else:
            shutil.copyfile(target, copy)
        return link[1]

    module = types.ModuleType(name, LINK.sub(place, path.read_text()))
    module.__docformat__ = "markdown"  # type: ignore[attr-defined]
    return module


def module_names() -> list[str]:
    """Rooms and what they show; not the modules behind the commands, nor a module that a function of its name hides."""
    rooms = [f"jaxnn.{room}" for room in jaxnn.ROOMS if room != "cli"]
    names = pdoc.extract.walk_specs([*rooms, *DEEPER])
    return ["jaxnn", "jaxnn.cli", *(name for name in names if isinstance(resolved(name), types.ModuleType))]


def resolved(name: str) -> Any:
    """What a dotted name means to a user: attributes first, then modules that are not yet imported."""
    found: Any = jaxnn
    for i, part in enumerate(parts := name.removeprefix("jaxnn.").split(".")):
        try:
            found = getattr(found, part)
        except AttributeError:
            module = ".".join(["jaxnn", *parts[: i + 1]])
            if not inspect.ismodule(found) or not importlib.util.find_spec(module):
                raise
            found = importlib.import_module(module)
    return found


def modules(site: Path) -> dict[str, pdoc.doc.Module]:
    """All pages; a room's functions first, its named tuples last."""
    pages = {name: pdoc.doc.Module(readme(name, site)) for name in READMES}
    for name in module_names():
        page = pages[name] = pdoc.doc.Module.from_name(name)
        if hasattr(page.obj, "__all__"):  # without, the order is the author's
            page.__dict__["members"] = dict(sorted(page.members.items(), key=lambda item: rank(item[1])))
    return pages


def rank(doc: pdoc.doc.Doc[Any]) -> int:
    return 0 if isinstance(doc, pdoc.doc.Function) else 2 if is_named_tuple(doc) else 1


def is_named_tuple(doc: pdoc.doc.Doc[Any]) -> bool:
    return isinstance(doc, pdoc.doc.Class) and issubclass(doc.obj, tuple) and hasattr(doc.obj, "_fields")


def documented(doc: pdoc.doc.Doc[Any]) -> Iterator[pdoc.doc.Doc[Any]]:
    """A page and all that is on it."""
    yield doc
    if isinstance(doc, pdoc.doc.Namespace):
        for member in doc.members.values():
            if not isinstance(member, pdoc.doc.Module) and member.taken_from[0].startswith("jaxnn"):
                yield from documented(member)


def broken_names(pages: Iterable[pdoc.doc.Module]) -> list[str]:
    """Names in backquotes that begin with a room and mean nothing."""
    found = {}
    for page in pages:
        for doc in documented(page) if page.fullname not in READMES else ():  # they name misspelt ones too
            for name in NAME.findall(doc.docstring):
                try:
                    resolved(name)
                except (AttributeError, ImportError):
                    found[f"{'.'.join(doc.taken_from).rstrip('.')}: `{name}` means nothing."] = None
    return list(found)


def broken_links(site: Path) -> list[str]:
    """Links between pages whose file or anchor is missing."""
    pages = {path.resolve(): path.read_text() for path in site.rglob("*.html")}
    anchors = {path: {*re.findall(r'\bid="([^"]+)"', page), ""} for path, page in pages.items()}
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(re.findall(r'\b(?:href|src)="(?!\w+:|\$)([^"]*)"', page)):
            file, _, anchor = html.unescape(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or anchor not in anchors.get(target, {anchor}):
                found.append(f"{path.relative_to(site.resolve())}: the link {link} leads nowhere.")
    return found


def missing_names(pages: Iterable[pdoc.doc.Module], site: Path) -> list[str]:
    """Public names without a place on the page of their room."""
    found = []
    for page in pages:
        text = (site / place_of(page)).read_text()
        for name in getattr(page.obj, "__all__", ()):
            if f'id="{name}"' not in text and f"{page.fullname}.{name}" not in sys.modules:
                found.append(f"{page.fullname}.{name} is public, and not on its page.")
    return found


def place_of(page: pdoc.doc.Module) -> str:
    return f"{page.fullname.replace('.', '/')}.html"


def build(site: Path) -> list[str]:
    """Write the site anew; returns what is broken in it."""
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    pdoc.render.configure(docformat="google", template_directory=HERE)
    pdoc.doc.safe_eval_type = as_written  # type: ignore[assignment]
    pdoc.search.to_html = pdoc.render.env.filters["to_html"] = to_html  # type: ignore[assignment]
    pdoc.render.env.globals |= {"titles": TITLES, "readmes": READMES, "is_named_tuple": is_named_tuple}
    pages = modules(site)
    for page in pages.values():
        file = site / place_of(page)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pdoc.render.html_module(page, pages))
    (site / "search.js").write_text(pdoc.render.search_index(pages))
    every = pages.values()
    return [*broken_names(every), *broken_links(site), *missing_names(every, site)]


def main() -> None:
    warnings.simplefilter("error")
    if found := build(SITE):
        sys.exit("\n".join(found))
    print(f"{SITE.relative_to(ROOT)}/index.html: {sum(1 for _ in SITE.rglob('*.html'))} pages")


if __name__ == "__main__":
    main()

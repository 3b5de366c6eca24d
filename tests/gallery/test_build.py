"""The folder that `build` writes: what is drawn, what the page shows, and that it asks nothing of a network."""

from __future__ import annotations

import html.parser
import importlib
import itertools
import pickle
import re
import types
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import pytest

from jaxnn import gallery, plots
from jaxnn.cli.pictures import MORE
from jaxnn.gallery import build as built
from jaxnn.gallery import drawing
from jaxnn.gallery.base import Picture
from tests.gallery.reading import covered, drawn, faults, smallest_print

DRAWN: list[str] = []


def picture(name: str, **settings: Any) -> Picture:
    def draw() -> Any:
        DRAWN.append(name)
        fig, ax = plots.figure()
        ax.plot([0, 1])
        return fig

    told: dict[str, Any] = {"title": f"Of {name} & <co>", "caption": "A line.", "equation": r"\frac{1}{2} x^2 < y"}
    return Picture(name, **{**told, "source": "Someone (1950).", "draw": draw, **settings})


NAMES = re.compile(r'drawn\(\s*"([a-z0-9-]+)"')
"""How a test asks for a picture that it reads."""

CHAPTERS = {"first": (picture("one"), picture("two", equation="", source="")), "second": (picture("three"),)}


@pytest.fixture
def chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gallery of three small pictures in two modules."""
    DRAWN.clear()
    monkeypatch.setattr(built, "MODULES", {name: f"Chapter {name}" for name in CHAPTERS})
    monkeypatch.setattr(built.concepts, "page", lambda shown, style: "\n".join(shown))
    modules = {f"jaxnn.gallery.{name}": types.SimpleNamespace(PICTURES=each) for name, each in CHAPTERS.items()}
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def every(self, tag: str, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for name, attrs in self.tags if name == tag and attribute in attrs]


@pytest.mark.usefixtures("chapters")
def test_all_pictures_are_drawn_and_shown(tmp_path: Path, capsys: Any) -> None:
    index = built.build(tmp_path / "new" / "folder")
    assert index == tmp_path / "new" / "folder" / "index.html"
    assert DRAWN == ["one", "two", "three"]
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["1/3", "one"], ["2/3", "two"], ["3/3", "three"],
    ]  # fmt: skip
    page = Page(index)
    assert page.open == []
    images = [src for src in page.every("img", "src") if not src.startswith("data:")]
    assert images == ["one.png", "two.png", "three.png"]
    for image in images:
        assert matplotlib.image.imread(index.parent / image)[..., :3].std() > 0.01
    for told in ("Chapter first", "Chapter second", "Of one & <co>", "A line.", "Someone (1950)."):
        assert told in page.text
    assert page.every("figure", "id") == ["one", "two", "three"]
    targets = {href.removeprefix("#") for href in page.every("a", "href") if href.startswith("#")}
    assert targets == {"one", "two", "three", "chapter-chapter-first", "chapter-chapter-second"}
    assert page.every("h2", "id") == ["chapter-chapter-first", "chapter-chapter-second"]
    for name in ("one", "two", "three"):
        assert f"jaxnn gallery --only {name}" in page.text
    assert r"\frac{1}{2} x^2 < y" in page.every("img", "alt"), "the equation is told to those who do not see it"


@pytest.mark.usefixtures("chapters")
def test_the_page_asks_nothing_of_a_network(tmp_path: Path) -> None:
    index = built.build(tmp_path, progress=False)
    page = Page(index)
    for tag, attrs in page.tags:
        assert tag not in ("script", "iframe", "object", "embed")
        for name in ("src", "href"):
            value = attrs.get(name) or ""
            assert re.fullmatch(r"(#[a-z0-9-]+|[a-z0-9-]+\.png|chapters\.html|data:.*|)", value), value
    assert "url(" not in index.read_text()
    assert "@import" not in index.read_text()


@pytest.mark.usefixtures("chapters")
def test_only_some(tmp_path: Path) -> None:
    index = built.build(tmp_path, only=["two"], progress=False)
    assert DRAWN == ["two"]
    assert Page(index).every("figure", "id") == ["two"], "the page shows what there is"
    assert (tmp_path / "chapters.html").read_text() == "two", "and that of concepts knows it"
    built.build(tmp_path, only=["three"], progress=False)
    assert DRAWN == ["two", "three"]
    page = Page(index)
    assert page.every("figure", "id") == ["two", "three"], "and keeps what was drawn before"
    assert "Of one" not in page.text


@pytest.mark.usefixtures("chapters")
def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"sequence of names, got 'one'. Pass \['one'\]"):
        built.build(tmp_path / "x", only="one", progress=False)
    with pytest.raises(ValueError, match=r"no picture 'tree' \(did you mean 'three'\?\); there are: one, two, three"):
        built.build(tmp_path / "x", only=["tree"], progress=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("chapters")
def test_pictures_of_another_room_come_last_and_their_names_must_differ(tmp_path: Path) -> None:
    index = built.build(tmp_path / "x", only=["four", "one"], more={"third": [picture("four")]}, progress=False)
    assert DRAWN == ["four", "one"]
    assert Page(index).every("figure", "id") == ["one", "four"]
    with pytest.raises(ValueError, match="must differ, got one more than once"):
        built.build(tmp_path / "y", more={"third": [picture("one")]}, progress=False)
    assert not (tmp_path / "y").exists()


def test_a_picture_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, chapters: None, tmp_path: Path) -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    bad = types.SimpleNamespace(PICTURES=(picture("bad", draw=broken),))
    monkeypatch.setattr(importlib, "import_module", lambda name: bad)
    monkeypatch.setattr(built, "MODULES", {"x": "X"})
    with pytest.raises(RuntimeError, match="no") as caught:
        built.build(tmp_path, progress=False)
    assert caught.value.__notes__ == ["raised by the picture 'bad'"]


def test_a_legend_over_a_line_is_seen() -> None:
    fig, ax = plots.figure()
    ax.plot([0, 1], [0, 1], label="up")
    ax.legend(loc="upper right")
    assert covered(fig) == ["up"]
    assert faults(fig) == ["a legend covers up", "no label of x", "no label of y"]
    ax.legend(loc="upper left")
    assert covered(fig) == []
    ax.text(0, 0, "small", fontsize=6)
    assert smallest_print(fig) == pytest.approx(6 / 72 * 120)
    assert smallest_print(fig, widest=300) == pytest.approx(5.0)  # 5 inches wide
    assert faults(fig) == ["print of 10.0 pixels", "no label of x", "no label of y"]
    ax.set(xlabel="x", yticks=[0, 1], yticklabels=["no", "yes"])
    assert faults(fig) == ["print of 10.0 pixels"]
    fig, ax = plots.figure()
    assert faults(fig) == ["blank axes"]


def test_an_equation_is_a_picture() -> None:
    drawn = built.equation_svg(r"\frac{1}{2} x^2")
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert 10 < float(root.attrib["width"].removesuffix("pt")) < 60
    assert drawn == built.equation_svg(r"\frac{1}{2} x^2"), "the same bytes each time"
    assert not re.search(rb"<text|font-family|href=\"http", drawn)
    with pytest.raises(ValueError, match=r"\\nothing"):
        built.equation_svg(r"\nothing{1}")


def test_every_picture_of_the_library_is_told_well() -> None:
    found = built.chapters()
    assert list(found) == list(built.MODULES.values())
    pictures = [p for each in found.values() for p in each]
    assert len(pictures) > 70
    for p in (*pictures, *itertools.chain.from_iterable(MORE.values())):
        assert isinstance(p, gallery.Picture)
        assert pickle.loads(pickle.dumps(p)) == p, "for other processes"
        assert p.title, p.name
        assert not p.title.endswith("."), p.name
        assert 100 < len(p.caption) < 600, p.name
        assert 2 <= len(re.findall(r"[.?!](?:\s|$)", p.caption)) <= 4, f"{p.name}: two to four sentences"
        assert re.search(r"\b(1[6-9]|20)\d\d\b", p.source), p.name
        assert "$" not in p.equation, p.name
        plots.figure()[1].set_title(f"${p.equation}$" if p.equation else "").get_window_extent()  # valid mathtext


READ = {name for path in Path(__file__).parent.glob("test_*.py") for name in NAMES.findall(path.read_text())}
"""The pictures that other tests read."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.name for each in built.chapters().values() for p in each if p.name not in READ])
def test_the_other_pictures(name: str) -> None:
    drawn(name)


def test_a_draw_without_a_figure_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="draw must return a matplotlib Figure, got NoneType") as raised:
        list(drawing.drawn([picture("nothing", draw=lambda: None)], tmp_path))
    assert raised.value.__notes__ == ["raised by the picture 'nothing'"]


def test_no_picture_is_blamed_for_a_process_that_ended() -> None:
    with pytest.raises(BrokenProcessPool) as raised, drawing._named(picture("innocent")):
        raise BrokenProcessPool
    assert "processes=1" in raised.value.__notes__[0]
    assert not any("innocent" in note for note in raised.value.__notes__)

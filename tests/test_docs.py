"""The reference as a site: formulas keep their lines, and what leads nowhere is found. CI builds the whole site."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pdoc.doc", reason="pdoc is not installed: pip install -e '.[docs]'")
import pdoc.doc
import pdoc.render_helpers

BUILD = Path(__file__).parent.parent / ".ci" / "docs" / "build.py"


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("docs_build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROSE = "Steps are scaled by running moments of the gradient, of which the first is kept in the parameters' dtype,"


def test_formulas_keep_their_lines_and_their_characters(build: Any) -> None:
    html = build.to_html(f"m <- b m + (1 - b) g;   t = 1, 2, ...\nv = <m, g>/(2*a*b_i), `*g`\n\n{PROSE}\nunless asked.")
    assert "t = 1, 2, ...<br />\nv = &lt;m, g>/(2*a*b_i), <code>*g</code></p>" in html
    assert f"{PROSE}\nunless asked." in html
    assert "g;\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}t" in html


def test_headings_make_a_table_of_contents(build: Any) -> None:
    assert '<a href="#b">B</a>' in build.to_html("# A\n\n## B\n").toc_html


def test_an_equation_after_a_full_line_begins_a_line(build: Any) -> None:
    assert f"{PROSE}<br />\nd = m / v" in build.to_html(f"{PROSE}\nd = m / v")


def test_code_and_tables_are_left_alone(build: Any) -> None:
    for text in ("```python\nx = 1  # one\ny\n```", "| a  b | c |\n|---|---|\n| d | e |"):
        assert build.with_breaks(text) == text
    for quote in ("", "> "):
        text = f"{quote}>>> f(1)  # one\n{quote}a  b\n{quote}-----\n{quote}>>> 2\n\nEnd."
        html = build.to_html(text)
        assert "<h2" not in html
        assert "a  b</span>" in html
        assert html.endswith("<p>End.</p>\n")


def test_names_that_mean_nothing_are_found(build: Any) -> None:
    text = "`optim.adam`, `jaxnn.optim.adamm`, `per_example.norms(tape)`, `losses.mse.shape`; `a.b`, `adamm` are free."
    page = pdoc.doc.Module(types.ModuleType("jaxnn.page", text))
    assert build.broken_names([page]) == [
        "jaxnn.page: `optim.adamm` means nothing.",
        "jaxnn.page: `losses.mse.shape` means nothing.",
    ]


def test_links_and_anchors_that_lead_nowhere_are_found(build: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"> <a href="#gone"> <a href="b.html#x"> <a href="c.html">'
    )
    (tmp_path / "b.html").write_text(
        '<h1 id="x"> <a href="a.html"> <a href="https://example.org"> <img src="data:image">'
    )
    found = build.broken_links(tmp_path)
    assert found == ["a.html: the link #gone leads nowhere.", "a.html: the link c.html leads nowhere."]


def test_public_names_that_are_not_on_their_page_are_found(build: Any, tmp_path: Path) -> None:
    module = types.ModuleType("room")
    module.__all__ = ["here", "gone"]
    (tmp_path / "room.html").write_text('<section id="here">')
    assert build.missing_names([pdoc.doc.Module(module)], tmp_path) == ["room.gone is public, and not on its page."]


def test_a_readme_links_to_files_that_exist(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    (tmp_path / "jaxnn").mkdir()
    (tmp_path / "jaxnn" / "README.md").write_text("[a](../README.md#b), [c](c.py), [d](https://example.org)")
    (tmp_path / "README.md").write_text("")
    with pytest.raises(ValueError, match=r"jaxnn/README.md: the link c.py leads to no file"):
        build.readme("jaxnn.README", tmp_path / "site")
    (tmp_path / "jaxnn" / "c.py").write_text("c = 1")
    page = build.readme("jaxnn.README", tmp_path / "site")
    assert page.__doc__ == "[a](../index.html#b), [c](c.py), [d](https://example.org)"
    assert (tmp_path / "site" / "jaxnn" / "c.py").read_text() == "c = 1"

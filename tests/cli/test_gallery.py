"""`jaxnn gallery` on cheap pictures."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from jaxnn.cli.main import main
from jaxnn.cli.pictures import MORE, PLAYGROUND
from jaxnn.gallery.build import build, chapters
from jaxnn.studies import induction, tasks, vanishing


@pytest.mark.slow
def test_pictures_and_the_page_are_written(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "gallery"
    assert main(["gallery", "--out", str(out), "--only", "losses", "activations"]) == 0
    assert {path.name for path in out.iterdir()} == {"losses.png", "activations.png", "index.html", "chapters.html"}
    assert f"gallery: {out / 'index.html'}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_playground_has_a_chapter(tmp_path: Path) -> None:
    assert main(["gallery", "--out", str(tmp_path), "--only", *(p.name for p in PLAYGROUND)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert '<h2 id="chapter-playground">Playground</h2>' in page
    for p in PLAYGROUND:
        assert f'src="{p.name}.png"' in page
        assert matplotlib.image.imread(tmp_path / f"{p.name}.png")[..., :3].std() > 0.01


@pytest.mark.slow
def test_the_figures_of_studies_have_a_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"epochs": 1, "steps": 1, "batch_size": 2}
    monkeypatch.setattr(vanishing, "run", functools.partial(vanishing.run, length=4, hidden=2, **few))
    monkeypatch.setattr(induction, "run", functools.partial(induction.run, symbols=6, length=4, width=8, **few))
    small = functools.partial(tasks.run, tasks=["parity"], networks=["RNN"], width=4, steps=1, batch_size=2)
    monkeypatch.setattr(tasks, "run", small)
    found = MORE["Sequences"]
    build(tmp_path, only=[p.name for p in found], more=MORE, progress=False)
    assert {path.name for path in tmp_path.glob("*.png")} == {f"{p.name}.png" for p in found}
    assert len({(tmp_path / f"{p.name}.png").read_bytes() for p in found}) == len(found)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--only", "loses"], "no picture 'loses' (did you mean 'losses'?); there are: activations, losses"),
        (["--seed", "1"], "--seed"),
        (["--only"], "--only needs at least one name"),
    ],
)
def test_bad_arguments_print_one_line_and_exit_2(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gallery", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jaxnn: ")
    assert text in error
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    assert main(["gallery", "--out", str(tmp_path / "file"), "--only", "losses"]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_help_names_the_options(capsys: Any) -> None:
    assert main(["--help"]) == 0
    assert "gallery" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["gallery", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--out" in shown
    assert "--only" in shown
    words = set(re.findall("[a-z0-9-]+", shown))
    for title, pictures in (chapters() | dict(MORE)).items():
        assert f"{title}: {pictures[0].name}" in " ".join(shown.split())
        assert {picture.name for picture in pictures} <= words

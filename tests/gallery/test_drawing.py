"""Pictures drawn by several processes, and the options under which they compile."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from jaxnn import plots
from jaxnn.gallery.base import Picture
from jaxnn.gallery.build import build
from jaxnn.gallery.drawing import FEWEST, LEVEL, brief_compilation, drawn


def draw() -> Any:
    fig, ax = plots.figure()
    ax.set_title(str(os.getpid()))
    return fig


def draw_slowly() -> Any:
    time.sleep(1)
    return draw()


def fail() -> Any:
    raise RuntimeError("no")


def pictures(count: int, **settings: Any) -> list[Picture]:
    told = {"title": "A", "caption": "B.", "equation": "", "source": "C (1950).", "draw": draw, **settings}
    return [Picture(f"p{i}", **told) for i in range(count)]


@pytest.mark.slow
def test_several_processes_draw_each_picture_once(tmp_path: Path) -> None:
    shown = pictures(2 * FEWEST)
    assert sorted(p.name for p in drawn(shown, tmp_path, processes=2)) == [p.name for p in shown]
    images = {matplotlib.image.imread(tmp_path / f"{p.name}.png").tobytes() for p in shown}
    plots.save(draw(), tmp_path / "here.png")
    images.add(matplotlib.image.imread(tmp_path / "here.png").tobytes())
    assert 2 <= len(images) <= 3, "the titles are of one or two other processes"


@pytest.mark.slow
def test_a_failure_in_another_process_is_named(tmp_path: Path) -> None:
    bad, *others = pictures(2 * FEWEST, draw=fail)
    with pytest.raises(RuntimeError, match="no") as caught:
        list(drawn([bad, *others], tmp_path, processes=2))
    assert caught.value.__notes__[-1].startswith("raised by the picture 'p")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_other_processes_stop_with_this_one(tmp_path: Path) -> None:
    found = drawn(pictures(2 * FEWEST, draw=draw_slowly), tmp_path, processes=2)
    next(found)
    found.close()
    assert not multiprocessing.active_children()
    assert len(list(tmp_path.iterdir())) < 2 * FEWEST


def test_few_pictures_are_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", None)
    shown = pictures(2 * FEWEST - 1, draw=lambda: plots.figure()[0])  # would not pickle
    assert list(drawn(shown, tmp_path, processes=8)) == shown
    assert len(list(tmp_path.iterdir())) == len(shown)


def test_the_number_of_processes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gallery: processes must be at least 1, got 0"):
        build(tmp_path / "x", processes=0)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        (None, f"{LEVEL}=1"),
        ("--xla_dump_to=x", f"--xla_dump_to=x {LEVEL}=1"),
        (f"{LEVEL}=3", f"{LEVEL}=3"),
    ],
)
def test_the_options_of_xla(before: str | None, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    else:
        monkeypatch.setenv("XLA_FLAGS", before)
    with brief_compilation():
        assert os.environ["XLA_FLAGS"] == inside
    assert os.environ.get("XLA_FLAGS") == before

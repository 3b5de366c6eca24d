"""The table of concepts: every name exists, every code and command runs, the page shows them all."""

from __future__ import annotations

import doctest
import functools
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from jaxnn import missing
from jaxnn.cli.main import main
from jaxnn.cli.pictures import MORE
from jaxnn.gallery.build import STYLE, chapters
from jaxnn.gallery.items import SUBJECTS
from jaxnn.gallery.items.base import Item
from jaxnn.gallery.items.examples import complete, resolve
from jaxnn.gallery.items.page import page
from tests.gallery.test_build import Page

ITEMS = [item for items in SUBJECTS.values() for item in items]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
"""As for the examples of docstrings, see pyproject.toml."""

SMALL = {
    "jaxnn playground": "--epochs 1",
    "jaxnn train --recipe mnist-linear": "--epochs 1 --data digits",
    "jaxnn train --recipe mnist-mlp": "--epochs 1 --data digits --hidden 8",
    "jaxnn study vanishing": "--length 6 --hidden 4 --epochs 1 --steps 2",
    "jaxnn study induction": "--length 4 --width 8 --heads 2 --epochs 1 --steps 2",
    "jaxnn study tasks": "--tasks parity --networks RNN --width 4 --epochs 1 --steps 2",
    "jaxnn train --model cnn": "--epochs 1 --channels 2 --hidden 8 --batch-size 512",
}
"""What makes a command fast, by its beginning."""


def figures() -> dict[str, str]:
    """The titles of all figures of `jaxnn gallery` by name."""
    every = (chapters() | dict(MORE)).values()
    return {picture.name: picture.title for pictures in every for picture in pictures}


@functools.cache
def failures(code: str, name: str = "code") -> str:
    """What differs between a code's output and what it says, run in an empty session; "" if nothing does."""
    told: list[str] = []
    test = doctest.DocTestParser().get_doctest(code, {}, name, None, None)
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=told.append)
    return "".join(told)


@functools.cache
def has_mnist() -> bool:
    return bool(os.environ.get("JAXNN_DATA")) and (Path(os.environ["JAXNN_DATA"]) / "mnist").is_dir()


def small(command: str) -> list[str]:
    """The words of a command after `jaxnn`, with options that make it fast."""
    (options,) = (more for beginning, more in SMALL.items() if command.startswith(beginning))
    return shlex.split(f"{command} {options}")[1:]


def test_every_name_exists_and_is_public() -> None:
    for item in ITEMS:
        for name in item.names:
            room, part = name.split(".")[:2]
            assert part in missing.public_names()[room] or room == "ops", f"{item.concept}: {name} is not public"
            assert resolve(name) is not None


def test_every_figure_exists() -> None:
    assert {item.figure for item in ITEMS if item.figure} <= set(figures())


def test_concepts_are_told_once_and_in_a_few_words() -> None:
    concepts = [item.concept for item in ITEMS]
    assert len(concepts) == len(set(concepts)) > 270
    for concept in concepts:
        assert len(concept) <= 80, concept
        assert not concept.endswith("."), concept


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_code_is_complete(subject: str) -> None:
    for item in SUBJECTS[subject]:
        examples = doctest.DocTestParser().get_examples(complete(item))
        if item.names:
            assert any(example.want for example in examples), f"{item.concept}: no output"
        assert not any("SKIP" in example.source for example in examples), item.concept
        if item.run:
            used = {name.rpartition(".")[2] for name in item.names}
            assert any(re.search(rf"\b{name}\b", item.run) for name in used), f"{item.concept}: uses none of its names"


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_code_prints_what_it_says(subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = {complete(item): item.concept for item in SUBJECTS[subject] if item.names != ("data.mnist",) or has_mnist()}
    found = {concept: failures(code, concept) for code, concept in codes.items() if code}
    assert not any(found.values()), "\n".join(text for text in found.values() if text)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({item.command for item in ITEMS if item.command}))
def test_every_command_runs(command: str, tmp_path: Path, capsys: Any) -> None:
    assert main([*small(command), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert list((tmp_path / "out").iterdir())


def test_imports_are_merged() -> None:
    code = complete(Item("mean loss", "train.mean_loss"))
    assert code.splitlines()[:5] == [
        ">>> import jax", ">>> import jax.numpy as jnp", ">>> from jaxnn import losses, models",
        ">>> from jaxnn.train import mean_loss", ">>> net = models.linear(3)",
    ]  # fmt: skip


def test_a_wrong_value_is_found() -> None:
    item = Item(
        "ReLU", "activations.relu", ">>> activations.relu(jnp.array([-1.0, 2.0]))\nArray([0., 2.], dtype=float32)"
    )
    assert failures(complete(item)) == ""
    assert "Expected" in failures(complete(item).replace("0.,", "1.,"))
    assert "NameError" in failures(complete(item).replace("import jax.numpy as jnp", "import jax"))


def test_code_imports_what_it_uses_and_no_more() -> None:
    item = Item("gates", "classic.gates.xor", ">>> [gates.and_().units for i in range(2)]\n[1, 1]")
    assert complete(item) == f">>> from jaxnn.classic import gates\n{item.run}"
    item = Item("moments", "metrics.rmse", ">>> x = jnp.ones(2)\n>>> metrics.rmse(x, np.zeros(2)), jax.nn.relu(x)\n0")
    assert complete(item).splitlines()[:3] == [
        ">>> import jax", ">>> import jax.numpy as jnp", ">>> import numpy as np",
    ]  # fmt: skip
    assert complete(Item("Adam", "optim.adam")).splitlines()[:2] == [
        ">>> import jax.numpy as jnp", ">>> from jaxnn.optim import adam",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "expected a name, a figure or a command"),
        ({"figure": "losses", "run": ">>> 1\n1"}, "needs the names"),
        ({"command": "rm -r x"}, "must begin with 'jaxnn '"),
    ],
)
def test_an_item_without_a_place(settings: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Item("nothing", **settings)


def test_a_name_without_an_example() -> None:
    with pytest.raises(ValueError, match=r"train\.DivergedError has no example"):
        complete(Item("divergence", "train.DivergedError"))
    with pytest.raises(AttributeError, match="sigmoid"):
        complete(Item("misspelt", "activations.sigmiod"))


def test_the_page_shows_every_item(tmp_path: Path) -> None:
    (tmp_path / "chapters.html").write_text(page(figures(), STYLE), encoding="utf-8")
    shown = Page(tmp_path / "chapters.html")
    assert shown.open == []
    for item in ITEMS:
        for told in (item.concept, *item.names, item.command, complete(item)):
            assert told in shown.text
    links = shown.every("a", "href")
    assert links[0] == "index.html"
    anchors = set(shown.every("h2", "id"))
    assert {link[1:] for link in links if link.startswith("#")} == anchors
    assert {link.partition("#")[2] for link in links if link.startswith("index.html#")} <= set(figures())
    assert len(links) == 1 + len(SUBJECTS) + sum(bool(item.figure) for item in ITEMS)


def test_a_figure_that_was_not_drawn_is_told_as_a_command() -> None:
    text = page(["losses"], subjects={"a": [Item("hinge", "losses.hinge", figure="losses"), Item("x", figure="y")]})
    assert '<a href="index.html#losses">' in text
    assert "jaxnn gallery --only y" in text
    assert 'href="index.html#y"' not in text

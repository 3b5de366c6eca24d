"""Lists with commas, with blanks and by repetition, for every command; nothing given is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jaxnn.cli.config import TrainConfig
from jaxnn.cli.gallery import GalleryConfig
from jaxnn.cli.main import _parse, main
from jaxnn.cli.parity import ParityConfig
from jaxnn.cli.playground import PlaygroundConfig
from jaxnn.cli.predict import PredictConfig
from jaxnn.cli.race import RaceConfig
from jaxnn.cli.study import ClippedConfig, NoiseScaleConfig
from jaxnn.cli.words import UsageError, gathered
from jaxnn.compare.entries import entries

LISTS = [
    (GalleryConfig, "only", ("losses", "activations")),
    (TrainConfig, "hidden", (16, 8)),
    (TrainConfig, "channels", (4, 8)),
    (TrainConfig, "optimizer_options", ("b1=0.8", "nesterov=true")),
    (NoiseScaleConfig, "sizes", (8, 16)),
    (ClippedConfig, "noise", (0.5, 1.0)),
    (RaceConfig, "optimizers", "adam,prodigy:betas=(0.9, 0.99)"),
    (RaceConfig, "problems", "quadratic,digits-mlp"),
    (RaceConfig, "learning_rates", "1e-3,1e-2"),
    (RaceConfig, "landscapes", "beale,rosenbrock"),
    (PlaygroundConfig, "features", "x,siny"),
    (PlaygroundConfig, "hidden", "8,4"),
]


@pytest.mark.parametrize(("config", "field", "value"), LISTS, ids=lambda v: v if isinstance(v, str) else "")
def test_commas_blanks_and_repetition_say_the_same(config: type[Any], field: str, value: Any) -> None:
    option = f"--{field.replace('_', '-')}"
    first, second = map(str, value) if isinstance(value, tuple) else value.split(",", 1)
    for words in (
        [option, f"{first},{second}"],
        [option, f"{first}, {second},"],
        [option, first, second],
        [option, first, option, second],
        [f"{option}={first}", option, second],
        [f"{option}={first}", second],
        [f"--{field}", first, f"--{field}={second}"],
    ):
        model = ["--model", "cnn"] if field == "channels" else []
        assert getattr(_parse("x", config, [*words, *model], None), field) == value, words


def test_commas_inside_brackets_part_nothing() -> None:
    assert [e.name for e in entries("adam, prodigy:betas=(0.9, 0.99) ,")] == ["adam", "prodigy:betas=(0.9, 0.99)"]


def test_names_with_commas_are_whole() -> None:
    config = _parse("x", ParityConfig, ["adam,lion", "--steps", "3", "rmsprop: centered, momentum"], None)
    assert list(config.cases()) == ["adam", "lion", "rmsprop: centered, momentum"]


def test_words_between_options_are_kept() -> None:
    assert gathered(PredictConfig, ["--invert", "a", "--levels", "-1", "b"]) == ["a", "b", "--invert", "--levels", "-1"]
    assert gathered(PredictConfig, ["a", "--", "--b"]) == ["a", "--b"]
    assert gathered(PredictConfig, ["--nosuch", "a"]) == ["a", "--nosuch"]


def test_an_empty_list_is_empty() -> None:
    assert _parse("x", TrainConfig, ["--hidden"], None).hidden == ()
    assert _parse("x", TrainConfig, ["--hidden", ""], None).hidden == ()
    assert _parse("x", RaceConfig, ["--landscapes", ""], None).landscapes == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "3", "--epochs", "5"],
        ["--epochs", "3", "--epochs=3"],
        ["--learning_rate", "1", "--learning-rate", "2"],
        ["--final", "--final"],
        ["--final", "--no-final"],
    ],
    ids=" ".join,
)
def test_one_value_given_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is given twice .*: omit one of them"):
        gathered(TrainConfig, words)


@pytest.mark.parametrize("words", [["4", "--hidden", ""], ["", "--hidden", "4"], ["4", "--hidden"], ["4", ""]])
def test_an_empty_list_beside_another_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--hidden is given both empty and with values"):
        gathered(TrainConfig, ["--hidden", *words])


def test_every_command_takes_its_words_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for words, text in (
        (["train", "--recipe", "mnist-mlp", "--recipe=mnist-cnn"], "--recipe is given twice"),
        (["train", "--seed", "1", "--seed", "2"], "--seed is given twice (--seed 1 and --seed 2)"),
        (["study", "norms", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["compare", "race", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["compare", "parity", "adam", "--all", "--all"], "--all is given twice"),
        (["playground", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["predict", "a", "b", "--out", "c", "--out", "d"], "--out is given twice"),
        (["gallery", "--out", "a", "--out", "b"], "--out is given twice"),
        (["gallery", "--only", "losses,x"], "no picture 'x'"),
        (["gallery", "--only", "losses", "--only", "x"], "no picture 'x'"),
        (["compare", "parity", "adam,x"], "no case 'x'"),
    ):
        assert main(words) == 2
        assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

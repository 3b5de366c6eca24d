"""`jaxnn study` end to end, in temporary folders, on some of the embedded digits and short sequences."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from jaxnn import data
from jaxnn.cli.main import main
from jaxnn.cli.sequence_studies import VanishingConfig
from jaxnn.cli.study import STUDIES
from tests.helpers import slow

QUICK = ["--examples", "96", "--hidden", "8", "--epochs", "1", "--batch-size", "32"]
SEQUENCES = {
    "vanishing": ["--length", "12", "--hidden", "4"],
    "induction": ["--length", "4", "--symbols", "6", "--width", "8", "--heads", "2"],
    "tasks": ["--width", "4", "--tasks", "adding,parity", "--networks", "RNN"],
}
SHORT = ["--epochs", "2", "--steps", "2", "--batch-size", "8"]
PICTURES = {
    "mislabeled": {"mislabeled.png", "suspects.png"},
    "projections": {"projections.png", "agreement.png"},
    "induction": {"induction.png", "induction-heads.png"},
    "tasks": {"tasks.png", "tasks-curves.png"},
}
SAID = {
    "norms": "median gradient norm",
    "hardest": "rank correlation of gradient norm and loss",
    "mislabeled": "5 of 96 labels were made wrong",
    "noise-scale": "noise scale (examples) of the whole training set",
    "clipped": "no privacy guarantee",
    "gram": "within a class",
    "influence": "to first order",
    "projections": "agreement of projected with exact inner products",
    "induction": "repeated tokens predicted after 4 steps",
    "tasks": "accuracy on held-out examples after 4 steps",
    "vanishing": "gradient of the output in the state k positions before the end",
}


@pytest.mark.parametrize("name", ["mislabeled", *slow(*(name for name in STUDIES if name != "mislabeled"))])
def test_a_study_writes_its_folder_and_says_what_it_found(name: str, tmp_path: Path, capsys: Any) -> None:
    quick = [*SHORT, *SEQUENCES[name]] if name in SEQUENCES else QUICK
    assert main(["study", name, *quick, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert SAID[name] in shown
    assert "nan" not in shown
    pictures = PICTURES.get(name, {f"{name}.png"})
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "result.json", *pictures}
    for picture in pictures:
        assert matplotlib.image.imread(tmp_path / "run" / picture)[..., :3].std() > 0.01
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["study"] == name
    assert config["options"]["batch_size"] == int(quick[quick.index("--batch-size") + 1])
    assert json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=_no_constant)


def _no_constant(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize("name", STUDIES)
def test_the_defaults_of_the_command_are_those_of_the_study(name: str) -> None:
    module, kind = STUDIES[name]
    parameters = inspect.signature(module.run).parameters
    options = {f.name: f.default for f in dataclasses.fields(kind)}
    assert set(kind().settings()) <= set(parameters)
    for option in set(options) & set(parameters) - {"data"}:
        assert options[option] == parameters[option].default, option


def test_settings_reach_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(splits: Any, **settings: Any) -> Any:
        seen.append((len(splits.train), settings))
        raise ValueError("enough")

    monkeypatch.setattr("jaxnn.studies.mislabeled.run", run)
    monkeypatch.chdir(tmp_path)
    assert main(["study", "mislabeled", *QUICK, "--fraction", "0.2", "--seed", "3"]) == 2
    ((count, settings),) = seen[:1]
    assert (count, settings["fraction"], settings["seed"], settings["epochs"]) == (96, 0.2, 3, 1)
    assert not list((tmp_path / "runs").iterdir()), "a study that fails leaves no folder"
    monkeypatch.setattr("jaxnn.studies.vanishing.run", lambda **settings: run(data.Splits([], [], []), **settings))
    assert main(["study", "vanishing", "--length", "7", "--steps", "3"]) == 2
    assert seen[1][1].pop("folder").name == "checkpoints"
    assert seen[1] == (0, VanishingConfig(length=7, steps=3).settings())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "study needs a name: jaxnn study NAME [OPTIONS]; studies: norms, hardest"),
        (["norm"], "no study 'norm' (did you mean 'norms'?); there are: norms"),
        (["norms", "--bound", "1"], "--bound"),
        (["norms", "--epochs", "0"], "study: epochs must be at least 1, got 0"),
        (["norms", "--batch-size", "2000"], "batch_size 2000 exceeds the 1257 training examples"),
        (["mislabeled", "--fraction", "0"], "fraction"),
        (["clipped", "--bound", "-1"], "bound must lie in"),
        (["vanishing", "--steps", "0"], "study: steps must be at least 1, got 0"),
        (["vanishing", "--data", "digits"], "--data"),
        (["tasks", "--tasks", "copy"], "tasks has no 'copy' (did you mean 'copying'?)"),
        (["tasks", "--networks", ""], "expected at least one name in networks"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_arguments_print_one_line_and_exit_2(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jaxnn: ")
    assert text in error


def test_help_lists_the_studies_and_their_options(capsys: Any) -> None:
    assert main(["study", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in STUDIES)
    assert "  influence   The influence of training examples" in shown
    with pytest.raises(SystemExit) as stopped:
        main(["study", "clipped", "--help"])
    assert stopped.value.code == 0
    assert "--noise" in capsys.readouterr().out

"""`jaxnn playground` end to end, in temporary folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import tyro
from PIL import Image

from jaxnn.cli.main import main
from jaxnn.cli.playground import PlaygroundConfig
from jaxnn.playground import Settings

QUICK = ["--data", "spiral", "--features", "x,y,sinx", "--hidden", "4,3", "--epochs", "3", "--batch-size", "50"]


@pytest.mark.slow
def test_it_writes_page_picture_animation_and_numbers(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    assert main(["playground", *QUICK, "--noise", "0.2", "--out", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "trained on x, y, sin x for 3 epochs in" in shown
    assert "playground.html" in shown
    names = {"playground.html", "last.png", "training.gif", "config.json", "result.json"}
    assert {p.name for p in folder.iterdir()} == names
    assert "spiral (classification), noise 0.2 (20%); 4-3 hidden units" in (folder / "playground.html").read_text()
    assert matplotlib.image.imread(folder / "last.png")[..., :3].std() > 0.01
    with Image.open(folder / "training.gif") as gif:
        assert gif.n_frames == 4
    result = json.loads((folder / "result.json").read_text())
    assert 0 < result["train_loss"] < 2
    options = json.loads((folder / "config.json").read_text())["options"]
    assert (options["features"], options["hidden"], options["noise"]) == ("x,y,sinx", "4,3", 0.2)


def test_the_defaults_are_those_of_the_library() -> None:
    assert PlaygroundConfig().settings() == Settings()


@pytest.mark.parametrize("told", ["0.25", "25%", "25", ".25", "25.0%"])
def test_noise_and_ratio_are_fractions_or_percentages(told: str) -> None:
    parsed = tyro.cli(PlaygroundConfig, args=["--noise", told, "--train-ratio", told])
    assert (parsed.noise, parsed.train_ratio) == (0.25, 0.25)
    assert parsed.settings() == Settings(noise=0.25, train_ratio=0.25)


def test_help_explains_both_units_and_both_kinds_of_names(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["playground", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "as a fraction (0.25) or in percent (25% or 25; numbers from 1 on are percent)" in shown
    assert "x1, x2 (the coordinates)" in shown
    assert "(default: 0%)" in shown


def test_x1_and_x2_are_names_of_the_coordinates() -> None:
    assert PlaygroundConfig(features="x1,x2").settings() == Settings()
    assert PlaygroundConfig(features="x2,x1^2,x1x2").settings().features == ("y", "x2", "xy")
    assert PlaygroundConfig(features="x,x2").settings().features == ("x", "x2"), "x squared"


def test_lists_are_separated_by_commas() -> None:
    told = PlaygroundConfig(features=" x, siny,", hidden="8, 8").settings()
    assert (told.features, told.hidden) == (("x", "siny"), (8, 8))
    assert PlaygroundConfig(hidden="").settings().hidden == ()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data", "moons"], "--data"),
        (["--features", "x,z"], "no feature 'z'; there are: x, y, x2, y2, xy, sinx, siny"),
        (["--hidden", "8;8"], "hidden must be integers separated by commas, got '8;8'"),
        (["--hidden", "64"], "hidden must be at most 6 layers of 1 to 8 units each, got 64"),
        (["--learning-rate", "0"], "playground: learning_rate must be a finite number > 0, got 0"),
        (["--regularization-rate", "0.1"], "regularization_rate 0.1 has no effect with regularization 'none'"),
        (["--noise", "60"], "noise must lie in [0, 0.5], got 0.6"),
        (["--noise", "0.75"], "noise must lie in [0, 0.5], got 0.75"),
        (["--noise", "much"], "--noise"),
        (["--features", "x1,y"], "features must be of one kind, got x1 of x1, x2, x1^2"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_arguments_print_one_line_and_exit_2(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["playground", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jaxnn: ")
    assert text in error
    assert not list(tmp_path.iterdir())

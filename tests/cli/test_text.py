"""Language models on the command line, end to end, on the text in the package."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from jaxnn import data, models
from jaxnn.cli.main import main
from jaxnn.cli.recipes import RECIPES
from jaxnn.cli.text import config as build
from jaxnn.cli.text.config import TextConfig
from jaxnn.cli.text.predict import read_text_run

SMALL = ["--width", "8", "--depth", "1", "--heads", "2", "--length", "16", "--steps", "3", "--epochs", "2"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 2,000 characters."""
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_text(data.text.embedded()[:2000])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = ["train", "--data", "text", "--text", str(text), *SMALL, "--sample", "20", "--seeds", "2"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def test_a_run_writes_its_folder(run: Path, text: Path) -> None:
    names = {"config.json", "metrics.jsonl", "params.npz", "result.json", "curves.png", "samples.txt"}
    assert {p.name for p in run.iterdir()} == names
    whole = json.loads((run / "config.json").read_text())
    assert whole["options"]["data"] == "text"
    assert data.text.from_json(whole["symbols"]) == data.text.characters(text.read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["seed"], r["epoch"]) for r in records] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for record in records:
        assert record["perplexity"] == pytest.approx(math.exp(record["validation_loss"]))
        assert record["bits_per_character"] == pytest.approx(record["validation_loss"] / math.log(2))
    samples = (run / "samples.txt").read_text()
    assert samples.count("--- seed ") == 4
    assert matplotlib.image.imread(run / "curves.png").std() > 0.01
    rows = json.loads((run / "result.json").read_text())
    assert [row["validation_loss"] for row in rows] == [records[1]["validation_loss"], records[3]["validation_loss"]]


@pytest.mark.slow
def test_the_folder_holds_the_best_seed(run: Path) -> None:
    read = read_text_run(run)
    best = min(json.loads((run / "result.json").read_text()), key=lambda row: row["validation_loss"])
    source = read.config.text
    assert source is not None
    x, y = data.text.all_windows(read.symbols.encode(data.text.split(source.read_text())[1]), read.config.length)
    logits = np.asarray(read.net.predict(read.params, read.state, x), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, y[..., None], axis=-1).mean()
    assert loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_predict_continues_a_prompt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run), "--prompt", "the ", "--tokens", "12", "--count", "2"]
    assert main([*words, "--top-k", "5", "--top-p", "0.9"]) == 0
    first = capsys.readouterr().out
    assert first.count("the ") >= 2
    assert main([*words, "--top-k", "5", "--top-p", "0.9"]) == 0
    assert capsys.readouterr().out == first
    assert main([*words, "--top-k", "5", "--top-p", "0.9", "--seed", "1"]) == 0
    assert capsys.readouterr().out != first


@pytest.mark.slow
def test_greedy_continuation_is_that_of_the_library(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = read_text_run(run)
    assert main(["predict", str(run), "--prompt", "the ", "--tokens", "9", "--temperature", "0"]) == 0
    prompt = read.symbols.encode("the ")[None]
    found = models.generate(read.net, read.params, read.state, prompt, 9, temperature=0.0)
    assert capsys.readouterr().out == read.symbols.decode(np.asarray(found)[0]) + "\n"


def test_an_empty_prompt_begins_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "--prompt", "", "--tokens", "5"]) == 0
    assert len(capsys.readouterr().out) == 7  # a newline, five characters, the end of the line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--data", "text", "--heads", "3"], "width must be a multiple of twice the heads"),
        (["train", "--data", "text", "--text", "none.txt"], "none.txt: No such file"),
        (["train", "--data", "text", "--batch-norm"], "--batch-norm"),
        (["train", "--data", "text", "--optimizer", "sgd", "--adam-learning-rate", "0.1"], "of muon only"),
        (["train", "--data", "text", "--optimizer", "admw"], "no optimizer 'admw'"),
        (["train", "--data", "text", "--optimizer-options", "adaptive=true"], "muon has no option 'adaptive' here"),
        (["train", "--data", "text", "--dropout", "1"], "dropout must lie in [0, 1)"),
        (["predict", "RUN", "--prompt", "é"], "does not know"),
        (["predict", "RUN", "--prompt", "a", "--top-p", "0"], "top_p must lie in (0, 1]"),
        (["predict", "RUN", "images.npy"], 'continues a text: jaxnn predict'),
        (["predict", "nowhere", "--prompt", "a"], "is not a finished run"),
        (["predict", "RUN"], "Missing from jaxnn predict: --prompt"),
        (["train", "--text", "none.txt"], "none.txt: No such file"),
        (["train", "--model", "lstm", "--heads", "0"], "heads must be at least 1"),
        (["train", "--data", "text", "--out", "RUN/new/.."], "is not an empty folder"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("RUN", str(run)) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_text_that_is_too_short_or_not_utf8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.txt"
    path.write_bytes(b"too short")
    out = tmp_path / "run"
    assert main(["train", "--data", "text", "--text", str(path), "--out", str(out)]) == 2
    assert "smaller --length" in capsys.readouterr().err
    path.write_bytes(b"\xff\xfe")
    assert main(["train", "--data", "text", "--text", str(path), "--out", str(out)]) == 2
    assert "is not a UTF-8 text" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_a_run_of_images_takes_no_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits"
    assert main(["train", "--epochs", "1", "--hidden", "4", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["predict", str(out), "--prompt", "a"]) == 2
    assert "not of a language model" in capsys.readouterr().err


def test_parameters_of_another_network_are_refused(run: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    whole = json.loads((run / "config.json").read_text())
    whole["options"]["width"] = 12
    (other / "config.json").write_text(json.dumps(whole))
    (other / "params.npz").write_bytes((run / "params.npz").read_bytes())
    assert main(["predict", str(other), "--prompt", "a"]) == 2
    assert "does not fit" in capsys.readouterr().err


@pytest.mark.slow
def test_another_optimizer_and_bytes(text: Path, tmp_path: Path) -> None:
    words = ["train", "--data", "text", "--text", str(text), *SMALL, "--symbols", "bytes", "--sample", "0"]
    out = tmp_path / "run"
    assert main([*words, "--optimizer", "schedule_free_adamw", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["symbols"] == {"kind": "bytes"}
    assert not (out / "samples.txt").exists()


def test_the_default_text_is_the_one_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.text, "local_tiny_shakespeare", lambda: None)
    assert build.read_text(TextConfig()) == ("Coriolanus", data.text.embedded())


def test_recipes_of_texts_are_valid() -> None:
    for name, config in RECIPES.items():
        if isinstance(config, TextConfig):
            assert not config.without_effect(
                [f for f in vars(config) if getattr(config, f) != getattr(TextConfig(), f)]
            ), name

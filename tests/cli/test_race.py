"""`jaxnn compare race` end to end, on the smallest problem; stopped, it keeps what is done."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxnn import train
from jaxnn.cli.main import main
from jaxnn.cli.race import RaceConfig

QUICK = [
    "compare", "race", "--problems", "rosenbrock", "--learning-rates", "1e-4,1e-3", "--seeds", "2", "--epochs", "5",
    "--landscapes", "",
]  # fmt: skip


@pytest.mark.slow
def test_a_race_writes_its_report_and_prints_its_table(tmp_path: Path, capsys: Any) -> None:
    assert main([*QUICK, "--optimizers", "sgd,optax:adam", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "rosenbrock: validation loss, lower is better" in shown.out
    assert "optax:adam" in shown.out
    assert f"report: {tmp_path / 'report.html'}" in shown.out
    assert "rosenbrock: sgd, tuning 2/2 runs" in shown.err
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"report.html", "race.json", "curves.npz", "curves.csv", "rosenbrock-learning.png", "costs.png"}
    told = json.loads((tmp_path / "race.json").read_text())
    assert [r["optimizer"] for r in told["results"]] == ["sgd", "optax:adam"]
    assert told["settings"]["learning_rates"] == [1e-4, 1e-3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(
    number: signal.Signals, word: str, code: int, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, calls = train.sweeps.chunks.StagedProgram.call, []

    def stop_at_the_third(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return call(self, *given)

    monkeypatch.setattr(train.sweeps.chunks.StagedProgram, "call", stop_at_the_third)
    words = [*QUICK, "--optimizers", "sgd,adam", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["jaxnn", *words])
    assert main(words) == code
    *_, before, said = capsys.readouterr().err.splitlines()
    assert before.startswith("rosenbrock, sgd: validation loss")
    assert said == (
        f"jaxnn: {word}; {tmp_path / 'report.html'} shows 1 finished result; go on with: {shlex.join(sys.argv)}"
    )
    assert [r["optimizer"] for r in json.loads((tmp_path / "race.json").read_text())["results"]] == ["sgd"]
    assert main(words) == 0
    assert len(calls) == 3 + 2  # adam's tuning and fresh runs


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--optimizers", "adma"], "did you mean"),
        (["--problems", "digits-mpl"], "did you mean 'digits-mlp'"),
        (["--learning-rates", ""], "learning rates must be finite numbers > 0"),
        (["--learning-rates", "log:1:2"], "log:LOW:HIGH:N"),
        (["--landscapes", "rosenbrok"], "did you mean 'rosenbrock'"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--seed", "x"], "jaxnn compare race --help lists the options"),
    ],
)
def test_bad_words_are_named_in_one_line(words: list[str], text: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", "race", *words, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert text in said
    assert "\n" not in said


def test_the_default_race_is_one_that_can_be_run() -> None:
    from jaxnn.compare import problems
    from jaxnn.compare.entries import entries, grid

    config = RaceConfig()
    assert len(entries(config.optimizers)) >= 3
    assert all(name in problems.PROBLEMS for name in config.problems.split(","))
    assert len(grid(config.learning_rates)) == 13

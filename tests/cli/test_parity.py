"""`jaxnn compare parity` end to end, on two small cases."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxnn import optim
from jaxnn.cli import parity
from jaxnn.cli.main import main
from jaxnn.cli.parity import ParityConfig
from jaxnn.compare import Case, pair
from jaxnn.compare.cases import all_cases

WRONG = optim.chain(optim.scale(1.001), optim.sgd(0.1))
CASES = {
    "right": pair(optim.sgd(0.1), optax.sgd(0.1), steps=3),
    "wrong": pair(WRONG, optax.sgd(0.1), steps=3, differs="one part in a thousand"),
}


@pytest.fixture
def two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "all_cases", lambda: CASES)


def test_equal_rules_exit_0_and_write_their_folder(two_cases: None, tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", "parity", "right", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "1 case: 1 equal within 1e-12, 0 differ" in shown.out
    assert "right" in shown.err, "a line for each case where there is no bar"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"parity.csv", "parity.json", "steps.npz"}
    with (tmp_path / "out" / "parity.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["verdict"], row["steps"]) == ("right", "equal", "3")
    assert float(row["ours_compile_seconds"]) > 0
    told = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert told["options"]["names"] == ["right"]
    assert {"jax", "optax", "device"} <= set(told["versions"])
    assert told["cases"][0]["params"] == float(row["params"])
    steps = np.load(tmp_path / "out" / "steps.npz")
    assert steps["right/max_difference"].shape == (3, len(steps["right/leaves"]))


def test_a_wrong_rule_is_flagged_and_exits_1(two_cases: None, capsys: Any) -> None:
    assert main(["compare", "parity", "--all", "--steps", "2"]) == 1
    shown = capsys.readouterr().out
    assert "DIFFERS" in shown
    assert "wrong: beyond 1e-12 first at step 1, in params/" in shown
    assert "2 cases: 1 equal within 1e-12, 1 differ" in shown
    assert main(["compare", "parity", "wrong", "--tolerance", "0.1"]) == 0
    assert "wrong: one part in a thousand" in capsys.readouterr().out


def test_tolerances_of_their_own_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    wide = pair(optim.sgd(0.1), optax.sgd(0.1), steps=2, tolerance=1e-6)
    monkeypatch.setattr(parity, "all_cases", lambda: {"right": CASES["right"], "wide": wide})
    assert main(["compare", "parity", "--all"]) == 0
    assert "2 cases: 2 equal (1 within 1e-12, 1 within 1e-06), 0 differ" in capsys.readouterr().out


@pytest.mark.slow
def test_a_problem_and_a_dtype(two_cases: None, capsys: Any) -> None:
    words = ["--problem", "digits-logistic", "--dtype", "float32", "--gradients", "same"]
    assert main(["compare", "parity", "right", *words]) == 0
    assert "ours and optax's on digits-logistic, float32, same gradients" in capsys.readouterr().out


def test_interruption_keeps_what_is_done(
    two_cases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    measure = parity.measure

    def interrupted(case: Case, *args: Any, **settings: Any) -> Any:
        if case is CASES["wrong"]:
            raise KeyboardInterrupt
        return measure(case, *args, **settings)

    monkeypatch.setattr(parity, "measure", interrupted)
    cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    assert main(["compare", "parity", "--all", "--out", str(tmp_path / "out")]) == 130
    assert "1 of 2 (interrupted) cases: 1 equal" in capsys.readouterr().out
    assert "right" in (tmp_path / "out" / "parity.csv").read_text()
    assert jax.config.jax_enable_compilation_cache == cached  # type: ignore[attr-defined]


def test_a_case_that_raises_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken(library: Any) -> Any:
        raise ValueError("no such rule")

    cases = {"broken": Case(broken, lambda: optax.sgd(0.1)), "right": CASES["right"]}
    monkeypatch.setattr(parity, "all_cases", lambda: cases)
    assert main(["compare", "parity", "--all"]) == 1
    shown = capsys.readouterr().out
    assert "broken: raises ValueError: no such rule" in shown
    assert "2 cases: 1 equal within 1e-12, 0 differ, 1 raise" in shown


def test_nan_is_written_as_a_word(two_cases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = pair(optim.chain(optim.scale(math.nan), optim.sgd(0.1)), optax.sgd(0.1), steps=2)
    monkeypatch.setattr(parity, "all_cases", lambda: {"nan": nan})
    assert main(["compare", "parity", "nan", "--out", str(tmp_path / "out")]) == 1
    (case,) = json.loads((tmp_path / "out" / "parity.json").read_text())["cases"]
    assert (case["params"], case["verdict"], case["first_step"]) == ("nan", "DIFFERS", 1)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "compare needs a name: jaxnn compare NAME [OPTIONS]; comparisons: race, parity"),
        (["partiy"], "no compare 'partiy' (did you mean 'parity'?)"),
        (["parity"], "name cases, such as adam or 'adam: nesterov', or all with --all"),
        (["parity", "adam", "--all"], "not both"),
        (["parity", "lbfsg"], "no case 'lbfsg' (did you mean 'lbfgs'?)"),
        (["parity", "adam", "--problem", "digits-mpl"], "no problem 'digits-mpl' (did you mean 'digits-mlp'?)"),
        (["parity", "adam", "--steps", "0"], "steps must be at least 1, got 0"),
        (["parity", "adam", "--tolerance", "-1"], "tolerance must be a finite number > 0, got -1"),
        (["parity", "adam", "--dtype", "int8"], "float64"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_arguments_print_one_line_and_exit_2(words: list[str], text: str, capsys: Any) -> None:
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jaxnn: ")
    assert text in error


def test_all_is_every_case() -> None:
    assert list(ParityConfig(all=True).cases()) == list(all_cases())
    assert {case.steps for case in ParityConfig(all=True, steps=7).cases().values()} == {7}

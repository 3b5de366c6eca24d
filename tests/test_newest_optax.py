"""What another release of optax changes is listed: names, arguments, rules; and nothing fails for it."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import optax
import pytest

from benchmarks import newest_optax

REPORT = """<testsuites><testsuite>
<testcase name="test_names">
<failure message="Failed: fresh: is not here&#10;multi_normal: is at optim.multi_normal" /></testcase>
<testcase name="test_arguments"><failure message="Failed: adam: b1 is 0.9 by default, in optax 0.8" /></testcase>
<testcase name="test_all"><error message="TypeError: x" /></testcase>
<testcase name="test_right" />
</testsuite></testsuites>"""


def test_names_and_arguments_that_differ_are_listed() -> None:
    assert newest_optax.differing_names(REPORT) == [
        "fresh: is not here",
        "multi_normal: is at optim.multi_normal",
        "adam: b1 is 0.9 by default, in optax 0.8",
        "TypeError: x",
    ]


def test_rules_that_differ_or_raise_are_listed() -> None:
    equal = {"case": "sgd", "verdict": "equal"}
    other = {"case": "adam", "verdict": "DIFFERS", "params": 1e-3, "state": 0.0, "first_step": 2, "first_leaf": "['w']"}
    assert newest_optax.differing_rules({"cases": [equal, other], "raised": {"lion": "TypeError: y"}}) == [
        "adam: params 1.0e-03, state 0.0e+00, first at step 2, in ['w']",
        "lion: raises TypeError: y",
    ]


def install(monkeypatch: pytest.MonkeyPatch, packages: Path, version: str, patch: str = "") -> None:
    """Let pip's place be taken by a copy of the optax here, of another version and with a patch."""
    tried = newest_optax.tried

    def fake(*command: str, env: dict[str, str] | None = None) -> str:
        if "pip" not in command:
            return tried(*command, env=env)
        shutil.copytree(Path(optax.__file__).parent, packages / "optax")
        info = packages / f"optax-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: optax\nVersion: {version}\n")
        with (packages / "optax" / "__init__.py").open("a") as file:
            file.write(patch)
        return ""

    monkeypatch.setattr(newest_optax, "tried", fake)


def test_the_installed_release_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = importlib.metadata.version("optax")
    install(monkeypatch, tmp_path / "packages", here)
    assert newest_optax.compare(None, [], tmp_path) == [f"optax {here} is installed, and is the newest on the index."]


def test_a_release_that_cannot_be_had_or_imported_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(newest_optax, "tried", lambda *_, **__: "no such version")
        assert newest_optax.compare("99", [], tmp_path) == ["optax==99 cannot be installed: no such version"]
    install(monkeypatch, tmp_path / "packages", "99", "raise ValueError('too new')\n")
    assert newest_optax.compare(None, [], tmp_path) == [
        "optax 99 cannot be imported beside the other packages here: ValueError: too new"
    ]


PATCH = """
def fresh(a): ...
_sgd = sgd
def sgd(learning_rate, momentum=0.5, nesterov=False, accumulator_dtype=None):
    return _sgd(2 * learning_rate, momentum, nesterov, accumulator_dtype)
"""


@pytest.mark.slow
def test_a_changed_release_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "packages", "99", PATCH)
    lines: Any = newest_optax.compare(None, ["sgd", "adam"], tmp_path)
    assert "names and arguments: 2 differences" in lines
    assert "  fresh: is not here" in lines
    assert any(line.startswith("  sgd: momentum is None by default, in optax 0.5") for line in lines)
    assert "parameters and states: 1 differences" in lines
    assert lines[-1].startswith("  sgd: params ")

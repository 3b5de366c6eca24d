"""The kept results of the tests marked `proof` are complete and without failures; how old they are is printed."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import proof

RESULT = {
    "commit": "0123456789abcdef",
    "date": "2026-01-01T12:00:00+00:00",
    "python": "3.11.7",
    "versions": {"jax": "0.10.2"},
    "files": {"tests/test_a.py": {"passed": 3, "failed": 0, "skipped": 1, "xfailed": 1, "seconds": 2.5}},
    "failures": [],
}


def test_the_kept_results_are_complete_and_without_failures(record_property: Any) -> None:
    result = proof.load()
    record_property("printed", proof.age(result, datetime.datetime.now(datetime.UTC)))
    assert proof.faults(result, proof.marks()) == []


def test_what_a_result_lacks_is_named() -> None:
    assert proof.faults(RESULT, {"tests/test_a.py": 2}) == []
    assert proof.faults(RESULT, {"tests/test_a.py": 4}) == [
        "tests/test_a.py: 3 tests passed and 1 were skipped, of 4 or more"
    ]
    assert proof.faults(RESULT, {"tests/test_b.py": 1}) == [
        "tests/test_b.py has no result: python -m benchmarks.proof --write"
    ]
    skipped = RESULT["files"]["tests/test_a.py"] | {"skipped": 4}
    assert proof.faults(RESULT | {"files": {"tests/test_a.py": skipped}}, {"tests/test_a.py": 1})
    assert proof.faults(RESULT | {"failures": ["tests/test_c.py::test_d"]}, {}) == ["tests/test_c.py::test_d failed"]


def test_results_of_some_files_are_kept_beside_the_others() -> None:
    row = {"passed": 1, "failed": 1, "skipped": 0, "xfailed": 0, "seconds": 1.0}
    found = {"commit": "fedc", "files": {"tests/test_b.py": row}, "failures": ["tests/test_b.py::test_new"]}
    kept = RESULT | {"failures": ["tests/test_a.py::test_x", "tests/test_b.py::test_old"]}
    both = proof.beside(kept, found)
    assert both["files"] == {**RESULT["files"], "tests/test_b.py": row | {"commit": "fedc"}}
    assert both["failures"] == ["tests/test_a.py::test_x", "tests/test_b.py::test_new"]
    assert both["commit"] == RESULT["commit"]


def test_without_results_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=proof.COMMAND):
        proof.load(tmp_path / "proof.json")


def test_the_age_is_in_days_with_commit_and_versions() -> None:
    now = datetime.datetime(2026, 1, 4, 13, tzinfo=datetime.UTC)
    line = proof.age(RESULT, now)
    assert line == "proof: 3 tests passed at commit 0123456789, 3 days ago, with Python 3.11.7, jax 0.10.2"


TESTS = """
import pytest

@pytest.mark.proof
@pytest.mark.parametrize("a", [1, 2, pytest.param(3, marks=pytest.mark.xfail), pytest.param(4, marks=pytest.mark.skip)])
def test_one(a):
    assert a < 2

def test_other():
    pass

@pytest.fixture
def broken():
    raise ValueError("x")

@pytest.mark.proof
def test_error(broken):
    pass
"""


def test_outcomes_are_counted_by_file(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = proof\n")
    found = proof.run(["tests"], ["-p", "no:cacheprovider"], root=tmp_path)
    (row,) = found["files"].values()
    assert list(found["files"]) == ["tests/test_x.py"]
    assert {name: row[name] for name in proof.OUTCOMES} == {"passed": 1, "failed": 2, "skipped": 1, "xfailed": 1}
    assert row["seconds"] >= 0
    assert found["failures"] == ["tests/test_x.py::test_error", "tests/test_x.py::test_one[2]"]
    assert proof.marks(tmp_path / "tests") == {"tests/test_x.py": 2}


def test_a_run_without_tests_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = proof\n")
    with pytest.raises(RuntimeError, match="pytest returned 5"):
        proof.run(["."], ["-p", "no:cacheprovider"], root=tmp_path)


def test_changes_of_a_tree_are_found(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert proof.changed(tmp_path) == ""
    (tmp_path / "new.py").write_text("")
    assert proof.changed(tmp_path) == "new.py"


@pytest.mark.parametrize("paths", [[], ["tests/optim"]])
def test_a_dirty_tree_is_not_written(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(proof, "RESULTS", tmp_path / "proof.json")
    monkeypatch.setattr(proof, "run", lambda *_: RESULT)
    monkeypatch.setattr(proof, "git", lambda *_, **__: "0123456789abcdef")
    monkeypatch.setattr("sys.argv", ["proof", "--write", *paths])
    monkeypatch.setattr(proof, "changed", lambda _: "new.py")
    with pytest.raises(SystemExit, match="2"):
        proof.main()
    assert "the tree has changes, and the results would be of no commit: new.py" in capsys.readouterr().err
    assert not proof.RESULTS.exists()


@pytest.mark.parametrize("failures", [[], ["tests/test_a.py::test_b"]])
def test_failures_are_written_and_returned(
    failures: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(proof, "RESULTS", tmp_path / "proof.json")
    monkeypatch.setattr(proof, "run", lambda *_: {"files": RESULT["files"], "failures": failures})
    monkeypatch.setattr(proof, "changed", lambda _: "")
    monkeypatch.setattr("sys.argv", ["proof", "--write"])
    with pytest.raises(SystemExit) as stopped:
        proof.main()
    assert stopped.value.code == bool(failures)
    written = proof.load(proof.RESULTS)
    assert written["failures"] == failures
    assert set(written["versions"]) == set(proof.LIBRARIES)
    assert proof.age(written, datetime.datetime.now(datetime.UTC)).startswith("proof: 3 tests passed at commit ")
    assert proof.faults(written, {"tests/test_a.py": 1}) == [f"{name} failed" for name in failures]

"""The results of the longest tests: those marked `proof`, which neither the README's test command nor CI runs.

    python -m benchmarks.proof --write              # all; saves their counts in benchmarks/results/proof.json
    python -m benchmarks.proof tests/optim          # those of some files or folders; with --write beside the others
    python -m benchmarks.proof --write --processes 1

For each test file: the numbers of tests that passed, failed, were skipped or failed as expected, and their seconds; and
the commit, the date and the versions. The working tree must have no changes, so that the commit names the code. A run
with failures is saved too, with their names; the command then returns 1. `pytest tests/test_proof.py` compares the file
with the present tests.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxnn import files

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "proof.json"
COMMAND = "python -m benchmarks.proof --write"
LIBRARIES = ("jaxnn", "jax", "jaxlib", "numpy", "optax")
OUTCOMES = ("passed", "failed", "skipped", "xfailed")
EIGHT = ("tests/devices/eight/", "tests/devices/test_eight.py")
"""The tests on 8 devices, and the file that runs them in a process of their own and has their results."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files or folders of tests; all without any")
    parser.add_argument(
        "--write",
        action="store_true",
        help="keep the results in benchmarks/results/; of some files, beside the others'",
    )
    parser.add_argument("--processes", type=int, default=2, help="of pytest-xdist; 0 for none (default: 2)")
    words = parser.parse_args()
    commit = git("rev-parse", "HEAD")
    if words.write and (changes := changed(ROOT)):
        parser.error(f"the tree has changes, and the results would be of no commit: {changes}")
    result = {
        "commit": commit,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        **run(words.paths or ["tests"], ["-n", str(words.processes)]),
    }
    show(result)
    if words.write:
        if changed(ROOT) or git("rev-parse", "HEAD") != commit:
            parser.error("the tree has changed while the tests ran: nothing is written")
        files.write_json(RESULTS, beside(load(), result) if words.paths else result, indent=1)
        print(f"written: {RESULTS.name}")
    sys.exit(bool(result["failures"]))


def beside(kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The kept results with those of some files in place of theirs, which say at which commit they ran."""
    rows = {file: row | {"commit": found["commit"]} for file, row in found["files"].items()}
    failures = [name for name in kept["failures"] if name.split("::")[0] not in rows]
    return kept | {"files": dict(sorted((kept["files"] | rows).items())), "failures": failures + found["failures"]}


def git(*words: str, root: Path = ROOT) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def changed(root: Path) -> str:
    """The changed and new files of a working tree, "" if there are none."""
    return ", ".join(line[2:].strip() for line in git("status", "--porcelain", root=root).splitlines())


def run(paths: Iterable[str], options: Iterable[str] = (), root: Path = ROOT) -> dict[str, Any]:
    """pytest over the tests marked `proof`, in a process of its own: {"files": ..., "failures": ...}.

    Raises:
        RuntimeError: pytest ran no tests, or was interrupted.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "proof", "-o", "junit_family=xunit1", f"--junit-xml={report}"]
        done = subprocess.run([*command, *options, *paths], cwd=root)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest returned {done.returncode}: there are no results.")
        return counts(report.read_text())


def counts(report: str) -> dict[str, Any]:
    """The tests of each file by outcome, their seconds, and the names of failures, from a JUnit report of pytest."""
    found: dict[str, dict[str, Any]] = {}
    failures = []
    for test in ET.fromstring(report).iter("testcase"):
        file = test.get("file") or f"{(test.get('classname') or test.get('name', '')).replace('.', '/')}.py"
        outcome = outcome_of(test)
        row = found.setdefault(file, {**dict.fromkeys(OUTCOMES, 0), "seconds": 0.0})
        row[outcome] += 1
        row["seconds"] = round(row["seconds"] + float(test.get("time", 0)), 1)
        if outcome == "failed":
            failures.append(f"{file}::{test.get('name')}")
    return {"files": dict(sorted(found.items())), "failures": sorted(failures)}


def outcome_of(test: ET.Element) -> str:
    if test.find("failure") is not None or test.find("error") is not None:
        return "failed"
    skipped = test.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"


def show(result: dict[str, Any]) -> None:
    print(f"{'file':50}{''.join(f'{name:>9}' for name in OUTCOMES)}{'s':>9}")
    for file, row in result["files"].items():
        print(f"{file:50}{''.join(f'{row[name]:9}' for name in OUTCOMES)}{row['seconds']:9.1f}")
    print("\n".join(f"failed: {name}" for name in result["failures"]) or "no failures")


def marks(tests: Path = ROOT / "tests") -> dict[str, int]:
    """Test file -> number of `pytest.mark.proof` in it; those in `eight/` count as 1 of the file that runs them."""
    found: dict[str, int] = {}
    for path in sorted(tests.rglob("test_*.py")):
        source = path.read_text()
        if "mark.proof" in source and (times := sum(map(is_mark, ast.walk(ast.parse(source))))):
            file = path.relative_to(tests.parent).as_posix()
            file = EIGHT[1] if file.startswith(EIGHT[0]) else file
            found[file] = max(found.get(file, 0), 1 if file == EIGHT[1] else times)
    return found


def is_mark(node: ast.AST) -> bool:
    inner = node.value if isinstance(node, ast.Attribute) and node.attr == "proof" else None
    return isinstance(inner, ast.Attribute) and inner.attr == "mark"


def faults(result: dict[str, Any], today: dict[str, int]) -> list[str]:
    """The faults of a result: failures, a file without result, a file in which too few tests passed.

    Each mark stands for one or more tests: at least as many must have passed as there are marks, or skipped tests.
    """
    found = [f"{name} failed" for name in result["failures"]]
    for file, times in today.items():
        row = result["files"].get(file)
        if row is None:
            found.append(f"{file} has no result: {COMMAND}")
        elif row["passed"] < max(times, row["skipped"]):
            found.append(f"{file}: {row['passed']} tests passed and {row['skipped']} were skipped, of {times} or more")
    return found


def age(result: dict[str, Any], now: datetime.datetime) -> str:
    """The age and the versions of a result, in one line."""
    days = (now - datetime.datetime.fromisoformat(result["date"])).days
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    passed = sum(row["passed"] for row in result["files"].values())
    return (
        f"proof: {passed} tests passed at commit {result['commit'][:10]}, {days} days ago, "
        f"with Python {result['python']}, {versions}"
    )


def load(path: Path = RESULTS) -> dict[str, Any]:
    """The kept results.

    Raises:
        FileNotFoundError: there are none; the message has the command.
    """
    if not path.exists():
        raise FileNotFoundError(f"There are no results of the tests marked `proof`: {COMMAND}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    main()

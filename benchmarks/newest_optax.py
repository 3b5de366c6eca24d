"""Differences between a release of optax, e.g. a new one, and jaxnn: names, arguments and rules.

    python -m benchmarks.newest_optax             # the newest release; 5 minutes if it is not installed
    python -m benchmarks.newest_optax 0.2.7       # a release
    python -m benchmarks.newest_optax 0.2.7 adam  # only these cases of the rules

The release is installed into a temporary folder, without its dependencies. Differences are printed, and the exit code
is 0 in any case: a release of optax is not an error of this library.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SURFACE = "tests/optim/test_optax_surface.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="?", help="a version of optax; the newest without")
    parser.add_argument("cases", nargs="*", help="cases of `jaxnn compare parity`; all without any")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(compare(words.release, words.cases, Path(folder))))


def compare(release: str | None, cases: Iterable[str], folder: Path) -> list[str]:
    """The lines to print: differing names and arguments, then differing rules."""
    asked = f"optax=={release}" if release else "optax"
    place = folder / "packages"
    failed = tried(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), asked)
    if failed:
        return [f"{asked} cannot be installed: {failed}"]
    here, there = importlib.metadata.version("optax"), version_in(place)
    if here == there:
        return [f"optax {here} is installed, and is {'that release' if release else 'the newest on the index'}."]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}
    if failed := tried(sys.executable, "-c", "import optax, optax.contrib", env=environment):
        return [f"optax {there} cannot be imported beside the other packages here: {failed}"]
    report, found = folder / "surface.xml", folder / "parity"
    whole = ("-o", "verbosity_assertions=2")  # messages are not shortened
    pytest = ("pytest", "-q", "-p", "no:cacheprovider", *whole, f"--junit-xml={report}", SURFACE)
    stopped = tried(sys.executable, "-m", *pytest, env=environment)
    names = differing_names(report.read_text()) if report.exists() else [f"pytest stops: {stopped}"]
    parity = ("jaxnn", "compare", "parity", "--out", str(found), *(list(cases) or ["--all"]))
    stopped = tried(sys.executable, "-m", *parity, env=environment)
    table = found / "parity.json"
    rules = differing_rules(json.loads(table.read_text())) if table.exists() else [f"parity stops: {stopped}"]
    return [
        f"optax {there} against jaxnn ({here} is installed):",
        f"names and arguments: {len(names)} differences",
        *(f"  {line}" for line in names),
        f"parameters and states: {len(rules)} differences",
        *(f"  {line}" for line in rules),
    ]


def tried(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a command; "" if it succeeds, else the last line that it printed."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return (lines or [f"it returns {done.returncode}"])[-1] if done.returncode else ""


def version_in(folder: Path) -> str:
    """The version of optax that is installed in a folder."""
    (found,) = importlib.metadata.distributions(name="optax", path=[str(folder)])
    return found.version


def differing_names(report: str) -> list[str]:
    """Of a JUnit report of the comparison of names: the lines of the tests that fail, one for each name."""
    tests = ET.fromstring(report).iter("testcase")
    problems = [problem for test in tests for problem in (*test.findall("failure"), *test.findall("error"))]
    lines = [(problem.get("message") or "a test fails").removeprefix("Failed: ").splitlines() for problem in problems]
    return [line for found in lines for line in found]


def differing_rules(table: dict[str, Any]) -> list[str]:
    """A line for each case of a parity.json that differs or raises."""
    found = [
        f"{row['case']}: params {row['params']:.1e}, state {row['state']:.1e}, "
        f"first at step {row['first_step']}, in {row['first_leaf']}"
        for row in table["cases"]
        if row["verdict"] != "equal"
    ]
    return found + [f"{case}: raises {error}" for case, error in table["raised"].items()]


if __name__ == "__main__":
    main()

"""Runs that are killed at random moments, and continued to the end: equal to an uninterrupted one, to the bit."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.train.killing import PROBLEMS

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 300
WAYS = ("save", "anywhere", "term")
"""SIGKILL while a checkpoint is written, SIGKILL at a random moment, SIGTERM at a random moment."""


def started(problem: str, folder: Path, way: str = "") -> subprocess.Popen[str]:
    env = os.environ | {"SLOW_SAVE": "0.05" if way == "save" else "0", "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = ""  # programs as users compile them, not as the suite does
    command = [sys.executable, "-m", "tests.train.killing", problem, str(folder / "run"), str(folder / "result.json")]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str], codes: tuple[int, ...] = (0,)) -> int:
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode in codes, output[-4000:]
    return process.returncode


@functools.cache
def uninterrupted(problem: str) -> str:
    """The digests of a run that nobody kills."""
    folder = Path(tempfile.mkdtemp())
    try:
        finished(started(problem, folder))
        return (folder / "result.json").read_text()
    finally:
        shutil.rmtree(folder)


def modified(path: Path) -> int:
    """When a file was; 0 if it is gone by now."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def await_changes(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the files in the folder have changed so often."""
    seen: set[str] = set()
    for _ in range(count):
        while process.poll() is None:
            now = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
            now = {f"{name} {modified(folder / name)}" for name in now if name.endswith(".npz")}
            if now - seen:
                seen |= now
                break
            time.sleep(0.001)


def killed_once(problem: str, folder: Path, way: str, rng: random.Random) -> bool:
    """Run, and kill at a moment of that way; whether it was before the end."""
    process = started(problem, folder, way)
    await_changes(folder / "run", process, rng.randrange(9))
    if way == "save":
        while process.poll() is None and not list((folder / "run").glob(".*.part")):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.04)
    else:
        time.sleep(rng.random() * 0.1)
    process.send_signal(signal.SIGTERM if way == "term" else signal.SIGKILL)
    # 0: it had ended. A SIGTERM before training begins ends a process as it always does.
    codes = (0, 143, -signal.SIGTERM) if way == "term" else (0, -signal.SIGKILL)
    return finished(process, codes) != 0


def check(problem: str, way: str, seed: int, folder: Path) -> None:
    rng = random.Random(f"{problem} {way} {seed}")
    kills = sum(killed_once(problem, folder, way, rng) for _ in range(2))
    if not (folder / "result.json").exists():
        finished(started(problem, folder))
    assert (folder / "result.json").read_text() == uninterrupted(problem)
    assert kills, "the run ended before it was killed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "way"),
    [("mlp", "save"), ("mlp", "term"), ("cnn", "anywhere"), ("transformer", "save"), ("transformer", "term"),
     ("sweep", "anywhere")],
)  # fmt: skip
def test_a_killed_run_goes_on_to_the_bit(problem: str, way: str, tmp_path: Path) -> None:
    check(problem, way, 0, tmp_path)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_sixty_killed_runs_go_on_to_the_bit(problem: str, way: str, seed: int, tmp_path: Path) -> None:
    check(problem, way, seed, tmp_path)

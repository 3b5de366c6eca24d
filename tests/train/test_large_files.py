"""Rows in files that are larger than the memory which training on them may take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.reading import D, trained
from tests.train.test_resume import assert_same

ROOT = Path(__file__).parent.parent.parent
LARGE, MOST, NEEDED = 10e9, 1.5e9, 15e9
ROWS = 1 << 14
"""Of a file: 268 MB."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc/self/status: peak memory")


def write(folder: Path, files: int, rows: int) -> None:
    """Examples whose label is the sign of a sum, each file other ones."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((rows, D), np.float32)
    for i in range(files):
        x = np.roll(base, i, axis=1)
        np.save(folder / f"x-{i:03d}.npy", x)
        np.save(folder / f"y-{i:03d}.npy", (x[:, :8].sum(axis=1) > 0).astype(np.int32))


def read(folder: Path, batch_size: int, epochs: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.train.reading", str(folder), str(batch_size), str(epochs)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@needs_proc
def test_losses_are_those_from_memory(tmp_path: Path) -> None:
    write(tmp_path, files=3, rows=1000)  # 50 MB
    x, y = (np.concatenate([np.load(path) for path in sorted(tmp_path.glob(f"{name}-*"))]) for name in "xy")
    expected = trained((x, y), 128, 3)
    assert read(tmp_path, 128, 3)["losses"] == [record["loss"] for record in expected.history]
    from jaxnn import data

    assert_same(trained(data.memmap(tmp_path), 128, 3), expected)


@pytest.mark.proof
@needs_proc
def test_memory_does_not_grow_with_the_files(tmp_path: Path, record_property: Any) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < NEEDED:
        pytest.skip(f"{NEEDED / 1e9:.0f} GB of free disk are needed, got {free / 1e9:.1f} GB at {tmp_path}")
    try:
        write(tmp_path, files=-int(-LARGE // (4 * ROWS * D)), rows=ROWS)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) >= LARGE
        found = read(tmp_path, 2048, 1)
    finally:  # pytest keeps the folders of the last runs
        shutil.rmtree(tmp_path)
    record_property("peak", found["peak"])
    assert found["peak"] < MOST, found
    assert found["losses"][0] < np.log(2)

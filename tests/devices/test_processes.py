"""Two processes of four devices: the numbers of one process with eight, one folder, one end.

What the processes do is in `processes/tasks.py`; they talk to each other over the loopback.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.devices.test_eight import PATIENCE, ROOT, THREADS

TIMEOUT = 300
NAMES = ("mlp", "cnn", "fsdp", "rows", "function", "shares", "gradients")
EXACT = 1e-12


def run(tasks: str, count: int, folder: Path) -> None:
    """Do the tasks in `count` processes; raises with their outputs if one fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {PATIENCE}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": THREADS, "XLA_FLAGS": flags.strip()}
    command = [sys.executable, "-m", "tests.devices.processes.worker", tasks, f"localhost:{port}", str(count)]
    started = [
        subprocess.Popen([*command, str(i), str(folder)], cwd=ROOT, env=env, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for i in range(count)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, "\n\n".join(outputs)


def assert_same(found: Path, expected: Path) -> None:
    with np.load(found) as a, np.load(expected) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], rtol=EXACT, atol=EXACT, err_msg=f"{found.name} {name}")


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        run("training,gradients", count, tmp_path / str(count))
    for name in NAMES:
        assert_same(tmp_path / "2" / f"{name}.npz", tmp_path / "1" / f"{name}.npz")


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed: pip install 'jaxnn[orbax]'")
    for count in (2, 1):
        run("saving", count, tmp_path)
        for name in ("npz", "orbax"):
            assert_same(tmp_path / f"{name}.npz", tmp_path / f"{name}-expected.npz")


@pytest.mark.slow
def test_a_shared_sweep_and_a_signal_to_one_process(tmp_path: Path) -> None:
    run("sweeping,stopping,refused", 2, tmp_path)
    assert_same(tmp_path / "sweep.npz", tmp_path / "sweep-expected.npz")
    with np.load(tmp_path / "stopped.npz") as found:
        assert 2 <= found["arr_0"] < 400

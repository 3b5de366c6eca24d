"""Two processes of four devices: the numbers of one process with eight, one folder, one end.

What the processes do is in `processes/tasks.py`; they talk to each other over the loopback.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.devices.test_eight import PATIENCE, ROOT, THREADS

TIMEOUT = 300
NAMES = ("mlp", "cnn", "fsdp", "rows", "function", "shares", "gradients")
EXACT = 1e-12


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def started(*commands: list[str]) -> list[subprocess.Popen[str]]:
    """Processes of this interpreter, on the CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {PATIENCE}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": THREADS, "XLA_FLAGS": flags.strip()}
    how: dict[str, Any] = {"cwd": ROOT, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return [subprocess.Popen([sys.executable, *command], text=True, **how) for command in commands]


def ended(processes: list[subprocess.Popen[str]], code: int) -> list[str]:
    """What they wrote; raises with it unless all return this code."""
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code] * len(processes), "\n\n".join(outputs)
    return outputs


def run(tasks: str, count: int, folder: Path) -> None:
    """Do the tasks in `count` processes; raises with their outputs if one fails."""
    command = ["-m", "tests.devices.processes.worker", tasks, free_address(), str(count)]
    ended(started(*([*command, str(i), str(folder)] for i in range(count))), 0)


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


def example(count: int, folder: Path, *more: str) -> list[subprocess.Popen[str]]:
    """The processes of examples/multihost.py, with 8 devices in all."""
    where = ["--folder", str(folder), "--cpu-devices", str(8 // count), "--epochs", "6", *more]
    address = free_address()
    among = [["--coordinator", address, "--processes", str(count), "--index", str(i)] for i in range(count)]
    return started(*(["examples/multihost.py", *where, *(each if count > 1 else [])] for each in among))


@pytest.mark.slow
def test_the_example_stops_on_a_signal_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed: pip install 'jaxnn[orbax]'")
    (alone,) = ended(example(1, tmp_path / "1"), 0)
    assert "1 processes, 8 devices, w (64, 512) split by P(None, 'data')" in alone
    processes, deadline = example(2, tmp_path / "2", "--save-every", "1.0"), time.monotonic() + TIMEOUT
    while not list((tmp_path / "2").glob("sha256-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    ended(processes, 143)
    outputs = ended(example(2, tmp_path / "2"), 0)
    assert "goes on after" in outputs[0]
    assert "2 processes, 8 devices" in outputs[0]
    losses = [float(text.split("epoch 6: loss ")[1]) for text in (alone, outputs[0])]
    np.testing.assert_allclose(*losses, rtol=0.005)  # float32, after 300 steps

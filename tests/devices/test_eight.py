"""The checks of `eight/`, each on 8 virtual devices, all in one process of their own.

XLA makes its devices once, when JAX first asks for them, so a test that wants 8 cannot run in the suite's own process.
While writing one: `JAXNN_TEST_DEVICES=8 NPROC=32 XLA_FLAGS=--xla_force_host_platform_device_count=8 pytest
tests/devices/eight`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import slow

EIGHT = Path(__file__).parent / "eight"
ROOT = EIGHT.parent.parent.parent
PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300 --xla_cpu_collective_call_terminate_timeout_seconds=900"
)
"""XLA aborts a process whose 8 threads do not meet within 40 seconds, as they may not on 2 cores with other work."""

THREADS = "32"
"""Of each of XLA's pools, which takes it from NPROC. By default it has one for each device, and all wait for ever where
a program has several reductions that need not run in one order: some devices have begun one, the others another."""


def run_on_eight(which: str) -> subprocess.CompletedProcess[str]:
    """pytest over `eight/` with 8 devices; of these tests, those that the marker expression names."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {PATIENCE}"
    env = os.environ | {"JAXNN_TEST_DEVICES": "8", "NPROC": THREADS, "XLA_FLAGS": flags.strip()}
    # xdist's worker would hand its own settings on to the new process.
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", which, str(EIGHT)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)


@pytest.mark.parametrize(
    "which",
    [
        "not slow",
        *slow("slow"),
        pytest.param("proof", marks=pytest.mark.proof),
    ],
)
def test_on_eight_devices(which: str) -> None:
    done = run_on_eight(which)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert " passed" in done.stdout

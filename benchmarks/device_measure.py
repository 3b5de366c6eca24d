"""The programs of benchmarks/device_programs.py run on an accelerator: `python -m benchmarks.devices --measure`."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
TESTS = ("tests/per_example/test_statistics.py", "tests/backprop/test_gradient.py", "tests/optim/test_sgd_adam.py")
"""Run on the device first: numbers that are fast but wrong are of no use."""
TEST_SHARE = 0.25
"""Of the whole time, at most, for the tests."""
FIRST = ("gpt untied norms and", "norms and", "clipped", "variance", "update", "sweep", "epoch", "gradient")
"""Programs by the words in their names, the most important first."""
ROUNDS, TARGET = 7, 0.02
"""Rounds of interleaved programs; the seconds of calls in one."""
MOST_BYTES = 40 * 2**30


def probe(platform: str | None) -> str:
    """The platform of JAX's first device, asked in another process: a TPU serves one at a time."""
    command = [sys.executable, "-c", "import jax; print(jax.devices()[0].platform)"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ(platform))
    return done.stdout.split()[-1] if done.stdout.split() else "none"


def environ(platform: str | None) -> dict[str, str]:
    settings = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return os.environ | settings | ({"JAX_PLATFORMS": platform} if platform else {})


def main(words: argparse.Namespace, wanted: Callable[[argparse.Namespace], list[str]]) -> int:
    began = time.monotonic()
    os.environ |= environ(words.platform)
    platform = probe(words.platform)
    if platform == "none" or (platform == "cpu" and words.platform != "cpu"):
        print("no accelerator: JAX finds only CPUs here, and --measure runs the programs on a GPU or a TPU")
        return 1
    end = began + words.seconds
    tests = None if words.no_tests else run_tests(words)
    import jax

    device = jax.devices()[0].device_kind
    print(f"{device}, {len(jax.devices())} of them", flush=True)
    path = RESULTS / f"devices-{device.lower().replace(' ', '-')}.json"
    from benchmarks.devices import environment

    result: dict[str, Any] = {"environment": environment() | {"device": device}, "tests": tests, "programs": {}}

    def keep() -> None:
        from jaxnn import files

        if words.write:
            files.write_json(path, result, indent=1)

    for group in groups(wanted(words)):
        if time.monotonic() > end:
            print(f"the time is over: {group[0]} and what follows are left out")
            break
        result["programs"] |= measure(group, end)
        keep()
    if words.write:
        print(f"written: {path.name}")
    return 0


def run_tests(words: argparse.Namespace) -> dict[str, Any]:
    """A sample of the tests with the device as JAX's default: their counts, whatever they are."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", *TESTS]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environ(words.platform), capture_output=True, text=True,
            timeout=TEST_SHARE * words.seconds,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        found = {"returned": done.returncode, "summary": lines[-1] if lines else done.stderr.strip()[-300:]}
        failures = [line for line in lines if line.startswith("FAILED")]
    except subprocess.TimeoutExpired:
        found, failures = {"returned": None, "summary": "stopped: they took too long"}, []
    print(f"tests on the device: {found['summary']}", *failures[:20], sep="\n", flush=True)
    return found | {"failures": failures}


def groups(names: list[str]) -> list[list[str]]:
    """Each program with its rivals, the most important first; none twice as a group of its own."""
    from benchmarks.device_programs import PROGRAMS

    def rank(name: str) -> int:
        return next((n for n, word in enumerate(FIRST) if word in name), len(FIRST))

    ours = sorted((name for name in names if PROGRAMS[name].rivals), key=rank)
    found = [[name, *PROGRAMS[name].rivals] for name in ours]
    compared = {name for group in found for name in group}
    return found + [[name] for name in names if name not in compared]


def measure(group: list[str], end: float) -> dict[str, Any]:
    """Median microseconds of programs that alternate, each round in a new order; {} if they do not run here."""
    runners: dict[str, Runner] = {}
    for name in group:
        try:
            if time.monotonic() < end:
                runners[name] = Runner(name)
        except Exception as error:  # too large, or not for this device: the others are still measured
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160]}", flush=True)
    times: dict[str, list[float]] = {name: [] for name in runners}
    rng = random.Random(0)
    for _ in range(ROUNDS):
        if time.monotonic() > end and all(times.values()):
            break
        for name in rng.sample(list(runners), len(runners)):
            times[name].append(runners[name].seconds())
    found = {}
    for name, taken in times.items():
        found[name] = {
            "us": round(1e6 * statistics.median(taken), 2),
            "range_us": [round(1e6 * min(taken), 2), round(1e6 * max(taken), 2)],
            "temp_bytes": runners[name].temp_bytes,
            "compile_s": round(runners[name].compile_s, 1),
        }
        first = statistics.median(times[group[0]]) if times.get(group[0]) else None
        ratio = f"{first / statistics.median(taken):8.2f}x" if first and name != group[0] else ""
        print(f"{name:48}{found[name]['us']:12.1f} us{ratio}", flush=True)
    return found


class Runner:
    """A compiled program with random arguments; `seconds()` is the time of one call, of many in a row."""

    def __init__(self, name: str) -> None:
        import jax

        from benchmarks.device_programs import PROGRAMS

        case = PROGRAMS[name].build()
        if case.mesh is not None:
            raise ValueError("a program for several devices: it is compiled only")
        began = time.perf_counter()
        options = {"donate_argnums": 0} if case.carries else {}
        self.compiled = jax.jit(case.function, **options).lower(*case.args).compile()
        self.compile_s = time.perf_counter() - began
        analysis = self.compiled.memory_analysis()
        self.temp_bytes = analysis.temp_size_in_bytes if analysis else None
        if self.temp_bytes and self.temp_bytes > MOST_BYTES:
            raise MemoryError(f"{self.temp_bytes / 2**30:.0f} GiB of temporaries")
        self.carries, self.args = case.carries, values(case.args)
        self.calls(1)
        began = time.perf_counter()
        self.calls(1)
        self.repeats = max(1, min(1000, int(TARGET / (time.perf_counter() - began))))

    def calls(self, count: int) -> None:
        import jax

        result = None
        for _ in range(count):
            result = self.compiled(*self.args)
            if self.carries:
                self.args = (result[0], *self.args[1:])
        jax.block_until_ready(result)

    def seconds(self) -> float:
        began = time.perf_counter()
        self.calls(self.repeats)
        return (time.perf_counter() - began) / self.repeats


def values(shapes: Any) -> Any:
    """Small random numbers for floats, labels below 10 for integers: the values do not affect the time."""
    import jax
    import jax.numpy as jnp

    def draw(key: Any, leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.uniform(key, leaf.shape, jnp.float32, 0.0, 0.05).astype(leaf.dtype)
        return jax.random.randint(key, leaf.shape, 0, 10).astype(leaf.dtype)

    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(structure, [draw(key, leaf) for key, leaf in zip(keys, leaves, strict=True)])

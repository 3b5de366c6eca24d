"""Runs in chunks equal runs one by one, fit into the memory, go on from a folder, and halve where memory ends."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.train import map_runs
from jaxnn.train.sweeps import runs

RATES = np.linspace(0.1, 1.0, 10, dtype=np.float32)
DATA = np.arange(5, dtype=np.float32)
KEYS = jax.random.split(jax.random.key(0), 10)


def run(given: dict[str, Any], x: Any) -> dict[str, Any]:
    noise = jax.random.normal(given["key"], (2,))
    return {"sum": jnp.sum(jnp.sin(given["rate"] * x)), "noise": noise + given["rate"], "count": jnp.int32(3)}


def jitted(function: Any, devices: int) -> Any:
    return jax.jit(runs.mapped(function, devices))


def inputs(n: int = 10) -> dict[str, Any]:
    return {"rate": RATES[:n], "key": KEYS if n == 10 else KEYS[:n]}


@functools.cache
def one_by_one() -> dict[str, np.ndarray]:
    """All ten runs, by one program that makes one."""
    found = jax.device_get(jax.jit(lambda given: jax.lax.map(lambda each: run(each, DATA), given))(inputs()))
    return dict(found)


def assert_equal(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)
        assert found[name].dtype == expected[name].dtype


def assert_chunks(n: int, chunk: int) -> None:
    found = map_runs(run, inputs(n), (DATA,), chunk=chunk, progress=False)
    assert_equal(found, {name: values[:n] for name, values in one_by_one().items()})


@pytest.mark.parametrize(("n", "chunk"), [(10, 3), (1, 12)])
def test_chunks_give_the_runs_one_by_one(n: int, chunk: int) -> None:
    assert_chunks(n, chunk)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(1, 10), st.integers(1, 12))
def test_chunks_of_any_size_give_the_runs_one_by_one(n: int, chunk: int) -> None:
    assert_chunks(n, chunk)


def test_several_devices_share_the_runs() -> None:
    devices = jax.local_devices()
    program = runs.Program(run, inputs(), (DATA,), devices, jitted)
    compiled, size = program.fitting(len(devices), 10**9, len(devices))
    assert_equal(program.call(compiled, 0, len(devices), size), {k: v[: len(devices)] for k, v in one_by_one().items()})


@pytest.mark.skipif(jax.local_device_count() > 1, reason="of several devices, runs are shared out by vmap")
def test_a_single_run_at_a_time_is_not_batched() -> None:
    @jax.custom_batching.custom_vmap
    def double(x: Any) -> Any:
        return 2 * x

    @double.def_vmap  # type: ignore[untyped-decorator]
    def rule(axis_size: int, batched: Any, x: Any) -> Any:
        raise NotImplementedError

    found = map_runs(double, RATES, chunk=1, progress=False)
    np.testing.assert_allclose(found, 2 * RATES, rtol=1e-6)
    with pytest.raises(NotImplementedError):
        map_runs(double, RATES, chunk=2, progress=False)


def test_a_chunk_takes_as_many_runs_as_the_memory_holds() -> None:
    def large(rate: Any, x: Any) -> Any:
        return jnp.sort(jnp.sin(rate * x))[:3]  # about 400 kB of temporaries for each run

    x, sizes = np.ones(100_000, np.float32), []
    program = runs.Program(large, RATES, (x,), jax.local_devices()[:1], jitted)
    for budget in (10**9, 2_500_000, 1):
        compiled, size = program.fitting(8, budget, 1)
        sizes.append(size)
        assert size == 1 or runs._bytes(compiled) <= budget
    assert sizes[0] == 8 > sizes[1] > sizes[2] == 1


@pytest.mark.slow
def test_what_is_in_the_folder_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    real = runs.Program.call

    def counted(self: Any, compiled: Any, start: int, stop: int, size: int) -> Any:
        calls.append((start, stop))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, compiled, start, stop, size)

    monkeypatch.setattr(runs.Program, "call", counted)
    with pytest.raises(KeyboardInterrupt):
        map_runs(run, inputs(), (DATA,), chunk=3, folder=tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs-00000000-00000003.npz", "runs-00000003-00000006.npz"]
    # Another size of a chunk is no hindrance: what is missing is found run by run.
    (tmp_path / "runs-00000000-00000003.npz").unlink()
    found = map_runs(run, inputs(), (DATA,), chunk=8, folder=tmp_path, progress=False)
    assert calls[3:] == [(0, 3), (6, 10)]
    assert_equal(found, one_by_one())
    before = len(calls)
    assert_equal(map_runs(run, inputs(), (DATA,), folder=tmp_path, progress=False), one_by_one())
    assert len(calls) == before


def other_run(given: Any, x: Any) -> Any:
    return run(given, x) | {"sum": jnp.sum(jnp.cos(given["rate"] * x))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished runs."""
    folder = tmp_path_factory.mktemp("runs")
    map_runs(run, inputs(), (DATA,), folder=folder, progress=False)
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        lambda folder: map_runs(other_run, inputs(), (DATA,), folder=folder, progress=False),
        lambda folder: map_runs(run, inputs(), (DATA + 1,), folder=folder, progress=False),
        lambda folder: map_runs(run, inputs() | {"rate": RATES + 1}, (DATA,), folder=folder, progress=False),
        lambda folder: map_runs(
            run, inputs() | {"key": jax.random.split(jax.random.key(1), 10)}, (DATA,), folder=folder, progress=False
        ),
    ],
    ids=["program", "data", "settings", "keys"],
)
def test_a_folder_of_another_sweep_is_refused(changed: Callable[[Path], Any], finished: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds runs of another sweep: other settings, seeds, epochs, data or chunk, .*Use another"
    ):
        changed(finished)


def test_a_damaged_file_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.glob("*.npz")
    file.write_text("junk")
    with pytest.raises(
        ValueError, match=rf"{file.name} holds no finished runs .*Delete it; its runs are computed again"
    ):
        map_runs(run, inputs(), (DATA,), folder=tmp_path, progress=False)


def test_where_memory_ends_the_chunk_is_halved_and_said_to_be(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    real = runs.Program.call

    def short_of_memory(self: Any, compiled: Any, start: int, stop: int, size: int) -> Any:
        if size > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
        return real(self, compiled, start, stop, size)

    monkeypatch.setattr(runs.Program, "call", short_of_memory)
    found = map_runs(run, inputs(), (DATA,), chunk=10)
    assert_equal(found, one_by_one())
    said = capsys.readouterr().err
    assert "out of memory: 5 runs at a time from here on" in said
    assert "out of memory: 2 runs at a time from here on" in said
    assert "10/10 runs" in said


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(runs.Program, "call", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        map_runs(run, inputs(), (DATA,), progress=False)


def test_a_single_run_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any) -> Any:
        raise MemoryError("full")

    monkeypatch.setattr(runs.Program, "call", full)
    with pytest.raises(MemoryError, match="not even one run on each of 1 devices fits"):
        map_runs(run, inputs(), (DATA,), progress=False)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "got no array"),
        (np.ones(0), r"inputs must be arrays \(N, .* with the same N >= 1, got shapes \(0,\)"),
        ((np.ones(2), np.ones(3)), r"got shapes \(2,\), \(3,\)"),
        (1.0, r"got shapes \(\)"),
    ],
)
def test_bad_inputs_are_named(given: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        map_runs(lambda x: x, given, progress=False)

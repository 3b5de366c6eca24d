"""Many runs of one function as one compiled program: in chunks that fit into memory, on all devices, saved to disk."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn.checks import as_arrays, as_numpy, count_of, require_leading_axis, require_positive_int
from jaxnn.train.processes import agreed, together
from jaxnn.train.progress import Bar
from jaxnn.train.saving.pace import SAVE_EVERY, Pace, SaveEvery
from jaxnn.train.saving.signals import Stopped, StopSignals
from jaxnn.train.sweeps.chunks import StagedProgram
from jaxnn.train.sweeps.staged import Stages
from jaxnn.train.sweeps.stamp import stamp
from jaxnn.train.sweeps.store import Store
from jaxnn.types import PyTree

CHUNK, CPU_CHUNK = 64, 32
"""Runs per device at a time, if memory allows: more gain little, and exceed a CPU's caches."""

SHARE = 0.5
"""The fraction of a device's memory that a chunk may take by default."""


def map_runs(
    run: Callable[..., PyTree],
    inputs: PyTree,
    shared: tuple[PyTree, ...] = (),
    *,
    memory: int | None = None,
    chunk: int | None = None,
    folder: str | Path | None = None,
    progress: bool | Callable[[int, int], None] = True,
    each: int = 1,
) -> PyTree:
    """run(input, *shared) for each of N inputs: `vmap` over chunks of inputs, one compiled program for all chunks.

    A chunk holds as many runs as `chunk` allows and, by the compiler's memory analysis, fit into memory, sharded over
    the devices; the last chunk is padded with copies of its last run. If memory runs out nevertheless, the chunk is
    halved, with a message.

    Args:
        run: pure; arrays in, pytree of arrays out. It is traced once per chunk size, and once more for the stamp of a
            `folder`. Arrays in its closure must lie on one device; pass those on a mesh in `shared`.
        inputs: pytree whose leaves have a leading axis N: hyperparameters, typed keys. N need not be a
            multiple of the number of devices.
        shared: arguments that are the same for all runs, e.g. the data; replicated to the devices once.
        memory: bytes that a chunk may take on each device, if it holds more than one run per device; None for half of
            the device's memory (where it reports none, half of the free host memory divided by the number of devices).
        chunk: the largest number of runs at a time, over all devices; fewer than the devices leave some idle. None
            for 64 on each device, 32 on a CPU. 1 means no `vmap`: for convolutions on a CPU, where `vmap` over kernels
            makes slow grouped convolutions.
        folder: where finished chunks are saved, each in a file with a checksum; a call with the same runs resumes from
            them, with any chunk and devices. The folder is locked during a call. Several processes that share it (on
            `jax.distributed`) each compute a part of the chunks. None saves nothing: each process computes all.
        progress: whether to show a bar with the time left (one line per chunk where the output is not a terminal); or
            a function that is called with (runs done, runs in all) instead.
        each: number of runs that one input stands for, counted in `chunk` and the bar; one call of `run` makes them.

    Returns:
        What `run` returns, each leaf a NumPy array with a leading axis N.

    Raises:
        ValueError: no run, leaves of different lengths, or a folder that holds runs of another program or other inputs,
            overlapping ones, or a damaged file; a folder for a program that calls Python (`jax.pure_callback`), whose
            identity cannot be checked.
        TypeError: `run` returns typed keys.
        FolderInUseError: another process, or another call, has locked the folder.
        OSError: the folder or a file in it cannot be written.
        MemoryError: not even one run per device fits; with each > 1, one input takes more than `memory`.

    Example:
        >>> map_runs(lambda rate, x: rate * x, np.arange(3.0), (np.ones(2),), progress=False)
        array([[0., 0.],
               [1., 1.],
               [2., 2.]], dtype=float32)
    """

    def jitted(run: Callable[..., PyTree], devices: int) -> Any:
        return jax.jit(mapped(run, devices))  # of a new function: what `run` sees by now is traced

    return map_program(
        run, inputs, shared, jitted=jitted, memory=memory, chunk=chunk, folder=folder, progress=progress, each=each
    )


def map_program(
    run: Callable[..., PyTree] | Stages,
    inputs: PyTree,
    shared: tuple[PyTree, ...],
    *,
    jitted: Callable[[Callable[..., PyTree], int], Any],
    memory: int | None = None,
    chunk: int | None = None,
    folder: str | Path | None = None,
    save_every: SaveEvery = SAVE_EVERY,
    progress: bool | Callable[[int, int], None] = True,
    each: int = 1,
) -> PyTree:
    """`map_runs`, with `jitted(run, number of devices)` in place of `jax.jit(mapped(run, number of devices))`.

    Of a run in stages the epochs that a chunk has done are saved every `save_every`, too.
    """
    n, inputs = _checked(inputs)
    most = default_chunk() if chunk is None else require_positive_int("map_runs", "chunk", chunk)
    most = max(most // each, 1)
    # A device beyond the number of runs would only compute padding.
    devices = jax.local_devices()[: min(n, most)]
    size = min(_round_up(min(n, most), len(devices)), most // len(devices) * len(devices))
    budget = _memory_of(devices[0]) if memory is None else require_positive_int("map_runs", "memory", memory)
    program = Program(run, inputs, shared, devices, jitted, in_stages=folder is not None)
    with (
        program.mesh_of_its_own(),
        Bar(n * each, enabled=progress is True, text="runs") as bar,
        Store(folder, program, say=bar.say if progress else None) as store,
        # Several processes each have their own chunks, and do not stop at one of them.
        StopSignals() if folder is not None and jax.process_count() == 1 else contextlib.nullcontext() as signals,
    ):
        parts = store.load()
        elsewhere = {} if folder is None else _of_other_processes(parts, n, agreed(size))

        def report() -> None:
            done = each * sum(stop - start for start, stop in parts)
            if callable(progress):
                progress(done, n * each)
            else:
                bar.to(done, f"{done}/{n * each} runs")

        report()
        while (start := _first_missing({**parts, **elsewhere}, n)) < n:
            compiled, size = program.fitting(size, budget, len(devices))
            if each > 1 and program.bytes_of(compiled) > budget:
                raise MemoryError(f"map_runs: {each} runs at once take more than {budget} bytes.")
            stop = min(start + size, _next_done({**parts, **elsewhere}, start, n))
            try:
                if isinstance(compiled, StagedProgram):
                    found = compiled.call(start, stop, store, Pace("sweep", save_every), signals)
                else:
                    found = program.call(compiled, start, stop, size)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                size = _halved(size, len(devices), error)
                if progress:
                    bar.say(f"out of memory: {count_of(size * each, 'run')} at a time from here on")
                continue
            parts[start, stop] = found
            store.save(start, stop, found)
            report()
            if signals is not None:
                signals.arm()
            if signals is not None and (name := signals.look()):
                raise Stopped(name, store.folder)  # after the last runs, too: whoever called is to stop
        if elsewhere:
            together("the runs of all processes")
            parts = store.load()
    ordered = [parts[key] for key in sorted(parts)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *ordered)


class Program:
    """`run` over chunks of inputs, compiled once per chunk size."""

    def __init__(
        self, run: Callable[..., PyTree] | Stages, inputs: PyTree, shared: tuple[PyTree, ...], devices: Any,
        jitted: Callable[[Callable[..., PyTree], int], Any], *, in_stages: bool = False,
    ) -> None:  # fmt: skip
        self.run = run.whole if isinstance(run, Stages) else run
        self._stages = run if isinstance(run, Stages) and in_stages else None
        self.inputs = jax.tree.map(lambda leaf: _gathered(leaf, devices[0]), inputs)
        self.n = jax.tree.leaves(inputs)[0].shape[0]
        self.mesh = Mesh(np.asarray(devices), ("runs",))
        self.shared = self._put(as_arrays("map_runs", "shared", shared), PartitionSpec())
        self._jitted = jitted
        self._compiled: dict[int, Any] = {}

    def mesh_of_its_own(self) -> contextlib.AbstractContextManager[Any]:
        """Replaces a mesh that the caller has set: the arrays of the program do not lie on it."""
        return contextlib.nullcontext() if jax.sharding.get_abstract_mesh().empty else jax.set_mesh(self.mesh)

    @functools.cached_property
    def _traced(self) -> Any:
        """The trace of a single run, the same for any chunk and any devices."""
        inputs, shared = jax.eval_shape(lambda *given: given, self.take(0, 1, self.mesh.size), self.shared)
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
        # jit caches the trace of a function; the new lambda traces `run` with its globals as they are now.
        return jax.jit(lambda *given: self.run(*given)).trace(one, *shared)

    @property
    def returned(self) -> PyTree:
        """What one run returns, as shapes and dtypes."""
        return self._traced.out_info

    def stamp(self) -> str:
        """A digest that is equal for the same program, inputs and data, in any process."""
        return stamp(self._traced.jaxpr, (self.inputs, self.shared))

    def fitting(self, size: int, budget: int, step: int) -> tuple[Any, int]:
        """The compiled program for `size` runs, or fewer (a multiple of `step`) to fit into `budget`; their number."""
        while True:
            if size not in self._compiled:
                self._compiled[size] = self._compile(size)
            need = self.bytes_of(self._compiled[size])
            if need <= budget or size <= step:
                return self._compiled[size], size
            size = max(min(size - step, int(size * budget / need)) // step * step, step)

    def _compile(self, size: int) -> Any:
        if self._stages is not None:
            return StagedProgram(self._stages, self, size, self._jitted)
        return self._jitted(self.run, self.mesh.size).lower(self.take(0, size, size), *self.shared).compile()

    def bytes_of(self, compiled: Any) -> int:
        """Memory of a compiled chunk per device; 0 where the platform does not report it."""
        return _bytes(compiled.one if isinstance(compiled, StagedProgram) else compiled)

    def call(self, compiled: Any, start: int, stop: int, size: int) -> PyTree:
        """The outputs of runs start to stop - 1, on the host."""
        found = compiled(self.take(start, stop, size), *self.shared)
        if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(found)):
            raise TypeError(
                "map_runs: run must return arrays of numbers, got typed keys. Use jax.random.key_data(key)."
            )
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], jax.device_get(found))

    def take(self, start: int, stop: int, size: int) -> PyTree:
        """Inputs start to stop - 1, padded to `size` with the last of them."""
        rows = np.minimum(np.arange(start, start + size), min(stop, self.n) - 1)
        return self._put(jax.tree.map(lambda leaf: leaf[rows], self.inputs), PartitionSpec("runs"))

    def _put(self, values: PyTree, spec: PartitionSpec) -> PyTree:
        """Put on the devices: sharded along the runs, or replicated."""
        return jax.device_put(values, NamedSharding(self.mesh, spec))


def default_chunk() -> int:
    """The default number of runs at a time, over all devices."""
    return (CPU_CHUNK if jax.default_backend() == "cpu" else CHUNK) * jax.local_device_count()


def mapped(run: Callable[..., PyTree], devices: int) -> Callable[..., PyTree]:
    """`run` over the leading axis of its inputs; without `vmap` for a single run."""

    def all_of(inputs: PyTree, *shared: PyTree) -> PyTree:
        if devices > 1 or jax.tree.leaves(inputs)[0].shape[0] > 1:
            return jax.vmap(run, in_axes=(0, *(None,) * len(shared)))(inputs, *shared)
        # vmap turns even a single convolution into a grouped one, which is slower.
        found = run(jax.tree.map(lambda leaf: leaf[0], inputs), *shared)
        return jax.tree.map(lambda leaf: leaf[None], found)

    return all_of


def _bytes(compiled: Any) -> int:
    """Memory of a compiled program per device; 0 where the platform does not report it."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes


def _memory_of(device: Any) -> int:
    """The fraction `SHARE` of the device's memory in bytes; of its part of the free host memory if it reports none."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    pages, page = (os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE"))
    return int(SHARE * pages * page / jax.local_device_count())


def _checked(inputs: PyTree) -> tuple[int, PyTree]:
    """N, and the inputs as arrays."""
    inputs = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, jax.Array) else as_numpy("map_runs", "inputs", leaf), inputs
    )
    return require_leading_axis("map_runs", "inputs", inputs, "Give one entry for each of N runs."), inputs


def _gathered(leaf: Any, device: Any) -> Any:
    """An input gathered on the host; typed keys, which NumPy does not support, on one device."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(leaf, device)
    return np.asarray(leaf)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _halved(size: int, step: int, error: Exception) -> int:
    """Half the chunk size; raises `error` if it is not about memory, MemoryError if one run per device is too much."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    if size <= step:
        raise MemoryError(f"map_runs: not even one run on each of {step} devices fits into memory: {error}") from error
    return max(size // 2 // step, 1) * step


def _of_other_processes(parts: Any, n: int, size: int) -> dict[tuple[int, int], None]:
    """The chunks that other processes compute, where there are several: each takes its turn."""
    missing, found = {**parts}, dict[tuple[int, int], None]()
    turn = 0
    while jax.process_count() > 1 and (start := _first_missing(missing, n)) < n:
        chunk = start, min(start + size, _next_done(missing, start, n))
        missing[chunk] = None
        if turn % jax.process_count() != jax.process_index():
            found[chunk] = None
        turn += 1
    return found


def _first_missing(parts: Any, n: int) -> int:
    """The first run that no part contains; n if there is none."""
    done = 0
    for start, stop in sorted(parts):
        if start > done:
            return done
        done = max(done, stop)
    return min(done, n)


def _next_done(parts: Any, start: int, n: int) -> int:
    """The start of the next part after `start`; n if there is none."""
    return min((a for a, _ in parts if a > start), default=n)

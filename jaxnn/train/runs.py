"""Many runs of one function as one compiled program: in chunks that fit into memory, over all devices, kept on disk."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn.checks import require_positive_int
from jaxnn.train.progress import Bar
from jaxnn.types import PyTree

CHUNK, CPU_CHUNK = 64, 32
"""Runs of each device at a time, if memory allows: more hardly make a run cheaper, and leave a CPU's caches."""

SHARE = 0.5
"""The part of a device's memory that a chunk may take, unless it is told."""


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
    """run(input, *shared) for each of N inputs: `vmap` over a chunk of them, one compiled program for all chunks.

    A chunk takes as many runs as the memory allows, by the compiler's own account of the program. With several devices
    its runs are shared out among them. Where memory runs out all the same, the chunk is halved, and said to be.

    Args:
        run: pure; arrays in, pytree of arrays out. It is traced once for each size of a chunk.
        inputs: pytree whose leaves have a leading axis N: hyperparameters, typed keys.
        shared: what all runs see, such as the data; put on the device once.
        memory: bytes that a chunk may take on each device, if it holds more than one run; None for half of what the
            device has.
        chunk: runs at a time, at most; None for 64 on each device, 32 on a CPU. On one device 1 means no `vmap`:
            for convolutions on a CPU, which over several runs become grouped ones, and slow.
        folder: where finished chunks are kept; a call with the same runs goes on from there. None keeps nothing.
        progress: whether to show a bar with the time left (a line for each chunk where the output is no terminal); or
            a function that is told (runs done, of how many) instead.
        each: how many runs one input makes, for `chunk` and the bar; `run` is asked for them all at once.

    Returns:
        What `run` returns, each leaf a NumPy array with a leading axis N.

    Raises:
        ValueError: no run, leaves of different lengths, or a folder that holds runs of another program or other inputs.
        MemoryError: not even one run on each device fits; what one input makes is more than `memory`, if it makes many.

    Example:
        >>> map_runs(lambda rate, x: rate * x, np.arange(3.0), (np.ones(2),), progress=False)
        array([[0., 0.],
               [1., 1.],
               [2., 2.]], dtype=float32)
    """
    n, inputs = _checked(inputs)
    devices = jax.local_devices()
    most = default_chunk() if chunk is None else require_positive_int("map_runs", "chunk", chunk)
    size = _round_up(min(n, max(most // each, 1)), len(devices))
    budget = _memory_of(devices[0]) if memory is None else require_positive_int("map_runs", "memory", memory)
    program = _Program(run, inputs, _spread(shared, devices, PartitionSpec()), devices)
    store = _Store(folder, program)
    parts = store.load()
    with Bar(n * each, enabled=progress is True, text="runs") as bar:

        def told() -> None:
            done = each * sum(stop - start for start, stop in parts)
            if callable(progress):
                progress(done, n * each)
            else:
                bar.to(done, f"{done}/{n * each} runs")

        told()
        while (start := _first_missing(parts, n)) < n:
            compiled, size = program.fitting(size, budget, len(devices))
            if each > 1 and _bytes(compiled) > budget:
                raise MemoryError(f"map_runs: {each} runs at once take more than {budget} bytes.")
            stop = min(start + size, _next_done(parts, start, n))
            try:
                found = program.call(compiled, start, stop, size)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                size = _halved(size, len(devices), error)
                if progress:
                    bar.say(f"out of memory: {size * each} runs at a time from here on")
                continue
            parts[start, stop] = found
            store.save(start, stop, found)
            told()
    ordered = [parts[key] for key in sorted(parts)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *ordered)


class _Program:
    """`run` over chunks of inputs, compiled once for each size."""

    def __init__(self, run: Callable[..., PyTree], inputs: PyTree, shared: tuple[PyTree, ...], devices: Any) -> None:
        self.inputs, self.shared, self.devices = inputs, shared, devices
        self._jit = jax.jit(_mapped(run, len(devices)))
        self._compiled: dict[int, Any] = {}
        self._traced = self._jit.trace(self._take(0, len(devices), len(devices)), *shared)

    @property
    def structure(self) -> Any:
        """Of what a run returns."""
        return jax.tree.structure(self._traced.out_info)

    def stamp(self) -> str:
        """The same for the same program, inputs and data, in any process."""
        # Addresses of functions differ from process to process.
        text = re.sub(r"0x[0-9a-f]+", "", str(self._traced.jaxpr))
        digest = hashlib.sha256(text.encode())
        for leaf in jax.tree.leaves((self.inputs, self.shared, self._traced.jaxpr.consts)):
            values = np.asarray(_as_numbers(leaf))
            digest.update(f"{values.shape} {values.dtype}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def fitting(self, size: int, budget: int, step: int) -> tuple[Any, int]:
        """The program for so many runs at a time, or for fewer that fit into the memory of each device."""
        while True:
            if size not in self._compiled:
                self._compiled[size] = self._jit.lower(self._take(0, size, size), *self.shared).compile()
            need = _bytes(self._compiled[size])
            if need <= budget or size <= step:
                return self._compiled[size], size
            size = max(min(size - step, int(size * budget / need)) // step * step, step)

    def call(self, compiled: Any, start: int, stop: int, size: int) -> PyTree:
        """The outputs of runs start .. stop, on the host."""
        found = jax.device_get(compiled(self._take(start, stop, size), *self.shared))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], found)

    def _take(self, start: int, stop: int, size: int) -> PyTree:
        """Inputs start .. stop, filled up with the last of them."""
        rows = np.minimum(np.arange(start, start + size), stop - 1)
        return _spread(jax.tree.map(lambda leaf: leaf[rows], self.inputs), self.devices, PartitionSpec("runs"))


def default_chunk() -> int:
    """How many runs are made at a time unless told: on all devices together.

    Example:
        >>> default_chunk() >= 32
        True
    """
    return (CPU_CHUNK if jax.default_backend() == "cpu" else CHUNK) * jax.local_device_count()


def _mapped(run: Callable[..., PyTree], devices: int) -> Callable[..., PyTree]:
    """`run` over the leading axis of its inputs; a single run is left as it is."""

    def mapped(inputs: PyTree, *shared: PyTree) -> PyTree:
        if devices > 1 or jax.tree.leaves(inputs)[0].shape[0] > 1:
            return jax.vmap(run, in_axes=(0, *(None,) * len(shared)))(inputs, *shared)
        # vmap makes even one convolution a grouped one, which is slower.
        found = run(jax.tree.map(lambda leaf: leaf[0], inputs), *shared)
        return jax.tree.map(lambda leaf: leaf[None], found)

    return mapped


class _Store:
    """Finished chunks in a folder: one file each, with the stamp of the program."""

    def __init__(self, folder: str | Path | None, program: _Program) -> None:
        if folder is not None and not str(folder).strip():
            raise ValueError("map_runs: folder must name a folder, got an empty text; None keeps nothing.")
        self.folder = None if folder is None else Path(folder)
        self.program = program
        self.stamp = "" if folder is None else program.stamp()

    def load(self) -> dict[tuple[int, int], PyTree]:
        """What is there: {(start, stop): outputs}."""
        parts: dict[tuple[int, int], PyTree] = {}
        if self.folder is None:
            return parts
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("runs-*.npz")):
            start, stop = map(int, path.stem.split("-")[1:])
            stamp, leaves = _read(path)
            if stamp != self.stamp:
                raise ValueError(
                    f"the folder {self.folder} holds runs of another sweep: other settings, seeds, epochs, data or "
                    "chunk. Take another folder, empty this one, or ask for the same again."
                )
            parts[start, stop] = jax.tree.unflatten(self.program.structure, leaves)
        return parts

    def save(self, start: int, stop: int, found: PyTree) -> None:
        """Write a chunk whole or not at all."""
        if self.folder is None:
            return
        path = self.folder / f"runs-{start:08d}-{stop:08d}.npz"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, stamp=self.stamp, **{f"leaf_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(found))})
        os.replace(part, path)


def _read(path: Path) -> tuple[str, list[np.ndarray]]:
    """The stamp and the outputs in a file that `save` wrote."""
    try:
        with np.load(path) as file:
            return str(file["stamp"]), [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no finished runs ({error}). Delete it; its runs are made again.") from None


def _bytes(compiled: Any) -> int:
    """What a compiled program takes on each device; 0 where the platform does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes


def _memory_of(device: Any) -> int:
    """Half of the device's memory in bytes; of the machine's where the device does not say."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    pages, page = (os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE"))
    return int(SHARE * pages * page / jax.local_device_count())


def _checked(inputs: PyTree) -> tuple[int, PyTree]:
    """N, and the inputs as arrays."""
    inputs = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), inputs)
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1 or not all(lengths) or lengths == {(0,)}:
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(inputs)) or "no array"
        raise ValueError(
            f"map_runs: every input must have one leading axis N >= 1, one entry for each run, got {shapes}."
        )
    return lengths.pop()[0], inputs


def _spread(values: PyTree, devices: Any, spec: PartitionSpec) -> PyTree:
    """Put on the devices: split along the runs, or whole on each."""
    if len(devices) == 1:
        return jax.device_put(values, devices[0])
    return jax.device_put(values, NamedSharding(Mesh(np.asarray(devices), ("runs",)), spec))


def _as_numbers(leaf: Any) -> Any:
    """Keys as the numbers that they are."""
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _halved(size: int, step: int, error: Exception) -> int:
    """Half the chunk; the error again where it is no lack of memory, MemoryError where there is nothing to halve."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    if size <= step:
        raise MemoryError(f"map_runs: not even one run on each of {step} devices fits into memory: {error}") from error
    return max(size // 2 // step, 1) * step


def _first_missing(parts: Any, n: int) -> int:
    """The first run that is in no part."""
    done = 0
    for start, stop in sorted(parts):
        if start > done:
            return done
        done = max(done, stop)
    return min(done, n)


def _next_done(parts: Any, start: int, n: int) -> int:
    """Where the next part begins."""
    return min((a for a, _ in parts if a > start), default=n)

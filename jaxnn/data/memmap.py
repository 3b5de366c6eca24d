"""Examples in files that are larger than the memory: a folder of NumPy arrays, read row by row."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxnn.checks import as_numpy, count_of, require_function

Prepare: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
"""(x, y) of a batch -> (x, y), NumPy arrays, on the host."""

MAPPED = 1 << 26
"""Bytes of an array, in all its files, up to which they are mapped into memory."""


class Memmap:
    """N examples in the .npy files of a folder, as `memmap` opens them: a source of rows for `train.fit`.

    Attributes:
        x, y: the files of each, as one array of rows.
    """

    def __init__(self, x: Rows, y: Rows, prepare: Prepare | None) -> None:
        self.x, self.y, self._prepare = x, y, prepare

    def __len__(self) -> int:
        """The number of examples, N."""
        return len(self.x)

    def __repr__(self) -> str:
        return f"Memmap({count_of(len(self), 'example')}, x {self.x}, y {self.y})"

    def rows(self, indices: Any) -> tuple[Any, Any]:
        """(x, y) of the examples at these indices (B,) in 0 .. N - 1: NumPy arrays (B, ...) in memory."""
        picked = as_numpy("Memmap.rows", "indices", indices)
        x, y = self.x[picked], self.y[picked]
        return (x, y) if self._prepare is None else self._prepare(x, y)


class Rows:
    """Arrays in one or several .npy files, end to end along their first axis."""

    def __init__(self, paths: Sequence[Path]) -> None:
        mapped = [_mapped(path) for path in paths]
        first = mapped[0]
        for path, file in zip(paths, mapped, strict=True):
            if (file.dtype, file.shape[1:]) != (first.dtype, first.shape[1:]):
                raise ValueError(
                    f"memmap: {path} has rows {file.dtype}{list(file.shape[1:])}, {paths[0]} has "
                    f"{first.dtype}{list(first.shape[1:])}. Give all files of one array the same."
                )
        self._row, self._dtype = first.shape[1:], first.dtype
        self._starts = np.cumsum([0, *(len(file) for file in mapped)])
        self._files: list[Any] = mapped
        if sum(file.nbytes for file in mapped) > MAPPED and hasattr(os, "preadv"):
            self._files = [
                Large(*each) if each[1].flags.c_contiguous else each[1] for each in zip(paths, mapped, strict=True)
            ]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"{self._dtype}{[len(self), *self._row]}"

    def __getitem__(self, indices: Any) -> np.ndarray[Any, Any]:
        """A copy of the rows at these indices (B,)."""
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise ValueError(
                f"memmap: indices must lie in 0 .. {len(self) - 1}, got {indices.min()} to {indices.max()}."
            )
        which = np.searchsorted(self._starts, indices, side="right") - 1
        found = np.empty((len(indices), *self._row), self._dtype)
        for number in np.unique(which):
            here = which == number
            found[here] = self._files[number][indices[here] - self._starts[number]]
        return found


class Large:
    """The rows of one large file, each read where it lies.

    Of a mapped file, a row that is read brings up to 2 MB of what lies around it into the memory of the process; and a
    file that is cut while it is mapped ends the process.
    """

    def __init__(self, path: Path, mapped: np.memmap[Any, Any]) -> None:
        self._path, self._row, self._dtype, self._offset = path, mapped.shape[1:], mapped.dtype, mapped.offset
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __getitem__(self, indices: Any) -> np.ndarray[Any, Any]:
        """The rows at these indices (B,), in range."""
        found = np.empty((len(indices), *self._row), self._dtype)
        content, size = found.reshape(-1).view(np.uint8).data, found.nbytes // len(indices)
        for place, index in enumerate(indices.tolist()):
            self._fill(content[place * size : (place + 1) * size], self._offset + index * size)
        return found

    def _fill(self, part: memoryview, position: int) -> None:
        while part:
            count = os.preadv(self._file, (part,), position)
            if not count:
                raise ValueError(f"memmap: {self._path} was cut: byte {position} of it cannot be read. Write it anew.")
            part, position = part[count:], position + count


def memmap(folder: str | Path, *, prepare: Prepare | None = None) -> Memmap:
    """The examples in a folder with x.npy and y.npy, or with x-*.npy and y-*.npy in the order of their names.

    The arrays have N examples on the first axis, in all files together, and stay in the files: a batch is read where it
    is needed, and the memory of the process does not grow with N. `train.fit` takes the result in place of (x, y), in
    the same orders as from memory; write the files with `np.save`, or row by row through
    `np.lib.format.open_memmap(path, "w+", dtype, shape)`.

    Args:
        folder: where the files are.
        prepare: (x, y) -> (x, y), applied to each batch on the host, e.g. `lambda x, y: (x / np.float32(255), y)`.

    Returns:
        A `Memmap`.

    Raises:
        FileNotFoundError: the folder lacks such files.
        ValueError: a file is no array of numbers, or the arrays do not fit together.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.arange(20.0).reshape(10, 2))
        ...     np.save(f"{folder}/y.npy", np.arange(10))
        ...     source = memmap(folder)
        ...     source, source.rows([3, 1])[1]
        (Memmap(10 examples, x float64[10, 2], y int64[10]), array([3, 1]))
    """
    require_function("memmap", "prepare", prepare, "lambda x, y: (x / 255, y)")
    x, y = (Rows(_paths(Path(folder), name)) for name in ("x", "y"))
    if len(x) != len(y) or not len(x):
        raise ValueError(f"memmap: {folder} must hold one y for each x, at least one, got {len(x)} x and {len(y)} y.")
    return Memmap(x, y, prepare)


def _paths(folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.npy"] if (folder / f"{name}.npy").is_file() else sorted(folder.glob(f"{name}-*.npy"))
    if not paths:
        raise FileNotFoundError(f"memmap: {folder} has neither {name}.npy nor {name}-*.npy. Write it with np.save.")
    return paths


def _mapped(path: Path) -> np.memmap[Any, Any]:
    try:
        file = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"memmap: {path} is not an .npy file that can be read: {error}.") from None
    if not isinstance(file, np.memmap) or file.ndim == 0 or file.dtype.kind not in "biufc":
        got = getattr(file, "dtype", type(file).__name__)
        raise ValueError(f"memmap: {path} must hold an array (N, ...) of numbers, got {got}.")
    return file

"""A store of finished chunks of runs in a folder: files with checksums, written atomically, under a lock."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import jax
import numpy as np

from jaxnn.files import make_folder, remove_parts, write_bytes
from jaxnn.train import checkpoints
from jaxnn.train.processes import by_first
from jaxnn.train.saving.lock import FolderLock
from jaxnn.types import PyTree

NAME = re.compile(r"runs-(\d{8,})-(\d{8,})\.npz")
"""The file name of a chunk: runs start to stop - 1."""

ANOTHER = (
    "holds runs of another sweep: other settings, seeds, epochs, data or chunk, another version of JAX or, for sweep, "
    "another number of devices. Use another folder, empty this one, or repeat the same sweep."
)


class Program(Protocol):
    """The properties of a program that a store of its runs needs."""

    @property
    def n(self) -> int:
        """The number of runs in all."""

    @property
    def returned(self) -> PyTree:
        """The outputs of one run, as shapes and dtypes."""

    def stamp(self) -> str:
        """A digest that is equal for the same program, inputs and data, in any process."""


class Store:
    """The finished chunks of N runs, {(start, stop): outputs}, saved in a folder; with folder None nothing is saved.

    A file is an .npz of the leaves and of "about", a JSON text with the program's stamp, N, start and stop, followed by
    a line with the SHA-256 of the archive (`np.load` still reads the file: it searches for the end of the archive).
    Entering the store locks the folder.
    """

    def __init__(self, folder: str | Path | None, program: Program, say: Callable[[str], None] | None = None) -> None:
        if folder is not None and not str(folder).strip():
            raise ValueError("map_runs: folder must name a folder, got an empty string. Pass None to save nothing.")
        self.folder = None if folder is None else Path(folder)
        self.lock = None if self.folder is None else FolderLock(self.folder, say)
        self.n = program.n
        # Both need a trace of the program.
        self.returned = None if folder is None else program.returned
        self.stamp = "" if folder is None else program.stamp()

    def __enter__(self) -> Self:
        if self.folder is not None:
            by_first("lock the folder", self._opened)
        return self

    def _opened(self) -> None:
        """Lock the folder, and remove what a process that was killed while writing left."""
        if self.folder is not None and self.lock is not None:
            make_folder(self.folder)
            self.lock.acquire()
            remove_parts(self.folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lock is not None:
            self.lock.release()

    def load(self) -> dict[tuple[int, int], PyTree]:
        """The saved chunks; raises unless all files are of this program, match their names and do not overlap."""
        parts: dict[tuple[int, int], PyTree] = {}
        before = None
        for path in [] if self.folder is None else sorted(self.folder.glob("runs-*.npz"), key=_range):
            start, stop = _range(path)
            parts[start, stop] = self._read(path)
            if before is not None and start < _range(before)[1]:
                raise ValueError(f"map_runs: {before} and {path} hold some of the same runs. Delete one of them.")
            before = path
        return parts

    def save(self, start: int, stop: int, found: PyTree) -> None:
        """Write a chunk atomically: even a crash leaves no incomplete file of that name."""
        if self.folder is None:
            return
        path = self.folder / f"runs-{start:08d}-{stop:08d}.npz"
        about = {"program": self.stamp, "runs": self.n, "start": start, "stop": stop}
        archive = io.BytesIO()
        leaves: dict[str, Any] = {f"leaf_{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(found))}
        np.savez(archive, about=json.dumps(about), **leaves)
        content = archive.getvalue()
        write_bytes(path, content + _checksum(content))
        self._unfinished(start, stop).unlink(missing_ok=True)

    def save_unfinished(self, start: int, stop: int, size: int, done: int, carry: PyTree, reports: PyTree) -> None:
        """Write the state of a chunk after some of its epochs, in place of an earlier one."""
        if self.folder is not None:
            about = {"program": self.stamp, "size": size, "done": done}
            checkpoints.write(self._unfinished(start, stop), {"carry": carry, "reports": reports}, about)

    def unfinished(
        self, start: int, stop: int, size: int, carry: PyTree, reports: Callable[[], PyTree]
    ) -> tuple[int, PyTree, PyTree] | None:
        """(epochs done, carry, reports so far) of a chunk that was stopped; None if there is none of this size.

        `carry` and `reports()`, shapes of one epoch, say what to expect.

        Raises:
            ValueError: the file is damaged, or of another program.
        """
        if self.folder is None or not (path := self._unfinished(start, stop)).is_file():
            return None
        about = checkpoints.read_about(path)["about"]
        if about["program"] != self.stamp:
            raise ValueError(f"the folder {path.parent} {ANOTHER}")
        if about["size"] != size:
            return None
        done = int(about["done"])
        shapes = jax.tree.map(lambda leaf: np.zeros((*leaf.shape[:-1], done), leaf.dtype), reports())
        found, _ = checkpoints.read(path, {"carry": carry, "reports": shapes})
        return done, found["carry"], found["reports"]

    def _unfinished(self, start: int, stop: int) -> Path:
        return Path(self.folder or ".") / f"unfinished-{start:08d}-{stop:08d}.npz"

    def _read(self, path: Path) -> PyTree:
        """The outputs in a file written by `save`."""
        if not path.is_file():
            raise ValueError(f"{path} must be a file. Rename or remove it; its runs are computed again.")
        content, checksum = _divided(path.read_bytes())
        if not content or _checksum(content) != checksum:
            raise ValueError(
                f"{path} holds no finished runs (its checksum is wrong: it is damaged, incomplete, or not written by "
                "map_runs). Delete it; its runs are computed again."
            )
        with np.load(io.BytesIO(content)) as file:
            about = json.loads(str(file["about"]))
            found = [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
        if (about["program"], about["runs"]) != (self.stamp, self.n):
            raise ValueError(f"the folder {path.parent} {ANOTHER}")
        if (about["start"], about["stop"]) != _range(path):
            raise ValueError(
                f"{path} was renamed: it holds runs {about['start']} to {about['stop']}. Rename it to "
                f"runs-{about['start']:08d}-{about['stop']:08d}.npz, or delete it; its runs are computed again."
            )
        expected = jax.tree.leaves(self.returned)
        length = about["stop"] - about["start"]
        leaves = [leaf.view(wanted.dtype) for leaf, wanted in zip(found, expected, strict=True)]
        got = [(leaf.shape, leaf.dtype) for leaf in leaves]
        wanted = [((length, *leaf.shape), leaf.dtype) for leaf in expected]
        if got != wanted:
            raise ValueError(f"{path}: expected leaves {wanted}, got {got}. Delete it; its runs are computed again.")
        return jax.tree.unflatten(jax.tree.structure(self.returned), leaves)


def _range(path: Path) -> tuple[int, int]:
    """Start and stop from a file's name."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a name such as runs-00000000-00000032.npz. Rename or remove it.")
    start, stop = map(int, match.groups())
    return start, stop


def _plain(leaf: np.ndarray) -> np.ndarray:
    """A leaf in a dtype that .npz files support: bfloat16 and other extension types as unsigned integers."""
    return leaf.view(f"u{leaf.dtype.itemsize}") if leaf.dtype.kind == "V" else leaf


def _checksum(content: bytes) -> bytes:
    """The checksum line at the end of a file."""
    return f"\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def _divided(content: bytes) -> tuple[bytes, bytes]:
    """The archive and the checksum line."""
    length = len(_checksum(b""))
    return content[:-length], content[-length:]

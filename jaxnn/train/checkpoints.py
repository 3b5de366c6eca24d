"""Checkpoints: pytrees of arrays in files that are whole or not there, restored strictly.

A checkpoint is one `.npz` file: an array for each leaf, under its path ("params/1/w"), and `__about__`, a JSON text
with the format's version, the dtypes, and what the writer adds. `np.load` reads it too. The archive has a CRC-32 of
every array, so a flipped byte is an error and never a number. A file is written beside its place, flushed to disk and
renamed: a process that is killed leaves the file before it.

| leaf | stored as |
|---|---|
| numbers and bools that NumPy has | themselves |
| bfloat16, float8, int4, ... | unsigned integers of the same bytes, and the dtype's name |
| typed keys | `jax.random.key_data`, and the dtype's name, such as `key<fry>` |

Other leaves, such as texts and masked arrays, are refused. A Python number, a NumPy scalar, a NumPy array and a JAX
array come back as such.
"""

from __future__ import annotations

import json
import re
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, runtime_checkable

import jax
import numpy as np

import jaxnn
from jaxnn import files, npz
from jaxnn.checks import require_positive_int
from jaxnn.train.saving.background import Background
from jaxnn.train.saving.leaves import ABOUT, IMPLEMENTATIONS, is_key, named, require_storable
from jaxnn.types import PyTree

FORMAT = 1
"""Version of the files; a reader refuses newer ones."""

NAME = re.compile(r"step-(\d{10,})\.npz")
SHOWN_FAULTS = 5
BLOCK = 1 << 20
"""Bytes of a write: they stay in the processor's cache between their checksum and their copy to the file."""


def write(path: str | Path, values: PyTree, about: Mapping[str, Any] | None = None) -> Path:
    """Write one checkpoint: the file is whole, or an old one of that name is unchanged. The folder must exist.

    Args:
        path: of the file, "*.npz".
        values: pytree of arrays, typed keys and numbers; arrays may be sharded over the devices of this process.
        about: what else to keep, as for `json.dumps`.

    Raises:
        UnwrittenError: no space, no permission ...
        TypeError: a leaf that is something else, such as a function, a text or a masked array.
        ValueError: an array whose parts lie on the devices of several processes; too long a name.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write(f"{folder}/a.npz", {"w": jnp.ones(2, jnp.bfloat16)}, {"epoch": 3})
        ...     found, about = read(path, {"w": jnp.zeros(2, jnp.bfloat16)})
        >>> found["w"].dtype, about["epoch"]
        (dtype(bfloat16), 3)
    """
    text = header(values, about)
    return _write(path, on_host(values), text)


def header(values: PyTree, about: Mapping[str, Any] | None) -> str:
    """The JSON of a checkpoint, of what `read_about` returns; raises unless a checkpoint can hold the values."""
    require_storable(values)
    versions = {"jaxnn": jaxnn.__version__, "jax": jax.__version__, "numpy": np.__version__}
    whole = {"format": FORMAT, "versions": versions, "dtypes": dtypes_of(values), "about": dict(about or {})}
    try:
        return json.dumps(whole)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"checkpoint: about, histories and states of rules must be JSON, got: {error}. Convert NumPy's numbers by "
            "float(x) and its arrays by x.tolist()."
        ) from None


def on_host(values: PyTree, over: Mapping[str, np.ndarray[Any, Any]] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """A copy of every leaf on the host, by path, in a dtype that NumPy has: the devices may then donate theirs.

    Where a leaf has the size of that in `over`, it takes its memory: fresh memory takes longer than the copy.
    """
    return {name: _kept(name, leaf, (over or {}).get(name)) for name, leaf in named(values).items()}


def _write(path: str | Path, kept: Mapping[str, np.ndarray[Any, Any]], text: str) -> Path:
    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            arrays = [
                (ABOUT, np.frombuffer(text.encode(), np.uint8)),
                *kept.items(),
            ]
            for name, values in arrays:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_array(member, values)

    return files.write_with(path, write)


def _write_array(file: IO[bytes], values: np.ndarray[Any, Any]) -> None:
    """`np.save` of a contiguous array of numbers, without its copies of what it writes."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
    content = values.reshape(-1).view(np.uint8).data
    for start in range(0, len(content), BLOCK):
        file.write(content[start : start + BLOCK])


def read(path: str | Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The values and the `about` of a checkpoint.

    Args:
        path: of a file that `write` wrote.
        like: pytree of arrays or `jax.ShapeDtypeStruct`s: the structure, shapes, dtypes, key implementations and
            shardings of the result. Every leaf must be in the file, and nothing else.

    Returns:
        (values, about): values with the structure of `like`, each leaf sharded as that of `like` is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one line, with the file and the cause: it is damaged, truncated, no checkpoint, of a newer version,
            or its leaves are not those of `like`.
    """
    about = read_about(path)
    wanted = named(like)
    require_alike(path, dtypes_of(like), about["dtypes"])

    def check(headers: Mapping[str, npz.ArrayHeader]) -> None:
        shapes = {name: found.shape for name, found in headers.items() if name != ABOUT}
        require_alike(path, {name: shape for name, (shape, _) in _shapes(wanted).items()}, shapes)

    stored = npz.read_npz(path, check=check)
    leaves = [_restored(stored[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), about["about"]


def read_about(path: str | Path) -> dict[str, Any]:
    """The JSON of a checkpoint: "format", "versions", "dtypes" by name of leaf, and the writer's "about".

    Raises:
        FileNotFoundError, ValueError: as for `read`.
    """
    try:
        text = npz.read_npz(path, names=[ABOUT])[ABOUT].tobytes().decode()
        about: dict[str, Any] = json.loads(text)
        version = about["format"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a checkpoint: its {ABOUT} is not the JSON that a checkpoint has.") from None
    if version != FORMAT:
        raise ValueError(
            f"{path} is a checkpoint of format {version}, this version of jaxnn ({jaxnn.__version__}) reads format "
            f"{FORMAT}. Read it with the version that wrote it, {about.get('versions')}, or a newer one."
        )
    if lacking := [name for name in ("versions", "dtypes", "about") if not isinstance(about.get(name), dict)]:
        raise ValueError(
            f"{path} is not a checkpoint: its {ABOUT} must have {', '.join(lacking)} as objects of JSON, got "
            f"{reprlib.repr({name: about.get(name) for name in lacking})}. Write it by checkpoints.write."
        )
    return about


@runtime_checkable
class CheckpointStore(Protocol):
    """The checkpoints of one run: what `fit` needs of them. `Checkpoints` is one, `OrbaxCheckpoints` another."""

    folder: Path

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""

    def about(self, step: int) -> dict[str, Any]:
        """The JSON of one, as `read_about` returns it."""

    def save(self, step: int, values: PyTree, about: Mapping[str, Any] | None = None) -> None:
        """Write one; the values may be donated as soon as this returns. Every process calls it."""

    def wait(self) -> None:
        """Until the last is written; raises if that failed."""

    def restore(self, like: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The values and the `about` of one, or of the newest."""


class Checkpoints:
    """The checkpoints of one run in a folder, each of a step: step-0000001200.npz.

    A save copies the values to the host and returns; a thread writes the file, and then deletes older ones. One process
    at a time may use a folder.

    Args:
        folder: made if it does not exist.
        keep: how many of the newest files to keep, >= 1.

    Raises:
        UnwrittenError: the folder cannot be made; from `save` and `wait`, the file of the save before was not written.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, keep=2) as checkpoints:
        ...     for step in (10, 20, 30):
        ...         checkpoints.save(step, {"w": jnp.full(3, step)})
        ...     checkpoints.wait()
        ...     steps, (found, _) = checkpoints.steps(), checkpoints.restore({"w": jnp.zeros(3, int)})
        >>> steps, found["w"]
        ([20, 30], Array([30, 30, 30], dtype=int32))
    """

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = require_positive_int("Checkpoints", "keep", keep)
        if jax.process_index() == 0:
            files.make_folder(self.folder)
        self._writing = Background()
        self._kept: dict[str, np.ndarray[Any, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()

    def steps(self) -> list[int]:
        """The steps that have a file, in order."""
        matches = [NAME.fullmatch(path.name) for path in self.folder.glob("step-*.npz")]
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step:010d}.npz"

    def about(self, step: int) -> dict[str, Any]:
        """`read_about` of the checkpoint of a step."""
        return read_about(self.path(step))

    def save(self, step: int, values: PyTree, about: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint in the background; the values may be donated as soon as this returns.

        Of several processes, all call it, and the first writes.

        Raises:
            UnwrittenError: the file of the save before was not written.
            TypeError, ValueError: as `write`; a step below the newest.
        """
        step = require_positive_int("Checkpoints", "step", step, minimum=0)
        self.wait()
        if (newest := max(self.steps(), default=0)) > step:
            raise ValueError(
                f"Checkpoints: step must be at least {newest}, the newest in {self.folder}, got {step}: older ones are "
                "deleted first. Use another folder."
            )
        text = header(values, about)  # now, as the caller goes on to change the history in it
        self._kept = kept = on_host(values, over=self._kept)
        if jax.process_index() != 0:
            return

        def work() -> None:
            _write(self.path(step), kept, text)
            for old in self.steps()[: -self.keep]:
                self.path(old).unlink(missing_ok=True)

        self._writing.start(work)

    def wait(self) -> None:
        """Until the file of the last save is written; raises if that failed."""
        self._writing.wait()

    def restore(self, like: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """`read` the checkpoint of a step, or the newest.

        Raises:
            FileNotFoundError: there is none.
            ValueError: as for `read`; for a damaged newest file it names the one before that is whole, or says that
                none is.
        """
        self.wait()
        steps = self.steps()
        if not steps if step is None else step not in steps:
            of_step = "" if step is None else f" of step {step}"
            there = f"there are those of {', '.join(map(str, steps))}" if steps else "it has none"
            raise FileNotFoundError(f"{self.folder} has no checkpoint{of_step}: {there}.")
        newest = steps[-1] if step is None else step
        try:
            return read(self.path(newest), like)
        except ValueError as error:
            if _is_whole(self.path(newest)):
                raise
            earlier = (one for one in reversed(steps) if one < newest)
            before = next((one for one in earlier if _is_whole(self.path(one))), None)
            if before is not None:
                more = f"{self.path(before)} is whole: to go on from step {before}, delete or rename the other file"
            else:
                older = [self.path(one).name for one in steps if one <= newest]
                more = f"no earlier one is whole: to begin anew, delete {', '.join(older)} in {self.folder}"
            raise ValueError(f"{error.args[0].rstrip('.')}; {more}.") from None


def _is_whole(path: Path) -> bool:
    try:
        read_about(path)
        npz.read_npz(path)
    except (OSError, ValueError):
        return False
    return True


def _kept(name: str, leaf: Any, over: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            raise ValueError(
                f"checkpoint: {name} {list(leaf.shape)} lies in parts on the devices of several processes, which one "
                "file cannot hold. Pass train.OrbaxCheckpoints(folder), of pip install 'jaxnn[orbax]'."
            )
        leaf = leaf.addressable_data(0)
    # On a CPU `np.asarray` shares the memory of the array, which a compiled step then donates.
    shared = np.asarray(leaf)
    stored = shared if shared.dtype.isbuiltin == 1 else shared.view(f"u{shared.dtype.itemsize}")
    if over is None or (over.shape, over.dtype) != (stored.shape, stored.dtype):
        return np.array(stored, order="C")
    np.copyto(over, stored)
    return over


def dtypes_of(values: PyTree) -> dict[str, str]:
    """What the dtypes of the leaves are called in a file, by path."""
    return {name: _stored(leaf) for name, leaf in named(values).items()}


def _stored(leaf: Any) -> str:
    """What the dtype of a leaf is called in a file."""
    return str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def _shapes(named: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {
        name: ((jax.eval_shape(jax.random.key_data, leaf).shape if is_key(leaf) else tuple(np.shape(leaf))), leaf)
        for name, leaf in named.items()
    }


def require_alike(path: str | Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError, with the first differences, unless names and their dtypes or shapes agree."""
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is not expected" for name in found if name not in expected]
    faults += [
        f"{name} has {list(found[name]) if isinstance(found[name], tuple) else found[name]}, expected "
        f"{list(value) if isinstance(value, tuple) else value}"
        for name, value in expected.items()
        if name in found and found[name] != value
    ]
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise ValueError(f"{path} does not fit: {'; '.join(faults[:SHOWN_FAULTS])}{more}. It is of another run.")


def _restored(values: np.ndarray[Any, Any], leaf: Any) -> Any:
    """Stored values as a leaf like `leaf`, with its sharding."""
    sharding = getattr(leaf, "sharding", None)
    if is_key(leaf):
        keys = jax.random.wrap_key_data(jax.numpy.asarray(values), impl=IMPLEMENTATIONS[str(leaf.dtype)])
        return keys if sharding is None else jax.device_put(keys, sharding)
    if not hasattr(leaf, "dtype"):  # a Python number
        return type(leaf)(values.item())
    typed = values if values.dtype == leaf.dtype else values.view(leaf.dtype)
    if isinstance(leaf, np.generic):
        return typed[()]
    if isinstance(leaf, np.ndarray):
        return typed
    if sharding is None:
        return jax.numpy.asarray(typed)
    return jax.make_array_from_callback(typed.shape, sharding, lambda index: typed[index])

"""Atomic file writes, whole-line appends, strict JSON.

The whole package writes through here, so that a full disk, a crash or Ctrl-C never leaves half a file under a name
that a later run would trust.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

MAX_JSON = 1 << 24
"""Largest JSON file that is read, in bytes: a hundred times the largest that the package writes."""

PLAIN_SIZE = 1 << 26
"""Bytes that any compressed file may unpack to, however small it is."""

MAX_RATIO = 100
"""Largest ratio of unpacked to packed size above `PLAIN_SIZE`: images reach 40, decompression bombs 1,000."""


class UnwrittenError(OSError):
    """A file could not be written; the message says why, and what is there now."""


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file atomically: to a temporary file beside it, flushed to disk, then renamed. Returns the path.

    A symbolic link is followed, the mode of an existing file is kept, and a pipe or device is written directly. The
    folder must exist.

    Raises:
        UnwrittenError: no space, no permission, a folder of that name ...; an existing file is unchanged.
    """
    return write_with(path, lambda file: file.write(content))


def write_with(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> Path:
    """`write_bytes` of what `write(file)` writes into an open file."""
    there = False
    try:
        place = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            mode, there = place.stat().st_mode, True
        if there and not stat.S_ISREG(mode):
            with place.open("wb") as file:  # IsADirectoryError from a folder
                write(file)
        else:
            if there and not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            _replace(place, write, stat.S_IMODE(mode) if there else None)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        kept = "the old file is unchanged" if there else "nothing was written"
        raise _unwritten(path, error, kept) from None
    return Path(path)


def create_bytes(path: str | os.PathLike[str], content: bytes) -> bool:
    """Create a file atomically and return True; if the path exists, write nothing and return False.

    Of several processes that try it at once, exactly one gets True. Only on file systems without hard links can a
    process that is killed leave an empty file.

    Raises:
        UnwrittenError: no space, no permission ...; nothing was written.
    """
    place = Path(path)
    try:
        # Not .part: whoever holds a folder's lock removes those, also while another tries to lock it.
        with _part(place, lambda file: file.write(content), ".new") as part:
            try:
                os.link(part, place)
            except FileExistsError:
                raise
            except OSError:  # no hard links here: take the name first, then replace the file
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                os.replace(part, place)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritten(path, error, "nothing was written") from None
    return True


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """`write_bytes` of a text in UTF-8."""
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2) -> Path:
    """`write_bytes` of a value as JSON; NaN and infinities are written, but `read_json` rejects them."""
    return write_text(path, json.dumps(value, indent=indent) + "\n")


def write_csv(path: str | os.PathLike[str], head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    """`write_bytes` of a table as CSV: a line of names, then one line per row."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows(rows)
    return write_text(path, out.getvalue())


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any], *, compressed: bool = False) -> Path:
    """`write_bytes` of named arrays in NumPy's .npz format, for `npz.read_npz` and `np.load`."""
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, allow_pickle=False, **arrays)
    return write_bytes(path, out.getvalue())


def append_line(path: str | os.PathLike[str], text: str) -> None:
    """Append one line to a file, created if it does not exist; a failed write is undone.

    Raises:
        UnwrittenError: the line could not be written; the lines before it are kept.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(file).st_size
            try:
                left = memoryview(f"{text}\n".encode())
                while left:  # a nearly full disk may accept only a part
                    left = left[os.write(file, left) :]
            except BaseException:
                with contextlib.suppress(OSError):  # a pipe cannot be truncated
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
    except OSError as error:
        raise _unwritten(path, error, "the lines before it are kept") from None


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents, where they do not exist, and return its path.

    Raises:
        UnwrittenError: no permission, no space, a file or a dangling link of that name ...
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        cause = getattr(error, "strerror", None) or str(error)
        with contextlib.suppress(OSError, ValueError):
            if folder.is_symlink() and not folder.exists():
                cause = f"it is a dangling link to {os.readlink(folder)}"
            elif folder.exists():
                cause = "it is a file"
        told = UnwrittenError(f"the folder {folder} could not be made: {cause}; name another.")
        told.errno = getattr(error, "errno", None)
        raise told from None
    return folder


def remove_parts(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while writing left in a folder, which nobody else may be writing to."""
    for part in Path(folder).glob(".*.part"):
        with contextlib.suppress(OSError):  # a folder of that name
            part.unlink()


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file; anything else raises one line with file and cause.

    Raises:
        OSError: the file does not exist (FileNotFoundError) or cannot be read.
        ValueError: not UTF-8, not JSON, a literal NaN or Infinity (but 1e999 is read as inf), a duplicate key, nesting
            too deep, an integer of thousands of digits, or too large a file.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"{os.fspath(path)} is not a JSON file of this package: it is larger than {MAX_JSON} bytes.")
    try:
        return json.loads(content.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"{os.fspath(path)} is not readable JSON: nested too deep.") from None
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, a number of too many digits
        raise ValueError(f"{os.fspath(path)} is not readable JSON: {error}.") from None


def require_no_bomb(where: str, unpacked: int, packed: int) -> None:
    """Raise ValueError if `packed` bytes claim to unpack to more than `PLAIN_SIZE` and `MAX_RATIO` times as many."""
    if unpacked > PLAIN_SIZE and unpacked > MAX_RATIO * packed:
        raise ValueError(
            f"{where}: claims {unpacked} bytes of values in a file of {packed}, more than {MAX_RATIO} times as many. "
            "It is damaged or a decompression bomb; if you trust it, store it uncompressed."
        )


def _replace(place: Path, write: Callable[[IO[bytes]], Any], mode: int | None) -> None:
    """Write to a temporary file in the same folder, then rename it."""
    with _part(place, write) as part:
        if mode is not None:
            part.chmod(mode)
        os.replace(part, place)
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder; the file itself is safe
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _part(place: Path, write: Callable[[IO[bytes]], Any], ending: str = ".part") -> Iterator[Path]:
    """A new file beside the place with the content, flushed to disk; deleted unless it was renamed."""
    part = place.with_name(f".{secrets.token_hex(8)}{ending}")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(file, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(file)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _unwritten(path: str | os.PathLike[str], error: Exception, kept: str) -> UnwrittenError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    told = UnwrittenError(f"{os.fspath(path)} could not be written: {cause}; {kept}.")
    told.errno = getattr(error, "errno", None)
    return told


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(n for n in names if names.count(n) > 1)!r} in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")

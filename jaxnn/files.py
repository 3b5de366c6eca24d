"""Files written whole or not at all, lines appended whole, JSON read strictly. Floor 0.

Whatever the package writes goes through here, so that a full disk, a crash or Ctrl-C never leaves half a file under a
name that a later run would trust.
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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_JSON = 1 << 24
"""Bytes of a JSON file, at most: the largest that the package writes are a hundredth of it."""

PLAIN_SIZE = 1 << 26
"""Bytes that a compressed file may unpack to, however small it is."""

MAX_RATIO = 100
"""How many times its own size a larger one may unpack to: images reach 40, archives made to fill the memory 1,000."""


class UnwrittenError(OSError):
    """A file could not be written; its text says why and what is there now."""


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file whole or not at all: to a new file beside it, flushed to the disk, which then takes its name.

    A link is followed, the mode of a file that is replaced is kept, and a pipe or device is written as it is. The
    folder must exist.

    Returns:
        The path.

    Raises:
        UnwrittenError: no space, no permission, a folder of that name ...; an older file is then as it was.

    Example:
        >>> import tempfile
        >>> write_bytes(Path(tempfile.mkdtemp()) / "a", b"all of it").read_bytes()
        b'all of it'
    """
    there = False
    try:
        place = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            mode, there = place.stat().st_mode, True
        if there and not stat.S_ISREG(mode):
            place.write_bytes(content)  # IsADirectoryError from a folder
        else:
            if there and not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            _replace(place, content, stat.S_IMODE(mode) if there else None)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        kept = "what was there is as it was" if there else "nothing of it is left"
        raise _unwritten(path, error, kept) from None
    return Path(path)


def create_bytes(path: str | os.PathLike[str], content: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; False, and nothing is written, if it is there.

    Of several processes that try it at once, one gets True. On file systems without hard links, and on those alone, a
    process that is killed in between leaves the file empty.

    Raises:
        UnwrittenError: no space, no permission ...; nothing of it is left.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a"
        >>> create_bytes(path, b"one"), create_bytes(path, b"two"), path.read_bytes()
        (True, False, b'one')
    """
    place = Path(path)
    try:
        # Not .part: whoever holds a folder's lock removes those, also while another tries to lock it.
        with _part(place, content, ".new") as part:
            try:
                os.link(part, place)
            except FileExistsError:
                raise
            except OSError:  # no links here: the name is taken first, then the file put in its place
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                os.replace(part, place)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritten(path, error, "nothing of it is left") from None
    return True


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """`write_bytes` of a text in UTF-8.

    Example:
        >>> import tempfile
        >>> write_text(Path(tempfile.mkdtemp()) / "a.txt", "±").read_text(encoding="utf-8")
        '±'
    """
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2) -> Path:
    """`write_bytes` of a value as JSON.

    Example:
        >>> import tempfile
        >>> write_json(Path(tempfile.mkdtemp()) / "a.json", [1, None]).read_text().split()
        ['[', '1,', 'null', ']']
    """
    return write_text(path, json.dumps(value, indent=indent) + "\n")


def write_csv(path: str | os.PathLike[str], head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    """`write_bytes` of a table as CSV: a line of names, then a line for each row.

    Example:
        >>> import tempfile
        >>> write_csv(Path(tempfile.mkdtemp()) / "a.csv", ["x", "y"], [[1, 2], [3, 4]]).read_text().split()
        ['x,y', '1,2', '3,4']
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows(rows)
    return write_text(path, out.getvalue())


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any], *, compressed: bool = False) -> Path:
    """`write_bytes` of named arrays as `np.savez` has them; `npz.read_npz` and `np.load` read them.

    Example:
        >>> import tempfile
        >>> np.load(write_npz(Path(tempfile.mkdtemp()) / "a.npz", {"x": np.arange(2)}))["x"]
        array([0, 1])
    """
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, allow_pickle=False, **arrays)
    return write_bytes(path, out.getvalue())


def append_line(path: str | os.PathLike[str], text: str) -> None:
    """Append one line, whole or not at all, to a file that is made if need be.

    Raises:
        UnwrittenError: the line could not be written; the lines before it are kept.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log"
        >>> append_line(path, "one"); append_line(path, "two"); path.read_text()
        'one\\ntwo\\n'
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(file).st_size
            try:
                left = memoryview(f"{text}\n".encode())
                while left:  # a disk that is nearly full takes a part
                    left = left[os.write(file, left) :]
            except BaseException:
                with contextlib.suppress(OSError):  # of a pipe nothing can be taken back
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
    except OSError as error:
        raise _unwritten(path, error, "the lines before it are kept") from None


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, unless it is there.

    Raises:
        UnwrittenError: no permission, no space, a file or a dangling link of that name ...

    Example:
        >>> import tempfile
        >>> make_folder(Path(tempfile.mkdtemp()) / "a" / "b").is_dir()
        True
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        cause = getattr(error, "strerror", None) or str(error)
        with contextlib.suppress(OSError, ValueError):
            if folder.is_symlink() and not folder.exists():
                cause = f"it is a link to {os.readlink(folder)}, which is not there"
            elif folder.exists():
                cause = "it is a file"
        told = UnwrittenError(f"the folder {folder} could not be made: {cause}; name another.")
        told.errno = getattr(error, "errno", None)
        raise told from None
    return folder


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file; whatever is not plain JSON is an error of one line with file and cause.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not UTF-8, not JSON, NaN or infinity, a name twice in one object, nested too deep, a number of
            thousands of digits, or too large a file.

    Example:
        >>> import tempfile
        >>> read_json(write_text(Path(tempfile.mkdtemp()) / "a.json", '{"a": [1, null]}'))
        {'a': [1, None]}
    """
    with open(path, "rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"{os.fspath(path)} is no JSON file of this package: it is larger than {MAX_JSON} bytes.")
    try:
        return json.loads(content.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"{os.fspath(path)} is not readable JSON: it is nested too deep.") from None
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, a number of too many digits
        raise ValueError(f"{os.fspath(path)} is not readable JSON: {error}.") from None


def require_no_bomb(where: str, unpacked: int, packed: int) -> None:
    """Raise ValueError if a file claims to unpack to so much more than its own size that it was made to fill memory.

    Args:
        where: the file.
        unpacked: bytes that would be read out of it.
        packed: bytes of the file.

    Example:
        >>> require_no_bomb("a.npz", 1 << 31, 1 << 21)
        Traceback (most recent call last):
        ValueError: a.npz: claims 2147483648 bytes of values in a file of 2097152, more than 100 times as many. ...
    """
    if unpacked > PLAIN_SIZE and unpacked > MAX_RATIO * packed:
        raise ValueError(
            f"{where}: claims {unpacked} bytes of values in a file of {packed}, more than {MAX_RATIO} times as many. "
            "It is damaged, or made to fill the memory; if you trust it, store it uncompressed."
        )


def _replace(place: Path, content: bytes, mode: int | None) -> None:
    """The content under a new name in the same folder, then renamed."""
    with _part(place, content) as part:
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
def _part(place: Path, content: bytes, ending: str = ".part") -> Iterator[Path]:
    """A new file beside the place that holds the content, flushed to the disk; it goes unless it was renamed."""
    part = place.with_name(f".{secrets.token_hex(8)}{ending}")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(file, "wb") as stream:
            stream.write(content)
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
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")

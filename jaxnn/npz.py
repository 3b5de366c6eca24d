"""A strict reader of .npy and .npz files from untrusted or damaged sources.

Names, dtypes and shapes are read, and can be checked, before any values are unpacked; no pickle is ever loaded; nothing
is read beyond what the headers announce. NumPy's own reader raises a dozen kinds of exceptions on damaged files, and
does not stop decompression bombs.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from jaxnn.files import require_no_bomb

MAX_HEADER = 10_000
"""Largest array header (dtype, order, shape) that is read, in bytes."""

MAX_ARRAYS = 100_000
"""Largest number of arrays in one archive."""

MAX_AXES = 32
"""Largest number of axes of an array."""

_MAGIC = b"\x93NUMPY"
_CHUNK = 1 << 20
_ITEM = r"""['"](descr|fortran_order|shape)['"]\s*:\s*(?:['"]([^'"]*)['"]|(True|False)|\(([\d\s,]*)\))"""
_HEADER = re.compile(rf"\s*\{{\s*{_ITEM}\s*,\s*{_ITEM}\s*,\s*{_ITEM}\s*,?\s*\}}\s*")


class ArrayHeader(NamedTuple):
    """The header of an array in a file; `offset` is the length of the header in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    source: str | os.PathLike[str] | IO[bytes],
    *,
    names: Sequence[str] | None = None,
    check: Callable[[Mapping[str, ArrayHeader]], None] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays in an .npz file, as `np.savez` and `np.savez_compressed` write it.

    Args:
        source: a path, or a seekable binary file.
        names: which arrays; None for all.
        check: called with the headers before any value is unpacked, to raise on unexpected ones.

    Returns:
        Name -> array of numbers or bools, in native byte order.

    Raises:
        OSError: the file does not exist (FileNotFoundError) or cannot be opened.
        ValueError: one line with file and cause: damaged, truncated, not an .npz file, a missing array, values that are
            no numbers to NumPy (strings, objects, bfloat16), a file that unpacks to more than 64 MiB and more than a
            hundred times its size.
    """
    with _opened(source) as (where, file, size):
        with _one_line(where, "an .npz file"):
            archive = zipfile.ZipFile(file)
            members = _members(archive)
            wanted = list(members) if names is None else list(names)
            if missing := [name for name in wanted if name not in members]:
                there = ", ".join(map(repr, list(members)[:20])) or "none"
                raise _Told(f'expected an array "{missing[0]}", got {there}')
            headers = {name: _member_header(archive, members[name], name) for name in wanted}
        if check is not None:
            check(headers)
        require_no_bomb(where, sum(header.nbytes for header in headers.values()), size)
        with _one_line(where, "an .npz file"):
            return {name: _member(archive, members[name], header) for name, header in headers.items()}


def read_npy(
    source: str | os.PathLike[str] | IO[bytes], *, check: Callable[[ArrayHeader], None] | None = None
) -> np.ndarray[Any, Any]:
    """The array in an .npy file; as `read_npz`, but `check` is called with the one header."""
    with _opened(source) as (where, file, size):
        with _one_line(where, "an .npy file"):
            header = _header(file)
            if header.offset + header.nbytes != size:
                raise _Told(f"{_needs(header)} after {header.offset} of header, the file has {size} in all")
        if check is not None:
            check(header)
        with _one_line(where, "an .npy file"):
            return _values(file, header)


def is_possible(shape: Sequence[int]) -> bool:
    """Whether an array of that shape is read: of at most `MAX_AXES` axes, and fewer than 2**48 entries."""
    return len(shape) <= MAX_AXES and math.prod(max(n, 1) for n in shape) < 1 << 48


class _Told(ValueError):
    """A cause that this module found itself."""


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[tuple[str, IO[bytes], int]]:
    """The name for messages, the open file, its size."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield os.fspath(source), file, os.fstat(file.fileno()).st_size
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        yield str(getattr(source, "name", "a file in memory")), source, size


@contextlib.contextmanager
def _one_line(where: str, what: str) -> Iterator[None]:
    """Turn any exception while reading into one ValueError with file and cause."""
    try:
        yield
    except _Told as error:
        raise ValueError(f"{where} is not {what} that can be read: {error}.") from None
    except Exception as error:
        # zipfile, zlib and struct raise BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError, OSError ...
        # on damage, varying by Python version; all of them mean the same to the user.
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where} is not {what} that can be read; it is damaged or truncated: {told}.") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's directory, by the names of arrays."""
    if len(archive.infolist()) > MAX_ARRAYS:
        raise _Told(f"it has {len(archive.infolist())} entries, the limit is {MAX_ARRAYS}")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise _Told(f"it has two arrays {name!r}")
        found[name] = info
    return found


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> ArrayHeader:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Told(f"{name!r} is packed by method {info.compress_type}, NumPy uses 0 or 8")
    if info.flag_bits & 1:
        raise _Told(f"{name!r} is encrypted")
    with archive.open(info) as stream:
        header = _header(stream, f"{name!r}: ")
    if header.offset + header.nbytes != info.file_size:
        raise _Told(f"{name!r}: {_needs(header)} after {header.offset} of header, the archive has {info.file_size}")
    return header


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader) -> np.ndarray[Any, Any]:
    with archive.open(info) as stream:
        if len(stream.read(header.offset)) < header.offset:
            raise EOFError(f"{info.filename!r} ends in its header")
        return _values(stream, header)


def _header(stream: IO[bytes], which: str = "") -> ArrayHeader:
    """Magic, version, length and a dict of three items, matched by a regular expression and never evaluated."""
    start = stream.read(8)
    if start[:6] != _MAGIC:
        raise _Told(f"{which}not an array: it begins with {start[:6]!r}")
    if start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _Told(f"{which}unknown format version {start[6:].hex('.')}")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_HEADER:
        raise _Told(f"{which}the header claims {length} bytes, the limit is {MAX_HEADER}")
    text = stream.read(length)
    if len(text) < length:
        raise _Told(f"{which}the header is truncated")
    if not (whole := _HEADER.fullmatch(text.decode("latin-1"))):
        raise _Told(f"{which}the header {_shortened(text.decode('latin-1'))!r} is not that of an array of numbers")
    found = {whole[i]: (whole[i + 1], whole[i + 2], whole[i + 3]) for i in (1, 5, 9)}
    descr, order, axes = (found.get(name, (None,) * 3)[i] for i, name in enumerate(("descr", "fortran_order", "shape")))
    if descr is None or order is None or axes is None:
        raise _Told(f"{which}the header {_shortened(text.decode('latin-1'))!r} lacks dtype, order or shape")
    shape = tuple(int(word) for word in axes.split(",") if word.strip())
    if not is_possible(shape):
        raise _Told(f"{which}impossible shape {_shortened(str(shape))}")
    return ArrayHeader(shape, _dtype(descr, which), order == "True", 8 + width + length)


def _dtype(descr: str, which: str) -> np.dtype[Any]:
    """The dtype of numbers by NumPy's code for it."""
    if not re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", descr):
        raise _Told(f"{which}its values must be numbers or bools, got dtype {_shortened(descr)!r}")
    try:
        return np.dtype(descr)
    except TypeError:
        raise _Told(f"{which}unknown dtype {descr!r}") from None


def _values(stream: IO[bytes], header: ArrayHeader) -> np.ndarray[Any, Any]:
    """The values, read in chunks: one read would first allocate as many bytes as a damaged header claims."""
    content = bytearray()
    # Ask for one byte more than announced: zipfile checks the CRC only at the end of the stream.
    while piece := stream.read(min(header.nbytes + 1 - len(content), _CHUNK)):
        content += piece
        if len(content) > header.nbytes:
            raise _Told(f"{_needs(header)}, got more")
    if len(content) < header.nbytes:
        raise _Told(f"{_needs(header)}, got {len(content)}")
    flat = np.frombuffer(content, header.dtype)
    values = flat.reshape(header.shape, order="F" if header.fortran_order else "C")
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def _needs(header: ArrayHeader) -> str:
    return f"shape {header.shape} of {header.dtype} needs {header.nbytes} bytes of values"


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."

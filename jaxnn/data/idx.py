"""A strict reader and a writer of IDX files, the format of MNIST.

A file is two zero bytes, a type code, the rank, one big-endian uint32 for each axis, and the values, big-endian, the
last axis fastest.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn.data.packed import Stream, name_of, opened, read_up_to, require_sha256
from jaxnn.files import require_no_bomb, write_bytes

TYPE_CODES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
"""The type of the values by the third byte of the file (0x0A is not in use)."""

_MAX_RANK = 64  # NumPy's


def read_idx(
    source: str | os.PathLike[str] | bytes,
    *,
    sha256: str | None = None,
    check: Callable[[tuple[int, ...]], None] | None = None,
) -> np.ndarray[Any, Any]:
    """The array in an IDX file, raw or gzip-compressed; too few or too many bytes are an error.

    It reads at most one byte more than the header announces, and rejects compressed files that announce more than
    64 MiB and 100 times their size: neither impossible sizes nor decompression bombs fill the memory.

    Args:
        source: a path, or the bytes of a file.
        sha256: the expected SHA-256 of the UNCOMPRESSED bytes, 64 hexadecimal digits; None leaves it unchecked.
        check: called with the shape before any value is read, to raise on an unexpected one.

    Returns:
        A NumPy array of the shape and dtype in the file, in native byte order, writeable.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: bad magic, an unknown type code, impossible sizes, too few or too many bytes, a damaged gzip stream,
            a wrong checksum.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        array([7, 8, 9], dtype=uint8)

    Reference: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", 1998, section "File formats".
    """
    where = f"read_idx: {name_of(source)}"
    with opened(where, source) as (stream, packed):
        header, dtype, shape, body = _parse(where, stream, packed, check)
    if sha256 is not None:  # else the pieces need not be joined
        require_sha256(where, header + body, sha256)
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _parse(
    where: str, stream: Stream, packed: int | None, check: Callable[[tuple[int, ...]], None] | None
) -> tuple[bytes, np.dtype[Any], tuple[int, ...], bytes]:
    """Header, dtype, shape and values; ValueError unless exactly one array. `packed`: compressed size, or None."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{where}: too short: an IDX file begins with 4 bytes, got {len(magic)}. Fetch it again.")
    if magic[:2] != b"\0\0":
        raise ValueError(
            f"{where}: bad magic number: an IDX file begins with two zero bytes, got {magic[:2].hex(' ')}. "
            "Is it another kind of file (a web page, an archive)?"
        )
    code, rank = magic[2], magic[3]
    if code not in TYPE_CODES:
        known = ", ".join(f"0x{c:02X} {t.newbyteorder('=').name}" for c, t in TYPE_CODES.items())
        raise ValueError(f"{where}: unknown type code 0x{code:02X}, expected one of {known}. Is it an IDX file?")
    axes = stream.read(4 * rank)
    if len(axes) < 4 * rank:
        raise ValueError(
            f"{where}: too short: {rank} axes need {4 * rank} bytes of sizes, got {len(axes)}. Fetch it again."
        )
    shape, dtype = struct.unpack(f">{rank}I", axes), TYPE_CODES[code]
    if rank > _MAX_RANK or math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 1 << 48:
        raise ValueError(f"{where}: impossible sizes {shape}: no array has this shape. Fetch the file again.")
    expected = math.prod(shape) * dtype.itemsize
    need = f"shape {shape} of {dtype.newbyteorder('=').name} needs {expected} bytes of values"
    if check is not None:
        check(shape)
    if packed is not None:
        require_no_bomb(where, expected, packed)
    body = read_up_to(stream, expected + 1)
    if len(body) < expected:
        raise ValueError(f"{where}: too short: {need}, got {len(body)}. Fetch it again.")
    if len(body) > expected:
        raise ValueError(f"{where}: trailing bytes: {need}, got more. Fetch it again, or cut it to size.")
    return magic + axes, dtype, shape, body


def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write an array as an IDX file, gzip-compressed if the name ends in ".gz"; the bytes are a function of the array.

    Args:
        path: an existing file is replaced.
        array: any shape, dtype uint8, int8, int16, int32, float32 or float64.

    Raises:
        TypeError: another dtype.
        UnwrittenError: as `files.write_bytes`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.gz"
        >>> write_idx(path, np.arange(3, dtype=np.int16)); read_idx(path)
        array([0, 1, 2], dtype=int16)
    """
    values = np.asarray(array)
    codes = {dtype.newbyteorder("="): code for code, dtype in TYPE_CODES.items()}
    native = values.dtype.newbyteorder("=")
    if native not in codes:
        raise TypeError(
            f"write_idx: {os.fspath(path)}: dtype must be one of {', '.join(d.name for d in codes)}, "
            f"got {values.dtype}. Convert it: array.astype(np.float32)."
        )
    code = codes[native]
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    data = header + values.astype(TYPE_CODES[code]).tobytes()
    write_bytes(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)

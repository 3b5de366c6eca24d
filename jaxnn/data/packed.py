"""Files that may be gzip-compressed: strict reading, and the checksum of their contents."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import IO, TypeAlias

Stream: TypeAlias = IO[bytes] | gzip.GzipFile

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def name_of(source: str | os.PathLike[str] | bytes) -> str:
    """The path, or the number of bytes, for messages."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)


@contextlib.contextmanager
def opened(where: str, source: str | os.PathLike[str] | bytes) -> Iterator[tuple[Stream, int | None]]:
    """The stream of the uncompressed bytes, and the size of the file if it is compressed, else None.

    Args:
        where: the function and the file, for messages.
        source: a path, or the bytes of a file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the gzip stream is damaged.
    """
    raw = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115 (closed just below)
    with raw:
        packed = raw.read(2) == _GZIP_MAGIC
        size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        try:
            with gzip.open(raw) if packed else raw as stream:
                yield stream, size if packed else None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{where}: the gzip stream is cut short or damaged ({error}). Delete the file and fetch it again."
            ) from error


def read_up_to(stream: Stream, limit: int) -> bytes:
    """At most `limit` bytes, read in chunks: one read(limit) would first allocate `limit` bytes."""
    pieces, left = [], limit
    while left > 0 and (piece := stream.read(min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def require_sha256(where: str, content: bytes, sha256: str | None) -> None:
    """Raise ValueError unless the uncompressed bytes have this SHA-256 (64 hexadecimal digits; None: any)."""
    got = hashlib.sha256(content).hexdigest()
    if sha256 is not None and got != sha256.lower():
        raise ValueError(
            f"{where}: wrong checksum: the SHA-256 of the uncompressed bytes is {got}, expected {sha256.lower()}. "
            "Another file or a damaged one: delete it and fetch it again."
        )

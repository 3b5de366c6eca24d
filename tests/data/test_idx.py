"""IDX files: round trips, and a clear error for every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnn.data import read_idx, write_idx

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
GOOD = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])


@given(
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), st.booleans()
)
def test_a_written_file_reads_back_as_it_was(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a.idx")
    write_idx(path, array)
    got = read_idx(path)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array)
    assert path.read_bytes()[:2] == (b"\x1f\x8b" if packed else b"\0\0")


@pytest.mark.parametrize(
    ("code", "letter", "value"),
    [(0x08, "B", 200), (0x09, "b", -7), (0x0B, "h", -300), (0x0C, "i", 70000), (0x0D, "f", 0.5), (0x0E, "d", 0.1)],
)
def test_each_type_code_is_read_big_endian(code, letter, value):
    """Files made with `struct`, which knows nothing of NumPy's dtypes."""
    raw = struct.pack(f">BBBBI2{letter}", 0, 0, code, 1, 2, value, value)
    np.testing.assert_array_equal(read_idx(raw), np.array([value] * 2, read_idx(raw).dtype))
    np.testing.assert_array_equal(read_idx(gzip.compress(raw)), read_idx(raw))


def test_the_bytes_written_are_the_format_and_nothing_else(tmp_path):
    for name in ("a", "a.gz"):
        write_idx(tmp_path / name, np.arange(1, 7, dtype=np.uint8).reshape(2, 3))
    assert (tmp_path / "a").read_bytes() == GOOD
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == GOOD


def test_a_checksum_is_that_of_the_uncompressed_bytes():
    right = hashlib.sha256(GOOD).hexdigest()
    for raw in (GOOD, gzip.compress(GOOD)):
        np.testing.assert_array_equal(read_idx(raw, sha256=right.upper()), [[1, 2, 3], [4, 5, 6]])
        with pytest.raises(ValueError, match=f"wrong checksum.*{right}, expected 00.*fetch it again"):
            read_idx(raw, sha256="00" * 32)


def _header(*sizes: int, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "too short: an IDX file begins with 4 bytes, got 0"),
        (b"\0\0\x08", "too short: an IDX file begins with 4 bytes, got 3"),
        (b"<html>", "bad magic number.*two zero bytes, got 3c 68"),
        (b"\0\0\x0a\x01\0\0\0\0", "unknown type code 0x0A, expected one of 0x08 uint8, 0x09 int8"),
        (b"\0\0\x08\x03\0\0\0\x01", "too short: 3 axes need 12 bytes of sizes, got 4"),
        (GOOD[:-1], r"too short: shape \(2, 3\) of uint8 needs 6 bytes of values, got 5"),
        (GOOD + b"\0", r"trailing bytes: shape \(2, 3\) of uint8 needs 6 bytes of values, got more"),
        (_header(2**32 - 1, 2**31) + b"\0", r"impossible sizes|too short: shape \(4294967295, 2147483648\)"),
        (_header(2**32 - 1, 2**32 - 1, 2**32 - 1), r"impossible sizes \(4294967295, 4294967295, 4294967295\)"),
        (_header(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "impossible sizes"),
        (_header(*[1] * 65) + b"\0", "impossible sizes"),
    ],
)
def test_a_file_that_is_not_exactly_one_array_is_refused(tmp_path, raw, message):
    path = tmp_path / "broken.idx"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"(?s)broken.idx: {message}" if "|" not in message else message):
        read_idx(path)
    with pytest.raises(ValueError, match=message):
        read_idx(gzip.compress(raw))


def test_every_cut_of_a_file_is_refused():
    packed = gzip.compress(GOOD, mtime=0)
    for raw in (GOOD, packed):
        for length in range(len(raw)):
            with pytest.raises(ValueError, match=r"too short|cut short"):
                read_idx(raw[:length])


def test_a_damaged_gzip_stream_is_named():
    packed = bytearray(gzip.compress(GOOD, mtime=0))
    packed[-6] ^= 1  # in the stream's own checksum
    with pytest.raises(ValueError, match=r"gzip stream is cut short or damaged.*fetch it again"):
        read_idx(bytes(packed))


def test_absurd_sizes_and_gzip_bombs_take_no_memory():
    bomb = gzip.compress(GOOD + bytes(50_000_000))
    tracemalloc.start()
    for raw, message in ((_header(2**30, 2**10) + b"\0", "too short"), (bomb, "trailing bytes")):
        with pytest.raises(ValueError, match=message):
            read_idx(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_a_missing_file_and_a_dtype_without_a_code(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(TypeError, match=r"dtype must be one of uint8, .*float64, got int64. Convert it"):
        write_idx(tmp_path / "a", np.arange(3))

"""Files are whole or not there at all: on a full disk, interrupted, in a folder that takes none."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxnn import files, npz

KIB = 1024


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As `ulimit -f`: no file of this process may grow beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def append_lines(path: Path, lines: list[str]) -> None:
    for line in lines:
        files.append_line(path, line)


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_grows_too_large_leaves_what_was_there(there: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if there:
        path.write_bytes(b"before")
    with files_up_to(100 * KIB), pytest.raises(files.UnwrittenError, match="a could not be written: File too large; "):
        files.write_bytes(path, bytes(101 * KIB))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"before"] if there else [])
    with files_up_to(100 * KIB):
        files.write_bytes(path, bytes(100 * KIB))
    assert path.read_bytes() == bytes(100 * KIB)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """On a real file system of 100 KiB, where one may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        files.write_bytes(tmp_path / "a", b"before")
        for text in (bytes(200 * KIB), bytes(95 * KIB)):
            with contextlib.suppress(files.UnwrittenError):
                files.write_bytes(tmp_path / "a", text)
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() in (b"before", bytes(95 * KIB))
        with pytest.raises(files.UnwrittenError, match="No space left on device; nothing was written"):
            files.write_bytes(tmp_path / "b", bytes(200 * KIB))
        line = "x" * 999
        with pytest.raises(files.UnwrittenError, match="No space left on device; the lines before it are kept"):
            append_lines(tmp_path / "log", [line] * 200)
        lines = (tmp_path / "log").read_text().splitlines(keepends=True)
        assert set(lines) <= {line + "\n"}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with files_up_to(25), pytest.raises(files.UnwrittenError, match="the lines before it are kept"):
        append_lines(path, [f"line {i} .." for i in range(3)])
    assert path.read_text() == "line 0 ..\nline 1 ..\n"


def test_an_interruption_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(file: int) -> None:
        raise KeyboardInterrupt

    files.write_text(tmp_path / "a", "before")
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a", "after")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"]


def test_the_disk_has_the_content_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(stat.S_ISREG(os.fstat(file).st_mode)), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("renamed"), replace(a, b)))
    files.write_text(tmp_path / "a", "x")
    assert calls == [True, "renamed", False], "the file, its name, the folder"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("folder", "Is a directory"),
        ("file/a", "Not a directory"),
        ("nowhere/a", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        ("loop", "symbolic links|Too many levels"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(files.UnwrittenError, match=text) as told:
        files.write_text(tmp_path / name, "x")
    assert "\n" not in str(told.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "loop"]
    assert (tmp_path / "file").read_text() == "mine"


def test_links_modes_and_devices_are_kept(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write_text(link, "after")
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    mask = os.umask(0o027)
    try:
        files.write_text(tmp_path / "new", "")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_text(pipe, "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    if Path("/dev/full").exists():
        with pytest.raises(files.UnwrittenError, match="No space left"):
            files.write_text("/dev/full", "x")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3)),
        np.float32(2),
        np.array([True]),
        np.array([1 + 2j]),
        np.arange(3, dtype=np.float16),
        np.arange(4, dtype=np.uint64),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_strict_reader_reads_what_numpy_writes(array: np.ndarray, compressed: bool, tmp_path: Path) -> None:
    path = files.write_npz(tmp_path / "a.npz", {"a/b": array, "c": np.arange(2)}, compressed=compressed)
    found = npz.read_npz(path)
    assert set(found) == {"a/b", "c"}
    np.save(tmp_path / "a.npy", array)
    for got in (found["a/b"], npz.read_npy(tmp_path / "a.npy")):
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype.newbyteorder("=")
        assert got.dtype.isnative
        got[...] = 0  # writeable


def test_headers_are_seen_before_values(tmp_path: Path) -> None:
    content = bytearray(files.write_npz(tmp_path / "a.npz", {"x": np.arange(1000)}).read_bytes())
    content[4000] ^= 1  # in the values
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is not an \.npz file that can be read; it is damaged or truncated"):
        npz.read_npz(tmp_path / "a.npz")

    def check(headers: object) -> None:
        raise TypeError("seen first")

    with pytest.raises(TypeError, match="seen first"):
        npz.read_npz(tmp_path / "a.npz", check=check)


def test_json_is_read_strictly(tmp_path: Path) -> None:
    for text, told in {
        '{"a": 1, "a": 2}': "duplicate key 'a'",
        "[NaN]": "NaN is not a JSON number",
        "[" * 100_000: "nested too deep",
        "1" * 5000: "digits",
        "{": "Expecting",
    }.items():
        path = files.write_text(tmp_path / "a.json", text)
        with pytest.raises(ValueError, match=told) as error:
            files.read_json(path)
        assert str(path) in str(error.value)
        assert len(str(error.value)) < 400

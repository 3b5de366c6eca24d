"""A folder of finished runs gives back these runs or says what is wrong with it: never others, never half a file."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnn.train import map_runs
from jaxnn.train.saving.lock import FolderInUseError, FolderLock
from jaxnn.train.sweeps import store

RATES = np.arange(9.0, dtype=np.float32)
OUT = {"sum": 3 * RATES, "low": (RATES + 1).astype(ml_dtypes.bfloat16)}
FIRST, SECOND, THIRD = (f"runs-{a:08d}-{a + 3:08d}.npz" for a in (0, 3, 6))


def run(rate: Any) -> Any:
    return {"sum": 3 * rate, "low": (rate + 1).astype(jnp.bfloat16)}


def runs_in(folder: Path, **how: Any) -> Any:
    return map_runs(run, RATES, folder=folder, **({"chunk": 3, "progress": False} | how))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    runs_in(folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def assert_whole(found: Any) -> None:
    for name, values in OUT.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_finished_runs_are_given_back_in_their_dtypes(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [FIRST, SECOND, THIRD]
    (folder / SECOND).unlink()
    (folder / ".0123456789abcdef.part").write_text("of a process that was killed")
    assert_whole(runs_in(folder))
    assert sorted(path.name for path in folder.iterdir()) == [FIRST, SECOND, THIRD]
    with np.load(folder / FIRST) as file:
        assert json.loads(str(file["about"])).keys() == {"program", "runs", "start", "stop"}


def swapped(folder: Path) -> None:
    (folder / FIRST).rename(folder / "aside")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "aside").rename(folder / SECOND)


def overlapping(folder: Path) -> None:
    for path in (folder / FIRST, folder / THIRD):
        path.unlink()
    kept = (folder / SECOND).read_bytes()
    (folder / SECOND).unlink()
    runs_in(folder, chunk=5)
    (folder / SECOND).write_bytes(kept)


def foreign(folder: Path) -> None:
    map_runs(run, RATES[:6] + 100, folder=folder / "other", chunk=3, progress=False)
    shutil.copy(folder / "other" / SECOND, folder / SECOND)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "swapped": (swapped, rf"{FIRST} was renamed: it holds runs 3 to 6. Rename it to {SECOND}"),
    "renamed": (
        lambda folder: (folder / THIRD).rename(folder / "runs-00000009-00000012.npz"),
        "runs-00000009-00000012.npz was renamed: it holds runs 6 to 9",
    ),
    "copied": (
        lambda folder: shutil.copy(folder / FIRST, folder / "runs-00000000-00000003 (1).npz"),
        r"\(1\).npz: expected a name such as",
    ),
    "overlapping": (overlapping, rf"runs-00000000-00000005.npz and .*{SECOND} hold some of the same runs"),
    "foreign": (foreign, "holds runs of another sweep"),
    "a folder": (lambda folder: (folder / "runs-00000009-00000012.npz").mkdir(), "012.npz must be a file"),
    "a dangling link": (
        lambda folder: (folder / "runs-00000009-00000012.npz").symlink_to("nowhere"),
        "must be a file. Rename or remove it",
    ),
    "empty": (lambda folder: (folder / FIRST).write_bytes(b""), rf"{FIRST} holds no finished runs .*checksum"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_with_other_runs_in_it_is_refused(damage: str, folder: Path) -> None:
    make, text = DAMAGES[damage]
    make(folder)
    with pytest.raises(ValueError, match=text):
        runs_in(folder)
    assert not (folder / "lock.json").exists()


class Kept:
    """What a store asks a program for."""

    n = 9

    @property
    def returned(self) -> Any:
        return {name: values[0] for name, values in OUT.items()}

    def stamp(self) -> str:
        return "the same"


def test_every_damage_to_a_file_is_one_clear_error(tmp_path: Path) -> None:
    kept = store.Store(tmp_path, Kept())
    kept.save(0, 3, {name: values[:3] for name, values in OUT.items()})
    path = tmp_path / FIRST
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    np.testing.assert_array_equal(kept.load()[0, 3]["low"], OUT["low"][:3])
    bits = [int(i) for i in rng.choice(8 * len(whole), 200, replace=False)]
    flipped = [whole[: i // 8] + bytes([whole[i // 8] ^ 1 << i % 8]) + whole[i // 8 + 1 :] for i in bits]
    cut = [whole[: int(length)] for length in rng.choice(len(whole), 100, replace=False)]
    for content in [*flipped, *cut, whole + b"\n", whole[::-1], b"junk" * 100]:
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{FIRST} holds no finished runs .*Delete it; its runs are computed again"
        ):
            kept.load()


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs_in(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_and_left_alone(folder: Path) -> None:
    inside: list[str] = []

    def second(done: int, n: int) -> None:
        with pytest.raises(
            FolderInUseError, match=rf"in use by process {os.getpid()}, this one: a run in it has not ended"
        ) as caught:
            runs_in(folder)
        inside.append(str(caught.value))

    (folder / SECOND).unlink()
    assert_whole(runs_in(folder, progress=second))
    assert len(inside) == 2
    assert not (folder / "lock.json").exists()


def lock_of(folder: Path, **changes: Any) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    owner = json.loads(lock.path.read_text()) | changes
    lock.path.write_text(json.dumps(owner))


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("changes", [{"pid": ended}, {"started": "1"}], ids=["ended", "number given anew"])
def test_the_lock_of_a_dead_process_is_taken_over_with_a_line(changes: Any, folder: Path, capsys: Any) -> None:
    lock_of(folder, **{name: value() if callable(value) else value for name, value in changes.items()})
    assert_whole(runs_in(folder, progress=True))
    assert "which has ended, since" in capsys.readouterr().err
    assert not (folder / "lock.json").exists()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: lock_of(folder, host="elsewhere", pid=2**22 + 1), "in use by process 4194305 on elsewhere"),
        (lambda folder: (folder / "lock.json").write_text("{"), "in use by another process. Wait"),
        (lambda folder: lock_of(folder, pid=os.getppid(), started=None), f"on {socket.gethostname()} since"),
    ],
    ids=["another host", "unreadable", "running"],
)
def test_a_lock_that_may_be_alive_is_respected(make: Any, text: str, folder: Path) -> None:
    make(folder)
    with pytest.raises(FolderInUseError, match=text):
        runs_in(folder)
    assert (folder / "lock.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]"], ids=["empty", "cut", "no lock"])
def test_an_old_lock_that_names_no_process_is_taken_over(content: str, folder: Path, capsys: Any) -> None:
    """As a full disk has left it, or a process killed before it wrote."""
    (folder / "lock.json").write_text(content)
    os.utime(folder / "lock.json", (time.time() - 60,) * 2)
    assert_whole(runs_in(folder, progress=True))
    assert "was locked by an unknown process: taken over" in capsys.readouterr().err
    assert not (folder / "lock.json").exists()


def test_a_full_disk_locks_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        text = "lock.json could not be written: No space left on device; nothing was written. The folder is not"
        with pytest.raises(OSError, match=text):
            runs_in(folder)
    assert sorted(folder.iterdir()) == before
    assert_whole(runs_in(folder))


def test_a_lock_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    lock = FolderLock(folder)
    lock.acquire()
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    with pytest.raises(FolderInUseError, match=f"by process {os.getpid()}"):
        FolderLock(folder).acquire()
    lock.release()
    assert sorted(path.name for path in folder.iterdir()) == [FIRST, SECOND, THIRD]


def test_what_stands_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, text in {
        "file": "the folder .*file could not be made: it is a file; name another",
        "link": "link could not be made: it is a dangling link to .*nowhere",
        "file/below": "below could not be made: Not a directory",
    }.items():
        with pytest.raises(OSError, match=text):
            runs_in(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    script = (
        "import sys, time, numpy as np\nfrom jaxnn.train import map_runs\n"
        "def told(done, n):\n    print(done, flush=True)\n    sys.stdin.readline()\n"
        "map_runs(lambda r: 3 * r, np.arange(9.0), folder=sys.argv[1], chunk=9, progress=told)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "runs")]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "0\n"
    second = subprocess.run(command, capture_output=True, text=True, input="\n\n", check=False)
    assert second.returncode == 1
    assert f"is in use by process {first.pid} on" in second.stderr.splitlines()[-1]
    first.kill()
    first.communicate()
    third = subprocess.run(command, capture_output=True, text=True, input="\n\n", check=False)
    assert third.returncode == 0, third.stderr
    assert "taken over" in third.stderr


def test_a_silent_lock_of_another_host_is_taken_over(folder: Path, capsys: Any) -> None:
    """A job that was preempted begins again on another machine, where nobody removes its lock."""
    lock_of(folder, host="elsewhere")
    os.utime(folder / "lock.json", (time.time() - 700,) * 2)
    assert_whole(runs_in(folder, progress=True))
    assert "on elsewhere, which has ended" in capsys.readouterr().err


def test_the_owner_of_a_lock_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxnn.train.saving.lock.BEAT", 0.01)
    lock = FolderLock(tmp_path)
    lock.acquire()
    os.utime(lock.path, (0, 0))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.path.stat().st_mtime > time.time() - 60
    lock.release()
    assert not lock.path.exists()

"""A lock file for a folder that one process at a time writes to."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from jaxnn.files import UnwrittenError, create_bytes

NAME = "lock.json"

WRITING = 5.0
"""Seconds after which a lock file without a readable owner counts as abandoned."""

BEAT, SILENT = 30.0, 600.0
"""Seconds between two signs of life of a lock's owner; seconds without one after which an owner on another host counts
as gone: a job that is preempted may begin again on another machine."""


class FolderInUseError(OSError):
    """The folder is locked by another process, or by another call in this one."""


class FolderLock:
    """A lock file that names its owner: process, host, start of that process, time of locking.

    The file is created atomically, so that one of two processes gets it. A lock whose process has ended on this host is
    taken over, and so is one older than `WRITING` without a readable owner. Whether a process on another host still
    runs cannot be determined here: its lock is taken over if the file was not touched for `SILENT` seconds, as the
    owner does every `BEAT`. A process that is forked from the owner has no part in the lock.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] | None = None) -> None:
        self.path = folder / NAME
        self._say = say
        self._mine: dict[str, Any] | None = None
        self._pid = os.getpid()
        self._released = threading.Event()

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process made the lock, and was not forked from the one that did."""
        return os.getpid() == self._pid

    def acquire(self) -> None:
        """Lock the folder, which must exist.

        Raises:
            FolderInUseError: another owner holds the lock.
            UnwrittenError: the lock could not be written.
        """
        mine = _this_process()
        if not self._made(mine):
            self._take_over()
            if not self._made(mine):
                self._refuse()
        self._mine = mine
        self._released.clear()
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Unlock the folder, if this lock was acquired and nobody else has taken it over."""
        if not self.is_of_this_process:
            return
        self._released.set()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        self._mine = None

    def _is_mine(self) -> bool:
        return self._mine is not None and self._owner() == self._mine

    def is_held(self) -> bool:
        """Whether a process that may still run has locked the folder."""
        return self.path.exists() and self._may_run(self._owner())

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):
                if self._is_mine():
                    os.utime(self.path)

    def _made(self, mine: Mapping[str, Any]) -> bool:
        """Create the file atomically; whether it did not exist before."""
        try:
            return create_bytes(self.path, json.dumps(mine).encode())
        except UnwrittenError as error:
            told = UnwrittenError(f"{error} The folder is not locked, and its runs are unchanged.")
            told.errno = error.errno
            raise told from None

    def _take_over(self) -> None:
        """Remove the lock of a process that has ended; raise where it may still run."""
        owner = self._owner()
        if self._may_run(owner):
            self._refuse()
        # If two processes see the same dead owner, only one of them can rename its file.
        aside = self.path.with_suffix(f".{os.getpid()}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if self._owner(aside) != owner:  # the other has renamed and locked again in the meantime: restore its lock
            os.rename(aside, self.path)
            self._refuse()
        aside.unlink()
        if self._say is not None:
            who = (
                "an unknown process" if owner is None else f"process {owner['pid']} on {owner['host']}, which has ended"
            )
            since = "" if owner is None else f", since {owner['since']}"
            self._say(f"{self.path.parent} was locked by {who}{since}: taken over")

    def _may_run(self, owner: dict[str, Any] | None) -> bool:
        """Whether the lock's process may still run.

        A file without a readable owner comes from a full disk or from a process killed while writing; writing a lock
        takes less than `WRITING` seconds.
        """
        if owner is not None and owner["host"] == socket.gethostname():
            return _runs(owner["pid"], owner["started"])
        patience = WRITING if owner is None else SILENT
        try:
            return not self.path.is_file() or time.time() - self.path.stat().st_mtime < patience
        except FileNotFoundError:  # unlocked in the meantime
            return True

    def _owner(self, path: Path | None = None) -> dict[str, Any] | None:
        """The contents of the lock file; None where it cannot be read."""
        try:
            owner = json.loads((path or self.path).read_text(encoding="utf-8"))
            return {"host": str(owner["host"]), "since": str(owner["since"]), "pid": int(owner["pid"]),
                    "started": owner["started"]}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _refuse(self) -> NoReturn:
        owner = self._owner()
        if owner is not None and (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname()):
            raise FolderInUseError(
                f"the folder {self.path.parent} is in use by process {os.getpid()}, this one: a run in it has not "
                "ended. End it, by close() what train.epochs returned, or use another folder."
            )
        who = (
            "another process" if owner is None else f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        )
        raise FolderInUseError(
            f"the folder {self.path.parent} is in use by {who}. Wait for it, or use another folder; if you know that "
            f"it has ended, delete {self.path}."
        )


def _this_process() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid()), "since": now}


def _runs(pid: int, started: str | None) -> bool:
    """Whether the process runs on this host; the start time tells it from a later process with the same id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    found = _start_of(pid)
    return started is None or found is None or started == found


def _start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where the system does not report it."""
    try:
        # Field 2, the name in parentheses, may contain spaces; field 3 is the state, field 22 the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "ended" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None

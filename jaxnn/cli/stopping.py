"""SIGTERM and Ctrl-C as ends of a command: one line that says what is kept, and exit codes 143 and 130."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from jaxnn.train import Stopped


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `KeyboardInterrupt` is SIGINT: what keeps results after Ctrl-C keeps them after SIGTERM, too."""


STOPS: dict[str, type[KeyboardInterrupt]] = {"SIGTERM": Terminated, "SIGINT": KeyboardInterrupt}
"""What a signal raises, by its name."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """A context in which SIGTERM raises `Terminated`, unless the process has another handler or ignores it."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def last_line(stop: KeyboardInterrupt) -> tuple[str, int]:
    """The line that is printed after a signal, and the exit code: 128 and the number of the signal."""
    terminated = isinstance(stop, Terminated) or (isinstance(stop, Stopped) and stop.name == "SIGTERM")
    number = signal.SIGTERM if terminated else signal.SIGINT
    kept = " ".join(map(str, stop.args)) or "nothing was kept"
    return f"{'terminated' if terminated else 'interrupted'}; {kept}", 128 + number

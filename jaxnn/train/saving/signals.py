"""SIGTERM and SIGINT as a wish to stop: training finishes its piece, saves, and ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax

from jaxnn.train.processes import require_no_handler

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal ended a sweep, after a save: called again with its folder, it goes on.

    Attributes:
        name: "SIGTERM" or "SIGINT".
    """

    def __init__(self, name: str, folder: Any) -> None:
        super().__init__(f"{name}: what was done is saved in {folder}; the same call goes on")
        self.name = name


class StopSignals:
    """A context in which, once armed, the first SIGTERM or SIGINT is noted, and a second SIGINT interrupts at once.

    Contexts may overlap in any order, as those of two runs side by side: a signal is noted by all of them.

    Python runs handlers in the main thread only: entered in another one, it notes nothing. A signal that the process
    ignores stays ignored, and the handlers of before are back when the last context has ended.

    Of several processes, whichever gets the signal first, all stop at the same step: JAX's own handler, which
    `jax.distributed.initialize` installed, tells them.

    Attributes:
        name: "SIGTERM" or "SIGINT" once it came; "" before.

    Raises:
        ValueError: one of several processes has a handler of its own.
    """

    def __init__(self) -> None:
        self.name = ""
        self.armed, self._looks = False, 0

    def arm(self) -> None:
        """From here on signals are noted; before, as while a program is compiled, they do what they did outside."""
        self.armed = True

    def look(self) -> str:
        """The name, after every piece of work, by every process."""
        if jax.process_count() > 1 and not self.name:
            from jax.experimental import multihost_utils

            self._looks += 1  # the numbers of the steps at which JAX lets the processes meet
            self.name = "SIGTERM" if multihost_utils.reached_preemption_sync_point(self._looks) else ""
        return self.name

    def __enter__(self) -> Self:
        if jax.process_count() > 1:
            require_no_handler()
        elif _in_main_thread():
            _entered.append(self)
            for number in SIGNALS:
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, _note):
                    _outside[number] = handler
                    signal.signal(number, _note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in _entered:
            _entered.remove(self)
        # A run may be closed by another thread than the one that began it: the next signal then finds no context.
        if not _entered and _in_main_thread():
            _restore()


_entered: list[StopSignals] = []
_outside: dict[int, Any] = {}
"""The contexts that note signals, of which a process has one set of handlers; and the handlers of before."""


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _restore() -> None:
    for number, handler in _outside.items():
        if signal.getsignal(number) is _note:  # else another has been installed meanwhile
            # None: a handler that was not installed from Python, and cannot be from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _outside.clear()


def _note(number: int, frame: FrameType | None) -> None:
    if not any(context.armed for context in _entered):
        _restore()
        if signal.getsignal(number) is _note:  # put back by somebody who had replaced it for a while
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.raise_signal(number)
        return
    again = number == signal.SIGINT and any(context.name for context in _entered)
    for context in _entered:
        context.name = context.name or signal.Signals(number).name
    if again:
        raise KeyboardInterrupt

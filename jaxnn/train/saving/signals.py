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

    Python runs handlers in the main thread only: entered in another one, it notes nothing. A signal that the process
    ignores stays ignored, and the handlers of before are back at the end.

    Of several processes, whichever gets the signal first, all stop at the same step: JAX's own handler, which
    `jax.distributed.initialize` installed, tells them.

    Attributes:
        name: "SIGTERM" or "SIGINT" once it came; "" before.

    Raises:
        ValueError: one of several processes has a handler of its own.
    """

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}
        self._armed, self._looks = False, 0

    def arm(self) -> None:
        """From here on signals are noted; before, as while a program is compiled, they do what they did outside."""
        self._armed = True

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
            return self
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A generator may be closed by another thread than the one that began it.
        if threading.current_thread() is threading.main_thread():
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not installed from Python, and cannot be from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            self._restore()
            signal.raise_signal(number)
            return
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name

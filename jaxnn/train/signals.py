"""SIGTERM and SIGINT as a wish to stop: training finishes its piece, saves, and ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A context in which the first SIGTERM or SIGINT is noted in `name`, and a second SIGINT interrupts at once.

    Python runs handlers in the main thread only: entered in another one, it notes nothing. A signal that the process
    ignores stays ignored, and the handlers of before are back at the end.

    Attributes:
        name: "SIGTERM" or "SIGINT" once it came; "" before.
    """

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
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
            for number, handler in self._before.items():
                # None: a handler that was not installed from Python, and cannot be from there.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name

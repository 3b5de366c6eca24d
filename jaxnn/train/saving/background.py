"""One piece of work at a time in a thread, such as the writing of a checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Background:
    """Work that goes on while its caller does; the next `wait` raises what it raised."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def start(self, work: Callable[[], Any]) -> None:
        """Begin; the work before must be done: `wait` for it."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._failed = error

        # Not a daemon: the interpreter waits for it, so that a script's last save is written.
        thread = threading.Thread(target=run)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:  # the interpreter is ending, and starts no thread
            run()

    def wait(self) -> None:
        """Until the work is done; raises what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

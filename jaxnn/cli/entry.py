"""The entry point of `jaxnn`, which handles Ctrl-C before any large import."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType


def main() -> int:
    """Run the command line; Ctrl-C ends it with one line and exit code 130, even during the imports."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where the shell ignores it
        signal.signal(signal.SIGINT, _end)
    from jaxnn.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    sys.unraisablehook = _interrupted_again
    return run()


def _end(number: int, frame: FrameType | None) -> None:
    """Exit at once: an exception would print a traceback, or be swallowed by the module being imported."""
    os.write(2, b"jaxnn: interrupted; nothing was kept\n")
    os._exit(130)


def _interrupted_again(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt again: Python drops exceptions raised in a callback of the garbage collector, such as JAX's."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # Not at once: exceptions are dropped where this function is called, too.
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)

"""The beginning of `jaxnn`, which imports nothing large before it knows what Ctrl-C means."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType


def main() -> int:
    """Run the command line; Ctrl-C ends it in one line with code 130, also in the seconds that the imports take."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _end)
    from jaxnn.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    sys.unraisablehook = _interrupted_again
    return run()


def _end(number: int, frame: FrameType | None) -> None:
    """End at once: an exception would be a traceback, or be lost in whatever module is being imported."""
    os.write(2, b"jaxnn: interrupted; nothing was kept\n")
    os._exit(130)


def _interrupted_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a callback of the garbage collector, such as JAX's: interrupt what runs next."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # Not at once: this function too is called where exceptions are dropped.
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)

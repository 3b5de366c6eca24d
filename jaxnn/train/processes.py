"""What the processes of one program do together: one acts, all know."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """The value of the first process, in all of them: clocks and folders may differ."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def by_first(what: str, action: Callable[[], T]) -> T | None:
    """What the first process returns, in that process; None in the others. If it raises, all raise."""
    found, error = None, None
    if is_first():
        try:
            found = action()
        except Exception as raised:
            error = raised
    failed = agreed(error is not None)
    if error is not None:
        raise error
    if failed:
        raise RuntimeError(f"fit: the first process could not {what}: its output says why.")
    return found


def together(what: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"jaxnn: {what}")


def require_no_handler() -> None:
    """Raise ValueError if SIGTERM has a handler of Python's: JAX's own must get it in several processes.

    `jax.distributed.initialize` installs one, which takes the place of any before it; one installed later takes its
    place, and then the processes are not told.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        name = getattr(handler, "__qualname__", repr(handler))
        raise ValueError(
            f"fit: SIGTERM has the handler {name}: in several processes the one of jax.distributed.initialize must get "
            "it, to stop all at one step. Remove it before that call, signal.signal(signal.SIGTERM, signal.SIG_DFL), "
            "and look at the `stopped` of the result instead."
        )

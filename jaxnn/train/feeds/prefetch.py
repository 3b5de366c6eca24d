"""Items made ahead of their use by a thread, such as batches that are read and copied to the devices."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import jax

from jaxnn.checks import require_function, require_positive_int

T = TypeVar("T")

PATIENCE = 0.1
"""Seconds after which a thread that waits for space looks whether it is still wanted."""

FAREWELL = 5.0
"""Seconds that the end waits for a thread which reads or copies; one that reads for longer is left behind."""


def prefetch(iterator: Iterable[Any], put: Callable[[Any], T] = jax.device_put, depth: int = 2) -> Generator[T]:
    """put(item) for each item of an iterator, up to `depth` of them ahead of the caller, in a thread.

    While a step runs on the device, the next batch is read on the host and copied.

    Args:
        iterator: of batches, or anything else; only the thread touches it.
        put: called in the thread with each item, such as `jax.device_put`, or `lambda batch: jax.device_put(batch,
            sharding)`.
        depth: items that wait at most, >= 1; each holds its memory.

    Returns:
        An iterator of the results, in order. It raises what the iterator or `put` raises, after the items before. Its
        `close()` ends the thread, and so does its going out of scope.

    Raises:
        TypeError: put is not a function, or iterator no iterable.
        ValueError: depth < 1.

    Example:
        >>> batches = ((i, i + 1) for i in range(3))
        >>> [int(sum(batch)) for batch in prefetch(batches)]
        [1, 3, 5]
    """
    require_function("prefetch", "put", put, "jax.device_put", optional=False)
    depth = require_positive_int("prefetch", "depth", depth)
    return _ahead(iter(iterator), put, depth)


def _ahead(items: Any, put: Callable[[Any], T], depth: int) -> Generator[T]:
    made: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    unwanted = threading.Event()
    wide = bool(jax.config.read("jax_enable_x64"))  # a setting of each thread, where a context set it

    def offer(what: str, value: Any) -> None:
        while not unwanted.is_set():
            try:
                return made.put((what, value), timeout=PATIENCE)
            except queue.Full:
                continue

    def work() -> None:
        try:
            with jax.enable_x64(wide):
                for item in items:
                    offer("item", put(item))
                    if unwanted.is_set():
                        return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    thread = threading.Thread(target=work, daemon=True)

    def end() -> None:
        unwanted.set()
        thread.join(FAREWELL)

    # The interpreter ends daemon threads wherever they are; one inside of a copy to a device would abort the process.
    atexit.register(end)
    thread.start()
    try:
        while True:
            what, value = made.get()
            if what == "error":
                raise value
            if what == "end":
                return
            yield value
    finally:
        atexit.unregister(end)
        end()

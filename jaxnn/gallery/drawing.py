"""Pictures drawn into a folder, by this process or by several."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from matplotlib.figure import Figure

from jaxnn import plots
from jaxnn.gallery.base import Picture

FEWEST = 4
"""Pictures for each process: a new one imports for some seconds before it draws."""

LEVEL = "--xla_backend_optimization_level"
"""The option of XLA that says how long to optimize: 0 to 3, its default."""


def drawn(pictures: Sequence[Picture], folder: Path, *, processes: int = 1) -> Iterator[Picture]:
    """Write NAME.png of each picture; yield each when its file is there, in any order if there are several processes.

    Args:
        pictures: with `draw` functions that pickle, such as those of a module, if there are several processes.
        folder: where the files go; it must exist.
        processes: at most; fewer, or this one alone, for few pictures.

    Raises:
        TypeError: a `draw` returns no Figure.
        BrokenProcessPool: a process ended while it drew.
        Exception: whatever a picture's `draw` raises, with its name as a note; those not begun are not drawn.

    Example:
        >>> from jaxnn.gallery.basics import PICTURES
        >>> folder = Path(__import__("tempfile").mkdtemp())
        >>> [picture.name for picture in drawn(PICTURES[:1], folder)], (folder / "activations.png").exists()
        (['activations'], True)
    """
    processes = min(processes, len(pictures) // FEWEST)
    if processes < 2:
        for picture in pictures:
            with _named(picture):
                _draw(picture, folder)
            yield picture
        return
    others = set(multiprocessing.active_children())
    # Spawned: a fork of a process with JAX's threads can hang. Ctrl-C goes to all; this process stops the others.
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        begun = {pool.submit(_draw, picture, folder): picture for picture in pictures}
        for future in concurrent.futures.as_completed(begun):
            with _named(begun[future]):
                future.result()
            yield begun[future]
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # files are written whole or not at all
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def brief_compilation() -> Iterator[None]:
    """Let XLA optimize less in processes that use a device first inside this context, and in those that they start.

    Most programs of the gallery run for a shorter time than XLA compiles them; at level 1 it compiles in two thirds of
    the time. XLA reads its options once, from the environment; an optimization level that stands there is kept.
    """
    before = os.environ.get("XLA_FLAGS")
    if LEVEL not in (before or ""):
        os.environ["XLA_FLAGS"] = f"{before or ''} {LEVEL}=1".lstrip()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = before


def _draw(picture: Picture, folder: Path) -> None:
    made = picture.draw()
    if not isinstance(made, Figure):
        raise TypeError(f"gallery: draw must return a matplotlib Figure, got {type(made).__name__}.")
    plots.save(made, folder / f"{picture.name}.png")


@contextlib.contextmanager
def _named(picture: Picture) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:  # of whichever pictures were under way
        error.add_note("a drawing process ended, perhaps for lack of memory: processes=1 shows at which picture")
        raise
    except Exception as error:
        error.add_note(f"raised by the picture {picture.name!r}")
        raise

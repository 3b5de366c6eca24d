"""When a run saves, what, and where it goes on: the checkpoints of a fit in its folder."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxnn import files
from jaxnn.checks import require_positive_int
from jaxnn.train.checkpoints import Checkpoints, Store
from jaxnn.train.identity import differences
from jaxnn.train.lock import FolderLock
from jaxnn.train.processes import agreed, by_first, is_first
from jaxnn.train.step import TrainState

SaveEvery: TypeAlias = int | float | datetime.timedelta
"""A number of steps (an int), or a time: seconds (a float) or a timedelta."""

Folder: TypeAlias = str | Path | Store
"""Where a run is saved: a folder of `.npz` checkpoints, or another store of checkpoints."""

PIECE_SECONDS = 1.0
"""How long the steps between two looks at the clock, and at signals, should take."""

SLOW_STEP = 0.02
"""Seconds of a step from which on single steps are run: their dispatch costs no more than a hundredth."""


class Saved(NamedTuple):
    """A run in the middle: all that it needs to go on.

    Attributes:
        ts: the state.
        report: of the steps so far in this epoch, each value (step,).
        best: the state that the run would return now, where that is not `ts`; else None.
        about: "epochs" that are complete, "step" in the one that is not, "steps" in all, "seconds" in this epoch,
            "history", "stream", and what `fit` adds.
    """

    ts: TrainState
    report: dict[str, np.ndarray]
    best: TrainState | None
    about: dict[str, Any]


class Saver:
    """The folder of one run: its lock, its checkpoints, and when the next one is due."""

    def __init__(
        self, folder: Folder, every: SaveEvery, keep: int, identity: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        if not isinstance(folder, Store) and not str(folder).strip():
            raise ValueError("fit: folder must name a folder, got an empty string. Pass None to save nothing.")
        self.steps, self.seconds = as_interval(every)
        self.identity, self._say = dict(identity), say if is_first() else _silent
        self.checkpoints: Store = folder if isinstance(folder, Store) else Checkpoints(folder, keep=keep)
        self._lock = FolderLock(self.checkpoints.folder, say)
        by_first("lock the folder", self._opened)
        self.saved_at = time.monotonic()
        self._piece, self._timed = 1, set[int]()

    def restore(self, like: TrainState) -> Saved | None:
        """The newest checkpoint; None if there is none yet.

        Raises:
            ValueError: it is of another run, or damaged.
        """
        step = agreed(max(self.checkpoints.steps(), default=-1))
        if step < 0:
            return None
        if step not in self.checkpoints.steps():
            raise ValueError(
                f"fit: the first process has a checkpoint of step {step} in {self.checkpoints.folder}, this one has "
                "not. The processes must share the folder."
            )
        whole = None
        with contextlib.suppress(ValueError):  # `checkpoints.restore` below says why
            whole = self.checkpoints.about(step)
        about = {} if whole is None else whole["about"]
        if whole is not None and (found := differences(about.get("run", {}), self.identity)):
            raise ValueError(
                f"fit: the folder {self.checkpoints.folder} holds another run: {'; '.join(found)}. Use another folder, "
                "or empty this one."
            )
        dtypes = {} if whole is None else whole["dtypes"]
        report = {
            name: jax.ShapeDtypeStruct((about["step"],), dtypes[f"report/{name}"]) for name in about.get("report", ())
        }
        best = like if about.get("has_best") else None
        tree, about = self.checkpoints.restore({"ts": like, "report": report, "best": best}, step)
        if whole is not None:
            self._tell_versions(whole, about)
        return Saved(TrainState(*tree["ts"]), jax.tree.map(np.asarray, tree["report"]), tree["best"], about)

    def length(self, done: int, left: int) -> int:
        """How many steps to run until the next look, of those left in the epoch, after `done` in all."""
        if self.steps:
            return min(self.steps - done % self.steps, left)
        return min(agreed(self._piece), left)

    def ran(self, count: int, seconds: float) -> None:
        """Learn from a piece how many steps the next may have. The first of each length includes compilation."""
        if count in self._timed and count == self._piece == 1 and (each := seconds / count) < SLOW_STEP:
            goal = min(PIECE_SECONDS, self.seconds / 4) / max(each, 1e-6)
            self._piece = 2 ** max(int(math.log2(max(goal, 1))), 0)
        self._timed.add(count)

    def due(self, done: int) -> bool:
        """Whether it is time for a save, after `done` steps in all."""
        if self.steps:
            return done % self.steps == 0
        return bool(agreed(time.monotonic() - self.saved_at >= self.seconds))

    def save(self, saved: Saved) -> None:
        """Write a checkpoint in the background."""
        about = saved.about | {
            "run": self.identity,
            "report": list(saved.report),
            "has_best": saved.best is not None,
            "devices": jax.device_count(),
        }
        tree = {"ts": saved.ts, "report": saved.report, "best": saved.best}
        self.checkpoints.save(saved.about["steps"], tree, about)
        self.saved_at = time.monotonic()

    def close(self) -> None:
        """Wait for the last file, and unlock the folder."""
        try:
            self.checkpoints.wait()
        finally:
            self._lock.release()

    def _tell_versions(self, whole: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Say where the run goes on, and what differs from where it was saved: rounding may."""
        now = {"jax": jax.__version__, "devices": jax.device_count()}
        then = {"jax": whole["versions"]["jax"], "devices": about["devices"]}
        told = ", ".join(f"{name} {then[name]} then, {now[name]} now" for name in now if now[name] != then[name])
        where = f"after {about['epochs']} epochs" + (f" and {about['step']} steps" if about["step"] else "")
        self._say(f"{self.checkpoints.folder}: goes on {where}{f' ({told})' if told else ''}")

    def _opened(self) -> None:
        """Lock the folder, and remove what a process that was killed while writing left."""
        files.make_folder(self.checkpoints.folder)
        self._lock.acquire()
        for part in self.checkpoints.folder.glob(".*.part"):
            part.unlink(missing_ok=True)


def as_interval(every: Any) -> tuple[int, float]:
    """(steps, seconds) of `save_every`, one of them 0; raises unless it is a positive number of steps or a time."""
    if isinstance(every, datetime.timedelta):
        every = every.total_seconds()
    if isinstance(every, float):
        if not (every > 0 and math.isfinite(every)):
            raise ValueError(
                f"fit: save_every must be > 0: steps (an int) or seconds (a float or a timedelta), got {every}."
            )
        return 0, every
    return require_positive_int("fit", "save_every", every), 0.0


def _silent(line: str) -> None:
    """Of several processes only the first speaks."""

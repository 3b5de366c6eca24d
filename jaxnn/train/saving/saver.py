"""When a run saves, what, and where it goes on: the checkpoints of a fit in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxnn import files
from jaxnn.checks import count_of
from jaxnn.train.checkpoints import Checkpoints, CheckpointStore
from jaxnn.train.processes import agreed, by_first, is_first
from jaxnn.train.progress import silent
from jaxnn.train.saving.identity import differences
from jaxnn.train.saving.lock import FolderLock
from jaxnn.train.saving.pace import Pace, SaveEvery
from jaxnn.train.step import TrainState

Folder: TypeAlias = str | Path | CheckpointStore
"""Where a run is saved: a folder of `.npz` checkpoints, or another store of checkpoints."""


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
    """The folder of one run: its lock, its checkpoints, and its `pace`, which tells when the next one is due."""

    def __init__(
        self, folder: Folder, every: SaveEvery, keep: int, identity: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        if not isinstance(folder, CheckpointStore) and not str(folder).strip():
            raise ValueError("fit: folder must name a folder, got an empty string. Pass None to save nothing.")
        self.pace = Pace("fit", every, agreed)
        self.identity, self.say = dict(identity), say if is_first() else silent
        self.checkpoints: CheckpointStore = (
            folder if isinstance(folder, CheckpointStore) else Checkpoints(folder, keep=keep)
        )
        self._lock = FolderLock(self.checkpoints.folder, say)
        by_first("lock the folder", self._opened)

    def restore(self, like: TrainState) -> Saved | None:
        """The newest checkpoint; None if there is none yet.

        Raises:
            ValueError: it is of another run, or damaged.
        """
        step = agreed(max(self.checkpoints.steps(), default=-1))
        if step < 0:
            self._require_no_other_kind()
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
        dtypes = about.get("report", {})
        report = {name: jax.ShapeDtypeStruct((about["step"],), dtype) for name, dtype in dtypes.items()}
        best = like if about.get("has_best") else None
        tree, about = self.checkpoints.restore({"ts": like, "report": report, "best": best}, step)
        if whole is not None:
            self._tell_versions(whole, about)
        return Saved(TrainState(*tree["ts"]), jax.tree.map(np.asarray, tree["report"]), tree["best"], about)

    def _require_no_other_kind(self) -> None:
        """Raise ValueError if the folder has checkpoints that this kind does not see: a run would begin anew."""
        folder = self.checkpoints.folder
        if isinstance(self.checkpoints, Checkpoints):
            found = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
            of, remedy = "orbax", "train.OrbaxCheckpoints(folder)"
        else:
            found, of, remedy = list(folder.glob("step-*.npz")), "the default kind", "the folder itself"
        if found:
            raise ValueError(f"fit: {min(found)} is a checkpoint of {of}: pass {remedy}, or use another folder.")

    def save(self, saved: Saved) -> None:
        """Write a checkpoint in the background; nothing in a process that was forked."""
        if not self._lock.is_of_this_process:
            return
        about = saved.about | {
            "run": self.identity,
            "report": {name: str(values.dtype) for name, values in saved.report.items()},
            "has_best": saved.best is not None,
            "devices": jax.device_count(),
        }
        tree = {"ts": saved.ts, "report": saved.report, "best": saved.best}
        self.checkpoints.save(saved.about["steps"], tree, about)
        self.pace.saved()

    def close(self) -> None:
        """Wait for the last file, and unlock the folder; nothing in a process that was forked."""
        if not self._lock.is_of_this_process:
            return
        try:
            self.checkpoints.wait()
        finally:
            self._lock.release()

    def _tell_versions(self, whole: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Say where the run goes on, and what differs from where it was saved: rounding may."""
        now = {"jax": jax.__version__, "devices": jax.device_count()}
        then = {"jax": whole["versions"]["jax"], "devices": about["devices"]}
        told = ", ".join(f"{name} {then[name]} then, {now[name]} now" for name in now if now[name] != then[name])
        where = f"after {count_of(about['epochs'], 'epoch')}"
        where += f" and {count_of(about['step'], 'step')}" if about["step"] else ""
        self.say(f"{self.checkpoints.folder}: goes on {where}{f' ({told})' if told else ''}")

    def _opened(self) -> None:
        """Lock the folder, and remove what a process that was killed while writing left."""
        files.make_folder(self.checkpoints.folder)
        self._lock.acquire()
        files.remove_parts(self.checkpoints.folder)

"""`jaxnn watch`: the epochs of a training in another process, as they end."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import tyro

from jaxnn import files
from jaxnn.cli.runs import CONFIG
from jaxnn.cli.training import CHECKPOINTS, how_to_go_on, read_metrics, require_resumable
from jaxnn.train.progress import Progress, say
from jaxnn.train.saving.lock import FolderLock

PAUSE = 0.5
"""Seconds between two looks."""


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """Show the epochs of a training that runs in another process, until it ends."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""


def watch(config: WatchConfig) -> None:
    """Show the records in a run folder as `jaxnn train` shows them, and those that come, while the folder is locked."""
    require_resumable(config.run)
    try:
        options = files.read_json(config.run / CONFIG)["options"]
        first, seeds, epochs = (int(options[name]) for name in ("seed", "seeds", "epochs"))
    except (KeyError, TypeError):
        raise ValueError(f"{config.run / CONFIG} is not of a training.") from None
    for seed in range(first, first + seeds):
        with Progress(epochs) as bar:
            while not _shown(config.run, seed, bar):
                time.sleep(PAUSE)
            if bar.done < epochs and (config.run / CHECKPOINTS).is_dir():
                say(f"seed {seed} stopped after {bar.done:.0f} of {epochs} epochs; {how_to_go_on(config.run)}")
                return


def _shown(run: Path, seed: int, bar: Progress) -> bool:
    """Show the new records of a seed; whether no more will come."""
    runs = FolderLock(run).is_held()  # looked at before the metrics, the last of which are written under the lock
    found = read_metrics(run)
    for record in found.get(seed, [])[int(bar.done) :]:
        bar.show(record)
    return not runs or any(other > seed for other in found)

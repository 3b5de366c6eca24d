"""What trainings of images and of text share: a run folder in which they go on, devices, logs.

| in the run folder | while it trains | at the end |
|---|---|---|
| config.json | all options | |
| metrics.jsonl | a line for each seed and epoch, as they end | |
| checkpoints/seed-N | where seed N is | deleted when its result is written |
| params.npz | the best seed that has ended | the best seed |
| result.json | the seeds that have ended | all seeds |

The parameters of a seed are written before its result, and its checkpoints deleted after: a seed in result.json is
done, any other one goes on from its checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnn import files
from jaxnn.checks import count_of
from jaxnn.cli.runs import CONFIG, METRICS, PARAMS, kept, run_folder, tell_kept, wide_console
from jaxnn.cli.stopping import STOPS
from jaxnn.cli.words import LOGS
from jaxnn.train import DivergedError, checkpoints, logging
from jaxnn.train.progress import say
from jaxnn.train.saving.lock import FolderLock

CHECKPOINTS, RESULT = "checkpoints", "result.json"
"""Checkpoints by seed while it trains; the results of the seeds that have ended."""

FREE = ("devices", "save_every", "log", "folder", "text")
"""Options that a resumed run may change: none of them changes its results but by rounding."""

SHOWN = ("epoch", "examples_per_second")
"""What every record has, and a progress bar shows."""

Ended = TypeVar("Ended")

Record: TypeAlias = dict[str, float]


@contextlib.contextmanager
def training_folder(
    out: Path | None, name: str, resume: Path | None, write_config: Callable[[Path], None], command: str = "train"
) -> Iterator[Path]:
    """The folder of a command that trains: a new one with its config.json, or the one to resume; locked.

    The message of an error or interruption says what is in it and how to go on.

    Args:
        out, name: as in `new_folder`.
        resume: the folder of a run that the command began; None for a new one.
        write_config: writes config.json of a new one.
        command: what goes on: `jaxnn COMMAND --resume FOLDER`.
    """
    with run_folder(out, name, worthless=[CONFIG]) if resume is None else contextlib.nullcontext(resume) as folder:
        try:
            with _locked(folder):
                if resume is None:
                    write_config(folder)
                yield folder
        except BaseException as error:
            _remove_unused(folder / CHECKPOINTS)
            if (folder / CHECKPOINTS).is_dir() and not isinstance(error, DivergedError):  # which would diverge again
                tell_kept(error, f"{kept(folder)}; {how_to_go_on(folder, command)}")
            raise


def how_to_go_on(folder: Path, command: str = "train") -> str:
    """The words that resume a run."""
    return f"go on with: jaxnn {command} --resume {shlex.quote(str(folder))}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FolderLock(folder, say)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_unused(folder: Path) -> None:
    """Remove folders of checkpoints in which none is."""
    if not any(folder.rglob("*.npz")):
        shutil.rmtree(folder, ignore_errors=True)


def require_resumable(folder: Path, command: str = "train") -> None:
    """Raise unless the command began a run there that can go on, or has ended."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is not a run: it has no {CONFIG}. Begin one with: jaxnn {command}")
    if (folder / PARAMS).is_file() and not any((folder / name).exists() for name in (RESULT, CHECKPOINTS)):
        raise FileNotFoundError(
            f"{folder} has parameters, but neither {RESULT} nor {CHECKPOINTS}: where its training was is not known."
        )


def stop(folder: Path, seed: int, done: int, epochs: int, signal: str) -> None:
    """End the command, whose training a signal ended after a save."""
    raise STOPS[signal](
        f"{folder} is saved, with {done:,} of {count_of(epochs, 'epoch')} of seed {seed} done; {how_to_go_on(folder)}"
    )


def checkpoints_of(folder: Path, seed: int) -> Path:
    """Where the checkpoints of a seed are while it trains."""
    return folder / CHECKPOINTS / f"seed-{seed}"


def remove_checkpoints(folder: Path, seed: int) -> None:
    """Remove the checkpoints of a seed whose result is written."""
    shutil.rmtree(checkpoints_of(folder, seed), ignore_errors=True)
    with contextlib.suppress(OSError):  # those of another seed are there
        (folder / CHECKPOINTS).rmdir()


def tell_ended(seed: int, cells: Mapping[str, str], seconds: float) -> None:
    """Print the results of one of several seeds."""
    told = ", ".join(f"{name} {cell}" for name, cell in cells.items())
    wide_console().print(f"seed {seed}: {told}, {seconds:.1f} s", highlight=False, soft_wrap=True)


def saved_history(folder: Path, seed: int) -> list[Record]:
    """The records in the newest checkpoint of a seed."""
    there = checkpoints_of(folder, seed)
    steps = checkpoints.Checkpoints(there).steps() if there.is_dir() else []
    with contextlib.suppress(ValueError):  # damaged: `fit` says so, and what can be done
        if steps:
            path = checkpoints.Checkpoints(there).path(steps[-1])
            return list(checkpoints.read_about(path)["about"]["history"])
    return []


def ended(folder: Path, seeds: Sequence[int], outcome: Callable[..., Ended]) -> dict[int, Ended]:
    """The seeds that have ended, by result.json, and their histories, by metrics.jsonl.

    Args:
        outcome: a dataclass, of the entries of a row and `history`.
    """
    if not (folder / RESULT).is_file():
        return {}
    rows, histories = files.read_json(folder / RESULT), read_metrics(folder)
    try:
        found = {row["seed"]: outcome(**row, history=histories[row["seed"]]) for row in rows}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / RESULT} and {METRICS} are not those of a run ({error}).") from None
    if not set(found) <= set(seeds):
        raise ValueError(f"{folder / RESULT} has results of other seeds than {CONFIG}.")
    if len(found) == len(seeds):
        wide_console().print(f"{folder} has ended: nothing is left to train", highlight=False, soft_wrap=True)
    return found


def read_metrics(folder: Path) -> dict[int, list[Record]]:
    """The records in metrics.jsonl by seed; a last line that is not whole is left out."""
    path = folder / METRICS
    found: dict[int, list[Record]] = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if line.endswith(b"\n"):
            try:
                seed, record = _record(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                told = line[:80].decode(errors="replace").strip()
                raise ValueError(
                    f"{path} has a line that is no record: {told}. Expected an object of numbers with seed, "
                    f"{' and '.join(SHOWN)}; delete the line."
                ) from None
            found.setdefault(seed, []).append(record)
    return found


def _record(line: bytes) -> tuple[int, Record]:
    """The seed and the record of a line; raises if it is none."""
    record = json.loads(line.decode())
    seed = record.pop("seed")
    if type(seed) is not int or not all(type(value) in (int, float) for value in record.values()):
        raise ValueError
    if lacking := [name for name in SHOWN if name not in record]:
        raise KeyError(*lacking)
    return seed, record


def write_metrics(folder: Path, histories: Mapping[int, Sequence[Record]]) -> None:
    """Write metrics.jsonl anew: records after a checkpoint are of epochs that are repeated."""
    lines = [json.dumps({"seed": seed, **record}) for seed, history in histories.items() for record in history]
    if lines or (folder / METRICS).is_file():
        files.write_text(folder / METRICS, "".join(f"{line}\n" for line in lines))


def mesh_of(devices: int) -> Mesh | None:
    """A mesh of the first devices of this process; None for one."""
    there = jax.local_devices()
    if devices > len(there):
        raise ValueError(f"train: --devices {devices} exceeds the {count_of(len(there), 'device')} here.")
    if devices == 1:
        return None
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=there[:devices])


def replicated(values: Any, mesh: Mesh | None) -> Any:
    """Arrays on the devices once, for all seeds."""
    if mesh is None:
        return jax.device_put(values)
    return jax.device_put(values, NamedSharding(mesh, PartitionSpec()))


def open_log(kind: LOGS, folder: Path, seed: int) -> contextlib.AbstractContextManager[Callable[..., None]]:
    """Where `--log` writes the records of a seed, a callback."""
    if kind == "none":
        return contextlib.nullcontext(lambda record, ts: None)
    if kind == "tensorboard":
        return logging.tensorboard(folder / kind / f"seed-{seed}")
    options = files.read_json(folder / CONFIG)
    name = f"{folder.resolve().name}-{options.get('id', 'run')}-seed-{seed}"
    settings = {"project": "jaxnn", "name": name, "config": options["options"]}
    if kind == "trackio":
        return logging.trackio(**settings)
    return logging.wandb(**settings, id=name, dir=str(folder))


def require_log(kind: LOGS) -> None:
    """Raise ValueError, before anything is trained, if the package that a log needs is not installed."""
    try:
        if kind != "none":
            logging.library(kind)
    except ImportError as error:
        raise ValueError(f"train: --log {error}") from None

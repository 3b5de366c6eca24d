"""Run folders: options, metrics and final parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import reprlib
import secrets
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import rich.console

import jaxnn
from jaxnn import files, npz, tree
from jaxnn.checks import count_of, nearest_name
from jaxnn.cli.config import TrainConfig, build_network
from jaxnn.layers import Layer
from jaxnn.types import Params, State

CONFIG, METRICS, PARAMS = "config.json", "metrics.jsonl", "params.npz"
"""Files of a run folder: options, one line of metrics per epoch, final parameters."""

SHOWN_FAULTS, SHOWN_FILES = 5, 10

C = TypeVar("C")

WIDE = 1000
"""Columns of an output that is not a terminal."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its configuration, its network with parameters, and the names of its classes."""

    config: TrainConfig
    net: Layer
    params: Params
    state: State
    example: tuple[int, ...]
    classes: tuple[str, ...]


def new_folder(out: Path | None, name: str) -> Path:
    """Create the run folder: `out`, which must be new or empty; for None, the first free runs/NAME[-n]."""
    if out is not None:
        there = out.resolve()  # "new/../kept" does not exist before "new" does
        if there.exists() and (not there.is_dir() or any(there.iterdir())):
            raise FileExistsError(f"--out {out} exists already and is not an empty folder; name a new one.")
        return files.make_folder(out)
    files.make_folder("runs")
    for n in range(1, 10_000):
        folder = Path("runs") / (name + (f"-{n}" if n > 1 else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError("runs/ has no free name; name a folder with --out.")


@contextlib.contextmanager
def run_folder(out: Path | None, name: str, *, worthless: Sequence[str] = ()) -> Iterator[Path]:
    """`new_folder` as a context: the message of an error or interruption also lists the files in the folder.

    Args:
        out, name: as in `new_folder`.
        worthless: names of files not worth keeping alone: if an error or interruption leaves no others, they are
            deleted, and so is the folder if this call created it.
    """
    there = out is not None and out.is_dir()
    folder = new_folder(out, name)
    try:
        yield folder
    except BaseException as error:
        with contextlib.suppress(OSError):
            if {path.name for path in folder.iterdir()} <= set(worthless):
                for path in folder.iterdir():
                    path.unlink()
                if not there:
                    folder.rmdir()
        tell_kept(error, kept(folder))


@contextlib.contextmanager
def telling_kept(folder: Path) -> Iterator[None]:
    """A context in which messages of errors also list the files in the folder; an empty new folder is deleted."""
    there = folder.exists()
    try:
        yield
    except BaseException as error:
        if not there:
            _remove_empty(folder)
        tell_kept(error, kept(folder))


def _remove_empty(folder: Path) -> None:
    """Remove the empty folders in a folder, and itself if empty."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(path)


def require_own_folder(folder: Path, mark: str, within: str) -> None:
    """Raise FileExistsError unless the folder is new, empty, or this command's: with `within` in its file `mark`;
    NotADirectoryError for a file."""
    there = folder.resolve()
    if not there.exists() or (there.is_dir() and not any(there.iterdir())):
        return
    if there.is_dir() and (there / mark).is_file() and within in _beginning(there / mark):
        return
    if there.is_file():
        raise NotADirectoryError(f"--out {folder} is a file; name a folder.")
    raise FileExistsError(
        f"--out {folder} exists already and has other contents (no {mark} of this command); name a new folder, or "
        "write into it with --force."
    )


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(10_000)


def tell_kept(error: BaseException, told: str) -> NoReturn:
    """Raise an error again, with the note `told` if anything was kept or it is an OSError.

    A KeyboardInterrupt is raised anew, with its own text or else `told`.
    """
    if isinstance(error, KeyboardInterrupt):
        raise type(error)(told if not error.args else " ".join(map(str, error.args))) from None
    if isinstance(error, OSError) or not told.startswith("nothing"):
        error.add_note(told)
    raise error


def kept(folder: Path) -> str:
    """The contents of a folder, in words."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if len(names) > SHOWN_FILES:
        return f"{folder} keeps {count_of(len(names), 'file')}"
    if not names:
        return "nothing was kept"
    lines = (folder / METRICS).read_bytes().count(b"\n") if METRICS in names else 0
    told = (f"{name} ({count_of(lines, 'line')})" if name == METRICS else name for name in names)
    return f"{folder} keeps {', '.join(told)}"


def write_config(folder: Path, config: TrainConfig, example: tuple[int, ...], classes: tuple[str, ...]) -> None:
    """Write config.json: every option, the shape of one example, the names of the classes, and the versions."""
    write_options(folder, config, example=example, classes=classes)


def wide_console() -> rich.console.Console:
    """The console for tables: as wide as the terminal, or wide enough for any table where there is none."""
    return rich.console.Console(width=None if sys.stdout.isatty() else WIDE)


def write_options(folder: Path, config: Any, **more: Any) -> None:
    """Write config.json: every option of a configuration (a dataclass), `more`, the versions, and an id of this run."""
    files.write_json(folder / CONFIG, options_and_versions(config, **more) | {"id": secrets.token_hex(4)})


def options_and_versions(config: Any, **more: Any) -> dict[str, Any]:
    """The contents of config.json: options of a configuration (a dataclass), `more`, and the versions."""
    options = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(config).items()}
    versions = {"jaxnn": jaxnn.__version__, "jax": jax.__version__, "numpy": np.__version__}
    return {"options": options, **more, "versions": versions | {"device": jax.devices()[0].device_kind}}


def append_metrics(folder: Path, record: Mapping[str, Any]) -> None:
    """Append a line to metrics.jsonl, unbuffered, so that an interrupted run keeps its metrics."""
    files.append_line(folder / METRICS, json.dumps(dict(record)))


def write_params(folder: Path, params: Params, state: State) -> None:
    """Write params.npz: every array under its path, e.g. "params/1/w" or "state/2/mean"."""
    files.write_npz(folder / PARAMS, {name: np.asarray(x) for name, x in _named(params, state).items()})


def read_run(folder: Path) -> Run:
    """Read a run folder of any version since 0.1; every array is checked against the network of the configuration.

    Names, dtypes and shapes are compared with the network that the configuration describes before any value is read, so
    that neither a damaged nor a forged file fills the memory.

    Raises:
        FileNotFoundError: the folder lacks config.json or params.npz.
        ValueError: config.json is not a run's configuration, or parameters are missing, unexpected, of another shape or
            dtype, damaged, NaN or infinite.
    """
    for name in (CONFIG, PARAMS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a finished run: it has no {name}. Make one with: jaxnn train")
    config, example, classes = read_config(folder / CONFIG)
    net = build_network(config, example, len(classes))
    try:
        shapes = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{folder / CONFIG} describes an invalid network: {error}") from None
    params, state = read_params(folder, shapes)
    return Run(config, net, params, state, example, classes)


def read_params(folder: Path, shapes: tuple[Params, State]) -> tuple[Params, State]:
    """params.npz as pytrees like `shapes`; ValueError unless all arrays fit them and are finite."""
    stored = npz.read_npz(folder / PARAMS, check=lambda headers: _require_fit(folder, _named(*shapes), headers))
    return _filled(folder, shapes, stored)


def read_config(path: Path) -> tuple[TrainConfig, tuple[int, ...], tuple[str, ...]]:
    """The options of a run, the shape of one example and the names of the classes; ValueError unless all are valid."""
    whole = files.read_json(path)
    try:
        if not isinstance(whole, dict) or not {"options", "example", "classes"} <= set(whole):
            raise ValueError("it must hold options, example and classes")
        options, example, classes = (whole[name] for name in ("options", "example", "classes"))
        if not (_fits(example, tuple[int, ...]) and 1 <= len(example) <= 4 and all(0 < n < 1 << 31 for n in example)):
            raise ValueError(
                f"example must be the shape of one example, such as [8, 8, 1], got {reprlib.repr(example)}"
            )
        if not (_fits(classes, tuple[str, ...]) and classes):
            raise ValueError(f"classes must be a list of names, got {reprlib.repr(classes)}")
        return read_options(options, TrainConfig), tuple(example), tuple(classes)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{path} is not the configuration of a run: {error}") from None


def read_options(options: Mapping[str, Any], kind: type[C]) -> C:
    """The configuration (a dataclass) with these options; those missing in an older version get their defaults."""
    if not isinstance(options, Mapping):
        raise ValueError(f"options must be an object, got {reprlib.repr(options)}")
    hints = typing.get_type_hints(kind)
    for name, value in options.items():
        if name not in hints:
            raise ValueError(f"there is no option {reprlib.repr(name)}{nearest_name(name[:100], hints)}")
        if not _fits(value, hints[name]):
            raise ValueError(f"option {name} must be {_spelt(hints[name])}, got {reprlib.repr(value)}")
    return kind(**{name: _restored(value, hints[name]) for name, value in options.items()})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has a type."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and value in arguments
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(each, arguments[0]) for each in value)
    if arguments:
        return any(_fits(value, each) for each in arguments)
    kinds = {float: (float, int), Path: (str,)}.get(hint, (hint,))
    return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))


def _spelt(hint: Any) -> str:
    return getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint).replace("typing.", "")


def _restored(value: Any, hint: Any) -> Any:
    """A value from JSON as the type of its field: JSON has no tuples or paths, and writes 1.0 as 1."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in (hint, *typing.get_args(hint)):
        return Path(value)
    return float(value) if isinstance(value, int) and float in (hint, *typing.get_args(hint)) else value


def _require_fit(folder: Path, expected: Mapping[str, Any], headers: Mapping[str, npz.ArrayHeader]) -> None:
    """Raise ValueError unless the arrays in the file are those of the network."""
    faults = [f"{name} is missing" for name in _without(expected, headers)]
    faults += [f"{name} is not of this network" for name in _without(headers, expected)]
    for name, leaf in expected.items():
        if name in headers and headers[name].shape != leaf.shape:
            faults.append(f"{name} has shape {headers[name].shape}, expected {leaf.shape}")
        elif name in headers and headers[name].dtype.newbyteorder("=") != leaf.dtype:
            faults.append(f"{name} has dtype {headers[name].dtype.name}, expected {leaf.dtype.name}")
    if faults:
        told = "; ".join(faults[:SHOWN_FAULTS]) + (
            f"; and {len(faults) - SHOWN_FAULTS} more" * (len(faults) > SHOWN_FAULTS)
        )
        raise ValueError(f"{folder / PARAMS} does not fit {folder / CONFIG}: {told}.")


def _named(params: Params, state: State) -> dict[str, Any]:
    return tree.named_leaves({"params": params, "state": state})


def _filled(folder: Path, shapes: tuple[Params, State], stored: Mapping[str, np.ndarray]) -> tuple[Params, State]:
    """Pytrees like `shapes` with the stored arrays; raises unless all are finite."""
    for name, values in stored.items():
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(
                f"{folder / PARAMS}: {name} has {bad} of {values.size} entries that are NaN or infinite. Train again."
            )
    leaves = [jnp.asarray(stored[name]) for name in _named(*shapes)]
    whole = {"params": shapes[0], "state": shapes[1]}
    filled = jax.tree.unflatten(jax.tree.structure(whole), leaves)
    return filled["params"], filled["state"]


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    there = set(others)
    return [name for name in names if name not in there]

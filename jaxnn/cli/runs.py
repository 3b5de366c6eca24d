"""A run folder: what was asked for, what happened, and the parameters that came of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console

from jaxnn import tree
from jaxnn.cli.config import TrainConfig, build_network
from jaxnn.layers import Layer
from jaxnn.types import Params, State


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, read back: its configuration, its network with parameters, and what its outputs mean."""

    config: TrainConfig
    net: Layer
    params: Params
    state: State
    example: tuple[int, ...]
    classes: tuple[str, ...]


def new_folder(out: Path | None, name: str) -> Path:
    """Make the run folder: `out`, which must be new or empty, or else the first free runs/NAME[-n]."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(f"--out {out} exists already and is not an empty folder; name a new one.")
        out.mkdir(parents=True, exist_ok=True)
        return out
    for n in range(1, 10_000):
        folder = Path("runs") / (name + (f"-{n}" if n > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError("runs/ is full; name a folder with --out.")


def write_config(folder: Path, config: TrainConfig, example: tuple[int, ...], classes: tuple[str, ...]) -> None:
    """config.json: every option, the shape of one example, the names of the classes, and the versions."""
    write_options(folder, config, example=example, classes=classes)


def wide_console() -> rich.console.Console:
    """Where tables are printed: as wide as the terminal, or wide enough for any where the output is none."""
    console = rich.console.Console()
    return console if console.is_terminal else rich.console.Console(width=150)


def write_options(folder: Path, config: Any, **more: Any) -> None:
    """config.json: every option of a configuration (a dataclass), more besides, and the versions."""
    (folder / "config.json").write_text(json.dumps(options_and_versions(config, **more), indent=2) + "\n")


def options_and_versions(config: Any, **more: Any) -> dict[str, Any]:
    """What is written of a configuration (a dataclass): its options, more besides, and the versions."""
    options = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(config).items()}
    versions = {"jax": jax.__version__, "numpy": np.__version__, "device": jax.devices()[0].device_kind}
    return {"options": options, **more, "versions": versions}


def append_metrics(folder: Path, record: Mapping[str, Any]) -> None:
    """One line of metrics.jsonl, written at once, so that an interrupted run keeps what it has measured."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(dict(record)) + "\n")


def write_params(folder: Path, params: Params, state: State) -> None:
    """params.npz: every array under its path, "params/1/w" or "state/2/mean"."""
    arrays: dict[str, Any] = {name: np.asarray(x) for name, x in _named(params, state).items()}
    np.savez(folder / "params.npz", **arrays)


def read_run(folder: Path) -> Run:
    """A run folder read back; every array is checked against the network that the configuration describes.

    Raises:
        FileNotFoundError: the folder lacks config.json or params.npz.
        ValueError: the file is not a run's configuration, or parameters are missing, left over or of another shape.
    """
    for name in ("config.json", "params.npz"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a finished run: it has no {name}. Make one with: jaxnn train")
    try:
        whole = json.loads((folder / "config.json").read_text())
        options, example, classes = whole["options"], tuple(whole["example"]), tuple(whole["classes"])
        config = TrainConfig(**{name: _restored(value) for name, value in options.items()})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is not the configuration of a run: {error}") from None
    net = build_network(config, example, len(classes))
    shapes = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    with np.load(folder / "params.npz") as stored:
        params, state = _filled(folder, shapes, dict(stored))
    return Run(config, net, params, state, example, classes)


def _restored(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _named(params: Params, state: State) -> dict[str, Any]:
    return tree.named_leaves({"params": params, "state": state})


def _filled(folder: Path, shapes: tuple[Params, State], stored: dict[str, np.ndarray]) -> tuple[Params, State]:
    """Trees like `shapes` holding the stored arrays."""
    expected = _named(*shapes)
    faults = [f"{name} is missing" for name in _without(expected, stored)]
    faults += [f"{name} is not of this network" for name in _without(stored, expected)]
    faults += [
        f"{name} has shape {stored[name].shape}, expected {leaf.shape}"
        for name, leaf in expected.items()
        if name in stored and stored[name].shape != leaf.shape
    ]
    if faults:
        raise ValueError(f"{folder / 'params.npz'} does not fit {folder / 'config.json'}: {'; '.join(faults)}.")
    leaves = [jnp.asarray(stored[name]) for name in expected]
    whole = {"params": shapes[0], "state": shapes[1]}
    filled = jax.tree.unflatten(jax.tree.structure(whole), leaves)
    return filled["params"], filled["state"]


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    return [name for name in names if name not in set(others)]

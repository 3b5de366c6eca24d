"""`jaxnn train`: from a configuration to a run folder and a table."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table

from jaxnn import data, files, metrics, optim, plots, tree
from jaxnn.activations import softmax
from jaxnn.cli import config as build
from jaxnn.cli import rules
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.precision import of_scaled
from jaxnn.cli.runs import append_metrics, read_params, wide_console, write_config, write_params
from jaxnn.cli.stopping import STOPS
from jaxnn.cli.training import (
    RESULT,
    checkpoints_of,
    ended,
    mesh_of,
    open_log,
    remove_checkpoints,
    replicated,
    require_log,
    saved_history,
    stop,
    tell_ended,
    training_folder,
    write_metrics,
)
from jaxnn.cli.words import save_interval
from jaxnn.layers import Layer
from jaxnn.train import EarlyStopping, FitResult, TrainState, evaluate, fit, make_outputs
from jaxnn.types import Array, Loss, Params, State


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One seed's run: errors as fractions, the wall-clock seconds of its fit, the median examples/s of its epochs.

    The first epoch, which compiles, does not count for the examples/s, if there are others. The first seed's seconds
    include compilation; of the part before a resumption, those of its epochs count. The validation error is None where
    the validation split was used for training. The parameters are those of `epoch`; `stopped` is the rule that ended
    training.
    """

    seed: int
    history: list[dict[str, float]]
    train_error: float
    validation_error: float | None
    test_error: float
    seconds: float
    examples_per_second: float
    epoch: int
    stopped: str


def train(config: TrainConfig, *, resume: Path | None = None, progress: bool = True) -> tuple[Path, list[Outcome]]:
    """Train as configured, write the run folder, print the table; return the folder and the outcome of each seed.

    The folder holds the parameters of the seed with the least validation error, of the first seed if `final`.
    Early stopping (`patience`) and the metrics shown during training use the validation split; the test set is
    evaluated once per seed, at the end. In a folder to `resume` only what is missing is trained.
    """
    if resume is None and (unused := build.unused_options(config)):
        wide_console().print(f"without effect here: {', '.join(unused)}", highlight=False, soft_wrap=True)
    require_log(config.log)
    mesh = mesh_of(config.devices)
    splits = data.load(config.data, folder=config.folder)
    if config.final:
        splits = splits._replace(train=_joined(splits.train, splits.validation))
    example, classes = splits.train.x.shape[1:], splits.train.classes
    if config.batch_size > len(splits.train):
        raise ValueError(
            f"train: batch_size {config.batch_size} exceeds the {len(splits.train)} training examples of {config.data}."
        )
    net = build.build_network(config, example, len(classes))
    shapes = _require_possible(config, net, example, len(splits.train))
    begin = functools.partial(write_config, config=config, example=example, classes=classes)
    with training_folder(config.out, f"{config.data}-{config.model}", resume, begin) as folder:
        outcomes = _run_all(config, net, replicated(splits, mesh), folder, mesh, progress)
        best = _best(outcomes)
        params, state = read_params(folder, shapes)
        _draw(folder, config, outcomes, best, splits.test, make_outputs(net)(params, state, jnp.asarray(splits.test.x)))
        print_table(config, tree.size(params), outcomes, folder)
    return folder, outcomes


def _best(outcomes: list[Outcome]) -> Outcome:
    """The outcome with the least validation error; the first if there is none."""
    return min(outcomes, key=lambda outcome: outcome.validation_error or 0.0)


def _require_possible(config: TrainConfig, net: Layer, example: tuple[int, ...], examples: int) -> tuple[Params, State]:
    """Raise before a folder is created if network and rule do not match, or training does not fit into memory.

    Returns:
        The shapes of parameters and running statistics.
    """
    params, state = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    opt = build.build_optimizer(config, config.epochs * (examples // config.batch_size))
    jax.eval_shape(opt.init, params)
    # Parameters, gradients and updates at least, in single precision.
    need, there = 12 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)), _memory()
    if need > there:
        raise ValueError(
            f"train: the network has {need // 12:,} parameters; training takes more than {need / 2**30:,.0f} GiB, got "
            f"{there / 2**30:,.0f}. Use fewer units by --hidden or --channels."
        )
    return params, state


def _memory() -> int:
    """Memory of the device in bytes, or of this machine where the device does not report it."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return int(limit) if limit else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _run_all(
    config: TrainConfig, net: Layer, splits: data.Splits, folder: Path, mesh: jax.sharding.Mesh | None, progress: bool
) -> list[Outcome]:
    """The outcomes of all seeds: those that the folder has, and one fit for each other; the program is compiled once.

    Each is written as it ends.
    """
    steps = config.epochs * (len(splits.train) // config.batch_size)
    loss, opt = build.build_loss(config), build.build_optimizer(config, steps)
    settings: dict[str, Any] = {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "validation": None if config.final else (splits.validation.x, splits.validation.y),
        "metrics": None if config.final else {"error": metrics.error_rate},
        "regularizer": build.build_regularizer(config),
        "value_and_grad": build.build_value_and_grad(config, net),
        "augment": build.build_augmentation(config),
        "stopping": () if config.patience is None else (EarlyStopping("validation_error", config.patience),),
        "evaluated_at": of_scaled(config.precision, rules.evaluated_at(config.optimizer)),
        "save_every": save_interval(config.save_every),
        "mesh": mesh,
        "progress": progress,
    }
    seeds = range(config.seed, config.seed + config.seeds)
    outcomes: list[Outcome] = []
    there = ended(folder, seeds, Outcome)
    histories = {seed: there[seed].history if seed in there else saved_history(folder, seed) for seed in seeds}
    write_metrics(folder, histories)
    for seed in seeds:
        if seed in there:
            outcomes.append(there[seed])
            remove_checkpoints(folder, seed)
            continue
        began = time.perf_counter() - sum(record["seconds"] for record in histories[seed])
        result = _fit(config, net, loss, opt, splits, seed, folder, settings)
        seconds = time.perf_counter() - began
        if evaluated_at := settings["evaluated_at"]:
            result = result._replace(params=evaluated_at(result.opt_state, result.params))
        outcome = _outcome(seed, net, result, splits, seconds, held_out=not config.final)
        outcomes.append(outcome)
        if _best(outcomes) is outcome:
            write_params(folder, result.params, result.state)
        write_results(folder, outcomes)
        remove_checkpoints(folder, seed)
        if config.seeds > 1:
            tell_ended(seed, {name: _percent([error]) for name, error in _errors(outcome).items()}, seconds)
    return outcomes


def _fit(
    config: TrainConfig,
    net: Layer,
    loss: Loss,
    opt: optim.Optimizer,
    splits: data.Splits,
    seed: int,
    folder: Path,
    settings: dict[str, Any],
) -> FitResult:
    """One seed to its end, from where it is, its records written as they come."""
    with open_log(config.log, folder, seed) as log:

        def note(record: Mapping[str, float], ts: TrainState) -> None:
            append_metrics(folder, {"seed": seed, **record})
            log(record, ts)

        result = fit(
            net,
            loss,
            opt,
            (splits.train.x, splits.train.y),
            key=jax.random.key(seed),
            folder=checkpoints_of(folder, seed),
            on_epoch=note,
            **settings,
        )
    if result.stopped in STOPS:
        stop(folder, seed, len(result.history), config.epochs, result.stopped)
    return result


def _errors(outcome: Outcome) -> dict[str, float | None]:
    return {
        "train error": outcome.train_error,
        "validation error": outcome.validation_error,
        "test error": outcome.test_error,
    }


def _joined(a: data.Dataset, b: data.Dataset) -> data.Dataset:
    """Two sets as one."""
    return dataclasses.replace(a, x=np.concatenate([a.x, b.x]), y=np.concatenate([a.y, b.y]))


def _outcome(
    seed: int, net: Layer, result: FitResult, splits: data.Splits, seconds: float, *, held_out: bool
) -> Outcome:
    """The errors on the three splits, and the speed of the epochs after the first, which compiles."""

    def error(part: data.Dataset) -> float:
        return evaluate(net, result.params, result.state, part.x, part.y, {"error": metrics.error_rate})["error"]

    later = result.history[1:] or result.history
    speed = statistics.median(record["examples_per_second"] for record in later)
    validation_error = error(splits.validation) if held_out else None
    errors = error(splits.train), validation_error, error(splits.test)
    return Outcome(seed, result.history, *errors, seconds, speed, result.epoch, result.stopped)


def _draw(
    folder: Path, config: TrainConfig, outcomes: list[Outcome], best: Outcome, test: data.Dataset, logits: Array
) -> None:
    """Write curves.png, confusion.png and mistakes.png, the last two from the best seed's logits of the test set."""
    name = f"{config.data}, {config.model}"
    which = f"{name}, seed {best.seed}" if len(outcomes) > 1 else name
    histories = [outcome.history for outcome in outcomes]
    plots.save(plots.curves(histories, title=f"Learning curves: {name}"), folder / "curves.png")
    matrix = np.asarray(metrics.confusion_matrix(logits, jnp.asarray(test.y), classes=len(test.classes)))
    plots.save(plots.confusion(matrix, test.classes, title=f"Test set: {which}"), folder / "confusion.png")
    probabilities = np.asarray(softmax(logits))
    figure = plots.mistakes(test.x, test.y, probabilities, test.classes, title=f"Mistakes on the test set ({which})")
    plots.save(figure, folder / "mistakes.png")


def write_results(folder: Path, outcomes: list[Outcome]) -> None:
    """Write result.json: the outcome of each seed, errors as fractions, times in seconds."""
    rows = [{name: value for name, value in vars(o).items() if name != "history"} for o in outcomes]
    files.write_json(folder / RESULT, rows)


def print_table(config: TrainConfig, parameters: int, outcomes: list[Outcome], folder: Path) -> None:
    """Print the results: one column per metric, mean and standard deviation over several seeds."""
    table = rich.table.Table(title=f"{config.data}, {config.model}, {len(outcomes)} seed(s)", title_justify="left")
    cells = {
        "parameters": f"{parameters:,}",
        **{name: _percent([_errors(o)[name] for o in outcomes]) for name in _errors(outcomes[0])},
        "time": _spread([o.seconds for o in outcomes], " s", digits=1),
        "examples/s": f"{statistics.median(o.examples_per_second for o in outcomes):,.0f}",
    }
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*cells.values())
    console = wide_console()
    console.print(table)
    if len(outcomes) > 1:
        console.print("the first seed's time includes compilation", highlight=False)
    reasons = {o.stopped for o in outcomes if o.stopped}
    for reason in sorted(reasons):
        console.print(f"stopped early: {reason}", highlight=False)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)


def _percent(errors: list[float | None]) -> str:
    """Errors as percent; a dash if there are none."""
    known = [100 * error for error in errors if error is not None]
    return _spread(known, "%") if known else "-"


def _spread(values: list[float], unit: str, digits: int = 2) -> str:
    """ "1.40 ± 0.05%": mean and standard deviation over the seeds; a single value without the latter."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean}{unit}" if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}{unit}"

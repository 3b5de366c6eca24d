"""`jaxnn train`: from a configuration to a run folder and a table."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table

from jaxnn import data, files, metrics, plots, tree
from jaxnn.activations import softmax
from jaxnn.cli import config as build
from jaxnn.cli import rules
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.runs import CONFIG, append_metrics, run_folder, wide_console, write_config, write_params
from jaxnn.layers import Layer
from jaxnn.train import EarlyStopping, FitResult, evaluate, fit, make_outputs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One seed's run: errors as fractions, the wall-clock seconds of its fit, the median examples/s of its epochs.

    The first epoch, which compiles, does not count for the examples/s, if there are others. The first seed's seconds
    include compilation. The validation error is None where the validation split was used for training.
    """

    seed: int
    result: FitResult
    train_error: float
    validation_error: float | None
    test_error: float
    seconds: float
    examples_per_second: float


def train(config: TrainConfig, *, progress: bool = True) -> tuple[Path, list[Outcome]]:
    """Train as configured, write the run folder, print the table; return the folder and the outcome of each seed.

    The folder holds the parameters of the seed with the least validation error, of the first seed if `final`.
    Early stopping (`patience`) and the metrics shown during training use the validation split; the test set is
    evaluated once per seed, at the end.
    """
    if unused := build.unused_options(config):
        wide_console().print(f"without effect here: {', '.join(unused)}", highlight=False, soft_wrap=True)
    splits = data.load(config.data, folder=config.folder)
    if config.final:
        splits = splits._replace(train=_joined(splits.train, splits.validation))
    example, classes = splits.train.x.shape[1:], splits.train.classes
    if config.batch_size > len(splits.train):
        raise ValueError(
            f"train: batch_size {config.batch_size} exceeds the {len(splits.train)} training examples of {config.data}."
        )
    net = build.build_network(config, example, len(classes))
    _require_possible(config, net, example, len(splits.train))
    # Without metrics the options alone are not worth keeping.
    with run_folder(config.out, f"{config.data}-{config.model}", worthless=[CONFIG]) as folder:
        write_config(folder, config, example, classes)
        outcomes = _run_all(config, net, jax.device_put(splits), folder, progress)
        # The first seed if there is no validation error.
        best = min(outcomes, key=lambda outcome: outcome.validation_error or 0.0)
        write_params(folder, best.result.params, best.result.state)
        write_results(folder, outcomes)
        _draw(folder, config, net, outcomes, best, splits.test)
        print_table(config, tree.size(best.result.params), outcomes, folder)
    return folder, outcomes


def _require_possible(config: TrainConfig, net: Layer, example: tuple[int, ...], examples: int) -> None:
    """Raise before a folder is created if network and rule do not match, or training does not fit into memory."""
    params, _ = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    opt = build.build_optimizer(config, config.epochs * (examples // config.batch_size))
    jax.eval_shape(opt.init, params)
    # Parameters, gradients and updates at least, in single precision.
    need, there = 12 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)), _memory()
    if need > there:
        raise ValueError(
            f"train: the network has {need // 12:,} parameters; training takes more than {need / 2**30:,.0f} GiB, got "
            f"{there / 2**30:,.0f}. Use fewer units by --hidden or --channels."
        )


def _memory() -> int:
    """Memory of the device in bytes, or of this machine where the device does not report it."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return int(limit) if limit else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _run_all(config: TrainConfig, net: Layer, splits: data.Splits, folder: Path, progress: bool) -> list[Outcome]:
    """One fit per seed; the program is compiled once."""
    steps = config.epochs * (len(splits.train) // config.batch_size)
    settings: dict[str, Any] = {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "validation": None if config.final else (splits.validation.x, splits.validation.y),
        "metrics": None if config.final else {"error": metrics.error_rate},
        "regularizer": build.build_regularizer(config),
        "augment": build.build_augmentation(config),
        "stopping": () if config.patience is None else (EarlyStopping("validation_error", config.patience),),
        "evaluated_at": rules.evaluated_at(config.optimizer),
        "progress": progress,
    }
    loss, opt = build.build_loss(config), build.build_optimizer(config, steps)
    pair = (splits.train.x, splits.train.y)
    outcomes = []
    for seed in range(config.seed, config.seed + config.seeds):
        began = time.perf_counter()
        result = fit(
            net,
            loss,
            opt,
            pair,
            key=jax.random.key(seed),
            on_epoch=lambda record, ts, seed=seed: append_metrics(folder, {"seed": seed, **record}),  # type: ignore[misc]
            **settings,
        )
        seconds = time.perf_counter() - began
        if evaluated_at := settings["evaluated_at"]:
            result = result._replace(params=evaluated_at(result.opt_state, result.params))
        outcomes.append(_outcome(seed, net, result, splits, seconds, held_out=not config.final))
    return outcomes


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
    return Outcome(seed, result, error(splits.train), validation_error, error(splits.test), seconds, speed)


def _draw(
    folder: Path, config: TrainConfig, net: Layer, outcomes: list[Outcome], best: Outcome, test: data.Dataset
) -> None:
    """Write curves.png, confusion.png and mistakes.png, the last two of the best seed on the test set."""
    name = f"{config.data}, {config.model}"
    which = f"{name}, seed {best.seed}" if len(outcomes) > 1 else name
    histories = [outcome.result.history for outcome in outcomes]
    plots.save(plots.curves(histories, title=f"Learning curves: {name}"), folder / "curves.png")
    logits = make_outputs(net)(best.result.params, best.result.state, jnp.asarray(test.x))
    matrix = np.asarray(metrics.confusion_matrix(logits, jnp.asarray(test.y), classes=len(test.classes)))
    plots.save(plots.confusion(matrix, test.classes, title=f"Test set: {which}"), folder / "confusion.png")
    probabilities = np.asarray(softmax(logits))
    figure = plots.mistakes(test.x, test.y, probabilities, test.classes, title=f"Mistakes on the test set ({which})")
    plots.save(figure, folder / "mistakes.png")


def write_results(folder: Path, outcomes: list[Outcome]) -> None:
    """Write result.json: the outcome of each seed, errors as fractions, times in seconds."""
    rows = [
        {
            "seed": o.seed,
            "train_error": o.train_error,
            "validation_error": o.validation_error,
            "test_error": o.test_error,
            "seconds": o.seconds,
            "examples_per_second": o.examples_per_second,
            "epoch": o.result.epoch,
            "stopped": o.result.stopped,
        }
        for o in outcomes
    ]
    files.write_json(folder / "result.json", rows)


def print_table(config: TrainConfig, parameters: int, outcomes: list[Outcome], folder: Path) -> None:
    """Print the results: one column per metric, mean and standard deviation over several seeds."""
    table = rich.table.Table(title=f"{config.data}, {config.model}, {len(outcomes)} seed(s)", title_justify="left")
    cells = {
        "parameters": f"{parameters:,}",
        "train error": _percent([o.train_error for o in outcomes]),
        "validation error": _percent([o.validation_error for o in outcomes]),
        "test error": _percent([o.test_error for o in outcomes]),
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
    reasons = {o.result.stopped for o in outcomes if o.result.stopped}
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

"""`jaxnn train --data text`: from a configuration to a run folder with samples, and a table."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table

from jaxnn import backprop, data, files, losses, models, plots, train, tree
from jaxnn.cli import rules
from jaxnn.cli.precision import in_precision, of_scaled
from jaxnn.cli.runs import append_metrics, wide_console, write_options, write_params
from jaxnn.cli.text.config import TextConfig, build_network, build_optimizer, read_text
from jaxnn.cli.training import (
    RESULT,
    checkpoints_of,
    ended,
    mesh_of,
    open_log,
    remove_checkpoints,
    require_log,
    saved_history,
    stop,
    tell_ended,
    training_folder,
    write_metrics,
)
from jaxnn.cli.words import save_interval
from jaxnn.layers import Layer
from jaxnn.train import TrainState
from jaxnn.train.progress import Progress
from jaxnn.types import Array

SAMPLES = "samples.txt"
LOSS = losses.softmax_cross_entropy
START = "\n"
"""What samples during training begin with: the beginning of a line."""

SAMPLE_TEMPERATURE = 0.8


@dataclasses.dataclass(frozen=True)
class TextOutcome:
    """One seed's run: its history, and the seconds in all.

    The first seed's seconds include compilation; of the part before a resumption, those of its epochs count.
    """

    seed: int
    history: list[dict[str, float]]
    seconds: float

    @property
    def validation_loss(self) -> float:
        """Of the last epoch, in nats per token."""
        return self.history[-1]["validation_loss"]

    @classmethod
    def of_row(cls, seed: int, history: list[dict[str, float]], seconds: float, **others: float) -> TextOutcome:
        """The outcome of a row of result.json: what else it has, the history has, too."""
        return cls(seed, history, seconds)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text as tokens: its name, its symbols, and the windows for training and validation."""

    name: str
    symbols: Any
    windows: data.Draws
    validation: tuple[Array, Array]
    tokens: int


def train_text(
    config: TextConfig, *, resume: Path | None = None, progress: bool = True
) -> tuple[Path, list[TextOutcome]]:
    """Train as configured, write the run folder, print the table; return the folder and the outcome of each seed.

    The folder holds the parameters of the seed with the least validation loss, the metrics of each epoch, samples drawn
    after each epoch, and learning curves. In a folder to `resume` only what is missing is trained.
    """
    require_log(config.log)
    mesh_of(config.devices)  # with its check
    corpus = make_corpus(config)
    net = build_network(config, corpus.symbols.size)
    begin = functools.partial(write_options, config=config, symbols=corpus.symbols.as_json(), corpus=corpus.name)
    with training_folder(config.out, f"text-{config.model}", resume, begin) as folder:
        outcomes = _run_all(config, net, corpus, folder, progress)
        title = f"Learning curves: {corpus.name}, {config.model}"
        figure = plots.curves([o.history for o in outcomes], title=title, unit="nats per token")
        plots.save(figure, folder / "curves.png")
        example = jax.ShapeDtypeStruct((config.length,), jnp.int32)
        params, _ = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
        _print_table(config, corpus, tree.size(params), outcomes, folder)
    return folder, outcomes


def make_corpus(config: TextConfig) -> Corpus:
    """The text of a configuration, its last tenth for validation."""
    name, whole = read_text(config)
    training, validation = data.text.split(whole)
    symbols = data.text.BYTES if config.symbols == "bytes" else data.text.characters(whole)
    tokens, held_out = jnp.asarray(symbols.encode(training)), symbols.encode(validation)
    if len(held_out) <= config.length:
        raise ValueError(
            f"train: the text has {len(whole):,} characters, its last tenth fewer than a window of --length "
            f"{config.length}. Use a longer text, or a smaller --length."
        )
    windows = data.text.windows(tokens, config.length, steps=config.steps)
    x, y = data.text.all_windows(held_out, config.length)
    return Corpus(name, symbols, windows, (jnp.asarray(x), jnp.asarray(y)), len(tokens))


def make_sampler(config: TextConfig, net: Layer, corpus: Corpus) -> Callable[[TrainState, Array], str]:
    """(state, key) -> a sample of `config.sample` characters."""
    start = START if config.symbols == "bytes" or START in corpus.symbols.symbols else corpus.symbols.symbols[0]
    prompt = jnp.asarray(corpus.symbols.encode(start))[None]
    draw = jax.jit(functools.partial(models.generate, net, count=config.sample, temperature=SAMPLE_TEMPERATURE))

    def sample(ts: TrainState, key: Array) -> str:
        tokens = draw(ts.params, ts.state, prompt, key=key)
        return str(corpus.symbols.decode(np.asarray(tokens)[0, prompt.shape[1] :]))

    return sample


def _run_all(config: TextConfig, net: Layer, corpus: Corpus, folder: Path, progress: bool) -> list[TextOutcome]:
    """The outcomes of all seeds: those that the folder has, and a run for each other, written as it ends."""
    sampler = make_sampler(config, net, corpus)
    seeds = range(config.seed, config.seed + config.seeds)
    outcomes: list[TextOutcome] = []
    there = ended(folder, seeds, TextOutcome.of_row)
    restore(folder, {seed: there[seed].history if seed in there else _saved(folder, seed) for seed in seeds})
    for seed in seeds:
        if seed in there:
            outcomes.append(there[seed])
        else:
            outcome, ts = _run(config, net, corpus, seed, folder, sampler, progress)
            outcomes.append(outcome)
            if min(outcomes, key=lambda each: each.validation_loss) is outcome:
                write_params(folder, ts.params, ts.state)
            _write_results(folder, outcomes)
            if config.seeds > 1:
                tell_ended(seed, {"validation loss": f"{outcome.validation_loss:.3f}"}, outcome.seconds)
        remove_checkpoints(folder, seed)
    return outcomes


def _saved(folder: Path, seed: int) -> list[dict[str, float]]:
    return [record | per_token(record) for record in saved_history(folder, seed)]


def restore(folder: Path, histories: Mapping[int, list[dict[str, float]]]) -> None:
    """Metrics and samples as they were when the newest checkpoints were written: later epochs are repeated."""
    write_metrics(folder, histories)
    if not (folder / SAMPLES).is_file():
        return
    text = (folder / SAMPLES).read_text(encoding="utf-8")
    for seed, history in histories.items():
        text = text.partition(f"--- seed {seed}, epoch {len(history) + 1}, ")[0]
    files.write_text(folder / SAMPLES, text)


def _run(
    config: TextConfig,
    net: Layer,
    corpus: Corpus,
    seed: int,
    folder: Path,
    sampler: Callable[[TrainState, Array], str],
    progress: bool,
) -> tuple[TextOutcome, TrainState]:
    """One training run to its end, from where it is, its records and samples written as they come."""
    key, began = jax.random.key(seed), time.perf_counter()
    course = train.epochs(
        net,
        LOSS,
        build_optimizer(config, net, config.epochs * config.steps),
        corpus.windows,
        key=key,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=corpus.validation,
        value_and_grad=in_precision(config.precision, backprop.value_and_grad(net, LOSS)),
        evaluated_at=of_scaled(config.precision, rules.evaluated_at(config.optimizer)),
        mesh=mesh_of(config.devices),
        folder=checkpoints_of(folder, seed),
        save_every=save_interval(config.save_every),
    )
    before = sum(record["seconds"] for record in course.history)
    with (
        Progress(config.epochs, enabled=progress) as bar,
        open_log(config.log, folder, seed) as log,
        contextlib.closing(course),
    ):
        bar.to(len(course.history))
        for record, ts in course:
            record = record | per_token(record)
            append_metrics(folder, {"seed": seed, **record})
            log(record, ts)
            bar.show(record)
            if config.sample:
                told = sampler(ts, jax.random.fold_in(key, int(record["epoch"])))
                heading = f"seed {seed}, epoch {record['epoch']}, validation loss {record['validation_loss']:.3f}"
                files.append_line(folder / SAMPLES, f"--- {heading} ---\n{told}\n")
    if course.stopped:
        stop(folder, seed, len(course.history), config.epochs, course.stopped)
    history = [record | per_token(record) for record in course.history]
    return TextOutcome(seed, history, before + time.perf_counter() - began), course.ts


def per_token(record: dict[str, float]) -> dict[str, float]:
    """Perplexity e^loss and bits per token loss / log 2, of the validation loss.

    Example:
        >>> per_token({"validation_loss": math.log(4.0)})
        {'perplexity': 4.0, 'bits_per_character': 2.0}
    """
    loss = record["validation_loss"]
    return {"perplexity": math.exp(min(loss, 700.0)), "bits_per_character": loss / math.log(2)}


def _write_results(folder: Path, outcomes: list[TextOutcome]) -> None:
    """Write result.json: the outcome of each seed, losses in nats per token, times in seconds."""
    rows = [
        {
            "seed": o.seed,
            "train_loss": o.history[-1]["loss"],
            "validation_loss": o.validation_loss,
            **per_token(o.history[-1]),
            "training_seconds": training_seconds(o),
            "seconds": o.seconds,
        }
        for o in outcomes
    ]
    files.write_json(folder / RESULT, rows)


def training_seconds(outcome: TextOutcome) -> float:
    """Of all epochs, the first, which compiles, taken to be like the median of the others."""
    seconds = [record["seconds"] for record in outcome.history]
    return sum(seconds[1:]) + (statistics.median(seconds[1:]) if len(seconds) > 1 else seconds[0])


def _print_table(
    config: TextConfig, corpus: Corpus, parameters: int, outcomes: list[TextOutcome], folder: Path
) -> None:
    """Print the results: one column per metric, mean and standard deviation over several seeds."""
    title = f"{corpus.name}, {config.model}, {len(outcomes)} seed(s)"
    table = rich.table.Table(title=title, title_justify="left")
    last = [o.history[-1] for o in outcomes]
    cells = {
        "parameters": f"{parameters:,}",
        "train loss": _spread([record["loss"] for record in last], 3),
        "validation loss": _spread([record["validation_loss"] for record in last], 3),
        "perplexity": _spread([record["perplexity"] for record in last], 2),
        "bits/character": _spread([record["bits_per_character"] for record in last], 3),
        "training": _spread([training_seconds(o) for o in outcomes], 1) + " s",
        "in all": _spread([o.seconds for o in outcomes], 1) + " s",
    }
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*cells.values())
    console = wide_console()
    console.print(table)
    console.print("training is without compilation; in all has it, validation and samples", highlight=False)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    console.print(f'continue a text: jaxnn predict {folder} --prompt "..."', highlight=False, soft_wrap=True)


def _spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over the seeds; a single value without the latter."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"

"""`jaxnn train --data text`: from a configuration to a run folder with samples, and a table."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table

from jaxnn import backprop, data, files, losses, models, plots, train, tree
from jaxnn.cli import rules
from jaxnn.cli.runs import CONFIG, append_metrics, run_folder, wide_console, write_options, write_params
from jaxnn.cli.text.config import TextConfig, build_network, build_optimizer, read_text
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
    """One seed's run: its last state, its history, and the seconds of its training and in all.

    The first seed's seconds include compilation.
    """

    seed: int
    state: TrainState
    history: list[dict[str, float]]
    seconds: float

    @property
    def validation_loss(self) -> float:
        """Of the last epoch, in nats per token."""
        return self.history[-1]["validation_loss"]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text as tokens: its name, its symbols, and the windows for training and validation."""

    name: str
    symbols: Any
    windows: data.Draws
    validation: tuple[Array, Array]
    tokens: int


def train_text(config: TextConfig, *, progress: bool = True) -> tuple[Path, list[TextOutcome]]:
    """Train as configured, write the run folder, print the table; return the folder and the outcome of each seed.

    The folder holds the parameters of the seed with the least validation loss, the metrics of each epoch, samples drawn
    after each epoch, and learning curves.
    """
    corpus = make_corpus(config)
    net = build_network(config, corpus.symbols.size)
    with run_folder(config.out, f"text-{config.model}", worthless=[CONFIG]) as folder:
        write_options(folder, config, symbols=corpus.symbols.as_json(), corpus=corpus.name)
        sampler = make_sampler(config, net, corpus)
        outcomes = [
            _run(config, net, corpus, seed, folder, sampler, progress)
            for seed in range(config.seed, config.seed + config.seeds)
        ]
        best = min(outcomes, key=lambda outcome: outcome.validation_loss)
        write_params(folder, best.state.params, best.state.state)
        _write_results(folder, outcomes)
        title = f"Learning curves: {corpus.name}, {config.model}"
        figure = plots.curves([o.history for o in outcomes], title=title, unit="nats per token")
        plots.save(figure, folder / "curves.png")
        _print_table(config, corpus, tree.size(best.state.params), outcomes, folder)
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


def _run(
    config: TextConfig,
    net: Layer,
    corpus: Corpus,
    seed: int,
    folder: Path,
    sampler: Callable[[TrainState, Array], str],
    progress: bool,
) -> TextOutcome:
    """One training run, its records and samples written as they come."""
    key = jax.random.key(seed)
    began, history, ts = time.perf_counter(), [], None
    course = train.epochs(
        net,
        LOSS,
        build_optimizer(config, net, config.epochs * config.steps),
        corpus.windows,
        key=key,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=corpus.validation,
        value_and_grad=backprop.value_and_grad(net, LOSS),
        evaluated_at=rules.evaluated_at(config.optimizer),
    )
    with Progress(config.epochs, enabled=progress) as bar:
        for record, ts in course:
            history.append(record | per_token(record))
            append_metrics(folder, {"seed": seed, **history[-1]})
            bar.show(history[-1])
            if config.sample:
                told = sampler(ts, jax.random.fold_in(key, int(record["epoch"])))
                heading = f"seed {seed}, epoch {record['epoch']}, validation loss {record['validation_loss']:.3f}"
                files.append_line(folder / SAMPLES, f"--- {heading} ---\n{told}\n")
    return TextOutcome(seed, ts, history, time.perf_counter() - began)  # type: ignore[arg-type] # epochs >= 1


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
    files.write_json(folder / "result.json", rows)


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

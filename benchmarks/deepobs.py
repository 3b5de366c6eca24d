"""Reproduction of the losses and accuracies that DeepOBS published for SGD, momentum and Adam, on its problems.

    python -m benchmarks.deepobs                                        # the full protocol: days on 2 cores
    python -m benchmarks.deepobs --only quadratic                       # seconds
    python -m benchmarks.deepobs --only fmnist-2c2d --epochs 1          # about half an hour on 2 cores
    python -m benchmarks.deepobs --epochs 1 --folder FOLDER             # resumes if called again
    python -m benchmarks.deepobs --write                                # and save the results in benchmarks/results/

Problems: `quadratic` (DeepOBS' quadratic_deep, the same matrix and draws), with its test loss, and `fmnist-2c2d`, with
its test accuracy. The learning rates are those that DeepOBS reports as the best; mean and standard deviation are over
seeds, after the last epoch, as in DeepOBS.

As in DeepOBS: full batches of 128 only, in training and in testing; all 60,000 training images; no regularizer; the
initializers. Differences are printed below the table. The network's runs are sequential, since `vmap` over convolutions
is slow on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.training import environment
from jaxnn import files, optim, train
from jaxnn.compare import problems
from jaxnn.data import Dataset

BATCH, EPOCHS, SEEDS = 128, 100, 10


class Row(NamedTuple):
    """An optimizer, its learning rate, and the result that DeepOBS published for it."""

    make: Callable[[Any], Any]
    rate: float
    published: float


ROWS = {
    "quadratic": {
        "adam": Row(optim.adam, 0.04, 87.11),
        "sgd": Row(optim.sgd, 0.0158, 87.41),
        "momentum 0.9": Row(lambda rate: optim.sgd(rate, momentum=0.9), 2.5e-3, 87.05),
    },
    "fmnist-2c2d": {
        "adam": Row(optim.adam, 2.5e-4, 92.28),
        "sgd": Row(optim.sgd, 0.158, 92.28),
        "momentum 0.99": Row(lambda rate: optim.sgd(rate, momentum=0.99), 2.5e-3, 92.12),
    },
}
"""The published results are test losses for `quadratic`, test accuracies in percent for `fmnist-2c2d`."""

FIGURES = {"quadratic": "test loss", "fmnist-2c2d": "test accuracy %"}

CHOSEN = "DeepOBS chose the rates by the figures on the test set; here nothing was chosen"

DIFFERENCES = {
    "quadratic": ["the order of the draws in each epoch is a uniform permutation, of other random numbers", CHOSEN],
    "fmnist-2c2d": [
        "the order of the images in each epoch is a uniform permutation; DeepOBS draws from a buffer of 20,000",
        CHOSEN,
    ],
}


def run(name: str, row: Row, label: str, epochs: int, seeds: int, folder: Path | None) -> dict[str, Any]:
    """One optimizer on one problem: the test results of each seed, their mean after each epoch, and the time."""
    problem = problems.load(name)
    if problem.test is None:
        raise ValueError(f"deepobs: {name} has no test set.")
    whole, loss_only = problem.train, name == "quadratic"
    if not loss_only:
        parts = (problem.train, problem.validation)
        whole = Dataset(*(np.concatenate([getattr(part, leaf) for part in parts]) for leaf in ("x", "y")), "train")
    even = len(problem.test) // BATCH * BATCH
    test = Dataset(problem.test.x[:even], problem.test.y[:even], "test")
    began = time.perf_counter()
    found = train.sweep(
        row.make, np.array([row.rate], np.float32), problem.net, problem.loss, whole,
        keys=jax.random.split(jax.random.key(0), seeds), epochs=epochs, batch_size=BATCH, validation=test,
        metrics=problem.metrics, chunk=None if loss_only else 1,
        folder=None if folder is None else folder / f"{name}-{label.replace(' ', '-')}-{epochs}-epochs-{seeds}-seeds",
    )  # fmt: skip
    figures = found.curves["validation_loss"] if loss_only else 100 * (1 - found.curves["validation_error"])
    last = figures[:, -1]
    return {
        "rate": row.rate,
        "epochs": epochs,
        "seeds": seeds,
        "figure": FIGURES[name],
        "mean": float(last.mean()),
        "standard_deviation": float(last.std(ddof=1)) if seeds > 1 else 0.0,
        "published": row.published,
        "by_epoch": figures.mean(axis=0).tolist(),
        "of_each_seed": last.tolist(),
        "training_loss": float(found.curves["loss"][:, -1].mean()),
        "diverged": int(np.count_nonzero(found.diverged)),
        "test_examples": even,
        "seconds_of_this_call": time.perf_counter() - began,
    }


def print_table(name: str, rows: dict[str, Any]) -> None:
    """Print the results beside those published, and the differences of the protocols."""
    first = next(iter(rows.values()))
    epochs, seeds = first["epochs"], first["seeds"]
    print(f"\n{name}: {first['figure']} after {epochs} epochs, {seeds} seeds, {first['test_examples']:,} test examples")
    print(f"{'':16}{'rate':>9}{'here':>18}{'DeepOBS, 100 epochs, 10 seeds':>32}{'diverged':>10}")
    for label, row in rows.items():
        here = f"{row['mean']:.2f} ± {row['standard_deviation']:.2f}"
        print(f"{label:16}{row['rate']:9.3g}{here:>18}{row['published']:32.2f}{row['diverged']:10}")
    fewer = [f"{epochs} epochs instead of {EPOCHS}: figures below those published are to be expected"]
    few = [f"{seeds} seeds instead of {SEEDS}"]
    for line in (fewer if epochs != EPOCHS else []) + (few if seeds != SEEDS else []) + DIFFERENCES[name]:
        print(f"differs: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(ROWS))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the network; the quadratic always has 100")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, help="where finished runs are kept, to go on from")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    path = Path(__file__).parent / "results" / f"deepobs-{found['device'].lower().replace(' ', '-')}.json"
    for name in [words.only] if words.only else ROWS:
        epochs = EPOCHS if name == "quadratic" else words.epochs
        rows = {}
        for label, row in ROWS[name].items():
            print(f"{name}, {label}:", flush=True)
            rows[label] = run(name, row, label, epochs, words.seeds, words.folder)
        print_table(name, rows)
        if words.write:
            kept = json.loads(path.read_text())["problems"] if path.exists() else {}
            kept[name] = {"rows": rows, "differs": DIFFERENCES[name]}
            files.write_json(path, {"environment": found, "problems": kept}, indent=1)
            print(f"written: {path}")


if __name__ == "__main__":
    main()

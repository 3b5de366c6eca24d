"""The classical MNIST table: linear classifiers, nearest neighbours, networks, CNNs; test errors and times.

    python benchmarks/mnist_table.py                     # every row, about 13 minutes on 2 cores
    python benchmarks/mnist_table.py --only linear knn   # some families, under a minute
    python benchmarks/mnist_table.py --kept              # rows of recipes from benchmarks/results/recipes-<device>.json
    python benchmarks/mnist_table.py --write             # and save the table in benchmarks/results/

Least squares with one unit per class is outside that table: its error exceeds those of the linear classifiers in it.

The ranges are those published in the table of LeCun, Cortes & Burges, "The MNIST database of handwritten digits", most
of it from LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition". The
command fails if a row lies outside the range of its family.

Rows of recipes are `jaxnn train --recipe NAME` with one seed; the others are fitted here. Their choices (the ridge, k)
are made on a validation split of 10,000 of the training images, after which they are fitted to all 60,000; the test set
is used once, at the end. Times are of the whole fit with compilation and the choice, without data loading.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import recipes
from training import environment

from jaxnn import data, files
from jaxnn.classic import baselines, multiclass
from jaxnn.classic.neurons import with_bias
from jaxnn.data import Dataset

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBOURS = (1, 3, 5, 7)
CLASSES = 10

Predict = Callable[[Dataset, Dataset, tuple[Any, ...]], list[Any]]
"""(training set, images to classify, values of the setting) -> predicted classes for each value."""


class Family(NamedTuple):
    """A part of the table: title, published range of test errors in percent (or None), and rows."""

    title: str
    published: tuple[float, float] | None
    rows: tuple[str, ...]


FAMILIES = {
    "linear": Family("linear", (7, 12), ("mnist-linear", "pairwise-least-squares")),
    "knn": Family("k-nearest neighbours", (0.5, 5), ("nearest-neighbours",)),
    "network": Family("neural networks", (0.35, 4.7), ("mnist-mlp", "mnist-mlp-augmented")),
    "cnn": Family("convolutional networks", (0.23, 1.7), ("mnist-cnn-fast", "mnist-cnn")),
    "beside": Family("not in that table", None, ("least-squares",)),
}


def flat(examples: Dataset) -> jax.Array:
    """Images as rows of pixels with the constant feature."""
    return with_bias(examples.x.reshape(len(examples), -1))


def least_squares(train: Dataset, test: Dataset, ridges: tuple[Any, ...]) -> list[Any]:
    """Classes predicted by one unit per class, fitted to targets -1 and +1, for each ridge."""
    x, images = flat(train), flat(test)
    return [multiclass.predict(baselines.least_squares(x, train.y, CLASSES, ridge=r), images) for r in ridges]


def pairwise(train: Dataset, test: Dataset, ridges: tuple[Any, ...]) -> list[Any]:
    """Classes predicted by one unit per pair of classes, for each ridge."""
    x, images = flat(train), flat(test)
    units = [baselines.pairwise_least_squares(x, train.y, CLASSES, ridge=r) for r in ridges]
    return [baselines.pairwise_predict(w, images, CLASSES) for w in units]


def neighbours(train: Dataset, test: Dataset, numbers: tuple[Any, ...]) -> list[Any]:
    """Classes predicted by the vote of the k nearest training images (Euclidean distance of pixels), for each k."""
    queries, points = (d.x.reshape(len(d), -1) for d in (test, train))
    labels = jnp.asarray(train.y)[baselines.nearest(queries, points, k=max(numbers))]
    return [baselines.vote(labels[:, :k], CLASSES) for k in numbers]


FITTED: dict[str, tuple[Predict, str, tuple[Any, ...]]] = {
    "least-squares": (least_squares, "ridge", RIDGES),
    "pairwise-least-squares": (pairwise, "ridge", RIDGES),
    "nearest-neighbours": (neighbours, "k", NEIGHBOURS),
}
"""The rows fitted here: function, name and candidates of the setting that is chosen on the validation split."""


def error_percent(guesses: Any, examples: Dataset) -> float:
    return 100 * float((guesses != examples.y).mean())


def fit(name: str) -> dict[str, Any]:
    """One row: the choice on the validation split, then the test error of a fit to all training images."""
    predict, setting, values = FITTED[name]
    whole, test = data.mnist()
    train, validation, _ = data.load("mnist")
    began = time.perf_counter()
    errors = [error_percent(guesses, validation) for guesses in predict(train, validation, values)]
    best = values[errors.index(min(errors))]
    error = error_percent(predict(whole, test, (best,))[0], test)
    seconds = time.perf_counter() - began
    return {
        "test_error_percent": error,
        "seconds": seconds,
        "chosen": {setting: best},
        "validation_error_percent": dict(zip(map(str, values), errors, strict=True)),
    }


def recipe(name: str, kept: dict[str, Any]) -> dict[str, Any]:
    """One row: a run of the recipe, or the mean over the seeds of the kept runs."""
    if name in kept:
        mean, seeds = kept[name]["mean"], kept[name]["seeds"]["seconds"]
        return {"test_error_percent": mean["test_error_percent"], "seconds": seeds[0], "seeds": len(seeds)}
    mean = recipes.run(name, 1)["mean"]
    return {"test_error_percent": mean["test_error_percent"], "seconds": mean["seconds"], "seeds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--kept", action="store_true", help="take recipes from the results of benchmarks/recipes.py")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    words = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # times include compilation, as those of the recipes do
    found = environment()
    results, device = Path(__file__).parent / "results", found["device"].lower().replace(" ", "-")
    path = results / f"mnist_table-{device}.json"
    kept = json.loads((results / f"recipes-{device}.json").read_text())["recipes"] if words.kept else {}
    table = json.loads(path.read_text())["rows"] if path.exists() else {}
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    print(f"{'':24}{'row':24}{'test error %':>13}{'published':>12}{'seconds':>9}")
    outside = []
    for key in words.only:
        family = FAMILIES[key]
        for name in family.rows:
            row = fit(name) if name in FITTED else recipe(name, kept)
            least, most = family.published or (0, 100)
            inside = least <= row["test_error_percent"] <= most
            outside += [] if inside else [name]
            published = f"{least:g}-{most:g}" if family.published else ""
            error, mark = f"{row['test_error_percent']:.2f}", "" if inside else "   outside"
            print(f"{family.title:24}{name:24}{error:>13}{published:>12}{row['seconds']:9.1f}{mark}", flush=True)
            table[name] = {"family": family.title, "published_percent": family.published} | row
            if words.write:
                files.write_json(path, {"environment": found, "rows": table}, indent=1)
    if words.write:
        print(f"written: {path}")
    if outside:
        raise SystemExit(f"outside the published range: {', '.join(outside)}")


if __name__ == "__main__":
    main()

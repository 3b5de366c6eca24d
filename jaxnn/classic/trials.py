"""Learning curves as pure functions of a key, to vmap over seeds and settings; a few real digits; the networks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, losses, metrics, models, train
from jaxnn.activations import relu
from jaxnn.checks import require_between, require_positive_int
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Activation, Dense, Flatten, Layer
from jaxnn.losses.base import as_labels
from jaxnn.optim import Optimizer
from jaxnn.train import TrainState
from jaxnn.train.keys import run_keys
from jaxnn.train.pieces import scan_epoch
from jaxnn.train.step import Augment
from jaxnn.types import Array, Key, Params

LOSS = losses.softmax_cross_entropy
"""The loss that the trials train on: -log p(label)."""

VALIDATION = 800
"""Digits in the validation split of `few_digits`: the standard error of an error of 10% is then 1%."""


HIDDEN = 100
"""The default number of hidden units: enough to memorize a few hundred digits."""


class Curves(NamedTuple):
    """Error rates in [0, 1] and mean losses in nats after each of E epochs, in evaluation mode; each (..., E)."""

    training_error: Array
    training_loss: Array
    validation_error: Array
    validation_loss: Array

    def history(self) -> list[dict[str, float]]:
        """The history of one run, as `fit` returns it: for stopping rules, `train.diagnose` and `plots.curves`."""
        names = ("error", "loss", "validation_error", "validation_loss")
        columns = zip(*(values.tolist() for values in self), strict=True)
        return [{"epoch": i} | dict(zip(names, row, strict=True)) for i, row in enumerate(columns, start=1)]


def few_digits(n: int = 200, *, wrong: float = 0.2, seed: int = 0) -> Splits:
    """The embedded digits, with few training and many validation examples.

    Some training labels are wrong, as often in practice: a network that memorizes them over-fits visibly, which it
    hardly does on clean digits.

    Args:
        n: training examples, 10 .. 900; validation gets 800, test the other 997 - n.
        wrong: the fraction of training labels, in [0, 1], that are replaced, each by one of the nine others.
        seed: of the split and the wrong labels.

    Raises:
        ValueError, TypeError: n or `wrong` is out of range, or n is not an integer.

    Example:
        >>> [len(part) for part in few_digits(200)]
        [200, 800, 797]
    """
    require_positive_int("few_digits", "n", n, 10)
    require_between("few_digits", "n", n, 10, 900)
    require_between("few_digits", "wrong", wrong, 0, 1)
    digits = data.digits()
    sizes = (n, VALIDATION, len(digits) - VALIDATION - n)
    train_, validation, test = data.split(digits, sizes, seed=seed, stratify=True)
    return Splits(mislabel(train_, wrong, 10, seed=seed), validation, test)


def mislabel(part: Dataset, wrong: float, classes: int, *, seed: int = 0) -> Dataset:
    """The examples with some labels replaced, each by one of the others.

    Args:
        part: N examples with labels 0 .. K - 1.
        wrong: the fraction replaced, in [0, 1].
        classes: K >= 2.
        seed: of the choice.

    Example:
        >>> int(mislabel(data.make_dataset(np.zeros((4, 1)), [0, 0, 0, 0]), 0.5, 2).y.sum())
        2
    """
    require_between("mislabel", "wrong", wrong, 0, 1)
    generator = np.random.default_rng(seed)
    labels = np.array(part.y)
    chosen = generator.choice(len(part), round(wrong * len(part)), replace=False)
    labels[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return dataclasses.replace(part, y=labels)


def as_splits(where: str, examples: Splits | None) -> tuple[Splits, int]:
    """The examples, checked, and their number of classes K; `few_digits()` for None.

    Args:
        examples: `data.Splits(train, validation, test)`, three Datasets, e.g. from `data.make_dataset(x, y)`, with
            labels 0 .. K - 1; K is the number of class names of the training data, or without names one more than the
            largest label.

    Raises:
        TypeError: examples are not Splits of Datasets, or labels are not integers.
        ValueError: an empty split, features that are not finite, or a label out of range.

    Example:
        >>> part = data.make_dataset(np.eye(3), [0, 2, 1])
        >>> as_splits("weight_decay", Splits(part, part, part))[1]
        3
    """
    if examples is None:
        return few_digits(), 10
    if not isinstance(examples, Splits) or not all(isinstance(part, Dataset) for part in examples):
        raise TypeError(
            f"{where}: examples must be data.Splits(train, validation, test), each a Dataset, e.g. from "
            f"data.make_dataset(x, y), got {type(examples).__name__}."
        )
    classes = len(examples.train.classes) or 1 + int(max(np.max(part.y, initial=0) for part in examples))
    for name, part in zip(examples._fields, examples, strict=True):
        if not len(part) or not np.isfinite(part.x).all():
            raise ValueError(f"{where}: {name} must hold at least one example, and only finite features.")
        as_labels(f"{where}, {name}", part.y, (len(part),), classes)
    return examples, classes


def as_settings(where: str, name: str, values: Sequence[float], low: float, high: float) -> list[float]:
    """The settings, checked: at least one, each in [low, high).

    Raises:
        TypeError, ValueError: not a sequence of numbers, an empty one, or a number out of range.

    Example:
        >>> as_settings("dropout", "rates", (0.5, 1.0), 0, 1)
        Traceback (most recent call last):
        ValueError: dropout: each of rates must lie in [0, 1), got 1.
    """
    if not np.ndim(values) or not len(values):
        raise ValueError(f"{where}: {name} must be a sequence of at least one number, got {values!r}.")
    for value in values:
        require_between(where, f"each of {name}", value, low, high, open_high=True)
    return list(values)


def as_counts(where: str, name: str, values: Sequence[int], most: float = math.inf) -> list[int]:
    """The settings, checked: at least one, each an integer in 1 .. most.

    Raises:
        TypeError, ValueError: not a sequence of integers, an empty one, or a number out of range.

    Example:
        >>> as_counts("depth", "depths", (1, 9), 8)
        Traceback (most recent call last):
        ValueError: depth: each of depths must lie in [1, 8], got 9.
    """
    counts = [require_positive_int(where, f"each of {name}", n) for n in as_settings(where, name, values, 1, math.inf)]
    for count in counts:
        require_between(where, f"each of {name}", count, 1, most)
    return counts


def network(*extra: Layer, hidden: int = HIDDEN, on: Any = None, classes: int = 10) -> Layer:
    """Flatten, one hidden layer of ReLUs, `extra`, a linear output; units after the first `on` are masked (None: none).

    Example:
        >>> params, state = network(hidden=3).init(jax.random.key(0), (2,))
        >>> [network(hidden=3, on=on).predict(params, state, jnp.ones((1, 2))).shape for on in (1, None)]
        [(1, 10), (1, 10)]
    """

    def switched(z: Array) -> Array:
        return relu(z) if on is None else jnp.where(jnp.arange(hidden) < on, relu(z), 0)

    return models.serial(Flatten, Dense(hidden), Activation(switched), *extra, Dense(classes))


@functools.cache
def plain(classes: int) -> Layer:
    """The network that most functions train; cached, so that it is compiled once."""
    return network(classes=classes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def starts(net: Layer, opt: Optimizer, keys: Key, x: Array) -> TrainState:
    """The initial states of runs with these keys, as in `train.fit`.

    A loop, because the same under `vmap` takes three times as long to compile.

    Args:
        keys: R typed keys, shape (R,).
        x: (N, ...), examples.

    Returns:
        A TrainState whose leaves have a leading axis R.

    Example:
        >>> from jaxnn import models, optim
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> starts(models.linear(10), optim.sgd(0.1), keys, jnp.ones((5, 64))).params[1]["w"].shape
        (3, 64, 10)
    """
    return jax.lax.map(lambda key: train.init(net, opt, run_keys(key)[0], x.shape[1:]), keys)


def over_seeds(where: str, run: Callable[..., Any], net: Layer, opt: Optimizer, examples: Splits, seeds: int) -> Any:
    """run(start, key, examples) for `seeds` keys, as one compiled program.

    Args:
        where: the function to name in an error.
        run: (start, key, examples) -> pytree of arrays; `start` is one of `starts`.
        net, opt: of the starts.
        examples: the training examples have the shape of the starts' inputs.
        seeds: R >= 1.

    Returns:
        The result of `run`, with a leading axis R.

    Example:
        >>> from jaxnn import models, optim
        >>> few = few_digits(50)
        >>> def run(start, key, few):
        ...     return start.params[1]["b"]
        >>> over_seeds("mine", run, models.linear(10), optim.sgd(0.1), few, 3).shape
        (3, 10)
    """
    keys = jax.random.split(jax.random.key(0), require_positive_int(where, "seeds", seeds))
    begun = starts(net, opt, keys, jnp.asarray(examples.train.x))
    return jax.jit(jax.vmap(run, (0, 0, None)))(begun, keys, examples)


def first_of(part: Dataset, n: Array, key: Key) -> Dataset:
    """n examples chosen at random, repeated to the size N of the whole, so that n may be traced.

    Each of the n is there N/n times, rounded down or up. An epoch has as many steps for every n, and its mean gradient
    is that of the n examples if n divides N.

    Args:
        part: N examples, in any order.
        n: 1 .. N; with one key, those of a smaller n are among those of a larger.
        key: typed random key of the choice.

    Example:
        >>> part = data.make_dataset(np.eye(6), np.arange(6))
        >>> np.unique(first_of(part, 2, jax.random.key(0)).y, return_counts=True)[1]
        array([3, 3])
    """
    order = jax.random.permutation(key, len(part))
    return data.select(jax.tree.map(jnp.asarray, part), order[jnp.arange(len(part)) % n])


def learning_curves(
    net: Layer,
    opt: Optimizer,
    examples: Splits,
    start: TrainState,
    key: Key,
    *,
    epochs: int,
    batch_size: int = 50,
    regularizer: Callable[[Params], Array] | None = None,
    augment: Augment | None = None,
) -> tuple[TrainState, Curves]:
    """Train a classifier and evaluate it on training and validation examples after each epoch; not jitted, for `vmap`.

    Args:
        net: a network with K outputs.
        examples: `train` is used for training, `validation` for evaluation.
        start: the initial state, one of `starts`.
        key: typed random key; the run equals that of `train.fit` with this key up to rounding.
        epochs, batch_size, regularizer, augment: as for `train.fit`; regularizer and augment may close over traced
            numbers. Fewer examples than batch_size are one batch.

    Returns:
        (ts, curves): the final state, and arrays (epochs,).

    Example:
        >>> from jaxnn import models, optim
        >>> net, opt = models.linear(10), optim.adam(1e-2)
        >>> few, key = few_digits(50), jax.random.key(0)
        >>> start = train.init(net, opt, key, few.train.x.shape[1:])
        >>> run = jax.jit(lambda start: learning_curves(net, opt, few, start, key, epochs=2))
        >>> run(start)[1].validation_error.shape
        (2,)
    """
    epochs = require_positive_int("learning_curves", "epochs", epochs)
    x, y = jnp.asarray(examples.train.x), jnp.asarray(examples.train.y)
    vg = jax.value_and_grad(train.mean_loss(net, LOSS, regularizer), has_aux=True)
    epoch = scan_epoch(vg, opt, batch_size=min(batch_size, len(x)), augment=augment)
    _, epochs_key = run_keys(key)

    def figures(ts: TrainState, x: Any, y: Any) -> tuple[Array, Array]:
        outputs = net.predict(ts.params, ts.state, x)
        return metrics.error_rate(outputs, y).mean(), LOSS(outputs, y).mean()

    def body(ts: TrainState, i: Array) -> tuple[TrainState, Curves]:
        ts, _ = epoch(ts, x, y, jax.random.fold_in(epochs_key, i))
        held_out = examples.validation
        return ts, Curves(*figures(ts, x, y), *figures(ts, jnp.asarray(held_out.x), jnp.asarray(held_out.y)))

    return jax.lax.scan(body, start, jnp.arange(1, epochs + 1))

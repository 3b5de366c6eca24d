"""Transfer: a network pre-trained on one task, then trained on a related one, whole or its head alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, metrics, optim
from jaxnn.checks import require_positive_int
from jaxnn.classic.trials import as_counts, as_splits, first_of, learning_curves, plain, starts
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Layer
from jaxnn.optim import Optimizer
from jaxnn.train import TrainState
from jaxnn.types import Array, Key, Params, Scalar

OPT = optim.adam(3e-3)
SIZES = (10, 20, 50, 100, 400)

WAYS: Mapping[str, tuple[bool, bool]] = MappingProxyType(
    {
        "from scratch": (False, False),
        "pre-trained, all trained on": (True, False),
        "pre-trained, frozen": (True, True),
        "random, frozen": (False, True),
    }
)
"""The ways to train on the target, by whether the hidden layer comes from the source, and whether it is frozen."""


class Task(NamedTuple):
    """A source with many examples and a target; inputs of one shape, labels in 0 .. K - 1 for both."""

    source: Dataset
    target: Splits


class Transferred(NamedTuple):
    """Test errors in [0, 1] on the target, for W ways, S numbers of target examples and R seeds.

    Attributes:
        ways: names, W of them.
        sizes: (S,).
        test: (W, S, R).
    """

    ways: tuple[str, ...]
    sizes: np.ndarray
    test: np.ndarray


def noisy_digits(level: float = 0.4) -> Task:
    """From clean digits to other ones under white noise of standard deviation `level`; the same ten classes.

    Example:
        >>> len(noisy_digits().source)
        800
    """
    source, *parts = data.split(data.digits(), (800, 400, 100, 497), seed=0, stratify=True)
    noise = np.random.default_rng(0)
    noisy = [
        dataclasses.replace(part, x=(part.x + level * noise.standard_normal(part.x.shape)).astype(np.float32))
        for part in parts
    ]
    return Task(source, Splits(*noisy))


def other_digits() -> Task:
    """From the digits 0 .. 4 to the digits 5 .. 9.

    Example:
        >>> np.unique(other_digits().target.test.y).tolist()
        [5, 6, 7, 8, 9]
    """
    digits = data.digits()
    low, high = (data.select(digits, part) for part in (digits.y < 5, digits.y >= 5))
    source, _ = data.split(low, (800, len(low) - 800), seed=0, stratify=True)
    return Task(source, Splits(*data.split(high, (400, 100, len(high) - 500), seed=0, stratify=True)))


def by_size(task: Task | None = None, sizes: Sequence[int] = SIZES, *, seeds: int = 3, epochs: int = 20) -> Transferred:
    """Pre-train on the source; train in each of `WAYS` on n examples of the target, for several n.

    The network has one hidden layer of 100 ReLUs and a linear output, the head, which always starts at random. Each
    seed draws its own n examples (`trials.first_of`); all ways, sizes and seeds are two compiled programs.

    Args:
        task: None for `noisy_digits()`.
        sizes: numbers n of target examples, each at most that of its training set.
        seeds: R runs of each.
        epochs: of the source, and as many steps on the target as passes over its whole training set have; in batches
            of 50, by Adam with learning rate 0.003.

    Raises:
        TypeError, ValueError: sizes out of range, or data that `trials.as_splits` rejects.

    Reference: Caruana, R. (1997). Multitask learning. Yosinski, J., Clune, J., Bengio, Y. & Lipson, H. (2014). How
        transferable are features in deep neural networks?

    Example:
        >>> by_size(sizes=(10, 20), seeds=1, epochs=1).test.shape
        (4, 2, 1)
    """
    if task is not None and not isinstance(task, Task):
        raise TypeError(f"transfer: task must be a transfer.Task(source, target), got {type(task).__name__}.")
    source, target = noisy_digits() if task is None else task
    target, classes = as_splits("transfer", target)
    (before, *_), more = as_splits("transfer", Splits(source, source, source))
    shapes = [np.shape(part.x)[1:] for part in (source, *target)]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"transfer: source and target must have inputs of one shape, got {', '.join(map(str, shapes))}."
        )
    sizes = as_counts("transfer", "sizes", sizes, len(target.train))
    keys = jax.random.split(jax.random.key(0), require_positive_int("transfer", "seeds", seeds))
    epochs = require_positive_int("transfer", "epochs", epochs)
    net = plain(max(classes, more))
    start = starts(net, OPT, keys, jnp.asarray(before.x))
    learned = _pretrained(net, start, keys, Splits(before, before, before), epochs)
    begun = jax.tree.map(lambda *leaves: jnp.stack(leaves), start.params, (*learned[:-1], start.params[-1]))
    test = _tested(net, begun, keys, target, jnp.array(sizes), epochs)
    return Transferred(tuple(WAYS), np.array(sizes), np.asarray(test))


def trained_on(free: Scalar) -> Optimizer:
    """`OPT` on the head, and on the layers before it with updates times `free`: 1 trains, 0 freezes them.

    `optim.freeze` does the same for a mask that is known while tracing; here one program serves both.

    Example:
        >>> params = plain(10).init(jax.random.key(0), (4,))[0]
        >>> opt = trained_on(0.0)
        >>> updates, _ = opt.update(params, opt.init(params), params)
        >>> [bool(jnp.any(updates[i]["w"] != 0)) for i in (1, 3)]
        [False, True]
    """
    return optim.chain(OPT, optim.masked(optim.scale(free), (True, True, True, False)))


@functools.partial(jax.jit, static_argnames=("net", "epochs"))
def _pretrained(net: Layer, start: TrainState, keys: Key, source: Splits, epochs: int) -> Params:
    """The parameters after training on the source, for each seed."""

    def run(start: TrainState, key: Key) -> Params:
        return learning_curves(net, OPT, source, start, key, epochs=epochs)[0].params

    return jax.vmap(run)(start, keys)


@functools.partial(jax.jit, static_argnames=("net", "epochs"))
def _tested(net: Layer, begun: Params, keys: Key, target: Splits, sizes: Array, epochs: int) -> Array:
    """The test errors (W, S, R), of parameters (2, R, ...): from scratch and pre-trained."""

    def run(way: Array, n: Array, params: Params, key: Key) -> Array:
        pretrained, frozen = way
        opt = trained_on(jnp.where(frozen, 0.0, 1.0))
        params = jax.tree.map(lambda leaf: leaf[pretrained.astype(int)], params)
        chosen, training = jax.random.split(key)
        few = target._replace(train=first_of(target.train, n, chosen))
        ts, _ = learning_curves(net, opt, few, TrainState(params, (), opt.init(params)), training, epochs=epochs)
        outputs = net.predict(ts.params, ts.state, jnp.asarray(target.test.x))
        return metrics.error_rate(outputs, jnp.asarray(target.test.y)).mean()

    over_seeds = jax.vmap(run, (None, None, 1, 0))
    over_sizes = jax.vmap(over_seeds, (None, 0, None, None))
    return jax.vmap(over_sizes, (0, None, None, None))(jnp.array(list(WAYS.values())), sizes, begun, keys)

"""Common parts of the studies: data, network, the states of a training run, and a pass of per-example statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, data, losses, models, optim, per_example, train
from jaxnn.checks import require_positive_int
from jaxnn.data import Dataset, Partial, Splits
from jaxnn.layers import Layer
from jaxnn.tape import Tape
from jaxnn.train import TrainState
from jaxnn.train.checkpoints import Checkpoints
from jaxnn.train.saving.identity import differences, identity
from jaxnn.types import Array, Key, PyTree

LOSS = losses.softmax_cross_entropy
"""The loss of every study: -log p(label)."""

MICROBATCH = 2000
"""The largest number of examples in one tape: bounds the memory; the result is the same up to rounding."""

Each = TypeVar("Each")
Carried = TypeVar("Carried", bound=PyTree)

Epoch: TypeAlias = Callable[[TrainState, Array, Array, Key], tuple[TrainState, dict[str, Array]]]
"""An epoch as from `train.make_epoch`."""


class Measured(NamedTuple):
    """Per-example gradient norms (N,), losses (N,) and outputs (N, K)."""

    norms: np.ndarray
    losses: np.ndarray
    outputs: np.ndarray


def training_set(where: str, examples: str | Splits | Dataset) -> Dataset:
    """The training examples of a study: a Dataset itself, or a training split.

    Args:
        examples: a name for `data.load`, its splits, or a Dataset, with class names.

    Raises:
        TypeError: anything else.
        ValueError: an unknown name, or training examples without class names.
    """
    found = examples if isinstance(examples, Dataset) else splits(where, examples).train
    if not found.classes:
        raise ValueError(f"{where}: the examples need class labels; name the classes with data.make_dataset.")
    return found


def splits(where: str, examples: str | Splits | Dataset) -> Splits:
    """Train, validation and test, for studies that need more than the training split.

    Raises:
        TypeError: examples are neither a name nor splits.
        ValueError: an unknown name.
    """
    if isinstance(examples, str):
        return data.load(examples)
    if not isinstance(examples, Splits):
        raise TypeError(f"{where}: expected a name such as 'digits', or data.Splits, got {type(examples).__name__}.")
    return examples


def network(net: Layer | None, examples: Dataset) -> Layer:
    """`net`; for None an MLP with one hidden layer of 128 ReLUs and an output per class."""
    if net is not None:
        return net
    return models.mlp([math.prod(examples.x.shape[1:]), 128, len(examples.classes)])


def states(
    net: Layer,
    examples: Dataset,
    opt: optim.Optimizer,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    epoch: Epoch | None = None,
    folder: str | Path | None = None,
) -> Iterator[TrainState]:
    """The initial state and the state after each epoch of training by hand-written backpropagation: epochs + 1 states.

    Use each state before requesting the next, which reuses its buffers.

    Args:
        examples: N examples.
        seed: of initial parameters, order and noise.
        epochs: >= 0.
        batch_size: 1 .. N.
        epoch: compiled, (state, x, y, key) -> (state, report); None for `train.make_epoch` on
            `backprop.value_and_grad(net, LOSS)`.
        folder: as for `followed`.

    Raises:
        ValueError: the training loss became NaN or infinite, or the folder has the states of another training.
    """
    require_positive_int("states", "epochs", epochs, 0)
    one = epoch or train.make_epoch(backprop.value_and_grad(net, LOSS), opt, batch_size=batch_size)
    x, y = jnp.asarray(examples.x), jnp.asarray(examples.y)
    key = jax.random.key(seed)

    def advance(ts: TrainState, i: int) -> TrainState:
        ts, report = one(ts, x, y, jax.random.fold_in(key, i))
        if not np.isfinite(report["loss"]).all():
            raise ValueError(f"the training loss became NaN or infinite in epoch {i}. Use a smaller learning rate.")
        return ts

    start = train.init(net, opt, jax.random.fold_in(key, 0), x.shape[1:])
    known = identity(net, LOSS, opt, (x, y), key, batch_size=batch_size, partial=Partial.DROP, others={"epoch": epoch})
    yield from followed(advance, start, epochs, folder, known)


def followed(
    advance: Callable[[Carried, int], Carried],
    start: Carried,
    epochs: int,
    folder: str | Path | None,
    known: dict[str, str],
) -> Iterator[Carried]:
    """`start`, then what `advance(state, i)` makes of it in each epoch i from 1: epochs + 1 states.

    Args:
        advance: may donate the state; on the same state it must do the same.
        folder: where each state is kept; a later call with this folder yields those that are there, and goes on. None
            keeps nothing.
        known: what makes this the same training, see `identity`; another's folder is refused.
    """
    state = start
    yield state
    if folder is None:
        for i in range(1, epochs + 1):
            state = advance(state, i)
            yield state
        return
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), start)
    with Checkpoints(folder, keep=max(epochs, 1)) as kept:
        done = kept.steps()
        if done and (other := differences(kept.about(done[-1])["about"].get("run", {}), known)):
            raise ValueError(f"{folder} has the states of another training ({'; '.join(other)}). Use another folder.")
        for i in range(1, epochs + 1):
            if i in done:
                state = kept.restore(like, i)[0]
            else:
                state = advance(state, i)
                kept.save(i, state, {"run": known})
            yield state


def within(folder: str | Path | None, name: str) -> Path | None:
    """The folder of one of several trainings of a study; None where nothing is saved."""
    return None if folder is None else Path(folder) / name


def make_pass(net: Layer, statistic: Callable[[Tape], Each]) -> Callable[[TrainState, Any, Any], Each]:
    """A compiled pass that computes a per-example statistic of any number of examples, in tapes of `MICROBATCH`.

    Args:
        statistic: Tape -> pytree of arrays (n, ...), one row per example of the tape.

    Returns:
        `found(ts, x (N, ...), y (N,))` -> the statistic's pytree of arrays (N, ...), in evaluation mode.
    """
    record = backprop.record(net, LOSS)

    @jax.jit
    def found(ts: TrainState, x: Array, y: Array) -> Each:
        def part(x: Array, y: Array) -> tuple[tuple[()], Each]:
            return (), statistic(record(ts.params, ts.state, x, y))

        return per_example.over_microbatches(part, (x, y), MICROBATCH)[1]

    return found


def make_measure(net: Layer) -> Callable[[TrainState, Dataset], Measured]:
    """A pass that returns gradient norm, loss and outputs of every example of a Dataset, on the host."""
    found = make_pass(net, lambda tape: (per_example.norms(tape), tape.losses, tape.outputs))
    return lambda ts, examples: Measured(*map(np.asarray, found(ts, examples.x, examples.y)))


def ranked(scores: np.ndarray) -> np.ndarray:
    """Indices of the examples by descending score; ties in the order of the examples."""
    return np.argsort(-scores, kind="stable")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays (N,), in [-1, 1]; ties are ranked in the order of the examples.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
        0.5
    """
    ranks = np.stack([np.argsort(ranked(values)) for values in (a, b)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def rounded(values: Any, digits: int = 5) -> Any:
    """An array as nested lists of floats (a number as a float), with `digits` significant digits; NaN stays NaN."""
    array = np.asarray(values, np.float64)
    if array.ndim:
        return [rounded(value, digits) for value in array]
    return float(f"{float(array):.{digits}g}")

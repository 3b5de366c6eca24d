"""Common parts of the studies of sequences: training on a stream of examples, accuracy, tables of text."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxnn import backprop, losses, metrics, optim, train
from jaxnn.data import Draws
from jaxnn.data.tasks import NONE
from jaxnn.layers import Layer
from jaxnn.train.loop import Epochs
from jaxnn.types import Loss

NEXT_TOKEN: Loss = functools.partial(losses.softmax_cross_entropy, ignore_index=NONE)
"""The loss of tasks on tokens: the mean over the positions with a target."""

ACCURACY: Loss = functools.partial(metrics.accuracy, ignore_index=NONE)
"""The part of the positions with a target at which the largest logit is that of the label."""

CLIP = 1.0
"""The largest norm of a gradient: those of recurrent networks explode now and then."""


def optimizer(learning_rate: float) -> Any:
    """Adam on gradients of norm at most `CLIP`."""
    return optim.chain(optim.clip_by_global_norm(CLIP), optim.adam(learning_rate))


@contextlib.contextmanager
def course(
    net: Layer,
    task: Draws,
    loss: Loss,
    *,
    learning_rate: float,
    seed: int,
    epochs: int,
    batch_size: int,
    held_out: int,
    metrics: dict[str, Loss] | None = None,
    folder: str | Path | None = None,
) -> Iterator[Epochs]:
    """The epochs of training, `train.epochs`, for a `with` statement.

    Args:
        task: the stream of training examples, whose `steps` make an epoch.
        loss, metrics: of each example, evaluated after each epoch on the same `held_out` examples of the stream.
        learning_rate: of `optimizer`.
        seed: of initial parameters and examples.
        folder: where training is saved after each epoch, and goes on, as for `train.fit`; None saves nothing. A signal
            that ends it after a save is raised again.
    """
    opt, key = optimizer(learning_rate), jax.random.key(seed)
    validation = jax.jit(Draws.batch, static_argnums=2)(task, jax.random.fold_in(key, 1), held_out)
    start = train.init(net, opt, jax.random.fold_in(key, 2), jax.tree.map(lambda x: x[0], validation[0]))
    found = train.epochs(
        net, loss, opt, task, key=jax.random.fold_in(key, 3), epochs=epochs, batch_size=batch_size, start=start,
        validation=validation, metrics=metrics, value_and_grad=backprop.value_and_grad(net, loss), folder=folder,
        save_every=task.steps,
    )  # fmt: skip
    with contextlib.closing(found):
        yield found
    if found.stopped:
        signal.raise_signal(signal.Signals[found.stopped])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns of one width, the first to the left, the others to the right.

    Example:
        >>> print(table(["", "loss"], [["LSTM", "0.5"], ["RNN", "12"]]))
              loss
        LSTM   0.5
        RNN     12
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        words = [row[0].ljust(widths[0]), *(word.rjust(n) for word, n in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)

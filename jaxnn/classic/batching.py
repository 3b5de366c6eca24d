"""Batch, stochastic and mini-batch gradient descent compared: loss against updates, and against seconds.

All three step along the mean gradient of B of N examples: B = N is batch descent, B = 1 stochastic, 1 < B < N
mini-batch. Per update batch descent is best: its gradient is exact. Per example it is worst: it takes one update for N
examples. Per second mini-batches win: an update of 32 examples takes hardly longer than one of a single example.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import optim, train
from jaxnn.checks import require_positive_int
from jaxnn.layers import Layer
from jaxnn.train.arguments import as_pair
from jaxnn.types import Key, Loss, Scalar


class Course(NamedTuple):
    """The progress of one method, at the start and after each epoch.

    Attributes:
        batch_size: B.
        updates: (epochs + 1,), steps taken so far.
        seconds: (epochs + 1,), of training so far, without compilation and evaluation of the loss.
        loss: (epochs + 1,), mean over all N examples, in evaluation mode.
    """

    batch_size: int
    updates: np.ndarray
    seconds: np.ndarray
    loss: np.ndarray

    def reaches(self, loss: float) -> int | None:
        """The first epoch (0: the start) after which the loss is at most `loss`; None if there is none."""
        low = np.flatnonzero(self.loss <= loss)
        return int(low[0]) if len(low) else None


def course(
    net: Layer,
    loss: Loss,
    examples: Any,
    *,
    batch_size: int,
    learning_rate: Scalar,
    epochs: int,
    key: Key,
    clock: Callable[[], float] = time.perf_counter,
) -> Course:
    """Gradient descent with one batch size; the loss over all examples is evaluated after every epoch.

    theta <- theta - eta (1/B) sum_(i in batch) grad l_i(theta), l_i the loss of example i; in a new order each epoch.

    Args:
        net: a network, with or without running statistics.
        loss: per-example loss (outputs (N, ...), targets (N, ...)) -> (N,).
        examples: (x, y) or a Dataset, N examples.
        batch_size: B: N for batch, 1 for stochastic. Each epoch omits N % B examples, chosen at random.
        learning_rate: eta, constant.
        epochs: passes over the examples.
        key: typed key of the initial parameters, the order and random layers.
        clock: returns seconds; a fake clock makes `seconds` reproducible.

    Raises:
        ValueError: batch_size is not in 1 .. N, epochs is below 1, or shapes do not match.

    Reference: Robbins & Monro 1951, "A stochastic approximation method"; Bottou & Bousquet 2008, "The tradeoffs of
        large scale learning" (progress against time, not against updates).

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import losses, models
        >>> x = jnp.linspace(-1.0, 1.0, 8)[:, None]
        >>> run = course(models.linear(1), losses.half_squared_error, (x, 2 * x), batch_size=2, learning_rate=0.1,
        ...              epochs=3, key=jax.random.key(0))
        >>> run.updates.tolist()
        [0, 4, 8, 12]
    """
    epochs = require_positive_int("course", "epochs", epochs)
    x, y = as_pair("course", "examples", examples)
    opt = optim.sgd(learning_rate)
    vg = jax.value_and_grad(train.mean_loss(net, loss), has_aux=True)
    epoch, evaluate = train.make_epoch(vg, opt, batch_size=batch_size), train.make_evaluate(net, {"loss": loss})
    init_key, warm_key, epochs_key = jax.random.split(key, 3)
    epoch(train.init(net, opt, init_key, x.shape[1:]), x, y, warm_key)  # compiles; the result is discarded
    ts = train.init(net, opt, init_key, x.shape[1:])
    seconds, heights = [0.0], [float(evaluate(ts.params, ts.state, x, y)["loss"])]
    for i in range(epochs):
        epoch_key = jax.block_until_ready(jax.random.fold_in(epochs_key, i))
        began = clock()
        ts, _ = jax.block_until_ready(epoch(ts, x, y, epoch_key))
        seconds.append(seconds[-1] + clock() - began)
        heights.append(float(evaluate(ts.params, ts.state, x, y)["loss"]))
    updates = np.arange(epochs + 1) * (len(x) // batch_size)
    return Course(batch_size, updates, np.asarray(seconds), np.asarray(heights))

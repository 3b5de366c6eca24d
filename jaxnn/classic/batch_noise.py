"""The noise of small batches: the loss of each step's batch beside that of all examples, and the variance of an update.

The gradient of a batch of B examples, sampled without replacement from N, has the mean gradient g of all examples as
its expectation, and the variance

E |g_B - g|^2 = tr(Sigma) / B (1 - B / N),

Sigma the covariance of the per-example gradients (divided by N - 1): a known function of B once tr(Sigma) is known,
which ONE backward pass over the examples gives (`per_example.noise_scale`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, optim, per_example, train, tree
from jaxnn.checks import as_numpy, require_between, require_key, require_positive_int
from jaxnn.data import take
from jaxnn.layers import Layer
from jaxnn.train.arguments import as_pair
from jaxnn.types import Array, ArrayLike, Key, Loss, Params, Scalar, State


class Steps(NamedTuple):
    """Losses before each update of a run, in training and in evaluation.

    Attributes:
        batch_loss: (T,), mean over the batch of the update.
        loss: (T,), mean over all N examples at the same parameters.
    """

    batch_loss: np.ndarray
    loss: np.ndarray


class Variances(NamedTuple):
    """The variance of a batch's gradient, summed over parameters, by batch size.

    Attributes:
        sizes: (S,) batch sizes.
        trace: tr(Sigma), the variance of one example's gradient, from one tape of all examples.
        predicted: (S,), `of_batch(trace, sizes, N)`.
        measured: (S,), the mean of |g_B - g|^2 over random batches, by `jax.grad`.
    """

    sizes: np.ndarray
    trace: float
    predicted: np.ndarray
    measured: np.ndarray


def of_batch(trace: Scalar, sizes: ArrayLike, examples: int) -> np.ndarray:
    """tr(Sigma) / B (1 - B / N): the variance of the mean gradient of B of N examples, without replacement.

    Args:
        trace: tr(Sigma), from `per_example.noise_scale`.
        sizes: (S,) batch sizes B.
        examples: N.

    Raises:
        ValueError: trace is negative, or a size is not in 1 .. N.

    Reference: Cochran, W. G. (1977). Sampling techniques, section 2.5.

    Example:
        >>> of_batch(12.0, [1, 4, 12], 12)
        array([11.,  2.,  0.])
    """
    each = as_numpy("of_batch", "sizes", sizes).astype(np.float64)
    require_between("of_batch", "trace", trace, 0, float("inf"))
    if not ((each >= 1) & (each <= examples)).all():
        raise ValueError(f"of_batch: sizes must lie in [1, {examples}], the number of examples, got {each.tolist()}.")
    return np.asarray(trace, np.float64) / each * (1 - each / examples)


def steps(
    net: Layer, loss: Loss, examples: Any, *, batch_size: int, learning_rate: Scalar, updates: int, key: Key
) -> Steps:
    """Gradient descent on random batches, with the loss of each batch and of all examples before every update.

    theta <- theta - eta (1/B) sum_(i in batch) grad l_i(theta), a new sample without replacement for each update

    Args:
        net: a network without running statistics.
        loss: per-example loss (outputs (N, ...), targets (N, ...)) -> (N,).
        examples: (x, y) or a Dataset, N examples.
        batch_size: B, at most N.
        learning_rate: eta.
        updates: T.
        key: typed key of the initial parameters and the batches.

    Raises:
        ValueError: batch_size is not in 1 .. N, updates is below 1, or shapes do not match.

    Reference: Robbins, H. & Monro, S. (1951). A stochastic approximation method.

    Example:
        >>> from jaxnn import losses, models
        >>> x = jnp.linspace(-1.0, 1.0, 8)[:, None]
        >>> found = steps(models.linear(1), losses.half_squared_error, (x, 2 * x), batch_size=8, learning_rate=0.1,
        ...               updates=3, key=jax.random.key(0))
        >>> bool(np.allclose(found.batch_loss, found.loss))
        True
    """
    require_key("steps", key)
    x, y = as_pair("steps", "examples", examples)
    size = _batch_size("steps", batch_size, len(x))
    updates = require_positive_int("steps", "updates", updates)
    opt = optim.sgd(learning_rate)
    init_key, batches_key = jax.random.split(key)
    begin = train.init(net, opt, init_key, x.shape[1:])
    mean_loss = train.mean_loss(net, loss)

    @jax.jit
    def run(ts: train.TrainState, x: Array, y: Array) -> tuple[Array, Array]:
        def body(ts: train.TrainState, key: Key) -> tuple[train.TrainState, tuple[Array, Array]]:
            (value, state), grads = jax.value_and_grad(mean_loss, has_aux=True)(
                ts.params, ts.state, *take((x, y), jax.random.permutation(key, len(x))[:size])
            )
            everywhere, _ = mean_loss(ts.params, ts.state, x, y)
            changes, opt_state = opt.update(grads, ts.opt_state, ts.params)
            return train.TrainState(optim.apply_updates(ts.params, changes), state, opt_state), (value, everywhere)

        return jax.lax.scan(body, ts, jax.random.split(batches_key, updates))[1]

    return Steps(*map(np.asarray, run(begin, jnp.asarray(x), jnp.asarray(y))))


def variances(
    net: Layer,
    loss: Loss,
    examples: Any,
    params: Params,
    state: State,
    *,
    sizes: Sequence[int],
    batches: int,
    key: Key,
) -> Variances:
    """The variance of a batch's gradient at fixed parameters, predicted from one tape and measured on random batches.

    Args:
        net, loss, examples: as for `steps`, N >= 2 examples.
        params, state: of net.
        sizes: batch sizes, each in 1 .. N.
        batches: number of random batches per size, whose squared deviations are averaged.
        key: typed key of the batches.

    Raises:
        ValueError: a size is not in 1 .. N, there is none, batches is below 1, or shapes do not match.

    Reference: McCandlish, S., Kaplan, J., Amodei, D. & the OpenAI Dota team (2018). An empirical model of large-batch
        training, section 2.2; Cochran, W. G. (1977). Sampling techniques, section 2.5 (the factor 1 - B / N).

    Example:
        >>> from jaxnn import losses, models
        >>> x, net = jnp.linspace(-1.0, 1.0, 8)[:, None], models.linear(1)
        >>> found = variances(net, losses.half_squared_error, (x, 2 * x), *net.init(jax.random.key(0), (1,)),
        ...                   sizes=(8,), batches=2, key=jax.random.key(1))
        >>> found.predicted, found.measured.round(6)
        (array([0.]), array([0.]))
    """
    require_key("variances", key)
    x, y = as_pair("variances", "examples", examples)
    if not len(sizes):
        raise ValueError("variances: expected at least one batch size, got none.")
    every = [_batch_size("variances", size, len(x)) for size in sizes]
    batches = require_positive_int("variances", "batches", batches)
    x, y = jnp.asarray(x), jnp.asarray(y)
    tape = jax.jit(backprop.record(net, loss))(params, state, x, y)
    trace = float(per_example.noise_scale(tape).trace)
    grad = jax.grad(lambda params, x, y: train.mean_loss(net, loss)(params, state, x, y)[0])

    @jax.jit
    def measured(params: Params, x: Array, y: Array) -> list[Array]:
        whole = grad(params, x, y)

        def deviation(size: int, key: Key) -> Array:
            chosen = take((x, y), jax.random.permutation(key, len(x))[:size])
            return tree.norm(tree.sub(grad(params, *chosen), whole), squared=True)

        keys = jax.random.split(key, batches)
        return [jnp.mean(jax.lax.map(functools.partial(deviation, size), keys)) for size in every]

    found = np.asarray(measured(params, x, y), np.float64)
    return Variances(np.asarray(every), trace, of_batch(trace, every, len(x)), found)


def _batch_size(where: str, size: int, examples: int) -> int:
    """A batch size in 1 .. N."""
    size = require_positive_int(where, "batch_size", size)
    if size > examples:
        raise ValueError(f"{where}: batch_size must be at most the number of examples, {examples}, got {size}.")
    return size

"""Metrics and outputs over a whole data set, in batches, compiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnn.checks import require_leading_axis, require_positive_int
from jaxnn.layers import Layer
from jaxnn.losses import example_weights
from jaxnn.placement import compiler_sharded
from jaxnn.train.arguments import as_inputs, require_metrics, require_net, taking
from jaxnn.train.loss import weighted_mean
from jaxnn.types import Array, Loss, Params, PyTree, State


def make_outputs(net: Layer, *, batch_size: int = 1000) -> Callable[[Params, State, PyTree], Array]:
    """A compiled function that returns the outputs for any number of examples, in batches, in evaluation mode.

    Args:
        net: a network.
        batch_size: examples at a time; bounds the memory and changes the result by rounding at most.

    Returns:
        `outputs(params, state, x (N, ...)) -> (N, ...)`, in order; ValueError for N = 0. x may be a pytree of arrays
        (N, ...) where the network takes it.

    Example:
        >>> from jaxnn import models
        >>> net = models.linear(2)
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> make_outputs(net, batch_size=4)(params, state, jnp.ones((10, 3))).shape
        (10, 2)
    """

    require_net("evaluate", net)
    batch_size = require_positive_int("evaluate", "batch_size", batch_size)

    def outputs(params: Params, state: State, x: PyTree) -> Array:
        n = require_leading_axis("evaluate", "x", x, minimum=0)
        if n == 0:
            raise ValueError("evaluate: got no examples (N = 0).")
        size = min(batch_size, n)
        steps = math.ceil(n / size)
        # The last batch is padded with copies of the first example; their outputs are dropped.
        index = jnp.where(jnp.arange(steps * size) < n, jnp.arange(steps * size), 0).reshape(steps, size)

        def of_rows(rows: Array) -> Array:
            return net.predict(params, state, jax.tree.map(lambda a: jnp.take(a, rows, axis=0), x))

        with taking("evaluate", "x", x):
            ys = jax.lax.map(of_rows, index)
        return ys.reshape(steps * size, *ys.shape[2:])[:n]

    def placed(params: Params, state: State, x: PyTree) -> Array:
        rows = PartitionSpec(*jax.typeof(jax.tree.leaves(x)[0]).sharding.spec[:1])
        return compiler_sharded(outputs, rows, params, state, x)

    compiled = jax.jit(placed)

    def on_arrays(params: Params, state: State, x: PyTree) -> Array:
        return compiled(params, state, as_inputs("make_outputs", "x", x))

    return on_arrays


def make_evaluate(
    net: Layer, metrics: Mapping[str, Loss], *, batch_size: int = 1000
) -> Callable[[Params, State, PyTree, PyTree], dict[str, Array]]:
    """A compiled function: the mean of each metric, weighted by `losses.example_weights`, in evaluation mode.

    Args:
        net: a network.
        metrics: named per-example functions (outputs (N, ...), targets (N, ...)) -> (N,): any loss of `jaxnn.losses`,
            or `metrics.error_rate`.
        batch_size: examples at a time through the network; metrics are computed on all outputs at once.

    Returns:
        `evaluate(params, state, x, y) -> {name: scalar}`; x and y may be pytrees of arrays (N, ...) where the network
        and the metrics take them.

    Example:
        >>> from jaxnn import losses, models
        >>> net = models.linear(2)
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> run = make_evaluate(net, {"loss": losses.softmax_cross_entropy})
        >>> sorted(run(params, state, jnp.ones((10, 3)), jnp.zeros(10, jnp.int32)))
        ['loss']
    """
    require_metrics("evaluate", metrics)
    outputs = make_outputs(net, batch_size=batch_size)

    def evaluate(params: Params, state: State, x: PyTree, y: PyTree) -> dict[str, Array]:
        predicted = outputs(params, state, x)
        return {
            name: weighted_mean(metric(predicted, y), example_weights(metric, y)) for name, metric in metrics.items()
        }

    compiled = jax.jit(functools.partial(compiler_sharded, evaluate, None))

    def on_arrays(params: Params, state: State, x: PyTree, y: PyTree) -> dict[str, Array]:
        return compiled(params, state, as_inputs("evaluate", "x", x), as_inputs("evaluate", "y", y))

    return on_arrays


def evaluate(
    net: Layer,
    params: Params,
    state: State,
    x: PyTree,
    y: PyTree,
    metrics: Mapping[str, Loss],
    *,
    batch_size: int = 1000,
) -> dict[str, float]:
    """The means of `make_evaluate` as Python floats. In a loop use `make_evaluate`, which compiles once.

    Args:
        net, metrics, batch_size: as for `make_evaluate`.
        params, state: those of the network.
        x, y: inputs and targets, (N, ...), N >= 1.

    Example:
        >>> from jaxnn import metrics, models
        >>> net = models.linear(2)
        >>> params, state = jax.tree.map(jnp.zeros_like, net.init(jax.random.key(0), (3,)))  # always predicts class 0
        >>> evaluate(net, params, state, jnp.ones((4, 3)), jnp.array([0, 0, 0, 1]), {"error": metrics.error_rate})
        {'error': 0.25}
    """
    values = make_evaluate(net, metrics, batch_size=batch_size)(params, state, x, y)
    return {name: float(value) for name, value in values.items()}

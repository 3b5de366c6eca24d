"""The epochs of a training run, one by one: the loop of `fit` as an iterator."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_key, require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.train.arguments import (
    as_pair,
    as_training,
    require_function,
    require_metrics,
    require_net,
    require_optimizer,
    require_start,
    require_targets,
    taking,
)
from jaxnn.train.batches import concrete, example_of, plan
from jaxnn.train.divergence import cause, require_finite, require_no_nan
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.memo import memoized
from jaxnn.train.precision import without_skipped
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, init, make_epoch, replayed
from jaxnn.types import Array, Key, Loss, Params, PyTree


def epochs(
    net: Layer,
    loss: Loss,
    opt: Transformation,
    train: Any,
    *,
    key: Key,
    epochs: int,
    batch_size: int = 128,
    validation: Any = None,
    metrics: Mapping[str, Loss] | None = None,
    regularizer: Callable[[Params], Array] | None = None,
    value_and_grad: ValueAndGrad | None = None,
    augment: Augment | None = None,
    partial: Partial = Partial.DROP,
    measure: Measure | None = None,
    start: TrainState | None = None,
    evaluated_at: Callable[[Any, Params], Params] | None = None,
) -> Iterator[tuple[dict[str, float], TrainState]]:
    """The epochs of `fit`, each as it ends: log, evaluate, keep states or stop in a loop of your own.

    Args:
        net, loss, opt, train, key, epochs, batch_size, validation, metrics, regularizer, value_and_grad, augment,
            partial, measure, start, evaluated_at: as for `fit`, which also chooses among the epochs and reports.

    Returns:
        An iterator of (record, ts): the metrics of the epoch, as in the history of `fit`, and the `TrainState` at its
        end. A state stays valid, as the next epoch trains a copy of it; pass a copy of it to what donates its argument,
        such as `make_step`. Arguments are checked at the call, training begins with the first epoch that is asked for.

    Raises:
        DivergedError: as `fit`; its `result` is the `TrainState` before that epoch.
        TypeError, ValueError: as `fit`, whose name stands in the messages.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> for record, ts in epochs(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x + 1),
        ...                          key=jax.random.key(0), epochs=50, batch_size=16):
        ...     if record["loss"] < 1e-3:
        ...         break
        >>> record["epoch"], ts.params[1]["w"].shape
        (31, (1, 1))
    """
    for name, function, example in (
        ("regularizer", regularizer, "losses.l2(1e-4)"),
        ("augment", augment, "augment.shift(2)"),
        ("measure", measure, "train.grad_norm"),
        ("evaluated_at", evaluated_at, "optim.schedule_free_eval_params"),
    ):
        require_function("fit", name, function, example)
    require_function("fit", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    require_metrics("fit", metrics or {})
    count = require_positive_int("fit", "epochs", epochs, minimum=0)
    x, y = as_training("fit", train)
    held_out = None if validation is None else as_pair("fit", "validation", validation, trees=True)
    if metrics and held_out is None:
        raise ValueError(f"fit: metrics ({', '.join(metrics)}) are of the validation data; pass validation=(x, y) too.")
    began_at = started(net, opt, x, batch_size, key, start)
    for name, data in (("training", concrete(x, y, key, batch_size)), ("validation", held_out)):
        if data is not None:
            require_targets("fit", name, net, began_at.params, began_at.state, data, loss)
    vg = value_and_grad or default_value_and_grad(net, loss, regularizer)
    jax.eval_shape(lambda k: plan(x, y, k, batch_size, partial).rows, key)  # its checks
    epoch_fn = make_epoch(vg, opt, batch_size=batch_size, partial=partial, augment=augment, measure=measure)
    replay = replayed(vg, opt, batch_size=batch_size, partial=partial, augment=augment)
    evaluate = _evaluate(net, (("loss", loss), *(metrics or {}).items()))

    def trained(before: TrainState) -> Iterator[tuple[dict[str, float], TrainState]]:
        epochs_key = run_keys(key)[1]
        for epoch in range(1, count + 1):
            # The epoch donates its input. What it began with is kept: for the caller, and to diagnose a divergence.
            copy = jax.tree.map(jnp.copy, before)
            began = time.perf_counter()
            epoch_key = jax.random.fold_in(epochs_key, epoch)
            ts, report = epoch_fn(copy, x, y, epoch_key)
            reported = without_skipped(jax.device_get(report))
            seconds = time.perf_counter() - began
            why = functools.partial(cause, net, loss, replay, before, x, y, epoch_key)
            require_finite(reported["loss"], ts, epoch, before, why)
            record = {"epoch": epoch} | _epoch_means(reported)
            if held_out is not None:
                params = ts.params if evaluated_at is None else evaluated_at(ts.opt_state, ts.params)
                values = evaluate(params, ts.state, *held_out)
                figures = {f"validation_{name}": float(value) for name, value in values.items()}
                require_no_nan(figures, epoch, before, held_out)
                record |= figures
            record |= {"seconds": seconds, "examples_per_second": float(reported["examples"].sum()) / seconds}
            yield record, ts
            before = ts

    return trained(began_at)


def started(
    net: Layer, opt: Transformation, x: PyTree, batch_size: int, key: Key, start: TrainState | None
) -> TrainState:
    """The state that training begins with: `start`, checked, or a fresh one."""
    require_net("fit", net)
    require_optimizer("fit", opt)
    require_key("fit", key)
    example = example_of(x, batch_size)
    with taking("fit", "train x", example):
        if start is None:
            return init(net, opt, run_keys(key)[0], example)
        require_start("fit", "start", net, opt, start, example)
    return start


def run_keys(key: Key) -> tuple[Key, Key]:
    """The key of the initial parameters, and the key that is folded with the epoch (from 1) for each epoch."""
    init_key, epochs_key = jax.random.split(key)
    return init_key, epochs_key


@memoized
def _evaluate(net: Layer, metrics: tuple[tuple[str, Loss], ...]) -> Callable[..., dict[str, Array]]:
    return make_evaluate(net, dict(metrics))


def _epoch_means(report: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over the steps of an epoch, each step weighted by its number of examples."""
    examples = report["examples"]
    return {
        name: float(np.average(values.astype(np.float64), weights=examples))
        for name, values in report.items()
        if name != "examples"
    }

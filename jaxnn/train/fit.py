"""Training to the end: epochs, history, progress, stopping."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_key, require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Optimizer
from jaxnn.train.arguments import (
    as_pair,
    require_function,
    require_metrics,
    require_net,
    require_optimizer,
    require_rules,
    require_start,
    require_targets,
)
from jaxnn.train.divergence import bad_example, cause, not_finite
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.memo import memoized
from jaxnn.train.progress import Progress
from jaxnn.train.step import (
    Augment,
    Measure,
    TrainState,
    ValueAndGrad,
    grad_norm,
    init,
    make_epoch,
    replayed,
)
from jaxnn.train.stopping import DivergedError, EarlyStopping, GradTolerance, Stopping, monitored
from jaxnn.types import Array, Key, Loss, Params, State


class FitResult(NamedTuple):
    """What a fit returns.

    Attributes:
        params, state, opt_state: of the last epoch, or of the best one (see `fit`'s `select`).
        history: one dict of floats for each epoch: "epoch" (from 1); "loss", the mean over the epoch's training
            batches, in training mode, each before its update, with the regularizer's penalty; what `measure` reports;
            "validation_*", in evaluation mode and without the penalty; "seconds" of training (the first epoch's include
            compilation); "examples_per_second".
        epoch: the epoch that the parameters come from, 0 for the start.
        stopped: why training ended before the last epoch; "" if it did not.
    """

    params: Params
    state: State
    opt_state: Any
    history: list[dict[str, float]]
    epoch: int
    stopped: str


def fit(
    net: Layer,
    loss: Loss,
    opt: Optimizer,
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
    stopping: Sequence[Stopping] = (),
    select: str | None = None,
    measure: Measure | None = None,
    start: TrainState | None = None,
    evaluated_at: Callable[[Any, Params], Params] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a network for some epochs, each one compiled scan over permuted minibatches.

    Placement: data and `start` stay where they lie, on one device or on a mesh with automatic or explicit axes, split
    along the examples (`NamedSharding(mesh, PartitionSpec("data"))`), the parameters replicated or sharded. Parameters
    and optimizer state keep their sharding, and the numbers are those of one device up to rounding. All that lies on a
    mesh lies on the same one; fresh parameters are replicated on the data's.

    Args:
        net: a network.
        loss: per-example loss (outputs, targets) -> (N,).
        opt: an optimizer.
        train: (x (N, ...), y (N, ...)) or a Dataset, put on the device once.
        key: typed random key; initial parameters, order, augmentation and dropout are functions of it.
        epochs: how many at most.
        batch_size: N for batch gradient descent, 1 for stochastic.
        validation: (x, y) or a Dataset, evaluated after each epoch: "validation_loss" and "validation_<metric>".
        metrics: named per-example functions, evaluated on the validation data.
        regularizer: a function of the parameters, added to the mean loss.
        value_and_grad: instead of `jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)`, a function
            with the same arguments and result; it then brings its own regularizer.
        augment: `(key, x) -> x`, applied to each training batch.
        partial: what becomes of the last, smaller batch: `Partial.DROP` or `Partial.WEIGHT`.
        stopping: rules evaluated after each epoch: `EarlyStopping`, `LossTolerance`, `GradTolerance`, or your own.
        select: the name of a metric in the history; the parameters of the epoch with its minimum are returned.
            None means the last epoch's, unless an `EarlyStopping` is passed: then what it monitors.
        measure: more scalars to report for each step, averaged over the epoch; `GradTolerance` brings `grad_norm`.
        start: a `TrainState` of this network and optimizer to continue from, instead of a fresh one; it is copied, not
            donated. Its parameters may have been cast to another floating dtype, in which training continues.
        evaluated_at: (opt_state, params) -> the parameters at which the validation metrics are evaluated, such as
            `optim.schedule_free_eval_params`; None for the parameters themselves. The result has those that are
            trained, with their optimizer state; running statistics are theirs too.
        on_epoch: called with each epoch's record as soon as it is there.
        progress: whether to show a bar with loss, metrics, examples/s and the time left.

    Raises:
        DivergedError: the training loss, a parameter or a running statistic became NaN or infinite, or a validation
            metric NaN; it names the step and what was not finite first (an example, a parameter, a layer, the loss),
            and carries the result up to the epoch before.
        TypeError, ValueError: the arguments or the data do not fit together, or a label is out of range.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> result = fit(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x + 1),
        ...              key=jax.random.key(0), epochs=50, batch_size=16, progress=False)
        >>> print(f"{result.params[1]['w'][0, 0]:.2f} x + {result.params[1]['b'][0]:.2f}")
        3.00 x + 1.00
    """
    _require_arguments(net, opt, key, metrics, stopping, regularizer, augment, evaluated_at)
    x, y = as_pair("fit", "train", train)
    held_out = None if validation is None else as_pair("fit", "validation", validation)
    if metrics and held_out is None:
        raise ValueError(f"fit: metrics ({', '.join(metrics)}) are of the validation data; pass validation=(x, y) too.")
    epochs = require_positive_int("fit", "epochs", epochs, minimum=0)
    measure = grad_norm if measure is None and any(isinstance(s, GradTolerance) for s in stopping) else measure
    select = next((s.monitor for s in stopping if isinstance(s, EarlyStopping)), None) if select is None else select
    vg = value_and_grad or default_value_and_grad(net, loss, regularizer)
    epoch_fn = make_epoch(vg, opt, batch_size=batch_size, partial=partial, augment=augment, measure=measure)
    replay = replayed(vg, opt, batch_size=batch_size, partial=partial, augment=augment)
    evaluate = _evaluate(net, (("loss", loss), *(metrics or {}).items()))

    init_key, epochs_key = run_keys(key)
    ts = init(net, opt, init_key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)) if start is None else start
    require_start("fit", "start", net, opt, ts, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    require_targets("fit", "training", net, ts.params, ts.state, (x, y), loss)
    if held_out is not None:
        require_targets("fit", "validation", net, ts.params, ts.state, held_out, loss)
    history: list[dict[str, float]] = []
    best, best_value = _result(_copied(ts), history, 0), np.inf
    with Progress(epochs, enabled=progress) as bar:
        for epoch in range(1, epochs + 1):
            safe = _copied(ts)
            began = time.perf_counter()
            epoch_key = jax.random.fold_in(epochs_key, epoch)
            ts, report = epoch_fn(ts if epoch > 1 else _copied(ts), x, y, epoch_key)
            reported = jax.device_get(report)
            seconds = time.perf_counter() - began
            kept = best if select else _result(safe, history, epoch - 1)
            why = functools.partial(cause, net, loss, replay, safe, x, y, epoch_key)
            _require_finite(reported["loss"], ts, epoch, kept, why)
            record = {"epoch": epoch} | _epoch_means(reported)
            if held_out is not None:
                params = ts.params if evaluated_at is None else evaluated_at(ts.opt_state, ts.params)
                values = evaluate(params, ts.state, *held_out)
                record |= {f"validation_{name}": float(value) for name, value in values.items()}
            _require_no_nan(record, epoch, kept, held_out, select)
            record |= {"seconds": seconds, "examples_per_second": float(reported["examples"].sum()) / seconds}
            history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            bar.show(record)
            # The first epoch counts even if its metric is infinite: the start has none.
            if select is None or monitored(history[-1:], select)[0] < best_value or epoch == 1:
                best = _result(_copied(ts) if select else ts, history, epoch)
                best_value = np.inf if select is None else record[select]
            reasons = [reason for rule in stopping if (reason := rule(history))]
            if reasons:
                return best._replace(stopped="; ".join(reasons))
    return best


def _require_arguments(
    net: Any, opt: Any, key: Any, metrics: Any, stopping: Any, regularizer: Any, augment: Any, evaluated_at: Any
) -> None:
    """Raise for invalid arguments of `fit`, before anything is traced."""
    require_net("fit", net)
    require_optimizer("fit", opt)
    require_key("fit", key)
    require_metrics("fit", metrics or {})
    require_rules("fit", stopping)
    require_function("fit", "regularizer", regularizer, "losses.l2(1e-4)")
    require_function("fit", "augment", augment, "augment.shift(2)")
    require_function("fit", "evaluated_at", evaluated_at, "optim.schedule_free_eval_params")


def run_keys(key: Key) -> tuple[Key, Key]:
    """The key of the initial parameters, and the key that is folded with the epoch (from 1) for each epoch.

    Example:
        >>> init_key, epochs_key = run_keys(jax.random.key(0))
        >>> epoch_1_key = jax.random.fold_in(epochs_key, 1)
    """
    init_key, epochs_key = jax.random.split(key)
    return init_key, epochs_key


@memoized
def _evaluate(net: Layer, metrics: tuple[tuple[str, Loss], ...]) -> Callable[..., dict[str, Array]]:
    return make_evaluate(net, dict(metrics))


def _result(ts: TrainState, history: list[dict[str, float]], epoch: int) -> FitResult:
    """What is returned if training ends here."""
    return FitResult(ts.params, ts.state, ts.opt_state, history, epoch, "")


def _copied(ts: TrainState) -> TrainState:
    """Fresh buffers, which outlive the donation of these."""
    return jax.tree.map(jnp.copy, ts)


def _epoch_means(report: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over the steps of an epoch, each step weighed by the examples that it saw."""
    examples = report["examples"]
    return {
        name: float(np.average(values.astype(np.float64), weights=examples))
        for name, values in report.items()
        if name != "examples"
    }


def _require_finite(
    losses: np.ndarray, ts: TrainState, epoch: int, result: FitResult, why: Callable[[int], str]
) -> None:
    """Raise `DivergedError` at the first loss that is not finite, or if the epoch ends with such parameters.

    The loss of a step is the one before its update: the last update of an epoch shows in the parameters alone.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        step, what = int(bad[0]), f"the training loss became {losses[bad[0]]}"
    elif found := not_finite({"params": ts.params, "state": ts.state}):
        step, what = len(losses) - 1, f"a parameter or running statistic, {found}, is no longer finite: it became so"
    else:
        return
    before = losses[max(step - 3, 0) : step]
    shown = f" (the losses before it: {np.array2string(before, precision=4)})" if before.size else ""
    message = f"fit: {what} at step {step + 1} of epoch {epoch}{shown}. {why(step)}"
    raise DivergedError(message, epoch=epoch, step=step + 1, result=result)


def _require_no_nan(
    record: Mapping[str, float],
    epoch: int,
    result: FitResult,
    validation: tuple[Array, Array] | None,
    select: str | None,
) -> None:
    """Raise `DivergedError` if a validation metric, or the one to select by, is NaN."""
    for name, value in record.items():
        if not np.isnan(value) or not (name == select or name.startswith("validation_")):
            continue
        found = "Look for outputs that overflow in evaluation."
        for part, array in zip(("validation x", "validation y"), validation or (), strict=False):
            found = bad_example(part, array) or found
        raise DivergedError(
            f"fit: {name} is NaN after epoch {epoch}, though the training loss is finite. {found}",
            epoch=epoch,
            step=0,
            result=result,
        )

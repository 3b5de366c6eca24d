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
    require_targets,
)
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.loss import mean_loss
from jaxnn.train.progress import Progress
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, grad_norm, init, make_epoch
from jaxnn.train.stopping import DivergedError, EarlyStopping, GradTolerance, Stopping, monitored
from jaxnn.types import Array, Key, Loss, Params, State


class FitResult(NamedTuple):
    """What a fit returns.

    Attributes:
        params, state, opt_state: of the last epoch, or of the best one (see `fit`'s `select`).
        history: one dict of floats for each epoch: "epoch" (from 1); "loss", the mean over the epoch's training
            batches, in training mode, as they were met, the regularizer's penalty included; what `measure` reports;
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
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a network for some epochs, each one compiled scan over permuted minibatches.

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
        stopping: rules looked at after each epoch: `EarlyStopping`, `LossTolerance`, `GradTolerance`, or your own.
        select: the name of a figure in the history; the parameters of the epoch where it was least are returned.
            None means the last epoch's, unless an `EarlyStopping` is given: then what it monitors.
        measure: more scalars to report for each step, averaged over the epoch; `GradTolerance` brings `grad_norm`.
        start: a `TrainState` to go on from, instead of a fresh one; it is copied, not donated.
        on_epoch: called with each epoch's record as soon as it is there.
        progress: whether to show a bar with loss, metrics, examples/s and the time left.

    Returns:
        FitResult.

    Raises:
        DivergedError: the training loss became NaN or infinite; it names the step and the likely cause and carries the
            result up to the epoch before.
        TypeError, ValueError: the arguments or the data do not fit together, or a label is out of range.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> result = fit(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x + 1),
        ...              key=jax.random.key(0), epochs=50, batch_size=16, progress=False)
        >>> print(f"{result.params[1]['w'][0, 0]:.2f} x + {result.params[1]['b'][0]:.2f}")
        3.00 x + 1.00
    """
    _require_arguments(net, opt, key, metrics, stopping, regularizer, augment)
    x, y = as_pair("fit", "train", train)
    held_out = None if validation is None else as_pair("fit", "validation", validation)
    if metrics and held_out is None:
        raise ValueError(f"fit: metrics ({', '.join(metrics)}) are of the validation data; pass validation=(x, y) too.")
    epochs = require_positive_int("fit", "epochs", epochs, minimum=0)
    measure = grad_norm if measure is None and any(isinstance(s, GradTolerance) for s in stopping) else measure
    select = next((s.monitor for s in stopping if isinstance(s, EarlyStopping)), None) if select is None else select
    epoch_fn, evaluate = _programs(
        net, loss, opt, regularizer, value_and_grad, batch_size, partial, augment, measure,
        tuple((metrics or {}).items()),
    )  # fmt: skip

    init_key, epochs_key = run_keys(key)
    ts = init(net, opt, init_key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)) if start is None else start
    if not isinstance(ts, TrainState):
        raise TypeError(f"fit: start must be a TrainState, as train.init makes it, got {type(ts).__name__}.")
    require_targets("fit", "training", net, ts.params, ts.state, (x, y), loss)
    if held_out is not None:
        require_targets("fit", "validation", net, ts.params, ts.state, held_out, loss)
    history: list[dict[str, float]] = []
    best, best_value = _result(_copied(ts), history, 0), np.inf
    with Progress(epochs, enabled=progress) as bar:
        for epoch in range(1, epochs + 1):
            safe = _copied(ts)
            began = time.perf_counter()
            ts, report = epoch_fn(ts if epoch > 1 else _copied(ts), x, y, jax.random.fold_in(epochs_key, epoch))
            reported = jax.device_get(report)
            seconds = time.perf_counter() - began
            _require_finite(reported["loss"], epoch, best if select else _result(safe, history, epoch - 1))
            record = {"epoch": epoch} | _epoch_means(reported)
            if held_out is not None:
                values = evaluate(ts.params, ts.state, *held_out)
                record |= {f"validation_{name}": float(value) for name, value in values.items()}
                _require_no_nan(record, epoch, best if select else _result(safe, history, epoch - 1))
            record |= {"seconds": seconds, "examples_per_second": float(reported["examples"].sum()) / seconds}
            history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            bar.show(record)
            if select is None or monitored(history[-1:], select)[0] < best_value:
                best = _result(_copied(ts) if select else ts, history, epoch)
                best_value = np.inf if select is None else record[select]
            reasons = [reason for rule in stopping if (reason := rule(history))]
            if reasons:
                return best._replace(stopped="; ".join(reasons))
    return best


def _require_arguments(
    net: Any, opt: Any, key: Any, metrics: Any, stopping: Any, regularizer: Any, augment: Any
) -> None:
    """Name a slip in what `fit` was given, before anything is traced."""
    require_net("fit", net)
    require_optimizer("fit", opt)
    require_key("fit", key)
    require_metrics("fit", metrics or {})
    require_rules("fit", stopping)
    require_function("fit", "regularizer", regularizer, "losses.l2(1e-4)")
    require_function("fit", "augment", augment, "augment.shift(2)")


def run_keys(key: Key) -> tuple[Key, Key]:
    """The key of the initial parameters, and the key that is folded with the epoch (from 1) for each epoch.

    Example:
        >>> init_key, epochs_key = run_keys(jax.random.key(0))
        >>> epoch_1_key = jax.random.fold_in(epochs_key, 1)
    """
    init_key, epochs_key = jax.random.split(key)
    return init_key, epochs_key


@functools.lru_cache(maxsize=16)
def _programs(
    net: Layer,
    loss: Loss,
    opt: Optimizer,
    regularizer: Callable[[Params], Array] | None,
    value_and_grad: ValueAndGrad | None,
    batch_size: int,
    partial: Partial,
    augment: Augment | None,
    measure: Measure | None,
    metrics: tuple[tuple[str, Loss], ...],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled epoch and evaluation of a fit, kept so that a second fit with other seeds compiles nothing."""
    vg = value_and_grad or jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)
    epoch = make_epoch(vg, opt, batch_size=batch_size, partial=partial, augment=augment, measure=measure)
    return epoch, make_evaluate(net, {"loss": loss, **dict(metrics)})


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


def _require_finite(losses: np.ndarray, epoch: int, result: FitResult) -> None:
    """Raise `DivergedError` at the first loss that is not finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if not bad.size:
        return
    step = int(bad[0])
    before = losses[max(step - 3, 0) : step]
    cause = (
        "The first loss of all is not finite: look for NaN or infinity in the inputs."
        if step == 0 and epoch == 1
        else "The likely cause is a learning rate that is too large: try a tenth of it, a warm-up or gradient clipping."
    )
    raise DivergedError(
        f"fit: the training loss became {losses[step]} at step {step + 1} of epoch {epoch}"
        f"{f' (the losses before it: {np.array2string(before, precision=4)})' if before.size else ''}. {cause}",
        epoch=epoch,
        step=step + 1,
        result=result,
    )


def _require_no_nan(record: Mapping[str, float], epoch: int, result: FitResult) -> None:
    """Raise `DivergedError` where a validation figure is NaN: it could never be chosen by."""
    for name, value in record.items():
        if np.isnan(value):
            raise DivergedError(
                f"fit: {name} is NaN after epoch {epoch}, though the training loss is finite. Look for NaN or infinity "
                "in the validation inputs, or for parameters that overflow in evaluation.",
                epoch=epoch,
                step=0,
                result=result,
            )

"""Training to the end: the epochs of a run, with history, progress, stopping, and the choice of the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.train.arguments import as_training, require_rules
from jaxnn.train.divergence import require_no_nan
from jaxnn.train.epochs import epochs as train_epochs
from jaxnn.train.epochs import started
from jaxnn.train.progress import Progress
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, grad_norm
from jaxnn.train.stopping import DivergedError, EarlyStopping, GradTolerance, Stopping, monitored
from jaxnn.types import Array, Key, Loss, Params, State


class FitResult(NamedTuple):
    """What a fit returns.

    Attributes:
        params, state, opt_state: of the last epoch, or of the best one (see `fit`'s `select`).
        history: one dict of floats for each epoch: "epoch" (from 1); "loss", the mean over the epoch's training
            batches, in training mode, each before its update, with the regularizer's penalty; the means of what
            `per_example_vg` measures; what `measure` reports; "validation_*", in evaluation mode and without the
            penalty; "seconds" of training (the first epoch's include compilation); "examples_per_second".
        epoch: the epoch that the parameters come from, 0 for the start.
        stopped: the reasons of the stopping rules that ended training; "" if none did.
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
    stopping: Sequence[Stopping] = (),
    select: str | None = None,
    measure: Measure | None = None,
    start: TrainState | None = None,
    evaluated_at: Callable[[Any, Params], Params] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a network for some epochs, each one compiled scan over permuted, or drawn, minibatches.

    Placement: data and `start` stay where they lie, on one device or on a mesh with automatic or explicit axes, split
    along the examples (`NamedSharding(mesh, PartitionSpec("data"))`), the parameters replicated or sharded. Parameters
    and optimizer state keep their sharding, and the numbers are those of one device up to rounding. All arrays on
    a mesh are on the same one; fresh parameters are replicated on that of the data.

    Args:
        net: a network.
        loss: per-example loss (outputs, targets) -> (N,).
        opt: an optimizer.
        train: (x (N, ...), y (N, ...)) or a Dataset, put on the device once; x and y may be pytrees of arrays (N, ...)
            where network and loss take them. Or a `data.Draws`, such as `data.text.windows`: an epoch is its `steps`
            batches, each drawn anew.
        key: typed random key; initial parameters, order, augmentation and dropout are functions of it.
        epochs: the largest number of epochs.
        batch_size: N for batch gradient descent, 1 for stochastic; more than N only with `Partial.WEIGHT`; of a
            `Draws` any number.
        validation: (x, y) or a Dataset, evaluated after each epoch: "validation_loss" and "validation_<metric>".
        metrics: named per-example functions, evaluated on the validation data.
        regularizer: a function of the parameters, added to the mean loss.
        value_and_grad: instead of `jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)`, a function
            with the same arguments and result, such as `precision(...)`, or `per_example_vg(net, loss, statistics)`,
            whose statistics go to the optimizer and their means to the history; it brings its own regularizer, and
            `regularizer` is ignored.
        augment: `(key, x) -> x`, applied to each training batch.
        partial: the rule for the last, smaller batch, `Partial.DROP` or `Partial.WEIGHT`, as for `make_epoch`; of a
            `Draws` every batch is full.
        stopping: rules evaluated after each epoch: `EarlyStopping`, `LossTolerance`, `GradTolerance`, or your own.
        select: the name of a metric in the history; the parameters of the epoch with its minimum are returned.
            None means the last epoch's, unless an `EarlyStopping` is passed: then what the first one monitors.
        measure: more scalars to report for each step, averaged over the epoch; None means `grad_norm` if
            `stopping` has a `GradTolerance`, else nothing.
        start: a `TrainState` of this network and optimizer to continue from, instead of a fresh one; it is copied, not
            donated. Its parameters may have been cast to another floating dtype, in which training continues. Epochs
            count from 1 again and follow `key`: pass another key for other orders of the data. For another optimizer:
            `ts._replace(opt_state=opt.init(ts.params))`.
        evaluated_at: (opt_state, params) -> the parameters at which the validation metrics are evaluated, such as
            `optim.averaged_params` of an `optim.average_params(opt)`, or `optim.schedule_free_eval_params`; None for
            the parameters themselves. The result has the trained ones and their optimizer state:
            `optim.averaged_params(result.opt_state, result.params)` are those evaluated. Running statistics are of the
            trained ones.
        on_epoch: called with each epoch's record as soon as it is there.
        progress: whether to show a bar with loss, metrics, examples/s and the time left.

    Raises:
        DivergedError: the training loss, a parameter or a running statistic became NaN or infinite, or a validation
            metric or the one of `select` NaN; it names the step and what was not finite first (an example, a parameter,
            a layer, the loss), and carries the result of the epochs before.
        TypeError, ValueError: the arguments or the data do not fit together, or a label is out of range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> result = fit(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x + 1),
        ...              key=jax.random.key(0), epochs=50, batch_size=16, progress=False)
        >>> print(f"{result.params[1]['w'][0, 0]:.2f} x + {result.params[1]['b'][0]:.2f}")
        3.00 x + 1.00
    """
    require_rules("fit", stopping)
    measure = grad_norm if measure is None and any(isinstance(s, GradTolerance) for s in stopping) else measure
    select = next((s.monitor for s in stopping if isinstance(s, EarlyStopping)), None) if select is None else select
    pair = as_training("fit", train)
    ts = started(net, opt, pair[0], batch_size, key, start)
    history: list[dict[str, float]] = []
    # A copy of `start`, which is the caller's; the loop copies once more.
    kept = ts if start is None else jax.tree.map(jnp.copy, ts)
    best = FitResult(kept.params, kept.state, kept.opt_state, history, 0, "")
    course = train_epochs(
        net, loss, opt, pair, key=key, epochs=epochs, batch_size=batch_size, validation=validation, metrics=metrics,
        regularizer=regularizer, value_and_grad=value_and_grad, augment=augment, partial=partial, measure=measure,
        start=ts, evaluated_at=evaluated_at,
    )  # fmt: skip
    del ts, kept  # or they would be held in memory to the end
    best_value = math.inf
    with Progress(epochs, enabled=progress) as bar:
        for epoch in range(1, epochs + 1):
            try:
                record, trained = next(course)
            except DivergedError as error:
                error.result = best
                raise
            if select in record:
                require_no_nan({select: record[select]}, epoch, best)
            history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            bar.show(record)
            # The first epoch counts even if its metric is infinite: the start has none.
            if select is None or epoch == 1 or monitored(history[-1:], select)[0] < best_value:
                best = FitResult(*trained, history, epoch, "")
                best_value = math.inf if select is None else monitored(history[-1:], select)[0]
            if reasons := [reason for rule in stopping if (reason := rule(history))]:
                return best._replace(stopped="; ".join(reasons))
    return best

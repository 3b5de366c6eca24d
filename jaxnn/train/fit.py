"""Training to the end: the epochs of a run, with history, progress, stopping, and the choice of the best."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.train.arguments import require_rules
from jaxnn.train.divergence import require_no_nan
from jaxnn.train.epochs import epochs as train_epochs
from jaxnn.train.loop import Epochs
from jaxnn.train.progress import Progress, silent
from jaxnn.train.saving.pace import SAVE_EVERY, SaveEvery
from jaxnn.train.saving.saver import Folder
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad
from jaxnn.train.stopping import DivergedError, EarlyStopping, Stopping, monitored
from jaxnn.types import Array, Key, Loss, Params, State


class FitResult(NamedTuple):
    """What a fit returns.

    Attributes:
        params, state, opt_state: of the last epoch, or of the best one (see `fit`'s `select`).
        history: one dict of floats for each epoch: "epoch" (from 1); "loss", the mean over the epoch's training
            batches, in training mode, each before its update, with the regularizer's penalty; the means of what
            `per_example_vg` measures; what `measure` reports, "grad_norm" by default; "learning_rate", of the last
            step, where `optim.learning_rate` knows it; "validation_*", in evaluation mode and without the penalty;
            "seconds" of training (the first epoch's include compilation); "examples_per_second".
        epoch: the epoch that the parameters come from, 0 for the start.
        stopped: the reasons of the stopping rules that ended training, or the signal that did, "SIGTERM" or "SIGINT";
            "" if nothing did.
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
    steps_per_epoch: int | None = None,
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
    evaluate_on: Literal["average"] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
    folder: Folder | None = None,
    save_every: SaveEvery = SAVE_EVERY,
    keep: int = 2,
    on_epoch: Callable[[Mapping[str, float], TrainState], None] | None = None,
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
            batches, each drawn anew. Or a stream of batches from the host, read ahead of the device: a `data.memmap`
            or another object with `len` and `rows(indices) -> (x, y)`, in the orders of arrays in memory; a function
            of a `Position`, (x, y) of one batch; an iterable of pairs (x, y), one pass for each epoch. Iterators with
            `get_state` and `set_state` are saved with the run, others pass over the batches of before again.
        key: typed random key; initial parameters, order, augmentation and dropout are functions of it.
        epochs: the largest number of epochs.
        batch_size: N for batch gradient descent, 1 for stochastic; more than N only with `Partial.WEIGHT`; of a
            `Draws` any number. A function or an iterable makes its own.
        steps_per_epoch: batches of an epoch, for a function, or for an iterable whose passes follow each other.
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
        measure: more scalars to report for each step, averaged over the epoch; None means `grad_norm`.
        start: a `TrainState` of this network and optimizer to continue from, instead of a fresh one; it is copied, not
            donated. Its parameters may have been cast to another floating dtype, in which training continues. Epochs
            count from 1 again and follow `key`: pass another key for other orders of the data. For another optimizer:
            `ts._replace(opt_state=opt.init(ts.params))`.
        evaluated_at: (opt_state, params) -> the parameters at which the validation metrics are evaluated, such as
            `optim.averaged_params` of an `optim.average_params(opt)`, or `optim.schedule_free_eval_params`; None for
            the parameters themselves. The result has the trained ones and their optimizer state:
            `optim.averaged_params(result.opt_state, result.params)` are those evaluated. Running statistics are of the
            trained ones.
        evaluate_on: "average" for `evaluated_at=optim.averaged_params`.
        mesh, axis: data parallelism: each batch is split over this axis (None: the first; or several) of this mesh, so
            that each device computes its rows, and the compiler sums the gradients. Arrays that do not lie on the mesh
            are copied to all its devices; `shard_params` splits those of `start`. The statistics of batch
            normalization are of the whole batch. None: batches are split as the data are.
        folder: where the run is saved; called again with the same arguments, it goes on there, to the bit on the same
            devices and version of JAX. Also with more epochs. It holds one run, is locked during a call, and wins over
            `start`. From the end of the first piece on, SIGTERM and SIGINT (in the main thread) end the run after a
            save: see `stopped`; before, they do what they did. None saves nothing.
        save_every: steps between two saves (an int), or a time (seconds as a float, or a timedelta); and at the end. A
            kill costs at most that much. A number makes equal pieces of an epoch, none longer, of which one compiled
            program serves all but the last. Signals are looked at after each; with a time once a second or each step.
        keep: how many of the newest checkpoints to keep; each holds the best epoch's state, too, if one is chosen.
        on_epoch: called with each epoch's record and `TrainState` as soon as they are there; to change the state, use
            `epochs`.
        progress: whether to show a bar with loss, metrics, examples/s and the time left.

    Raises:
        DivergedError: the training loss, a parameter or a running statistic became NaN or infinite, or a validation
            metric or the one of `select` NaN; it names the step and what was not finite first (an example, a parameter,
            a layer, the loss), and carries the result of the epochs before.
        TypeError, ValueError: the arguments or the data do not fit together, or a label is out of range; the folder
            holds another run, or its newest checkpoint is damaged.
        FolderInUseError: another process, or another call, has locked the folder.
        UnwrittenError: the folder or a checkpoint cannot be written; the checkpoints before it are kept.

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
    select = next((s.monitor for s in stopping if isinstance(s, EarlyStopping)), None) if select is None else select
    with Progress(epochs, enabled=progress) as bar:
        course = train_epochs(
            net, loss, opt, train, key=key, epochs=epochs, batch_size=batch_size, steps_per_epoch=steps_per_epoch,
            validation=validation, metrics=metrics, regularizer=regularizer, value_and_grad=value_and_grad,
            augment=augment, partial=partial, measure=measure, start=start, evaluated_at=evaluated_at,
            evaluate_on=evaluate_on, mesh=mesh,
            axis=axis, folder=folder, save_every=save_every, keep=keep, say=bar.say if progress else silent,
        )  # fmt: skip
        with contextlib.closing(course):
            return _chosen(course, select, stopping, on_epoch, bar, copied=start is not None)


def _chosen(
    course: Epochs,
    select: str | None,
    stopping: Sequence[Stopping],
    on_epoch: Callable[[Mapping[str, float], TrainState], None] | None,
    bar: Progress,
    *,
    copied: bool,
) -> FitResult:
    """Train to the end, or until a rule or a signal stops, and choose among the epochs."""
    history = course.history
    best, reasons = _so_far(course, select, stopping)
    bar.to(len(history))
    if not history and copied:  # `start` is the caller's
        best = best._replace(**jax.tree.map(jnp.copy, course.ts)._asdict())
    course.extra["select"] = select
    if reasons:  # the run had ended
        return best._replace(stopped=reasons)
    while True:
        try:
            event = next(course, None)
        except DivergedError as error:
            error.result = best
            raise
        if event is None:
            return best._replace(stopped=course.stopped)
        record, trained = event
        epoch = len(history)
        _require_select(select, history, best)
        # The first epoch counts even if its metric is infinite: the start has none.
        if select is None or epoch == 1 or _value(history, epoch, select) < _value(history, best.epoch, select):
            best = FitResult(*trained, history, epoch, "")
        # What the checkpoints hold besides comes before the caller's code, which may raise.
        course.best = None if select is None else TrainState(*best[:3])
        course.extra["best"] = best.epoch
        told: list[str] = []
        try:
            told += [rule(history) or "" for rule in stopping]
        finally:
            course.extra["rules"] = _states_of(stopping, told)
        if on_epoch is not None:
            on_epoch(record, trained)
        bar.show(record)
        if reasons := "; ".join(filter(None, told)):
            course.close()
            return best._replace(stopped=course.stopped or reasons)


def _so_far(course: Epochs, select: str | None, stopping: Sequence[Stopping]) -> tuple[FitResult, str]:
    """The result of the epochs before a resumption, or the start; and the reasons of the rules that ended it there.

    Rules with a state of their own get it back, and what they said then: they have seen the history already.
    """
    history, extra = course.history, course.extra
    epoch = len(history)
    best = FitResult(*(course.best or course.ts), history, epoch if select is None else extra.get("best", 0), "")
    if history and extra.get("select") != select:
        raise ValueError(
            f"fit: the folder holds a run with select={extra.get('select')!r}, whose other epochs' states are not "
            f"kept, got select={select!r}. Pass the same, or use another folder."
        )
    for number in range(1, epoch + 1):  # of a run that had diverged
        _require_select(select, history[:number], best)
    reasons, saved = [], list(extra.get("rules", ()))
    for rule in stopping:
        if hasattr(rule, "set_state"):
            name = type(rule).__qualname__
            if (found := next((each for each in saved if each["rule"] == name), None)) is not None:
                saved.remove(found)
                rule.set_state(found["state"])
                reasons.append(found["reason"])
        elif history:
            reasons.append(rule(history))
    return best, "; ".join(filter(None, reasons))


def _states_of(rules: Sequence[Stopping], told: Sequence[str]) -> list[dict[str, Any]]:
    """The rules that have `get_state` and `set_state`, as JSON, with what they said; others are functions of the
    history."""
    said = [*told, *[""] * len(rules)]
    return [
        {"rule": type(rule).__qualname__, "state": rule.get_state(), "reason": reason}
        for rule, reason in zip(rules, said, strict=False)
        if hasattr(rule, "get_state")
    ]


def _require_select(select: str | None, history: Sequence[Mapping[str, float]], best: FitResult) -> None:
    """Raise ValueError unless the last record has the metric, and `DivergedError` where it is NaN."""
    if select is not None:
        value = monitored(history[-1:], select)[0]
        require_no_nan({select: value}, len(history), best)


def _value(history: Sequence[Mapping[str, float]], epoch: int, select: str) -> float:
    return monitored(history[epoch - 1 : epoch], select)[0]

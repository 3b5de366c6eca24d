"""The epochs of a training run, one by one: the loop of `fit` as an iterator, which saves and resumes."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import operator
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_key, require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation, averaged_params
from jaxnn.optim.rates import learning_rate
from jaxnn.train.arguments import (
    as_pair,
    as_training,
    require_function,
    require_metrics,
    require_net,
    require_optimizer,
    require_same_state,
    require_start,
    require_targets,
    taking,
)
from jaxnn.train.divergence import require_finite, require_no_nan
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.feeds.arrays import ArrayFeed, Feed, joined, mean_of
from jaxnn.train.feeds.sources import source_of
from jaxnn.train.feeds.stream import StreamFeed
from jaxnn.train.keys import epoch_key, run_keys
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.memo import memoized
from jaxnn.train.meshes import as_split, put_on, require_divided
from jaxnn.train.pieces import Epoch, require_full
from jaxnn.train.precision import checked_losses, without_skipped
from jaxnn.train.progress import say
from jaxnn.train.saving.identity import described, fingerprint, identity
from jaxnn.train.saving.pace import SAVE_EVERY, SaveEvery
from jaxnn.train.saving.saver import Folder, Saved, Saver
from jaxnn.train.saving.signals import StopSignals
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, grad_norm, init
from jaxnn.types import Array, Key, Loss, Params, PyTree

MANY = 2**62
"""Steps of an epoch that only the end of its source ends."""


class Event(NamedTuple):
    """The end of an epoch, as `epochs` yields it: `for record, ts in epochs(...)`.

    Attributes:
        record: the metrics of the epoch, as in the history of `fit`.
        ts: the state at its end.
    """

    record: dict[str, float]
    ts: TrainState


def epochs(
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
    measure: Measure | None = None,
    start: TrainState | None = None,
    evaluated_at: Callable[[Any, Params], Params] | None = None,
    evaluate_on: Literal["average"] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
    folder: Folder | None = None,
    save_every: SaveEvery = SAVE_EVERY,
    keep: int = 2,
    say: Callable[[str], None] = say,
) -> Epochs:
    """The epochs of `fit`, each as it ends: log, evaluate, change the state, keep it or stop in a loop of your own.

    Args:
        net, loss, opt, train, key, epochs, batch_size, steps_per_epoch, validation, metrics, regularizer,
            value_and_grad, augment, partial, measure, start, evaluated_at, evaluate_on, mesh, axis, folder, save_every,
            keep: as for `fit`, which also chooses among the epochs and reports.
        say: called with a line when the run goes on from a folder; prints to standard error by default.

    Returns:
        An iterator of `Event`s, pairs (record, ts): the metrics of the epoch, as in the history of `fit`, and the
        `TrainState` at its end. A state stays valid, as the next epoch trains a copy of it; pass a copy of it to what
        donates its argument, such as `make_step`. Training goes on from the iterator's `ts`, to which the loop may
        assign another state, e.g. one with a new learning rate (`optim.with_hyperparams`). Its `history` has the
        records of all epochs, its `stopped` the signal that ended it, if one did. Arguments are checked, and a folder
        is locked and read, at the call; training begins with the first epoch that is asked for. At its end the last
        epoch is saved and the folder unlocked; after a `break` by its `close()`, or when it goes out of scope.
        A record may get entries of your own, and `extra`, a dict, what your loop knows, as JSON: they are saved too.

    Raises:
        DivergedError: as `fit`; its `result` is the `TrainState` before that epoch.
        TypeError, ValueError, OSError: as `fit`, whose name stands in the messages.

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
    require_net("fit", net)
    require_optimizer("fit", opt)
    require_key("fit", key)
    count = require_positive_int("fit", "epochs", epochs, minimum=0)
    split = as_split("fit", mesh, axis)
    held_out = None if validation is None else as_pair("fit", "validation", validation, trees=True)
    if metrics and held_out is None:
        raise ValueError(f"fit: metrics ({', '.join(metrics)}) are of the validation data; pass validation=(x, y) too.")
    vg = value_and_grad or default_value_and_grad(net, loss, regularizer)
    epoch = Epoch(vg, batch_size, partial, augment, grad_norm if measure is None else measure, split)
    feed = _feed(train, key, epoch, opt, steps_per_epoch)
    ts = started(net, opt, feed.example, key, start)
    if partial is Partial.WEIGHT and hasattr(train, "rows"):
        require_full("fit", ts, len(train), batch_size)
    if split is not None:
        ts, held_out = put_on(split.mesh, (ts, held_out))
    for name, data in (("training", feed.targets()), ("validation", held_out)):
        if data is not None:
            require_targets("fit", name, net, ts.params, ts.state, data, loss)
    _ = feed.steps  # with its checks
    evaluate = make_evaluation(net, (("loss", loss), *(metrics or {}).items()))
    run = Run(net, loss, opt, feed, key, count, evaluate, held_out, _evaluated_at(evaluated_at, evaluate_on))
    if folder is None:
        return Epochs(run, ts, None)
    others: dict[str, Any] = {"gradient": described(vg, depth=0), "regularizer": regularizer, "augment": augment}
    others |= {"measure": measure, "metrics": dict(metrics or {}) or None, "steps per epoch": steps_per_epoch}
    others |= {"validation": None if validation is None else fingerprint(tuple(validation))}
    others |= {"evaluated at": run.evaluated_at}
    known = identity(net, loss, opt, train, key, batch_size=batch_size, partial=partial, others=others)
    if isinstance(folder, str | Path) and str(folder).strip():
        folder = Path(folder).absolute()  # the working directory may change
    return Epochs(run, ts, Saver(folder, save_every, keep, known, say))


def _evaluated_at(
    function: Callable[[Any, Params], Params] | None, name: Any
) -> Callable[[Any, Params], Params] | None:
    """`evaluated_at`, or what `evaluate_on` stands for."""
    if name is None:
        return function
    if name != "average" or function is not None:
        raise ValueError(
            f'fit: evaluate_on must be "average", without evaluated_at, got {name!r}'
            f"{'' if function is None else ' and evaluated_at'}. Pass a function as evaluated_at for anything else."
        )
    return averaged_params


def _feed(train: Any, key: Key, epoch: Epoch, opt: Transformation, steps_per_epoch: int | None) -> Feed:
    """The batches of the training data."""
    source = source_of(train, key, epoch, steps_per_epoch)
    if source is not None:
        return StreamFeed(source, epoch, opt)
    if steps_per_epoch is not None:
        raise ValueError("fit: steps_per_epoch is of streams; the number of examples, or of draws, tells the steps.")
    require_divided("fit", epoch.split, epoch.batch_size)
    x, y = as_training("fit", train)
    if epoch.split is not None:
        x, y = put_on(epoch.split.mesh, (x, y))
    return ArrayFeed(x, y, key, epoch, opt)


@dataclasses.dataclass(frozen=True)
class Run:
    """The arguments of `epochs`, checked."""

    net: Layer
    loss: Loss
    opt: Transformation
    feed: Feed
    key: Key
    count: int
    evaluate: Callable[..., dict[str, Array]]
    held_out: tuple[PyTree, PyTree] | None
    evaluated_at: Callable[[Any, Params], Params] | None


class Place(NamedTuple):
    """Where a run is: epochs that are complete; of the one that is not, steps, seconds and reports; steps in all."""

    epochs: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    report: dict[str, np.ndarray] = {}  # noqa: RUF012 # never changed


class Epochs(Iterator[Event]):
    """The iterator that `epochs` returns.

    Attributes:
        ts: the state at the end of the last epoch, or at the start; where a run goes on in the middle of an epoch, that
            there, until its end. Assign another, of the same shapes and dtypes, to train on from that.
        history: the records of all epochs so far, those before a resumption included.
        stopped: "SIGTERM" or "SIGINT" if that signal ended it, else "".
        best: a state that the checkpoints hold besides: the one that `fit` would return. None for `ts` itself.
        extra: what they hold besides as JSON.
    """

    def __init__(self, run: Run, start: TrainState, saver: Saver | None) -> None:
        self._ts, self.history, self.stopped = start, list[dict[str, float]](), ""
        self.best: TrainState | None = None
        self.extra: dict[str, Any] = {}
        self._run, self._saver, self._process = run, saver, os.getpid()
        self._at, self._unsaved, self._ended = Place(), False, False
        self._signals: StopSignals | None = None
        if saver is not None:
            try:
                self._restore(saver)
            except BaseException:
                self._saver = None
                saver.close()
                raise
            # A script may end while a variable still holds the loop, whose `__del__` is then not called in time.
            self._at_exit = functools.partial(_close, weakref.ref(self))
            atexit.register(self._at_exit)

    @property
    def ts(self) -> TrainState:
        """The state that training goes on from."""
        return self._ts

    @ts.setter
    def ts(self, new: TrainState) -> None:
        require_same_state("epochs", "ts", new, self._ts)
        self._ts = new

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        # Not a generator: its frame would hold this object in a circle, and after a `break` the folder would stay
        # locked until the garbage collector comes by.
        record = None
        try:
            if not self._ended and self._saver is not None and self._signals is None:
                self._signals = StopSignals().__enter__()
            if not self._ended and self._goes_on():
                record = self._epoch(self._signals)
        finally:
            if record is None:
                self._end()
        if record is None:
            if self._saver is not None and self.stopped:
                self._saver.say(f"{self._saver.checkpoints.folder}: {self.stopped}, saved; the same call goes on")
            self.close()
            raise StopIteration
        return Event(record, self.ts)

    def __copy__(self) -> Self:
        raise TypeError("the epochs of a run cannot be copied: only one may train and save. Call train.epochs again.")

    def __deepcopy__(self, memo: Any) -> Self:
        return self.__copy__()

    def close(self) -> None:
        """Save the last complete epoch, if that is not done, and unlock the folder; the end of the loop calls it."""
        self._end()
        self._run.feed.close()
        if self._saver is None or self._process != os.getpid():  # the folder is the parent's
            return
        try:
            if self._unsaved:
                self._save(self._at, self.ts)
        finally:
            self._saver.close()
            self._saver = None
            atexit.unregister(self._at_exit)

    def __del__(self) -> None:
        if hasattr(self, "_signals"):
            self.close()

    def _restore(self, saver: Saver) -> None:
        saved = saver.restore(self.ts)
        if saved is None:
            return
        about = saved.about
        if about["epochs"] > self._run.count:
            raise ValueError(
                f"fit: the folder {saver.checkpoints.folder} holds a run of {about['epochs']} epochs, more than "
                f"epochs={self._run.count}. Ask for at least as many, or use another folder."
            )
        self._ts, self.best, self.history, self.extra = saved.ts, saved.best, about["history"], about["extra"]
        self._at = Place(about["epochs"], about["step"], about["steps"], about["seconds"], saved.report)
        self._run.feed.resume(about["stream"], about["epochs"], about["step"])

    def _goes_on(self) -> bool:
        """Save the epoch before, whose caller has done with it, if that is due; whether another epoch follows."""
        last = self._at.epochs == self._run.count
        if not self._unsaved or self._saver is None or self._signals is None:
            return not last
        name = self._signals.look()
        if name or last or self._saver.pace.due(self._at.steps):
            self._save(self._at, self.ts)
        return not (name or last)

    def _end(self) -> None:
        """No epoch follows. Whoever ended the loop learns that a signal came."""
        self._ended = True
        if self._signals is not None:
            self.stopped = self.stopped or self._signals.name
            self._signals.__exit__(None, None, None)
            self._signals = None

    def _epoch(self, signals: StopSignals | None) -> dict[str, float] | None:
        """Train to the end of the epoch and return its record; None if a signal stopped it before."""
        run, saver, at, before = self._run, self._saver, self._at, self.ts
        number, first = at.epochs + 1, at.step
        key = epoch_key(run.key, number)
        # The steps donate their input. What they began with is kept: for the caller, and to diagnose a divergence.
        ts = jax.tree.map(jnp.copy, before)
        why = functools.partial(run.feed.cause, run.net, run.loss, before, key, first)
        ended = False
        while not ended:
            left = MANY if run.feed.steps is None else run.feed.steps - at.step
            count = left if saver is None else saver.pace.length(at.steps, left, run.feed.steps)
            began = time.perf_counter()
            ts, report = run.feed.run(ts, key, number, at.step, count)
            taken, ran = time.perf_counter() - began, len(report.get("loss", ()))
            if signals is not None:
                signals.arm()
            require_finite(checked_losses(report) if ran else np.zeros(0), ts, number, at.step, before, why)
            ended = ran < count or count == left
            report = joined([part for part in (at.report, report) if part])
            at = Place(at.epochs, at.step + ran, at.steps + ran, at.seconds + taken, report)
            if saver is not None and signals is not None and not ended:
                saver.pace.ran(count, taken)
                name = signals.look()
                if name or saver.pace.due(at.steps):
                    self._save(at, ts)
                if name:
                    self.stopped = name
                    return None
        record = self._record(number, ts, at, before)
        self._ts, self._at, self._unsaved = ts, Place(number, 0, at.steps), True
        self.history.append(record)
        return record

    def _record(self, number: int, ts: TrainState, at: Place, before: TrainState) -> dict[str, float]:
        run = self._run
        means = mean_of(without_skipped(at.report))
        record = {"epoch": number, "loss": means["loss"]} | means
        if (rate := learning_rate(run.opt, ts.opt_state)) is not None:
            record["learning_rate"] = rate
        if run.held_out is not None:
            params = ts.params if run.evaluated_at is None else run.evaluated_at(ts.opt_state, ts.params)
            values = run.evaluate(params, ts.state, *run.held_out)
            figures = {f"validation_{name}": float(value) for name, value in values.items()}
            require_no_nan(figures, number, before, run.held_out)
            record |= figures
        examples = float(at.report["examples"].sum())
        return record | {"seconds": at.seconds, "examples_per_second": examples / at.seconds}

    def _save(self, at: Place, ts: TrainState) -> None:
        if self._saver is None:
            return
        about = {
            "epochs": at.epochs,
            "step": at.step,
            "steps": at.steps,
            "seconds": at.seconds,
            "history": self.history,
            "stream": self._run.feed.state(),
            "extra": self.extra,
        }
        same = self.best is not None and all(map(operator.is_, *map(jax.tree.leaves, (self.best, ts))))
        self._saver.save(Saved(ts, at.report, None if same else self.best, about))
        self._unsaved = False


def _close(course: Callable[[], Epochs | None]) -> None:
    """Close a course that is still there."""
    if (found := course()) is not None:
        found.close()


def started(net: Layer, opt: Transformation, example: PyTree, key: Key, start: TrainState | None) -> TrainState:
    """The state that training begins with: `start`, checked, or a fresh one."""
    with taking("fit", "train x", example):
        if start is None:
            return init(net, opt, run_keys(key)[0], example)
        require_start("fit", "start", net, opt, start, example)
    return start


@memoized
def make_evaluation(net: Layer, metrics: tuple[tuple[str, Loss], ...]) -> Callable[..., dict[str, Array]]:
    """`make_evaluate`, kept for equal arguments."""
    return make_evaluate(net, dict(metrics))

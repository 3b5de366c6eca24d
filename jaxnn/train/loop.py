"""The epochs of a run one by one: trained in pieces, evaluated, saved, and gone on with."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import operator
import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.optim.rates import learning_rate
from jaxnn.train.arguments import require_same_state
from jaxnn.train.divergence import require_finite, require_no_nan
from jaxnn.train.feeds.arrays import Feed, joined, mean_of
from jaxnn.train.keys import epoch_key
from jaxnn.train.precision import checked_losses, without_skipped
from jaxnn.train.saving.saver import Saved, Saver
from jaxnn.train.saving.signals import StopSignals
from jaxnn.train.step import TrainState
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
        extra: what they hold besides as JSON: that of `fit`, or of a loop of your own.
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
        if self._process != os.getpid():  # of a fork: folder, threads and signals are the parent's
            return
        self._end()
        self._run.feed.close()
        if self._saver is None:
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

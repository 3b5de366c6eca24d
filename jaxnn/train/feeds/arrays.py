"""Where the batches of training come from, and the steps on them: examples on the device, in compiled pieces."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from jaxnn.data import Draws
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.train.batches import concrete, example_of, plan
from jaxnn.train.divergence import bad_example, cause
from jaxnn.train.pieces import Epoch, make_epoch, make_piece, replayed
from jaxnn.train.step import TrainState
from jaxnn.types import Key, Loss, PyTree


class Feed(Protocol):
    """Batches, and the steps on them.

    Attributes:
        example: shape and dtype of ONE input.
    """

    example: PyTree

    @property
    def steps(self) -> int | None:
        """Batches of an epoch; None if only the end of the source tells."""

    def targets(self) -> tuple[PyTree, PyTree]:
        """Concrete examples whose targets are checked before training."""

    def run(
        self, ts: TrainState, key: Key, epoch: int, first: int, count: int
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """Steps first, ..., first + count - 1 of an epoch with this key; the state is donated.

        The report of each step, each value (count,), on the host; fewer if the source ended.
        """

    def cause(self, net: Layer, loss: Loss, before: TrainState, key: Key, first: int, step: int) -> str:
        """Why step `step` of an epoch whose state was `before` at step `first` diverged."""

    def state(self) -> Any:
        """What a source needs to go on from here, as JSON; None if the position is enough."""

    def resume(self, state: Any, epochs: int, step: int) -> None:
        """Go on after that many epochs and steps."""

    def close(self) -> None:
        """End what runs in the background."""


class ArrayFeed:
    """Examples on the device, permuted or drawn, with the steps of a piece as one compiled scan."""

    def __init__(self, x: PyTree, y: PyTree, key: Key, epoch: Epoch, opt: Transformation) -> None:
        self.x, self.y, self.epoch, self.opt = x, y, epoch, opt
        self.example = example_of(x, epoch.batch_size)
        self._key = key
        self._replay = replayed(epoch, opt)

    @functools.cached_property
    def steps(self) -> int:
        """Batches of an epoch; with the checks of `plan`."""
        batch_size, partial = self.epoch.batch_size, self.epoch.partial
        rows = jax.eval_shape(lambda key: plan(self.x, self.y, key, batch_size, partial).rows, self._key)
        return int(jax.tree.leaves(rows)[0].shape[0])

    def targets(self) -> tuple[PyTree, PyTree]:
        return concrete(self.x, self.y, self._key, self.epoch.batch_size)

    def run(
        self, ts: TrainState, key: Key, epoch: int, first: int, count: int
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        vg, batch_size, partial, augment, measure, split = self.epoch
        mesh, axis = (None, None) if split is None else (split.mesh, split.axes)
        how: dict[str, Any] = {"batch_size": batch_size, "partial": partial, "augment": augment, "measure": measure}
        how |= {"mesh": mesh, "axis": axis}
        if count == self.steps:
            ts, report = make_epoch(vg, self.opt, **how)(ts, self.x, self.y, key)
        else:
            ts, report = make_piece(vg, self.opt, steps=count, **how)(ts, self.x, self.y, key, first)
        return ts, jax.device_get(report)

    def cause(self, net: Layer, loss: Loss, before: TrainState, key: Key, first: int, step: int) -> str:
        drawn = isinstance(self.x, Draws)
        for name, examples in () if drawn else (("training x", self.x), ("training y", self.y)):
            if found := bad_example(name, examples):
                return found

        def replay() -> Any:
            return self._replay(before, self.x, self.y, key, first, step)

        return cause(net, loss, replay, before, step, checked=not drawn)

    def state(self) -> Any:
        return None

    def resume(self, state: Any, epochs: int, step: int) -> None:
        """A batch is a function of the epoch's key and the step."""

    def close(self) -> None:
        """Nothing runs in the background."""


def joined(reports: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The reports of successive pieces as one."""
    return {name: np.concatenate([report[name] for report in reports]) for name in reports[0]} if reports else {}


def mean_of(report: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over the steps of an epoch, each step weighted by its number of examples."""
    examples = report["examples"]
    return {
        name: float(np.average(values.astype(np.float64), weights=examples))
        for name, values in report.items()
        if name != "examples"
    }

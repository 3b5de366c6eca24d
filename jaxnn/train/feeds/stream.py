"""Steps on batches that come from outside of the compiled program, read and copied ahead of their use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_numpy, require_leading_axis
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.optim.spec import build, parted
from jaxnn.train.batches import Batch, one_of
from jaxnn.train.divergence import cause
from jaxnn.train.feeds.prefetch import prefetch
from jaxnn.train.feeds.sources import Item, Source
from jaxnn.train.memo import memoized
from jaxnn.train.meshes import put_rows, require_divided, with_specs
from jaxnn.train.pieces import Epoch, prepared, step_of
from jaxnn.train.step import TrainState
from jaxnn.types import Key, Loss, PyTree

AHEAD = 4
"""Steps that wait on the device: without a limit, all batches of an epoch would be copied to it at once."""


class StreamFeed:
    """A source of batches, with one compiled step for each."""

    def __init__(self, source: Source, epoch: Epoch, opt: Transformation) -> None:
        self.source, self.epoch, self.opt = source, epoch, opt
        self._first = _as_batch(*source.first(), None)
        self.example = one_of(self._first.x)
        self._shapes = _shapes_of(self._first)
        require_divided("fit", epoch.split, _size(self._first) * jax.process_count())
        self._structure, self._numbers = parted(opt)
        self._state: Any = None
        self._items: Any = None
        self._at = (0, 0)  # epoch and step of the next item

    @property
    def steps(self) -> int | None:
        return self.source.steps

    def targets(self) -> tuple[PyTree, PyTree]:
        return jax.tree.map(jnp.asarray, (self._first.x, self._first.y))

    def run(
        self, ts: TrainState, key: Key, epoch: int, first: int, count: int
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        reports: list[Any] = []
        items = self._opened(epoch, first)
        for i in range(first, first + count):
            found = next(items, None)
            if found is None:
                self._require_end(epoch, i)
                self._items = None
                break
            batch, self._state = found
            ts, report = self._step(ts, batch, key, i)
            reports.append(report)
            if len(reports) > AHEAD:
                jax.block_until_ready(reports[-AHEAD])
        self._at = (epoch, first + len(reports))
        reports = jax.device_get(reports)
        return ts, {name: np.stack([report[name] for report in reports]) for name in reports[0]} if reports else {}

    def cause(self, net: Layer, loss: Loss, before: TrainState, key: Key, first: int, step: int) -> str:
        def replay() -> Any:
            ts = jax.tree.map(jnp.copy, before)
            for i in range(first, step):
                ts, _ = self._step(ts, self._put(self._again(epoch_of, i))[0], key, i)
            batch = self._put(self._again(epoch_of, step))[0]
            return ts, *_gradient(self.epoch)(ts, batch, key, step)

        epoch_of = self._at[0]
        if self.source.again(epoch_of, first) is None:
            return (
                "What was not finite first is not known: the batches of an iterable cannot be drawn again. Look at the "
                "data, or pass a function of a Position."
            )
        return cause(net, loss, replay, before, step, checked=False)

    def state(self) -> Any:
        return self._state

    def resume(self, state: Any, epochs: int, step: int) -> None:
        self._state = state
        self.source.resume(state, epochs, step)

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._items is not None:
            self._items.close()
            self._items = None

    def _step(self, ts: TrainState, batch: Batch, key: Key, i: int) -> Any:
        epoch = self.epoch._replace(split=with_specs(self.epoch.split, ts))
        return _program(epoch, self._structure)(ts, batch, key, i, numbers=self._numbers)

    def _opened(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches from there on, on the device; those that wait, if they are the next."""
        if self._items is None or not (self.source.endless or self._at == (epoch, first)):
            self.close()
            self._items = prefetch(self.source.items(epoch, first), self._put)
        return self._items

    def _again(self, epoch: int, step: int) -> Item:
        found = self.source.again(epoch, step)
        if found is None:
            raise ValueError("fit: a source of batches that can be drawn again returned none.")
        return found

    def _put(self, item: Item) -> tuple[Batch, Any]:
        """A batch, checked, on the devices; and the state of the source after it."""
        batch = _as_batch(item.x, item.y, item.weights)
        if (found := _shapes_of(batch)) != self._shapes:
            raise ValueError(
                f"fit: all batches must have the shapes of the first, {self._shapes}, got {found}: drop or pad a "
                "smaller last batch (drop_remainder=True, drop_last=True)."
            )
        return put_rows(batch, self.epoch.split), item.state

    def _require_end(self, epoch: int, step: int) -> None:
        """Raise ValueError unless an epoch may end before this step (from 0)."""
        expected = self.source.steps
        if (expected is not None and step < expected) or step == 0:
            of = "" if expected is None else f" of {expected}"
            raise ValueError(
                f"fit: the training data ended after {step}{of} batches of epoch {epoch}: an iterator can be passed "
                f"once. Pass an iterable that begins anew, such as a list or a loader{_or_fewer(step)}."
            )


def _or_fewer(step: int) -> str:
    return f", or steps_per_epoch <= {step}" if step else ""


@memoized
def _program(epoch: Epoch, structure: Any) -> Any:
    """One step of every optimizer of that structure, compiled: that of the scan over examples on the device."""

    def step(ts: TrainState, batch: Batch, key: Key, i: Any, *, numbers: Any) -> Any:
        one = step_of(epoch, build(structure, numbers))
        ready, net_key = prepared(epoch, batch, jax.random.split(key)[1], i)
        ts, report = one(ts, ready.x, ready.y, key=net_key, weights=ready.weights)
        examples = jnp.float32(_size(batch)) if ready.weights is None else jnp.sum(ready.weights)
        return ts, report | {"examples": examples}

    return jax.jit(step, donate_argnums=0)


@memoized
def _gradient(epoch: Epoch) -> Any:
    """The batch of a step as the network takes it, and the gradient, to diagnose a divergence."""

    def gradient(ts: TrainState, batch: Batch, key: Key, i: Any) -> Any:
        ready, net_key = prepared(epoch, batch, jax.random.split(key)[1], i)
        grads = epoch.vg(ts.params, ts.state, ready.x, ready.y, key=net_key, weights=ready.weights)[1]
        return (ready.x, ready.y, net_key), grads

    return jax.jit(gradient)


def _as_batch(x: Any, y: Any, weights: Any) -> Batch:
    """A batch as arrays, those on the host in the dtypes that they have on the device."""
    batch = Batch(_arrays("x", x), _arrays("y", y), weights)
    _size(batch)
    return batch


def _size(batch: Batch) -> int:
    """The number of examples; raises ValueError unless each array has an entry for each."""
    return require_leading_axis("fit", "x and y of a batch", (batch.x, batch.y))


def _arrays(name: str, value: Any) -> PyTree:
    """Nested lists and tuples of numbers are one array."""

    def leaf(x: Any) -> Any:
        if isinstance(x, jax.Array):
            return x
        array = as_numpy("fit", f"train {name}", x)
        return np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))

    if isinstance(value, list) or not any(hasattr(each, "shape") for each in jax.tree.leaves(value)):
        return leaf(value)
    return jax.tree.map(leaf, value)


def _shapes_of(batch: Batch) -> str:
    x, y = (
        ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(part)) for part in (batch.x, batch.y)
    )
    return f"x {x} and y {y}"

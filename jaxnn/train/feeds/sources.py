"""Streams of batches from outside of the compiled program: what they are, and how a run goes on in them.

| training data | a batch is | to go on |
|---|---|---|
| an object with `rows(indices)` and `len`: `data.memmap` | rows of the permuted epoch | its position is enough |
| a function of a `Position` | what it returns | its position is enough |
| an iterable whose iterators have `get_state` and `set_state` (grain) | the next item | the state is saved |
| any other iterable | the next item | all items before are drawn again, and dropped |
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxnn.checks import require_positive_int
from jaxnn.data import Partial, batch_indices
from jaxnn.train.keys import epoch_key
from jaxnn.train.meshes import local_rows, require_divided
from jaxnn.train.pieces import Epoch
from jaxnn.types import Key, PyTree


class Position(NamedTuple):
    """The place of a batch in a run.

    Attributes:
        seed: of the run: the number that its key was made of, `jax.random.key(seed)`; of a split one, of its words.
        epoch: from 1.
        step: of the epoch, from 0.
    """

    seed: int
    epoch: int
    step: int


class Item(NamedTuple):
    """A batch on the host, weights of its examples or None, and the state of its source after it."""

    x: PyTree
    y: PyTree
    weights: Any
    state: Any


class Source(Protocol):
    """Batches on the host, in order."""

    @property
    def steps(self) -> int | None:
        """Batches of an epoch; None if only its end tells."""

    @property
    def endless(self) -> bool:
        """Whether `items` goes on from epoch to epoch."""

    def first(self) -> tuple[PyTree, PyTree]:
        """The first batch, or one like it."""

    def items(self, epoch: int, step: int) -> Iterator[Item]:
        """The batches of an epoch from a step on; of an endless source, all that follow."""

    def again(self, epoch: int, step: int) -> Item | None:
        """One batch once more; None if the source cannot."""

    def resume(self, state: Any, epochs: int, step: int) -> None:
        """Go on after that many epochs and steps, where the source had that state."""


class RowSource:
    """Rows by their indices, in the orders of `batch_indices`, as examples on the device have them."""

    endless = False

    def __init__(self, rows: Any, key: Key, epoch: Epoch) -> None:
        self._rows, self._key, self._epoch, n = rows, key, epoch, len(rows)
        size, partial = epoch.batch_size, epoch.partial
        self._indices = functools.partial(batch_indices, n=n, batch_size=size, partial=partial)
        self.steps: int | None = jax.eval_shape(self._indices, key)[0].shape[0]  # with its checks
        self._mine = local_rows(epoch.split, size)
        self._order: tuple[int, Any, Any] = (0, None, None)

    def first(self) -> tuple[PyTree, PyTree]:
        return pair_of(self._rows.rows(self._mine % len(self._rows)))

    def items(self, epoch: int, step: int) -> Iterator[Item]:
        return (self.again(epoch, i) for i in range(step, self.steps or 0))

    def again(self, epoch: int, step: int) -> Item:
        if self._order[0] != epoch:
            order_key, _ = jax.random.split(epoch_key(self._key, epoch))
            indices, weights = self._indices(order_key)
            self._order = (epoch, np.asarray(indices), np.asarray(weights))
        _, indices, weights = self._order
        x, y = pair_of(self._rows.rows(indices[step][self._mine]))
        return Item(x, y, weights[step][self._mine] if self._epoch.partial is Partial.WEIGHT else None, None)

    def resume(self, state: Any, epochs: int, step: int) -> None:
        """A batch is a function of the key, the epoch and the step."""


class FunctionSource:
    """Batches as a pure function of their position."""

    endless = False

    def __init__(self, batches: Callable[[Position], Any], key: Key, steps: int | None) -> None:
        if steps is None:
            raise ValueError(
                "fit: how many batches of a function are an epoch? Pass steps_per_epoch, e.g. steps_per_epoch=1000."
            )
        self._batches, self._seed = batches, seed_of(key)
        self.steps: int | None = steps

    def first(self) -> tuple[PyTree, PyTree]:
        item = self.again(1, 0)
        return item.x, item.y

    def items(self, epoch: int, step: int) -> Iterator[Item]:
        return (self.again(epoch, i) for i in range(step, self.steps or 0))

    def again(self, epoch: int, step: int) -> Item:
        return Item(*pair_of(self._batches(Position(self._seed, epoch, step))), None, None)

    def resume(self, state: Any, epochs: int, step: int) -> None:
        """A batch is a function of its position."""


class IterableSource:
    """Batches as they come. Without `steps` each epoch is one pass; with it, passes follow each other."""

    def __init__(self, batches: Iterable[Any], steps: int | None) -> None:
        self._batches, self._asked, self.endless = batches, steps, steps is not None
        length = len(batches) if isinstance(batches, Sized) else None
        self.steps: int | None = length if steps is None else steps
        self._pass: Iterator[Any] | None = None
        self._begun = 0  # passes: a loader may count them, or shuffle anew in each
        self._stream: Iterator[Item] | None = None

    def first(self) -> tuple[PyTree, PyTree]:
        began = self._began()
        state = _state_of(began)
        try:
            batch = next(began)
        except StopIteration:
            raise ValueError("fit: the training data have no batch: the iterable was empty at once.") from None
        if state is None:
            self._pass = itertools.chain([batch], began)
        else:
            began.set_state(state)  # type: ignore[attr-defined] # as it has get_state
            self._pass = began
        return pair_of(batch)

    def items(self, epoch: int, step: int) -> Iterator[Item]:
        if self._asked is None:
            return self._one_pass()
        if self._stream is None:
            self._stream = self._passes()
        return self._stream

    def again(self, epoch: int, step: int) -> Item | None:
        return None

    def resume(self, state: Any, epochs: int, step: int) -> None:
        if state is not None:
            began = self._began()
            while self._begun < state["pass"]:
                began = self._began()
            ended = self._asked is None and not step  # then the next pass begins anew
            if not ended or began is self._batches:
                began.set_state(_decoded(state))  # type: ignore[attr-defined] # it had get_state when it was saved
            self._pass = None if ended else began
            self._stream = self._passes(may_have_ended=True)
            return
        if self._asked is None:
            for _ in range(epochs):
                for _ in self._one_pass():
                    pass
            began = self._began()
            self._pass = itertools.islice(began, step, None)
        else:
            self._stream = itertools.islice(self._passes(), epochs * self._asked + step, None)

    def _began(self) -> Iterator[Any]:
        """The pass that was begun, or a new one."""
        began, self._pass = self._pass, None
        if began is not None:
            return began
        self._begun += 1
        return iter(self._batches)

    def _one_pass(self) -> Iterator[Item]:
        began = self._began()
        while True:
            try:
                batch = next(began)  # no `for`, by which an iterable that is its own iterator would begin anew
            except StopIteration:
                return
            state = _state_of(began)
            yield Item(*pair_of(batch), None, None if state is None else {"pass": self._begun, **_encoded(state)})

    def _passes(self, *, may_have_ended: bool = False) -> Iterator[Item]:
        while True:
            empty = True
            for item in self._one_pass():
                empty = False
                yield item
            if empty and not may_have_ended:  # an iterator can be passed once
                return
            may_have_ended = False  # as may the pass that a run was saved in, but no other


def pair_of(batch: Any) -> tuple[PyTree, PyTree]:
    """A batch as (x, y); raises TypeError for anything else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else "")
        raise TypeError(f"fit: each batch of the training data must be a pair (x, y), got {got}.")
    return batch[0], batch[1]


def seed_of(key: Key) -> int:
    """The number that a key was made of: seed for `jax.random.key(seed)`, 0 <= seed < 2**32, of each implementation.

    Of another key, such as one that `jax.random.split` made, the number of its words: up to 64 bits, or 128 of "rbg".
    """
    words = np.asarray(jax.random.key_data(key)).astype(">u4")
    half = len(words) // 2
    if half > 1 and (words[:half] == words[half:]).all():  # "rbg" has the words of threefry twice
        words = words[:half]
    return int.from_bytes(words.tobytes(), "big")


def source_of(train: Any, key: Key, epoch: Epoch, steps: int | None) -> Source | None:
    """The training data as a stream; None if they are arrays, or drawn on the device."""
    if steps is not None:
        require_positive_int("fit", "steps_per_epoch", steps)
    if hasattr(train, "rows") and hasattr(train, "__len__"):
        if steps is not None:
            raise ValueError("fit: steps_per_epoch is of batches that have no number; the rows tell the steps.")
        require_divided("fit", epoch.split, epoch.batch_size)
        return RowSource(train, key, epoch)
    if hasattr(train, "shape") or hasattr(train, "x") or isinstance(train, str | bytes | dict | tuple):
        return None
    if isinstance(train, list) and not (train and all(isinstance(each, tuple) and len(each) == 2 for each in train)):
        return None
    if isinstance(train, Iterable):
        return IterableSource(train, steps)
    if callable(train):
        return FunctionSource(train, key, steps)
    return None


def _state_of(iterator: Any) -> Any:
    """The state of an iterator that can be set back to it; None for others."""
    return iterator.get_state() if hasattr(iterator, "get_state") and hasattr(iterator, "set_state") else None


def _encoded(state: Any) -> dict[str, Any]:
    """A state as JSON."""
    if isinstance(state, bytes):
        return {"base64": base64.b64encode(state).decode()}
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"fit: get_state of the training data must return what json.dumps takes, or bytes, got {error}."
        ) from None
    return {"json": state}


def _decoded(state: Any) -> Any:
    return base64.b64decode(state["base64"]) if "base64" in state else state["json"]

"""A chunk of runs in stages: its epochs in pieces, saved in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn.train.saving.pace import Pace
from jaxnn.train.saving.signals import Stopped, StopSignals
from jaxnn.train.sweeps.staged import Stages, joined
from jaxnn.train.sweeps.store import Store
from jaxnn.types import PyTree


class Runs(Protocol):
    """The inputs of runs, as `map_program` has them."""

    mesh: Mesh
    shared: PyTree

    def take(self, start: int, stop: int, size: int) -> PyTree:
        """Inputs start to stop - 1, padded to `size`, on the devices."""


class StagedProgram:
    """The compiled functions of runs in stages, for chunks of one size."""

    def __init__(
        self, stages: Stages, runs: Runs, size: int, jitted: Callable[[Callable[..., PyTree], int], Any]
    ) -> None:
        self._stages, self._runs, self._size, self._jitted = stages, runs, size, jitted
        at = self._begun(runs.take(0, size, size))
        self.one = self._jit(stages.piece(1)).lower(at, jnp.int32(0), *runs.shared).compile()
        """One epoch, whose memory is that of all."""

    def call(self, start: int, stop: int, store: Store, pace: Pace, signals: StopSignals | None) -> PyTree:
        """The outputs of runs start to stop - 1, from where the store has them.

        Raises:
            Stopped: a signal came; what was done is saved.
        """
        given = self._runs.take(start, stop, self._size)
        at = self._begun(given)
        done, reports = 0, list[PyTree]()
        if (saved := store.unfinished(start, stop, self._size, at[0], self._reports)) is not None:
            done, carry, so_far = saved
            at, reports = (carry, given), [so_far]
        while done < self._stages.epochs:
            count = pace.length(done, self._stages.epochs - done, self._stages.epochs)
            program = self.one if count == 1 else self._jit(self._stages.piece(count))
            began = time.perf_counter()
            carry, part = program(at, jnp.int32(done), *self._runs.shared)
            reports.append(jax.tree.map(np.asarray, jax.device_get(part)))
            pace.ran(count, time.perf_counter() - began)
            if signals is not None:
                signals.arm()
            at, done = (self._placed(carry), given), done + count
            if done == self._stages.epochs:
                break  # the caller saves what they return, and looks for signals after
            name = signals.look() if signals is not None else ""
            if pace.due(done) or name:
                reports = [joined(reports)]
                store.save_unfinished(start, stop, self._size, done, at[0], reports[0])
                pace.saved()
            if name:
                raise Stopped(name, store.folder)
        found = (joined(reports), *self._jit(self._stages.end)(at, *self._runs.shared))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], jax.device_get(found))

    def _reports(self) -> PyTree:
        """The shapes and dtypes of the reports of one epoch."""
        at = self._begun(self._runs.take(0, self._size, self._size))
        return jax.eval_shape(self._jit(self._stages.piece(1)), at, jnp.int32(0), *self._runs.shared)[1]

    def _begun(self, given: PyTree) -> tuple[PyTree, PyTree]:
        return self._placed(self._jit(self._stages.begin)(given, *self._runs.shared)), given

    def _placed(self, carry: PyTree) -> PyTree:
        """Split along the runs, as the compiled epoch wants it."""
        return jax.device_put(carry, NamedSharding(self._runs.mesh, PartitionSpec("runs")))

    def _jit(self, function: Callable[..., PyTree]) -> Any:
        return self._jitted(function, self._runs.mesh.size)

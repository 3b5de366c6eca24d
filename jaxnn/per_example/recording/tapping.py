"""A loss of one example with taps at the uses of its parameters, and these uses from one backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.reading import Reading
from jaxnn.per_example.recording.running import replay, tap, taps_of, uses_at_sites
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.placement import explicit_spec
from jaxnn.tape import Use, Whole
from jaxnn.types import Array, PyTree
from jaxnn.varying import varying_axes


@dataclasses.dataclass(frozen=True)
class Tapped:
    """The loss of one example, with a tap at each use of a parameter in `reading` and at each parameter that falls
    back. Parameters that are in neither are constants."""

    found: Traced
    given: Arguments
    reading: Reading

    def zeros(self) -> PyTree:
        """The taps (N, ...)."""
        axes = varying_axes(self.given.leaves, self.given.mapped)

        def of_one(mapped: list[Any]) -> tuple[PyTree, PyTree]:
            whole = {i: tap(jax.typeof(_gathered(self.given.leaves[i])), axes) for i in self.reading.fallen}
            return taps_of(self.reading, axes), whole

        return jax.vmap(of_one, in_axes=(self.given.axes,), axis_size=self.given.examples)(self.given.mapped)

    def __call__(self, taps: PyTree, leaves: Sequence[Array], mapped: list[Any]) -> tuple[Array, PyTree, PyTree]:
        """(the loss, the `seen` of each use, aux) of one example."""
        at_sites, at_leaves = taps
        shifted = [_gathered(leaf) + at_leaves[i] if i in at_leaves else leaf for i, leaf in enumerate(leaves)]
        results, seen = replay(self.reading, self.found.consts, at_sites, [*shifted, *mapped])
        return results[0], seen, self.found.aux(results[1:])

    def uses(self, seen: PyTree, deltas: PyTree, leaves: Sequence[Array]) -> tuple[tuple[Use, ...], ...]:
        """The uses of each parameter, from `seen`, the derivatives with respect to the taps, both (N, ...), and the
        parameters."""
        # A parameter keeps all its uses, in the order of the jaxpr: its gradient is their sum, and a statistic must
        # join them before it squares (`forms.joined`). One that falls back has a single use, `Whole`: its tap is at the
        # parameter itself, so the derivative is the sum already.
        found: list[list[Use]] = [[] for _ in self.given.leaves]
        for leaf, use in uses_at_sites(self.reading, seen, deltas[0], leaves):
            found[leaf].append(use)
        for leaf, reason in self.reading.fallen.items():
            found[leaf].append(Whole(deltas[1][leaf], reason))
        return tuple(map(tuple, found))


def _gathered(leaf: Array) -> Array:
    """A parameter of which each example has a copy: the copies are sharded by examples, not by their own axes."""
    return leaf if explicit_spec(leaf) is None else jax.sharding.reshard(leaf, PartitionSpec())

"""The loss of one example with the streaming rule at the uses of most parameters, and taps at those of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr

from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.preparing import reading_of
from jaxnn.per_example.recording.reading import Reading
from jaxnn.per_example.recording.tapping import Tapped
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.per_example.streaming.rule import Asked, Local, Row
from jaxnn.per_example.streaming.running import replay
from jaxnn.per_example.streaming.sites import local_reading, streamed_leaves
from jaxnn.tape import Use
from jaxnn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Program:
    """The loss of one example.

    Attributes:
        streamed: the indices of the parameters that are streamed.
        reading, consts: their uses in the jaxpr of (*parameters, *taps, *other arrays) -> (loss, *seen, *aux).
        structure: of (loss, seen, aux).
        tapped: the loss with taps at the uses of the other parameters; None if there are none.
        taps: these taps, (N, ...).
    """

    streamed: frozenset[int]
    reading: Reading
    consts: Sequence[Any]
    structure: Any
    tapped: Tapped | None
    taps: PyTree

    def __call__(
        self,
        asked: Asked,
        leaves: Sequence[Array],
        taps: PyTree,
        locals_: dict[int, Local],
        row: Row,
        mapped: list[Any],
    ) -> tuple[Array, PyTree, PyTree]:
        """(the loss, the `seen` of tapped uses, aux) of one example."""
        operands = [*leaves, *jax.tree.leaves(taps), *mapped]
        bases = {self.reading.jaxpr.invars[i]: local for i, local in locals_.items()}
        return jax.tree.unflatten(self.structure, replay(self.reading, asked, self.consts, operands, bases, row))

    def rest(self, seen: PyTree, deltas: PyTree) -> dict[int, tuple[Use, ...]]:
        """The uses of the parameters that are not streamed."""
        if self.tapped is None:
            return {}
        return {
            i: uses
            for i, uses in enumerate(self.tapped.uses(seen, deltas, self.tapped.given.leaves))
            if i not in self.streamed
        }


def program_of(found: Traced, given: Arguments) -> Program:
    """The program of a traced loss."""
    count = len(given.leaves)
    streamed = frozenset(streamed_leaves(found.jaxpr, given.leaves))
    if len(streamed) == count:
        structure: list[Any] = []

        def shaped(results: list[Any]) -> None:
            structure.append(jax.tree.structure((results[0], (), found.aux(results[1:]))))

        shaped(list(range(len(found.jaxpr.outvars))))
        reading = local_reading(found.jaxpr, given.leaves, streamed)
        return Program(streamed, reading, found.consts, structure[0], None, ())
    tapped = Tapped(found, given, reading_of(found.jaxpr, given.leaves, set(range(count)) - streamed))
    taps = tapped.zeros()
    jaxpr, consts, tree = _traced(tapped, given, taps)
    return Program(streamed, local_reading(jaxpr, given.leaves, streamed), consts, tree, tapped, taps)


def _traced(tapped: Tapped, given: Arguments, taps: PyTree) -> tuple[Jaxpr, Sequence[Any], Any]:
    """The jaxpr of the tapped loss of one example, traced under `vmap` for the types that its arrays have there."""
    traces: list[Any] = []

    def of_one(taps: PyTree, mapped: list[Any]) -> None:
        traces.append(jax.make_jaxpr(flat)(list(given.leaves), jax.tree.leaves(taps), mapped))

    def flat(leaves: list[Any], flat_taps: list[Any], mapped: list[Any]) -> list[Any]:
        results, tree = jax.tree.flatten(tapped(jax.tree.unflatten(structure, flat_taps), leaves, mapped))
        trees.append(tree)
        return results

    structure = jax.tree.structure(taps)
    trees: list[Any] = []
    jax.vmap(of_one, in_axes=(0, given.axes))(taps, given.mapped)
    return traces[-1].jaxpr, traces[-1].consts, trees[-1]

"""Which parameters are streamed: those of which no two uses share an entry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

from jax.extend.core import Jaxpr

from jaxnn.ops.views import View
from jaxnn.per_example.recording.inner import Body
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.preparing import reading_of
from jaxnn.per_example.recording.reading import Reading, Site


def streamed_leaves(jaxpr: Jaxpr, leaves: Sequence[Any]) -> set[int]:
    """The indices of the parameters whose squared norm is the sum over their uses: all iterations of a loop over their
    slices count as one use, iterations that share them as several. Those that are not used are among them."""
    reading = reading_of(jaxpr, leaves)
    used: dict[int, list[Param]] = {i: [] for i in range(len(leaves)) if i not in reading.fallen}
    for site in all_sites(reading):
        for part in site.parts:
            used[part.param.leaf].append(part.param)
    alone = {
        i
        for i, params in used.items()
        if all(all(param.stacked) for param in params)
        and all(one.view.apart_from(other.view) for one, other in itertools.combinations(params, 2))
    }
    return alone - set(local_reading(jaxpr, leaves, alone).fallen)


def slices_of(jaxpr: Jaxpr, leaves: Sequence[Any]) -> list[int]:
    """For each parameter the number of slices that are streamed one by one; 1 for all others."""
    found = [0] * len(leaves)
    alone = streamed_leaves(jaxpr, leaves)
    for site in all_sites(reading_of(jaxpr, leaves)):
        for part in site.parts:
            found[part.param.leaf] += math.prod(part.param.view.shape[: part.param.loops])
    return [max(count, 1) if i in alone else 1 for i, count in enumerate(found)]


def local_reading(jaxpr: Jaxpr, leaves: Sequence[Any], chosen: Set[int]) -> Reading:
    """The uses of some parameters; inside a loop over slices the slice takes the place of the parameter."""
    return reading_of(jaxpr, leaves, chosen, _as_slice)


def all_sites(reading: Reading) -> Iterator[Site]:
    """The uses in a jaxpr and in the bodies of its equations."""
    yield from reading.sites.values()
    for _, inside in reading.inside.values():
        yield from all_sites(inside)


def _as_slice(body: Body, i: int, param: Param) -> Param | None:
    entered = body.entered(i, param)
    if entered is None or not body.loop:
        return entered
    # The gradient of a view that repeats entries has other norms than that of the parameter.
    if not entered.stacked[-1] or param.view.repeats:
        return None
    return Param(param.leaf, View(param.shape[1:]), base=body.jaxpr.invars[i], outer=param.outer * param.scale)

"""Evaluation of a loss with a tap at each use of a parameter.

A tap is a zero added to the result of an operation with a parameter: the derivative with respect to it is the cotangent
there, and no gradient of a parameter is ever formed. It is -0.0, since x + -0.0 is x for every x, while -0.0 + 0.0
would be 0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn
from jax.sharding import PartitionSpec

from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.reading import Reading, Site
from jaxnn.per_example.recording.rule import evaluated, interpreted
from jaxnn.placement import filled_as, foreign_mesh
from jaxnn.tape import Use
from jaxnn.types import Array, PyTree, Shape
from jaxnn.varying import vary


def tap(kind: Any, axes: frozenset[str], loops: Shape = ()) -> Array:
    """A tap: -0.0 of one example's type `kind`, with leading axes for loops, varying over the mesh axes `axes`."""
    # If it did not vary, its derivative inside `jax.shard_map` would be summed over the devices: rows of different
    # examples would be added.
    return vary(filled_as(kind, -0.0, loops), axes)


def taps_of(reading: Reading, axes: frozenset[str], loops: Shape = ()) -> dict[int, Any]:
    """The taps of one example, by the index of the equation."""
    results: dict[int, Any] = {i: site.equation.outvars[0] for i, site in reading.sites.items()}
    taps: dict[int, Any] = {i: tap(v.aval, axes, loops) for i, v in results.items()}
    for i, (body, inside) in reading.inside.items():
        length = (reading.jaxpr.eqns[i].params["length"],) if body.loop else ()
        taps[i] = taps_of(inside, axes, (*loops, *length))
    return taps


def replay(reading: Reading, consts: Sequence[Any], taps: PyTree, operands: Sequence[Any]) -> tuple[list[Any], PyTree]:
    """Evaluates the jaxpr with its taps: (results, the `seen` of each site, by the index of the equation)."""
    seen: dict[int, PyTree] = {}

    def evaluate(i: int, equation: JaxprEqn, given: list[Any]) -> Sequence[Any]:
        if i in reading.inside:
            body, inside = reading.inside[i]

            def inner(taps: PyTree, *operands: Any) -> Any:
                return replay(inside, body.consts, taps, operands)

            results, seen[i] = body.around(inner, taps[i], given)
            return results
        results = evaluated(equation, given)
        if i in reading.sites:
            result, seen[i] = _tapped(reading.sites[i], results[0], taps[i], [*given, *results[1:]])
            return [result, *results[1:]]
        return results

    return interpreted(reading.jaxpr, consts, operands, evaluate), seen


def _tapped(site: Site, result: Array, zeros: Array, operands: Sequence[Any]) -> tuple[Array, PyTree]:
    """(the result of a site plus its tap, its `seen`)."""
    mesh = foreign_mesh(result, jax.sharding.get_abstract_mesh())
    if mesh is None:
        return result + zeros, site.rule.seen(site.equation, site.at, operands)
    with jax.sharding.use_abstract_mesh(mesh):
        result = result + jax.sharding.reshard(zeros, PartitionSpec())
        seen = site.rule.seen(site.equation, site.at, operands)
    return result, jax.tree.map(lambda x: jax.sharding.reshard(x, PartitionSpec()), seen)


def uses_at_sites(reading: Reading, seen: PyTree, deltas: PyTree, leaves: Sequence[Array]) -> list[tuple[int, Use]]:
    """(parameter, use) of each site, in the order of the equations, from arrays (N, loops..., ...)."""
    found: list[tuple[int, Use]] = []
    for i in sorted([*reading.sites, *reading.inside]):
        if i in reading.inside:
            found += uses_at_sites(reading.inside[i][1], seen[i], deltas[i], leaves)
            continue
        site = reading.sites[i]
        # Concatenated parameters make one use each: w1 and w2 in x @ [w1, w2] see the same x, and their parts of delta.
        # All uses of one parameter meet in `forms.joined`.
        for part in site.parts:
            param, delta = part.param, part.of_result(deltas[i])
            if param.scale != 1:
                delta = delta * np.asarray(param.scale, delta.dtype)
            given = part.of_seen(seen[i])
            if site.rule.takes_value:
                given = given, value_of(param, leaves[param.leaf], site)
            found.append((param.leaf, site.rule.use(site.equation, site.at, param, given, delta)))
    return found


def value_of(param: Param, leaf: Array, site: Site) -> Array:
    """The operand of a site that is a view of a parameter."""
    operand: Any = site.equation.invars[site.at]
    value = param.view(leaf)
    return (value if param.scale == 1 else value * np.asarray(param.scale, leaf.dtype)).astype(operand.aval.dtype)

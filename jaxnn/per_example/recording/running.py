"""Running a loss that was read: its own computation, with a tap at each use of a parameter.

A tap is a zero added to what an operation with a parameter puts out: the derivative with respect to it is the error
there, and no gradient of a parameter is ever formed. It is the zero below 0, -0.0, which alone changes no number it is
added to, not even 0.0 or -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal
from jax.sharding import PartitionSpec

from jaxnn.per_example.recording.reading import Reading, Site
from jaxnn.per_example.recording.rule import evaluated
from jaxnn.placement import filled_as
from jaxnn.tape import Use
from jaxnn.types import Array, PyTree, Shape
from jaxnn.varying import vary


def tap(kind: Any, axes: frozenset[str], loops: Shape = ()) -> Array:
    """What changes nothing that it is added to, for the loops around it too.

    It varies over the mesh axes over which the examples do. If it did not, its derivative inside `jax.shard_map` would
    be the sum over the devices: examples of different devices would be added up.

    Args:
        kind: the type of one example's array that it is added to.
        axes: the mesh axes over which the examples vary.
        loops: the lengths of the loops.
    """
    return vary(filled_as(kind, -0.0, loops), axes)


def taps_of(reading: Reading, axes: frozenset[str], loops: Shape = ()) -> dict[int, Any]:
    """All taps of one example, by the index of the equation."""
    results: dict[int, Any] = {i: site.equation.outvars[0] for i, site in reading.sites.items()}
    taps: dict[int, Any] = {i: tap(v.aval, axes, loops) for i, v in results.items()}
    for i, (body, inside) in reading.inside.items():
        length = (reading.jaxpr.eqns[i].params["length"],) if body.loop else ()
        taps[i] = taps_of(inside, axes, (*loops, *length))
    return taps


def replay(reading: Reading, consts: Sequence[Any], taps: PyTree, operands: Sequence[Any]) -> tuple[list[Any], PyTree]:
    """(results, what the uses of parameters saw, by the index of the equation)."""
    jaxpr, seen = reading.jaxpr, {}
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else values[v]

    for i, equation in enumerate(jaxpr.eqns):
        given = [value(v) for v in equation.invars]
        if i in reading.inside:
            body, inside = reading.inside[i]

            def inner(taps: PyTree, *operands: Any, inside: Reading = inside, consts: Any = body.consts) -> Any:
                return replay(inside, consts, taps, operands)

            results, seen[i] = body.around(inner, taps[i], given)
        else:
            results = evaluated(equation, given)
        if i in reading.sites:
            result, seen[i] = _tapped(reading.sites[i], results[0], taps[i], given)
            results = [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars], seen


def _tapped(site: Site, result: Array, zeros: Array, operands: Sequence[Any]) -> tuple[Array, PyTree]:
    """(the result of a site and its tap, what the use saw)."""
    mesh, current = jax.typeof(result).sharding.mesh, jax.sharding.get_abstract_mesh()
    # Inside jit, arrays on an Auto mesh carry it in their types where no mesh is set.
    if mesh.empty or current.empty or mesh.axis_types == current.axis_types:
        return result + zeros, site.rule.seen(site.equation, site.at, operands)
    # Inside `jax.sharding.auto_axes`, as in `w.at[i].get(out_sharding=...)`, arrays have types of another mesh.
    with jax.sharding.use_abstract_mesh(mesh):
        result = result + jax.sharding.reshard(zeros, PartitionSpec())
        seen = site.rule.seen(site.equation, site.at, operands)
    return result, jax.tree.map(lambda x: jax.sharding.reshard(x, PartitionSpec()), seen)


def uses_at_sites(reading: Reading, seen: PyTree, deltas: PyTree) -> list[tuple[int, Use]]:
    """For each site its parameter and the use, in the order of the equations; arrays (N, loops..., ...)."""
    found: list[tuple[int, Use]] = []
    for i in sorted([*reading.sites, *reading.inside]):
        if i in reading.inside:
            found += uses_at_sites(reading.inside[i][1], seen[i], deltas[i])
            continue
        site = reading.sites[i]
        for part in site.parts:
            param, delta = part.param, part.of_result(deltas[i])
            if param.scale != 1:
                delta = delta * np.asarray(param.scale, delta.dtype)
            use = site.rule.use(site.equation, site.at, param, part.of_seen(seen[i]), delta)
            found.append((param.leaf, use))
    return found

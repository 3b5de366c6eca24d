"""The memory of a function's intermediate arrays, from its jaxpr: without compiling, on any platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from jaxnn.types import PyTree


def peak_bytes(f: Callable[..., PyTree], *args: PyTree) -> int:
    """The peak memory of f's intermediate arrays and results, in bytes; args may be `jax.ShapeDtypeStruct`.

    Operations run in the order of the jaxpr; each result is an array of its own, freed after its last use. Arguments
    are not counted. A compiler that fuses operations needs less; one that reorders or pads them may need more.
    """
    return _peak(jax.make_jaxpr(f)(*args).jaxpr)


def fitting_size(f: Callable[..., PyTree], data: tuple[PyTree, ...], memory: int) -> int:
    """A number of examples of data (N, ...) for which `peak_bytes` of f is at most `memory`; ValueError if none.

    It is the largest if the bytes are affine in the number of examples.
    """
    leaves = jax.tree.leaves(data)
    size = leaves[0].shape[0]
    while True:
        few = jax.tree.map(lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), data)
        need = peak_bytes(f, *few)
        if need <= memory:
            return size
        if size == 1:
            raise ValueError(
                f"over_microbatches: memory must hold at least one example, whose intermediate arrays take {need:,} "
                f"bytes, got {memory:,}."
            )
        size = max(1, min(size - 1, int(size * memory / need)))


def _peak(jaxpr: Jaxpr) -> int:
    last: dict[Any, int] = {}
    for i, equation in enumerate(jaxpr.eqns):
        last |= {v: i for v in equation.invars if not isinstance(v, Literal)}
    last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, Literal)}
    alive: dict[Any, int] = {}
    most = 0
    for i, equation in enumerate(jaxpr.eqns):
        inside = max([0, *(_peak(body) for body in _bodies(equation))])
        results = {v: _bytes(v) for v in equation.outvars}
        most = max(most, sum(alive.values()) + max(inside, sum(results.values())))
        alive |= {v: size for v, size in results.items() if last.get(v, -1) > i}
        alive = {v: size for v, size in alive.items() if last[v] > i}
    return most


def _bodies(equation: Any) -> list[Jaxpr]:
    """The jaxprs among an equation's settings."""
    settings = [x for value in equation.params.values() for x in (value if isinstance(value, tuple) else (value,))]
    bodies = [getattr(value, "jaxpr", value) for value in settings]
    return [body for body in bodies if isinstance(body, Jaxpr)]


def _bytes(v: Any) -> int:
    if not hasattr(v.aval, "shape") or not hasattr(v.aval.dtype, "itemsize"):
        return 0
    return int(v.aval.size * v.aval.dtype.itemsize)

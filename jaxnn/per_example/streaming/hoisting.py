"""Clip functions without the arrays that they close over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxnn.per_example.clip import Clip
from jaxnn.per_example.sums import factors_of
from jaxnn.types import Array, DType, PyTree, Scalar


class Hoisted(NamedTuple):
    """A clip function as a function of (bound, norms), bound the arrays, possibly traced, that it closed over."""

    function: Callable[[PyTree, Array], Array]
    bound: PyTree


def hoisted(clip: Scalar | Clip, dtype: DType) -> Hoisted:
    """The factors of a bound or an element-wise clip function, without closed-over tracers: the backward rule is traced
    where these are unknown.

    Raises:
        ValueError: a function that does not map one norm (1,) to one factor (1,); one that closes over traced arrays,
            on a mesh with Explicit axes.
    """
    if not callable(clip):
        return Hoisted(factors_of, clip)
    closed = jax.make_jaxpr(functools.partial(factors_of, clip))(jax.ShapeDtypeStruct((1,), dtype))
    if [v.aval.shape for v in closed.jaxpr.outvars] != [(1,)]:
        raise ValueError(
            "clipped_value_and_grad: a clip function must map norms (n,) to factors (n,), element by element, got "
            f"{[v.aval.shape for v in closed.jaxpr.outvars]} for norms (1,)."
        )
    if not any(isinstance(x, jax.core.Tracer) for x in closed.consts):
        return Hoisted(lambda _, norms: factors_of(clip, norms.astype(dtype)).astype(norms.dtype), ())
    if jax.sharding.get_abstract_mesh().explicit_axes:
        # The jaxpr has Explicit types, the backward rule Auto ones.
        raise ValueError(
            "clipped_value_and_grad: on a mesh with Explicit axes, expected a clip function of known numbers, got one "
            "that closes over traced arrays. Pass the bound C itself, or passes=2."
        )
    inner = closed.jaxpr.replace(constvars=(), invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars])
    run = jaxpr_as_fun(ClosedJaxpr(inner, ()))

    def of_all(bound: PyTree, norms: Array) -> Array:
        found = jax.vmap(lambda n: run(*bound, n[None])[0][0])(norms.astype(dtype))
        return found.astype(norms.dtype)

    return Hoisted(of_all, tuple(jnp.asarray(x) for x in closed.consts))

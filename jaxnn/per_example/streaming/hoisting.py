"""Clip functions without the arrays that they close over."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxnn.per_example.clip import Clip
from jaxnn.types import Array, DType, PyTree


class Hoisted(NamedTuple):
    """A clip function as a function of (bound, norms), bound the arrays, possibly traced, that it closed over."""

    function: Callable[[PyTree, Array], Array]
    bound: PyTree


def hoisted(clip: Clip, dtype: DType) -> Hoisted:
    """The clip function, element-wise, without closed-over arrays: the backward rule is traced where these are unknown.

    Raises:
        ValueError: a function that does not map one norm (1,) to one factor (1,).
    """
    closed = jax.make_jaxpr(clip)(jax.ShapeDtypeStruct((1,), dtype))
    if [v.aval.shape for v in closed.jaxpr.outvars] != [(1,)]:
        raise ValueError(
            "clipped_value_and_grad: a clip function must map norms (n,) to factors (n,), element by element, got "
            f"{[v.aval.shape for v in closed.jaxpr.outvars]} for norms (1,)."
        )
    inner = closed.jaxpr.replace(constvars=(), invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars])
    run = jaxpr_as_fun(ClosedJaxpr(inner, ()))

    def of_all(bound: PyTree, norms: Array) -> Array:
        found = jax.vmap(lambda n: run(*bound, n[None])[0][0])(norms.astype(dtype))
        return found.astype(norms.dtype)

    return Hoisted(of_all, tuple(jnp.asarray(x) for x in closed.consts))

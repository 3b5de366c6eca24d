"""Leaves of pytrees by name, and which of them are weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import Array, PyTree

BIAS_NAMES = frozenset({"b", "bias", "scale", "shift", "offset", "beta", "gamma"})
"""Names of leaves that a penalty leaves alone by default: additive terms and the scales of normalization."""


def named_leaves(a: PyTree) -> dict[str, Any]:
    """Leaves by path, joined with "/": `({"w": x},)` -> `{"0/w": x}`.

    Example:
        >>> list(named_leaves(({"w": 1.0, "b": 2.0}, ())))
        ['0/b', '0/w']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(a)
    return {"/".join(_part(p) for p in path): leaf for path, leaf in paths}


def is_weight(a: PyTree) -> PyTree:
    """A tree like `a` of bools: False at biases and normalization scales (`BIAS_NAMES`), True at all other leaves.

    A leaf is judged by the last name on its path, so a one-dimensional weight vector is a weight.

    Example:
        >>> is_weight({"w": jnp.zeros(3), "b": jnp.zeros(())})
        {'b': False, 'w': True}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: not path or _part(path[-1]) not in BIAS_NAMES, a)


def all_finite(leaves: Iterable[Any]) -> Array:
    """Whether every entry of every leaf is finite.

    Example:
        >>> all_finite([jnp.array([1.0, jnp.inf])])
        Array(False, dtype=bool)
    """
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves] or [True]))


def _part(entry: Any) -> str:
    """One step of a path as text: the key of a dict, the index of a tuple, the name of an attribute."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)

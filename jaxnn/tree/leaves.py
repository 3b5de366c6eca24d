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


def called(given: Any, params: PyTree) -> PyTree:
    """A tree of masks, labels or the like for parameters, where it may be given as a function of them.

    Parameters of a callable type, such as an `equinox.Module`, have callable trees of masks: `jax.tree.map` makes
    them. So a callable is called unless it is of the type of the parameters, or a pytree of bools.

    Args:
        given: the tree, or a function of the parameters that makes one.
        params: what the function is called with.

    Example:
        >>> called(lambda params: {"w": len(params) == 1}, {"w": 1.0}), called({"w": False}, {"w": 1.0})
        ({'w': True}, {'w': False})
    """
    if not callable(given) or type(given) is type(params):
        return given
    # A module's activation function may be left among its masks; a function itself is the one leaf of its tree.
    leaves = [x for x in jax.tree.leaves(given) if not callable(x)]
    is_mask = bool(leaves) and all(getattr(x, "dtype", type(x)) in (bool,) for x in leaves)
    return given if is_mask else given(params)


def all_finite(leaves: Iterable[Any]) -> Array:
    """Whether every entry of every leaf is finite; integers are, and leaves of dtype float0.

    Example:
        >>> all_finite([jnp.array([1.0, jnp.inf])])
        Array(False, dtype=bool)
    """
    numbers = [x for x in leaves if getattr(x, "dtype", None) != jax.dtypes.float0]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in numbers] or [True]))


def _part(entry: Any) -> str:
    """One step of a path as text: the key of a dict, the index of a tuple, the name of an attribute."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)

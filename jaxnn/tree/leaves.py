"""Named leaves of pytrees, masks of weights, finiteness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import Array, PyTree

BIAS_NAMES = frozenset({"b", "bias", "scale", "shift", "offset", "beta", "gamma", "slope"})
"""Names of leaves without penalty by default: biases, scales and shifts of normalization, parameters of activations."""


def named_leaves(a: PyTree) -> dict[str, Any]:
    """The leaves by their paths, joined with "/": `({"w": x},)` -> `{"0/w": x}`; a bare leaf is called "".

    Example:
        >>> list(named_leaves(({"w": 1.0, "b": 2.0}, ())))
        ['0/b', '0/w']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(a)
    return {"/".join(_part(p) for p in path): leaf for path, leaf in paths}


def is_weight(a: PyTree) -> PyTree:
    """Bools with the structure of `a`: False at leaves with a name of `BIAS_NAMES`, True at the others.

    The name of a leaf is the last on its path; its shape does not matter: a vector called "w" is a weight.

    Example:
        >>> is_weight({"w": jnp.zeros(3), "b": jnp.zeros(())})
        {'b': False, 'w': True}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: not path or _part(path[-1]) not in BIAS_NAMES, a)


def called(given: Any, params: PyTree) -> PyTree:
    """A pytree of masks, labels, ... for parameters, from such a pytree or a function params -> pytree.

    Masks made by `jax.tree.map` from callable parameters, e.g. an `equinox.Module`, are callable themselves. So a
    callable is called unless it has the type of the parameters or is a pytree of bools.

    Example:
        >>> called(lambda params: {"w": len(params) == 1}, {"w": 1.0}), called({"w": False}, {"w": 1.0})
        ({'w': True}, {'w': False})
    """
    if not callable(given) or type(given) is type(params):
        return given
    # A module's mask may still contain its activation function; a plain function is the only leaf of its pytree.
    leaves = [x for x in jax.tree.leaves(given) if not callable(x)]
    is_mask = bool(leaves) and all(getattr(x, "dtype", type(x)) in (bool,) for x in leaves)
    return given if is_mask else given(params)


def all_finite(leaves: Iterable[Any]) -> Array:
    """Whether all elements are finite, a bool array (); integers and leaves of dtype float0 count as finite.

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

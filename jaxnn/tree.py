"""Arithmetic on pytrees; `None` leaves pass through. Floor 0."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.types import Array, PyTree, Scalar

BIAS_NAMES = frozenset({"b", "bias", "scale", "shift", "offset", "beta", "gamma"})
"""Names of leaves that a penalty leaves alone by default: additive terms and the scales of normalization."""


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b, leaf by leaf.

    Example:
        >>> add({"w": 1.0}, {"w": 2.0})
        {'w': 3.0}
    """
    return jax.tree.map(lambda x, y: x + y, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """a - b, leaf by leaf.

    Example:
        >>> subtract({"w": 1.0}, {"w": 2.0})
        {'w': -1.0}
    """
    return jax.tree.map(lambda x, y: x - y, a, b)


def scale(factor: Scalar, a: PyTree) -> PyTree:
    """factor * a, each leaf in its own dtype.

    Example:
        >>> scale(2.0, (jnp.ones(2),))
        (Array([2., 2.], dtype=float32),)
    """
    return jax.tree.map(lambda x: (factor * accumulate(x)).astype(x.dtype), a)


def vdot(a: PyTree, b: PyTree) -> Array:
    """sum over leaves and entries of a * b, accumulated in float32 (float64 for float64); 0 for an empty tree.

    Example:
        >>> vdot((jnp.ones(3),), (jnp.ones(3),))
        Array(3., dtype=float32)
    """
    products = jax.tree.map(lambda x, y: jnp.sum(accumulate(x) * accumulate(y)), a, b)
    return functools.reduce(jnp.add, jax.tree.leaves(products) or [jnp.zeros(())])


def norm(a: PyTree) -> Array:
    """The Euclidean norm of all entries of a tree taken together: sqrt(sum of squares).

    Example:
        >>> norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    return jnp.sqrt(vdot(a, a))


def size(a: PyTree) -> int:
    """The number of entries of all leaves: for parameters, how many there are.

    Example:
        >>> size({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
        16
    """
    return sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(a))


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

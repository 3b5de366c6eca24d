"""States with one factor for each axis of every array: kept as a tuple of pytrees, used as a pytree of tuples."""

from __future__ import annotations

import itertools
from typing import Any

import jax

from jaxnn.types import PyTree


def by_axis(factors: PyTree, like: PyTree) -> tuple[PyTree, ...]:
    """A pytree of tuples as a tuple of pytrees: the first holds the first factor of every array, and so on.

    States keep this form because some containers (`flax.nnx.State`) turn a tuple in the place of an array into a
    mapping. Where an array has fewer factors, a pytree holds None. `factors` has a tuple, or None, at each leaf of
    `like`.
    """
    structure: Any = jax.tree.structure(like, is_leaf=lambda x: x is None)
    rows = [row or () for row in structure.flatten_up_to(factors)]
    columns = itertools.zip_longest(*rows)
    return tuple(jax.tree.unflatten(structure, column) for column in columns)


def by_leaf(trees: tuple[PyTree, ...], like: PyTree) -> PyTree:
    """The inverse of `by_axis`: a tuple at every leaf of `like`."""
    structure: Any = jax.tree.structure(like, is_leaf=lambda x: x is None)
    try:
        rows = list(zip(*map(structure.flatten_up_to, trees), strict=True)) or [()] * structure.num_leaves
    except (ValueError, TypeError):
        raise ValueError(
            "optimizer: the gradients must have the structure of the parameters passed to init, got "
            f"{structure} for a state of {jax.tree.structure(trees)}."
        ) from None
    return jax.tree.unflatten(structure, [tuple(x for x in row if x is not None) for row in rows])

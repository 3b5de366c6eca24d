"""States with a part for each axis of every array: kept as a tuple of trees, used as a tree of tuples."""

from __future__ import annotations

import itertools
from typing import Any

import jax

from jaxnn.types import PyTree


def by_axis(factors: PyTree, like: PyTree) -> tuple[PyTree, ...]:
    """Tuples at the leaves of a tree as a tuple of trees: the first holds the first factor of every array, and so on.

    So a state keeps them, since containers that rebuild what lies in a tree of parameters give back a tuple in place of
    an array as a mapping (`flax.nnx.State` does). Where an array has fewer factors, a tree holds None.

    Args:
        factors: a tree like `like` with a tuple, or None for none, in place of each leaf.
        like: the parameters or gradients.

    Returns:
        As many trees as the array with the most factors has.
    """
    structure: Any = jax.tree.structure(like, is_leaf=lambda x: x is None)
    rows = [row or () for row in structure.flatten_up_to(factors)]
    columns = itertools.zip_longest(*rows)
    return tuple(jax.tree.unflatten(structure, column) for column in columns)


def by_leaf(trees: tuple[PyTree, ...], like: PyTree) -> PyTree:
    """`by_axis` undone: a tuple at every leaf of `like`."""
    structure: Any = jax.tree.structure(like, is_leaf=lambda x: x is None)
    try:
        rows = list(zip(*map(structure.flatten_up_to, trees), strict=True)) or [()] * structure.num_leaves
    except (ValueError, TypeError):
        raise ValueError(
            "optimizer: the gradients must have the structure of the parameters that init was given, got "
            f"{structure} for a state of {jax.tree.structure(trees)}."
        ) from None
    return jax.tree.unflatten(structure, [tuple(x for x in row if x is not None) for row in rows])

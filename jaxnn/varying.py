"""Mesh axes over which arrays differ from device to device inside `jax.shard_map`. Floor 0.

With `shard_map`'s default checks the type of an array says over which manual mesh axes it varies. A derivative with
respect to an array that does not vary is summed over the devices (the transpose of the implicit cast), and the carry
of a loop keeps its type. Outside `shard_map`, and with `check_vma=False`, nothing varies.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.types import Array, PyTree, Shape


def varying_axes(*trees: PyTree) -> frozenset[str]:
    """The mesh axes over which any array of these trees varies; anything that is no array varies over none.

    Example:
        >>> varying_axes({"w": jnp.ones(2)}, None)
        frozenset()
    """
    return frozenset().union(*map(_axes_of, jax.tree.leaves(trees)))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The tree, every array of it varying over these axes at least; no number changes and nothing is communicated.

    Differentiate with respect to the result, and each device gets the derivative of its own function.

    Example:
        >>> vary(jnp.ones(2), frozenset())
        Array([1., 1.], dtype=float32)
    """

    def leaf(x: Any) -> Any:
        # Sorted, so that every process makes the same program. A cast to an axis that is there already raises.
        missing = tuple(sorted(axes - _axes_of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(leaf, tree) if axes else tree


def sum_like(tree: PyTree, like: PyTree) -> PyTree:
    """Each array summed over the mesh axes over which it varies and its partner in `like` does not.

    What `jax.grad` does inside `shard_map` with gradients of replicated parameters.

    Example:
        >>> sum_like({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
        {'w': Array([1., 1.], dtype=float32)}
    """

    def leaf(x: Any, partner: Any) -> Any:
        axes = tuple(sorted(_axes_of(x) - _axes_of(partner)))
        return lax.psum(x, axes) if axes else x

    return jax.tree.map(leaf, tree, like, is_leaf=lambda x: x is None)


def shape_beside(x: Array, shape: Shape) -> jax.ShapeDtypeStruct:
    """This shape, with the dtype of x and varying over the mesh axes over which x does: for `jax.linear_transpose`.

    Example:
        >>> shape_beside(jnp.ones(2), (3,))
        ShapeDtypeStruct(shape=(3,), dtype=float32)
    """
    if not (axes := _axes_of(x)):
        return jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.eval_shape(lambda: vary(jnp.zeros(shape, x.dtype), axes))


def _axes_of(x: Any) -> frozenset[str]:
    """Of an array, or of its type."""
    return frozenset(getattr(getattr(getattr(x, "aval", x), "manual_axis_type", None), "varying", ()))

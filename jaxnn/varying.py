"""Mesh axes over which arrays vary inside `jax.shard_map`.

With `shard_map`'s default checks the type of an array says over which manual mesh axes it varies. A derivative with
respect to an array that does not vary is summed over the devices (the transpose of the implicit `pcast`), and the carry
of a loop must keep its type. Outside `shard_map`, and with `check_vma=False`, nothing varies.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.types import Array, PyTree, Shape


def varying_axes(*trees: PyTree) -> frozenset[str]:
    """The mesh axes over which any array in these pytrees varies."""
    return frozenset().union(*map(_axes_of, jax.tree.leaves(trees)))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The pytree, every array cast (`pcast`) to vary over at least the mesh axes `axes`; no values change or move.

    Derivatives with respect to the result are per device, not summed over the devices.
    """

    def leaf(x: Any) -> Any:
        # Sorted, so that every process compiles the same program. `pcast` raises for an axis that is already varying.
        missing = tuple(sorted(axes - _axes_of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(leaf, tree) if axes else tree


def sum_like(tree: PyTree, like: PyTree) -> PyTree:
    """Each array summed over the mesh axes over which it varies and its counterpart in `like` does not.

    This is what `jax.grad` does inside `shard_map` with gradients of replicated parameters.
    """

    def leaf(x: Any, partner: Any) -> Any:
        axes = tuple(sorted(_axes_of(x) - _axes_of(partner)))
        return lax.psum(x, axes) if axes else x

    return jax.tree.map(leaf, tree, like, is_leaf=lambda x: x is None)


def shape_beside(x: Array, shape: Shape) -> jax.ShapeDtypeStruct:
    """This shape with the dtype and varying axes of x: a primal type for `jax.linear_transpose`."""
    if not (axes := _axes_of(x)):
        return jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.eval_shape(lambda: vary(jnp.zeros(shape, x.dtype), axes))


def _axes_of(x: Any) -> frozenset[str]:
    """The varying axes of an array, or of its type."""
    return frozenset(getattr(getattr(getattr(x, "aval", x), "manual_axis_type", None), "varying", ()))

"""Shared parts of rules with one matrix for each axis of an array; a vector stands for a diagonal matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.placement import compiler_sharded, vector_along
from jaxnn.types import Array, PyTree, Shape

EXACT = jax.lax.Precision.HIGHEST
"""Full-precision products: inverse roots magnify the rounding errors of small eigenvalues."""


def squeezed(shape: Shape) -> Shape:
    """The shape without axes of length 1, or (1,) if it has no other."""
    return tuple(size for size in shape if size != 1) or (1,)


def zero_factor(x: Array, axis: int, max_dim: int) -> Array:
    """Zeros like the second moments of an axis: a matrix; its diagonal if the axis is longer than `max_dim` or x is
    empty.

    The rows of the matrix are sharded like the axis.
    """
    size, diagonal = x.shape[axis], vector_along(x, axis)
    return jnp.broadcast_to(diagonal[:, None], (size, size)) if size <= max_dim and x.size else diagonal


def second_moments(x: Array, axis: int, kept: Array) -> Array:
    """Inner products of the slices along an axis; only squared norms if `kept` is a diagonal."""
    others = [other for other in range(x.ndim) if other != axis]
    if kept.ndim == 1:
        return jnp.sum(x * x, others)
    return compiler_sharded(lambda x: jnp.tensordot(x, x, (others, others), precision=EXACT), kept, x)


def multiply(x: Array, axis: int, factor: Array, *, transpose: bool = False) -> Array:
    """The array with every fibre v along an axis replaced by factor v, or by factor' v."""
    if factor.ndim == 1:
        return x * jnp.expand_dims(factor, [other for other in range(x.ndim) if other != axis])

    def product(factor: Array, x: Array) -> Array:
        return jnp.moveaxis(jnp.tensordot(factor, x, (0 if transpose else 1, axis), precision=EXACT), 0, axis)

    return compiler_sharded(product, x, factor, x)


def unless_none(new: PyTree, old: PyTree) -> PyTree:
    """The new pytree, with the old subtrees where the new ones are None: states of None gradients are unchanged."""
    return jax.tree.map(lambda n, o: o if n is None else n, new, old, is_leaf=lambda x: x is None)

"""Norms and inner products of arrays and of pytrees."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype, safe_sqrt
from jaxnn.optim.base import initial_moment, map_leaves, real_dtype, widen
from jaxnn.optim.scalars import abs_sq, cast_like
from jaxnn.types import Array, DType, Params, PyTree, Scalar


def norm(x: Array) -> Array:
    """The Euclidean norm of all entries of one array; its derivative at 0 is 0."""
    return safe_sqrt(jnp.sum(abs_sq(x)))


def scalar_dtype(params: Params) -> DType:
    """The joint real accumulation dtype of all parameters, for scalar states; TypeError if one is not floating."""
    kinds = jax.tree.leaves(jax.eval_shape(initial_moment, params))
    return real_dtype(accumulation_dtype(*(kind.dtype for kind in kinds)))


def total(numbers: PyTree) -> Array:
    """The sum of the scalars in a pytree, in their widest accumulation dtype; 0 for a pytree without leaves."""
    leaves = jax.tree.leaves(numbers)
    dtype = accumulation_dtype(*(x.dtype for x in leaves))
    return functools.reduce(jnp.add, [x.astype(dtype) for x in leaves] or [jnp.zeros((), dtype)])


def sum_of_squares(tree: PyTree) -> Array:
    """The squared Euclidean norm of all entries of a pytree together."""
    return total(jax.tree.map(lambda x: jnp.sum(abs_sq(x)), widen(tree)))


def inner_product(a: PyTree, b: PyTree) -> Array:
    """Re sum conj(a) b over all entries of two pytrees with the same structure; for real ones the sum of a b."""

    def leaf(x: Array, y: Array) -> Array:
        dtype = accumulation_dtype(x.dtype, y.dtype)
        return jnp.sum(jnp.real(jnp.conj(x.astype(dtype)) * y.astype(dtype)))

    return total(map_leaves(leaf, a, b))


def nonzero(divisor: Array) -> Array:
    """The divisor with 1 in place of 0, for quotients 0/0 := 0.

    It replaces a `where` after the division: XLA's CPU compiler fuses such a `where`, with the sum over all leaves
    before it, into the loop of every leaf, and compile time grows with the square of their number.
    """
    return jnp.where(divisor == 0, jnp.ones_like(divisor), divisor)


def bounded(u: Array, size: Array, bound: Scalar) -> Array:
    """u / max(1, size / bound), size being a norm or root mean square of u; 0 where the bound is 0."""
    limit = jnp.asarray(cast_like(bound, size))
    quotient = jnp.maximum(cast_like(1, size), size / nonzero(limit))
    return jnp.where(limit == 0, jnp.zeros_like(u), u / quotient)


def times(factor: Scalar, tree: PyTree) -> PyTree:
    """Every leaf times one real number, in the leaf's own dtype."""
    return jax.tree.map(lambda x: cast_like(factor, x) * x, tree)

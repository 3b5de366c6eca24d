"""Sums, products and norms of pytrees; `None` leaves pass through."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.types import Array, PyTree, Scalar


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

"""Sums, products and norms of pytrees, under optax.tree's names; `None` leaves pass through.

`sum`, `vdot`, `norm`, `scale` and the scaled term of `add_scale` are computed in the accumulation dtype: float32
(integers too; complex64), or float64 (complex128) for leaves of that precision. The others follow JAX's promotion.
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn.numerics import accumulate, safe_sqrt
from jaxnn.types import Array, PyTree, Scalar


def add(tree_x: PyTree, tree_y: PyTree, *other_trees: PyTree) -> PyTree:
    """The sum of two or more pytrees, leaf by leaf.

    Example:
        >>> add({"w": 1.0}, {"w": 2.0}), add(1.0, 2.0, 3.0)
        ({'w': 3.0}, 6.0)
    """
    return jax.tree.map(lambda *leaves: functools.reduce(lambda x, y: x + y, leaves), tree_x, tree_y, *other_trees)


def sub(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """tree_x - tree_y, leaf by leaf.

    Example:
        >>> sub({"w": 1.0}, {"w": 2.0})
        {'w': -1.0}
    """
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


subtract = sub
"""Another name of `sub`."""


def mul(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """tree_x * tree_y, leaf by leaf.

    Example:
        >>> mul({"w": 3.0}, {"w": 2.0})
        {'w': 6.0}
    """
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """tree_x / tree_y, leaf by leaf.

    Example:
        >>> div({"w": 3.0}, {"w": 2.0})
        {'w': 1.5}
    """
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: Scalar | complex, tree: PyTree) -> PyTree:
    """scalar * tree: floating leaves keep their dtype, or become complex by a complex scalar; integers become float32.

    Example:
        >>> scale(2.0, (jnp.ones(2),)), scale(0.5, jnp.array([3]))
        ((Array([2., 2.], dtype=float32),), Array([1.5], dtype=float32))
    """
    return jax.tree.map(lambda x: _scaled(scalar, x), tree)


def add_scale(tree_x: PyTree, scalar: Scalar | complex, tree_y: PyTree) -> PyTree:
    """tree_x + scalar * tree_y, the product as by `scale`; None where a leaf of tree_x is None.

    Example:
        >>> add_scale({"w": jnp.ones(1), "b": None}, 2.0, {"w": jnp.ones(1), "b": jnp.ones(1)})
        {'b': None, 'w': Array([3.], dtype=float32)}
    """
    return jax.tree.map(
        lambda x, y: None if x is None else x + _scaled(scalar, y), tree_x, tree_y, is_leaf=lambda x: x is None
    )


def vdot(tree_x: PyTree, tree_y: PyTree) -> Array:
    """The inner product: the sum over all elements of conj(x) y; 0 for empty pytrees. ValueError if shapes differ.

    Example:
        >>> vdot((jnp.ones(3),), (jnp.ones(3),))
        Array(3., dtype=float32)
    """

    def product(x: ArrayLike, y: ArrayLike) -> Array:
        a, b = jnp.asarray(x), jnp.asarray(y)
        if a.shape != b.shape:
            raise ValueError(f"vdot: leaves must have the same shape, got {a.shape} and {b.shape}.")
        return jnp.sum(jnp.conj(accumulate(a)) * accumulate(b))

    return _total(jax.tree.map(product, tree_x, tree_y), jnp.add, jnp.zeros(()))


def sum(tree: PyTree, associative_reduction: bool = False) -> Array:
    """The sum of all elements; 0 for an empty pytree.

    Args:
        tree: pytree of numbers.
        associative_reduction: add the leaves' sums as a binary tree: a shallower program for many leaves, rounded in
            another order.

    Example:
        >>> sum({"w": jnp.ones((2, 2)), "b": 0.5})
        Array(4.5, dtype=float32)
    """
    sums = [jnp.sum(accumulate(jnp.asarray(x))) for x in jax.tree.leaves(tree)]
    while associative_reduction and len(sums) > 1:
        pairs = [_promoted(jnp.add)(a, b) for a, b in zip(sums[::2], sums[1::2], strict=False)]
        sums = [*pairs, *sums[2 * len(pairs) :]]
    return _total(sums, jnp.add, jnp.zeros(()))


def max(tree: PyTree) -> Array:
    """The largest element; -inf if there is none.

    Example:
        >>> max({"w": jnp.array([1.0, 3.0]), "b": jnp.zeros(0)})
        Array(3., dtype=float32)
    """
    tops = [jnp.max(jnp.asarray(x)) for x in jax.tree.leaves(tree) if jnp.size(x)]
    return _total(tops, jnp.maximum, jnp.asarray(-math.inf))


def min(tree: PyTree) -> Array:
    """The smallest element; +inf if there is none.

    Example:
        >>> min({"w": jnp.array([1.0, 3.0]), "b": jnp.zeros(0)})
        Array(1., dtype=float32)
    """
    bottoms = [jnp.min(jnp.asarray(x)) for x in jax.tree.leaves(tree) if jnp.size(x)]
    return _total(bottoms, jnp.minimum, jnp.asarray(math.inf))


def norm(tree: PyTree, ord: int | float | str | None = None, squared: bool = False) -> Array:
    """The norm of a pytree as one vector: Euclidean for None and 2, sum of |x| for 1, largest |x| for inf.

    The derivative of the Euclidean norm is 0 at 0.

    Args:
        tree: pytree of real or complex numbers.
        ord: None, 1, 2, inf, "inf" or "infinity".
        squared: return the square of the norm.

    Raises:
        ValueError: an unknown order.

    Example:
        >>> norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    if ord is None or ord == 2:
        square = sum(jax.tree.map(_abs_sq, tree))
        return square if squared else safe_sqrt(square)
    sizes = jax.tree.map(lambda x: jnp.abs(accumulate(jnp.asarray(x))), tree)
    if ord == 1:
        found = sum(sizes)
    elif ord in (math.inf, "inf", "infinity"):
        found = _total([jnp.max(x) for x in jax.tree.leaves(sizes) if x.size], jnp.maximum, jnp.zeros(()))
    else:
        raise ValueError(f'norm: ord must be None, 1, 2, inf, "inf" or "infinity", got {ord!r}.')
    return jnp.square(found) if squared else found


def size(tree: PyTree) -> int:
    """The number of elements, e.g. of parameters.

    Example:
        >>> size({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
        16
    """
    return builtins.sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(tree))


def conj(tree: PyTree) -> PyTree:
    """The complex conjugate of each leaf.

    Example:
        >>> conj(jnp.array([1 + 2j]))
        Array([1.-2.j], dtype=complex64)
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: PyTree) -> PyTree:
    """The real part of each leaf.

    Example:
        >>> real(jnp.array([1 + 2j]))
        Array([1.], dtype=float32)
    """
    return jax.tree.map(jnp.real, tree)


def clip(tree: PyTree, min_value: Scalar | None = None, max_value: Scalar | None = None) -> PyTree:
    """All elements clipped to [min_value, max_value]; None for no bound.

    Example:
        >>> clip({"w": jnp.array([-2.0, 0.5])}, -1.0)
        {'w': Array([-1. ,  0.5], dtype=float32)}
    """
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def where(condition: ArrayLike, tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """tree_x where `condition` (one bool array for all leaves, broadcast) holds, else tree_y.

    Example:
        >>> where(False, {"w": jnp.ones(1)}, {"w": jnp.zeros(1)})
        {'w': Array([0.], dtype=float32)}
    """
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def allclose(a: PyTree, b: PyTree, rtol: Scalar = 1e-05, atol: Scalar = 1e-08, equal_nan: bool = False) -> Array:
    """Whether |a - b| <= atol + rtol |b| for all elements; True for empty pytrees.

    Example:
        >>> allclose({"w": jnp.ones(2)}, {"w": jnp.ones(2) + 1e-7})
        Array(True, dtype=bool)
    """
    close = jax.tree.map(lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b)
    return _total(close, jnp.logical_and, jnp.array(True))


def _scaled(scalar: Scalar | complex, x: ArrayLike) -> Array:
    array = jnp.asarray(x)
    wide = accumulate(array)
    factor = jnp.asarray(scalar)
    product = (factor if jnp.iscomplexobj(factor) else factor.astype(wide.dtype)) * wide
    keeps = jnp.issubdtype(array.dtype, jnp.inexact) and jnp.iscomplexobj(product) == jnp.iscomplexobj(array)
    return product.astype(array.dtype) if keeps else product


def _abs_sq(x: ArrayLike) -> Array:
    wide = accumulate(jnp.asarray(x))
    return jnp.square(wide.real) + jnp.square(wide.imag) if jnp.iscomplexobj(wide) else jnp.square(wide)


def _total(tree: PyTree, both: Callable[[Array, Array], Array], start: Array) -> Array:
    """The reduction of a pytree of scalars; `start` if it is empty."""
    leaves = jax.tree.leaves(tree)
    return functools.reduce(_promoted(both), leaves) if leaves else start


def _promoted(both: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`both` of scalars of different dtypes, under strict promotion too."""

    def either(x: Array, y: Array) -> Array:
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.promote_types(x.dtype, y.dtype)
        return both(x.astype(dtype), y.astype(dtype))

    return either

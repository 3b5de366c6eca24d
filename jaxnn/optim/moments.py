"""Building blocks for your own rules, with optax's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype
from jaxnn.optim.base import map_leaves, widen
from jaxnn.optim.scalars import abs_sq, cast_like
from jaxnn.types import Array, PyTree, Scalar


def update_moment(updates: PyTree, moments: PyTree, decay: Scalar, order: Scalar) -> PyTree:
    """moment <- decay moment + (1 - decay) g^order, in the accumulation dtype; None where the update g is None.

    Example:
        >>> update_moment(jnp.array([3.0]), jnp.array([1.0]), 0.5, 2)
        Array([5.], dtype=float32)
    """
    return _decayed(lambda g: g**order, updates, moments, decay)


def update_moment_per_elem_norm(updates: PyTree, moments: PyTree, decay: Scalar, order: Scalar) -> PyTree:
    """moment <- decay moment + (1 - decay) |g|^order for complex g, g^order for real; None where the update is None.

    Example:
        >>> update_moment_per_elem_norm(jnp.array([3 + 4j]), jnp.array([0.0]), 0.5, 2)
        Array([12.5], dtype=float32)
    """

    def power(g: Array) -> Array:
        if not jnp.iscomplexobj(g):
            return g**order
        return abs_sq(g) if order == 2 else abs_sq(g) ** (order / 2)

    return _decayed(power, updates, moments, decay)


def update_infinity_moment(updates: PyTree, moments: PyTree, decay: Scalar, eps: Scalar) -> PyTree:
    """moment <- max(decay moment, |g| + eps), in the accumulation dtype; None where the update g is None.

    Example:
        >>> update_infinity_moment(jnp.array([-3.0]), jnp.array([4.0]), 0.5, 0.0)
        Array([3.], dtype=float32)
    """

    def leaf(g: Array, m: Array) -> Array:
        size = jnp.abs(g)
        # eps beside |g|, as in optax: the moment divides, and is then at least eps.
        return jnp.maximum(size + cast_like(eps, size), cast_like(decay, size) * m.astype(size.dtype))

    return map_leaves(leaf, widen(updates), widen(moments))


def bias_correction(moment: PyTree, decay: Scalar, count: Scalar) -> PyTree:
    """moment / (1 - decay^count), computed in the accumulation dtype; count >= 1.

    Example:
        >>> bias_correction(jnp.array([1.0]), 0.5, 1)
        Array([2.], dtype=float32)
    """

    def leaf(m: Array) -> Array:
        d = cast_like(decay, m)
        return m / (1 - d ** cast_like(count, m))

    return map_leaves(leaf, widen(moment))


def safe_increment(count: Any) -> Array:
    """count + 1, saturating at the largest value of its dtype.

    Raises:
        ValueError: count is neither an integer nor floating.

    Example:
        >>> safe_increment(jnp.array(2**31 - 1, jnp.int32))
        Array(2147483647, dtype=int32)
    """
    count = jnp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer) and not jnp.issubdtype(count.dtype, jnp.floating):
        raise ValueError(f"safe_increment: count must be an integer or floating, got {count.dtype}.")
    limits: Any = jnp.iinfo if jnp.issubdtype(count.dtype, jnp.integer) else jnp.finfo
    last = jnp.array(limits(count.dtype).max, count.dtype)
    return jnp.where(count < last, count + jnp.ones((), count.dtype), last)


safe_int32_increment = safe_increment


def safe_norm(
    x: Any,
    min_norm: Scalar,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Array:
    """max(|x|, min_norm) with derivative 0 where the norm is at most min_norm, at x = 0 too.

    Args:
        x: floating array, real or complex; the norm is computed in its dtype.
        min_norm: >= 0.
        ord, axis, keepdims: as for `jnp.linalg.norm`.

    Example:
        >>> import jax
        >>> jax.jit(jax.grad(lambda x: safe_norm(x, 0.0)))(jnp.zeros(2))
        Array([0., 0.], dtype=float32)
    """
    x = jnp.asarray(x)
    floor = cast_like(min_norm, x)
    small = jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=True) <= floor
    away = jnp.linalg.norm(jnp.where(small, jnp.ones_like(x), x), ord=ord, axis=axis, keepdims=keepdims)
    return jnp.where(small.reshape(away.shape), floor, away)


def safe_root_mean_squares(x: Any, min_rms: Scalar) -> Array:
    """max(sqrt(mean |x|^2), min_rms) of a floating array, with derivative 0 where the root is at most min_rms >= 0.

    Example:
        >>> safe_root_mean_squares(jnp.array([1.0, 7.0]), 0.0)
        Array(5., dtype=float32)
    """
    x = jnp.asarray(x)
    floor = cast_like(min_rms, x)
    small = jnp.sqrt(jnp.mean(abs_sq(x))) <= floor
    return jnp.where(small, floor, jnp.sqrt(jnp.mean(abs_sq(jnp.where(small, jnp.ones_like(x), x)))))


def _decayed(power: Callable[[Array], Array], updates: PyTree, moments: PyTree, decay: Scalar) -> PyTree:
    """decay moment + (1 - decay) power(g) at every leaf."""

    def leaf(g: Array, m: Array) -> Array:
        new = power(g)
        dtype = accumulation_dtype(new.dtype, m.dtype)
        d = cast_like(decay, jnp.zeros((), dtype))
        return d * m.astype(dtype) + (1 - d) * new.astype(dtype)

    return map_leaves(leaf, widen(updates), widen(moments))

"""Euclidean projections of a pytree, taken as one vector, onto a set: the nearest point p of the set to x.

Names and arguments are optax's: `optax.projections.projection_simplex` is `jaxnn.projections.projection_simplex`. The
result has the structure, shapes and dtypes of its argument; norms and sums are in the accumulation dtype; `None` leaves
pass through. `tree`, `x` and `a` are pytrees of floating arrays, x and a of one structure; `scale` >= 0 and `b` are
numbers, and may be traced. The simplex, the l1 sphere and the l1 ball check their arguments: TypeError for a leaf that
is not floating, ValueError for a concrete scale that is < 0 or infinite. ValueError: the bounds of a box are neither
numbers nor pytrees like `tree`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn import tree as trees
from jaxnn.numerics import accumulate, accumulation_dtype, safe_divide
from jaxnn.placement import end_to_end, taken_apart
from jaxnn.projections.simplex import nearest_in_simplex
from jaxnn.types import Array, PyTree, Scalar


def projection_non_negative(tree: PyTree) -> PyTree:
    """max(x, 0), element-wise: the nearest point with p >= 0. The derivative at 0 is 0.

    Example:
        >>> projection_non_negative({"w": jnp.array([-1.0, 2.0])})
        {'w': Array([0., 2.], dtype=float32)}
    """
    return jax.tree.map(jax.nn.relu, tree)


def projection_box(tree: PyTree, lower: Any, upper: Any) -> PyTree:
    """min(max(x, lower), upper), element-wise: the nearest point between the bounds.

    Args:
        lower, upper: a number, or a pytree like `tree`.

    Example:
        >>> projection_box(jnp.array([-1.0, 0.5, 2.0]), 0.0, 1.0)
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    low, high = _like(tree, lower), _like(tree, upper)
    return jax.tree.map(lambda x, a, b: jnp.clip(x, _cast(a, x), _cast(b, x)), tree, low, high)


def projection_hypercube(tree: PyTree, scale: Any = 1) -> PyTree:
    """The nearest point with 0 <= p <= scale.

    Args:
        scale: a number, or a pytree like `tree`.

    Example:
        >>> projection_hypercube(jnp.array([-1.0, 0.5, 2.0]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return projection_box(tree, 0, scale)


def projection_simplex(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point with p >= 0 and sum p = scale: p = max(x - tau, 0), by sorting.

    For tau and the derivative see `nearest_in_simplex`.

    Example:
        >>> projection_simplex({"w": jnp.array([0.75, 0.5]), "b": jnp.array(0.0)})
        {'b': Array(0., dtype=float32), 'w': Array([0.625, 0.375], dtype=float32)}

    Reference: Held, Wolfe & Crowder 1974, "Validation of subgradient optimization".
    """
    _require_size("projection_simplex", scale)
    vector, back = _joined(tree)
    return back(nearest_in_simplex(vector, scale)) if vector.size else tree


def projection_l1_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point with sum |p| = scale: sign(x) times the projection of |x| onto the simplex; sign(0) is +1.

    If sum |x| < scale, either sign of an entry x_j = 0 gives a nearest point: this is the one with +.

    Example:
        >>> projection_l1_sphere(jnp.array([-0.75, 0.5, 0.0]))
        Array([-0.625,  0.375,  0.   ], dtype=float32)

    Reference: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions", section 4.
    """
    _require_size("projection_l1_sphere", scale)
    return _on_l1_sphere(tree, scale)


def _on_l1_sphere(tree: PyTree, scale: Scalar) -> PyTree:
    vector, back = _joined(tree)
    sign = jnp.where(vector < 0, -jnp.ones_like(vector), jnp.ones_like(vector))
    return back(sign * nearest_in_simplex(sign * vector, scale)) if vector.size else tree


def projection_l1_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point with sum |p| <= scale: x itself inside, else the projection onto the sphere.

    Example:
        >>> projection_l1_ball(jnp.array([-0.75, 0.5])), projection_l1_ball(jnp.array([-0.25, 0.5]))
        (Array([-0.625,  0.375], dtype=float32), Array([-0.25,  0.5 ], dtype=float32))

    Reference: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions", section 4.
    """
    _require_size("projection_l1_ball", scale)
    return _chosen(trees.norm(tree, 1) <= scale, tree, _on_l1_sphere(tree, scale))


def projection_l2_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point of norm `scale`: scale x / |x|; for x = 0, as near to any point of the sphere, it is 0.

    Example:
        >>> projection_l2_sphere(jnp.array([3.0, 4.0]), 10.0)
        Array([6., 8.], dtype=float32)
    """
    length = trees.norm(tree)
    return trees.scale(safe_divide(_cast(scale, length), length), tree)


def projection_l2_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point of norm at most `scale`: x scale / max(|x|, scale).

    Example:
        >>> projection_l2_ball(jnp.array([3.0, 4.0])), projection_l2_ball(jnp.array([0.3, 0.4]))
        (Array([0.6, 0.8], dtype=float32), Array([0.3, 0.4], dtype=float32))
    """
    length = trees.norm(tree)
    radius = _cast(scale, length)
    # Select x itself inside: a factor of 1 computed by division may round.
    return _chosen(length <= radius, tree, trees.scale(safe_divide(radius, length), tree))


def projection_linf_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    """The nearest point with all |p_j| <= scale: each entry clipped to [-scale, scale].

    Example:
        >>> projection_linf_ball(jnp.array([-3.0, 0.5]))
        Array([-1. ,  0.5], dtype=float32)
    """
    return projection_box(tree, -scale, scale)


def projection_vector(x: PyTree, a: PyTree) -> PyTree:
    """The nearest point of the line through 0 and a: (<x, a> / <a, a>) a, in the dtypes of a; 0 for a = 0.

    Example:
        >>> projection_vector(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]))
        Array([1., 0.], dtype=float32)
    """
    return trees.scale(safe_divide(trees.vdot(x, a), trees.vdot(a, a)), a)


def projection_hyperplane(x: PyTree, a: PyTree, b: Scalar) -> PyTree:
    """The nearest point with <a, p> = b: x + ((b - <a, x>) / <a, a>) a; x for a = 0.

    Example:
        >>> projection_hyperplane(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]), 4.0)
        Array([2., 1.], dtype=float32)
    """
    return trees.add_scale(x, _step(x, a, b), a)


def projection_halfspace(x: PyTree, a: PyTree, b: Scalar) -> PyTree:
    """The nearest point with <a, p> <= b: x itself inside, else the projection onto the hyperplane.

    Example:
        >>> projection_halfspace(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]), 4.0)
        Array([1., 1.], dtype=float32)
    """
    step = _step(x, a, b)
    return trees.add_scale(x, jnp.where(step < 0, step, jnp.zeros_like(step)), a)


def _require_size(where: str, scale: Scalar) -> None:
    checks.require_between(where, "scale", scale, 0, math.inf, open_high=True)


def _step(x: PyTree, a: PyTree, b: Scalar) -> Array:
    inner = trees.vdot(a, x)
    return safe_divide(_cast(b, inner) - inner, trees.vdot(a, a))


def _cast(value: Any, like: Any) -> Array:
    return jnp.asarray(value).astype(jnp.asarray(like).dtype)


def _like(x: PyTree, bound: Any) -> PyTree:
    """A pytree like x of bounds: `bound` at each leaf if it is a leaf itself, else `bound`."""
    if jax.tree_util.all_leaves([bound]):
        return jax.tree.map(lambda _: bound, x)
    got, expected = str(jax.tree.structure(bound)), str(jax.tree.structure(x))
    if got != expected:
        raise ValueError(
            f"projection_box: bounds must be numbers or pytrees like the first argument, {expected}, got {got}."
        )
    return bound


def _chosen(condition: Array, x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def _joined(x: PyTree) -> tuple[Array, Any]:
    """All leaves as one vector in the accumulation dtype, and the inverse, to the leaves' shapes and dtypes."""
    leaves, structure = jax.tree.flatten(x)
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    for array in arrays:
        checks.require_floating("projection", "leaves", array.dtype, "Convert them: x.astype(jnp.float32).")
    dtype = accumulation_dtype(*(a.dtype for a in arrays)) if arrays else jnp.dtype(jnp.float32)
    vector = end_to_end([accumulate(a).astype(dtype) for a in arrays]) if arrays else jnp.zeros(0, dtype)

    def back(v: Array) -> PyTree:
        parts = taken_apart(v, [a.shape for a in arrays], [jax.typeof(a).sharding for a in arrays])
        return jax.tree.unflatten(structure, [part.astype(a.dtype) for part, a in zip(parts, arrays, strict=True)])

    return vector, back

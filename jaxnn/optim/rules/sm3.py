"""SM3: Adagrad with sums kept for slices only, one vector for each axis of an array."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.numerics import largest, safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.axes import by_axis, by_leaf
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, per_leaf, widen
from jaxnn.optim.descent import descent
from jaxnn.optim.scalars import cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class SM3State(NamedTuple):
    """`count`: int32 steps taken; `mu`: sums, a tuple of pytrees: mu[i] holds, for every array, the vector of its axis
    i (mu[0] the number of a scalar), or None if it has no axis i; `nu`: mean of directions (None if b1 is a Python 0).
    The names are optax's, which has lists in place of the arrays."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


@specified
def scale_by_sm3(b1: Scalar = 0.9, b2: Scalar = 1.0, eps: Scalar = 1e-8) -> Optimizer:
    """SM3's direction: Adagrad's, with the sum of each entry bounded by those of the slices that contain it.

    m_i = min of mu_r over the slices r that contain i
    s_i = b2 m_i + (1 - b2) g_i^2 (b2 = 1: m_i + g_i^2)
    mu_r <- max over i in r of s_i
    nu <- b1 nu + (1 - b1) g / sqrt(s + eps), 0/0 := 0;   direction = nu

    A slice fixes one index of one axis: the rows and columns of a matrix; the entries of a vector, for which the rule
    is Adagrad. A scalar is one slice (optax raises). eps is inside the root.

    Args:
        b1: decay of the mean of directions, in [0, 1). A Python 0 keeps no nu.
        b2: decay of the sums, in [0, 1]. 1 is the published rule.
        eps: added under the root, >= 0.

    Reference: Anil, R., Gupta, V., Koren, T. & Singer, Y. (2019). Memory-efficient adaptive optimization, algorithm
        SM3-II (eps = 0), with the momentum of its experiments.

    Example:
        >>> opt = scale_by_sm3(b1=0.0)
        >>> _, state = opt.update(jnp.array([[3.0, 0.0], [0.0, 4.0]]), opt.init(jnp.zeros((2, 2))))
        >>> state.mu
        (Array([ 9., 16.], dtype=float32), Array([ 9., 16.], dtype=float32))
    """
    require_decay("sm3", b1=b1)
    require_between("sm3", "b2", b2, 0, 1)
    require_nonnegative("sm3", eps=eps)

    def init(params: Params) -> SM3State:
        whole = initial_moment(require_real("sm3", params))
        sums = by_axis(jax.tree.map(_largest_of_slices, whole), params)
        # nu is made anew: `whole` may stand in the sums, and a state may be donated.
        return SM3State(zero_count(), sums, None if is_zero(b1) else initial_moment(params))

    def update(updates: PyTree, state: SM3State, params: Params | None = None, **extra: Any) -> tuple[PyTree, SM3State]:
        grads = updates

        def rule(g: Array, least: Array, nu: Array | None) -> tuple[Array, Array, Array | None]:
            d1, d2 = cast_like(b1, least), cast_like(b2, least)
            total = jnp.where(d2 == 1, jnp.ones_like(d2), 1 - d2) * g * g + d2 * least
            # eps inside the root, as in optax; the paper has 0/0 := 0 alone. It bounds steps of tiny gradients.
            direction = safe_divide(g, safe_sqrt(total + cast_like(eps, total)))
            if nu is not None:
                direction = nu = d1 * nu + (1 - d1) * direction
            return direction, total, nu

        sums = by_leaf(state.mu, grads)
        bounds = map_leaves(_least_of_slices, widen(grads), sums)
        updates, totals, nu = per_leaf(rule, grads, (bounds, state.nu), params)
        mu = jax.tree.map(
            lambda total, kept: kept if total is None else _largest_of_slices(total),
            totals,
            sums,
            is_leaf=lambda x: x is None,
        )
        return updates, SM3State(increment(state.count), by_axis(mu, grads), nu)

    return Optimizer(init, update)


@specified
def sm3(learning_rate: ScalarOrSchedule, momentum: Scalar | None = 0.9) -> Optimizer:
    """SM3: update = -learning_rate nu; the equation is in `scale_by_sm3`, with b1 = momentum, b2 = 1, eps = 1e-8.

    Args:
        momentum: decay of the mean of directions, in [0, 1). None or a Python 0 keeps none.

    Reference: Anil, R., Gupta, V., Koren, T. & Singer, Y. (2019). Memory-efficient adaptive optimization, algorithm
        SM3-II.

    Example:
        >>> opt = sm3(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.01], dtype=float32)
    """
    return descent(scale_by_sm3(0.0 if momentum is None else momentum), learning_rate, where="sm3")


def _largest_of_slices(total: Array) -> tuple[Array, ...]:
    """For each axis, the largest entry at each of its indices; the number itself of a scalar."""

    def over(axes: list[int]) -> Array:
        if total.size == 0:
            return jnp.max(total, axes, initial=0.0)
        return functools.reduce(largest, reversed(axes), total)  # from the last, so that the others keep their places

    return tuple(over([a for a in range(total.ndim) if a != axis]) for axis in range(total.ndim)) or (total,)


def _least_of_slices(g: Array, sums: tuple[Array, ...]) -> Array:
    """At each entry, the least of the sums of the slices that contain it, in the shape of g."""
    if g.ndim == 0:
        return sums[0]
    return functools.reduce(
        jnp.minimum, [jnp.expand_dims(s, [a for a in range(g.ndim) if a != i]) for i, s in enumerate(sums)]
    )

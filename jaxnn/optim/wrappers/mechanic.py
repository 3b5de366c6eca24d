"""Mechanic: the learning rate of any rule, learned online by coin betting."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, Transformation, call_update, dtypes_of, map_leaves, widen
from jaxnn.optim.inner import require_inner
from jaxnn.optim.norms import inner_product, scalar_dtype, sum_of_squares
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar


class MechanicState(NamedTuple):
    """What Mechanic keeps; r, m, v and s have one entry for each decay.

    `base_optimizer_state`; `count`: int32 steps taken; `r`: reward; `m`: decayed largest |h|; `v`: decayed sum of h^2;
    `s`: scale factors; `x0`: the parameters at the first update.
    """

    base_optimizer_state: Any
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    r: Array
    m: Array
    v: Array
    s: Array
    x0: Params


@specified
def mechanize(
    base_optimizer: Transformation,
    weight_decay: Scalar = 1e-2,
    eps: Scalar = 1e-8,
    s_init: Scalar = 1e-6,
    num_betas: int = 6,
) -> Optimizer:
    """Learn a factor of a base rule's total displacement: p <- x0 + (sum s) (sum of its updates).

    S = sum s;   delta = (x0 - p) / (S + eps), minus the unscaled displacement;   u = the base rule's update
    g' = g + weight_decay S |g| / (|p| + eps) p;   h = <g', delta>
    and for each decay b = 0.9, 0.99, ..., num_betas of them:
    m' = max(b m, |h| + eps);   v <- b^2 v + h^2;   r <- b r + s max(-m, min(h, m));   m <- m'
    s <- (m s_init / num_betas + max(r, 0)) / (sqrt(v) + eps)
    p <- x0 - (sum s) (delta - u)

    p are the parameters, x0 those at the first update; norms and products are over all arrays together. eps is outside
    the root. The decay acts on the factor alone.

    Args:
        base_optimizer: Optimizer, or an optax transformation, that descends with learning rate 1, or with a schedule
            whose largest value is 1. It receives the extra arguments.
        eps: against division by zero, >= 0.
        s_init: the factor at the start, >= 0.
        num_betas: number of decays.

    Reference: Cutkosky, A., Defazio, A. & Mehta, H. (2023). Mechanic: a learning rate tuner, algorithm 1.

    Example:
        >>> from jaxnn import optim
        >>> opt = mechanize(optim.sgd(1.0), s_init=0.6)
        >>> params = jnp.array([1.0])
        >>> jax.jit(opt.update)(jnp.array([2.0]), opt.init(params), params)[0]
        Array([-1.2], dtype=float32)
    """
    require_inner("mechanize", base_optimizer)
    require_nonnegative("mechanize", weight_decay=weight_decay, eps=eps, s_init=s_init)
    n = require_positive_int("mechanize", "num_betas", num_betas)

    def init(params: Params) -> MechanicState:
        r, m, v = (jnp.zeros(n, scalar_dtype(require_real("mechanize", params))) for _ in range(3))
        s = jnp.broadcast_to(cast_like(s_init, r), (n,))
        # A copy, so that parameters and state may both be donated.
        start = jax.tree.map(jnp.copy, params)
        return MechanicState(base_optimizer.init(widen(params)), zero_count(), r, m, v, s, start)

    def update(
        updates: PyTree, state: MechanicState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MechanicState]:
        params = require_params("mechanize", params)
        g, p = widen(updates), widen(params)
        steps, new = call_update(base_optimizer, g, state.base_optimizer_state, p, extra)
        x0 = map_leaves(lambda p, x: jnp.where(state.count == 0, p, x), params, state.x0)
        # eps beside each divisor, as in optax: v starts at 0, S at s_init, which may be 0.
        small, before = cast_like(eps, state.s), jnp.sum(state.s)

        pull = cast_like(weight_decay, before) * before * _over(_size(g), _size(p) + small)
        delta = map_leaves(lambda p, x: _over(x - p, cast_like(before + small, p)), p, widen(x0))
        h = (inner_product(g, delta) + pull * inner_product(p, delta)).astype(small.dtype)

        decays = jnp.asarray([1 - 0.1**i for i in range(1, n + 1)], small.dtype)
        r = decays * state.r + state.s * jnp.clip(h, -state.m, state.m)
        m = jnp.maximum(decays * state.m, jnp.abs(h) + small)
        v = decays**2 * state.v + h**2
        s = safe_divide(cast_like(s_init, m) / n * m + jax.nn.relu(r), safe_sqrt(v) + small)

        def move(u: Array, d: Array, p: Array, x: Array) -> Array:
            return x - cast_like(jnp.sum(s), p) * (d - u.astype(p.dtype)) - p

        updates = dtypes_of(map_leaves(move, steps, delta, p, widen(x0)), params)
        return updates, MechanicState(new, increment(state.count), r, m, v, s, x0)

    return Optimizer(init, update)


def _size(tree: PyTree) -> Array:
    """The Euclidean norm of all entries of a pytree together."""
    return safe_sqrt(sum_of_squares(tree))


def _over(x: Array, divisor: Array) -> Array:
    """x / divisor, in the dtype of the divisor; 0 where the divisor is 0."""
    return safe_divide(x.astype(divisor.dtype), divisor)

"""Adan: Nesterov's momentum estimated from differences of gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class AdanState(NamedTuple):
    """`count`: int32 steps; `m`, `v`, `n`: means of g, of d, of |g + w d|^2 (see `scale_by_adan`); `g`: the last g."""

    count: Array  # type: ignore[assignment] # optax calls it t; every state here has count
    m: PyTree
    v: PyTree
    n: PyTree
    g: PyTree


@specified
def scale_by_adan(
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    *,
    difference_weight: Scalar | None = None,
) -> Optimizer:
    """Adan's direction.

    d = g - g_before (0 at the first step);   t = 1, 2, ...
    m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) d;   n <- b3 n + (1 - b3) |g + w d|^2
    direction = (m_hat + w v_hat) / (sqrt(n_hat + eps_root) + eps);   x_hat = x / (1 - b^t), b the decay of x

    eps is outside the root, eps_root inside; 0/0 := 0. The b are decays, 1 minus the paper's betas; its weight 1 -
    beta2 is b2, the default of w. optax 0.2.8 has w = 1 - b2, which nearly leaves out the differences that make the
    rule Nesterov's: difference_weight=1 - b2 does the same here. The bias corrections are those of the authors' code.

    Args:
        b1, b2, b3: decays, in [0, 1).
        eps, eps_root: added to the root, and under it.
        difference_weight: w, >= 0; None means b2, as published.

    Reference: Xie, X., Zhou, P., Li, H., Lin, Z. & Yan, S. (2024). Adan: adaptive Nesterov momentum algorithm for
        faster optimizing deep models, algorithm 1.

    Example:
        >>> opt = scale_by_adan()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.], dtype=float32)
    """
    require_decay("adan", b1=b1, b2=b2, b3=b3)
    require_nonnegative("adan", eps=eps, eps_root=eps_root, difference_weight=difference_weight)

    def init(params: Params) -> AdanState:
        n = initial_moment(params, real=True)
        return AdanState(zero_count(), initial_moment(params), initial_moment(params), n, initial_moment(params))

    def update(
        updates: PyTree, state: AdanState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdanState]:
        count = increment(state.count)

        def rule(g: Array, m: Array, v: Array, n: Array, before: Array) -> tuple[Array, ...]:
            d1, d2, d3, t = cast_like(b1, n), cast_like(b2, n), cast_like(b3, n), count.astype(n.dtype)
            w = d2 if difference_weight is None else cast_like(difference_weight, n)
            difference = jnp.where(state.count == 0, jnp.zeros_like(g), g - before)
            m = d1 * m + (1 - d1) * g
            v = d2 * v + (1 - d2) * difference
            n = d3 * n + (1 - d3) * abs_sq(g + w * difference)
            m_hat, v_hat, n_hat = m / (1 - d1**t), v / (1 - d2**t), n / (1 - d3**t)
            # eps outside the root, as published; eps_root is optax's, both as in Adam.
            return (
                safe_divide(m_hat + w * v_hat, safe_sqrt(n_hat + cast_like(eps_root, n)) + cast_like(eps, n)),
                m,
                v,
                n,
                g,
            )

        updates, m, v, n, g = per_leaf(rule, updates, (state.m, state.v, state.n, state.g), params)
        return updates, AdanState(count, m, v, n, g)

    return Optimizer(init, update)


@specified
def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    difference_weight: Scalar | None = None,
) -> Optimizer:
    """Adan with decoupled weight decay, multiplied by the learning rate.

    The equation and the other arguments are in `scale_by_adan`. The decay is that of AdamW, as in optax; the paper
    divides by 1 + learning_rate weight_decay instead. Differences of gradients have weight b2, as published; in optax
    0.2.8 they have difference_weight=1 - b2. eps is outside the root, eps_root inside.

    Reference: Xie, X., Zhou, P., Li, H., Lin, Z. & Yan, S. (2024). Adan: adaptive Nesterov momentum algorithm for
        faster optimizing deep models.

    Example:
        >>> opt = adan(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    direction = scale_by_adan(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="adan")

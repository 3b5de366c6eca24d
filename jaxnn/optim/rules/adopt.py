"""ADOPT: Adam that converges with any b2: no gradient is divided by a second moment that contains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import descent
from jaxnn.optim.rules.adam import AdamState
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


def fourth_root(count: Array) -> Array:
    """count^(1/4), the bound of ADOPT's normalized gradients at each step."""
    return count**0.25


@specified
def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Array], Array] = fourth_root,
) -> Optimizer:
    """ADOPT's direction.

    At the first step nu <- |g|^2 and the direction is 0. Then, with c = clip_value_fn(steps before this one),
    h = clip(g / max(sqrt(nu), eps), -c, c);   mu <- b1 mu + (1 - b1) h
    direction = mu, or with `nesterov` b1 mu + (1 - b1) h;   then nu <- b2 nu + (1 - b2) |g|^2

    eps is a lower bound on the root; x/0 := 0. As published, no bias is corrected.

    Args:
        b1, b2: decays, in [0, 1).
        eps: lower bound on the root.
        mu_dtype: of mu; None means the accumulation dtype.
        nesterov: whether to use Nesterov's momentum.
        use_clipping: whether h is clipped.
        clip_value_fn: maps the number of steps taken before, a floating scalar, to c.

    Reference: Taniguchi, S. et al. (2024). ADOPT: modified Adam can converge with any beta2 with the optimal rate,
        algorithm 2.

    Example:
        >>> opt = scale_by_adopt()
        >>> _, state = opt.update(jnp.array([2.0]), opt.init(jnp.zeros(1)))
        >>> opt.update(jnp.array([1.0]), state)[0]
        Array([0.05...], dtype=float32)
    """
    require_decay("adopt", b1=b1, b2=b2)
    require_nonnegative("adopt", eps=eps)

    def init(params: Params) -> AdamState:
        require_real("adopt", params)
        return AdamState(zero_count(), initial_moment(params, mu_dtype), initial_moment(params))

    def update(
        updates: PyTree, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdamState]:
        first = state.count == 0

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1, d2 = cast_like(b1, nu), cast_like(b2, nu)
            # A lower bound, not a summand, as published: roots above eps are not changed at all.
            h = safe_divide(g, jnp.maximum(safe_sqrt(nu), cast_like(eps, nu)))
            if use_clipping:
                bound = cast_like(clip_value_fn(state.count.astype(nu.dtype)), nu)
                h = jnp.clip(h, -bound, bound)
            mu = jnp.where(first, mu, d1 * mu + (1 - d1) * h)
            ahead = jnp.where(first, mu, d1 * mu + (1 - d1) * h) if nesterov else mu
            nu = jnp.where(first, abs_sq(g), d2 * nu + (1 - d2) * abs_sq(g))
            return ahead, mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, AdamState(increment(state.count), mu, nu)

    return Optimizer(init, update)


@specified
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Array], Array] = fourth_root,
) -> Optimizer:
    """ADOPT: -learning_rate times the direction of `scale_by_adopt`, which has the equation and the arguments.

    eps is a lower bound on the root.

    Reference: Taniguchi, S. et al. (2024). ADOPT: modified Adam can converge with any beta2 with the optimal rate,
        algorithm 2.

    Example:
        >>> opt = adopt(0.1)
        >>> opt.update(jnp.array([2.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.], dtype=float32)
    """
    direction = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return descent(direction, learning_rate, where="adopt")

"""COCOB: coin betting in place of a learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_divide
from jaxnn.optim.arguments import require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf, widen
from jaxnn.optim.descent import Mask, add_decay
from jaxnn.optim.scalars import at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class CocobState(NamedTuple):
    """`count`: int32 steps taken; the others are element-wise bets and rewards.

    `init_particles`: parameters at the start; `cumulative_gradients`: minus the sum of gradients; `scale`: the largest
    |gradient| so far, eps at the start; `subgradients`: the sum of |gradients|; `reward`: the sum won, at least 0.
    """

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    init_particles: PyTree
    cumulative_gradients: PyTree
    scale: PyTree
    subgradients: PyTree
    reward: PyTree


@specified
def scale_by_cocob(alpha: Scalar = 100.0, eps: Scalar = 1e-8) -> Optimizer:
    """COCOB's update, to be added to the parameters: it needs no learning rate.

    L <- max(L, |g|);   G <- G + |g|;   C <- C - g;   R <- max(R - g (params - params_1), 0)
    update = params_1 - params + C (L + R) / (L max(G + L, alpha L))

    element-wise, with L = scale, G = subgradients, C = cumulative_gradients, R = reward, params_1 = init_particles.
    0/0 := 0: with eps = 0, as in the paper, an entry does not move before its first nonzero gradient. L^2, by which
    optax divides, underflows in float32 for gradients below 1e-23; two quotients avoid it.

    Args:
        alpha: the larger, the smaller the first bets; >= 0.
        eps: the first L, >= 0.

    Reference: Orabona, F. & Tommasi, T. (2017). Training deep networks without learning rates through coin betting,
        algorithm 2.

    Example:
        >>> opt = scale_by_cocob()
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.01], dtype=float32)
    """
    require_nonnegative("cocob", alpha=alpha, eps=eps)

    def init(params: Params) -> CocobState:
        require_real("cocob", params)
        zeros = [initial_moment(params) for _ in range(3)]
        # A copy, so that parameters and state may both be donated.
        return CocobState(
            zero_count(),
            jax.tree.map(jnp.copy, widen(params)),
            zeros[0],
            initial_moment(params, fill=eps),
            zeros[1],
            zeros[2],
        )

    def update(
        updates: PyTree, state: CocobState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CocobState]:
        params = require_params("cocob", params)

        def rule(g: Array, first: Array, total: Array, most: Array, sizes: Array, reward: Array, p: Array) -> Any:
            most = jnp.maximum(most, jnp.abs(g))
            sizes = sizes + jnp.abs(g)
            total = total - g
            reward = jnp.maximum(reward - g * (p - first), 0)
            bet = safe_divide(total, most) * safe_divide(
                most + reward, jnp.maximum(sizes + most, cast_like(alpha, g) * most)
            )
            return first - p + bet, first, total, most, sizes, reward, p

        updates, *kept, _ = per_leaf(rule, updates, (*state[1:], params), params)
        return updates, CocobState(increment(state.count), *kept)

    return Optimizer(init, update)


@specified
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """COCOB of the gradient learning_rate (g + weight_decay params).

    The rule finds its own step sizes and is invariant to the scale of all gradients, so a constant learning rate has
    almost no effect; a schedule weights the gradients of some steps more. The decay is not decoupled: it is an L2
    penalty, multiplied by the learning rate as the gradient is.

    Args:
        learning_rate: factor of the gradients, number or schedule of the step count.
        alpha, eps: see `scale_by_cocob`, which has the whole equation.

    Reference: Orabona, F. & Tommasi, T. (2017). Training deep networks without learning rates through coin betting,
        algorithm 2.

    Example:
        >>> opt = cocob(alpha=10.0)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.1], dtype=float32)
    """
    require_nonnegative("cocob", learning_rate=learning_rate, weight_decay=weight_decay)
    direction = scale_by_cocob(alpha, eps)

    def update(
        updates: PyTree, state: CocobState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CocobState]:
        params, scaled = require_params("cocob", params), widen(updates)
        if not is_zero(weight_decay):
            scaled = add_decay(scaled, params, at_count(weight_decay, state.count), mask, where="cocob")
        rate = at_count(learning_rate, state.count)
        return direction.update(jax.tree.map(lambda g: cast_like(rate, g) * g, scaled), state, params)

    return Optimizer(direction.init, update)

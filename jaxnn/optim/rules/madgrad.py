"""MADGRAD: dual averaging with momentum and a cube root."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_cbrt, safe_divide
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf, widen
from jaxnn.optim.descent import add_decay
from jaxnn.optim.scalars import at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class MadgradState(NamedTuple):
    """`count`: int32 steps; `grad_sum_sq`, `s`: weighted sums of g^2 and g; `x0`: parameters at the start."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    grad_sum_sq: PyTree
    s: PyTree
    x0: PyTree


@specified
def scale_by_madgrad(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, eps: Scalar = 1e-6) -> Optimizer:
    """MADGRAD's update, to be added to the parameters.

    lam = (learning_rate + eps) sqrt(k + 1), k = 0, 1, ...
    s <- s + lam g;   grad_sum_sq <- grad_sum_sq + lam g^2
    z = x0 - s / (cbrt(grad_sum_sq) + eps);   update = (1 - momentum) (z - params)

    eps is outside the root; 0/0 := 0. The eps in lam, as in optax and the authors' code, keeps the sums growing at
    learning rate 0; the paper has none, and `learning_rate - eps` gives its rule.

    Args:
        momentum: weight of the current parameters, in [0, 1). The paper's c is 1 - momentum.
        eps: added to the learning rate and to the root.

    Reference: Defazio, A. & Jelassi, S. (2022). Adaptivity without compromise: a momentumized, adaptive, dual averaged
        gradient method for stochastic optimization, algorithm 1.

    Example:
        >>> opt = scale_by_madgrad(1.0, momentum=0.0, eps=0.0)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([8.0]), opt.init(params), params)[0]
        Array([-2.], dtype=float32)
    """
    require_nonnegative("madgrad", learning_rate=learning_rate, eps=eps)
    require_decay("madgrad", momentum=momentum)

    def init(params: Params) -> MadgradState:
        require_real("madgrad", params)
        # A copy, so that parameters and state may both be donated.
        return MadgradState(
            zero_count(), initial_moment(params), initial_moment(params), jax.tree.map(jnp.copy, widen(params))
        )

    def update(
        updates: PyTree, state: MadgradState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MadgradState]:
        params = require_params("madgrad", params)
        rate = at_count(learning_rate, state.count)

        def rule(g: Array, total_sq: Array, s: Array, x0: Array, p: Array) -> tuple[Array, ...]:
            step = (cast_like(rate, g) + cast_like(eps, g)) * jnp.sqrt((state.count + 1).astype(g.dtype))
            s = s + step * g
            total_sq = total_sq + step * g**2
            # eps outside the root, as in the authors' code: it bounds the step of entries with tiny gradients.
            away = x0 - p - safe_divide(s, safe_cbrt(total_sq) + cast_like(eps, g))
            return (1 - cast_like(momentum, g)) * away, total_sq, s, x0, p

        columns = (state.grad_sum_sq, state.s, state.x0, params)
        updates, total_sq, s, x0, _ = per_leaf(rule, updates, columns, params)
        return updates, MadgradState(increment(state.count), total_sq, s, x0)

    return Optimizer(init, update)


@specified
def madgrad(
    learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, weight_decay: ScalarOrSchedule = 0.0, eps: Scalar = 1e-6
) -> Optimizer:
    """MADGRAD of the gradient with an L2 penalty: g + weight_decay params takes the place of g.

    The decay is not decoupled: it enters the sums, and so is multiplied by the learning rate. eps is outside the root.
    The authors advise to tune the learning rate anew, and less decay than for SGD or Adam, often none.

    Args:
        learning_rate, momentum, eps: see `scale_by_madgrad`, which has the whole equation.
        weight_decay: of the penalty weight_decay/2 |params|^2, number or schedule.

    Reference: Defazio, A. & Jelassi, S. (2022). Adaptivity without compromise: a momentumized, adaptive, dual averaged
        gradient method for stochastic optimization, algorithm 1.

    Example:
        >>> opt = madgrad(1.0, momentum=0.0, weight_decay=8.0, eps=0.0)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([0.0]), opt.init(params), params)[0]
        Array([-2.], dtype=float32)
    """
    require_nonnegative("madgrad", weight_decay=weight_decay)
    direction = scale_by_madgrad(learning_rate, momentum, eps)

    def update(
        updates: PyTree, state: MadgradState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MadgradState]:
        params, penalized = require_params("madgrad", params), widen(updates)
        if not is_zero(weight_decay):
            penalized = add_decay(penalized, params, at_count(weight_decay, state.count), where="madgrad")
        return direction.update(penalized, state, params)

    return Optimizer(direction.init, update)

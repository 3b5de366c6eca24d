"""Optimistic rules, which step along the predicted next gradient: for minima and for saddle points of games."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf, widen
from jaxnn.optim.descent import descent
from jaxnn.optim.rules.adam import AdamState, scale_by_adam
from jaxnn.optim.scalars import at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class OptimisticGradientState(NamedTuple):
    """`count`: int32 steps taken; `previous_gradient`: that of the step before."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    previous_gradient: PyTree


class OptimisticAdamState(NamedTuple):
    """`count`: int32 steps; `mu`, `nu`: Adam's means; `previous_gradient`: Adam's direction of the step before."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree
    previous_gradient: PyTree


@specified
def scale_by_optimistic_gradient(alpha: ScalarOrSchedule = 1.0, beta: ScalarOrSchedule = 1.0) -> Optimizer:
    """The gradient plus its change: direction = alpha g + beta (g - previous g).

    At the first step there is no previous gradient, and the change is 0.

    Args:
        alpha: weight of the gradient; number or schedule of the step count.
        beta: weight of its change; number or schedule of the step count. (optax takes no schedules.)

    Reference: Mokhtari, A., Ozdaglar, A. & Pattathil, S. (2020). A unified analysis of extra-gradient and optimistic
        gradient methods for saddle point problems: proximal point approach, equation 14.

    Example:
        >>> opt = scale_by_optimistic_gradient()
        >>> _, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
        >>> opt.update(jnp.array([3.0]), state)[0]
        Array([5.], dtype=float32)
    """
    require_nonnegative("scale_by_optimistic_gradient", alpha=alpha, beta=beta)

    def init(params: Params) -> OptimisticGradientState:
        return OptimisticGradientState(zero_count(), initial_moment(params))

    def update(
        updates: PyTree, state: OptimisticGradientState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, OptimisticGradientState]:
        a, b = at_count(alpha, state.count), at_count(beta, state.count)

        def rule(g: Array, previous: Array) -> tuple[Array, Array]:
            previous = jnp.where(state.count == 0, g, previous)
            return (cast_like(a, g) + cast_like(b, g)) * g - cast_like(b, g) * previous, g

        updates, previous = per_leaf(rule, updates, (state.previous_gradient,), params)
        return updates, OptimisticGradientState(increment(state.count), previous)

    return Optimizer(init, update)


@specified
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: ScalarOrSchedule = 1.0, beta: ScalarOrSchedule = 1.0
) -> Optimizer:
    """Optimistic gradient descent: update = -learning_rate (alpha g + beta (g - previous g)).

    On a bilinear game J = x y, where descent spirals outward, it converges to the saddle if the learning rate is small.

    Reference: Mokhtari, A., Ozdaglar, A. & Pattathil, S. (2020). A unified analysis of extra-gradient and optimistic
        gradient methods for saddle point problems: proximal point approach, equation 14.

    Example:
        >>> opt = optimistic_gradient_descent(0.1)
        >>> _, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
        >>> opt.update(jnp.array([3.0]), state)[0]
        Array([-0.5], dtype=float32)
    """
    return descent(scale_by_optimistic_gradient(alpha, beta), learning_rate, where="optimistic_gradient_descent")


@specified
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    optimism: ScalarOrSchedule | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> Optimizer:
    """Optimistic Adam: update = -learning_rate r - optimism (r - previous r), with r Adam's direction.

    `optimistic_adam_v2` with alpha = learning_rate, beta = optimism and the learning rate 1. The paper's Adam has no
    Nesterov momentum, and its first change of r is r itself; here it is 0.

    Args:
        learning_rate: number or schedule of the step count (optax takes no schedule here).
        optimism: weight of the change of r; number or schedule; None means the learning rate, as in the paper.
        b1, b2, eps, eps_root, mu_dtype, nesterov: see `scale_by_adam`; eps is outside the root, eps_root inside.

    Reference: Daskalakis, C., Ilyas, A., Syrgkanis, V. & Zeng, H. (2018). Training GANs with optimism, algorithm 1.

    Example:
        >>> opt = optimistic_adam(0.1, nesterov=False)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    require_nonnegative("optimistic_adam", learning_rate=learning_rate, optimism=optimism)
    beta = learning_rate if optimism is None else optimism
    return descent(
        _optimistic(learning_rate, beta, scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)), 1.0
    )


@specified
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
) -> Optimizer:
    """Optimistic Adam: update = -learning_rate (alpha r + beta (r - previous r)), with r Adam's direction.

    At the first step the change of r is 0. alpha and beta are numbers or schedules; the other arguments are those of
    `scale_by_adam`: eps is outside the root, eps_root inside.

    Reference: Daskalakis, C., Ilyas, A., Syrgkanis, V. & Zeng, H. (2018). Training GANs with optimism, algorithm 1.

    Example:
        >>> opt = optimistic_adam_v2(0.1, nesterov=False)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    direction = _optimistic(alpha, beta, scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov))
    return descent(direction, learning_rate, where="optimistic_adam_v2")


def _optimistic(alpha: ScalarOrSchedule, beta: ScalarOrSchedule, adam: Optimizer) -> Optimizer:
    """alpha r + beta (r - previous r), with r Adam's direction."""
    optimistic = scale_by_optimistic_gradient(alpha, beta)

    def init(params: Params) -> OptimisticAdamState:
        moments: AdamState = adam.init(params)
        return OptimisticAdamState(moments.count, moments.mu, moments.nu, initial_moment(params))

    def update(
        updates: PyTree, state: OptimisticAdamState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, OptimisticAdamState]:
        r, moments = adam.update(widen(updates), AdamState(*state[:3]))
        kept = OptimisticGradientState(state.count, state.previous_gradient)
        updates, kept = optimistic.update(r, kept, params)
        return updates, OptimisticAdamState(moments.count, moments.mu, moments.nu, kept.previous_gradient)

    return Optimizer(init, update)

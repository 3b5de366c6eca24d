"""Adagrad: steps divided by the root of the sum of all squared gradients so far."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class AdagradState(NamedTuple):
    """`count`: int32 steps taken; `sum_of_squares`: the sum of squared gradients, real."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    sum_of_squares: PyTree


@specified
def scale_by_rss(initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7) -> Optimizer:
    """Adagrad's direction: the gradient divided by the root of the sum of all squares so far, this one included.

    s <- s + |g|^2, from s = initial_accumulator_value;   direction = g / sqrt(s + eps), 0/0 := 0

    eps is inside the root.

    Args:
        initial_accumulator_value: of the sum, >= 0.
        eps: added under the root, >= 0.

    Reference: Duchi, J., Hazan, E. & Singer, Y. (2011). Adaptive subgradient methods for online learning and stochastic
        optimization, figure 1 (diagonal matrices).

    Example:
        >>> import jax.numpy as jnp
        >>> opt = scale_by_rss(0.0, 0.0)
        >>> _, state = opt.update(jnp.array([3.0, 0.0]), opt.init(jnp.zeros(2)))
        >>> opt.update(jnp.array([4.0, 0.0]), state)[0]
        Array([0.8, 0. ], dtype=float32)
    """
    require_nonnegative("scale_by_rss", initial_accumulator_value=initial_accumulator_value, eps=eps)

    def init(params: Params) -> AdagradState:
        return AdagradState(zero_count(), initial_moment(params, fill=initial_accumulator_value, real=True))

    def update(
        updates: PyTree, state: AdagradState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdagradState]:
        def rule(g: Array, total: Array) -> tuple[Array, Array]:
            total = total + abs_sq(g)
            # eps inside the root, as in optax; the paper's delta is outside. It bounds first steps of tiny gradients.
            return safe_divide(g, safe_sqrt(total + cast_like(eps, total))), total

        updates, total = per_leaf(rule, updates, (state.sum_of_squares,), params)
        return updates, AdagradState(increment(state.count), total)

    return Optimizer(init, update)


@specified
def adagrad(learning_rate: ScalarOrSchedule, initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7) -> Optimizer:
    """Adagrad as it is commonly used: update = -learning_rate g / sqrt(initial_accumulator_value + sum g^2 + eps).

    The sum starts above zero, so the first steps are small where gradients are small; `adagrad_as_published` starts at
    0. eps is inside the root.

    Args:
        initial_accumulator_value, eps: see `scale_by_rss`, which has the whole equation.

    Reference: Duchi, J., Hazan, E. & Singer, Y. (2011). Adaptive subgradient methods for online learning and stochastic
        optimization.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = adagrad(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.09944...], dtype=float32)
    """
    return descent(scale_by_rss(initial_accumulator_value, eps), learning_rate, where="adagrad")


@specified
def adagrad_as_published(learning_rate: ScalarOrSchedule) -> Optimizer:
    """Adagrad as published: update = -learning_rate g / sqrt(sum of g^2 so far), 0/0 := 0.

    The sum starts at zero and no eps is added, so an entry's first nonzero gradient makes a step of size learning_rate,
    and a positive factor of all gradients of an entry changes nothing.

    Reference: Duchi, J., Hazan, E. & Singer, Y. (2011). Adaptive subgradient methods for online learning and stochastic
        optimization, figure 1 (diagonal matrices, delta = 0).

    Example:
        >>> import jax.numpy as jnp
        >>> opt = adagrad_as_published(0.1)
        >>> opt.update(jnp.array([3.0, -0.01, 0.0]), opt.init(jnp.zeros(3)))[0]
        Array([-0.1,  0.1, -0. ], dtype=float32)
    """
    return descent(scale_by_rss(0.0, 0.0), learning_rate, where="adagrad_as_published")

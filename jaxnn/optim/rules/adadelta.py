"""Adadelta: steps in the units of the parameters, without a learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.optim.arguments import require_decay, require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, add_decay, called_on_stored, descent
from jaxnn.optim.scalars import at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class AdadeltaState(NamedTuple):
    """`count`: int32 steps taken; `e_g`: mean of squared gradients; `e_x`: mean of squared directions."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    e_g: PyTree
    e_x: PyTree


@specified
def scale_by_adadelta(rho: Scalar = 0.9, eps: Scalar = 1e-6) -> Optimizer:
    """Adadelta's direction, which `adadelta` multiplies by -learning_rate.

    e_g <- rho e_g + (1 - rho) g^2
    direction = sqrt(e_x + eps) / sqrt(e_g + eps) g
    e_x <- rho e_x + (1 - rho) direction^2

    eps is inside both roots. That of the numerator makes the first step nonzero: e_x is 0 then.

    Args:
        rho: decay of both means, in [0, 1).
        eps: added under both roots, >= 0.

    Raises:
        TypeError: a complex parameter (optax takes them, but squares the numbers, not their magnitudes).

    Reference: Zeiler, M. D. (2012). ADADELTA: an adaptive learning rate method, algorithm 1.

    Example:
        >>> opt = scale_by_adadelta(eps=0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([0.94868...], dtype=float32)
    """
    require_decay("adadelta", rho=rho)
    require_nonnegative("adadelta", eps=eps)

    def init(params: Params) -> AdadeltaState:
        # Two arrays, not one twice: a state may be donated.
        return AdadeltaState(zero_count(), initial_moment(require_real("adadelta", params)), initial_moment(params))

    def update(
        updates: PyTree, state: AdadeltaState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdadeltaState]:
        def rule(g: Array, e_g: Array, e_x: Array) -> tuple[Array, Array, Array]:
            d, e = cast_like(rho, e_g), cast_like(eps, e_g)
            e_g = d * e_g + (1 - d) * g * g
            # eps inside both roots, as published: without the upper one e_x = 0 would never leave 0.
            direction = jnp.sqrt(e_x + e) / jnp.sqrt(e_g + e) * g
            return direction, e_g, d * e_x + (1 - d) * direction * direction

        updates, e_g, e_x = per_leaf(rule, updates, (state.e_g, state.e_x), params)
        return updates, AdadeltaState(increment(state.count), e_g, e_x)

    return Optimizer(init, update)


@specified
@called_on_stored("weight_decay_mask")
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> Optimizer:
    """Adadelta: update = -learning_rate direction, with the direction of `scale_by_adadelta`.

    g <- g + weight_decay params, before the means: an L2 penalty, not decoupled; it is scaled as the gradient is.

    optax's default, learning_rate=None, leaves out the sign and ascends. Here None means 1 and descends, as published.

    Args:
        learning_rate: number or schedule. None means 1.
        rho, eps: see `scale_by_adadelta`; eps is inside both roots.

    Reference: Zeiler, M. D. (2012). ADADELTA: an adaptive learning rate method, algorithm 1.

    Example:
        >>> opt = adadelta(eps=0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.94868...], dtype=float32)
    """
    require_nonnegative("adadelta", weight_decay=weight_decay)
    plain = scale_by_adadelta(rho, eps)

    def update(
        updates: PyTree, state: AdadeltaState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdadeltaState]:
        if not is_zero(weight_decay):
            decay, params = at_count(weight_decay, state.count), require_params("adadelta", params)
            updates = add_decay(updates, params, decay, weight_decay_mask, where="adadelta")
        return plain.update(updates, state, params)

    rate = 1.0 if learning_rate is None else learning_rate
    return descent(Optimizer(plain.init, update), rate, where="adadelta")

"""Rprop: element-wise step sizes that grow and shrink with the signs of successive gradients."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.arguments import require_nonnegative, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import descent
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar


class RpropState(NamedTuple):
    """`count`: int32 steps taken; `step_sizes`: element-wise; `prev_updates`: last direction, 0 after a change of
    sign."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    step_sizes: PyTree
    prev_updates: PyTree


@specified
def scale_by_rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Optimizer:
    """Rprop's direction: the signs of the gradient times element-wise step sizes, which `rprop` negates.

    s = sign(g) sign(previous direction)
    s > 0:  step <- clip(eta_plus step);    direction = step sign(g)
    s < 0:  step <- clip(eta_minus step);   direction = 0, and the next s is 0
    s = 0:  step as it was;                 direction = step sign(g)
    clip: to [min_step_size, max_step_size]

    optax's update is the previous step's direction (its first is 0), along a stale gradient; here, as in the paper and
    PyTorch, it is the current one. Signs are multiplied, not numbers as in optax, whose product underflows in float32.
    The first step size is the learning rate, even outside these bounds (PyTorch clips it).

    Args:
        learning_rate: the initial step size; a number, which may be traced, no schedule.
        eta_minus: factor after a change of sign, in [0, 1].
        eta_plus: factor after none, >= 1.
        min_step_size, max_step_size: bounds of the step sizes.

    Raises:
        TypeError: a schedule as learning rate.

    Reference: Igel, C. & Huesken, M. (2003). Empirical evaluation of the improved Rprop learning algorithms, algorithm
        iRprop-, after Riedmiller, M. & Braun, H. (1993). A direct adaptive method for faster backpropagation learning.

    Example:
        >>> opt = scale_by_rprop(0.1)
        >>> _, state = opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))
        >>> opt.update(jnp.array([0.5]), state)[0]
        Array([0.12], dtype=float32)
    """
    if callable(learning_rate):
        raise TypeError("rprop: learning_rate is the initial step size and must be a number, got a schedule.")
    require_nonnegative("rprop", learning_rate=learning_rate, min_step_size=min_step_size, max_step_size=max_step_size)
    require_between("rprop", "eta_minus", eta_minus, 0, 1)
    require_between("rprop", "eta_plus", eta_plus, 1, math.inf, open_high=True)

    def init(params: Params) -> RpropState:
        params = require_real("rprop", params)
        return RpropState(zero_count(), initial_moment(params, fill=learning_rate), initial_moment(params))

    def update(
        updates: PyTree, state: RpropState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, RpropState]:
        def rule(g: Array, step: Array, previous: Array) -> tuple[Array, Array, Array]:
            s = jnp.sign(g) * jnp.sign(previous)
            changed = step * jnp.where(s > 0, cast_like(eta_plus, g), cast_like(eta_minus, g))
            step = jnp.where(s == 0, step, jnp.clip(changed, cast_like(min_step_size, g), cast_like(max_step_size, g)))
            direction = jnp.where(s < 0, jnp.zeros_like(g), step * jnp.sign(g))
            return direction, step, direction

        updates, steps, previous = per_leaf(rule, updates, (state.step_sizes, state.prev_updates), params)
        return updates, RpropState(increment(state.count), steps, previous)

    return Optimizer(init, update)


@specified
def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Optimizer:
    """Rprop: update = -step sign(g), with element-wise step sizes; for full-batch gradients.

    A step size is multiplied by eta_plus while the gradient keeps its sign; where the sign changes, it is multiplied by
    eta_minus and the entry skips one update. With minibatches the signs change at random, and the step sizes shrink to
    min_step_size. optax is one step late: see `scale_by_rprop`.

    Args:
        learning_rate: the initial step size; a number, which may be traced, no schedule.
        eta_minus, eta_plus, min_step_size, max_step_size: see `scale_by_rprop`, which has the whole equation.

    Raises:
        TypeError: a schedule as learning rate.

    Reference: Igel, C. & Huesken, M. (2003). Empirical evaluation of the improved Rprop learning algorithms, algorithm
        iRprop-, after Riedmiller, M. & Braun, H. (1993). A direct adaptive method for faster backpropagation learning.

    Example:
        >>> opt = rprop(0.1)
        >>> opt.update(jnp.array([3.0, -0.2]), opt.init(jnp.zeros(2)))[0]
        Array([-0.1,  0.1], dtype=float32)
    """
    return descent(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), 1.0, where="rprop")

"""Schedule-free learning: averaging of the parameters in place of a decaying learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import concrete_number, require_between
from jaxnn.numerics import accumulation_dtype, safe_divide
from jaxnn.optim.arguments import require_nonnegative, require_params
from jaxnn.optim.base import (
    Optimizer,
    Transformation,
    call_update,
    dtypes_of,
    initial_moment,
    map_leaves,
    per_leaf,
    real_dtype,
    widen,
)
from jaxnn.optim.chain import require_transformation
from jaxnn.optim.descent import descent
from jaxnn.optim.rules.adam import adamw
from jaxnn.optim.rules.sgd import trace
from jaxnn.optim.scalars import at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.schedules import warmup_constant_schedule
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class ScheduleFreeState(NamedTuple):
    """State of the averaging.

    `b1`: weight of the mean in the parameters; `weight_sum`: sum of the weights so far; `step_count`: int32 number of
    the next step, 1 at the start; `max_lr`: the largest learning rate so far; `base_optimizer_state`; `z`: the
    parameters that the base rule moves.
    """

    b1: Array
    weight_sum: Array
    step_count: Array
    max_lr: Array
    base_optimizer_state: Any
    z: PyTree


@specified
def schedule_free(
    base_optimizer: Transformation,
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Schedule-free averaging around a rule without momentum.

    Three sequences: z, moved by the base rule; x, the mean of z, to be evaluated; y, the parameters, where gradients
    are taken. With t = 1, 2, ... and m the largest learning rate so far:

    z <- z + base update at y;   w = m^weight_lr_power;   weight_sum <- weight_sum + w;   c = w / weight_sum
    x <- (1 - c) x + c z;   y <- b1 x + (1 - b1) z

    x is not kept: it is (y - (1 - b1) z) / b1 (`schedule_free_eval_params`). As in optax, the weights take the learning
    rate at t, the base rule's schedule that at t - 1. 0/0 := 0: x stays while the learning rate is 0. The sums are
    kept in the accumulation dtype; in bfloat16, as in optax, they would stop growing.

    Args:
        base_optimizer: the rule that moves z, an Optimizer or optax's, with its own learning rate and no momentum.
        learning_rate: that of the base rule, for the weights: number or schedule.
        b1: weight of the mean in the parameters, in (0, 1].
        weight_lr_power: power of the learning rate in the weights, >= 0.
        state_dtype: of z; None means float32 for half-precision parameters, else the parameter's.

    Reference: Defazio, A., Yang, X. A., Mehta, H., Mishchenko, K., Khaled, A. & Cutkosky, A. (2024). The road less
        scheduled, equations 3 to 5 and algorithm 1.

    Example:
        >>> from jaxnn import optim
        >>> opt = schedule_free(optim.sgd(0.5), 0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([1.0]), opt.init(params), params)[0]
        Array([-0.5], dtype=float32)
    """
    require_transformation("schedule_free", "base_optimizer", base_optimizer)
    require_nonnegative("schedule_free", learning_rate=learning_rate, weight_lr_power=weight_lr_power)
    require_between("schedule_free", "b1", b1, 0, 1)
    if concrete_number(b1) == 0:
        raise ValueError("schedule_free: b1 must be greater than 0, got 0: x could not be recovered from y and z.")

    def init(params: Params) -> ScheduleFreeState:
        zeros = initial_moment(params, state_dtype)
        dtype = real_dtype(accumulation_dtype(*(jnp.result_type(p) for p in jax.tree.leaves(params))))
        return ScheduleFreeState(
            jnp.asarray(b1).astype(dtype),
            jnp.zeros((), dtype),
            increment(zero_count()),
            jnp.zeros((), dtype),
            base_optimizer.init(widen(params)),
            # A copy, so that parameters and state may both be donated.
            jax.tree.map(lambda zero, p: jnp.array(p, zero.dtype, copy=True), zeros, params),
        )

    def update(
        updates: PyTree, state: ScheduleFreeState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ScheduleFreeState]:
        params = require_params("schedule_free", params)
        rate = at_count(learning_rate, state.step_count)
        max_lr = jnp.maximum(state.max_lr, cast_like(rate, state.max_lr))
        weight = max_lr ** cast_like(weight_lr_power, max_lr)
        weight_sum = state.weight_sum + weight
        c = safe_divide(weight, weight_sum)
        moves, new = call_update(base_optimizer, widen(updates), state.base_optimizer_state, widen(params), extra)

        def rule(u: Array, z: Array, y: Array) -> tuple[Array, Array, Array]:
            b = cast_like(state.b1, u)
            new = z + u
            # b1 x + (1 - b1) z - y with x from y and z, rearranged so that no step suffers cancellation.
            return cast_like(c, u) * (new - y) + (1 - cast_like(c, u)) * (1 - b) * (new - z), new, y

        updates, z, _ = per_leaf(rule, moves, (state.z, params), params)
        return updates, ScheduleFreeState(state.b1, weight_sum, increment(state.step_count), max_lr, new, z)

    return Optimizer(init, update)


def schedule_free_eval_params(state: ScheduleFreeState, params: Params) -> Params:
    """The mean x = (params - (1 - b1) z) / b1, at which a schedule-free run is evaluated.

    Args:
        state: of `schedule_free`, after training to `params`.
        params: the parameters y.

    Returns:
        x, in the dtypes of the parameters.

    Raises:
        TypeError: a state without `b1` or `z`.

    Reference: Defazio, A. et al. (2024). The road less scheduled, equation 3 solved for x.

    Example:
        >>> opt = schedule_free_sgd(0.5)
        >>> schedule_free_eval_params(opt.init(jnp.array([1.0])), jnp.array([1.0]))
        Array([1.], dtype=float32)
    """
    if not (hasattr(state, "b1") and hasattr(state, "z")):
        raise TypeError(
            f"schedule_free_eval_params: the state must be a ScheduleFreeState, got {type(state).__name__}. "
            "Inside chain or another wrapper take the part that schedule_free made."
        )

    def mean(y: Array, z: Array) -> Array:
        b = cast_like(state.b1, y)
        return (y - (1 - b) * z.astype(y.dtype)) / b

    return dtypes_of(map_leaves(mean, widen(params), state.z), params)


@specified
def schedule_free_sgd(
    learning_rate: Scalar = 1.0,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Schedule-free gradient descent: `schedule_free` around z <- z - learning_rate (g + weight_decay params).

    The decay is taken at the parameters y and multiplied by the learning rate. Evaluate at `schedule_free_eval_params`.

    Args:
        learning_rate: a number, reached after the warm-up.
        warmup_steps: steps of linear warm-up of the learning rate from 0; None for no warm-up.
        b1, weight_lr_power, state_dtype: see `schedule_free`, which has the whole equation.
        weight_decay: number or schedule; None means 0.

    Reference: Defazio, A. et al. (2024). The road less scheduled, equations 3 to 5.

    Example:
        >>> opt = schedule_free_sgd(0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([1.0]), opt.init(params), params)[0]
        Array([-0.5], dtype=float32)
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    decay = 0.0 if weight_decay is None else weight_decay
    base = descent(trace(None), rate, weight_decay=decay, where="schedule_free_sgd")
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


@specified
def schedule_free_adamw(
    learning_rate: Scalar = 0.0025,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Schedule-free AdamW: `schedule_free` around `adamw` without momentum.

    nu <- b2 nu + (1 - b2) g^2;   z <- z - learning_rate (g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay params)

    eps is outside the root; the decay is taken at the parameters y and multiplied by the learning rate. The paper puts
    sqrt(1 - b2^t) into the learning rate instead, and so into the decay and the weights of the mean too. Evaluate at
    `schedule_free_eval_params`.

    Args:
        learning_rate: a number, reached after the warm-up.
        warmup_steps: steps of linear warm-up of the learning rate from 0; None for no warm-up.
        b1, weight_lr_power, state_dtype: see `schedule_free`, which has the rest of the equation.
        b2, eps: decay of nu, and eps outside its root; see `scale_by_adam`.

    Reference: Defazio, A. et al. (2024). The road less scheduled, algorithm 1.

    Example:
        >>> opt = schedule_free_adamw(0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.5], dtype=float32)
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    base = adamw(rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed_up(learning_rate: Scalar, warmup_steps: int | None) -> ScalarOrSchedule:
    """The learning rate, as a schedule that rises to it if there are warm-up steps."""
    return learning_rate if warmup_steps is None else warmup_constant_schedule(0.0, learning_rate, warmup_steps)

"""Learning-rate reduction on a plateau of the loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.checks import concrete_number, require_between
from jaxnn.optim.arguments import require_extra, require_nonnegative
from jaxnn.optim.base import Optimizer, widened
from jaxnn.optim.norms import scalar_dtype, times
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar


class ReduceLROnPlateauState(NamedTuple):
    """State of the reduction on a plateau.

    `scale`: the factor of the updates; `best_value`: the lowest mean so far; `plateau_count`: int32 means in a row
    without improvement; `cooldown_count`: int32 means that are still ignored; `count`: int32 values in the mean that is
    being formed; `avg_value`: that mean.
    """

    scale: Array
    best_value: Array
    plateau_count: Array
    cooldown_count: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    avg_value: Array


@specified
def reduce_on_plateau(
    factor: Scalar = 0.1,
    patience: Scalar = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: Scalar = 0,
    accumulation_size: Scalar = 1,
    min_scale: Scalar = 0.0,
) -> Optimizer:
    """Updates times a scale that shrinks when `value` stops improving; put it last in a chain.

    Let a be the mean of accumulation_size values. It improves if a < best - rtol |best| - atol; then best <- a. After
    `patience` means in a row without improvement, scale <- max(factor scale, min_scale), from the update of that call
    on, and the next `cooldown` means do not count (but may become the best).

    PyTorch's patience is this one - 1. For negative values optax and PyTorch test a < (1 - rtol) best, which a value
    worse than the best satisfies; here it has to be better. `update` needs the extra argument `value`, to be
    minimized. A NaN does not count as an improvement.

    Args:
        factor: in (0, 1).
        patience: number of means, >= 1. (With 0 optax reduces when the value improves.)
        rtol, atol: relative and absolute decrease that an improvement exceeds; rtol in [0, 1], atol >= 0, not both 0.
        cooldown: number of means, >= 0.
        accumulation_size: values in a mean, >= 1: 1 for a validation loss, more for minibatch losses.
        min_scale: lower bound of the scale, >= 0.

    Reference: PyTorch, torch.optim.lr_scheduler.ReduceLROnPlateau (mode "min").

    Example:
        >>> opt = reduce_on_plateau(0.5, patience=1)
        >>> _, state = opt.update(jnp.ones(1), opt.init(jnp.ones(1)), value=jnp.array(3.0))
        >>> opt.update(jnp.ones(1), state, value=jnp.array(3.0))[0]
        Array([0.5], dtype=float32)
    """
    where = "reduce_on_plateau"
    if concrete_number(factor) is not None and not 0 < float(factor) < 1:
        raise ValueError(f"{where}: factor must lie in (0, 1), got {float(factor):g}.")
    require_between(where, "rtol", rtol, 0, 1)
    require_between(where, "patience", patience, 1, math.inf)
    require_between(where, "accumulation_size", accumulation_size, 1, math.inf)
    require_nonnegative(where, atol=atol, cooldown=cooldown, min_scale=min_scale)
    if concrete_number(rtol) == 0 and concrete_number(atol) == 0:
        raise ValueError(f"{where}: rtol or atol must be greater than 0, got 0 for both.")

    def init(params: Params) -> ReduceLROnPlateauState:
        one = jnp.ones((), scalar_dtype(params))
        return ReduceLROnPlateauState(one, one * math.inf, zero_count(), zero_count(), zero_count(), 0 * one)

    @widened
    def update(
        updates: PyTree, state: ReduceLROnPlateauState, params: Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, ReduceLROnPlateauState]:
        value = cast_like(require_extra(where, "value", value), state.avg_value)
        count = increment(state.count)
        mean = (state.count.astype(value.dtype) * state.avg_value + value) / count.astype(value.dtype)
        best = state.best_value
        # The threshold is inf - inf before the first value.
        bound = jnp.where(jnp.isinf(best), best, best - cast_like(rtol, best) * jnp.abs(best) - cast_like(atol, best))
        improves = mean < bound

        cooling = state.cooldown_count > 0
        bad = jnp.where(improves | cooling, 0, increment(state.plateau_count))
        reduces = bad >= jnp.asarray(patience)
        shrunk = jnp.where(reduces, cast_like(factor, mean) * state.scale, state.scale)
        formed = ReduceLROnPlateauState(
            jnp.where(cooling, state.scale, jnp.maximum(shrunk, cast_like(min_scale, mean))),
            jnp.where(improves, mean, best),
            jnp.where(reduces, 0, bad),
            jnp.where(reduces, jnp.asarray(cooldown, jnp.int32), jnp.maximum(state.cooldown_count - 1, 0)),
            zero_count(),
            jnp.zeros_like(mean),
        )
        forming = state._replace(count=count, avg_value=mean)
        full = count >= jnp.asarray(accumulation_size)
        new = ReduceLROnPlateauState(*(jnp.where(full, a, b) for a, b in zip(formed, forming, strict=True)))
        return times(new.scale, updates), new

    return Optimizer(init, update)

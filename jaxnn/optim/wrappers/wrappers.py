"""Transformations that apply another one under a condition, and Lookahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_positive_int
from jaxnn.optim.base import Optimizer, Transformation, apply_updates, dtypes_of, widen
from jaxnn.optim.inner import init_inner, require_dtypes, require_inner, update_if, update_inner
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.tree import all_finite
from jaxnn.types import Array, Params, PyTree, Scalar


class ApplyIfFiniteState(NamedTuple):
    """`notfinite_count`, `total_notfinite`: int32 non-finite gradients, in a row and in all; `last_finite`: whether the
    last gradient was finite; `inner_state`: of the wrapped transformation."""

    notfinite_count: Array
    last_finite: Array
    total_notfinite: Array
    inner_state: Any


class ConditionallyTransformState(NamedTuple):
    """`inner_state`: of the wrapped transformation; `step`: int32 calls of update."""

    inner_state: Any
    step: Array


class ConditionallyMaskState(NamedTuple):
    """`step`: int32 calls of update; `inner_state`: of the wrapped transformation."""

    step: Array
    inner_state: Any


class LookaheadState(NamedTuple):
    """`fast_state`: of the wrapped optimizer; `steps_since_sync`: int32 steps since the last synchronization."""

    fast_state: Any
    steps_since_sync: Array


class LookaheadParams(NamedTuple):
    """`fast`: parameters at which gradients are taken; `slow`: those to evaluate and to keep."""

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> LookaheadParams:
        """Both equal at the start; the slow ones are a copy, so that both may be donated."""
        return cls(fast=params, slow=jax.tree.map(jnp.copy, params))


@specified
def apply_if_finite(inner: Transformation, max_consecutive_errors: int) -> Optimizer:
    """Updates of 0 and an unchanged inner state where a gradient holds an infinity or NaN.

    After `max_consecutive_errors` such gradients in a row the next ones pass, so that the failure shows.

    Args:
        inner: Optimizer, or an optax transformation; not run for rejected gradients.
        max_consecutive_errors: >= 0; may be traced.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = apply_if_finite(optim.sgd(0.1), 5), jnp.ones(1)
        >>> updates, state = opt.update(jnp.array([jnp.nan]), opt.init(params), params)
        >>> updates, int(state.total_notfinite)
        (Array([0.], dtype=float32), 1)
    """
    require_inner("apply_if_finite", inner)
    require_between("apply_if_finite", "max_consecutive_errors", max_consecutive_errors, 0, float("inf"))

    def init(params: Params) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(zero_count(), jnp.ones((), bool), zero_count(), init_inner(inner, params))

    def update(
        updates: PyTree, state: ApplyIfFiniteState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ApplyIfFiniteState]:
        finite = all_finite(jax.tree.leaves(updates))
        in_a_row = jnp.where(finite, 0, increment(state.notfinite_count))
        total = jnp.where(finite, state.total_notfinite, increment(state.total_notfinite))
        updates, new = update_if(
            finite | (in_a_row > max_consecutive_errors), _zeros, inner, updates, state.inner_state, params, extra
        )
        return updates, ApplyIfFiniteState(in_a_row, finite, total, new)

    return Optimizer(init, update)


@specified
def conditionally_transform(
    inner: Transformation, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> Optimizer:
    """The inner transformation at some steps; at others, updates and inner state are unchanged.

    Args:
        inner: Optimizer, or an optax transformation; run only where the condition holds.
        should_transform_fn: maps the step (int32, 0 at the first update) to a bool, which may be traced.
        forward_extra_args: whether it receives the extra arguments of `update` too, by name.

    Example:
        >>> from jaxnn import optim
        >>> opt = conditionally_transform(optim.clip(1.0), lambda step: step >= 1)
        >>> updates, state = opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))
        >>> updates, opt.update(jnp.array([3.0]), state)[0]
        (Array([3.], dtype=float32), Array([1.], dtype=float32))
    """
    require_inner("conditionally_transform", inner)

    def init(params: Params) -> ConditionallyTransformState:
        return ConditionallyTransformState(init_inner(inner, params), zero_count())

    def update(
        updates: PyTree, state: ConditionallyTransformState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ConditionallyTransformState]:
        condition = should_transform_fn(state.step, **(extra if forward_extra_args else {}))
        updates, new = update_if(condition, lambda grads: grads, inner, updates, state.inner_state, params, extra)
        return updates, ConditionallyTransformState(new, increment(state.step))

    return Optimizer(init, update)


@specified
def conditionally_mask(
    inner: Transformation, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> Optimizer:
    """The inner transformation at some steps; at others, updates of 0 and an unchanged inner state.

    Args:
        inner, should_transform_fn, forward_extra_args: as for `conditionally_transform`.

    Example:
        >>> from jaxnn import optim
        >>> opt = conditionally_mask(optim.sgd(1.0), lambda step: step % 2 == 1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([0.], dtype=float32)
    """
    require_inner("conditionally_mask", inner)

    def init(params: Params) -> ConditionallyMaskState:
        return ConditionallyMaskState(zero_count(), init_inner(inner, params))

    def update(
        updates: PyTree, state: ConditionallyMaskState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ConditionallyMaskState]:
        condition = should_transform_fn(state.step, **(extra if forward_extra_args else {}))
        updates, new = update_if(condition, _zeros, inner, updates, state.inner_state, params, extra)
        return updates, ConditionallyMaskState(increment(state.step), new)

    return Optimizer(init, update)


@specified
def lookahead(
    fast_optimizer: Transformation, sync_period: int, slow_step_size: Scalar, reset_state: bool = False
) -> Optimizer:
    """Lookahead: sync_period steps of a fast optimizer, then one step back towards their start.

    fast <- fast + inner update, at every step;   after every sync_period steps
    slow <- slow + slow_step_size (fast - slow);   fast <- slow

    The parameters are a `LookaheadParams(fast, slow)`, gradients are taken at `fast`, and the updates must be applied
    unchanged: the update of `slow` assumes the next `fast`. After a synchronization the two pytrees are equal up to one
    rounding each.

    Args:
        fast_optimizer: Optimizer, or an optax transformation, of `fast`.
        sync_period: steps between synchronizations, >= 1.
        slow_step_size: in [0, 1] in the paper.
        reset_state: whether to reset the fast optimizer's state after a synchronization.

    Raises:
        ValueError: at `update`, params that are not a `LookaheadParams`.

    Reference: Zhang, M., Lucas, J., Hinton, G. & Ba, J. (2019). Lookahead optimizer: k steps forward, 1 step back,
        algorithm 1.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = lookahead(optim.sgd(1.0), 1, 0.5), LookaheadParams.init_synced(jnp.ones(1))
        >>> updates, state = opt.update(jnp.ones(1), opt.init(params), params)
        >>> optim.apply_updates(params, updates)
        LookaheadParams(fast=Array([0.5], dtype=float32), slow=Array([0.5], dtype=float32))
    """
    require_inner("lookahead", fast_optimizer)
    period = require_positive_int("lookahead", "sync_period", sync_period)

    def init(params: Params) -> LookaheadState:
        return LookaheadState(init_inner(fast_optimizer, getattr(params, "fast", params)), zero_count())

    def update(
        updates: PyTree, state: LookaheadState, params: Any = None, **extra: Any
    ) -> tuple[PyTree, LookaheadState]:
        if not (hasattr(params, "fast") and hasattr(params, "slow")):
            raise ValueError(
                f"lookahead: params must be a LookaheadParams, got {type(params).__name__}. Start with "
                "LookaheadParams.init_synced(params) and take gradients at params.fast."
            )
        updates, fast_state = update_inner(fast_optimizer, updates, state.fast_state, params.fast, extra)
        steps = state.steps_since_sync + 1
        sync = steps >= period
        fast, slow = widen(params.fast), widen(params.slow)

        def settled(f: Array, s: Array) -> Array:
            return s + cast_like(slow_step_size, s) * (f - s)

        ahead = apply_updates(fast, updates)
        meeting = jax.tree.map(settled, ahead, slow)
        to_fast = jax.tree.map(lambda u, m, f: jnp.where(sync, m - f, u), widen(updates), meeting, fast)
        to_slow = jax.tree.map(lambda m, s: jnp.where(sync, m - s, jnp.zeros_like(s)), meeting, slow)
        if reset_state:
            # `where`, not a product with 0, which would keep a NaN.
            fresh = init_inner(fast_optimizer, params.fast)
            require_dtypes("lookahead", fast_state, fresh)
            fast_state = jax.tree.map(lambda new, old: jnp.where(sync, new, old), fresh, fast_state)
        # The parameters' own type, so that optax's LookaheadParams may be passed.
        both = type(params)(fast=dtypes_of(to_fast, params.fast), slow=dtypes_of(to_slow, params.slow))
        return both, LookaheadState(fast_state, jnp.where(sync, 0, steps))

    return Optimizer(init, update)


def _zeros(grads: PyTree) -> PyTree:
    """Updates of 0."""
    return jax.tree.map(jnp.zeros_like, grads)

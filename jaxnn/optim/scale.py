"""Transformations that scale updates, and the identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.optim.arguments import require_params
from jaxnn.optim.base import EmptyState, Optimizer, is_float0, per_leaf, widened
from jaxnn.optim.descent import Mask, add_decay, called_on_stored
from jaxnn.optim.scalars import at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class CountState(NamedTuple):
    """`count`: int32 steps taken."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


@specified
def stateless(f: Callable[[PyTree, Params | None], PyTree]) -> Optimizer:
    """A transformation without state: updates = f(updates, params), params None if `update` receives none.

    Example:
        >>> opt = stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
        >>> opt.update(jnp.array([-3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """

    def update(
        updates: PyTree, state: EmptyState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, EmptyState]:
        return f(updates, params), state

    return Optimizer(lambda params: EmptyState(), update)


@specified
def identity() -> Optimizer:
    """The updates unchanged.

    Example:
        >>> identity().update(jnp.ones(1), ())[0]
        Array([1.], dtype=float32)
    """
    return stateless(lambda updates, params: updates)


@specified
def set_to_zero() -> Optimizer:
    """Updates of 0, which freeze the parameters.

    Example:
        >>> set_to_zero().update(jnp.ones(1), ())[0]
        Array([0.], dtype=float32)
    """
    return stateless(lambda updates, params: jax.tree.map(lambda u: u if is_float0(u) else jnp.zeros_like(u), updates))


@specified
def scale(step_size: Scalar) -> Optimizer:
    """Updates times a number, which may be traced and may be negative.

    Example:
        >>> scale(-0.5).update(jnp.ones(1), ())[0]
        Array([-0.5], dtype=float32)
    """
    return stateless(lambda updates, params: _scaled(updates, step_size, params))


@specified
def scale_by_schedule(step_size_fn: Callable[[Array], Scalar]) -> Optimizer:
    """Updates times a function of the step count (0 at the first update), without a change of sign.

    Example:
        >>> opt = scale_by_schedule(lambda count: -1.0 / (1 + count))
        >>> _, state = opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
        >>> opt.update(jnp.ones(1), state)[0]
        Array([-0.5], dtype=float32)
    """

    def update(
        updates: PyTree, state: CountState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        return _scaled(updates, step_size_fn(state.count), params), CountState(increment(state.count))

    return Optimizer(lambda params: CountState(zero_count()), update)


@specified
def scale_by_learning_rate(learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True) -> Optimizer:
    """Updates times -learning_rate (+learning_rate without `flip_sign`), a number or a schedule; None means 1.

    With learning_rate=None optax leaves the updates unchanged, sign included; here None descends.

    Example:
        >>> scale_by_learning_rate(0.1).update(jnp.ones(1), ())[0]
        Array([-0.1], dtype=float32)
    """
    sign = -1 if flip_sign else 1
    rate = 1.0 if learning_rate is None else learning_rate
    if callable(rate):
        return scale_by_schedule(lambda count: sign * at_count(rate, count))
    return scale(sign * rate)


@specified
@called_on_stored("mask")
def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None) -> Optimizer:
    """updates + weight_decay params, where the mask is True.

    Before a rule's moments this is an L2 penalty; after them, and before the learning rate, which then multiplies it,
    decoupled weight decay.

    Args:
        weight_decay: number or schedule of the step count (0 at the first update), of any sign.
        mask: which parameters decay: a pytree of bools, a function of the parameters that returns one, or None for all.

    Example:
        >>> opt = add_decayed_weights(0.5)
        >>> opt.update(jnp.zeros(1), opt.init(jnp.ones(1)), jnp.ones(1))[0]
        Array([0.5], dtype=float32)
    """

    @widened
    def update(
        updates: PyTree, state: CountState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        params = require_params("add_decayed_weights", params)
        decayed = add_decay(updates, params, at_count(weight_decay, state.count), mask, where="add_decayed_weights")
        return decayed, CountState(increment(state.count))

    return Optimizer(lambda params: CountState(zero_count()), update)


def _scaled(updates: PyTree, factor: Scalar, params: Params | None) -> PyTree:
    """The updates times a number, computed in the accumulation dtype."""
    return per_leaf(lambda g: (cast_like(factor, g) * g,), updates, (), params)[0]

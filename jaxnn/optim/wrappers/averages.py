"""Averages: of updates, and of the parameters that an optimizer visits."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.numerics import accumulation_dtype
from jaxnn.optim.arguments import require_decay, require_params
from jaxnn.optim.base import Optimizer, Transformation, apply_updates, dtypes_of, initial_moment, per_leaf, widen
from jaxnn.optim.inner import init_inner, require_inner, update_inner
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar


class EmaState(NamedTuple):
    """`count`: int32 steps taken; `ema`: the average before bias correction."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    ema: PyTree


class AverageState(NamedTuple):
    """`count`: int32 steps taken; `average`: of the parameters; `inner_state`: of the wrapped optimizer."""

    count: Array  # type: ignore[assignment] # the name that every rule uses; it hides tuple.count
    average: PyTree
    inner_state: Any


@specified
def ema(decay: Scalar, debias: bool = True, accumulator_dtype: DTypeLike | None = None) -> Optimizer:
    """The exponential moving average of the updates.

    ema <- decay ema + (1 - decay) u;   update = ema / (1 - decay^t) if `debias`, else ema;   t = 1, 2, ...

    Args:
        decay: in [0, 1).
        debias: whether to correct the bias towards the initial 0.
        accumulator_dtype: of ema; None means float32 for half-precision parameters, else the parameter's.

    Reference: Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, section 3 (the correction).

    Example:
        >>> opt = ema(0.5)
        >>> updates, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
        >>> updates, state.ema
        (Array([1.], dtype=float32), Array([0.5], dtype=float32))
    """
    require_decay("ema", decay=decay)

    def init(params: Params) -> EmaState:
        return EmaState(zero_count(), initial_moment(params, accumulator_dtype))

    def update(updates: PyTree, state: EmaState, params: Params | None = None, **extra: Any) -> tuple[PyTree, EmaState]:
        count = increment(state.count)

        def rule(g: Array, mean: Array) -> tuple[Array, Array]:
            d = cast_like(decay, g)
            mean = d * mean + (1 - d) * g
            return (mean / (1 - d ** count.astype(d.dtype)) if debias else mean), mean

        updates, mean = per_leaf(rule, updates, (state.ema,), params)
        return updates, EmaState(count, mean)

    return Optimizer(init, update)


@specified
def average_params(
    inner: Transformation, decay: Scalar | None = None, *, start: Scalar = 0, debias: bool = True
) -> Optimizer:
    """The optimizer unchanged, with the average of its iterates in the state.

    theta_t = params + updates;   n = t - start, t = 1, 2, ...;   average <- average + weight (theta_t - average)
    weight = 1 / n without decay: the mean of theta_(start+1) ... theta_t (Polyak and Ruppert)
    weight = (1 - decay) / (1 - decay^n) with decay: the exponential moving average, bias-corrected
    weight = 1 for n <= 1: up to `start` the average is the last parameters

    Read it with `averaged_params(state)`. The updates must be applied unchanged: wrap the whole chain. The average is
    kept in the accumulation dtype.

    Args:
        inner: the optimizer, ours or optax's.
        decay: in [0, 1). None means the plain mean.
        start: steps before averaging begins, >= 0.
        debias: False for weight 1 - decay at every n > 1, as in PyTorch's `get_ema_multi_avg_fn`.

    Reference: Polyak, B. T. & Juditsky, A. B. (1992). Acceleration of stochastic approximation by averaging, equation
        2.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = average_params(optim.sgd(1.0)), jnp.zeros(1)
        >>> state = opt.init(params)
        >>> for _ in range(2):
        ...     updates, state = opt.update(jnp.array([-1.0]), state, params)
        ...     params = optim.apply_updates(params, updates)
        >>> params, averaged_params(state)
        (Array([2.], dtype=float32), Array([1.5], dtype=float32))
    """
    require_inner("average_params", inner)
    require_decay("average_params", decay=decay)
    require_between("average_params", "start", start, 0, float("inf"))

    def init(params: Params) -> AverageState:
        # A copy, so that the parameters and this state may both be donated.
        return AverageState(zero_count(), jax.tree.map(jnp.copy, widen(params)), init_inner(inner, params))

    def update(
        updates: PyTree, state: AverageState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AverageState]:
        params = require_params("average_params", params)
        updates, inner_state = update_inner(inner, updates, state.inner_state, params, extra)
        count = increment(state.count)

        def leaf(average: Array, theta: Array) -> Array:
            n = jnp.maximum(count - start, 1).astype(jnp.real(average).dtype)
            if decay is None:
                weight = 1 / n
            else:
                d = cast_like(decay, average)
                weight = jnp.where(n == 1, 1, (1 - d) / (1 - d**n) if debias else 1 - d)
            return average + weight * (theta.astype(average.dtype) - average)

        average = jax.tree.map(leaf, state.average, apply_updates(params, updates))
        return updates, AverageState(count, average, inner_state)

    return Optimizer(init, update)


def averaged_params(state: Any, params: Params | None = None) -> Params:
    """The average that `average_params` keeps, anywhere in an optimizer's state; in the dtypes of params if given.

    Raises:
        ValueError: there is none, or more than one.

    Example:
        >>> from jaxnn import optim
        >>> averaged_params(average_params(optim.adam(0.1), 0.99).init(jnp.ones(1)))
        Array([1.], dtype=float32)
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, AverageState))
    found = [node for node in nodes if isinstance(node, AverageState)]
    if len(found) != 1:
        raise ValueError(
            f"averaged_params: the state must hold one average, got {len(found)}. Wrap the whole optimizer once: "
            "average_params(opt)."
        )
    return found[0].average if params is None else dtypes_of(found[0].average, params)


def incremental_update(new_tensors: Params, old_tensors: Params, step_size: Scalar) -> Params:
    """step_size new + (1 - step_size) old, in the dtypes of the old; where new is None, None.

    Args:
        new_tensors, old_tensors: pytrees with the same structure, e.g. parameters and their running average; new leaves
            may be None.
        step_size: in [0, 1].

    Reference: Polyak, B. T. & Juditsky, A. B. (1992). Acceleration of stochastic approximation by averaging.

    Example:
        >>> incremental_update(jnp.ones(1), jnp.zeros(1), 0.25)
        Array([0.25], dtype=float32)
    """

    def leaf(new: Array | None, old: Array | None) -> Array | None:
        if new is None:
            return None
        if old is None:
            raise ValueError(
                "incremental_update: an old tensor is None where the new is an array. Pass both or neither."
            )
        kept = jnp.result_type(old)
        dtype = accumulation_dtype(jnp.result_type(new), kept)
        new, old = jnp.asarray(new).astype(dtype), jnp.asarray(old).astype(dtype)
        step = cast_like(step_size, old)
        return (step * new + (1 - step) * old).astype(kept)

    return jax.tree.map(leaf, new_tensors, old_tensors, is_leaf=lambda x: x is None)


def periodic_update(new_tensors: Params, old_tensors: Params, steps: Scalar, update_period: Scalar) -> Params:
    """The new tensors where `steps` is a multiple of `update_period` (0 is one), else the old; in the old's dtypes.

    Args:
        new_tensors, old_tensors: pytrees with the same structure, e.g. parameters and a slow copy.
        steps: int.
        update_period: int >= 1.

    Reference: Mnih, V. et al. (2013). Playing Atari with deep reinforcement learning.

    Example:
        >>> periodic_update(jnp.ones(1), jnp.zeros(1), 4, 2), periodic_update(jnp.ones(1), jnp.zeros(1), 5, 2)
        (Array([1.], dtype=float32), Array([0.], dtype=float32))
    """
    due = jnp.asarray(steps) % update_period == 0

    def leaf(new: Array, old: Array) -> Array:
        return jnp.where(due, jnp.asarray(new).astype(jnp.result_type(old)), old)

    return jax.tree.map(leaf, new_tensors, old_tensors)

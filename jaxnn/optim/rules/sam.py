"""Sharpness-aware minimization: descent along the gradient at an adversarially perturbed point."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.numerics import accumulation_dtype
from jaxnn.optim.arguments import require_extra, require_params
from jaxnn.optim.base import (
    EmptyState,
    Optimizer,
    Transformation,
    apply_updates,
    call_update,
    dtypes_of,
    map_leaves,
    real_dtype,
    widen,
    widened,
)
from jaxnn.optim.chain import require_transformation
from jaxnn.optim.inner import require_dtypes
from jaxnn.optim.norms import nonzero
from jaxnn.optim.scalars import abs_sq, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree

NormalizeState = EmptyState
"""The state of `normalize`, under optax's name."""


class SAMState(NamedTuple):
    """State of sharpness-aware minimization.

    `steps_since_sync`: int32 adversarial steps since the outer rule stepped; `opt_state`, `adv_state`: of the two
    rules; `cache`: the parameters that the outer rule moves, None in opaque mode; `count`: int32 updates.
    """

    steps_since_sync: Array
    opt_state: Any
    adv_state: Any
    cache: Params
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


@specified
def normalize() -> Optimizer:
    """Updates over their norm: g / |g|, |g| the Euclidean norm of all leaves together; 0 where |g| = 0 (optax: NaN).

    g is first divided by its largest magnitude, so the norm neither overflows nor underflows.

    Reference: Foret, P., Kleiner, A., Mobahi, H. & Neyshabur, B. (2021). Sharpness-aware minimization for efficiently
        improving generalization, equation 2 (for p = 2).

    Example:
        >>> opt = normalize()
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[0]
        Array([0.6, 0.8], dtype=float32)
    """

    @widened
    def update(
        updates: PyTree, state: NormalizeState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, NormalizeState]:
        # The factor cancels, so no derivative goes through it.
        size = _over_leaves(jnp.max, lambda g: jnp.max(jnp.abs(g), initial=0.0), updates)
        shrunk = _over(updates, jax.lax.stop_gradient(size))
        # `nonzero` inside the root keeps it differentiable, and XLA from recomputing it in the loop of every leaf.
        return _over(shrunk, jnp.sqrt(nonzero(_over_leaves(jnp.sum, lambda g: jnp.sum(abs_sq(g)), shrunk)))), state

    return Optimizer(lambda params: NormalizeState(), update)


@specified
def sam(
    optimizer: Transformation,
    adv_optimizer: Transformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> Optimizer:
    """Sharpness-aware minimization: `sync_period - 1` ascent steps, then one outer step from where they began.

    With adv_optimizer = chain(normalize(), sgd(rho)) and sync_period = 2 this is the paper's:
    cache <- params;   params <- params + rho g(params) / |g(params)|;   params <- cache - learning_rate g(params)

    By default each call of `update` takes one of these steps in turn: the caller sees the adversarial parameters too,
    and the outer rule steps at every sync_period-th call. In opaque mode one call takes them all: the first with the
    gradients passed to it, the others with those of `grad_fn`; the caller sees only the outer parameters. Each step
    runs its own rule alone.
    With sync_period = 1 the outer rule alone steps (optax's starts from stale parameters).

    In opaque mode the update needs the extra argument `grad_fn`: (params, i) -> gradient after adversarial step i = 0,
    1, ..., or params -> gradient (as `train.make_step` passes it). Extra arguments go to both rules.

    Args:
        optimizer: the outer rule, which descends.
        adv_optimizer: the adversarial rule, whose updates are subtracted.
        sync_period: calls from one outer step to the next; static.
        reset_state: whether to reset the adversarial rule's state after an outer step.
        opaque_mode: whether a call takes all steps of a period.
        batch_axis_name: in opaque mode, the mapped axis over which the gradients of `grad_fn` are averaged.

    Reference: Foret, P., Kleiner, A., Mobahi, H. & Neyshabur, B. (2021). Sharpness-aware minimization for efficiently
        improving generalization, algorithm 1.

    Example:
        >>> from jaxnn import optim
        >>> opt = sam(optim.sgd(0.1), optim.chain(normalize(), optim.sgd(1.0)), opaque_mode=True)
        >>> params = jnp.array([1.0])
        >>> opt.update(2 * params, opt.init(params), params, grad_fn=lambda p: 2 * p)[0]
        Array([-0.4], dtype=float32)
    """
    require_transformation("sam", "optimizer", optimizer)
    require_transformation("sam", "adv_optimizer", adv_optimizer)
    period = require_positive_int("sam", "sync_period", sync_period)

    def init(params: Params) -> SAMState:
        # A copy, so that parameters and state may both be donated.
        cache = None if opaque_mode else jax.tree.map(jnp.copy, params)
        wide = widen(params)
        return SAMState(zero_count(), optimizer.init(wide), adv_optimizer.init(wide), cache, zero_count())

    def uphill(grads: PyTree, state: Any, params: Params, extra: dict[str, Any]) -> tuple[PyTree, Any]:
        updates, new = call_update(adv_optimizer, widen(grads), state, widen(params), extra)
        return dtypes_of(jax.tree.map(jnp.negative, updates), params), new

    def transparent(
        updates: PyTree, state: SAMState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SAMState]:
        grads = updates
        params = require_params("sam", params)
        steps = state.steps_since_sync
        cache = map_leaves(lambda p, c: jnp.where(steps == 0, p, c), params, state.cache)

        def outer(opt_state: Any, adv_state: Any) -> tuple[PyTree, Any, Any]:
            updates, new = call_update(optimizer, widen(grads), opt_state, widen(cache), extra)
            moves = map_leaves(lambda u, c, p: c - p + u, updates, widen(cache), widen(params))
            adv_state = adv_optimizer.init(widen(params)) if reset_state else adv_state
            return dtypes_of(moves, params), require_dtypes("sam", new, opt_state), adv_state

        def adversarial(opt_state: Any, adv_state: Any) -> tuple[PyTree, Any, Any]:
            updates, new = uphill(grads, adv_state, params, extra)
            return updates, opt_state, require_dtypes("sam", new, adv_state)

        last = steps == period - 1
        updates, opt_state, adv_state = jax.lax.cond(last, outer, adversarial, state.opt_state, state.adv_state)
        return updates, SAMState((steps + 1) % period, opt_state, adv_state, cache, increment(state.count))

    def opaque(
        updates: PyTree, state: SAMState, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, SAMState]:
        grads = updates
        params = require_params("sam", params)
        require_extra("sam", "grad_fn", grad_fn)
        worse, adv_state = params, state.adv_state
        extra["grad_fn"] = grad_fn
        for i in range(period - 1):
            updates, adv_state = uphill(grads, adv_state, worse, extra)
            worse = apply_updates(worse, updates)
            grads = grad_fn(worse, i) if _takes_step(grad_fn) else grad_fn(worse)
            if batch_axis_name is not None:
                grads = jax.lax.pmean(grads, batch_axis_name)
        if reset_state:
            adv_state = adv_optimizer.init(widen(params))
        updates, opt_state = call_update(optimizer, widen(grads), state.opt_state, widen(params), extra)
        return dtypes_of(updates, params), SAMState(zero_count(), opt_state, adv_state, None, increment(state.count))

    return Optimizer(init, opaque if opaque_mode else transparent)


def _over_leaves(reduce: Callable[..., Array], function: Callable[[Array], Array], tree: PyTree) -> Array:
    """`reduce` of one real number for each leaf, `function(leaf)`; 0 for a pytree without leaves."""
    leaves = jax.tree.leaves(tree)
    dtype = real_dtype(accumulation_dtype(*(x.dtype for x in leaves)))
    found = jnp.stack([function(x).astype(dtype) for x in leaves] or [jnp.zeros(())])
    return reduce(found)


def _over(tree: PyTree, divisor: Array) -> PyTree:
    """The pytree divided by a real number, in its own dtypes; unchanged (and then 0) where the number is 0."""
    divisor = nonzero(divisor)
    return jax.tree.map(lambda x: (x / divisor.astype(real_dtype(x.dtype))).astype(x.dtype), tree)


def _takes_step(grad_fn: Any) -> bool:
    """Whether grad_fn takes the number of the adversarial step after the parameters."""
    try:
        inspect.signature(grad_fn).bind(None, 0)
    except TypeError:
        return False
    return True

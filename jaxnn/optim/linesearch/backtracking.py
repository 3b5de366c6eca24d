"""Backtracking line search: shorter steps until the loss decreases enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.arguments import require_extra, require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, apply_updates
from jaxnn.optim.linesearch.linesearch import filled_like, slope_along, step_along, take_from
from jaxnn.optim.norms import scalar_dtype
from jaxnn.optim.scalars import cast_like
from jaxnn.optim.spec import specified
from jaxnn.placement import full_like
from jaxnn.types import Array, Params, PyTree, Scalar


class BacktrackingLinesearchInfo(NamedTuple):
    """`num_linesearch_steps`: int32 trials; `decrease_error`: by how much the last one missed the condition, with
    atol = 0; 0 if it was met."""

    num_linesearch_steps: Array
    decrease_error: Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """`learning_rate`: the step taken; `value`, `grad`: loss and gradient where it ended (grad None unless stored);
    `info` on the search."""

    learning_rate: Array
    value: Array
    grad: PyTree
    info: BacktrackingLinesearchInfo


class _Search(NamedTuple):
    step: Array
    value: Array
    error: Array
    trials: Array


@specified
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: Scalar = 1e-4,
    decrease_factor: Scalar = 0.8,
    increase_factor: Scalar = 1.5,
    max_learning_rate: Scalar = 1.0,
    atol: Scalar = 0.0,
    rtol: Scalar = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> Optimizer:
    """Scale the updates u by the first step s at which the loss f has decreased enough (Armijo's condition).

    f(w + s u) <= (1 + rtol) f(w) + slope_rtol s <u, grad f(w)> + atol,   w the parameters,
    tried for s = min(increase_factor (last s), max_learning_rate), then decrease_factor s, decrease_factor^2 s, ...

    The updates must be a descent direction: put the search after a rule with learning rate 1, as in
    `chain(sgd(1.0), ...)`. If no trial decreases the loss enough, the last one is taken. If the loss there is NaN or
    infinite, the step is 0, value and gradient are those of the start, and the next search begins as the first one did.
    (optax keeps the value of the failed trial, accepts a loss of minus infinity, and never leaves a step of 0.)

    The update needs the extra arguments `value`, `grad` (the convention of `jax.grad`) and `value_fn`, a function of
    the parameters; further arguments that `value_fn` names are passed on.

    Args:
        max_backtracking_steps: trials after the first.
        slope_rtol: Armijo's constant, in (0, 1).
        decrease_factor: in (0, 1).
        increase_factor: >= 1; ratio of the first trial to the last step; infinite: always start at `max_learning_rate`.
        max_learning_rate: largest step; may be infinite.
        atol, rtol: how much the loss may rise, for noisy or rounded losses.
        store_grad: whether the state keeps the gradient at the end, for `value_and_grad_from_state`.
        verbose: whether to print when the search fails.

    Reference: Armijo, L. (1966). Minimization of functions having Lipschitz continuous first partial derivatives.
        Nocedal, J. & Wright, S. J. (2006). Numerical optimization, algorithm 3.1.

    Example:
        >>> from jaxnn import optim
        >>> opt, f = optim.chain(optim.sgd(1.0), scale_by_backtracking_linesearch(20)), lambda p: (p**2).sum()
        >>> params = jnp.array([1.0])
        >>> value, grad = jax.value_and_grad(f)(params)
        >>> opt.update(grad, opt.init(params), params, value=value, grad=grad, value_fn=f)[0]
        Array([-1.6], dtype=float32)
    """
    where = "scale_by_backtracking_linesearch"
    require_nonnegative(where, max_backtracking_steps=max_backtracking_steps, atol=atol, rtol=rtol)
    for name, factor in (("slope_rtol", slope_rtol), ("decrease_factor", decrease_factor)):
        require_between(where, name, factor, 0, 1)
    for name, number in (("increase_factor", increase_factor), ("max_learning_rate", max_learning_rate)):
        require_between(where, name, number, 0, math.inf)

    def init(params: Params) -> ScaleByBacktrackingLinesearchState:
        one = jnp.ones((), scalar_dtype(params))
        return ScaleByBacktrackingLinesearchState(
            one,
            jnp.inf * one,
            jax.tree.map(lambda p: full_like(p, 0), params) if store_grad else None,
            BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), jnp.inf * one),
        )

    def update(
        updates: PyTree,
        state: ScaleByBacktrackingLinesearchState,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: PyTree = None,
        value_fn: Callable[..., Array] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ScaleByBacktrackingLinesearchState]:
        start = require_params(where, params)
        loss: Callable[..., Array] = require_extra(where, "value_fn", value_fn)
        kwargs = take_from(extra, loss)
        dtype = state.value.dtype
        value = jnp.asarray(require_extra(where, "value", value)).astype(dtype)
        slope = slope_along(updates, require_extra(where, "grad", grad), dtype)
        c, tolerance, slack = (cast_like(x, value) for x in (slope_rtol, atol, rtol))

        def trial(search: _Search) -> _Search:
            step = jnp.where(search.trials > 0, cast_like(decrease_factor, value) * search.step, search.step)
            found = jnp.asarray(loss(apply_updates(start, step_along(step, updates)), **kwargs)).astype(dtype)
            excess = found - (1 + slack) * value - step * c * slope
            usable = jnp.isfinite(found) & ~jnp.isnan(excess)
            return _Search(step, found, jnp.where(usable, jnp.maximum(excess, 0), jnp.inf), search.trials + 1)

        def goes_on(search: _Search) -> Array:
            return ~(search.error <= tolerance) & (search.trials <= max_backtracking_steps)

        last = jnp.where(state.learning_rate > 0, state.learning_rate, 1)
        first = jnp.minimum(cast_like(increase_factor, value) * last, cast_like(max_learning_rate, value))
        infinite, none = jnp.array(jnp.inf, dtype), jnp.zeros((), jnp.int32)
        end = jax.lax.while_loop(goes_on, trial, _Search(first, value, infinite, none))
        if verbose:
            _report(end, value, slope, tolerance)
        lost = jnp.isinf(end.error)
        step = jnp.where(lost, 0, end.step)
        moves = step_along(step, updates)
        grads = None
        if store_grad:
            grads = filled_like(state.grad, jax.grad(loss)(apply_updates(start, moves), **kwargs))
        new = ScaleByBacktrackingLinesearchState(
            step, jnp.where(lost, value, end.value), grads, BacktrackingLinesearchInfo(end.trials, end.error)
        )
        return moves, new

    return Optimizer(init, update)


def _report(end: _Search, value: Array, slope: Array, tolerance: Any) -> None:
    """Print why a search failed, if it did."""

    def show() -> None:
        jax.debug.print(
            "backtracking line search: no step of {n} decreased the loss enough. Loss at the start {value}, slope "
            "{slope} (must be negative), last step {step}, loss there {last}, too large by {error}.",
            n=end.trials,
            value=value,
            slope=slope,
            step=end.step,
            last=end.value,
            error=end.error,
        )

    jax.lax.cond(end.error <= tolerance, lambda: None, show)

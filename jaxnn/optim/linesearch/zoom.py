"""A line search for the strong Wolfe conditions, as a transformation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.arguments import require_extra, require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, apply_updates
from jaxnn.optim.linesearch.linesearch import Point, filled_like, slope_along, step_along, take_from
from jaxnn.optim.linesearch.zoom_search import Search, Wolfe, zoom_search
from jaxnn.optim.norms import scalar_dtype
from jaxnn.optim.spec import specified
from jaxnn.placement import full_like
from jaxnn.types import Array, Params, PyTree, Scalar


class ZoomLinesearchInfo(NamedTuple):
    """`num_linesearch_steps`: int32 trials; `decrease_error`, `curvature_error`: by how much the last trial missed each
    condition, with tol = 0; 0 if it was met."""

    num_linesearch_steps: Array
    decrease_error: Array
    curvature_error: Array


class ScaleByZoomLinesearchState(NamedTuple):
    """`learning_rate`: the step taken; `value`, `grad`: loss and gradient where it ended; `info` on the search."""

    learning_rate: Array
    value: Array
    grad: PyTree
    info: ZoomLinesearchInfo


@specified
def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: Scalar | None = None,
    tol: Scalar = 0.0,
    increase_factor: Scalar = 2.0,
    slope_rtol: Scalar = 1e-4,
    curv_rtol: Scalar = 0.9,
    approx_dec_rtol: Scalar | None = 1e-6,
    stepsize_precision: Scalar = 1e-5,
    initial_guess_strategy: Literal["one", "keep"] = "keep",
    verbose: bool = False,
) -> Optimizer:
    """Scale the updates u by a step s that satisfies the strong Wolfe conditions on the loss f at the parameters w.

    f(w + s u) <= f(w) + slope_rtol s <u, grad f(w)> + tol              (sufficient decrease)
    |<u, grad f(w + s u)>| <= curv_rtol |<u, grad f(w)>| + tol          (small curvature)

    Steps grow until one meets both conditions or an interval must hold one that does; cubic and quadratic interpolation
    then narrow the interval. If trials run out, a trial with sufficient decrease is taken: the last one found while
    steps grew, or one of lower loss in the interval. Without any, the last trial is taken, even if the loss rises
    there, as along an ascent direction. If loss or slope are NaN or infinite there, the step is 0, value and gradient
    are those of the start, and the next search tries 1 first. (optax may step to where the gradient is NaN, and its
    "keep" never leaves a step of 0.)

    The update needs the extra arguments `value`, `grad` (conjugated for complex parameters, as the updates are) and
    `value_fn`, a function of the parameters; further arguments that `value_fn` names are passed on. The state's `grad`
    follows `jax.grad`.

    Args:
        max_linesearch_steps: largest number of trials.
        max_learning_rate: largest step; None for no bound.
        tol: tolerance of both conditions.
        increase_factor: growth of the steps while no interval is found, > 1.
        slope_rtol, curv_rtol: Wolfe's constants c1 < c2, in (0, 1); an infinite `curv_rtol` drops the second condition.
        approx_dec_rtol: near a minimum, where f(w + s u) <= f(w) + approx_dec_rtol |f(w)|, Hager and Zhang's condition
            <u, grad f(w + s u)> <= (2 slope_rtol - 1) <u, grad f(w)> may replace sufficient decrease, which rounding
            hides there. None: never.
        stepsize_precision: an interval shorter than this is not narrowed if a step with sufficient decrease is known.
        initial_guess_strategy: first trial: 1 ("one") or the last step taken ("keep").
        verbose: whether to print when the search fails.

    Reference: Nocedal, J. & Wright, S. J. (2006). Numerical optimization, algorithms 3.5 and 3.6. Hager, W. W. & Zhang,
        H. (2006). Algorithm 851: CG_DESCENT, a conjugate gradient method with guaranteed descent.

    Example:
        >>> from jaxnn import optim
        >>> opt, f = optim.chain(optim.sgd(1.0), scale_by_zoom_linesearch(15)), lambda p: (p**2).sum()
        >>> params = jnp.array([1.0])
        >>> value, grad = jax.value_and_grad(f)(params)
        >>> opt.update(grad, opt.init(params), params, value=value, grad=grad, value_fn=f)[0]
        Array([-1.], dtype=float32)
    """
    where = "scale_by_zoom_linesearch"
    require_nonnegative(where, tol=tol, approx_dec_rtol=approx_dec_rtol, stepsize_precision=stepsize_precision)
    require_between(where, "max_linesearch_steps", max_linesearch_steps, 1, math.inf)
    require_between(where, "slope_rtol", slope_rtol, 0, 1)
    require_between(where, "curv_rtol", curv_rtol, 0, math.inf)
    require_between(where, "increase_factor", increase_factor, 1, math.inf, open_high=True)
    if max_learning_rate is not None:
        require_between(where, "max_learning_rate", max_learning_rate, 0, math.inf)
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(f'{where}: initial_guess_strategy must be "one" or "keep", got {initial_guess_strategy!r}.')
    rule = Wolfe(
        max_linesearch_steps,
        max_learning_rate,
        tol,
        increase_factor,
        slope_rtol,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
    )

    def init(params: Params) -> ScaleByZoomLinesearchState:
        one = jnp.ones((), scalar_dtype(params))
        info = ZoomLinesearchInfo(jnp.zeros((), jnp.int32), jnp.inf * one, jnp.inf * one)
        return ScaleByZoomLinesearchState(one, jnp.inf * one, jax.tree.map(lambda p: full_like(p, 0), params), info)

    def update(
        updates: PyTree,
        state: ScaleByZoomLinesearchState,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: PyTree = None,
        value_fn: Callable[..., Array] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ScaleByZoomLinesearchState]:
        origin = require_params(where, params)
        loss: Callable[..., Array] = require_extra(where, "value_fn", value_fn)
        kwargs = take_from(extra, loss)
        dtype = state.value.dtype
        value = jnp.asarray(require_extra(where, "value", value)).astype(dtype)
        given = filled_like(state.grad, require_extra(where, "grad", grad))
        slopes = jax.tree.map(jnp.conj, given)  # the convention of jax.grad

        def evaluate(step: Array) -> Point:
            reached = apply_updates(origin, step_along(step, updates))
            found, grads = jax.value_and_grad(loss)(reached, **kwargs)
            slope = slope_along(updates, grads, dtype)
            return Point(step, jnp.asarray(found).astype(dtype), slope, filled_like(state.grad, grads))

        start = Point(jnp.zeros((), dtype), value, slope_along(updates, slopes, dtype), slopes)
        keeps = (state.learning_rate > 0) & (initial_guess_strategy == "keep")
        end = zoom_search(evaluate, start, jnp.where(keeps, state.learning_rate, 1), rule)
        if verbose:
            _report(end, start)
        info = ZoomLinesearchInfo(end.trials, end.decrease_error, end.curvature_error)
        new = ScaleByZoomLinesearchState(end.last.step, end.last.value, end.last.grad, info)
        return step_along(end.last.step, updates), new

    return Optimizer(init, update)


def _report(end: Search, start: Point) -> None:
    """Print why a search failed, if it did."""

    def show() -> None:
        jax.debug.print(
            "zoom line search: no step of {n} met both conditions; {step} is taken. Loss at the start {value}, slope "
            "{slope} (must be negative); the last trial missed decrease by {decrease}, curvature by {curvature}.",
            n=end.trials,
            step=end.last.step,
            value=start.value,
            slope=start.slope,
            decrease=end.decrease_error,
            curvature=end.curvature_error,
        )

    jax.lax.cond(jnp.maximum(end.decrease_error, end.curvature_error) > 0, show, lambda: None)

"""Search for a step that satisfies the strong Wolfe conditions: bracket an interval, then zoom into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.optim.linesearch.linesearch import Point
from jaxnn.optim.scalars import cast_like
from jaxnn.types import Array, PyTree, Scalar


class Wolfe(NamedTuple):
    """The numbers of a zoom search; `max_step` and `approx_dec_rtol` may be None. See `scale_by_zoom_linesearch`."""

    max_trials: Any
    max_step: Scalar | None
    tol: Scalar
    increase_factor: Scalar
    slope_rtol: Scalar
    curv_rtol: Scalar
    approx_dec_rtol: Scalar | None
    interval_threshold: Scalar


class Knot(NamedTuple):
    """An end of the interval: `step`, `value`, `slope`."""

    step: Array
    value: Array
    slope: Array


class Search(NamedTuple):
    """State of a search: `last` trial; interval `low` to `high` (low has the smaller value); third point `cubic`
    for interpolation; `safe`, the best trial with sufficient decrease; violations of the last trial; flags."""

    trials: Array
    last: Point
    low: Knot
    high: Knot
    cubic: Knot
    safe: Point
    decrease_error: Array
    curvature_error: Array
    found: Array
    done: Array
    failed: Array


def zoom_search(evaluate: Callable[[Array], Point], start: Point, guess: Array, rule: Wolfe) -> Search:
    """Search until both conditions hold or the trials run out.

    `evaluate` maps a step to its point on the line; `start` is the point at step 0, `guess` the first trial.

    Returns:
        The final state. `last` is the trial to take. After a failure it is `safe`; without a safe trial it is the last
        one, or step 0 where that has a loss or slope that is NaN or infinite.

    Reference: Nocedal, J. & Wright, S. J. (2006). Numerical optimization, algorithms 3.5 and 3.6.
    """
    knot = Knot(start.step, start.value, start.slope)
    infinite, no = jnp.full_like(start.value, jnp.inf), jnp.array(False)
    search = Search(
        jnp.zeros((), jnp.int32), start, knot, knot, knot, start, infinite, infinite, no, no, no
    )  # fmt: skip

    # One loop for both phases, not one after the other: under vmap every loop runs until its slowest element is done.
    def trial(search: Search) -> Search:
        step = jnp.where(search.found, _interpolated(search), _extended(search, guess, rule))
        new = evaluate(step)
        decrease, curvature = errors(new, start, rule)
        search = jax.lax.cond(
            search.found,
            lambda: _zoomed(search, new, decrease, curvature, rule),
            lambda: _bracketed(search, new, decrease, curvature, rule),
        )
        # `safe` is step 0 until a trial decreases enough. Falling back to it is right only where the last trial is not
        # finite: there a step of 0 keeps the run alive; elsewhere the last trial is taken, as in optax.
        lost = jnp.isinf(search.decrease_error)
        falls_back = search.failed & ((search.safe.step > 0) | lost)
        return search._replace(last=_where(falls_back, search.safe, search.last))

    return jax.lax.while_loop(lambda s: ~(s.done | s.failed), trial, search)


def errors(new: Point, start: Point, rule: Wolfe) -> tuple[Array, Array]:
    """Violations of (sufficient decrease, small curvature) for tol = 0; infinite where value or slope are not finite.

    Near a minimum, where rounding hides a decrease of the loss, Hager and Zhang's condition on the slope may
    replace sufficient decrease.

    Reference: Nocedal & Wright (2006), equations 3.7a and 3.7b. Hager, W. W. & Zhang, H. (2006). Algorithm 851:
        CG_DESCENT, equations 23, 26 and 27.
    """
    c1 = cast_like(rule.slope_rtol, start.value)
    decrease = new.value - start.value - c1 * new.step * start.slope
    # f(w + s u) - f(w) cancels near a minimum, with an error of about eps |f(w)|; slopes keep their digits there.
    if rule.approx_dec_rtol is not None:
        by_slope = new.slope - (2 * c1 - 1) * start.slope
        near = new.value - start.value - cast_like(rule.approx_dec_rtol, start.value) * jnp.abs(start.value)
        decrease = jnp.minimum(jnp.maximum(by_slope, near), decrease)
    curvature = jnp.abs(new.slope) - cast_like(rule.curv_rtol, start.value) * jnp.abs(start.slope)
    # A NaN compares as False everywhere and would pass for a decrease; as an infinite violation it shortens the step.
    usable = jnp.isfinite(new.value) & jnp.isfinite(new.slope)

    def missed_by(error: Array) -> Array:
        return jnp.where(usable & ~jnp.isnan(error), jnp.maximum(error, 0), jnp.inf)

    return missed_by(decrease), missed_by(curvature)


def _extended(search: Search, guess: Array, rule: Wolfe) -> Array:
    """The next step while no interval is found: the guess, then growing steps."""
    step = jnp.where(search.trials == 0, guess, cast_like(rule.increase_factor, guess) * search.last.step)
    return step if rule.max_step is None else jnp.minimum(step, cast_like(rule.max_step, guess))


def _bracketed(search: Search, new: Point, decrease: Array, curvature: Array, rule: Wolfe) -> Search:
    """Algorithm 3.5: bracket the interval from the last trial to the new one if a good step must lie in it."""
    tol, error = cast_like(rule.tol, new.value), jnp.maximum(decrease, curvature)
    # The first trial has no earlier trial to rise from: `last` is the start then.
    rises = (decrease > 0) | ((new.value >= search.last.value) & (search.trials > 0))
    passes = (new.slope >= 0) & ~rises
    here, before = _knot(new), _knot(search.last)
    found = rises | passes | (error <= tol)
    # At the largest step no longer one can be bracketed: stop there; `errors` reports the violations.
    longest = jnp.array(False) if rule.max_step is None else new.step >= cast_like(rule.max_step, new.step)
    done = (error <= tol) | (longest & ~found)
    low = _where(passes, here, before)
    return Search(
        search.trials + 1,
        new,
        low,
        _where(passes, before, here),
        low,
        _where(decrease <= tol, new, search.safe),
        decrease,
        curvature,
        found,
        done,
        (search.trials + 1 >= rule.max_trials) & ~done,
    )


def _zoomed(search: Search, new: Point, decrease: Array, curvature: Array, rule: Wolfe) -> Search:
    """Algorithm 3.6: the new trial replaces one end of the interval."""
    tol, low, high, here = cast_like(rule.tol, new.value), search.low, search.high, _knot(new)
    rises = (decrease > 0) | (new.value >= low.value)
    turns = (new.slope * (high.step - low.step) >= 0) & ~rises
    better = (decrease <= tol) & (new.value < search.safe.value)
    safe = _where(better, new, search.safe)
    done = jnp.maximum(decrease, curvature) <= tol
    # Below this width value differences are rounding noise; give up only if there is a step to fall back to.
    narrow = jnp.abs(high.step - low.step) <= cast_like(rule.interval_threshold, new.step)
    gives_up = (search.trials + 1 >= rule.max_trials) | (narrow & (safe.step > 0))
    return Search(
        search.trials + 1,
        new,
        _where(rises, low, here),
        _where(turns, low, _where(rises, here, high)),
        _where(rises | turns, high, low),
        safe,
        decrease,
        curvature,
        search.found,
        done,
        gives_up & ~done,
    )


def _interpolated(search: Search) -> Array:
    """A step inside the interval: the minimum of a cubic if well inside, else of a parabola, else the midpoint."""
    low, high = search.low, search.high
    width = jnp.abs(high.step - low.step)
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)

    def inside(step: Array, margin: float) -> Array:
        edge = cast_like(margin, width) * width
        return (step > left + edge) & (step < right - edge)  # False for NaN

    # Margins keep the interval shrinking by a fixed factor: a minimum too close to an end would only creep.
    cubic, parabola = _cubic_minimum(low, high, search.cubic), _parabola_minimum(low, high)
    middle = jnp.where(inside(parabola, 0.1), parabola, (low.step + high.step) / 2)
    return jnp.where(inside(cubic, 0.2), cubic, middle)


def _cubic_minimum(a: Knot, b: Knot, c: Knot) -> Array:
    """The minimum of the cubic through a, with a's slope, b and c; NaN or infinite where there is none."""
    db, dc = b.step - a.step, c.step - a.step
    rest_b, rest_c = b.value - a.value - a.slope * db, c.value - a.value - a.slope * dc
    scale = (db * dc) ** 2 * (db - dc)
    third = (dc**2 * rest_b - db**2 * rest_c) / scale
    second = (db**3 * rest_c - dc**3 * rest_b) / scale
    return a.step + (jnp.sqrt(second**2 - 3 * third * a.slope) - second) / (3 * third)


def _parabola_minimum(a: Knot, b: Knot) -> Array:
    """The minimum of the parabola through a, with a's slope, and b."""
    width = b.step - a.step
    return a.step - a.slope / (2 * ((b.value - a.value - a.slope * width) / width**2))


def _knot(point: Point) -> Knot:
    return Knot(point.step, point.value, point.slope)


def _where(condition: Array, yes: Any, no: PyTree) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)

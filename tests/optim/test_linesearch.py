"""The line searches against transcriptions of Nocedal and Wright's algorithms, and where they fail."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import landscapes, optim
from jaxnn.optim.linesearch.linesearch import Point
from jaxnn.optim.linesearch.zoom_search import Wolfe, errors
from jaxnn.optim.norms import times
from tests.helpers import assert_close, float64, random, slow
from tests.optim.running import optax_still, traced

ARMIJO, ZOOM = "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("backtracking", f"{ARMIJO}: out of trials", "- step * c * slope", "+ step * c * slope"),
    ("backtracking", f"{ARMIJO}: all settings", "(1 + slack) * value", "(1 - slack) * value"),
    ("backtracking", f"{ARMIJO}: all settings", "cast_like(increase_factor, value) * last", "last"),
    ("backtracking", f"{ARMIJO}: out of trials", "search.trials <= max_back", "search.trials < max_back"),
    ("backtracking", f"{ARMIJO}: out of trials", "cast_like(decrease_factor, value) * search.step", "search.step / 2"),
    ("backtracking", f"{ARMIJO}: uphill", "lost = jnp.isinf(end.error)", "lost = end.error > 0"),
    ("zoom", f"{ZOOM}: one", 'initial_guess_strategy == "keep"', 'initial_guess_strategy == "one"'),
    ("zoom_search", f"{ZOOM}: approximate decrease", "(2 * c1 - 1) * start.slope", "(2 * c1 - 9) * start.slope"),
    ("zoom_search", f"{ZOOM}: approximate decrease", "jnp.maximum(by_slope, near)", "near"),
    ("zoom_search", f"{ZOOM}: tight", "- c1 * new.step * start.slope", "- c1 * start.slope"),
    ("zoom_search", f"{ZOOM}: out of trials", "jnp.abs(new.slope) - cast_like", "new.slope - cast_like"),
    ("zoom_search", f"{ZOOM}: bounded", "jnp.minimum(step, cast_like(rule.max_step, guess))", "step"),
    ("zoom_search", f"{ZOOM}: tight", "inside(cubic, 0.2)", "inside(cubic, 0.5)"),
    ("zoom_search", f"{ZOOM}: tight", "jnp.sqrt(second**2 - 3 * third * a.slope) - second", "-second"),
    ("zoom_search", f"{ZOOM}: out of trials", "(search.safe.step > 0) | lost", "lost"),
    ("zoom_search", f"{ZOOM}: tight", "_where(rises | turns, high, low)", "low"),
    ("zoom_search", f"{ZOOM}: uphill", "& ((search.safe.step > 0) | lost)", "& True"),
]


def wavy(x: Any, xp: Any = jnp) -> Any:
    """A smooth function with several minima on most lines."""
    away = x - xp.sin(xp.arange(x.size))
    return xp.sum(0.5 * away**2 + 0.4 * (1 - xp.cos(3 * away)))


def wavy_slope(x: np.ndarray) -> np.ndarray:
    """Its gradient."""
    away = x - np.sin(np.arange(x.size))
    return away + 1.2 * np.sin(3 * away)


def algorithm_3_1(phi: Callable[[float], float], slope: float, alpha: float, rho: float, c: float) -> tuple[float, int]:
    """alpha <- rho alpha until phi(alpha) <= phi(0) + c alpha phi'(0)."""
    trials = 1
    while phi(alpha) > phi(0.0) + c * alpha * slope:
        alpha *= rho
        trials += 1
    return alpha, trials


def algorithm_3_5(
    phi: Callable[[float], float], dphi: Callable[[float], float], alpha: float, c1: float, c2: float, growth: float
) -> tuple[float, int]:
    """Longer steps until one satisfies the strong Wolfe conditions or an interval holds one that does."""
    before, i = 0.0, 1
    while True:
        if phi(alpha) > phi(0.0) + c1 * alpha * dphi(0.0) or (phi(alpha) >= phi(before) and i > 1):
            return algorithm_3_6(phi, dphi, before, alpha, c1, c2, i)
        if abs(dphi(alpha)) <= -c2 * dphi(0.0):
            return alpha, i
        if dphi(alpha) >= 0:
            return algorithm_3_6(phi, dphi, alpha, before, c1, c2, i)
        before, alpha, i = alpha, growth * alpha, i + 1


def algorithm_3_6(
    phi: Callable[[float], float], dphi: Callable[[float], float], low: float, high: float, c1: float, c2: float, i: int
) -> tuple[float, int]:
    """zoom: the interval shrinks round steps that satisfy the conditions. `third` was its end before."""
    third = low
    while True:
        alpha, i = interpolated(phi, dphi, low, high, third), i + 1
        if phi(alpha) > phi(0.0) + c1 * alpha * dphi(0.0) or phi(alpha) >= phi(low):
            third, high = high, alpha
            continue
        if abs(dphi(alpha)) <= -c2 * dphi(0.0):
            return alpha, i
        if dphi(alpha) * (high - low) >= 0:
            third, high = high, low
        else:
            third = low
        low = alpha


def interpolated(
    phi: Callable[[float], float], dphi: Callable[[float], float], low: float, high: float, third: float
) -> float:
    """The minimum of the cubic, else of the parabola, through the ends; the middle where that is near an end."""
    width, left = abs(high - low), min(low, high)
    if third != low:
        t = np.array([high - low, third - low])
        rest = np.array([phi(high), phi(third)]) - phi(low) - dphi(low) * t
        cubic = np.append(np.linalg.solve(np.stack([t**3, t**2], axis=1), rest), dphi(low))  # a t^3 + b t^2 + c t
        for root in np.roots(cubic * [3, 2, 1]):
            inside = left + 0.2 * width < low + root.real < left + 0.8 * width
            if root.imag == 0 and 6 * cubic[0] * root.real + 2 * cubic[1] > 0 and inside:
                return low + root.real
    t = high - low
    best = low - dphi(low) * t**2 / (2 * (phi(high) - phi(low) - dphi(low) * t))
    return best if left + 0.1 * width < best < left + 0.9 * width else (low + high) / 2


def searched(opt: Any, x: Any, steps: int) -> tuple[Any, Any]:
    """Parameters and the states of all steps."""

    def body(carry: Any, _: Any) -> tuple[Any, Any]:
        x, state = carry
        value, grad = jax.value_and_grad(wavy)(x)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=wavy, grad_fn=None)
        return (x + updates, state), state[1]

    (x, _), states = jax.lax.scan(body, (x, opt.init(x)), length=steps)
    return x, states


def test_backtracking_is_algorithm_3_1() -> None:
    x, alpha, steps, rates, trials = 3 * random(0, 8), 1.0, 12, [], []
    start = x
    for _ in range(steps):
        g = wavy_slope(x)
        p = -4 * g

        def phi(a: float, x: np.ndarray = x, p: np.ndarray = p) -> float:
            return wavy(x + a * p, np)

        alpha, n = algorithm_3_1(phi, float(g @ p), min(1.7 * alpha, 0.9), 0.6, 0.2)
        x, rates, trials = x + alpha * p, [*rates, alpha], [*trials, n]
    with float64():
        opt = optim.chain(optim.sgd(4.0), optim.scale_by_backtracking_linesearch(30, 0.2, 0.6, 1.7, 0.9))
        found, states = jax.device_get(jax.jit(lambda x: searched(opt, x, steps))(start))
    assert_close(found, x, rtol=1e-12, atol=1e-12)
    assert_close(states.learning_rate, np.array(rates), rtol=1e-12)
    assert_close(states.value[-1], wavy(x, np), rtol=1e-12)
    assert states.info.num_linesearch_steps.tolist() == trials
    assert max(trials) > 2


def by_the_book(rate: float, c2: float, guess: str, steps: int) -> tuple[np.ndarray, list[float], list[int]]:
    """Gradient descent by algorithms 3.5 and 3.6: where it ends, the steps, and the numbers of trials."""
    x, alpha, rates, trials = 3 * random(1, 8), 1.0, [], []
    for _ in range(steps):
        p = -rate * wavy_slope(x)

        def phi(a: float, x: np.ndarray = x, p: np.ndarray = p) -> float:
            return wavy(x + a * p, np)

        def dphi(a: float, x: np.ndarray = x, p: np.ndarray = p) -> float:
            return float(wavy_slope(x + a * p) @ p)

        alpha, n = algorithm_3_5(phi, dphi, alpha if guess == "keep" else 1.0, 1e-3, c2, 2.5)
        x, rates, trials = x + alpha * p, [*rates, alpha], [*trials, n]
    return x, rates, trials


@pytest.mark.parametrize("guess", ["keep", *slow("one")])
def test_zoom_is_algorithms_3_5_and_3_6(guess: Any) -> None:
    settings, steps = np.array([(0.02, 0.1), (0.3, 0.1), (5.0, 0.05), (30.0, 0.3)]), 5

    @jax.jit
    @jax.vmap
    def run(setting: Any) -> Any:
        search = optim.scale_by_zoom_linesearch(
            50,
            increase_factor=2.5,
            slope_rtol=1e-3,
            curv_rtol=setting[1],
            approx_dec_rtol=None,
            stepsize_precision=0.0,
            initial_guess_strategy=guess,
        )
        return searched(optim.chain(optim.sgd(setting[0]), search), jnp.asarray(3 * random(1, 8)), steps)

    with float64():
        found, states = jax.device_get(run(settings))
    for i, (rate, c2) in enumerate(settings):
        x, rates, trials = by_the_book(rate, c2, guess, steps)
        assert states.info.num_linesearch_steps[i].tolist() == trials, (rate, c2)
        assert_close(states.learning_rate[i], np.array(rates), rtol=1e-9)
        assert_close(found[i], x, rtol=1e-9, atol=1e-9)


@jax.jit
def wolfe_step(a: Any, b: Any, x: Any, p: Any, grad: Any, c2: Any) -> tuple[Any, Any]:
    """One zoom search along p for |a x|^2 / 2 + sum sin(2 x + b), with traced curvature."""

    def f(x: Any) -> Any:
        return 0.5 * jnp.sum((a @ x) ** 2) + jnp.sum(jnp.sin(2 * x + b))

    opt = optim.scale_by_zoom_linesearch(40, curv_rtol=c2, approx_dec_rtol=None, stepsize_precision=0.0)
    return opt.update(p, opt.init(x), x, value=f(x), grad=grad, value_fn=f)


@given(st.integers(0, 10**6), st.floats(-2, 2), st.sampled_from([0.05, 0.5, 0.9]))
def test_strong_wolfe_conditions_hold(seed: int, exponent: float, c2: float) -> None:
    """On random smooth functions and directions of descent; checked in NumPy."""
    a, b, x, metric = random(seed, 6, 6), random(seed + 1, 6), 2 * random(seed + 2, 6), np.abs(random(seed + 3, 6))

    def f(x: np.ndarray) -> Any:
        return 0.5 * np.sum((a @ x) ** 2) + np.sum(np.sin(2 * x + b))

    def gradient(x: np.ndarray) -> np.ndarray:
        return a.T @ (a @ x) + 2 * np.cos(2 * x + b)

    p = -(10**exponent) * (metric + 0.1) * gradient(x)
    with float64():
        updates, state = jax.tree.map(np.asarray, wolfe_step(a, b, x, p, gradient(x), c2))
    step, reached = float(state.learning_rate), x + updates
    slope = float(gradient(x) @ p)
    assert state.info.decrease_error == state.info.curvature_error == 0
    assert step > 0
    assert f(reached) <= f(x) + 1e-4 * step * slope + 1e-12 * abs(f(x))
    assert abs(gradient(reached) @ p) <= c2 * abs(slope) * (1 + 1e-9)
    assert_close(state.value, f(reached), rtol=1e-9)
    assert_close(state.grad, gradient(reached), rtol=1e-9, atol=1e-9)


@functools.partial(jax.jit, static_argnames="approximate")
def unmet(
    before: Any, slope: Any, a: Any, now: Any, slope_now: Any, c1: Any, c2: Any, eps: Any, approximate: bool
) -> Any:
    """By how much a step misses the conditions."""
    start, new = Point(jnp.zeros_like(a), before, slope, None), Point(a, now, slope_now, None)
    return errors(new, start, Wolfe(20, None, 0.0, 2.0, c1, c2, eps if approximate else None, 0.0))


@given(st.integers(0, 10**6), st.sampled_from([None, 0.0, 0.5]))
def test_conditions_are_equations_3_7_and_those_of_hager_and_zhang(seed: int, eps: float | None) -> None:
    """Their equation 23 under 26 and 27: phi'(a) <= (2 c1 - 1) phi'(0) and phi(a) <= phi(0) + eps |phi(0)|."""
    c1, c2 = 0.3, 0.6
    (a, before, now), (slope, slope_now) = random(seed, 3), 2 * random(seed + 1, 2)
    a, slope = abs(a), -abs(slope)
    with float64():
        decrease, curvature = unmet(before, slope, a, now, slope_now, c1, c2, eps or 0.0, approximate=eps is not None)
    armijo = now - before - c1 * a * slope
    if eps is not None:
        armijo = min(armijo, max(slope_now - (2 * c1 - 1) * slope, now - before - eps * abs(before)))
    assert_close(decrease, max(armijo, 0.0), rtol=1e-12, atol=1e-15)
    assert_close(curvature, max(abs(slope_now) - c2 * abs(slope), 0.0), rtol=1e-12, atol=1e-15)


HALVES = {"max_backtracking_steps": 12, "decrease_factor": 0.5, "store_grad": True}
SEARCHES = {
    "armijo": (
        optim.scale_by_backtracking_linesearch(**HALVES),
        optax.scale_by_backtracking_linesearch(**HALVES),
    ),
    "zoom": (optim.scale_by_zoom_linesearch(12), optax.scale_by_zoom_linesearch(12)),
}


def search(opt: Any, x: Any, f: Any, state: Any = None, rate: float = 1.0) -> tuple[Any, Any]:
    """One search down the gradient."""
    value, grad = jax.value_and_grad(f)(x)
    state = opt.init(x) if state is None else state
    return opt.update(times(-rate, grad), state, x, value=value, grad=grad, value_fn=f)


def once(opt: Any, x: Any, f: Any, rate: float = 1.0) -> tuple[Any, Any]:
    """The same as one program, NumPy arrays."""
    return jax.device_get(jax.jit(lambda x: search(opt, x, f, rate=rate))(np.float32(x)))


def square(p: Any) -> Any:
    return jnp.sum(p**2)


NAMES = ["armijo", *slow("zoom")]


@pytest.mark.parametrize("name", NAMES)
def test_steps_out_of_the_domain_are_shortened(name: str) -> None:
    """-log x - log(1 - x) is NaN outside (0, 1), and a gradient step from 0.01 leads to 99."""

    def barrier(x: Any) -> Any:
        return -jnp.log(x[0]) - jnp.log(1 - x[0])

    x = np.float32([0.01])
    updates, state = once(SEARCHES[name][0], x, barrier)
    assert 0 < (x + updates)[0] < 1
    assert state.value < -np.log(0.01) - np.log(0.99)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", NAMES)
def test_no_step_is_taken_where_every_trial_is_not_finite(name: str) -> None:
    x = np.float32([1, 2])

    def searched(opt: Any) -> Any:
        """The update where the loss is `bad` everywhere but here, the state, and the update of the loss that is not."""

        @jax.jit
        @jax.vmap
        def run(bad: Any) -> Any:
            updates, state = search(opt, x, lambda p: jnp.where(jnp.all(p == x), square(p), bad))
            return updates, state, search(opt, x, square, state, rate=0.5)[0]

        return jax.device_get(run(np.float32([np.nan, np.inf, -np.inf])))

    ours, theirs = SEARCHES[name]
    updates, state, later = searched(ours)
    assert not updates.any()
    assert (state.learning_rate.tolist(), state.value.tolist()) == ([0, 0, 0], [5, 5, 5])
    assert_close(state.grad, np.stack([2 * x] * 3), rtol=1e-7)
    assert_close(later, np.stack([-x] * 3), rtol=1e-6)
    updates, _, later = searched(theirs)
    optax_still(updates[2, 0] != 0, "a step to a loss of minus infinity")
    optax_still(np.all(later[:2] == 0), "a search stuck at steps of 0")


@pytest.mark.slow
def test_no_step_leads_to_a_gradient_that_is_nan() -> None:
    """The slope of sqrt(x^2) is NaN at 0, where the step 1 from 1 leads."""

    def cusp(x: Any) -> Any:
        return jnp.sum(jnp.sqrt(x**2))

    ours, theirs = (lib.scale_by_zoom_linesearch(1, approx_dec_rtol=None) for lib in (optim, optax))
    updates, state = once(ours, [1], cusp)
    assert_close((updates, state.grad), (np.zeros(1), np.ones(1)), rtol=0)
    optax_still(np.isnan(once(theirs, [1], cusp)[1].grad), "a step to a gradient that is NaN")
    updates, state = once(optim.scale_by_zoom_linesearch(5, approx_dec_rtol=None), [1], cusp)
    assert -1 < updates[0] < 0
    assert np.isfinite(state.grad)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_at_a_minimum_and_directions_that_are_nan_are_not_followed(name: str) -> None:
    opt, zeros = SEARCHES[name][0], np.zeros((2, 2), np.float32)

    @jax.jit
    @jax.vmap
    def run(direction: Any) -> Any:
        x = jnp.zeros(2)
        return opt.update(direction, opt.init(x), x, value=jnp.zeros(()), grad=x, value_fn=square)

    updates, state = run(np.float32([[0, 0], [np.nan, np.nan]]))
    assert_close((updates, state.grad[0], state.value[0]), (zeros, zeros[0], np.float32(0)), rtol=0)
    assert np.isfinite(state.learning_rate[0])


@pytest.mark.parametrize("name", NAMES)
def test_none_leaves(name: str) -> None:
    opt, params = SEARCHES[name][0], {"w": np.ones(2, np.float32), "frozen": np.ones(1, np.float32), "none": None}
    grads = {"w": np.ones(2, np.float32), "frozen": None, "none": None}

    def f(p: Any) -> Any:
        return jnp.sum(p["w"]) ** 2 / 4 + jnp.sum(p["frozen"])

    @jax.jit
    def run(params: Any) -> Any:
        start, updates = opt.init(params), jax.tree.map(jnp.negative, grads)
        return start, *opt.update(updates, start, params, value=f(params), grad=grads, value_fn=f)

    start, found, state = run(params)
    assert jax.tree.structure(found) == jax.tree.structure(grads)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert state.value < 2


@pytest.mark.parametrize("name", NAMES)
def test_extra_arguments_go_to_a_loss_that_names_them(name: str) -> None:
    opt, x, y = SEARCHES[name][0], np.arange(3, dtype=np.float32), np.ones(3, np.float32)

    def fit(params: Any, x: Any, y: Any = None) -> Any:
        return jnp.sum((x * params - y) ** 2)

    @jax.jit
    def run(params: Any) -> Any:
        value, grad = jax.value_and_grad(fit)(params, x, y)
        extra = {"value": value, "grad": grad, "value_fn": fit, "grad_fn": None, "obj_fn": fit}
        return opt.update(-grad, opt.init(params), params, **extra, x=x, y=y)

    updates, state = run(np.zeros(3, np.float32))
    assert_close(state.value, np.sum((x * updates - y) ** 2), rtol=1e-6)
    assert state.value < 3


@pytest.mark.parametrize("name", SEARCHES)
@traced
def test_missing_arguments(name: str) -> None:
    opt, x = SEARCHES[name][0], np.ones(1, np.float32)
    given = {"value": np.float32(1), "grad": x, "value_fn": jnp.sum}
    for missing in given:
        rest = {key: value for key, value in given.items() if key != missing}
        with pytest.raises(ValueError, match=f"update needs the extra argument {missing}, got none"):
            opt.update(x, opt.init(x), x, **rest)
    with pytest.raises(ValueError, match="update needs the parameters"):
        opt.update(x, opt.init(x), **given)


@pytest.mark.parametrize(
    ("factory", "bad"),
    [
        (optim.scale_by_backtracking_linesearch, {"max_backtracking_steps": -1}),
        (optim.scale_by_backtracking_linesearch, {"slope_rtol": 1.5}),
        (optim.scale_by_backtracking_linesearch, {"decrease_factor": 1.1}),
        (optim.scale_by_backtracking_linesearch, {"max_learning_rate": float("nan")}),
        (optim.scale_by_backtracking_linesearch, {"atol": -1.0}),
        (optim.scale_by_zoom_linesearch, {"max_linesearch_steps": 0}),
        (optim.scale_by_zoom_linesearch, {"increase_factor": 0.5}),
        (optim.scale_by_zoom_linesearch, {"curv_rtol": -0.1}),
        (optim.scale_by_zoom_linesearch, {"max_learning_rate": -1.0}),
        (optim.scale_by_zoom_linesearch, {"initial_guess_strategy": "two"}),
    ],
)
@traced
def test_bad_hyperparameters(factory: Any, bad: dict[str, Any]) -> None:
    first = "max_backtracking_steps" if factory is optim.scale_by_backtracking_linesearch else "max_linesearch_steps"
    with pytest.raises(ValueError, match=f"{factory.__name__}: {next(iter(bad))} must"):
        factory(**{first: 5} | bad)


def test_infinite_settings() -> None:
    """An infinite increase factor always starts with the largest step; infinite curv_rtol leaves that condition out."""
    armijo = optim.scale_by_backtracking_linesearch(5, increase_factor=float("inf"), max_learning_rate=0.25)
    assert once(armijo, [1], square)[1].learning_rate == 0.25
    zoom = optim.scale_by_zoom_linesearch(5, curv_rtol=float("inf"))
    _, state = once(zoom, [1], square, rate=1e-3)
    assert (float(state.learning_rate), int(state.info.num_linesearch_steps)) == (1, 1)


@pytest.mark.parametrize("factory", [optim.scale_by_backtracking_linesearch, *slow(optim.scale_by_zoom_linesearch)])
def test_a_verbose_search_prints_when_it_fails_and_only_then(factory: Any, capsys: Any) -> None:
    opt, x = factory(3, verbose=True), np.ones(2, np.float32)
    run = jax.jit(lambda rate: search(opt, x, square, rate=rate))
    run(np.float32(0.5))
    jax.effects_barrier()
    assert capsys.readouterr().out == ""
    run(np.float32(-0.5))
    jax.effects_barrier()
    assert "slope 4.0 (must be negative)" in capsys.readouterr().out


def value_calls(opt: Any, steps: int = 4) -> tuple[int, Any]:
    """How often the loss is evaluated afresh at the start of a step, and the parameters at the end."""
    f, calls = landscapes.rosenbrock(), []

    def counted(x: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return f(x)

    def body(carry: Any, _: Any) -> Any:
        x, state = carry
        value, grad = optim.value_and_grad_from_state(counted)(x, state=state)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=f)
        return (x + updates, state), ((value, grad), jax.value_and_grad(f)(x))

    run = jax.jit(lambda x: jax.lax.scan(body, (x, opt.init(x)), length=steps))
    (x, _), (found, expected) = run(np.asarray(f.start, np.float32))
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    jax.effects_barrier()
    return len(calls), x


@pytest.mark.parametrize("name", ["armijo", *slow("zoom", "lbfgs")])
def test_value_and_gradient_of_the_state_save_an_evaluation(name: str) -> None:
    opt = optim.lbfgs() if name == "lbfgs" else optim.chain(optim.sgd(1.0), SEARCHES[name][0])
    calls, x = value_calls(optim.named_chain(("inner", opt), ("after", optim.scale(1.0))))
    assert calls == 1
    assert landscapes.rosenbrock()(x) < landscapes.rosenbrock()(jnp.asarray(landscapes.rosenbrock().start))


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_may_be_a_plain_number(name: str) -> None:
    opt = SEARCHES[name][0]

    def loss(params: Any) -> float:
        return 1.0

    @jax.jit
    def run(params: Any) -> Any:
        value, grad = optim.value_and_grad_from_state(loss)(params, state=opt.init(params))
        return value, opt.update(-params, opt.init(params), params, value=1.0, grad=grad, value_fn=loss)[0]

    value, updates = run(np.ones(2, np.float32))
    assert (value, value.dtype) == (1, np.float32)
    assert np.isfinite(updates).all()


@pytest.mark.slow
def test_value_and_gradient_are_looked_for_in_states_only() -> None:
    """Parameters called value and grad, as in attention, do not count; L-BFGS keeps them in its state."""

    def f(p: Any, scale: Any = 1.0) -> Any:
        return scale * (jnp.sum(p["value"] ** 2) + jnp.sum(p["grad"] ** 2))

    params = {"value": np.ones(2, np.float32), "grad": np.ones(1, np.float32)}
    opt = optim.lbfgs()
    afresh = optim.value_and_grad_from_state(f)(params, 2.0, state=opt.init(params))
    assert_close(afresh, jax.value_and_grad(f)(params, 2.0), rtol=0)
    _, state = jax.jit(lambda p: search(opt, p, f))(params)
    found = optim.value_and_grad_from_state(f)(params, scale=2.0, state={"a": [state]})
    assert_close(found, (state[2].value, state[2].grad), rtol=0)


@pytest.mark.parametrize(
    ("opt", "got"),
    [
        (optim.sgd(1.0), "got 0 of them"),
        (optim.scale_by_backtracking_linesearch(5), "got one without gradient"),
        (optim.chain(optim.lbfgs(), optim.scale_by_zoom_linesearch(5)), "got 2 of them"),
    ],
)
@traced
def test_a_state_without_value_and_gradient(opt: Any, got: str) -> None:
    with pytest.raises(ValueError, match=got):
        optim.value_and_grad_from_state(jnp.sum)(np.ones(1, np.float32), state=opt.init(np.ones(1, np.float32)))

"""L-BFGS against transcriptions of Nocedal and Wright's algorithm 7.4, and where it converges."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data, landscapes, losses, metrics, models, optim, train
from tests.helpers import assert_close, float64, random, slow
from tests.optim.running import optax_still, traced

STEPS = 100
FIXED = "lbfgs: fixed rate"
NEWEST = "order[::-1][jnp.argmax(state.weights_memory[order[::-1]] != 0)]"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("lbfgs", FIXED, "place = (state.count - 1) % m", "place = 0 * state.count"),
    ("lbfgs", FIXED, "order, reverse=True)", "order)"),
    ("lbfgs", FIXED, "plus(r, alpha - beta, s)", "plus(r, beta - alpha, s)"),
    ("lbfgs", FIXED, "rho * inner_product(y, r)", "rho * inner_product(s, r)"),
    ("lbfgs", FIXED, "_inverse(rho * sum_of_squares(y)", "_inverse(sum_of_squares(y)"),
    ("lbfgs", FIXED, NEWEST, "order[jnp.argmax(state.weights_memory[order] != 0)]"),
    ("lbfgs", "scale_by_lbfgs", "1 / jnp.sqrt(sum_of_squares(g))", "1 / sum_of_squares(g)"),
    ("lbfgs", "lbfgs: memory of 3", "if scale_init_precond else", "if True else"),
    ("lbfgs", "lbfgs", "scale(-1.0) if learning_rate is None", "scale(1.0) if learning_rate is None"),
    ("lbfgs", "scale_by_lbfgs", "curvature > cast_like(min_curvature", "curvature > 4 + cast_like(0 * min_curvature"),
]


def gradient(x: Any, xp: Any = jnp) -> Any:
    """Of a smooth function that is convex in most places."""
    return x * xp.linspace(0.5, 5.0, x.size) + xp.sin(2 * x) + 0.5 * xp.sum(x)


def algorithm_7_4(g: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]], gamma: float) -> np.ndarray:
    """The two loops; pairs (s, y) from oldest to newest."""
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (y @ s)
        q = q - alpha * y
        alphas.append(alpha)
    r = gamma * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = (y @ r) / (y @ s)
        r = r + s * (alpha - beta)
    return r


def equation_7_16(d: int, pairs: list[tuple[np.ndarray, np.ndarray]], gamma: float) -> np.ndarray:
    """The same as a matrix: H <- V' H V + rho s s', V = I - rho y s'."""
    h = gamma * np.eye(d)
    for s, y in pairs:
        rho = 1 / (y @ s)
        v = np.eye(d) - rho * np.outer(y, s)
        h = v.T @ h @ v + rho * np.outer(s, s)
    return h


@pytest.mark.parametrize(
    ("memory", "scaled"), [(4, True), *slow((4, False), (1, True), (1, False), (20, True), (20, False))]
)
def test_is_algorithm_7_4(memory: int, scaled: bool) -> None:
    """100 steps at a fixed rate; gamma by equation 7.20. Only the first gamma, min(1, 1 / |g|), is not the book's."""
    d, rate, x, kept = 6, 0.05, random(0, 6), list[tuple[np.ndarray, np.ndarray]]()
    start, before = x, (x, gradient(x, np))
    for step in range(STEPS):
        g = gradient(x, np)
        if step:
            kept.append((x - before[0], g - before[1]))
        pairs, before = kept[-memory:], (x, g)
        gamma = min(1.0, 1 / np.linalg.norm(g))
        if step:
            gamma = (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1])
        direction = algorithm_7_4(g, pairs, gamma if scaled else 1.0)
        h = equation_7_16(d, pairs, gamma if scaled else 1.0)
        np.testing.assert_allclose(h @ g, direction, rtol=1e-8, atol=1e-8 * np.abs(direction).max())
        x = x - rate * direction
    with float64():
        opt = optim.lbfgs(rate, memory, scaled, linesearch=None)

        def body(carry: Any, _: Any) -> tuple[Any, None]:
            x, state = carry
            updates, state = opt.update(gradient(x), state, x)
            return (x + updates, state), None

        run = jax.jit(lambda x: jax.lax.scan(body, (x, opt.init(x)), length=STEPS)[0])
        found, (state, *_) = jax.device_get(run(start))
    assert_close(found, x, rtol=1e-10, atol=1e-13)
    assert state.count == STEPS
    assert_close((state.params, state.updates), before, rtol=1e-10, atol=1e-13)
    order = [i % memory for i in range(STEPS - 1 - len(pairs), STEPS - 1)]
    assert_close(state.diff_params_memory[np.array(order)], np.stack([s for s, _ in pairs]), rtol=1e-7, atol=1e-14)
    assert_close(state.diff_updates_memory[np.array(order)], np.stack([y for _, y in pairs]), rtol=1e-7, atol=1e-14)
    assert_close(state.weights_memory[np.array(order)], np.array([1 / (s @ y) for s, y in pairs]), rtol=1e-7)


@functools.partial(jax.jit, static_argnums=0)
def directions(memory: int, w: Any, g: Any) -> Any:
    """Directions and states along given parameters and gradients."""
    opt = optim.scale_by_lbfgs(memory)

    def body(state: Any, at: Any) -> Any:
        direction, state = opt.update(at[1], state, at[0])
        return state, (direction, state)

    return jax.lax.scan(body, opt.init(w[0]), (w, g))[1]


@given(st.integers(0, 10**6), st.integers(1, 5))
@pytest.mark.slow
def test_the_newest_pair_satisfies_the_secant_equation(seed: int, memory: int) -> None:
    """H y = s, whatever the pairs; and H is positive definite."""
    w, g = random(seed, 5, 7), random(seed + 1, 5, 7)
    with float64():
        found, states = jax.tree.map(np.asarray, directions(memory, w, g))
    for i in range(5):
        assert found[i] @ g[i] > 0
        s, y = w[i] - w[i - 1], g[i] - g[i - 1]
        if i and s @ y > 0:
            h = h_of(jax.tree.map(lambda leaf, i=i: leaf[i], states), memory, 7)
            assert_close(h @ y, s, rtol=1e-6, atol=1e-6 * np.abs(h).max())
            assert_close(found[i], h @ g[i], rtol=1e-6, atol=1e-6 * np.abs(h).max())


def h_of(state: Any, memory: int, d: int) -> np.ndarray:
    """The matrix of the pairs in a state that count."""
    order = [i % memory for i in range(int(state.count) - 1, int(state.count) - 1 + memory)]
    s, y = state.diff_params_memory, state.diff_updates_memory
    pairs = [(s[i], y[i]) for i in order if state.weights_memory[i] != 0]
    gamma = (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1])
    return equation_7_16(d, pairs, gamma)


@pytest.mark.slow
def test_a_pair_of_negative_curvature_does_not_turn_the_direction_uphill() -> None:
    """Down a saddle's ridge, gradients grow along the step: in optax the next direction points back up."""

    def slope(library: Any, **kwargs: Any) -> float:
        opt, w = library.scale_by_lbfgs(**kwargs), jnp.array([0.0, 0.1])
        state = opt.init(w)
        for at in (w, 2 * w):
            grads = at * jnp.array([1.0, -1.0])
            direction, state = opt.update(grads, state, at)
        return float(direction @ grads)

    assert slope(optim) > 0
    optax_still(slope(optax) < 0, "L-BFGS that climbs after a step over a saddle")
    np.testing.assert_allclose(slope(optim, min_curvature=-math.inf), slope(optax), rtol=1e-6)


def run(opt: Any, f: Any, x: Any, steps: int) -> tuple[Any, Any, np.ndarray]:
    """Parameters, state and the loss after every step, with evaluations saved by `value_and_grad_from_state`."""
    value_and_grad = optim.value_and_grad_from_state(f)

    def body(carry: Any, _: Any) -> tuple[Any, Any]:
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        grad = jax.tree.map(jnp.conj, grad)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=f)
        x = optim.apply_updates(x, updates)
        return (x, state), f(x)

    (x, state), values = jax.jit(lambda x: jax.lax.scan(body, (x, opt.init(x)), length=steps))(x)
    return x, state, np.asarray(values)


PLACES = {
    "quadratic": (lambda: landscapes.quadratic(1000.0), 12),
    "rosenbrock": (landscapes.rosenbrock, 45),
    "rosenbrock of 20": (lambda: landscapes.rosenbrock(dimensions=20), 140),
    "beale": (landscapes.beale, 18),
    "himmelblau": (landscapes.himmelblau, 14),
}


@pytest.mark.slow
@pytest.mark.parametrize("memory", [5, 10])
@pytest.mark.parametrize("name", PLACES)
def test_converges_in_few_steps(name: str, memory: int) -> None:
    make, steps = PLACES[name]
    with float64():
        f = make()
        _, state, values = run(optim.lbfgs(memory_size=memory), f, jnp.asarray(f.start), steps)
        assert values[-1] - f.minimum_value <= 1e-12
        assert np.all(np.diff(values) <= 1e-12), "the loss rose"
        assert np.abs(state[2].grad).max() <= 1e-5


def test_ends_on_a_quadratic_after_as_many_steps_as_it_has_dimensions() -> None:
    """With exact searches the directions are conjugate, as long as the memory holds them all."""
    d = 6
    a = random(0, d, d)
    with float64():
        hessian = a @ a.T + 0.5 * np.eye(d)
        opt = optim.lbfgs(linesearch=optim.scale_by_zoom_linesearch(60, curv_rtol=1e-10, initial_guess_strategy="one"))
        _, _, values = run(opt, lambda x: 0.5 * x @ hessian @ x, random(1, d), d)
    assert values[-1] <= 1e-16
    assert values[-2] >= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rosenbrock of 20", "beale", "logistic regression"])
def test_reaches_what_scipy_reaches(name: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    with float64():
        if name == "logistic regression":
            x, y = jnp.asarray(random(0, 60, 5)), jnp.asarray(random(1, 60) > 0, float)
            start = jnp.zeros(5)

            def f(w: Any) -> Any:
                z = x @ w
                return jnp.mean(jnp.logaddexp(0, z) - y * z) + 0.01 * w @ w
        else:
            f = PLACES[name][0]()
            start = jnp.asarray(f.start)
        found, _, _ = run(optim.lbfgs(), f, start, 150)
        best = optimize.minimize(jax.jit(f), start, jac=jax.jit(jax.grad(f)), tol=1e-12, options={"gtol": 1e-9})
        assert f(found) <= best.fun + 1e-12
        assert_close(found, best.x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_stays_finite_long_after_convergence(dtype: Any) -> None:
    """Differences of 1e-20 and less, whose products are 0 in float32 or have no finite inverse."""
    with float64():
        f = landscapes.rosenbrock()
        for start in (f.start, f.minima[0]):
            x, state, _ = run(optim.lbfgs(), f, jnp.asarray(start, dtype), 300)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((x, state)))
            assert_close(x, f.minima[0], rtol=1e-3)
        _, state, _ = run(optim.lbfgs(), lambda x: 0 * jnp.sum(x), jnp.ones(2, dtype), 5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_pair_without_a_finite_weight_does_not_count() -> None:
    @jax.jit
    @jax.vmap
    def second(size: Any) -> Any:
        opt, w = optim.scale_by_lbfgs(), jnp.zeros(2)
        _, state = opt.update(w, opt.init(w), w)
        return opt.update(w + size, state, w + size)

    direction, state = second(np.float32([1e-18, 1e-20, 1e-22]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((direction, state)))
    assert (np.asarray(direction) > 0).all()


@pytest.mark.slow
def test_a_gradient_that_is_nan_is_forgotten() -> None:
    w = np.arange(2, 6, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    found, states = jax.device_get(directions(3, w, w * np.float32([[1], [np.nan], [2], [3]])))
    assert np.isfinite(found[-1]).all()
    assert np.isfinite(states.weights_memory[-1]).all()


@pytest.mark.slow
def test_none_leaves_and_frozen_parameters() -> None:
    params = {"w": jnp.ones(2), "frozen": jnp.ones(1), "none": None}

    def f(p: Any) -> Any:
        return jnp.sum((p["w"] - 3.0) ** 2) + jnp.sum(p["frozen"])

    opt = optim.lbfgs()
    state = opt.init(params)
    for _ in range(5):
        value, grads = jax.value_and_grad(f)(params)
        grads = grads | {"frozen": None}
        updates, state = opt.update(grads, state, params, value=value, grad=grads, value_fn=f)
        assert jax.tree.structure(updates) == jax.tree.structure(grads)
        params = optim.apply_updates(params, updates)
    assert_close(params, {"w": jnp.full(2, 3.0), "frozen": jnp.ones(1), "none": None}, rtol=1e-6)


def test_a_learning_rate_scales_the_direction_and_may_be_a_schedule() -> None:
    w = np.float32([3, 4])
    opts = [optim.lbfgs(rate, linesearch=None) for rate in (None, 0.5, lambda count: 0.25 / (1 + count))]
    updates = jax.jit(lambda w: jnp.stack([opt.update(w, opt.init(w), w)[0] for opt in opts]))(w)
    assert_close(updates, -np.outer([1.0, 0.5, 0.25], w / 5), rtol=1e-6)


@traced
def test_bad_arguments() -> None:
    for factory in (optim.lbfgs, optim.scale_by_lbfgs):
        with pytest.raises(ValueError, match="memory_size must be at least 1, got 0"):
            factory(memory_size=0)
        with pytest.raises(ValueError, match="min_curvature must lie in"):
            factory(min_curvature=math.nan)
    w = np.ones(2, np.float32)
    opt = optim.lbfgs()
    with pytest.raises(ValueError, match="scale_by_lbfgs: update needs the parameters"):
        opt.update(w, opt.init(w))
    with pytest.raises(ValueError, match="scale_by_zoom_linesearch: update needs the extra argument value_fn"):
        opt.update(w, opt.init(w), w)


@pytest.mark.slow
def test_complex_parameters_move_like_pairs_of_real_ones() -> None:
    """With the gradients conjugated, as for every rule."""
    with float64():
        a = jnp.asarray(random(0, 4, 3) + 1j * random(1, 4, 3))

        def f(z: Any) -> Any:
            return jnp.sum(jnp.abs(a @ z - 1) ** 2) + jnp.sum(jnp.cos(z.real) + jnp.sin(z.imag))

        z = jnp.asarray(random(2, 3) + 1j * random(3, 3))
        found, _, _ = run(optim.lbfgs(), f, z, 8)
        pair, _, _ = run(optim.lbfgs(), lambda x: f(x[0] + 1j * x[1]), jnp.stack([z.real, z.imag]), 8)
        assert_close((found.real, found.imag), tuple(pair), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_trains_the_digits_on_whole_batches() -> None:
    splits, net = data.load("digits"), models.mlp([64, 64, 10])
    vg = jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
    opt = optim.lbfgs()
    ts = train.init(net, opt, jax.random.key(0), (8, 8, 1))
    step = train.make_step(vg, opt)
    for _ in range(60):
        ts, report = step(ts, splits.train.x, splits.train.y)
    assert 1 - jnp.mean(metrics.error_rate(net.predict(ts.params, ts.state, splits.test.x), splits.test.y)) >= 0.96
    assert report["loss"] < 0.02


def test_the_state_may_be_donated() -> None:
    """No two fields share a buffer, at the start or later."""
    w = jnp.ones(3)
    opt = optim.lbfgs()
    step = jax.jit(
        lambda w, s: opt.update(2 * w, s, w, value=w @ w, grad=2 * w, value_fn=lambda w: w @ w), donate_argnums=1
    )
    updates, state = step(w, opt.init(w))
    _, state = step(w + updates, state)
    assert state[0].count == 2

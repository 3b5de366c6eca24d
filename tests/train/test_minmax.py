"""Steps of two players against their closed forms on J = x y, in float64, and against loops on other games."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import optim
from jaxnn.train import minmax
from tests.helpers import assert_close, float64, strict

BILINEAR = minmax.zero_sum(lambda x, y: x * y)
STEPS = 40

Make = Callable[..., minmax.Step]


def optimistic(rate: Any) -> optim.Optimizer:
    return optim.optimistic_gradient_descent(rate)


RULES: dict[str, tuple[Make, Callable[[Any], optim.Optimizer]]] = {
    "simultaneous": (minmax.simultaneous, optim.sgd),
    "alternating": (minmax.alternating, optim.sgd),
    "extragradient": (minmax.extragradient, optim.sgd),
    "optimistic": (minmax.simultaneous, optimistic),
}


def played(make: Make, optimizer: Callable[[Any], optim.Optimizer], rate: float, x: float, y: float) -> np.ndarray:
    """x + i y at every step of the bilinear game, (STEPS + 1,)."""
    with float64(), strict():
        xs, ys = _program(make, optimizer)(np.float64(rate), np.float64(x), np.float64(y))
        return np.asarray(xs) + 1j * np.asarray(ys)


@functools.cache
def _program(make: Make, optimizer: Callable[[Any], optim.Optimizer]) -> Callable[..., Any]:
    def run(rate: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        opt = optimizer(rate)
        return minmax.play(make(BILINEAR, opt, opt), minmax.init(x, y, opt, opt), STEPS)

    return jax.jit(run)


# With z = x + i y, -grad_x J + i grad_y J = -y + i x = i z: each rule is a recursion in one complex number.


def closed_form(name: str, rate: float, z: complex) -> np.ndarray:
    way, previous = [z], z
    for _ in range(STEPS):
        if name == "simultaneous":
            new = (1 + 1j * rate) * z
        elif name == "extragradient":
            new = (1 - rate**2 + 1j * rate) * z
        elif name == "optimistic":
            new = z + 2j * rate * z - 1j * rate * previous
        else:
            x = z.real - rate * z.imag
            new = complex(x, z.imag + rate * x)
        z, previous = new, z
        way.append(z)
    return np.array(way)


def assert_closed_form(name: str, make: Make, optimizer: Any, rate: float, x: float, y: float) -> None:
    expected = closed_form(name, rate, complex(x, y))
    np.testing.assert_allclose(played(make, optimizer, rate, x, y), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", RULES)
@given(rate=st.floats(0.01, 0.9), x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_every_rule_is_its_recursion_on_the_bilinear_game(name: str, rate: float, x: float, y: float) -> None:
    assert_closed_form(name, *RULES[name], rate, x, y)


def flipped(game: minmax.Game, x_opt: Any, y_opt: Any) -> minmax.Step:
    return minmax.simultaneous(minmax.Game(game.x_loss, game.x_loss), x_opt, y_opt)


MUTANTS = {
    "y descends too": ("simultaneous", flipped, optim.sgd),
    "y sees the new x": ("simultaneous", minmax.alternating, optim.sgd),
    "y sees the old x": ("alternating", minmax.simultaneous, optim.sgd),
    "no look ahead": ("extragradient", minmax.simultaneous, optim.sgd),
    "half the optimism": ("optimistic", minmax.simultaneous, lambda r: optim.optimistic_gradient_descent(r, beta=0.5)),
    "pessimistic": ("optimistic", minmax.simultaneous, optim.sgd),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_found(mutant: str) -> None:
    with pytest.raises(AssertionError):
        assert_closed_form(*MUTANTS[mutant], 0.3, 1.0, 0.5)


@given(rate=st.floats(0.01, 0.9), x=st.floats(0.1, 3), y=st.floats(-3, 3))
def test_descent_ascent_circles_outward_by_the_exact_factor(rate: float, x: float, y: float) -> None:
    way = played(*RULES["simultaneous"], rate, x, y)
    np.testing.assert_allclose(np.abs(way[1:]) / np.abs(way[:-1]), np.sqrt(1 + rate**2), rtol=1e-12)
    np.testing.assert_allclose(np.angle(way[1:] / way[:-1]), np.arctan(rate), rtol=1e-10)


@given(rate=st.floats(0.01, 0.9), x=st.floats(0.1, 3), y=st.floats(-3, 3))
def test_alternating_steps_keep_to_a_closed_curve(rate: float, x: float, y: float) -> None:
    way = played(*RULES["alternating"], rate, x, y)
    conserved = way.real**2 + way.imag**2 - rate * way.real * way.imag
    np.testing.assert_allclose(conserved, conserved[0], rtol=1e-11)


@given(rate=st.floats(0.05, 0.9), x=st.floats(0.1, 3), y=st.floats(-3, 3))
def test_extragradient_shrinks_by_the_exact_factor(rate: float, x: float, y: float) -> None:
    way = played(*RULES["extragradient"], rate, x, y)
    np.testing.assert_allclose(np.abs(way[1:]) / np.abs(way[:-1]), np.sqrt(1 - rate**2 + rate**4), rtol=1e-12)


@pytest.mark.parametrize(("rate", "shrinks"), [(0.2, True), (0.4, True), (0.55, True), (0.6, False)])
def test_optimistic_steps_converge_up_to_a_rate(rate: float, shrinks: bool) -> None:
    # lambda^2 - (1 + 2 i eta) lambda + i eta = 0: the larger root is inside the unit circle for eta < 1 / sqrt 3.
    largest = np.abs(np.roots([1, -1 - 2j * rate, 1j * rate])).max()
    way = np.abs(played(*RULES["optimistic"], rate, 1.0, 0.5))
    assert (largest < 1) == shrinks == (way[-1] < way[0])
    np.testing.assert_allclose(way[-1] / way[-2], largest, rtol=1e-3)


# Other games.


def test_all_but_plain_descent_ascent_reach_the_saddle_of_a_matrix_game() -> None:
    matrix = 0.3 * np.random.default_rng(0).standard_normal((3, 3)) + 2 * np.eye(3)

    def objective(x: Any, y: Any) -> Any:
        return x["a"] @ jnp.asarray(matrix) @ y + x["b"] * y[0] - jnp.sum(y)

    def distance(make: Make, opt: optim.Optimizer) -> jax.Array:
        state = minmax.init({"a": jnp.ones(3), "b": jnp.zeros(())}, jnp.zeros(3), opt, opt)
        step = make(minmax.zero_sum(objective), opt, opt)
        state, _ = jax.lax.scan(lambda at, _: (step(at), None), state, length=3000)
        slope = jax.grad(objective, (0, 1))(state.x, state.y)
        return sum(jnp.sum(jnp.abs(g)) for g in jax.tree.leaves(slope))

    with float64():
        program = jax.jit(lambda: {name: distance(make, of(0.1)) for name, (make, of) in RULES.items()})
        found = jax.device_get(program())
    assert found["optimistic"] < 1e-6
    assert found["extragradient"] < 1e-6
    assert not found["simultaneous"] < 1
    assert found["alternating"] > 1e-2


def test_a_strongly_convex_concave_game_converges_by_every_rule() -> None:
    game = minmax.zero_sum(lambda x, y: (x - 1) ** 2 + x * y - (y + 2) ** 2)

    def end(make: Make, opt: optim.Optimizer) -> tuple[jax.Array, jax.Array]:
        x, y = minmax.play(make(game, opt, opt), minmax.init(3.0, 3.0, opt, opt), 400)
        return x[-1], y[-1]

    with float64():
        found = jax.jit(lambda: [end(make, of(0.1)) for make, of in RULES.values()])()
    # 2 (x - 1) + y = 0 and x - 2 (y + 2) = 0
    np.testing.assert_allclose(found, [(8 / 5, -6 / 5)] * 4, rtol=1e-10)


def test_two_losses_that_do_not_sum_to_zero_two_optimizers_and_data() -> None:
    game = minmax.Game(
        lambda x, y, batch, key: jnp.sum((x["w"] - y) ** 2 * batch) + jax.random.normal(key) * x["w"][0],
        lambda x, y, batch, key: jnp.sum(y**2 * batch) + jnp.sum(y * x["w"]),
    )
    x_opt, y_opt = optim.adam(0.1), optim.sgd(0.05, momentum=0.9)
    step = minmax.simultaneous(game, x_opt, y_opt)
    batch = np.float32([1.0, 2.0])

    def by_step(state: Any, keys: Any) -> Any:
        for key in (keys[0], keys[1], keys[2]):
            state = step(state, batch, key)
        return state

    def by_hand(state: Any, keys: Any) -> Any:
        x, y, sx, sy = state
        for key in (keys[0], keys[1], keys[2]):
            gx, gy = jax.grad(game.x_loss)(x, y, batch, key), 2 * y * batch + x["w"]
            (ux, sx), (uy, sy) = x_opt.update(gx, sx, x), y_opt.update(gy, sy, y)
            x, y = {"w": x["w"] + ux["w"]}, y + uy
        return minmax.GameState(x, y, sx, sy)

    @jax.jit
    def both(key: Any) -> Any:
        state = minmax.init({"w": jnp.array([1.0, -2.0])}, jnp.array([0.5, 0.5]), x_opt, y_opt)
        keys = jax.random.split(key, 3)
        return by_step(state, keys), by_hand(state, keys)

    assert_close(*both(jax.random.key(0)), rtol=1e-6)


def test_extragradient_keeps_the_moments_of_both_gradients_and_takes_back_the_first_step() -> None:
    opt = optim.sgd(0.1, momentum=0.9)
    step = minmax.extragradient(BILINEAR, opt, opt)
    state = jax.jit(lambda: step(minmax.init(1.0, 2.0, opt, opt)))()
    # Gradients (y, -x): first (2, -1), which lead to (0.8, 2.1); there (2.1, -0.8).
    np.testing.assert_allclose([state.x_state.trace, state.y_state.trace], [2.1 + 1.8, -0.8 - 0.9], rtol=1e-6)
    np.testing.assert_allclose([state.x, state.y], [1 - 0.39, 2 + 0.17], rtol=1e-6)
    assert int(state.x_state.count) == int(state.y_state.count) == 2


def test_play_begins_at_the_start() -> None:
    opt = optim.sgd(0.1)
    step = minmax.simultaneous(BILINEAR, opt, opt)
    x, y = jax.jit(lambda: minmax.play(step, minmax.init(2.0, 3.0, opt, opt), 0))()
    assert (x.tolist(), y.tolist()) == ([2.0], [3.0])


SGD = optim.sgd(0.1)
BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "game must be a Game", lambda: minmax.simultaneous(lambda x, y: x * y, SGD, SGD)),  # type: ignore[arg-type]
    (TypeError, "extragradient: y_opt must be an", lambda: minmax.extragradient(BILINEAR, SGD, 0.1)),  # type: ignore[arg-type]
    (TypeError, "objective must be a function", lambda: minmax.zero_sum(3)),  # type: ignore[arg-type]
    (TypeError, "init: x_opt must be an optimizer", lambda: minmax.init(1.0, 1.0, 0.1, SGD)),  # type: ignore[arg-type]
    (TypeError, "init: x must have a floating dtype, got int32", lambda: minmax.init(1, 1.0, SGD, SGD)),
    (
        TypeError,
        r"init: y\[1\] must have a floating dtype, got int32. Write 1.0",
        lambda: minmax.init(1.0, [1.0, 1], SGD, SGD),
    ),
    (
        ValueError,
        r"the losses must return one number, got shape \(2,\) from x_loss",
        lambda: minmax.simultaneous(BILINEAR, SGD, SGD)(minmax.init(np.ones(2), np.ones(2), SGD, SGD)),
    ),
    (
        ValueError,
        r"the losses must return one number, got shape \(3,\) from y_loss",
        lambda: minmax.alternating(minmax.Game(lambda x, y: x * y, lambda x, y: x * y * np.ones(3)), SGD, SGD)(
            minmax.init(1.0, 1.0, SGD, SGD)
        ),
    ),
    (
        TypeError,
        "the value of x_loss must have a floating dtype, got int32",
        lambda: minmax.extragradient(minmax.zero_sum(lambda x, y: 3), SGD, SGD)(minmax.init(1.0, 1.0, SGD, SGD)),  # type: ignore[arg-type, return-value]
    ),
    (
        TypeError,
        "step must be a step, as minmax.simultaneous",
        lambda: minmax.play(BILINEAR, minmax.init(1.0, 1.0, SGD, SGD), 1),  # type: ignore[arg-type]
    ),
    (
        TypeError,
        "state must be a GameState, as minmax.init",
        lambda: minmax.play(minmax.simultaneous(BILINEAR, SGD, SGD), (1.0, 1.0), 1),  # type: ignore[arg-type]
    ),
    (ValueError, "steps must be at least 0", lambda: minmax.play(lambda s: s, minmax.init(1.0, 1.0, SGD, SGD), -1)),
]


@pytest.mark.parametrize(("error", "text", "call"), BAD)
def test_bad_input_is_named(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        jax.eval_shape(call)

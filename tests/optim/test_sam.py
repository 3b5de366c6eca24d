"""Sharpness-aware minimization: a float64 transcription of the paper, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, strict
from tests.optim.running import traced

STEPS = 100

MUTANTS: list[tuple[str, str, str, str]] = [
    ("sam", "normalize", "jnp.sqrt(nonzero(_over_leaves(jnp.sum, ", "(nonzero(_over_leaves(jnp.sum, "),
    ("sam", "sam", "lambda u, c, p: c - p + u", "lambda u, c, p: u"),
    ("sam", "sam", "jax.tree.map(jnp.negative, updates)", "updates"),
    ("sam", "sam: momentum", "adv_optimizer.init(widen(params)) if reset_state else adv_state", "adv_state"),
    ("sam", "sam: momentum", "last = steps == period - 1", "last = steps == 1"),
    ("sam", "sam", "jnp.where(steps == 0, p, c)", "p"),
    ("sam", "sam: opaque, momentum", "worse = apply_updates(worse, updates)", "worse = apply_updates(params, updates)"),
    ("sam", "sam: opaque, no reset", "        if reset_state:\n", "        if True:\n"),
]


def adversary(rho: float = 0.1) -> optim.Optimizer:
    return optim.chain(optim.normalize(), optim.sgd(rho))


def paper(theta: np.ndarray, noise: np.ndarray, eta: float, rho: float) -> np.ndarray:
    """Algorithm 1 of Foret, for the loss sum(theta^2) + xi theta."""
    for xi in noise:
        g = 2 * theta + xi
        epsilon = rho * g / np.sqrt((g**2).sum())
        theta = theta - eta * (2 * (theta + epsilon) + xi)
    return theta


def test_opaque_mode_is_algorithm_1_of_foret() -> None:
    with float64():
        opt = optim.sam(optim.sgd(0.05), adversary(), opaque_mode=True)
        theta, noise = jnp.asarray(random(0, 4, 3)), jnp.asarray(random(1, STEPS, 4, 3))

        def body(carry: Any, xi: Any) -> tuple[Any, None]:
            theta, state = carry
            updates, state = opt.update(2 * theta + xi, state, theta, grad_fn=lambda p: 2 * p + xi)
            return (theta + updates, state), None

        found, state = jax.jit(lambda: jax.lax.scan(body, (theta, opt.init(theta)), noise)[0])()
        expected = paper(random(0, 4, 3), random(1, STEPS, 4, 3), 0.05, 0.1)
        assert_close((found, state.count), (expected, STEPS), rtol=1e-12, atol=1e-14)


def test_transparent_mode_is_algorithm_1_in_two_calls_a_step() -> None:
    with float64():
        opt = optim.sam(optim.sgd(0.05), adversary())
        theta, noise = jnp.asarray(random(0, 4, 3)), jnp.repeat(jnp.asarray(random(1, STEPS, 4, 3)), 2, axis=0)

        def body(carry: Any, xi: Any) -> tuple[Any, None]:
            theta, state = carry
            updates, state = opt.update(2 * theta + xi, state, theta)
            return (theta + updates, state), None

        found, state = jax.jit(lambda: jax.lax.scan(body, (theta, opt.init(theta)), noise)[0])()
        expected = paper(random(0, 4, 3), random(1, STEPS, 4, 3), 0.05, 0.1)
        assert_close((found, state.steps_since_sync, state.count), (expected, 0, 2 * STEPS), rtol=1e-12, atol=1e-14)


def test_grad_fn_may_take_the_number_of_the_adversarial_step() -> None:
    opt, params, seen = optim.sam(optim.sgd(0.1), adversary(), sync_period=3, opaque_mode=True), jnp.ones(2), []

    def grad_fn(p: jax.Array, i: int) -> jax.Array:
        seen.append(i)
        return 2 * p

    opt.update(2 * params, opt.init(params), params, grad_fn=grad_fn)
    assert seen == [0, 1]


@pytest.mark.slow
def test_gradients_are_averaged_over_the_batch_axis() -> None:
    opt = optim.sam(optim.sgd(1.0), adversary(0.0), opaque_mode=True, batch_axis_name="batch")
    params = jnp.zeros(2)

    def one(x: jax.Array) -> jax.Array:
        return opt.update(x, opt.init(params), params, grad_fn=lambda p: x + p)[0]

    shards = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    assert_close(jax.vmap(one, axis_name="batch")(shards), np.float32([[-2, -4], [-2, -4]]), rtol=1e-6)


def test_only_the_rule_whose_turn_it_is_runs() -> None:
    calls = {"outer": 0, "adversary": 0}

    def counting(name: str) -> optim.Optimizer:
        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            jax.debug.callback(lambda: calls.__setitem__(name, calls[name] + 1))
            return grads, state

        return optim.Optimizer(lambda params: (), update)

    opt, params = optim.sam(counting("outer"), counting("adversary"), sync_period=3), jnp.ones(2)

    def body(state: Any, _: Any) -> tuple[Any, None]:
        return opt.update(params, state, params)[1], None

    jax.block_until_ready(jax.jit(lambda: jax.lax.scan(body, opt.init(params), None, length=6)[0])())
    jax.effects_barrier()
    assert calls == {"outer": 2, "adversary": 4}


def test_normalize_is_exact_for_zero_tiny_and_huge_updates() -> None:
    for size in (1e-30, 1.0, 1e30):
        g = {"a": jnp.array([3 * size, 0.0]), "b": jnp.array(4 * size), "none": None}
        with strict():
            updates, _ = optim.normalize().update(g, optim.normalize().init(g))
        assert_close(updates, {"a": np.float32([0.6, 0.0]), "b": np.float32(0.8), "none": None}, rtol=1e-6)
    zeros = jnp.zeros(2)
    assert_close(optim.normalize().update(zeros, optim.normalize().init(zeros))[0], np.zeros(2), rtol=0)
    complex_one = jnp.array([3 + 4j])
    np.testing.assert_allclose(optim.normalize().update(complex_one, ())[0], [0.6 + 0.8j], rtol=1e-6)


def test_a_zero_gradient_stays_finite_and_none_passes_through() -> None:
    params = {"w": jnp.ones(2), "none": None}
    zeros = {"w": jnp.zeros(2), "none": None}
    for opaque in (False, True):
        opt = optim.sam(optim.sgd(0.1), adversary(), opaque_mode=opaque)
        state = opt.init(params)
        for _ in range(2):
            with strict():
                updates, state = opt.update(zeros, state, params, grad_fn=lambda p: zeros)
            assert updates["none"] is None
            assert_close(updates["w"], np.zeros(2), rtol=0)


def update(opt: optim.Optimizer, params: Any = None) -> Any:
    return opt.update(jnp.ones(1), opt.init(jnp.ones(1)), params)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: optim.sam(optim.sgd(0.1), adversary(), sync_period=0),
            ValueError,
            "sam: sync_period must be at least 1",
        ),
        (lambda: optim.sam(0.1, adversary()), TypeError, "sam: optimizer must be an optimizer"),
        (lambda: optim.sam(optim.sgd(0.1), optim.normalize), TypeError, "Call the factory"),
        (lambda: update(optim.sam(optim.sgd(0.1), adversary())), ValueError, "sam: update needs the parameters"),
        (
            lambda: update(optim.sam(optim.sgd(0.1), adversary(), opaque_mode=True), jnp.ones(1)),
            ValueError,
            "extra argument grad_fn",
        ),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

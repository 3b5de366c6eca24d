"""Sharpness-aware minimization: a float64 transcription of the paper, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, strict
from tests.optim.running import along, traced

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
    opt, seen = optim.sam(optim.sgd(0.1), adversary(), sync_period=3, opaque_mode=True), []

    def grad_fn(p: jax.Array, i: int) -> jax.Array:
        seen.append(i)
        return 2 * p

    jax.eval_shape(lambda p: opt.update(2 * p, opt.init(p), p, grad_fn=grad_fn), np.ones(2, np.float32))
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

    opt = optim.sam(counting("outer"), counting("adversary"), sync_period=3)
    along(opt, np.ones(2, np.float32), np.ones((6, 2), np.float32))
    jax.effects_barrier()
    assert calls == {"outer": 2, "adversary": 4}


def test_normalize_is_exact_for_zero_tiny_and_huge_updates() -> None:
    sizes = np.float32([0, 1e-30, 1, 1e30])
    grads = {"a": sizes[:, None] * np.float32([3, 0]), "b": 4 * sizes, "none": None}
    with strict():
        updates, _, _ = along(optim.normalize(), jax.tree.map(lambda g: g[0], grads), grads)
    ones = np.float32([0, 1, 1, 1])
    expected = {"a": ones[:, None] * np.float32([0.6, 0]), "b": np.float32(0.8) * ones, "none": None}
    assert_close(updates, expected, rtol=1e-6)
    turned = along(optim.normalize(), np.complex64(0), np.complex64([3 + 4j]))[0]
    np.testing.assert_allclose(turned, [0.6 + 0.8j], rtol=1e-6)


def test_a_zero_gradient_stays_finite_and_none_passes_through() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((2, 2), np.float32), "none": None}
    for opaque in (False, True):
        opt = optim.sam(optim.sgd(0.1), adversary(), opaque_mode=opaque)
        with strict():
            updates, _, _ = along(opt, params, zeros, grad_fn=lambda p: jax.tree.map(jnp.zeros_like, p))
        assert_close(updates, zeros, rtol=0)


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

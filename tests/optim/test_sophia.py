"""Sophia: float64 transcriptions, Hutchinson's estimator against the exact Hessian and optax's, mutants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, strict
from tests.optim.running import along, traced

STEPS = 100
CURVATURE = np.array([0.5, 2.0, -1.0, 8.0])

MUTANTS: list[tuple[str, str, str, str]] = [
    ("sophia", "sophia: gamma", "1 - cast_like(b1, g) ** count.astype(g.dtype)", "1"),
    (
        "sophia",
        "sophia: gamma",
        "jnp.maximum(cast_like(gamma, g) * nu, cast_like(eps, g))",
        "(cast_like(gamma, g) * jnp.abs(nu) + cast_like(eps, g))",
    ),
    ("sophia", "sophia: gamma", "cast_like(gamma, g) * nu", "nu"),
    ("sophia", "sophia: gamma", "due = state.count % interval == 0", "due = count % interval == 0"),
    ("sophia", "sophia", "cast_like(b2, h) * nu + (1 - cast_like(b2, h)) * h", "cast_like(b2, h) * nu + h"),
    ("sophia", "sophia", "lambda r, h: r * h, signs", "lambda r, h: h, signs"),
    ("sophia", "sophia: decay", "weight_decay=weight_decay, mask", "weight_decay=0.0, mask"),
    (
        "sophia",
        "sophia: gamma",
        "jnp.clip(direction, -cast_like(clip_threshold, g), cast_like(clip_threshold, g))",
        "direction",
    ),
]


def run(opt: Any) -> tuple[jax.Array, Any]:
    """100 steps on 1/2 sum(curvature theta^2) with noisy gradients; the diagonal estimate is exact there."""
    theta, noise, curvature = random(0, 4), random(1, STEPS, 4), CURVATURE

    def body(carry: Any, xi: Any) -> tuple[Any, None]:
        theta, state = carry
        obj_fn = lambda p: 0.5 * jnp.sum(curvature * p**2)  # noqa: E731
        updates, state = opt.update(curvature * theta + xi, state, theta, obj_fn=obj_fn)
        return (theta + updates, state), None

    return jax.jit(lambda theta: jax.lax.scan(body, (theta, opt.init(theta)), noise)[0])(theta)


def test_is_algorithm_3_of_liu_with_last_steps_curvature_and_unbiased_momentum() -> None:
    """The paper's algorithm; two lines differ, as in optax: h is used before it is renewed, and m is debiased."""
    eta, b1, b2, gamma, eps, lam, k, rho = 0.02, 0.9, 0.95, 0.5, 1e-4, 0.1, 3, 0.7
    theta, m, h = random(0, 4), np.zeros(4), np.zeros(4)
    for t, xi in enumerate(random(1, STEPS, 4), start=1):
        g = CURVATURE * theta + xi
        m = b1 * m + (1 - b1) * g
        step = np.clip(m / (1 - b1**t) / np.maximum(gamma * h, eps), -rho, rho)
        if (t - 1) % k == 0:
            h = b2 * h + (1 - b2) * CURVATURE
        theta = theta - eta * lam * theta
        theta = theta - eta * step
    with float64():
        found, state = run(optim.sophia(eta, b1, b2, eps, lam, None, gamma, rho, k))
        assert_close((found, state.mu, state.nu), (theta, m, h), rtol=1e-12, atol=1e-13)


def test_hutchinson_is_exact_for_a_diagonal_hessian_and_unbiased_for_another() -> None:
    a = random(3, 5, 5)
    hessian = (a + a.T).astype(np.float32)
    opt, params = optim.hutchinson_estimator_diag_hessian(3), jnp.zeros(5)

    def body(state: Any, _: Any) -> tuple[Any, Any]:
        diagonal, state = opt.update(params, state, params, obj_fn=lambda p: 0.5 * p @ hessian @ p)
        return state, diagonal

    draws = np.asarray(jax.jit(lambda: jax.lax.scan(body, opt.init(params), None, length=20_000)[1])())
    off = hessian - np.diag(np.diag(hessian))
    variance = (off**2).sum(axis=1)
    assert np.all(np.abs(draws.mean(axis=0) - np.diag(hessian)) < 5 * np.sqrt(variance / len(draws)))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.05)


@pytest.mark.slow
def test_hutchinson_draws_what_optax_draws() -> None:
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}

    def obj_fn(p: Any) -> jax.Array:
        return jnp.sum(jnp.sin(p["w"] @ p["b"])) ** 2

    for ours, theirs in (
        (None, None),
        (7, jax.random.PRNGKey(7)),
        (jax.random.key(7), jax.random.PRNGKey(7)),
        (jax.random.PRNGKey(7), jax.random.PRNGKey(7)),
    ):
        mine = optim.hutchinson_estimator_diag_hessian(ours)
        yours = optax.contrib.hutchinson_estimator_diag_hessian(theirs)
        state, other = mine.init(params), yours.init(params)
        for _ in range(3):
            got, state = mine.update(params, state, params, obj_fn=obj_fn)
            expected, other = yours.update(params, other, params, obj_fn=obj_fn)
            assert_close(got, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_first_step_is_a_sign_step_and_zero_over_zero_is_zero() -> None:
    for eps in (1e-8, 0.0):
        opt, params = optim.sophia(0.5, eps=eps, weight_decay=0.0), {"w": np.ones(3, np.float32), "none": None}
        grads = {"w": np.float32([[2.0, 0.0, -3.0]]), "none": None}
        with strict():
            updates, _, _ = along(opt, params, grads, obj_fn=lambda p: jnp.sum(p["w"]))
        assert updates["none"] is None
        assert_close(updates["w"], np.float32([[-0.5, 0.0, 0.5]]), rtol=0)


def test_the_loss_gets_the_parameters_in_their_own_dtype() -> None:
    seen = []

    def obj_fn(p: jax.Array) -> jax.Array:
        seen.append(p.dtype)
        return jnp.sum(p.astype(jnp.float32) ** 2)

    opt, grads = optim.sophia(0.1), np.ones(2, np.float32)
    jax.eval_shape(lambda p: opt.update(grads, opt.init(p), p, obj_fn=obj_fn), np.ones(2, jnp.bfloat16))
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_the_win_rate_is_printed(capsys: Any) -> None:
    opt, params = optim.sophia(0.1, eps=1.0, verbose=True, print_win_rate_every_n_steps=2), jnp.ones(4)
    state = opt.init(params)
    for _ in range(2):
        _, state = opt.update(jnp.array([0.1, 0.1, 0.1, 9.0]), state, params, obj_fn=lambda p: jnp.sum(p))
    jax.effects_barrier()
    assert capsys.readouterr().out == "sophia: win rate 0.75\n"


def update(**extra: Any) -> Any:
    opt, params = optim.sophia(0.1), jnp.ones(1)
    return opt.update(params, opt.init(params), extra.pop("params", None), **extra)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.sophia(-1.0), ValueError, "sophia: learning_rate must lie in"),
        (lambda: optim.sophia(0.1, b1=1.0), ValueError, "sophia: b1 must lie in"),
        (lambda: optim.sophia(0.1, clip_threshold=-1.0), ValueError, "sophia: clip_threshold must lie in"),
        (lambda: optim.sophia(0.1, update_interval=0), ValueError, "sophia: update_interval must be at least 1"),
        (lambda: optim.sophia(0.1).init(jnp.ones(1, complex)), TypeError, "is complex"),
        (lambda: update(obj_fn=jnp.sum), ValueError, "sophia: update needs the parameters"),
        (lambda: update(params=jnp.ones(1)), ValueError, "needs the extra argument obj_fn"),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

"""Optimistic rules: float64 transcriptions of the papers, convergence on a game, mutants."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, strict
from tests.optim.running import along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("optimistic", "optimistic_gradient_descent", "(cast_like(a, g) + cast_like(b, g)) * g", "cast_like(a, g) * g"),
    ("optimistic", "optimistic_gradient_descent", "jnp.where(state.count == 0, g, previous)", "previous"),
    ("optimistic", "optimistic_gradient_descent", "- cast_like(b, g) * previous, g", "+ cast_like(b, g) * previous, g"),
    (
        "optimistic",
        "optimistic_gradient_descent: settings",
        "descent(scale_by_optimistic_gradient(alpha, beta)",
        "descent(scale_by_optimistic_gradient(beta, alpha)",
    ),
    ("optimistic", "optimistic_adam", "beta = learning_rate if optimism is None else optimism", "beta = 1.0"),
    (
        "optimistic",
        "optimistic_adam_v2: settings",
        "direction = _optimistic(alpha, beta",
        "direction = _optimistic(beta, alpha",
    ),
]


def test_descent_is_equation_14_of_mokhtari() -> None:
    theta, before = start(4, 3), None
    for xi in noise(4, 3):
        g = theta + xi
        before = g if before is None else before
        theta = theta - 2 * 0.05 * g + 0.05 * before
        before = g
    with float64():
        found, state = descend(optim.optimistic_gradient_descent(0.05), 4, 3)
        assert_close((found, state.previous_gradient), (theta, before), rtol=1e-12, atol=1e-13)


def test_adam_is_algorithm_1_of_daskalakis() -> None:
    """theta <- theta - 2 eta r_t + eta r_{t-1}, without Nesterov's momentum; r_0 is r_1 here and 0 in the paper."""
    eta, b1, b2, eps = 0.02, 0.9, 0.999, 1e-8
    theta, m, v, before = start(4, 3), np.zeros((4, 3)), np.zeros((4, 3)), None
    for t, xi in enumerate(noise(4, 3), start=1):
        g = theta + xi
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        before = r if before is None else before
        theta = theta - 2 * eta * r + eta * before
        before = r
    with float64():
        for opt in (optim.optimistic_adam(eta, nesterov=False), optim.optimistic_adam_v2(eta, nesterov=False)):
            found, state = descend(opt, 4, 3)
            expected = (theta, m, v, before)
            assert_close((found, state.mu, state.nu, state.previous_gradient), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "low", "high"), [(optim.sgd, 200.0, 210.0), (optim.optimistic_gradient_descent, 0.0, 0.1)]
)
def test_optimism_reaches_the_saddle_that_descent_spirals_away_from(make: Any, low: float, high: float) -> None:
    """J = x y, x descends and y ascends, from (1, 1) at rate 0.1, 1,000 steps: the distance to (0, 0)."""
    opt = make(0.1)
    at = (np.float32(1), np.float32(1))

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        (x, y), state = carry
        updates, state = opt.update((y, -x), state, (x, y))
        return (optim.apply_updates((x, y), updates), state), None

    (x, y), _ = jax.jit(lambda at: jax.lax.scan(body, (at, opt.init(at)), None, length=1000)[0])(at)
    assert low <= np.hypot(x, y) <= high


def test_alpha_and_beta_may_be_schedules() -> None:
    opt = optim.scale_by_optimistic_gradient(lambda count: 1.0 + count, lambda count: 2.0 * count)
    updates, _, _ = along(opt, np.float32(0), np.float32([1, 3]))
    np.testing.assert_allclose(updates[1], 2 * 3 + 2 * (3 - 1))


def test_none_passes_through() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    for opt in (optim.optimistic_gradient_descent(0.1), optim.optimistic_adam(0.1), optim.optimistic_adam_v2(0.1)):
        with strict():
            assert_close(along(opt, params, zeros)[0], zeros, rtol=0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.optimistic_gradient_descent(-1.0), "optimistic_gradient_descent: learning_rate must lie in"),
        (lambda: optim.scale_by_optimistic_gradient(beta=-1.0), "beta must lie in"),
        (lambda: optim.optimistic_adam(0.1, optimism=-1.0), "optimistic_adam: optimism must lie in"),
        (lambda: optim.optimistic_adam_v2(0.1, b1=1.0), "b1 must lie in"),
    ],
)
@traced
def test_bad_input_is_named(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()

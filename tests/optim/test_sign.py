"""Sign rules and Rprop: float64 transcriptions of the papers, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, strict
from tests.optim.running import along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("sign", "sign_sgd", "lambda g: (jnp.sign(g),)", "lambda g: (g / (jnp.abs(g) + 1e-3),)"),
    (
        "sign",
        "signum",
        "ema = cast_like(beta, g) * ema + (1 - cast_like(beta, g)) * g",
        "ema = cast_like(beta, g) * ema + g",
    ),
    ("sign", "signum", "return jnp.sign(ema), ema", "return jnp.sign(g), ema"),
    (
        "sign",
        "lion",
        "mixed = cast_like(b1, g) * mu + (1 - cast_like(b1, g)) * g",
        "mixed = cast_like(b2, g) * mu + (1 - cast_like(b2, g)) * g",
    ),
    ("sign", "lion", "direction, cast_like(b2, g) * mu + (1 - cast_like(b2, g)) * g", "direction, mixed"),
    ("sign", "lion: decay", "weight_decay=weight_decay, mask", "weight_decay=0.5 * weight_decay, mask"),
    ("sign", "scale_by_lion: smooth", "cast_like(smooth_beta, g) * mixed", "mixed"),
    ("sign", "scale_by_lion: refined", "jnp.abs(mixed) < 1", "jnp.abs(mixed) < 0.1"),
    ("rprop", "rprop", "jnp.where(s == 0, step, jnp.clip(", "jnp.where(s == 3, step, jnp.clip("),
    (
        "rprop",
        "rprop: factors",
        "jnp.where(s > 0, cast_like(eta_plus, g), cast_like(eta_minus, g))",
        "jnp.where(s > 0, 1.2, 0.5)",
    ),
    ("rprop", "rprop", "jnp.where(s < 0, jnp.zeros_like(g), step * jnp.sign(g))", "step * jnp.sign(g)"),
    (
        "rprop",
        "rprop: factors",
        "jnp.clip(changed, cast_like(min_step_size, g), cast_like(max_step_size, g))",
        "changed",
    ),
    ("rprop", "rprop", "s = jnp.sign(g) * jnp.sign(previous)", "s = -jnp.sign(g) * jnp.sign(previous)"),
]


def test_sign_sgd_is_algorithm_1_of_bernstein() -> None:
    theta = start(4, 3)
    for xi in noise(4, 3):
        theta = theta - 0.01 * np.sign(theta + xi)
    with float64():
        assert_close(descend(optim.sign_sgd(0.01), 4, 3)[0], theta, rtol=1e-12, atol=1e-14)


def test_signum_is_algorithm_2_of_bernstein() -> None:
    theta, m = start(4, 3), np.zeros((4, 3))
    for xi in noise(4, 3):
        m = 0.8 * m + 0.2 * (theta + xi)
        theta = theta - 0.01 * np.sign(m)
    with float64():
        found, state = descend(optim.signum(0.01, 0.8), 4, 3)
        assert_close((found, state.ema), (theta, m), rtol=1e-12, atol=1e-14)


def test_lion_is_algorithm_2_of_chen() -> None:
    theta, m = start(4, 3), np.zeros((4, 3))
    for xi in noise(4, 3):
        g = theta + xi
        c = 0.9 * m + (1 - 0.9) * g
        theta = theta - 0.01 * (np.sign(c) + 0.1 * theta)
        m = 0.99 * m + (1 - 0.99) * g
    with float64():
        found, state = descend(optim.lion(0.01, weight_decay=0.1), 4, 3)
        assert_close((found, state.mu), (theta, m), rtol=1e-12, atol=1e-14)


def irprop_minus(theta: np.ndarray, noise: np.ndarray, delta0: float) -> tuple[np.ndarray, np.ndarray]:
    """iRprop- of Igel and Huesken, entry by entry."""
    theta, delta, before = theta.copy(), np.full_like(theta, delta0), np.zeros_like(theta)
    for xi in noise:
        gradient = theta + xi
        for i in np.ndindex(theta.shape):
            g = gradient[i]
            if before[i] * g > 0:
                delta[i] = min(delta[i] * 1.2, 50.0)
            elif before[i] * g < 0:
                delta[i] = max(delta[i] * 0.5, 1e-6)
                g = 0.0
            theta[i] -= np.sign(g) * delta[i]
            before[i] = g
    return theta, delta


def test_rprop_is_irprop_minus_of_igel() -> None:
    expected = irprop_minus(start(4, 3), noise(4, 3), 0.1)
    with float64():
        found, state = descend(optim.rprop(0.1), 4, 3)
        assert_close((found, state.step_sizes), expected, rtol=1e-12, atol=1e-14)


def test_rprop_multiplies_signs_and_not_numbers_that_underflow() -> None:
    _, _, state = along(optim.rprop(1e-6), np.float32(0), np.float32([1e-37, 1e-37]))
    assert_close(state.step_sizes, np.float32(1.2e-6), rtol=1e-6)


def test_a_turn_of_the_gradient_rests_rprop_for_one_step() -> None:
    updates, _, _ = along(optim.rprop(0.1), np.float32(0), np.float32([1, -1, -1, -1]))
    np.testing.assert_allclose(updates, [-0.1, 0.0, 0.05, 0.06], rtol=1e-6)


def test_a_zero_gradient_moves_nothing() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    for opt in (optim.sign_sgd(0.1), optim.signum(0.1), optim.rprop(0.1)):
        with strict():
            assert_close(along(opt, params, zeros)[0], zeros, rtol=0)


@pytest.mark.parametrize("mode", ["hard", "refined"])
def test_lion_steps_by_phases_of_complex_gradients(mode: Any) -> None:
    g = np.complex64([3 + 4j])
    updates, _, _ = along(optim.scale_by_lion(0.0, mode=mode), g[0], g)
    np.testing.assert_allclose(updates, [0.6 + 0.8j], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.sign_sgd(-1.0), ValueError, "sign_sgd: learning_rate must lie in"),
        (lambda: optim.signum(0.1, beta=1.0), ValueError, "signum: beta must lie in"),
        (lambda: optim.lion(0.1, b2=-0.1), ValueError, "lion: b2 must lie in"),
        (lambda: optim.lion(0.1, weight_decay=float("nan")), ValueError, "lion: weight_decay must lie in"),
        (lambda: optim.scale_by_lion(mode="soft"), ValueError, "lion: mode must be one of"),
        (lambda: optim.scale_by_lion(mode="smooth").init(jnp.ones(1, complex)), TypeError, "is complex"),
        (
            lambda: optim.lion(0.1).update(jnp.ones(1), optim.lion(0.1).init(jnp.ones(1))),
            ValueError,
            "needs the parameters",
        ),
        (lambda: optim.rprop(lambda count: 0.1), TypeError, "must be a number, got a schedule"),
        (lambda: optim.rprop(0.1, eta_minus=1.5), ValueError, "rprop: eta_minus must lie in"),
        (lambda: optim.rprop(0.1, eta_plus=0.5), ValueError, "rprop: eta_plus must lie in"),
        (lambda: optim.rprop(0.1).init(jnp.ones(1, complex)), TypeError, "is complex"),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

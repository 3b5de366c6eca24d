"""RMSprop against transcriptions of Hinton's lecture, of Graves and of PyTorch's manual, and at awkward gradients."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64
from tests.optim.running import STEPS, along, descend, noise, optax_still, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("rmsprop", "rmsprop: eps outside", "safe_sqrt(power) + e", "safe_sqrt(power + e)"),
    ("rmsprop", "rmsprop: schedule", "safe_sqrt(power + e) if", "safe_sqrt(power) + e if"),
    ("rmsprop", "rmsprop: corrected", "power = nu / weight", "power = nu"),
    ("rmsprop", "rmsprop: corrected", "d ** count.astype(nu.dtype)", "d ** (count.astype(nu.dtype) + 1)"),
    ("rmsprop", "rmsprop: centered", "power - abs_sq(mu / weight)", "power"),
    ("rmsprop", "rmsprop: centered, corrected", "abs_sq(mu / weight)", "abs_sq(mu)"),
    ("rmsprop", "rmsprop", "nu = d * nu + (1 - d) * abs_sq(g)", "nu = (1 - d) * nu + d * abs_sq(g)"),
    ("rmsprop", "rmsprop: initial_scale", "fill=initial_scale, ", ""),
    ("rmsprop", "rmsprop: nesterov", "trace(momentum, nesterov)", "trace(momentum, False)"),
    ("rmsprop", "rmsprop: centered, momentum", "mu = d * mu + (1 - d) * g", "mu = d * mu + g"),
    ("rmsprop", "rmsprop: momentum", "plain = descent(direction, learning_rate", "plain = descent(direction, 0.1"),
]


def lecture(rate: float, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Lecture 6.5: MeanSquare = decay MeanSquare + (1 - decay) g^2; divide g by its root."""
    w, mean_square = start(4, 3), np.zeros((4, 3))
    for xi in noise(4, 3):
        g = w + xi
        mean_square = decay * mean_square + (1 - decay) * g**2
        w = w - rate * g / np.sqrt(mean_square)
    return w, mean_square


def graves(rate: float, aleph: float, beth: float, daleth: float) -> tuple[np.ndarray, ...]:
    """Equations 38 to 41 of Graves (2013), with his letters for the constants."""
    w = start(4, 3)
    n, g, delta = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))
    for xi in noise(4, 3):
        epsilon = w + xi
        n = aleph * n + (1 - aleph) * epsilon**2
        g = aleph * g + (1 - aleph) * epsilon
        delta = beth * delta - rate * epsilon / np.sqrt(n - g**2 + daleth)
        w = w + delta
    return w, n, g, delta


def test_the_lecture_has_no_eps() -> None:
    params, state = descend(optim.rmsprop(0.05, 0.9, eps=0.0), 4, 3)
    w, mean_square = lecture(0.05, 0.9)
    assert_close(params, w, rtol=1e-12, atol=1e-13)
    assert_close(state.nu, mean_square, rtol=1e-12)
    assert state.mu is None
    assert state.trace is None
    assert state.count == STEPS


def test_graves_is_centered_with_momentum() -> None:
    params, state = descend(optim.rmsprop(0.01, 0.95, 1e-4, centered=True, momentum=0.9), 4, 3)
    w, n, g, delta = graves(0.01, 0.95, 0.9, 1e-4)
    assert_close(params, w, rtol=1e-11, atol=1e-13)
    assert_close((state.nu, state.mu, state.trace), (n, g, delta), rtol=1e-11, atol=1e-13)


def test_adam_without_momentum_is_corrected_rms_with_eps_outside() -> None:
    rms, _ = descend(optim.rmsprop(0.05, 0.999, eps_in_sqrt=False, bias_correction=True), 4, 3)
    adam, _ = descend(optim.adam(0.05, b1=0.0), 4, 3)
    assert_close(rms, adam, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_a_large_steady_gradient_gives_nan_in_optax_and_not_here() -> None:
    """float32: nu and mu^2 agree to all digits, and their difference rounds to less than -eps."""
    g = np.linspace(50.0, 150.0, 64, dtype=np.float32) * np.ones((200, 1), np.float32)
    ours, theirs = (along(library.rmsprop(0.1, centered=True), g[0], g)[0] for library in (optim, optax))
    assert np.isfinite(ours).all()
    optax_still(np.isnan(theirs).any(), "a negative variance")


def test_zero_over_zero_is_zero() -> None:
    params, grads = {"w": np.ones(2, np.float32), "none": None}, {"w": np.float32([0, 2]), "none": None}
    settings = itertools.product((False, True), repeat=2)
    opts = [optim.rmsprop(0.1, eps=0.0, eps_in_sqrt=inside, centered=centered) for inside, centered in settings]
    for updates in jax.jit(lambda p: [opt.update(grads, opt.init(p), p)[0] for opt in opts])(params):
        assert updates["w"][0] == 0
        assert updates["w"][1] < 0
        assert updates["none"] is None


def test_a_schedule_scales_new_steps_and_not_the_trace() -> None:
    opt = optim.rmsprop(lambda count: jnp.where(count < 1, 1.0, 0.0), momentum=0.5)
    (first, second), _, state = along(opt, np.float32(0), np.ones(2, np.float32))
    assert_close(second, 0.5 * first, rtol=1e-6)
    assert_close(state.trace, second, rtol=1e-6)


@traced
def test_momentum_of_zero_keeps_no_trace() -> None:
    assert optim.rmsprop(0.1, momentum=0.0).init(jnp.ones(1)).trace is None
    assert optim.rmsprop(0.1, momentum=0.5).init(jnp.ones(1, jnp.bfloat16)).trace.dtype == jnp.float32


def test_complex_moments_are_real() -> None:
    with float64():
        z = np.array([3 + 4j])
        updates, _, state = along(optim.scale_by_rms(decay=0.75, eps=0.0), z[0], z)
    assert state.nu.dtype == np.float64
    np.testing.assert_allclose(updates, np.array([1.2 + 1.6j]), rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"decay": 1.0}, r"rmsprop: decay must lie in \[0, 1\), got 1"),
        ({"eps": -1.0}, r"rmsprop: eps must lie in \[0, inf\), got -1"),
        ({"initial_scale": -1.0}, r"rmsprop: initial_scale must lie in \[0, inf\), got -1"),
        ({"momentum": -0.5}, r"rmsprop: momentum must lie in \[0, inf\), got -0.5"),
        ({"nesterov": True}, "nesterov=True needs a momentum, got momentum=None"),
    ],
)
@traced
def test_bad_hyperparameters(setting: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        optim.rmsprop(0.1, **setting)

"""Mechanic against a transcription of its algorithm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close
from tests.optim.running import STEPS, along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("mechanic", "mechanize", "jnp.clip(h, -state.m, state.m)", "h"),
    ("mechanic", "mechanize", "jnp.maximum(decays * state.m, ", "jnp.maximum(state.m, "),
    ("mechanic", "mechanize", "decays**2 * state.v", "decays * state.v"),
    (
        "mechanic",
        "mechanize: settings",
        "cast_like(weight_decay, before) * before *",
        "cast_like(weight_decay, before) *",
    ),
    ("mechanic", "mechanize", "jax.nn.relu(r)", "jnp.abs(r)"),
    ("mechanic", "mechanize: adam", "(d - u.astype(p.dtype))", "(d + u.astype(p.dtype))"),
    ("mechanic", "mechanize: settings", "cast_like(s_init, m) / n * m", "cast_like(s_init, m) * m"),
]


def test_is_algorithm_1() -> None:
    """As published but for two things of the authors' own code: h clipped at the old m, and eps in m."""
    eta, decay, eps, s_init = 0.1, 0.05, 1e-4, 0.2
    betas = np.array([0.9, 0.99, 0.999])
    x = x0 = start(4, 3)
    r, m, v, s = np.zeros(3), np.zeros(3), np.zeros(3), np.full(3, s_init)
    for xi in noise(4, 3):
        g = x + xi
        delta = (x0 - x) / (s.sum() + eps)
        h = np.sum((g + decay * s.sum() * np.linalg.norm(g) / (np.linalg.norm(x) + eps) * x) * delta)
        delta = delta + eta * g
        r = betas * r + np.clip(h, -m, m) * s
        m = np.maximum(betas * m, abs(h) + eps)
        v = betas**2 * v + h**2
        s = (s_init / 3 * m + np.maximum(r, 0)) / (np.sqrt(v) + eps)
        x = x0 - s.sum() * delta
    params, state = descend(optim.mechanize(optim.sgd(eta), decay, eps, s_init, 3), 4, 3)
    assert_close(params, x, rtol=1e-12, atol=1e-13)
    assert_close((state.r, state.m, state.v, state.s, state.x0), (r, m, v, s, x0), rtol=1e-11, atol=1e-13)
    assert state.count == STEPS


def test_starts_from_the_parameters_of_the_first_update() -> None:
    opt = optim.mechanize(optim.sgd(1.0))
    params, ones = {"w": np.full(2, 3.0, np.float32), "none": None}, {"w": np.ones(2, np.float32), "none": None}
    updates, state = jax.jit(lambda p: opt.update(ones, opt.init(ones), p))(params)
    assert_close(state.x0, params, rtol=0)
    assert np.abs(updates["w"]).max() < 1e-5
    assert updates["none"] is None


def test_zero_gradients_and_parameters_stay_finite() -> None:
    for eps in (0.0, 1e-8):
        zeros = np.zeros((2, 2), np.float32)
        assert_close(along(optim.mechanize(optim.sgd(1.0), eps=eps), zeros[0], zeros)[0], zeros, rtol=0)


def test_the_base_rule_may_be_optax_s() -> None:
    ours, state = descend(optim.mechanize(optim.adam(0.1), s_init=0.5), 4, 3)
    theirs, their_state = descend(optim.mechanize(optax.adam(0.1), s_init=0.5), 4, 3)
    assert_close((ours, state.s), (theirs, their_state.s), rtol=1e-10, atol=1e-12)


@traced
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_betas must be at least 1, got 0"):
        optim.mechanize(optim.sgd(1.0), num_betas=0)
    with pytest.raises(TypeError, match="must be an optimizer with init and update"):
        optim.mechanize(0.1)
    opt = optim.mechanize(optim.sgd(1.0))
    with pytest.raises(ValueError, match="mechanize: update needs the parameters"):
        opt.update(jnp.ones(2), opt.init(jnp.ones(2)))

"""LARS, LAMB and Fromage against transcriptions of their papers, and at arrays of norm 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, slow
from tests.optim.running import STEPS, along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("layerwise", "scale_by_trust_ratio: settings", "u_norm + cast_like(eps, u)", "u_norm"),
    ("layerwise", "scale_by_trust_ratio: settings", "jnp.maximum(norm(u), least)", "norm(u)"),
    ("layerwise", "scale_by_trust_ratio", "safe_divide(p_norm, u_norm", "safe_divide(u_norm, p_norm"),
    ("layerwise", "lars", "0.0, trust_coefficient, eps) if trusts", "0.0, 1.0, eps) if trusts"),
    ("layerwise", "lars: masks", "if trusts else u)", "if not trusts else u)"),
    ("layerwise", "lars: decay", "return -cast_like(rate, u) * (", "return -cast_like(rate, u) ** 2 * ("),
    ("layerwise", "lars: nesterov", "trace(momentum, nesterov)", "trace(momentum)"),
    ("layerwise", "lars: decay schedule", 'weight_decay_mask, where="lars"', 'False, where="lars"'),
    ("layerwise", "lamb", "return ratio.update(steps, (), params)[0], new", "return steps, new"),
    ("layerwise", "lamb: mask", 'mask, where="lamb"', 'where="lamb"'),
    ("layerwise", "lamb: decay", "scale_by_adam(b1, b2, eps, eps_root)", "scale_by_adam(b2, b1, eps, eps_root)"),
    ("layerwise", "fromage", "shrink * p - eta / root", "-eta / root"),
    ("layerwise", "fromage: schedule", "eta / root * _trusted", "eta * _trusted"),
    ("layerwise", "fromage: schedule", "_trusted(g, p, min_norm,", "_trusted(g, p, 0.0,"),
]


def you_2017(gamma: float, eta: float, beta: float, m: float, optax_ratio: bool) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 1: lambda = eta |w| / (|g| + beta |w|); v <- m v + gamma lambda (g + beta w); w <- w - v."""
    w, v = start(4, 3), np.zeros((4, 3))
    for xi in noise(4, 3):
        g = w + xi
        size = np.linalg.norm(g + beta * w) if optax_ratio else np.linalg.norm(g) + beta * np.linalg.norm(w)
        v = m * v + gamma * eta * np.linalg.norm(w) / size * (g + beta * w)
        w = w - v
    return w, v


@pytest.mark.parametrize(("beta", "optax_ratio"), [(0.1, True), *slow((0.0, False))])
def test_lars_is_the_paper_but_for_the_norm_of_the_decayed_gradient(beta: float, optax_ratio: bool) -> None:
    params, state = descend(optim.lars(0.5, beta, trust_coefficient=0.1, momentum=0.8), 4, 3)
    w, v = you_2017(0.5, 0.1, beta, 0.8, optax_ratio)
    assert_close(params, w, rtol=1e-12, atol=1e-14)
    assert_close(state.trace, -v, rtol=1e-12, atol=1e-14)
    assert state.count == STEPS


def test_lamb_is_algorithm_2() -> None:
    eta, b1, b2, eps, decay = 0.02, 0.8, 0.95, 1e-3, 0.1
    x, m, v = start(4, 3), np.zeros((4, 3)), np.zeros((4, 3))
    for t, xi in enumerate(noise(4, 3), start=1):
        g = x + xi
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        step = r + decay * x
        x = x - eta * np.linalg.norm(x) / np.linalg.norm(step) * step
    params, state = descend(optim.lamb(eta, b1, b2, eps, weight_decay=decay), 4, 3)
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert_close((state.mu, state.nu), (m, v), rtol=1e-12, atol=1e-14)


def test_fromage_is_algorithm_1() -> None:
    eta, w = 0.1, start(4, 3)
    for xi in noise(4, 3):
        g = w + xi
        w = (w - eta * np.linalg.norm(w) / np.linalg.norm(g) * g) / np.sqrt(1 + eta**2)
    params, state = descend(optim.fromage(eta, 0.0), 4, 3)
    assert_close(params, w, rtol=1e-12, atol=1e-14)
    assert state.count == STEPS


def test_a_small_rate_shrinks_in_single_precision_too() -> None:
    """1 / sqrt(1 + lr^2) - 1 = -lr^2 / 2 nearly, which float32 cannot hold beside 1."""
    updates, _, _ = along(optim.fromage(np.float32(1e-4)), np.float32(0.5), np.zeros(1, np.float32))
    assert_close(updates, np.float32([-0.5 * 0.5e-8]), rtol=1e-5)


def test_norms_of_zero_give_finite_steps() -> None:
    @jax.jit
    @jax.vmap
    def updates(p: Any, g: Any) -> Any:
        params, grads = {"w": jnp.full(3, p), "none": None}, {"w": jnp.full(3, g), "none": None}
        opts = {name: getattr(optim, name)(0.1) for name in ("lars", "lamb", "fromage")}
        return {name: opt.update(grads, opt.init(params), params)[0] for name, opt in opts.items()}

    for name, found in updates(np.float32([0, 1, 0]), np.float32([1, 0, 0])).items():
        assert np.isfinite(found["w"]).all(), name
        assert found["none"] is None


def test_the_ratio_is_one_where_a_norm_is_zero() -> None:
    grads = {"a": np.ones((1, 2), np.float32), "b": np.zeros((1, 2), np.float32)}
    params = jax.tree.map(lambda g: 1 - g[0], grads)
    assert_close(along(optim.scale_by_trust_ratio(trust_coefficient=0.001), params, grads)[0], grads, rtol=0)


@pytest.mark.parametrize("make", [optim.scale_by_trust_ratio, lambda: optim.lars(0.1), lambda: optim.lamb(0.1)])
@traced
def test_parameters_are_needed(make: Any) -> None:
    with pytest.raises(ValueError, match="needs the parameters, got params=None"):
        make().update(jnp.ones(2), make().init(jnp.ones(2)))


@traced
def test_bad_hyperparameters() -> None:
    for bad in ({"trust_coefficient": -1.0}, {"eps": -1.0}, {"momentum": -0.1}):
        with pytest.raises(ValueError, match="must lie in"):
            optim.lars(0.1, **bad)
    with pytest.raises(ValueError, match=r"fromage: min_norm must lie in \[0, inf\), got -1"):
        optim.fromage(0.1, -1.0)

"""Noisy gradients: the paper's variance, optax's draws, and keys of every kind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close
from tests.optim.running import along, descend, noise, start

MUTANTS: list[tuple[str, str, str, str]] = [
    ("noise", "noisy_sgd: schedule", "** cast_like(gamma, g)", "* cast_like(gamma, g)"),
    ("noise", "noisy_sgd: schedule", "cast_like(count, g)", "(cast_like(count, g) + 1)"),
    ("noise", "add_noise", "safe_sqrt(cast_like(eta, g)", "(cast_like(eta, g)"),
    ("noise", "noisy_sgd", "return g + deviation", "return deviation"),
    ("noise", "noisy_sgd", "jax.random.key_data(next_key)", "state.rng_key"),
    ("noise", "noisy_sgd", "next_key, sample_key =", "sample_key, next_key ="),
]


@pytest.mark.slow
def test_is_the_paper_given_the_draws() -> None:
    """Section 3: g_t <- g_t + N(0, sigma_t^2), sigma_t^2 = eta / (1 + t)^gamma, t = 0, 1, ..."""
    params, state = descend(optim.noisy_sgd(0.2, eta=0.3, gamma=0.55, key=7), 4, 3)
    theta, key = start(4, 3), jax.random.key(7)
    with jax.enable_x64(True):
        for t, xi in enumerate(noise(4, 3)):
            key, now = jax.random.split(key)
            draw = np.asarray(jax.random.normal(jax.random.split(now, 1)[0], (4, 3), jnp.float64))
            theta = theta - 0.2 * (theta + xi + np.sqrt(0.3 / (1 + t) ** 0.55) * draw)
    assert_close(params, theta, rtol=1e-12, atol=1e-14)
    assert state.count == 100


def test_the_noise_has_the_stated_deviation_and_is_new_for_each_step_and_array() -> None:
    zeros = {"a": np.zeros((16, 40_000), np.float32), "b": np.zeros((16, 40_000), np.float32)}
    params = jax.tree.map(lambda z: z[0], zeros)
    draws, _, _ = along(optim.add_noise(eta=0.04, gamma=0.5, key=0), params, zeros)
    np.testing.assert_allclose(np.std(draws["a"], axis=1), 0.2 / np.arange(1, 17) ** 0.25, rtol=0.02)
    assert np.abs(np.corrcoef(np.concatenate([draws["a"], draws["b"]])) - np.eye(32)).max() < 0.03


def test_keys_of_every_kind_draw_as_optax_does() -> None:
    params = {"w": np.ones((2, 3), np.float32), "none": None, "b": np.ones(2, np.float32)}
    opts = [library.add_noise(0.1, 0.5, 3) for library in (optim, optax)]
    ours, theirs = jax.jit(lambda p: [opt.update(p, opt.init(p))[0] for opt in opts])(params)
    assert_close(ours, theirs, rtol=1e-6)
    keys = (3, np.int32(3), jnp.asarray(3), jax.random.key(3), np.array([0, 3], np.uint32))
    for opt in (*(optim.add_noise(0.1, 0.5, key) for key in keys), optim.noisy_sgd(0.1, seed=3)):
        assert opt.init(params).rng_key.tolist() == [0, 3]


@pytest.mark.slow
def test_many_seeds_in_one_program() -> None:
    def after(seed: Any) -> Any:
        opt, x = optim.noisy_sgd(0.1, key=seed), jnp.ones(3)
        return opt.update(x, opt.init(x))[0]

    together = jax.vmap(after)(jnp.arange(3))
    assert_close(together, jnp.stack([after(seed) for seed in range(3)]), rtol=1e-6)
    assert len(np.unique(together[:, 0])) == 3


def test_half_precision_gets_its_own_dtype_back() -> None:
    opt, x = optim.noisy_sgd(0.1, key=0), np.ones(3, jnp.bfloat16)
    assert jax.eval_shape(lambda x: opt.update(x, opt.init(x), x)[0], x).dtype == jnp.bfloat16


def test_no_key_warns_and_bad_ones_raise() -> None:
    with pytest.warns(UserWarning, match="noise: no key was given, so every run draws the noise of key=0"):
        opt = optim.noisy_sgd(0.1)
    assert (jax.random.key_data(opt.init(()).rng_key) == jax.random.key_data(jax.random.key(0))).all()
    with pytest.raises(ValueError, match="add_noise: needs one of key and seed, got both"):
        optim.noisy_sgd(0.1, key=1, seed=2)
    with pytest.raises(TypeError, match=r"add_noise: key must be a typed key, got an array of uint32 \(3,\)"):
        optim.add_noise(0.1, 0.5, np.zeros(3, np.uint32))
    with pytest.raises(TypeError, match=r"add_noise: key must be a typed key, got 0\.5"):
        optim.add_noise(0.1, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"add_noise: eta must lie in \[0, inf\), got -1"):
        optim.noisy_sgd(0.1, eta=-1.0, key=0)

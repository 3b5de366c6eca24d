"""Private descent: the bound on every example, the noise, optax's draws, and gradients of a wrong shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random

AGGREGATE = "differentially_private_aggregate"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("private", "dpsgd: no noise", "safe_divide(jnp.where(clipped, largest, 0), norms)", "jnp.ones_like(norms)"),
    ("private", "dpsgd: no noise", "clipped = norms > largest", "clipped = norms > 0"),
    ("private", "dpsgd: no noise", "for g in leaves]\n    norms", "for g in leaves[:1]]\n    norms"),
    ("private", "dpsgd", ") / examples)", "))"),
    (
        "private",
        "dpsgd",
        "cast_like(l2_norm_clip, g) * cast_like(noise_multiplier, g)",
        "cast_like(noise_multiplier, g) * 2",
    ),
    ("private", AGGREGATE, "g + deviation * jax.random", "g + examples * deviation * jax.random"),
    ("private", "dpsgd", "rng_key=jax.random.key_data(next_key)", "rng_key=state.rng_key"),
    ("private", "dpsgd: nesterov", "trace(momentum, nesterov)", "trace(momentum, False)"),
]
SHAPES = {"w": (3, 2), "b": (2,), "scale": ()}


def per_example(seed: int, examples: int = 6) -> dict[str, Any]:
    return {name: random(seed + i, examples, *shape) for i, (name, shape) in enumerate(SHAPES.items())}


def clipped_sum(grads: dict[str, Any], bound: float) -> dict[str, Any]:
    """Algorithm 1: g_i / max(1, |g_i| / C), summed, one example at a time."""
    total = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for i in range(len(grads["b"])):
        norm = np.sqrt(sum(np.sum(g[i] ** 2) for g in grads.values()))
        for name, g in grads.items():
            total[name] = total[name] + g[i] / max(1, norm / bound)
    return total


@pytest.mark.parametrize("momentum", [None, 0.7])
def test_is_algorithm_1_given_the_draws(momentum: float | None) -> None:
    opt = optim.dpsgd(0.3, l2_norm_clip=2.0, noise_multiplier=0.4, seed=5, momentum=momentum)
    with float64():
        params = {name: jnp.asarray(random(9, *shape)) for name, shape in SHAPES.items()}
        theta = {name: np.asarray(p) for name, p in params.items()}
        trace = dict.fromkeys(params, 0.0)
        state, key, update = opt.init(params), jax.random.key(5), jax.jit(opt.update)
        for t in range(100):
            grads = {name: theta[name] + g for name, g in per_example(10 * t).items()}
            updates, state = update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
            key, *keys = jax.random.split(key, 4)
            sums = clipped_sum(grads, 2.0)
            for name, k in zip(sorted(SHAPES), keys, strict=True):
                draw = np.asarray(jax.random.normal(k, SHAPES[name], jnp.float64))
                noisy = (sums[name] + 0.4 * 2.0 * draw) / 6
                trace[name] = noisy + (momentum or 0.0) * trace[name]
                theta[name] = theta[name] - 0.3 * trace[name]
        assert_close(params, theta, rtol=1e-12, atol=1e-13)
        assert state.count == 100
        if momentum is not None:
            assert_close(state.trace, trace, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.0, 0.5, 2.5, 1e9, float("inf")])
def test_the_clipped_sum_is_optax_s_and_by_hand(bound: float) -> None:
    with float64():
        grads = jax.tree.map(jnp.asarray, per_example(0))
        sums, clipped = optim.per_example_global_norm_clip(grads, bound)
        theirs, count = optax.per_example_global_norm_clip(grads, bound)
        assert_close(sums, theirs, rtol=1e-12, atol=1e-14)
        assert clipped == count
        if 0 < bound < 1e3:
            assert_close(sums, clipped_sum(per_example(0), bound), rtol=1e-12, atol=1e-14)
        for uniform in (True, False):
            sums, each = optim.per_example_layer_norm_clip(grads, bound, uniform)
            theirs, counts = optax.per_example_layer_norm_clip(grads, bound, uniform)
            assert_close(sums, theirs, rtol=1e-12, atol=1e-14)
            assert_close(each, counts, rtol=0)


def test_one_example_moves_the_sum_by_no_more_than_the_bound() -> None:
    grads = jax.tree.map(lambda g: jnp.asarray(100 * g, jnp.bfloat16), per_example(3, examples=1))
    for clip in (optim.per_example_global_norm_clip, optim.per_example_layer_norm_clip):
        sums, _ = clip(grads, 1.5)
        assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.bfloat16)}
        norm = np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(sums)))
        np.testing.assert_allclose(norm, 1.5, rtol=2**-8)


def test_norms_too_large_for_float32_are_clipped_to_nothing() -> None:
    sums, clipped = optim.per_example_global_norm_clip([jnp.array([[1e30, 1e30], [0.3, 0.4]])], 1.0)
    assert_close(sums, [jnp.array([0.3, 0.4])], rtol=1e-6)
    assert clipped == 1


def test_the_noise_has_the_stated_deviation() -> None:
    opt = optim.differentially_private_aggregate(l2_norm_clip=2.0, noise_multiplier=1.5, key=0)
    params = jnp.zeros(40_000)
    updates, state = opt.update(jnp.zeros((4, 40_000)), opt.init(params), params)
    np.testing.assert_allclose(np.std(updates), 1.5 * 2.0 / 4, rtol=0.02)
    again, _ = opt.update(jnp.zeros((4, 40_000)), state, params)
    assert abs(np.corrcoef(updates, again)[0, 1]) < 0.02


def test_none_passes_and_the_state_names_no_trace_without_momentum() -> None:
    params = {"w": jnp.ones(2), "none": None}
    opt = optim.dpsgd(0.1, 1.0, 0.5, seed=0, momentum=0.0)
    updates, state = opt.update({"w": jnp.ones((3, 2)), "none": None}, opt.init(params), params)
    assert updates["none"] is None
    assert updates["w"].shape == (2,)
    assert state.trace is None


@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ({"w": jnp.ones(2), "b": jnp.ones(())}, r"must be arrays \(N, ...\) .* got shapes \(\), \(2,\)"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(4)}, r"must be arrays \(N, ...\) .* got shapes \(4,\), \(3, 2\)"),
        ({"w": jnp.ones((0, 2)), "b": jnp.ones(0)}, "one N >= 1"),
        ({"w": jnp.ones((3, 5)), "b": jnp.ones(3)}, r"must be \(N, 2\) for its parameter \(2,\), got \(3, 5\)"),
        ({}, "one N >= 1"),
    ],
)
def test_gradients_that_are_not_per_example_are_named(grads: Any, text: str) -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    opt = optim.dpsgd(0.1, 1.0, 0.5, seed=0)
    with pytest.raises(ValueError, match=text):
        opt.update(grads, opt.init(params), params)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"l2_norm_clip must lie in \[0, inf\), got inf"):
        optim.dpsgd(0.1, float("inf"), 1.0, seed=0)
    with pytest.raises(ValueError, match=r"noise_multiplier must lie in \[0, inf\), got -1"):
        optim.differentially_private_aggregate(1.0, -1.0, key=0)
    with pytest.raises(ValueError, match=r"per_example_global_norm_clip: l2_norm_clip must lie in \[0, inf\)"):
        optim.per_example_global_norm_clip([jnp.ones((1, 1))], -1.0)
    with pytest.raises(ValueError, match="dpsgd: nesterov=True needs a momentum"):
        optim.dpsgd(0.1, 1.0, 1.0, seed=0, nesterov=True)
    with pytest.warns(UserWarning, match="no key was given"):
        optim.differentially_private_aggregate(1.0, 1.0)

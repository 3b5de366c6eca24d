"""Private descent: the bound on every example, the noise, optax's draws, and gradients of a wrong shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow
from tests.optim.running import along, traced

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


@pytest.mark.parametrize("momentum", [0.7, *slow(None)])
def test_is_algorithm_1_given_the_draws(momentum: float | None) -> None:
    opt = optim.dpsgd(0.3, l2_norm_clip=2.0, noise_multiplier=0.4, seed=5, momentum=momentum)
    params = {name: random(9, *shape) for name, shape in SHAPES.items()}
    added = [per_example(10 * t) for t in range(100)]

    def body(carry: Any, g: Any) -> Any:
        params, state, key = carry
        updates, state = opt.update({name: params[name] + g[name] for name in SHAPES}, state, params)
        key, *keys = jax.random.split(key, 4)
        draws = {name: jax.random.normal(k, SHAPES[name], float) for name, k in zip(sorted(SHAPES), keys, strict=True)}
        return (jax.tree.map(jnp.add, params, updates), state, key), draws

    run = jax.jit(lambda p, g: jax.lax.scan(body, (p, opt.init(p), jax.random.key(5)), g))
    with float64():
        stacked = {name: np.stack([g[name] for g in added]) for name in SHAPES}
        (found, state, _), draws = run(params, stacked)
        found, trace_found, draws = jax.device_get((found, state.trace, draws))
    theta, trace = params, dict.fromkeys(SHAPES, np.zeros(()))
    for t, g in enumerate(added):
        sums = clipped_sum({name: theta[name] + g[name] for name in SHAPES}, 2.0)
        noisy = {name: (sums[name] + 0.4 * 2.0 * draws[name][t]) / 6 for name in SHAPES}
        trace = {name: noisy[name] + (momentum or 0.0) * trace[name] for name in SHAPES}
        theta = {name: theta[name] - 0.3 * trace[name] for name in SHAPES}
    assert_close(found, theta, rtol=1e-12, atol=1e-13)
    assert state.count == 100
    if momentum is not None:
        assert_close(trace_found, trace, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.0, 0.5, 2.5, 1e9, float("inf")])
def test_the_clipped_sum_is_optax_s_and_by_hand(bound: float) -> None:
    with float64():

        def clips(library: Any, grads: Any) -> Any:
            layers = (library.per_example_layer_norm_clip(grads, bound, uniform) for uniform in (True, False))
            return [library.per_example_global_norm_clip(grads, bound), *layers]

        ours, theirs = jax.jit(lambda grads: [clips(library, grads) for library in (optim, optax)])(per_example(0))
    for (sums, clipped), (expected, counts) in zip(ours, theirs, strict=True):
        assert_close(sums, expected, rtol=1e-12, atol=1e-14)
        assert_close(clipped, counts, rtol=0)
    if 0 < bound < 1e3:
        assert_close(ours[0][0], clipped_sum(per_example(0), bound), rtol=1e-12, atol=1e-14)


def test_one_example_moves_the_sum_by_no_more_than_the_bound() -> None:
    grads = jax.tree.map(lambda g: np.asarray(100 * g, jnp.bfloat16), per_example(3, examples=1))
    clips = (optim.per_example_global_norm_clip, optim.per_example_layer_norm_clip)
    for sums in jax.jit(lambda grads: [clip(grads, 1.5)[0] for clip in clips])(grads):
        assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.bfloat16)}
        norm = np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(sums)))
        np.testing.assert_allclose(norm, 1.5, rtol=2**-8)


def test_norms_too_large_for_float32_are_clipped_to_nothing() -> None:
    grads = [np.float32([[1e30, 1e30], [0.3, 0.4]])]
    sums, clipped = jax.jit(lambda grads: optim.per_example_global_norm_clip(grads, 1.0))(grads)
    assert_close(sums, [np.float32([0.3, 0.4])], rtol=1e-6)
    assert clipped == 1


def test_the_noise_has_the_stated_deviation() -> None:
    opt = optim.differentially_private_aggregate(l2_norm_clip=2.0, noise_multiplier=1.5, key=0)
    first, again = along(opt, np.zeros(40_000, np.float32), np.zeros((2, 4, 40_000), np.float32))[0]
    np.testing.assert_allclose(np.std(first), 1.5 * 2.0 / 4, rtol=0.02)
    assert abs(np.corrcoef(first, again)[0, 1]) < 0.02


def test_none_passes_and_the_state_names_no_trace_without_momentum() -> None:
    params, grads = {"w": np.ones(2, np.float32), "none": None}, {"w": np.ones((3, 2), np.float32), "none": None}
    opt = optim.dpsgd(0.1, 1.0, 0.5, seed=0, momentum=0.0)
    updates, state = jax.eval_shape(lambda p, g: opt.update(g, opt.init(p), p), params, grads)
    assert updates["none"] is None
    assert updates["w"].shape == (2,)
    assert state.trace is None


@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ({"w": jnp.ones(2), "b": jnp.ones(())}, r"must be arrays \(N, ...\) .* got shapes \(\), \(2,\)"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(4)}, r"must be arrays \(N, ...\) .* got shapes \(4,\), \(3, 2\)"),
        ({"w": jnp.ones((0, 2)), "b": jnp.ones(0)}, "same N >= 1"),
        ({"w": jnp.ones((3, 5)), "b": jnp.ones(3)}, r"must be \(N, 2\) for its parameter \(2,\), got \(3, 5\)"),
        ({}, "same N >= 1"),
    ],
)
@traced
def test_gradients_that_are_not_per_example_are_named(grads: Any, text: str) -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    opt = optim.dpsgd(0.1, 1.0, 0.5, seed=0)
    with pytest.raises(ValueError, match=text):
        opt.update(grads, opt.init(params), params)


@traced
def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"l2_norm_clip must lie in \[0, inf\), got inf"):
        optim.dpsgd(0.1, float("inf"), 1.0, seed=0)
    with pytest.raises(ValueError, match=r"noise_multiplier must lie in \[0, inf\), got -1"):
        optim.differentially_private_aggregate(1.0, -1.0, key=0)
    with pytest.raises(ValueError, match=r"per_example_global_norm_clip: l2_norm_clip must lie in \[0, inf\]"):
        optim.per_example_global_norm_clip([jnp.ones((1, 1))], -1.0)
    with pytest.raises(ValueError, match="dpsgd: nesterov=True needs a momentum"):
        optim.dpsgd(0.1, 1.0, 1.0, seed=0, nesterov=True)
    with pytest.warns(UserWarning, match="no key was given"):
        optim.differentially_private_aggregate(1.0, 1.0)

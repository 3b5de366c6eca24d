"""Clipping, cleaning and centring of gradients: against NumPy, and where optax is wrong or unsafe."""

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

MUTANTS = [
    ("clip", "clip", "jnp.clip(g, -bound, bound)", "jnp.clip(g, -2 * bound, bound)"),
    ("clip", "clip_by_global_norm", "sum_of_squares(updates)", "sum_of_squares(jax.tree.leaves(updates)[:1])"),
    ("clip", "clip_by_global_norm: at times", "within = norm <= bound", "within = norm > bound"),
    ("clip", "clip_by_block_rms", "jnp.sum(abs_sq(g)) / max(g.size, 1)", "jnp.sum(abs_sq(g))"),
    ("clip", "adaptive_grad_clip", "return (0,)", "return (1,)"),
    ("clip", "adaptive_grad_clip", "range(len(shape) - 1)", "range(len(shape))"),
    ("clip", "adaptive_grad_clip: eps", "jnp.maximum(size, cast_like(eps, g))", "(size + cast_like(eps, g))"),
    ("clip", "keep_params_nonnegative", "jnp.where(p + u < 0, -p, u)", "jnp.where(p + u < 0, u - p, u)"),
    ("clip", "centralize", "if i != keep_axis", "if i == keep_axis"),
]


def transformed(opt: Any, grads: Any, params: Any = None) -> Any:
    """The first update, as NumPy arrays."""
    update = jax.jit(lambda g, p: opt.update(g, opt.init(g if p is None else p), p)[0])
    return jax.device_get(update(grads, params))


def test_global_norm_clipping_is_pascanus_algorithm() -> None:
    with float64():
        for size in (0.1, 10.0):
            grads = {"w": size * random(0, 4, 3), "b": size * random(1, 3), "nothing": None}
            norm = np.sqrt((grads["w"] ** 2).sum() + (grads["b"] ** 2).sum())
            factor = 2.0 / norm if norm > 2.0 else 1.0
            expected = {"w": factor * grads["w"], "b": factor * grads["b"], "nothing": None}
            assert_close(transformed(optim.clip_by_global_norm(2.0), grads), expected, rtol=1e-14)


def test_global_norm_of_complex_of_half_and_of_nothing() -> None:
    many, zeros = np.ones(70000, jnp.bfloat16), np.zeros(2, np.float32)
    norms = jax.jit(lambda *trees: [optim.global_norm(t) for t in trees] + [jax.grad(optim.global_norm)(trees[-1])])
    mixed, half, nothing, _, slope = norms(
        {"w": np.complex64([3 + 4j]), "b": np.float32([12])}, many, {"a": None}, zeros
    )
    assert (mixed, nothing, slope.tolist()) == (13.0, 0.0, [0.0, 0.0])
    assert half == pytest.approx(70000**0.5, rel=1e-6)


def test_a_bound_of_zero_gives_zero_where_optax_divides_by_it() -> None:
    zero = np.zeros(2, np.float32)
    assert transformed(optim.clip_by_global_norm(0.0), zero).tolist() == [0.0, 0.0]
    assert transformed(optim.clip_by_global_norm(0.0), zero + 1).tolist() == [0.0, 0.0]
    assert np.isnan(transformed(optax.clip_by_global_norm(0.0), zero)).all()


@pytest.mark.slow
def test_adaptive_clipping_clips_each_output_unit() -> None:
    with float64():
        for shape in [(5,), (5, 3), (2, 2, 5, 3)]:
            g, w = random(0, *shape), random(1, *shape)
            columns = g.reshape(-1, 3) if len(shape) > 1 else g[:, None]
            weights = w.reshape(columns.shape)
            expected = np.empty_like(columns)
            for i in range(columns.shape[1]):
                bound = 0.1 * max(np.linalg.norm(weights[:, i]), 1e-3)
                norm = np.linalg.norm(columns[:, i])
                expected[:, i] = columns[:, i] * (bound / norm if norm > bound else 1.0)
            assert_close(transformed(optim.adaptive_grad_clip(0.1), g, w), expected.reshape(shape), rtol=1e-13)
    with pytest.raises(ValueError, match=r"of one unit are unknown for a parameter of shape .*Pass axis="):
        transformed(optim.adaptive_grad_clip(0.1), np.ones((2,) * 6), np.ones((2,) * 6))


def test_centralize_centres_each_output_unit_and_optax_each_input() -> None:
    g = random(0, 3, 3, 4, 2)
    with float64():
        centred = transformed(optim.centralize(), {"w": g, "b": g[0, 0, 0]})
        np.testing.assert_allclose(centred["w"].reshape(-1, 2).mean(0), 0, atol=1e-15)
        np.testing.assert_allclose(centred["w"], g - g.reshape(-1, 2).mean(0), rtol=1e-13)
        assert centred["b"].tolist() == g[0, 0, 0].tolist()
        theirs = transformed(optax.centralize(), g[0, 0])
    assert np.abs(theirs.mean(0)).max() > 0.01


def test_nans_are_zeroed_and_told() -> None:
    grads = {"w": np.float32([[np.nan, np.inf]]), "b": np.ones((1, 1), np.float32), "none": None}
    updates, _, state = along(optim.zero_nans(), jax.tree.map(lambda g: g[0], grads), grads)
    assert updates["w"].tolist() == [[0.0, float("inf")]]
    assert {k: v if v is None else bool(v) for k, v in state.found_nan.items()} == {"w": True, "b": False, "none": None}


def test_parameters_stay_nonnegative() -> None:
    params = np.float32([0.5, 0.5, -1.0])
    updates = transformed(optim.keep_params_nonnegative(), np.float32([-0.7, -0.2, 0.1]), params)
    np.testing.assert_allclose(params + updates, [0.0, 0.3, 0.0], atol=1e-7)


@traced
def test_complaints() -> None:
    with pytest.raises(TypeError, match="split_real_and_imaginary"):
        optim.clip(1.0).init(np.complex64([1j]))
    for opt in (optim.adaptive_grad_clip(0.1), optim.keep_params_nonnegative()):
        with pytest.raises(ValueError, match="update needs the parameters"):
            opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
    for make in (optim.clip, optim.clip_by_global_norm, optim.clip_by_block_rms, optim.adaptive_grad_clip):
        with pytest.raises(ValueError, match=r"must lie in \[0, inf\), got -1"):
            make(-1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.clip_by_global_norm(1.0),
        *slow(optim.normalize, optim.normalize_by_update_norm, optim.polyak_sgd, optim.momo, optim.momo_adam),
    ],
)
def test_programs_grow_in_proportion_to_the_leaves(make: Any) -> None:
    """A number formed from all leaves must not be formed again inside the loop over each (XLA's CPU compiler)."""

    def size(leaves: int) -> int:
        params, opt = [np.ones(3, np.float32)] * leaves, make()

        def step(params, state):
            return opt.update(params, state, params, value=jnp.ones(()))

        return len(jax.jit(step).lower(params, opt.init(params)).compile().as_text())

    assert size(80) < 6 * size(20)

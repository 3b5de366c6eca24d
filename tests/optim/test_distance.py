"""DoG, L-DoG and DoWG against transcriptions of their papers, and where gradients are 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, slow
from tests.optim.running import STEPS, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("distance", "dog: distance", "safe_divide(r, safe_sqrt(total + cast_like(eps, r)))\n        if kind",
     "safe_divide(r, safe_sqrt(total) + cast_like(eps, r))\n        if kind"),
    ("distance", "dog: heuristic", "(1 + safe_sqrt(sum_of_squares(params)))", "1"),
    ("distance", "dog: heuristic", "r = jnp.maximum(state.max_dist, safe_sqrt(", "r = jnp.maximum(0.0, safe_sqrt("),
    ("distance", "dog: first rate", "cast_like(first, r), step)", "step, step)"),
    ("distance", "dog: mask", '_penalized("dog", updates, params, weight_decay, mask)',
     '_penalized("dog", updates, params, weight_decay, None)'),
    ("distance", "dowg: settings", "safe_sqrt(total) + cast_like(eps, r2)", "safe_sqrt(total + cast_like(eps, r2))"),
    ("distance", "dowg", "eps if init_estim_sq_dist is None", "2 * eps if init_estim_sq_dist is None"),
    ("distance", "dowg: settings", "+ r2 * sum_of_squares(grads)", "+ sum_of_squares(grads)"),
    ("distance", "scale_by_distance_over_gradients: settings", "(1 + norm(p))", "1"),
    ("distance", "scale_by_distance_over_gradients: settings", "cast_like(global_scale, r) * step", "step"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["heuristic", *slow("distance", "learning_rate")])
def test_dog_is_the_paper(kind: Any) -> None:
    """eta_t = max_(i<=t) |x_i - x_0| / sqrt(sum_(i<=t) |g_i|^2 + eps), and r_eps (1 + |x_0|) for the first distance."""
    x0, total, eps = start(4, 3), 0.0, 1e-8
    x, r = x0, {"heuristic": 0.01 * (1 + np.linalg.norm(x0)), "distance": 0.01, "learning_rate": 0.0}[kind]
    for t, xi in enumerate(noise(4, 3)):
        g = x + xi
        r, total = max(r, np.linalg.norm(x - x0)), total + np.sum(g**2)
        x = x - (0.01 if kind == "learning_rate" and t == 0 else r / np.sqrt(total + eps)) * g
    params, state = descend(optim.dog(init_step=(kind, 0.01)), 4, 3)
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert_close((state.max_dist, state.sum_sq_norm_grads, state.init_params), (r, total, x0), rtol=1e-12)
    assert state.count == STEPS
    layered, by_layer = descend(optim.scale_by_distance_over_gradients(0.01, 1e-8, jnp.float64, -1.0), 4, 3)
    if kind == "heuristic":
        assert_close(layered, x, rtol=1e-12, atol=1e-14)
        assert_close((by_layer.max_dist, by_layer.grad_sum_of_squares), (r, total), rtol=1e-12)


def test_dowg_is_algorithm_1() -> None:
    """Algorithm 1 has no eps: r2 starts at a given square, and V at 0."""
    x = x0 = start(4, 3)
    r2, total = 1e-2, 0.0
    for xi in noise(4, 3):
        g = x + xi
        r2 = max(r2, np.sum((x - x0) ** 2))
        total = total + r2 * np.sum(g**2)
        x = x - r2 / np.sqrt(total) * g
    params, state = descend(optim.dowg(init_estim_sq_dist=1e-2, eps=0.0), 4, 3)
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert_close((state.estim_sq_dist, state.weighted_sq_norm_grads), (r2, total), rtol=1e-12)


def test_zero_over_zero_is_zero() -> None:
    opts = [getattr(optim, name)(eps=0.0) for name in ("dog", "dowg", "scale_by_distance_over_gradients")]
    grads = {"w": np.zeros(2, np.float32), "scalar": np.float32(0), "none": None}

    @jax.jit
    def updates(params: Any) -> Any:
        for opt in opts:
            with pytest.raises(ValueError, match="needs the parameters, got params=None"):
                opt.update(grads, opt.init(params))
        return [opt.update(grads, opt.init(params), params)[0] for opt in opts]

    assert_close(updates(grads | {"w": np.ones(2, np.float32)}), [grads] * 3, rtol=0)


@traced
def test_bad_hyperparameters() -> None:
    with pytest.raises(
        ValueError, match="init_step must begin with 'distance', 'learning_rate' or 'heuristic', got 'x'"
    ):
        optim.dog(init_step=("x", 0.1))
    for make, bad in (
        (optim.dog, {"eps": -1.0}),
        (optim.dog, {"init_step": ("distance", -1.0)}),
        (optim.dowg, {"eps": -1.0}),
    ):
        with pytest.raises(ValueError, match=r"must lie in \[0, inf\), got -1"):
            make(**bad)
    with pytest.raises(TypeError, match="split_real_and_imaginary"):
        optim.scale_by_distance_over_gradients().init(jnp.ones(2, jnp.complex64))

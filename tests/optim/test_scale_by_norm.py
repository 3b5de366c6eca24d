"""Updates times or over norms: their values, and where norms are 0."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random

MUTANTS: list[tuple[str, str, str, str]] = [
    ("scale_by_norm", "scale_by_param_block_rms", " / max(p.size, 1)", ""),
    ("scale_by_norm", "scale_by_param_block_norm", "norm, min_scale)", "lambda p: norm(p) ** 2, min_scale)"),
    ("scale_by_norm", "scale_by_param_block_norm: bound", "jnp.maximum(size", "jnp.minimum(size"),
    ("scale_by_norm", "scale_by_param_block_rms: bound", "cast_like(min_scale, u)", "cast_like(1e-3, u)"),
    ("scale_by_norm", "normalize_by_update_norm: settings", "size + cast_like(eps, size)", "size"),
    ("scale_by_norm", "normalize_by_update_norm", "safe_sqrt(sum_of_squares(updates))", "sum_of_squares(updates)"),
]


def test_the_factors_are_those_of_numpy() -> None:
    p, u, b = random(0, 4, 3), random(1, 4, 3), random(2, 5)
    with float64():
        params, grads = {"w": jnp.asarray(p)}, {"w": jnp.asarray(u)}
        norm, _ = optim.scale_by_param_block_norm().update(grads, (), params)
        rms, _ = optim.scale_by_param_block_rms().update(grads, (), params)
        unit, _ = optim.normalize_by_update_norm(2.0, 0.5).update({**grads, "b": jnp.asarray(b)}, ())
        assert_close(norm["w"], u * np.linalg.norm(p), rtol=1e-14)
        assert_close(rms["w"], u * np.sqrt(np.mean(p**2)), rtol=1e-14)
        joint = np.sqrt(np.sum(u**2) + np.sum(b**2))
        assert_close(unit, {"w": 2 * u / (joint + 0.5), "b": 2 * b / (joint + 0.5)}, rtol=1e-14)


@pytest.mark.parametrize("make", [optim.scale_by_param_block_norm, optim.scale_by_param_block_rms])
def test_a_parameter_of_zeros_is_scaled_by_the_bound(make: object) -> None:
    opt, params = make(0.25), {"w": jnp.zeros(2), "empty": jnp.zeros(0), "none": None}
    grads = {"w": jnp.ones(2), "empty": jnp.zeros(0), "none": None}
    updates, _ = opt.update(grads, opt.init(params), params)
    assert_close(updates, {"w": jnp.full(2, 0.25), "empty": jnp.zeros(0), "none": None}, rtol=0)
    with pytest.raises(ValueError, match="needs the parameters, got params=None"):
        opt.update(grads, ())
    with pytest.raises(ValueError, match=r"min_scale must lie in \[0, inf\), got -1"):
        make(-1.0)


def test_zero_updates_stay_zero() -> None:
    assert_close(optim.normalize_by_update_norm(1.0, 0.0).update(jnp.zeros(3), ())[0], jnp.zeros(3), rtol=0)
    with pytest.raises(ValueError, match=r"eps must lie in \[0, inf\), got -1"):
        optim.normalize_by_update_norm(1.0, -1.0)

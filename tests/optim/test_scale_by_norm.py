"""Updates times or over norms: their values, and where norms are 0."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random
from tests.optim.running import along

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

        def scaled(grads: Any, params: Any) -> Any:
            rules = optim.scale_by_param_block_norm(), optim.scale_by_param_block_rms()
            unit, _ = optim.normalize_by_update_norm(2.0, 0.5).update({**grads, "b": b}, ())
            return *(rule.update(grads, (), params)[0] for rule in rules), unit

        norm, rms, unit = jax.jit(scaled)({"w": u}, {"w": p})
        assert_close(norm["w"], u * np.linalg.norm(p), rtol=1e-14)
        assert_close(rms["w"], u * np.sqrt(np.mean(p**2)), rtol=1e-14)
        joint = np.sqrt(np.sum(u**2) + np.sum(b**2))
        assert_close(unit, {"w": 2 * u / (joint + 0.5), "b": 2 * b / (joint + 0.5)}, rtol=1e-14)


@pytest.mark.parametrize("make", [optim.scale_by_param_block_norm, optim.scale_by_param_block_rms])
def test_a_parameter_of_zeros_is_scaled_by_the_bound(make: Any) -> None:
    opt, params = make(0.25), {"w": np.zeros(2, np.float32), "empty": np.zeros(0, np.float32), "none": None}
    grads = {"w": np.ones((1, 2), np.float32), "empty": np.zeros((1, 0), np.float32), "none": None}
    updates, _, _ = along(opt, params, grads)
    assert_close(updates, jax.tree.map(lambda g: 0.25 * g, grads), rtol=0)
    with pytest.raises(ValueError, match="needs the parameters, got params=None"):
        opt.update(grads, ())
    with pytest.raises(ValueError, match=r"min_scale must lie in \[0, inf\), got -1"):
        make(-1.0)


def test_zero_updates_stay_zero() -> None:
    zeros = np.zeros((1, 3), np.float32)
    assert_close(along(optim.normalize_by_update_norm(1.0, 0.0), zeros[0], zeros)[0], zeros, rtol=0)
    with pytest.raises(ValueError, match=r"eps must lie in \[0, inf\), got -1"):
        optim.normalize_by_update_norm(1.0, -1.0)

"""Polyak's step size against a transcription of SPS_max, and where the gradient is 0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, slow
from tests.optim.running import STEPS, along, noise, start, traced
from tests.optim.valued import descend_with_value, value_and_gradient

MUTANTS: list[tuple[str, str, str, str]] = [
    ("polyak", "polyak_sgd: sps", "- cast_like(f_min, squares)", "+ cast_like(f_min, squares)"),
    ("polyak", "polyak_sgd: sps+", "jax.nn.relu(gap)", "gap"),
    ("polyak", "polyak_sgd: sps+", "jax.nn.relu(gap)", "jnp.abs(gap)"),
    ("polyak", "scale_by_polyak", "squares = squares + cast_like(eps, squares)", "squares = squares"),
    ("polyak", "polyak_sgd", "jnp.minimum(step", "jnp.maximum(step"),
    ("polyak", "polyak_sgd: scaling", "scaling, where=", "2 * scaling, where="),
    ("polyak", "scale_by_polyak", "squares = sum_of_squares(updates)", "squares = jnp.sqrt(sum_of_squares(updates))"),
]


@pytest.mark.parametrize("variant", ["sps+", *slow("sps")])
def test_is_sps_max(variant: Any) -> None:
    """Loizou et al.: gamma = min((f - f*) / (c |g|^2), gamma_b / c): scaling is 1/c, the cap counted before it."""
    c, cap, f_min, x = 2.0, 0.4, 3.5, start(4, 3)
    for xi in noise(4, 3):
        f, g = value_and_gradient(x, xi)
        gap = max(f - f_min, 0.0) if variant == "sps+" else f - f_min
        x = x - min(gap / (c * np.sum(g**2)), cap / c) * g
    params, state = descend_with_value(optim.polyak_sgd(cap, 1 / c, f_min, variant=variant), 4, 3)
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert state.count == STEPS


def test_a_cap_may_be_infinite_and_a_bound_too_high_ascends_only_in_sps() -> None:
    for variant, expected in (("sps", 0.5), ("sps+", 0.0)):
        opt = optim.polyak_sgd(float("inf"), f_min=2.0, variant=variant)
        updates, _, _ = along(opt, np.float32(0), np.float32([2]), value=np.float32(1))
        assert_close(updates, np.float32([expected]), rtol=1e-7)


def test_a_zero_gradient_takes_no_step() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    assert_close(along(optim.polyak_sgd(), params, zeros, value=np.float32(1))[0], zeros, rtol=0)


@traced
def test_bad_arguments() -> None:
    opt = optim.polyak_sgd()
    with pytest.raises(ValueError, match="needs the extra argument value, got none"):
        opt.update(jnp.ones(2), opt.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="variant must be 'sps' or 'sps\\+', got 'other'"):
        optim.scale_by_polyak(variant="other")
    for bad in ({"max_learning_rate": -1.0}, {"scaling": -1.0}, {"eps": -1.0}, {"f_min": float("nan")}):
        with pytest.raises(ValueError, match="must lie in"):
            optim.polyak_sgd(**bad)
    with pytest.raises(TypeError, match="must have a floating dtype"):
        opt.init({"n": jnp.arange(3)})

"""Adagrad against a transcription of its paper, at zero gradients and with bad hyperparameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64
from tests.optim.running import STEPS, along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    (
        "adagrad",
        "adagrad: schedule",
        "safe_sqrt(total + cast_like(eps, total))",
        "(safe_sqrt(total) + cast_like(eps, total))",
    ),
    ("adagrad", "adagrad", "total = total + abs_sq(g)", "total = total + abs_sq(g) ** 0.5"),
    ("adagrad", "adagrad", "total = total + abs_sq(g)", "total = 0.9 * total + abs_sq(g)"),
    ("adagrad", "scale_by_rss", "fill=initial_accumulator_value, ", ""),
    ("adagrad", "adagrad_as_published", "descent(scale_by_rss(0.0, 0.0)", "descent(scale_by_rss(0.1, 0.0)"),
    ("adagrad", "adagrad_as_published", "descent(scale_by_rss(0.0, 0.0)", "descent(scale_by_rss(0.0, 1e-3)"),
]


def duchi(eta: float, delta: float = 0.0, first: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Figure 1 with diagonal matrices: x_(t+1) = x_t - eta g_t / H_t, H_t = delta + sqrt of the running sum."""
    x, s = start(4, 3), np.full((4, 3), first)
    for xi in noise(4, 3):
        g = x + xi
        s = s + g**2
        x = x - eta * g / (delta + np.sqrt(s))
    return x, s


def test_as_published_is_the_paper() -> None:
    params, state = descend(optim.adagrad_as_published(0.3), 4, 3)
    theta, s = duchi(0.3)
    assert_close(params, theta, rtol=1e-12, atol=1e-14)
    assert_close(state.sum_of_squares, s, rtol=1e-12)
    assert state.count == STEPS


def test_the_common_form_starts_its_sum_above_zero_and_has_eps_inside_the_root() -> None:
    """s + eps = 0.1 + eps + the sum, so the paper's rule started there has the same steps."""
    params, state = descend(optim.adagrad(0.3, 0.1, 1e-2), 4, 3)
    theta, s = duchi(0.3, first=0.11)
    assert_close(params, theta, rtol=1e-12, atol=1e-14)
    assert_close(state.sum_of_squares, s - 0.01, rtol=1e-12)


def test_zero_over_zero_is_zero_and_the_first_step_is_the_learning_rate() -> None:
    params = {"rare": np.zeros(3, np.float32), "none": None}
    grads = {"rare": np.float32([[0.0, 1e-12, -1e6], [5.0, 0.0, 0.0]]), "none": None}
    updates, _, _ = along(optim.adagrad_as_published(0.25), params, grads)
    expected = {"rare": np.float32([[0.0, -0.25, 0.25], [-0.25, 0.0, 0.0]]), "none": None}
    assert_close(updates, expected, rtol=1e-6)


def test_the_update_can_be_differentiated_where_the_gradient_is_zero() -> None:
    def total(g: Any) -> Any:
        opt = optim.adagrad_as_published(0.1)
        return jnp.sum(opt.update(g, opt.init(g))[0])

    assert np.isfinite(jax.jit(jax.grad(total))(np.float32([0, 2]))).all()


def test_complex_sums_are_real() -> None:
    with float64():
        z = np.array([[3 + 4j, 0j]])
        updates, _, state = along(optim.adagrad_as_published(1.0), z[0], z)
    assert state.sum_of_squares.dtype == np.float64
    np.testing.assert_allclose(updates, np.array([[-0.6 - 0.8j, 0]]), rtol=1e-12)


@pytest.mark.parametrize("setting", [{"initial_accumulator_value": -0.1}, {"eps": -1e-7}, {"eps": float("nan")}])
@traced
def test_bad_hyperparameters(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"scale_by_rss: {next(iter(setting))} must lie in \[0, inf\), got"):
        optim.adagrad(0.1, **setting)

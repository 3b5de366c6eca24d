"""MADGRAD: a float64 transcription of the paper, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, strict
from tests.optim.running import along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("madgrad", "madgrad", "(state.count + 1).astype", "(state.count + 2).astype"),
    ("madgrad", "madgrad", "safe_cbrt(total_sq)", "jnp.sqrt(total_sq)"),
    ("madgrad", "madgrad", "total_sq = total_sq + step * g**2", "total_sq = total_sq + step**2 * g**2"),
    ("madgrad", "madgrad", "(1 - cast_like(momentum, g)) * away", "cast_like(momentum, g) * away"),
    ("madgrad", "madgrad: decay", "(cast_like(rate, g) + cast_like(eps, g)) * jnp", "cast_like(rate, g) * jnp"),
    (
        "madgrad",
        "madgrad: decay",
        "at_count(weight_decay, state.count), where",
        "-at_count(weight_decay, state.count), where",
    ),
]


def test_is_algorithm_1_of_defazio() -> None:
    """The paper's step size gamma has no eps added, so that ours is given gamma - eps."""
    gamma, c, eps, decay = 0.1, 0.2, 1e-3, 0.05
    theta = x0 = start(4, 3)
    s, nu = np.zeros((4, 3)), np.zeros((4, 3))
    for k, xi in enumerate(noise(4, 3)):
        g = theta + xi + decay * theta
        lam = gamma * np.sqrt(k + 1)
        s = s + lam * g
        nu = nu + lam * (g * g)
        z = x0 - s / (np.cbrt(nu) + eps)
        theta = (1 - c) * theta + c * z
    with float64():
        found, state = descend(optim.madgrad(gamma - eps, 1 - c, decay, eps), 4, 3)
        assert_close((found, state.s, state.grad_sum_sq, state.x0), (theta, s, nu, x0), rtol=1e-12, atol=1e-13)


def test_a_zero_gradient_moves_nothing_even_without_eps() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    with strict():
        updates, _, _ = along(optim.madgrad(0.1, eps=0.0), params, zeros)
    assert_close(updates, zeros, rtol=0)


def test_parameters_and_state_may_both_be_donated() -> None:
    opt, params = optim.madgrad(0.1), jnp.ones(3)
    state = opt.init(params)
    assert state.x0 is not params
    updates, _ = jax.jit(opt.update, donate_argnums=(1, 2))(np.ones(3, np.float32), state, params)
    assert np.isfinite(updates).all()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.madgrad(-1.0), ValueError, "madgrad: learning_rate must lie in"),
        (lambda: optim.madgrad(0.1, momentum=1.0), ValueError, "madgrad: momentum must lie in"),
        (lambda: optim.madgrad(0.1, weight_decay=-1.0), ValueError, "madgrad: weight_decay must lie in"),
        (lambda: optim.madgrad(0.1, eps=-1.0), ValueError, "madgrad: eps must lie in"),
        (lambda: optim.madgrad(0.1).init(jnp.ones(1, complex)), TypeError, "is complex"),
        (
            lambda: optim.madgrad(0.1).update(jnp.ones(1), optim.madgrad(0.1).init(jnp.ones(1))),
            ValueError,
            "needs the parameters",
        ),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

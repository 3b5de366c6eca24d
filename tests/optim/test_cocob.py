"""COCOB: a float64 transcription of the paper, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, strict
from tests.optim.running import along, descend, noise, optax_still, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("cocob", "cocob", "total = total - g", "total = total - 0.5 * g"),
    ("cocob", "cocob", "reward - g * (p - first)", "reward + g * (p - first)"),
    ("cocob", "cocob", "most = jnp.maximum(most, jnp.abs(g))", "most = jnp.maximum(0.9 * most, jnp.abs(g))"),
    ("cocob", "cocob: settings", "sizes + most, cast_like(alpha, g) * most", "sizes, cast_like(alpha, g) * most"),
    ("cocob", "cocob", "return first - p + bet", "return bet"),
    ("cocob", "cocob: settings", "initial_moment(params, fill=eps)", "initial_moment(params, fill=100.0)"),
    ("cocob", "cocob: settings", "cast_like(rate, g) * g, scaled", "g, scaled"),
]


def test_is_algorithm_2_of_orabona() -> None:
    """The paper's g is the negative gradient; its L starts at 0, which eps = 0 gives."""
    alpha = 10.0
    w = w1 = start(4, 3)
    biggest, total, reward, theta = (np.zeros((4, 3)) for _ in range(4))
    for xi in noise(4, 3):
        g = -(w + xi)
        biggest = np.maximum(biggest, np.abs(g))
        total = total + np.abs(g)
        reward = np.maximum(reward + (w - w1) * g, 0)
        theta = theta + g
        w = w1 + theta / (biggest * np.maximum(total + biggest, alpha * biggest)) * (biggest + reward)
    with float64():
        found, state = descend(optim.cocob(alpha=alpha, eps=0.0), 4, 3)
        assert_close(
            (found, state.scale, state.subgradients, state.reward, state.cumulative_gradients),
            (w, biggest, total, reward, theta),
            rtol=1e-12,
            atol=1e-13,
        )


def test_an_entry_without_gradient_stays() -> None:
    params, zeros = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    for eps in (0.0, 1e-8):
        with strict():
            updates, _, _ = along(optim.cocob(eps=eps), params, zeros)
        assert_close(updates, zeros, rtol=0)


def test_small_gradients_do_not_divide_by_an_underflow() -> None:
    def first(library: Any) -> float:
        return float(along(library.cocob(eps=1e-30), np.float32(0), np.float32([1e-25]))[0][0])

    np.testing.assert_allclose(first(optim), -0.01, rtol=1e-6)
    optax_still(not np.isfinite(first(optax.contrib)), "a division by an underflow")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.cocob(-1.0), ValueError, "cocob: learning_rate must lie in"),
        (lambda: optim.cocob(alpha=-1.0), ValueError, "cocob: alpha must lie in"),
        (lambda: optim.cocob(weight_decay=float("inf")), ValueError, "cocob: weight_decay must lie in"),
        (lambda: optim.cocob().init(jnp.ones(1, complex)), TypeError, "is complex"),
        (
            lambda: optim.cocob().update(jnp.ones(1), optim.cocob().init(jnp.ones(1))),
            ValueError,
            "needs the parameters",
        ),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

"""Adadelta against a transcription of its paper, its default, its penalty, and what it rejects."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close
from tests.optim.running import STEPS, along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("adadelta", "adadelta: no learning rate", "rate = 1.0 if", "rate = 0.5 if"),
    ("adadelta", "adadelta", "jnp.sqrt(e_x + e)", "(jnp.sqrt(e_x) + e)"),
    ("adadelta", "adadelta", "jnp.sqrt(e_g + e)", "(jnp.sqrt(e_g) + e)"),
    ("adadelta", "adadelta", "d * e_x + (1 - d) * direction * direction", "d * e_x + (1 - d) * direction"),
    ("adadelta", "adadelta", "return direction, e_g, d * e_x", "return -direction, e_g, d * e_x"),
    (
        "adadelta",
        "adadelta: decay",
        "updates = add_decay(updates, params, decay",
        "updates = add_decay(updates, params, -decay",
    ),
    ("adadelta", "adadelta: mask", "decay, weight_decay_mask, where", "decay, None, where"),
    ("adadelta", "adadelta", "e_g = d * e_g + (1 - d) * g * g", "e_g = (1 - d) * e_g + d * g * g"),
]


def zeiler(rho: float, eps: float, decay: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Algorithm 1, line by line; a decay adds an L2 penalty to the gradient."""
    x = start(4, 3)
    mean_g2 = mean_dx2 = np.zeros((4, 3))
    for xi in noise(4, 3):
        g = x + xi + decay * x
        mean_g2 = rho * mean_g2 + (1 - rho) * g**2
        dx = -np.sqrt(mean_dx2 + eps) / np.sqrt(mean_g2 + eps) * g
        mean_dx2 = rho * mean_dx2 + (1 - rho) * dx**2
        x = x + dx
    return x, mean_g2, mean_dx2


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_is_the_paper(decay: float) -> None:
    params, state = descend(optim.adadelta(rho=0.9, eps=1e-4, weight_decay=decay), 4, 3)
    x, mean_g2, mean_dx2 = zeiler(0.9, 1e-4, decay)
    assert_close(params, x, rtol=1e-12, atol=1e-13)
    assert_close((state.e_g, state.e_x), (mean_g2, mean_dx2), rtol=1e-12)
    assert state.count == STEPS


def test_without_a_learning_rate_it_descends_where_optax_ascends() -> None:
    x = np.float32([[1, -2]])
    ours, theirs = (along(library.adadelta(), x[0], x)[0] for library in (optim, optax))
    assert (np.sign(ours) == -np.sign(x)).all()
    assert_close(ours, -theirs, rtol=1e-6)


def test_no_gradient_no_step_and_none_passes() -> None:
    params, grads = {"w": np.zeros(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
    updates, _, state = along(optim.adadelta(weight_decay=0.1), params, grads)
    assert_close(updates, grads, rtol=0)
    assert_close(state.e_x, params, rtol=0)


@traced
def test_bad_calls() -> None:
    with pytest.raises(ValueError, match=r"adadelta: rho must lie in \[0, 1\), got 1"):
        optim.adadelta(0.1, rho=1.0)
    with pytest.raises(ValueError, match=r"adadelta: eps must lie in \[0, inf\), got -1"):
        optim.scale_by_adadelta(eps=-1.0)
    with pytest.raises(ValueError, match="adadelta: update needs the parameters, got params=None"):
        optim.adadelta(weight_decay=0.1).update(jnp.ones(2), optim.adadelta().init(jnp.ones(2)))
    with pytest.raises(TypeError, match=r"adadelta: parameter .* is complex .* split_real_and_imaginary"):
        optim.adadelta().init(jnp.ones(2, jnp.complex64))

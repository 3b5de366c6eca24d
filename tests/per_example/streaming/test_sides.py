"""Sides of a projection with as many numbers as entries lose nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.per_example import Projection, value_and_grad
from tests.helpers import random

PARAMS = {"w": random(0, 6, 3, dtype=np.float32), "b": random(1, 3, dtype=np.float32)}


def loss(params: Any, x: Any) -> Any:
    return jnp.sum(jnp.tanh(x @ params["w"] + params["b"]) ** 2)


@pytest.mark.parametrize(("k", "error"), [(21, (0, 1e-5)), (3, (0.1, 10))])
def test_products_are_exact_where_all_entries_are_kept(k: int, error: tuple[float, float]) -> None:
    x = random(2, 5, 6, dtype=np.float32)

    @jax.jit
    def both(x: Any) -> Any:
        grads = jax.vmap(jax.grad(loss), (None, 0))(PARAMS, x)
        return value_and_grad(loss, Projection(jax.random.key(0), k))(PARAMS, x)[0][1], grads

    found, grads = jax.device_get(both(x))
    g = np.concatenate([grads[name].reshape(5, -1) for name in PARAMS], axis=1)
    norms = np.linalg.norm(g, axis=1)
    worst = np.max(np.abs(found @ found.T - g @ g.T) / np.outer(norms, norms))
    assert error[0] <= worst <= error[1]


def test_a_bias_is_not_scaled_by_a_random_number() -> None:
    """Its side of one row is exact, so that its norm is: a normal number there would scale it by a chi-square."""
    x = random(3, 4, 7, dtype=np.float32)
    (_, found), _ = value_and_grad(lambda b, x: jnp.vdot(b, x), Projection(jax.random.key(1), 7))(jnp.ones(7), x)
    np.testing.assert_allclose(found @ found.T, x @ x.T, rtol=1e-5, atol=1e-5)

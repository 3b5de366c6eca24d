"""A small problem whose runs can be followed by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.compare.problems import Problem, from_function

SCALES = np.array([1.0, 4.0, 9.0], np.float32)


def bowl(**told: Any) -> Problem:
    """1/2 sum_j s_j (w_j - x_j)^2 over 24 points, from a random start."""
    x = np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32)
    settings = {"batch_size": 8, "epochs": 3, "target": 8.0} | told

    def loss(w: Any, x: Any) -> Any:
        return 0.5 * jnp.sum(SCALES * (w["w"] - x) ** 2)

    return from_function(
        "bowl", lambda key: {"w": 3 + jax.random.normal(key, (3,))}, loss, x[:24], x[24:36], test=x[36:] + 1, **settings
    )

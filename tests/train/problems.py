"""Small problems that the tests of training share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxnn import losses, models, optim, train

N, D, K = 50, 6, 3


def classification(seed: int = 0, n: int = N, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Points whose class depends on a linear map of them: learnable, not trivial."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D))
    y = (x @ np.random.default_rng(99).standard_normal((D, K))).argmax(axis=1)
    return x.astype(dtype), y.astype(np.int32)


def changed(a: np.ndarray, where: Any, value: Any) -> np.ndarray:
    """A copy of a with other numbers at one place."""
    new = a.copy()
    new[where] = value
    return new


NET = models.mlp([D, 8, K])
LOSS = losses.softmax_cross_entropy
OPT = optim.sgd(0.1, momentum=0.9)
VG = jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True)
KEY = jax.random.key(0)

initial = jax.jit(train.init, static_argnums=(0, 1, 3))
"""`train.init` in one program."""


def started(seed: int = 0) -> train.TrainState:
    return initial(NET, OPT, jax.random.key(seed), (D,))

"""The noise of batches against NumPy: exact variances over all batches, and losses of a loop."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import losses, models
from jaxnn.classic import batch_noise
from tests.helpers import random

X = random(0, 6, 2).astype(np.float32)
Y = random(1, 6, 1).astype(np.float32)
NET = models.linear(1)
PARAMS, STATE = NET.init(jax.random.key(0), (2,))


def gradients() -> np.ndarray:
    """The gradient of 1/2 (y - d)^2 of each example with respect to (w, b), (6, 3)."""
    w, b = np.asarray(PARAMS[1]["w"], float), np.asarray(PARAMS[1]["b"], float)
    error = X @ w + b - Y
    return np.concatenate([error * X, error], axis=1)


def test_the_variance_over_all_batches_is_that_predicted_from_one_tape() -> None:
    g = gradients()
    found = batch_noise.variances(
        NET, losses.half_squared_error, (X, Y), PARAMS, STATE, sizes=(1, 2, 5, 6), batches=400, key=jax.random.key(3)
    )
    for size, predicted in zip(found.sizes, found.predicted, strict=True):
        every = [g[list(chosen)].mean(0) for chosen in itertools.combinations(range(6), int(size))]
        exact = np.mean(np.sum((np.array(every) - g.mean(0)) ** 2, axis=1))
        np.testing.assert_allclose(predicted, exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.measured, found.predicted, rtol=0.25, atol=1e-5)
    np.testing.assert_allclose(found.trace, g.var(axis=0, ddof=1).sum(), rtol=1e-4)


def test_the_last_factor_counts() -> None:
    g = gradients()
    wrong = g.var(axis=0, ddof=1).sum() / 5  # of batches of 5 of 6, with replacement
    right = batch_noise.of_batch(g.var(axis=0, ddof=1).sum(), [5], 6)[0]
    assert right < 0.2 * wrong


def test_losses_are_those_before_each_update() -> None:
    found = batch_noise.steps(
        NET, losses.half_squared_error, (X, Y), batch_size=6, learning_rate=0.1, updates=4, key=jax.random.key(5)
    )
    np.testing.assert_allclose(found.batch_loss, found.loss, rtol=1e-6)
    assert (np.diff(found.loss) < 0).all()
    start = NET.init(jax.random.split(jax.random.key(5))[0], (2,))[0][1]
    w, b, expected = np.asarray(start["w"], float), np.asarray(start["b"], float), []
    for _ in range(4):
        error = X @ w + b - Y
        expected.append(np.mean(error**2) / 2)
        w, b = w - 0.1 * X.T @ error / 6, b - 0.1 * error.mean(0)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-4)
    single = batch_noise.steps(
        NET, losses.half_squared_error, (X, Y), batch_size=1, learning_rate=0.0, updates=300, key=jax.random.key(5)
    )
    assert np.ptp(single.loss) == 0
    assert len(np.unique(single.batch_loss)) == 6, "each example is drawn"
    np.testing.assert_allclose(single.batch_loss.mean(), single.loss[0], rtol=0.2)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sizes": (7,)}, "batch_size must be at most the number of examples, 6, got 7"),
    ({"sizes": ()}, "at least one batch size, got none"),
    ({"batches": 0}, "batches must be at least 1, got 0"),
    ({"key": 3}, "typed key"),
]


@pytest.mark.parametrize(("settings", "text"), BAD)
def test_bad_input_is_named(settings: dict[str, Any], text: str) -> None:
    usual: dict[str, Any] = {"sizes": (1,), "batches": 2, "key": jax.random.key(0)}
    with pytest.raises((TypeError, ValueError), match=text):
        batch_noise.variances(NET, losses.half_squared_error, (X, Y), PARAMS, STATE, **(usual | settings))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: batch_noise.of_batch(1.0, [5], 3), "sizes must lie in \\[1, 3\\]"),
        (lambda: batch_noise.of_batch(-1.0, [1], 3), "trace must lie in"),
    ],
)
def test_sizes_beyond_the_examples_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

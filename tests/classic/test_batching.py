"""Batch, mini-batch and stochastic descent: each against a NumPy loop; which is ahead after equal work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import data, losses, models, optim, train
from jaxnn.classic import batching

DIGITS = data.load("digits").train


def course(batch_size: int, learning_rate: float, epochs: int, **settings: Any) -> batching.Course:
    few = data.select(DIGITS, slice(0, 512))
    return batching.course(
        models.linear(10), losses.softmax_cross_entropy, few, batch_size=batch_size, learning_rate=learning_rate,
        epochs=epochs, key=jax.random.key(0), **settings,
    )  # fmt: skip


def ticking(interval: float) -> Callable[[], float]:
    """A clock that moves on by so much at each look."""
    return map(float, itertools.count(0, interval)).__next__  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
def test_batch_descent_is_gradient_descent() -> None:
    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    y = 3 * x + 1
    net = models.linear(1)
    found = batching.course(
        net, losses.half_squared_error, (x, y), batch_size=12, learning_rate=0.3, epochs=5, key=jax.random.key(2)
    )
    start = train.init(net, optim.sgd(0.3), jax.random.split(jax.random.key(2), 3)[0], (1,)).params[1]
    w, b, heights = float(start["w"][0, 0]), float(start["b"][0]), []
    for _ in range(6):
        error = w * x + b - y
        heights.append(float((error**2).mean() / 2))
        w, b = w - 0.3 * float((error * x).mean()), b - 0.3 * float(error.mean())
    np.testing.assert_allclose(found.loss, heights, rtol=1e-5)


@pytest.mark.slow
def test_updates_and_seconds_are_counted() -> None:
    found = course(100, 0.1, 3, clock=ticking(0.5))
    assert found.updates.tolist() == [0, 5, 10, 15]  # 12 of 512 examples are left out of each epoch
    np.testing.assert_allclose(found.seconds, [0, 0.5, 1.0, 1.5])
    assert found.loss.shape == (4,)


@pytest.mark.slow
def test_small_batches_are_ahead_after_equal_work_and_the_batch_after_equal_updates() -> None:
    batch, mini, stochastic = course(512, 1.0, 48), course(32, 0.5, 3), course(1, 0.05, 3)
    assert max(mini.loss[3], stochastic.loss[3]) < 0.5 * batch.loss[3]  # all have seen every example three times
    assert batch.updates[-1] == mini.updates[-1] == 48
    assert batch.loss[-1] < mini.loss[-1]


@pytest.mark.slow
def test_a_course_is_reproducible() -> None:
    first, again = course(64, 0.1, 2, clock=ticking(1.0)), course(64, 0.1, 2, clock=ticking(1.0))
    np.testing.assert_array_equal(first.loss, again.loss)
    np.testing.assert_array_equal(first.seconds, again.seconds)


def test_reaches() -> None:
    found = batching.Course(1, np.arange(4), np.arange(4.0), np.array([3.0, 1.0, 2.0, 0.5]))
    assert [found.reaches(loss) for loss in (3.0, 1.5, 0.9, 0.1)] == [0, 1, 3, None]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        course(1, 0.1, 0)
    with pytest.raises(ValueError, match="exceeds the 512 examples"):
        course(513, 0.1, 1)

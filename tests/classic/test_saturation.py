"""Slopes against their formulas, learning curves against the difference equation."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jaxnn.classic import saturation
from jaxnn.classic.saturation import LOSSES
from tests.helpers import float64


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


FORMULAS = {
    "squared error": lambda y, d: (y - d) * y * (1 - y),
    "cross-entropy": lambda y, d: y - d,
}


def test_slopes() -> None:
    z, targets = np.linspace(-20, 20, 81), (0.0, 0.25, 1.0)

    @jax.jit
    def slopes(z: Any) -> Any:
        return {name: [saturation.slopes(loss, z, target) for target in targets] for name, loss in LOSSES.items()}

    with float64():
        found = jax.device_get(slopes(z))
    for name, each in found.items():
        for target, got in zip(targets, each, strict=True):
            expected = FORMULAS[name](sigmoid(z), target)
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14, err_msg=f"{name}, {target}")
            other = FORMULAS[next(n for n in LOSSES if n != name)](sigmoid(z), target)
            assert abs(got - other).max() > 0.1, "the test tells the two apart"


@pytest.mark.parametrize("name", LOSSES)
def test_descent_is_the_difference_equation(name: str) -> None:
    with float64():
        found = saturation.descend(LOSSES[name], np.float64(3.0), learning_rate=0.7, steps=40)
    z, expected = 3.0, []
    for _ in range(41):
        y = sigmoid(np.float64(z))
        expected.append(y)
        z -= 2 * 0.7 * FORMULAS[name](y, 0.0)  # weight and bias both move
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_saturation_costs_the_squared_error_exponentially_and_cross_entropy_linearly_many_steps() -> None:
    """dz/dt = -y^2 (1 - y) against dz/dt = -y at eta = 1/2: from z = 8 to 5 by integration e^8 - e^5 + 9, or 3."""
    starts = np.float32([5.0, 8.0])

    @jax.jit
    @jax.vmap
    def steps(z: Any) -> Any:
        return [saturation.steps_until(saturation.descend(loss, z, steps=6000)) for loss in LOSSES.values()]

    squared, entropy = jax.device_get(steps(starts))
    assert float(squared[1] - squared[0]) == pytest.approx(np.exp(8) - np.exp(5) + 9, rel=0.01)
    assert int(entropy[1] - entropy[0]) == pytest.approx(3, abs=1)
    assert squared[0] > 10 * entropy[0]


def test_steps_until_never() -> None:
    outputs = np.float32([[0.9, 0.8, 0.7], [0.9, 0.05, 0.7], [0.01, 0.01, 0.01]])
    assert jax.jit(saturation.steps_until)(outputs).tolist() == [2, 1, 0]

"""Mixture-density regression finds the three branches that least squares averages away."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import losses
from jaxnn.classic import mixture
from jaxnn.layers import Tanh

POINTS = mixture.inverse_problem(jax.random.key(0), 500)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return mixture.fit_mixture(POINTS, key=jax.random.key(1), epochs=150)


def test_the_problem() -> None:
    data = mixture.inverse_problem(jax.random.key(2), 5000, noise=0.1)
    x, y = np.asarray(data.x), np.asarray(data.y)
    residual = x - (y + 0.3 * np.sin(2 * np.pi * y))
    assert 0.099 < residual.max() <= 0.1 + 1e-6
    assert -0.1 - 1e-6 <= residual.min() < -0.099
    assert abs(y.mean() - 0.5) < 0.02
    assert (y >= 0).all()
    assert (y < 1).all()


@pytest.mark.slow
def test_three_answers_where_there_are_three(fitted: Any) -> None:
    """At x = 1/2: y = 1/2, and the two other roots of y + 0.3 sin(2 pi y) = 1/2."""
    net, result = fitted
    grid = np.linspace(0.01, 0.45, 100_000)
    low = grid[np.abs(grid + 0.3 * np.sin(2 * np.pi * grid) - 0.5).argmin()]
    at = mixture.mixture_at(net, result.params, result.state, jnp.array([[0.5]]))
    np.testing.assert_allclose(sorted(np.asarray(at.means[0])), [low, 0.5, 1 - low], atol=0.05)
    assert at.weights.min() > 0.1
    mean_net, mean = mixture.fit_mean(POINTS, key=jax.random.key(1), epochs=150)
    middle = mean_net.predict(mean.params, mean.state, jnp.array([[0.35], [0.65]]))[:, 0]
    truth = np.stack([grid, 1 - grid])
    nearest = [np.abs(truth + 0.3 * np.sin(2 * np.pi * truth) - x).min() for x in (0.35, 0.65)]
    assert max(nearest) < 0.01
    assert np.abs(middle + 0.3 * np.sin(2 * np.pi * middle) - np.array([0.35, 0.65])).max() > 0.1, (
        "least squares answers with a y that does not lead to this x"
    )


@pytest.mark.slow
def test_the_density_is_the_loss_and_integrates_to_one(fitted: Any) -> None:
    net, result = fitted
    x = jnp.linspace(0.0, 1.0, 11)[:, None]
    predicted = mixture.mixture_at(net, result.params, result.state, x)
    y = jnp.linspace(-2, 3, 20_001)
    p = mixture.density(predicted, y)
    np.testing.assert_allclose(np.trapezoid(p, y, axis=1), 1, rtol=1e-3)
    targets = jnp.full((11, 1), 0.4)
    outputs = net.predict(result.params, result.state, x)
    loss = losses.mixture_density_nll(outputs, targets, components=3)
    np.testing.assert_allclose(-jnp.log(mixture.density(predicted, jnp.array([0.4]))[:, 0]), loss, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_mixture_is_likelier_than_one_gaussian(fitted: Any) -> None:
    _, result = fitted
    _, one = mixture.fit_mixture(POINTS, key=jax.random.key(1), components=1, epochs=150)
    assert result.history[-1]["loss"] < one.history[-1]["loss"] - 0.5


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 2)), min_size=1, max_size=4))
def test_density_of_known_mixtures(parts: list[tuple[float, float]]) -> None:
    means, deviations = (np.array([[p[i] for p in parts]]) for i in (0, 1))
    weights = np.full_like(means, 1 / len(parts))
    found = mixture.density(mixture.Mixture(*map(jnp.asarray, (weights, means, deviations))), jnp.array([0.3]))
    each = np.exp(-((0.3 - means) ** 2) / (2 * deviations**2)) / np.sqrt(2 * np.pi * deviations**2)
    np.testing.assert_allclose(found, (weights * each).sum(axis=1)[:, None], rtol=1e-4)


def test_means_by_bin_are_those_of_a_loop() -> None:
    edges = np.array([-0.1, 0.2, 0.25, 0.9, 1.2, 2.0])
    x, y = np.asarray(POINTS.x)[:, 0], np.asarray(POINTS.y)[:, 0]
    bins = np.digitize(x, edges) - 1
    expected = [y[bins == b].mean(dtype=np.float64) if (bins == b).any() else np.nan for b in range(5)]
    np.testing.assert_allclose(mixture.mean_by_bin(POINTS, edges), expected, rtol=1e-6)
    assert np.isnan(expected[-1])


ONE = mixture.Mixture(*jnp.ones((3, 1, 1)))


def test_a_density_takes_a_list() -> None:
    np.testing.assert_array_equal(mixture.density(ONE, [0.0, 0.5]), mixture.density(ONE, jnp.array([0.0, 0.5])))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: mixture.mixture_at(Tanh, (), (), jnp.ones((4, 1))), r"three numbers .* fit_mixture .* \(4, 1\)"),
        (lambda: mixture.density(ONE, 0.5), r"y must have shape \(T,\), got \(\)"),
        (lambda: mixture.density(ONE, jnp.ones((4, 1))), r"y must have shape \(T,\), got \(4, 1\)"),
        (lambda: mixture.mean_by_bin(POINTS, [1.0, 0.0]), "edges must be .* ascend, got"),
        (lambda: mixture.mean_by_bin(POINTS, [1.0]), "edges must be"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

"""Radial basis networks against NumPy's least squares and SciPy's k-means."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import cluster

from jaxnn.classic import radial
from tests.helpers import float64, random, strict

X, CENTRES = random(0, 60, 2), random(1, 7, 2)
TARGETS = np.stack([np.sin(X[:, 0]), X[:, 0] * X[:, 1]], axis=1)


def gaussians(x: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """The constant feature and the units, by loops."""
    units = [[np.exp(-np.sum((row - c) ** 2) / (2 * width**2)) for c in centres] for row in x]
    return np.concatenate([np.ones((len(x), 1)), units], axis=1)


def test_a_fit_is_the_least_squares_solution() -> None:
    phi, new = gaussians(X, CENTRES, 0.9), random(2, 5, 2)
    with float64(), strict():
        net = radial.fit(X, TARGETS, centres=CENTRES, width=0.9)
        w = np.linalg.lstsq(phi, TARGETS, rcond=None)[0]
        np.testing.assert_allclose(net.w, w, rtol=1e-8)
        np.testing.assert_allclose(radial.predict(net, new), gaussians(new, CENTRES, 0.9) @ w, rtol=1e-8)
        single = radial.fit(X, TARGETS[:, 0], centres=CENTRES, width=0.9)
        np.testing.assert_allclose(single.w, w[:, 0], rtol=1e-8)


def test_the_penalty_spares_the_bias() -> None:
    phi = gaussians(X, CENTRES, 0.9)
    with float64(), strict():
        w = np.asarray(radial.fit(X, TARGETS, centres=CENTRES, width=0.9, penalty=2.0).w)
        spared = 2.0 * np.diag([0.0] + 7 * [1.0])
        np.testing.assert_allclose(w, np.linalg.solve(phi.T @ phi + spared, phi.T @ TARGETS), rtol=1e-9)
        heavy = radial.fit(X, TARGETS, centres=CENTRES, width=0.9, penalty=1e12)
        np.testing.assert_allclose(radial.predict(heavy, X), np.tile(TARGETS.mean(0), (60, 1)), atol=1e-8)


def test_a_centre_at_every_example_interpolates() -> None:
    with float64():
        net = radial.fit(X, TARGETS, centres=X, width=0.3)
        np.testing.assert_allclose(radial.predict(net, X), TARGETS, atol=1e-8)
        phi = gaussians(X, X, 0.3)[:, 1:]
        assert np.linalg.eigvalsh(phi).min() > 0, "Micchelli: not singular"


@given(st.integers(0, 1000), st.sampled_from([1, 5]))
def test_kmeans_is_scipys(seed: int, k: int) -> None:
    x = random(seed, 50, 2)
    start = x[:k]
    with float64():
        for steps in (1, 5, 60):
            oracle, _ = cluster.vq.kmeans2(x, start, iter=steps, minit="matrix")
            np.testing.assert_allclose(radial.kmeans(x, start, steps=steps), oracle, rtol=1e-9, atol=1e-12)


def test_kmeans_never_raises_the_distances_and_ends() -> None:
    x = random(3, 200, 3)

    def distances(centres: Any) -> float:
        return float(np.min(((x[:, None] - np.asarray(centres)[None]) ** 2).sum(-1), axis=1).sum())

    with float64():
        values = [distances(radial.kmeans(x, x[:8], steps=n)) for n in range(1, 12)]
        last = radial.kmeans(x, x[:8], steps=1000)
        assert (radial.kmeans(x, last, steps=1) == last).all()
        far = radial.kmeans(x, np.concatenate([x[:2], [[99.0, 99.0, 99.0]]]))
        assert (far[2] == 99).all(), "a centre without points stays"
    assert (np.diff([distances(x[:8]), *values]) < 1e-9).all()


def test_spacing_is_the_mean_distance_of_neighbours() -> None:
    apart = np.linalg.norm(CENTRES[:, None] - CENTRES[None], axis=-1) + np.diag([np.inf] * 7)
    with float64():
        np.testing.assert_allclose(radial.spacing(CENTRES), apart.min(axis=1).mean(), rtol=1e-12)


def test_dtypes_and_transformations() -> None:
    for dtype in (np.float64, np.float32, jnp.bfloat16):
        net = radial.fit(X.astype(dtype), TARGETS.astype(dtype), centres=CENTRES.astype(dtype), width=1.0)
        assert net.w.dtype == radial.predict(net, X).dtype == jnp.float32
    many = jax.vmap(lambda width: radial.fit(X, TARGETS, centres=CENTRES, width=width).w)(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(many[1], radial.fit(X, TARGETS, centres=CENTRES, width=1.0).w, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: radial.fit(X, TARGETS[1:], centres=CENTRES, width=1.0), r"y must be \(60,\) or \(60, K\)"),
        (lambda: radial.fit(X, TARGETS, centres=CENTRES[:, :1], width=1.0), r"same D, got \(60, 2\) and \(7, 1\)"),
        (lambda: radial.fit(X, TARGETS, centres=CENTRES, width=1.0, penalty=-1.0), r"penalty must lie in \[0, inf\)"),
        (lambda: radial.kmeans(X, CENTRES[:, :1]), r"agree in D, got \(60, 2\), \(7, 1\)"),
        (lambda: radial.spacing([[1.0]]), "needs at least 2 centres, got 1"),
        (lambda: radial.kmeans(X * np.nan, CENTRES), "x must be finite, but row 0 is not"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: radial.output_weights(np.ones((2, 1)), [np.nan, 1.0]), "y must be finite, but row 0"),
        (
            lambda: radial.predict(radial.Network(jnp.zeros((1, 1)), jnp.array(1.0), jnp.ones(3)), [[0.0]]),
            "for M = 1 centres",
        ),
    ],
)
def test_targets_and_weights_that_do_not_fit_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

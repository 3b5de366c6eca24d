"""Toy sets: the formulas without noise, the spread with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.data import toy
from tests.helpers import float64, strict

KEY = jax.random.key(0)
SETS = {
    "moons": lambda key, n, noise=0.1: toy.two_moons(key, n, noise=noise),
    "spirals": lambda key, n, noise=0.1: toy.spirals(key, n, classes=3, noise=noise),
    "xor": lambda key, n, noise=0.1: toy.xor(key, n, noise=noise),
    "blobs": lambda key, n, noise=0.1: toy.blobs(key, n, centers=[[0.0, 0.0], [3.0, 1.0], [1.0, 5.0]], deviation=noise),
    "line": lambda key, n, noise=0.1: toy.linear_regression(key, n, weights=[2.0, -1.0], bias=0.5, noise=noise),
}


N = 2000
DRAW = {name: jax.jit(lambda key, noise, make=make: make(key, N, noise)) for name, make in SETS.items()}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_a_pure_function_of_its_key(name):
    with strict():
        first, again, other = DRAW[name](KEY, 0.1), DRAW[name](KEY, 0.1), DRAW[name](jax.random.key(1), 0.1)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert (first.x.shape, first.y.shape, first.x.dtype) == ((N, 2), (N,), jnp.float32)
    if name == "line":
        assert (first.y.dtype, first.classes) == (jnp.float32, ())
    else:
        assert first.y.dtype == jnp.int32
        assert sorted(set(first.y.tolist())) == list(range(len(first.classes)))
    with float64(), strict():
        assert jax.eval_shape(lambda key: SETS[name](key, 6), KEY).x.dtype == jnp.float64
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        SETS[name](KEY, 0)


@pytest.mark.parametrize("name", SETS)
def test_noise_has_the_stated_deviation(name):
    """The same key with and without noise: the difference is the noise."""
    noisy, clean = DRAW[name](KEY, 0.2), DRAW[name](KEY, 0.0)
    spread = np.asarray(noisy.y) - clean.y if name == "line" else np.asarray(noisy.x) - clean.x
    np.testing.assert_allclose(np.std(spread), 0.2, rtol=0.08)


def test_moons_lie_on_their_half_circles():
    data = DRAW["moons"](KEY, 0.0)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.y)
    for label, centre, side in ((0, (0, 0), 1), (1, (1, 0.5), -1)):
        off = x[y == label] - centre
        np.testing.assert_allclose(np.hypot(*off.T), 1, rtol=1e-5)
        assert (side * off[:, 1] >= -1e-5).all()


def test_spirals_wind_as_often_as_asked():
    data = DRAW["spirals"](KEY, 0.0)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.y)
    r = np.hypot(*x.T)
    angle = 2 * np.pi * (1.5 * r + y / 3)
    assert 0.99 < r.max() <= 1
    np.testing.assert_allclose(x, r[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-5)


def test_xor_without_noise_is_the_truth_table():
    data = DRAW["xor"](KEY, 0.0)
    assert data.x[:4].tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert data.y[:8].tolist() == [0, 1, 1, 0, 0, 1, 1, 0]


def test_blobs_sit_at_their_centres_and_lines_on_their_plane():
    data = DRAW["blobs"](KEY, 0.5)
    means = [np.asarray(data.x)[np.asarray(data.y) == k].mean(0) for k in range(3)]
    np.testing.assert_allclose(means, [[0, 0], [3, 1], [1, 5]], atol=0.1)
    line = DRAW["line"](KEY, 0.0)
    np.testing.assert_allclose(line.y, np.asarray(line.x) @ [2.0, -1.0] + 0.5, rtol=1e-5, atol=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"centers must have shape \(K, D\).*got \(2,\)"):
        toy.blobs(KEY, 4, centers=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"weights must have shape \(D,\), got \(1, 2\)"):
        toy.linear_regression(KEY, 4, weights=[[0.0, 1.0]])
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        toy.spirals(KEY, 4, classes=1)

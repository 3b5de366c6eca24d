"""The six data sets against their published formulas: exact where nothing is random, else by their statistics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.playground import data
from tests.helpers import float64, slow, strict

N = 20_000
NOISES = (0.0, 0.25, 0.5)
Draw = Callable[[float], tuple[np.ndarray, np.ndarray]]


@functools.cache
def draw_of(name: str) -> Draw:
    """noise -> points and targets of a set, in float64 on the host; always the same key."""
    compiled = jax.jit(lambda key, noise: data.SOURCES[name].make(key, N, noise=noise))

    @functools.cache
    def draw(noise: float) -> tuple[np.ndarray, np.ndarray]:
        made = compiled(jax.random.key(3), noise)
        return np.asarray(made.x, np.float64), np.asarray(made.y, np.float64)

    return draw


def near(values: Any, mean: float, variance: float) -> None:
    """The mean and the variance of independent values are as expected, within five standard errors."""
    values = np.asarray(values).ravel()
    fourth = np.mean((values - values.mean()) ** 4)
    assert abs(values.mean() - mean) < 5 * np.sqrt(variance / values.size) + 1e-6
    assert abs(values.var() - variance) < 5 * np.sqrt(max(fourth - variance**2, 0) / values.size) + 1e-6


def share(flags: np.ndarray, probability: float) -> None:
    """Independent events happen as often as expected, within five standard errors."""
    assert abs(flags.mean() - probability) <= 5 * np.sqrt(probability * (1 - probability) / flags.size)


def clean_points(draw: Draw) -> np.ndarray:
    """The points without noise, which noise must not have moved."""
    points = draw(0.0)[0]
    for noise in NOISES:
        np.testing.assert_array_equal(draw(noise)[0], points)
    return points


def check_circle(draw: Draw) -> None:
    points = clean_points(draw)
    r, t = np.hypot(*points.T), np.arctan2(*points.T)
    inner, outer = r[: N // 2], r[N // 2 :]
    near(inner, 1.25, 2.5**2 / 12)
    near(outer, 4.25, 1.5**2 / 12)
    assert inner.max() < 2.5001
    assert 3.4999 < outer.min() < outer.max() < 5.0001
    near(t, 0, (2 * np.pi) ** 2 / 12)
    np.testing.assert_array_equal(draw(0.0)[1], np.where(np.arange(N) < N // 2, 1, -1))
    for noise in NOISES[1:]:
        shift = noise * np.random.default_rng(0).uniform(-5, 5, points.shape)
        expected = (np.hypot(*(points + shift).T) < 2.5).mean()
        assert abs((draw(noise)[1] > 0).mean() - expected) < 5 * np.sqrt(0.5 / N)
    # In the middle of the disc no noise of 25% can reach the rim: |nu e| <= 1.25 sqrt(2).
    assert (draw(0.25)[1][r < 2.5 - 1.25 * np.sqrt(2)] == 1).all()


def check_xor(draw: Draw) -> None:
    points = clean_points(draw)
    assert np.abs(points).min() > 0.2999
    assert np.abs(points).max() < 5.3001
    near(np.abs(points), 2.8, 25 / 12)
    share(points > 0, 0.5)
    for noise in NOISES:
        # A sign turns where the noise, up to q = 5 nu, outweighs |u| + 0.3: with probability (q - 0.3)^2 / (20 q).
        q = 5 * noise
        turned = (q - 0.3) ** 2 / (20 * q) if noise else 0.0
        flipped = draw(noise)[1] != np.where(points.prod(axis=1) >= 0, 1, -1)
        share(flipped, 2 * turned * (1 - turned))


def check_gauss(draw: Draw) -> None:
    for noise in NOISES:
        points, y = draw(noise)
        np.testing.assert_array_equal(y, np.where(np.arange(N) < N // 2, 1, -1))
        near(points[y > 0], 2, 0.5 + 7 * noise)
        near(points[y < 0], -2, 0.5 + 7 * noise)
        assert abs(np.corrcoef((points - 2 * y[:, None]).T)[0, 1]) < 5 / np.sqrt(N)


def check_spiral(draw: Draw) -> None:
    half = N // 2
    for arm, label in ((0, 1), (1, -1)):
        i = np.arange(half)
        r, t = 5 * i / half, 3.5 * np.pi * i / half + arm * np.pi
        clean = np.stack([r * np.sin(t), r * np.cos(t)], axis=1)
        rows = slice(arm * half, (arm + 1) * half)
        np.testing.assert_allclose(draw(0.0)[0][rows], clean, atol=2e-5)
        for noise in NOISES[1:]:
            near(draw(noise)[0][rows] - clean, 0, noise**2 / 3)
            assert np.abs(draw(noise)[0][rows] - clean).max() < noise + 2e-5
        assert (draw(0.5)[1][rows] == label).all()


def check_plane(draw: Draw) -> None:
    points = clean_points(draw)
    near(points, 0, 12)
    assert np.abs(points).max() <= 6
    for noise in NOISES:
        near(draw(noise)[1] - points.sum(axis=1) / 10, 0, 2 * 12 * noise**2 / 100)


def height(x: float, y: float) -> float:
    """The hills and hollows, one at a time: the value of the greatest magnitude."""
    hills = [(-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1)]
    return max((s * min(max(1 - np.hypot(x - a, y - b) / 2, 0), 1) for a, b, s in hills), key=abs)


def check_hills(draw: Draw) -> None:
    points = clean_points(draw)
    near(points, 0, 12)
    y = draw(0.0)[1]
    np.testing.assert_allclose(y[:500], [height(*p) for p in points[:500]], atol=1e-6)
    # Six cones of radius 2 and height 1 in a square of side 12: where they stand, and their mean and mean square.
    share(y != 0, 24 * np.pi / 144)
    near(y, 0, 6 * (np.pi * 4 / 6) / 144)
    noisy = points + 0.5 * np.random.default_rng(0).uniform(-6, 6, points.shape)
    expected = np.mean([height(*p) != 0 for p in noisy[:4000]])
    assert abs((draw(0.5)[1] != 0).mean() - expected) < 0.04
    assert abs(np.corrcoef(y, draw(0.5)[1])[0, 1]) < 0.9


CHECKS = {
    "circle": check_circle,
    "xor": check_xor,
    "gauss": check_gauss,
    "spiral": check_spiral,
    "reg-plane": check_plane,
    "reg-gauss": check_hills,
}


QUICK = ("circle", "gauss", "reg-gauss")
"""Labels by the noisy distance, points that noise moves, targets of noisy points."""


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in data.SOURCES if name not in QUICK))])
def test_a_set_has_the_statistics_of_its_formula(name: str) -> None:
    CHECKS[name](draw_of(name))


RNG = np.random.default_rng(1)
SIGNS = np.where(np.arange(N) < N // 2, 1, -1)
BROKEN = {
    "circle, noise moves the points": lambda x, y, noise: (x + noise * RNG.uniform(-5, 5, x.shape), y),
    "circle, uniform by area": lambda x, y, noise: (
        x * np.where(SIGNS > 0, np.sqrt(2.5 / np.hypot(*x.T)), 1)[:, None],
        y,
    ),
    "circle, labels without noise": lambda x, y, noise: (x, SIGNS),
    "xor, without the gap": lambda x, y, noise: (x - 0.3 * np.sign(x), y),
    "xor, labels without noise": lambda x, y, noise: (x, np.where(x.prod(axis=1) >= 0, 1, -1)),
    "gauss, variance for deviation": lambda x, y, noise: (
        2 * y[:, None] + (x - 2 * y[:, None]) * np.sqrt(0.5 + 7 * noise),
        y,
    ),
    "gauss, centres exchanged": lambda x, y, noise: (-x, y),
    "spiral, one arm twice": lambda x, y, noise: (np.concatenate([x[: N // 2]] * 2), y),
    "spiral, mirrored": lambda x, y, noise: (x * [-1, 1], y),
    "spiral, more noise": lambda x, y, noise: (x + noise * RNG.uniform(-0.2, 0.2, x.shape), y),
    "reg-plane, over 12": lambda x, y, noise: (x, y * 10 / 12),
    "reg-gauss, upside down": lambda x, y, noise: (x, -y),
    "reg-gauss, without noise": lambda x, y, noise: (x, draw_of("reg-gauss")(0.0)[1]),
}
"""What a set would look like with a mistake in it."""


@pytest.mark.parametrize(
    "mistake", [*(m for m in BROKEN if m.startswith(QUICK)), *slow(*(m for m in BROKEN if not m.startswith(QUICK)))]
)
def test_a_broken_set_is_found(mistake: str) -> None:
    name = mistake.split(",")[0]
    with pytest.raises(AssertionError):
        CHECKS[name](lambda noise: BROKEN[mistake](*draw_of(name)(noise), noise))


@pytest.mark.parametrize("name", ["xor", *slow(*(name for name in data.SOURCES if name != "xor"))])
def test_a_set_is_a_pure_function_of_its_key_in_either_dtype(name: str) -> None:
    make = jax.jit(data.SOURCES[name].make, static_argnums=1)
    with strict():
        first, again = make(jax.random.key(0), 12, noise=0.1), make(jax.random.key(0), 12, noise=0.1)
        other = make(jax.random.key(1), 12, noise=0.1)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert (first.x.shape, first.y.shape, first.x.dtype, first.y.dtype) == ((12, 2), (12,), jnp.float32, jnp.float32)
    with float64(), strict():
        wide = jax.eval_shape(lambda key: data.SOURCES[name].make(key, 12, noise=0.1), jax.random.key(0))
    assert (wide.x.dtype, wide.y.dtype) == (jnp.float64, jnp.float64)


@pytest.mark.slow
def test_spiral_is_exact_in_float64() -> None:
    with float64():
        made = data.spiral(jax.random.key(0), 500)
    i = np.arange(250) / 250
    first = 5 * i[:, None] * np.stack([np.sin(3.5 * np.pi * i), np.cos(3.5 * np.pi * i)], axis=1)
    np.testing.assert_allclose(made.x[:250], first, rtol=0, atol=1e-13)
    np.testing.assert_allclose(made.x[250:], -first, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", data.SOURCES)
def test_bad_numbers_are_named(name: str) -> None:
    make = data.SOURCES[name].make
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 0.5\], got 0.6"):
        make(jax.random.key(0), 10, noise=0.6)
    with pytest.raises(ValueError, match="n must be at least"):
        make(jax.random.key(0), 0)
    if name in ("circle", "gauss", "spiral"):
        with pytest.raises(ValueError, match="n must be even, half of the points for each label, got 7"):
            make(jax.random.key(0), 7)

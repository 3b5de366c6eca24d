"""The self-organizing map: its rule by loops, the order that it keeps, and the topology that it finds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import kohonen
from tests.helpers import float64, random, strict

update = jax.jit(kohonen.update)


def by_loops(w: np.ndarray, x: np.ndarray, rate: float, radius: float) -> np.ndarray:
    """One update of a grid (R, C, D)."""
    rows, columns, _ = w.shape
    distances = np.array([[np.sum((w[i, j] - x) ** 2) for j in range(columns)] for i in range(rows)])
    r, c = divmod(int(distances.argmin()), columns)
    new = w.copy()
    for i in range(rows):
        for j in range(columns):
            pull = rate * np.exp(-((i - r) ** 2 + (j - c) ** 2) / (2 * radius**2))
            new[i, j] += pull * (x - w[i, j])
    return new


def test_an_update_by_loops() -> None:
    w, xs = random(0, 3, 4, 2), random(1, 20, 2)
    with float64(), strict():
        for x in xs:
            expected = by_loops(w, x, 0.3, 0.8)
            w = np.asarray(update(w, x, rate=0.3, radius=0.8))
            np.testing.assert_allclose(w, expected, rtol=1e-12)


def test_a_fit_is_its_updates() -> None:
    w, x, key = random(2, 2, 3, 2), random(3, 9, 2), jax.random.key(0)
    rates, radii = np.linspace(0.5, 0.1, 30), np.linspace(2, 0.5, 30)
    with float64():
        found = kohonen.fit(w, x, key=key, rates=rates, radii=radii)
        for i, rate, radius in zip(np.asarray(jax.random.randint(key, (30,), 0, 9)), rates, radii, strict=True):
            w = by_loops(w, x[i], rate, radius)
        np.testing.assert_allclose(found, w, rtol=1e-10)


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.floats(0.3, 5))
def test_a_chain_in_order_stays_in_order(seed: int, rate: float, radius: float) -> None:
    """In one dimension an order, once reached, is never lost: for any examples, rate <= 1 and radius."""
    numbers = np.random.default_rng(seed)
    w = np.sort(numbers.standard_normal(8))
    with float64():
        for x in numbers.standard_normal(10):
            w = np.asarray(update(w[:, None], np.array([x]), rate=rate, radius=radius))[:, 0]
            assert (np.diff(w) >= -1e-14).all()


def test_a_neighbourhood_that_grows_loses_the_order() -> None:
    w, x = np.array([0.0, 1.0, 2.0, 3.0]), 0.1
    grows = np.array([0.2, 0.4, 0.9, 1.0])  # the farther from the nearest unit, the more
    assert (np.diff(w + grows * (x - w)) < 0).any()


@pytest.fixture(scope="module")
def square() -> dict[str, Any]:
    """Maps (8, 8) of the unit square: with a neighbourhood that shrinks, and without one."""
    x = jax.random.uniform(jax.random.key(0), (2000, 2))
    start = jax.random.choice(jax.random.key(1), x, (8, 8))
    steps = 6000
    rates = jnp.geomspace(0.5, 0.05, steps)
    maps = {
        name: kohonen.fit(start, x, key=jax.random.key(2), rates=rates, radii=radii)
        for name, radii in (("map", jnp.geomspace(4, 0.5, steps)), ("alone", jnp.full(steps, 0.01)))
    }
    return {"x": x, "start": start, **maps}


@pytest.mark.slow
def test_it_unfolds_over_a_square(square: dict[str, Any]) -> None:
    x = square["x"]
    assert kohonen.topographic_error(square["start"], x) > 0.7
    assert kohonen.topographic_error(square["map"], x) < 0.01
    assert kohonen.topographic_error(square["alone"], x) > 0.7, "without a neighbourhood: k-means, no order"
    errors = [float(kohonen.quantization_error(square[name], x)) for name in ("start", "map", "alone")]
    assert errors[2] < 0.9 * errors[0]
    assert errors[1] < 0.9 * errors[0]
    step = np.diff(np.asarray(square["map"]), axis=0)
    side = np.diff(np.asarray(square["map"]), axis=1)
    areas = step[:, :-1, 0] * side[:-1, :, 1] - step[:, :-1, 1] * side[:-1, :, 0]
    assert (np.sign(areas) == np.sign(areas[0, 0])).all(), "no mesh is folded over"


def test_errors_by_brute_force() -> None:
    w, x = random(6, 8, 8, 2), random(7, 50, 2)
    distances = np.linalg.norm(x[:, None] - w.reshape(1, -1, 2), axis=-1)
    order = distances.argsort(axis=1)
    assert (np.asarray(kohonen.winners(w, x)) == order[:, 0]).all()
    apart = [max(abs(i // 8 - j // 8), abs(i % 8 - j % 8)) > 1 for i, j in order[:, :2]]
    assert kohonen.topographic_error(w, x) == pytest.approx(np.mean(apart))
    assert kohonen.quantization_error(w, x) == pytest.approx(distances.min(axis=1).mean(), rel=1e-5)


def test_dtypes_and_transformations() -> None:
    x, w = random(4, 10, 2), random(5, 3, 3, 2)
    key, rates = jax.random.key(0), jnp.full(5, 0.1)
    for dtype in (np.float64, jnp.bfloat16):
        assert kohonen.fit(w, x.astype(dtype), key=key, rates=rates, radii=rates).dtype == jnp.float32
    with float64(), strict():
        assert kohonen.fit(w, x, key=key, rates=rates, radii=rates).dtype == jnp.float64
    keys = jax.random.split(key, 3)
    many = jax.vmap(lambda key: kohonen.fit(w, x, key=key, rates=rates, radii=rates))(keys)
    np.testing.assert_allclose(many[1], kohonen.fit(w, x, key=keys[1], rates=rates, radii=rates), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: kohonen.fit(np.ones((2, 2)), np.ones((3, 2)), key=None, rates=[0.1], radii=[1.0]),
            "needs a random key",
        ),
        (
            lambda: kohonen.fit(np.ones((2, 2)), np.ones((3, 2)), key=jax.random.key(0), rates=[0.1], radii=1.0),
            r"rates and radii must be \(T,\)",
        ),
        (lambda: kohonen.winners(np.ones((2, 3)), np.ones((3, 2))), r"got \(2, 3\) and \(3, 2\)"),
        (lambda: kohonen.winners(np.ones((1, 2)), np.ones((3, 2))), "at least two units"),
        (lambda: kohonen.positions((3, 0)), "grid must be at least 1"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_tiny_neighbourhoods_move_the_nearest_unit_only() -> None:
    w = kohonen.update(jnp.array([[0.0], [4.0]]), jnp.array([1.0]), rate=0.5, radius=1e-30)
    np.testing.assert_array_equal(w, [[0.5], [4.0]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: kohonen.positions(()), "such as"),
        (
            lambda: kohonen.update(jnp.ones((2, 1)), jnp.ones(1), rate=0.5, radius=0.0),
            "radius must be a finite number > 0",
        ),
        (lambda: kohonen.update(jnp.ones((2, 1)), jnp.ones(2), rate=0.5, radius=1.0), "an example x \\(D,\\)"),
        (
            lambda: kohonen.fit(np.ones((2, 1)), np.ones((3, 1)), key=jax.random.key(0), rates=[2.0], radii=[1.0]),
            "rates must lie in \\[0, 1\\]",
        ),
        (
            lambda: kohonen.fit(np.ones((2, 1)), np.ones((3, 1)), key=jax.random.key(0), rates=[0.1], radii=[0.0]),
            "radii must be > 0",
        ),
        (lambda: kohonen.winners([[np.nan], [1.0]], [[1.0]]), "w must be finite, but row 0"),
    ],
)
def test_settings_out_of_range_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

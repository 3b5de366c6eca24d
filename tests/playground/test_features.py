"""The seven features against NumPy, and what is said of wrong names."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.playground.features import FEATURES, featurize
from tests.helpers import float64, random

ORACLES = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "x2": lambda x, y: x**2,
    "y2": lambda x, y: y**2,
    "xy": lambda x, y: x * y,
    "sinx": lambda x, y: np.sin(x),
    "siny": lambda x, y: np.sin(y),
}
POINTS = 6 * random(0, 50, 2)


def all_features() -> np.ndarray:
    with float64():
        return np.asarray(jax.jit(lambda p: featurize(tuple(FEATURES), p))(jnp.asarray(POINTS)))


@pytest.mark.parametrize("column", range(7))
def test_a_feature_is_its_formula(column: int) -> None:
    name = list(FEATURES)[column]
    np.testing.assert_allclose(all_features()[:, column], ORACLES[name](*POINTS.T), rtol=1e-14)


@given(st.lists(st.sampled_from(sorted(ORACLES)), min_size=1, unique=True))
def test_columns_come_in_the_order_of_the_names(names: list[str]) -> None:
    made = featurize(tuple(names), jnp.array([[0.5, 2.0]]))
    np.testing.assert_allclose(made[0], [ORACLES[name](0.5, 2.0) for name in names], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "points", "text"),
    [
        (("z",), (3, 2), "no feature 'z'; there are: x, y, x2, y2, xy, sinx, siny"),
        ((), (3, 2), "at least one, none repeated, got none"),
        (("x", "x"), (3, 2), "none repeated, got x,x"),
        (("x",), (3, 3), r"points must have shape \(N, 2\), got \(3, 3\)"),
        (("x",), (2,), r"points must have shape \(N, 2\), got \(2,\)"),
    ],
)
def test_bad_arguments_are_named(names: tuple[str, ...], points: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        featurize(names, jnp.zeros(points))


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="points must have a floating dtype, got int32"):
        featurize(("x",), jnp.zeros((3, 2), jnp.int32))

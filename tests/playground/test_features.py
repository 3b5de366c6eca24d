"""The seven features against NumPy, and what is said of wrong names."""

from __future__ import annotations

import jax
import numpy as np
import pytest

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


def test_features_are_their_formulas_in_the_order_of_their_names() -> None:
    some = (tuple(FEATURES), ("siny",), ("y2", "x", "sinx"), tuple(reversed(FEATURES)))
    with float64():
        found = jax.device_get(jax.jit(lambda p: [featurize(names, p) for names in some])(POINTS))
    for names, columns in zip(some, found, strict=True):
        expected = np.stack([ORACLES[name](*POINTS.T) for name in names], axis=1)
        np.testing.assert_allclose(columns, expected, rtol=1e-14, err_msg=str(names))


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
        featurize(names, np.zeros(points, np.float32))


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="points must have a floating dtype, got int32"):
        featurize(("x",), np.zeros((3, 2), np.int32))

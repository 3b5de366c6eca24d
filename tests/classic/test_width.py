"""Wider networks fit better."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import width


def test_errors_are_those_of_the_outputs() -> None:
    outputs = np.array([[[1.0, 0.0], [0.0, 0.5]]])
    found = width.Approximations(np.array([3]), np.array([0.0, 1.0]), np.zeros(2), outputs)
    np.testing.assert_allclose(found.rms, [[np.sqrt(0.5), np.sqrt(0.125)]])
    np.testing.assert_allclose(found.largest, [[1.0, 0.5]])


@pytest.mark.slow
def test_more_units_fit_better() -> None:
    found = width.approximate(widths=(1, 16), seeds=3, epochs=250)
    assert found.outputs.shape == (2, 3, 128)
    few, many = np.median(found.rms, axis=1)
    assert few > 0.4
    assert many < 0.2
    np.testing.assert_allclose(found.y, np.sin(3 * np.pi * found.x) + found.x / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        (8, r"widths must be a sequence of ints, such as \(8,\), got 8"),
        ((), "widths must hold at least one number of hidden units"),
        ((4, 0), "each of widths must be at least 1, got 0"),
        ((4.5,), "each of widths must be an int, got 4.5"),
    ],
    ids=str,
)
def test_bad_input_is_named(widths: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        width.approximate(widths=widths)


@pytest.mark.slow
def test_a_tanh_is_fitted_by_one_unit() -> None:
    found = width.approximate(lambda x: jnp.tanh(3 * x), widths=(1,), seeds=4, epochs=250)
    assert found.largest.min() < 0.05


@pytest.mark.slow
def test_the_error_falls_with_every_doubling() -> None:
    medians = np.median(width.approximate().rms, axis=1)
    assert (np.diff(medians) < 0).all()
    assert medians[-1] < 0.03

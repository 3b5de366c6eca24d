"""The McCulloch-Pitts unit against its definition, and the checks that all single units share."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import neurons
from tests.helpers import float64, strict

TABLE = np.array(list(itertools.product((0, 1), repeat=5)))

fires = jax.jit(lambda x, w, theta, brakes: neurons.mcculloch_pitts(x, w, theta, inhibitory=brakes))


def by_definition(x: Any, weights: Any, threshold: float, brakes: Any) -> float:
    """One row, in Python."""
    excitation = sum(w * v for w, v in zip(weights, x, strict=True))
    return float(excitation >= threshold and not any(brakes))


@given(weights=st.lists(st.integers(0, 4), min_size=3, max_size=3), threshold=st.integers(-1, 13))
def test_it_fires_at_its_threshold_unless_inhibited(weights: list[int], threshold: int) -> None:
    x, brakes = TABLE[:, :3], TABLE[:, 3:]
    expected = [by_definition(*row) for row in zip(x, [weights] * 32, [threshold] * 32, brakes, strict=True)]
    assert np.asarray(fires(x, np.array(weights), threshold, brakes)).tolist() == expected
    # Absolute inhibition is one large negative weight: a brake outweighs all excitation.
    signed = x @ np.array(weights) - (sum(weights) + 20) * brakes.sum(axis=1)  # thresholds are above -20
    assert (signed >= threshold).astype(float).tolist() == expected


def test_the_threshold_is_reached_not_passed() -> None:
    assert neurons.mcculloch_pitts([1, 1, 0], [1, 1, 1], 2) == 1
    assert neurons.mcculloch_pitts([1, 1, 0], [1, 1, 1], 2.5) == 0


def test_the_always_on_feature_is_the_first() -> None:
    with float64(), strict():
        x = jnp.array([[2.0, 3.0]])
        got = neurons.with_bias(x)
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, [[1.0, 2.0, 3.0]])
    assert neurons.with_bias(np.zeros((4, 5, 2), np.int8)).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: neurons.mcculloch_pitts([0, 2], [1, 1], 1), "each of x must be 0 or 1, got 2"),
        (lambda: neurons.mcculloch_pitts([0, 1], [1, 1, 1], 1), r"got weights \(3,\) and x \(2,\)"),
        (lambda: neurons.mcculloch_pitts([0, 1], [1, -1], 1), "weights must be >= 0, got -1"),
        (lambda: neurons.mcculloch_pitts([0, 1], [1, 1], 1, inhibitory=[[1]]), r"inhibitory \(1, 1\)"),
        (lambda: neurons.mcculloch_pitts([0, 1], [1, 1], 1, inhibitory=[0.5]), "each of inhibitory must be 0 or 1"),
        (lambda: neurons.mcculloch_pitts([0, 1], [1, 1], [1, 2]), "threshold must be"),
        (lambda: neurons.as_examples("f", np.zeros((2, 2, 1)), np.zeros(2)), "Flatten images by"),
        (lambda: neurons.as_examples("f", np.zeros((2, 2)), np.zeros((2, 1))), r"y \(2, 1\)"),
        (lambda: neurons.as_examples("f", np.zeros((2, 2)), np.zeros((2, 1))), r"by y\[:, 0\], one-hot labels by"),
        (lambda: neurons.as_examples("f", [[0.0], [np.nan]], [1, 1]), "f: x must be finite, but row 1 is not"),
        (lambda: neurons.as_examples("f", [[1j]], [1]), "x must hold real numbers, got dtype complex128"),
        (lambda: neurons.as_examples("f", [["a"]], [1]), "x must hold real numbers, got dtype <U1"),
        (lambda: neurons.as_examples("f", None, [1]), "x must hold real numbers, got dtype object"),
        (lambda: neurons.outputs("f", [1, 2], [[1, 2, 3]]), r"got w \(2,\) and x \(1, 3\). .* with_bias\(x\)"),
        (lambda: neurons.as_signs("f", np.zeros((2, 2)), np.array([1, 0])), "f: labels must be -1 or"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_traced_labels_that_are_no_signs_become_nan() -> None:
    signs = jax.jit(lambda x, y: neurons.as_signs("f", x, y)[1])(jnp.zeros((3, 1)), jnp.array([1, 0, -1]))
    assert np.isnan(signs).tolist() == [False, True, False]

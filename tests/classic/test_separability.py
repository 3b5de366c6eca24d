"""Linear programs decide separability, with proofs that are checked; Rosenblatt's rule agrees."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import perceptron, separability
from jaxnn.classic.neurons import with_bias
from tests.helpers import random

CORNERS = np.array(list(itertools.product((0, 1), repeat=2)))
FEATURES = np.asarray(with_bias(CORNERS))
XOR = np.array([-1, 1, 1, -1])


def check_proof(found: separability.Separability, x: np.ndarray, y: np.ndarray) -> None:
    """Either weights that are right about every example, or shares that forbid them; never both."""
    if found.separable:
        assert found.certificate is None
        assert (y * (x @ found.w) >= 1 - 1e-6).all()
    else:
        assert found.w is None
        assert (found.certificate >= 0).all()
        assert found.certificate.sum() == pytest.approx(1)
        np.testing.assert_allclose((found.certificate * y) @ x, 0, atol=1e-7)


def test_of_the_sixteen_functions_of_two_inputs_only_xor_and_its_complement_are_inseparable() -> None:
    failing = []
    for labels in itertools.product((-1, 1), repeat=4):
        y = np.array(labels)
        found = separability.separate(FEATURES, y)
        check_proof(found, FEATURES, y)
        fitted = perceptron.fit(FEATURES, y)
        assert found.separable == bool(fitted.converged) == (not fitted.cycles)
        if not found.separable:
            failing.append(labels)
    assert failing == [tuple(XOR), tuple(-XOR)]


def test_inputs_of_minus_one_and_one_do_not_help_and_a_product_does() -> None:
    signed = np.asarray(with_bias(2 * CORNERS - 1))
    assert not separability.separate(signed, XOR).separable
    assert separability.separate(np.column_stack([FEATURES, CORNERS.prod(axis=1)]), XOR).separable


@given(seed=st.integers(0, 10**6), n=st.sampled_from([4, 8]))
def test_random_examples_come_with_a_proof(seed: int, n: int) -> None:
    x, y = np.concatenate([np.ones((n, 1)), random(seed, n, 2)], axis=1), np.sign(random(seed + 1, n))
    check_proof(separability.separate(x, y), x, y)


def test_xor_repeats_its_weights() -> None:
    cycle = separability.repeated_weights(FEATURES, XOR)
    assert cycle is not None
    assert (cycle.again - cycle.first) % len(XOR) == 0
    np.testing.assert_array_equal(cycle.weights[cycle.first], cycle.weights[cycle.again])
    np.testing.assert_array_equal(cycle.weights[cycle.first], cycle.w)
    assert len(np.unique(cycle.weights[cycle.first : cycle.again], axis=0)) > 1  # it moved in between
    # Once round is round for ever: the next rounds are the same steps.
    length = cycle.again - cycle.first
    weights = np.asarray(perceptron.trace(FEATURES, XOR, passes=(cycle.again + 3 * length) // 4)[0])
    for step in range(cycle.first, cycle.again):
        np.testing.assert_array_equal(weights[step], weights[step + 2 * length])
    # No weights of the cycle are right about all four.
    for w in cycle.weights:
        assert (np.asarray(perceptron.predict(w, FEATURES)) != XOR).any()


def test_the_first_repetition_is_the_first() -> None:
    cycle = separability.repeated_weights(FEATURES, XOR)
    met = [(step % 4, tuple(w)) for step, w in enumerate(cycle.weights)]
    assert len(set(met[:-1])) == len(met) - 1
    assert met[cycle.first] == met[cycle.again]


def test_a_rule_that_converges_repeats_nothing() -> None:
    assert separability.repeated_weights(FEATURES, [-1, -1, -1, 1]) is None
    assert separability.repeated_weights(FEATURES, [1, 1, 1, 1]) is None
    assert separability.repeated_weights(FEATURES, XOR, passes=2) is None  # too few to see it


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: separability.separate(FEATURES, [0, 1, 1, 0]), "labels must be -1 or .1, got 0"),
        (lambda: separability.separate(CORNERS[0], XOR), r"x \(2,\)"),
        (lambda: separability.repeated_weights(FEATURES, XOR, passes=0), "passes must be at least 1"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

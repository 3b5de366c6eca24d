"""Linear programs decide separability, with proofs that are checked; Rosenblatt's rule agrees."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import boolean, gates, perceptron, separability
from jaxnn.classic.neurons import with_bias
from tests.helpers import random, slow

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


COUNTS = {1: 4, 2: 14, 3: 104, 4: 1882}
"""Linearly separable functions of n inputs: Muroga (1971), Threshold logic and its applications."""


def check_functions(found: separability.BooleanFunctions, n: int) -> None:
    """Every table is there; weights give exactly their table; a crossing excludes all weights."""
    rows = boolean.inputs(n)
    assert len(np.unique(found.tables, axis=0)) == len(found.tables) == 2**2**n
    outputs = found.w[found.separable] @ np.asarray(with_bias(rows)).T
    assert (np.abs(outputs) >= 0.5).all()
    np.testing.assert_array_equal(outputs > 0, found.tables[found.separable])
    assert np.isnan(found.w[~found.separable]).all()
    assert (found.crossing[found.separable] == -1).all()
    a, b, c, d = found.crossing[~found.separable].T
    np.testing.assert_array_equal(rows[a] + rows[b], rows[c] + rows[d])
    proven, each = found.tables[~found.separable], np.arange((~found.separable).sum())
    assert (proven[each, a] & proven[each, b] & ~proven[each, c] & ~proven[each, d]).all()


@pytest.mark.parametrize("n", COUNTS)
def test_all_boolean_functions(n: int) -> None:
    found = separability.boolean_functions(n)
    assert found.separable.sum() == COUNTS[n]
    check_functions(found, n)


@pytest.mark.parametrize(("n", "step"), [(2, 1), (3, 5), *slow((3, 1), (4, 127))])
def test_linear_programs_agree(n: int, step: int) -> None:
    found, features = separability.boolean_functions(n), with_bias(boolean.inputs(n))
    for table, single in zip(found.tables[::step], found.separable[::step], strict=True):
        assert separability.separate(features, 2 * table.astype(int) - 1).separable == single


def test_one_unit_computes_what_its_weights_say() -> None:
    found = separability.boolean_functions(3)
    majority = int("00010111", 2)
    np.testing.assert_array_equal(found.w[majority], [-1.5, 1, 1, 1])
    unit = gates.unit(found.w[majority, 1:], found.w[majority, 0])
    np.testing.assert_array_equal(boolean.truth_table(unit, 3), found.tables[majority])
    assert np.abs(found.w[np.isfinite(found.w[:, 0]), 1:]).max() == 2  # such as A(B + C): 2 A + B + C > 5/2


@pytest.mark.parametrize(
    "broken",
    [
        lambda found: found._replace(w=-found.w),
        lambda found: found._replace(tables=found.tables[::-1]),
        lambda found: found._replace(crossing=found.crossing[:, [2, 1, 0, 3]]),
        lambda found: found._replace(separable=found.separable | (np.arange(len(found.tables)) == 6)),
    ],
    ids=["signs", "order", "crossing", "XOR separable"],
)
def test_broken_proofs_are_found(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_functions(broken(separability.boolean_functions(2)), 2)


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
        (lambda: separability.boolean_functions(5), "at most 4 inputs, got 5"),
        (lambda: separability.boolean_functions(0), "n must be at least 1, got 0"),
        (lambda: separability.separate(FEATURES, [0, 1, 1, 0]), "labels must be -1 or .1, got 0"),
        (lambda: separability.separate(CORNERS[0], XOR), r"x \(2,\)"),
        (lambda: separability.repeated_weights(FEATURES, XOR, passes=0), "passes must be at least 1"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_features_of_very_different_scales() -> None:
    for scale in (1e-12, 1e20):
        x = np.array([[1.0, scale], [1.0, 0.0]])
        found = separability.separate(x, [1, -1])
        assert found.separable
        assert found.w is not None
        assert (np.array([1, -1]) * (x @ found.w)).min() > 0.99

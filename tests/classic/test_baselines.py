"""Least squares against NumPy's, nearest neighbours against sorting all distances."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data
from jaxnn.classic import baselines, multiclass
from jaxnn.classic.neurons import with_bias
from tests.helpers import assert_close, float64, random, strict

CLASSES = 3
X = np.concatenate([np.ones((50, 1)), random(0, 50, 4)], axis=1)
LABELS = np.arange(50) % CLASSES


def ridge_regression(x: np.ndarray, d: np.ndarray, ridge: float) -> np.ndarray:
    """argmin (1/N) |x w - d|^2 + ridge |w|^2, as least squares of a taller system."""
    n, columns = x.shape
    tall = np.concatenate([x, np.sqrt(n * ridge) * np.eye(columns)])
    return np.linalg.lstsq(tall, np.concatenate([d, np.zeros((columns, *d.shape[1:]))]), rcond=None)[0]


@pytest.mark.parametrize("ridge", [1e-9, 0.3])
def test_least_squares_are_numpys(ridge: float) -> None:
    with float64():
        got = baselines.least_squares(X, LABELS, CLASSES, ridge=ridge)
        assert_close(got, ridge_regression(X, 2 * np.eye(CLASSES)[LABELS] - 1, ridge), rtol=1e-7, atol=1e-9)


def test_each_pair_has_the_least_squares_unit_of_its_own_examples() -> None:
    with float64():
        got = baselines.pairwise_least_squares(X, LABELS, CLASSES, ridge=0.1)
    for column, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        mine = np.isin(LABELS, (a, b))
        expected = ridge_regression(X[mine], np.where(a == LABELS[mine], 1.0, -1.0), 0.1)
        assert_close(got[:, column], expected, rtol=1e-9)


def test_duels_are_counted_for_both_sides() -> None:
    # Four classes; the outputs of (0,1), (0,2), (0,3), (1,2), (1,3), (2,3) stand in for w.x, large ones count as 1.
    outputs = np.array([[9, -1, -1, 0.5, 0.5, -0.9], [-0.1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, -0.1]])
    got = baselines.pairwise_predict(np.eye(6), outputs, 4)
    assert got.tolist() == [3, 1, 3]


@pytest.mark.slow
def test_features_that_never_vary_do_no_harm_in_float32() -> None:
    digits = data.load("digits")
    x, test = (with_bias(d.x.reshape(len(d), -1)) for d in (digits.train, digits.validation))
    assert (np.asarray(x).std(axis=0) == 0).sum() > 1  # some pixels are always 0
    w = baselines.least_squares(x, digits.train.y, 10)
    assert np.isfinite(w).all()
    one = (np.asarray(multiclass.predict(w, test)) != digits.validation.y).mean()
    units = baselines.pairwise_least_squares(x, digits.train.y, 10)
    pairs = (np.asarray(baselines.pairwise_predict(units, test, 10)) != digits.validation.y).mean()
    assert pairs < one < 0.12


@given(seed=st.integers(0, 10**6))
def test_neighbours_are_those_of_sorted_distances(seed: int) -> None:
    # Small whole numbers: exact, and full of ties, which go to the first.
    points, x = (np.round(2 * random(seed + i, n, 2)) for i, n in enumerate((40, 7)))
    distances = ((x[:, None] - points[None]) ** 2).sum(axis=-1)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :5]
    for batch_size in (3, 500):
        np.testing.assert_array_equal(baselines.nearest(x, points, k=5, batch_size=batch_size), expected)


@given(labels=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=1))
def test_the_majority_wins_and_among_equals_the_nearest(labels: list[list[int]]) -> None:
    counts = Counter(labels[0])
    expected = max(labels[0], key=lambda c: (counts[c], -labels[0].index(c)))
    assert baselines.vote(np.array(labels), 4).tolist() == [expected]


def test_one_neighbour_of_the_training_set_is_itself() -> None:
    which = baselines.nearest(X, X, k=1, batch_size=16)
    assert which[:, 0].tolist() == list(range(50))


@pytest.mark.slow
def test_neighbours_know_handwritten_digits() -> None:
    digits = data.load("digits")
    queries, points = (d.x.reshape(len(d), -1) for d in (digits.validation, digits.train))
    labels = jnp.asarray(digits.train.y)[baselines.nearest(queries, points, k=3)]
    wrong = (np.asarray(baselines.vote(labels, 10)) != digits.validation.y).mean()
    assert wrong < 0.03


@pytest.mark.slow
def test_promotions_are_strict() -> None:
    with float64(), strict():
        assert baselines.least_squares(X, LABELS, CLASSES).dtype == jnp.float64
        units = baselines.pairwise_least_squares(X, LABELS, CLASSES)
        assert units.dtype == jnp.float64
        assert baselines.pairwise_predict(units, X, CLASSES).dtype == jnp.int32
        which = jax.jit(lambda x: baselines.nearest(x, X, k=2, batch_size=20))(X)
        assert baselines.vote(jnp.asarray(LABELS)[which], CLASSES).dtype == jnp.int32


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: baselines.least_squares(X, LABELS, 2), r"labels must lie in \[0, 2\), got 2"),
        (lambda: baselines.least_squares(X, LABELS, CLASSES, ridge=-1.0), "ridge must be a finite number > 0, got -1"),
        (lambda: baselines.least_squares(X, LABELS, CLASSES, ridge=0), "ridge must be a finite number > 0, got 0"),
        (lambda: baselines.pairwise_least_squares(X, LABELS, CLASSES, ridge=0.0), "ridge must be a finite number > 0"),
        (lambda: baselines.pairwise_predict(np.ones((5, 0)), X, 1), "classes must be at least 2, got 1"),
        (lambda: baselines.nearest([[1.0] * 5, [np.nan] * 5], X, k=1), "x must be finite, but row 1 is not"),
        (lambda: baselines.nearest(X, [[1.0] * 5, [np.inf] * 5], k=1), "points must be finite, but row 1 is not"),
        (lambda: baselines.pairwise_predict(np.ones((5, 4)), X, CLASSES), "w must have 3 columns"),
        (lambda: baselines.nearest(X, X[:, :2], k=1), r"got \(50, 5\) and \(50, 2\)"),
        (lambda: baselines.nearest(X, X, k=51), "k must be at most the number of points, 50, got 51"),
        (lambda: baselines.vote(np.zeros(3, int), 2), r"must have shape \(N, k\)"),
        (lambda: baselines.vote(np.zeros((3, 0), int), 2), r"must have shape \(N, k\), k >= 1, got \(3, 0\)"),
        (lambda: baselines.vote(np.zeros((3, 2)), 2), "labels must have an integer dtype, got float32"),
        (lambda: baselines.vote(np.array([[0, 2]]), 2), r"labels must lie in \[0, 2\), got 2 at index \(0, 1\)"),
        (lambda: baselines.vote(np.array([[0, -1]]), 2), r"labels must lie in \[0, 2\), got -1"),
        (lambda: baselines.vote(np.zeros((3, 2), int), 0), "classes must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()

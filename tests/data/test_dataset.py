"""Datasets and their splits."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.data import Dataset, make_dataset, select, split


def numbered(n: int, classes: int = 3) -> Dataset:
    """A dataset whose x tells the number of the example."""
    labels = np.random.default_rng(n).integers(0, classes, n)
    return make_dataset(np.arange(n)[:, None], labels, name="numbered", classes=[str(c) for c in range(classes)])


def check_partition(parts, n: int) -> None:
    """Every example in exactly one part."""
    numbers = np.concatenate([part.x[:, 0] for part in parts])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(n))


@given(st.integers(3, 60), st.integers(0, 5), st.booleans())
def test_parts_are_disjoint_and_exhaustive_and_keep_labels(n, seed, stratify):
    data = numbered(n)
    parts = split(data, (n - 2, 1, 1), seed=seed, stratify=stratify)
    assert [len(part) for part in parts] == [n - 2, 1, 1]
    check_partition(parts, n)
    for part in parts:
        assert (part.name, part.classes) == (data.name, data.classes)
        np.testing.assert_array_equal(part.y, data.y[part.x[:, 0].astype(int)])


def test_the_partition_check_catches_overlap_and_loss():
    data = numbered(10)
    overlapping = (select(data, slice(0, 6)), select(data, slice(5, 10)))
    lossy = (select(data, slice(0, 5)), select(data, slice(6, 10)))
    for parts in (overlapping, lossy):
        with pytest.raises(AssertionError):
            check_partition(parts, 10)


def test_a_seed_gives_one_split_and_another_seed_another():
    data = numbered(100)
    first, again, other = (split(data, (0.7, 0.3), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[1].x, again[1].x)
    assert not np.array_equal(first[1].x, other[1].x)
    assert not np.array_equal(first[0].x, np.sort(first[0].x, axis=0)), "examples must come in random order"


@given(st.integers(20, 300), st.integers(0, 5), st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (0.8, 0.1, 0.1)]))
def test_stratified_parts_hold_each_class_in_proportion(n, seed, sizes):
    data = numbered(n)
    parts = split(data, sizes, seed=seed, stratify=True)
    check_partition(parts, n)
    for part in parts:
        exact = np.bincount(data.y, minlength=3) * len(part) / n
        assert np.abs(np.bincount(part.y, minlength=3) - exact).max() < 2


def test_each_example_is_as_likely_in_a_part_as_any_other():
    data = numbered(12, classes=2)
    for stratify in (False, True):
        drawn = np.concatenate([split(data, (9, 3), seed=s, stratify=stratify)[1].x[:, 0] for s in range(2000)])
        share = np.bincount(drawn.astype(int), minlength=12) / 2000
        if not stratify:
            assert np.abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)
        for label in (0, 1):
            mine = share[data.y == label]
            assert np.abs(mine - mine.mean()).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


@pytest.mark.parametrize(
    ("n", "sizes", "counts"),
    [
        (10, (0.6, 0.2, 0.2), [6, 2, 2]),
        (10, (1 / 3, 1 / 3, 1 / 3), [4, 3, 3]),
        (7, (0.5, 0.5), [4, 3]),
        (100, (0.29, 0.71), [29, 71]),
    ],
)
def test_fractions_are_rounded_by_largest_remainder(n, sizes, counts):
    assert [len(part) for part in split(numbered(n), sizes, seed=0)] == counts


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((), "one count >= 0 or fraction"),
        ((5, -1, 6), "one count >= 0 or fraction"),
        ((float("nan"), 0.5), "one count >= 0 or fraction"),
        ((5, 4), "counts must add up to 10, got .*: they add up to 9"),
        ((0.5, 0.4), "fractions must add up to 1, got .*: they add up to 0.9"),
        ((10, 0), r"each part must have at least one example.*\[10, 0\]"),
        ((0.99, 0.01), r"each part must have at least one example.*\[10, 0\]"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        split(numbered(10), sizes, seed=0)


def test_stratify_needs_labels_and_seeds_are_whole():
    regression = make_dataset(np.zeros((4, 1)), np.array([0.5, 1.0, 2.0, 3.0]))
    assert regression.y.dtype == np.float32
    with pytest.raises(ValueError, match="stratify needs integer labels, got float32"):
        split(regression, (2, 2), seed=0, stratify=True)
    with pytest.raises(TypeError, match="seed must be an int"):
        split(regression, (2, 2), seed=0.5)


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        (
            np.zeros((3, 8, 8)),
            np.zeros(3, int),
            (),
            r"images \(N, H, W, C\) or vectors \(N, D\), got shape \(3, 8, 8\)",
        ),
        (np.zeros((3, 2)), np.zeros((3, 1), int), (), r"y must have shape \(3,\).*got \(3, 1\)"),
        (np.zeros((3, 2)), np.zeros(2, int), (), r"y must have shape \(3,\).*got \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), (), "at least 1 example, got none"),
        (np.zeros((2, 2)), np.array([0, 2]), ("a", "b"), r"in 0 .. 1 for 2 classes.*from 0 to 2"),
        (np.zeros((2, 2)), np.array([-1, 0]), ("a", "b"), "from -1 to 0"),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), ("a", "b"), "must be integers"),
    ],
)
def test_bad_arrays_are_refused(x, y, classes, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(x, y, classes=classes)


def test_bytes_are_scaled_to_the_unit_interval():
    data = make_dataset(np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1), np.zeros(64, np.uint8), levels=255)
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(data.x.ravel(), np.arange(256, dtype=np.float32) / np.float32(255))
    assert (data.x.min(), data.x.max()) == (0, 1)


def test_a_dataset_is_a_pytree_of_its_arrays():
    data = jax.device_put(numbered(5))
    assert isinstance(data.x, jax.Array)
    assert len(jax.tree.leaves(data)) == 2
    doubled = jax.jit(lambda d: jax.tree.map(lambda a: 2 * a, d))(data)
    np.testing.assert_array_equal(doubled.x, 2 * data.x)
    assert (doubled.name, doubled.classes) == ("numbered", ("0", "1", "2"))

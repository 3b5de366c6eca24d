"""Minibatches: every example once an epoch, uniform permutations, both rules for the last batch."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnn.data import Partial, batch_indices, make_dataset, take
from tests.helpers import strict

KEY = jax.random.key(0)


def check_epoch(epoch, n: int, batch_size: int, partial: Partial) -> None:
    """Shapes, dtypes, and each example at most once with weight 1; all of them unless dropped."""
    indices, weights = epoch
    steps = n // batch_size if partial is Partial.DROP else -(-n // batch_size)
    assert indices.shape == weights.shape == (steps, batch_size)
    assert (indices.dtype, weights.dtype) == (jnp.int32, jnp.float32)
    flat, weight = np.asarray(indices).ravel(), np.asarray(weights).ravel()
    assert set(weight) <= {0.0, 1.0}
    used = flat[weight == 1]
    assert len(set(used)) == len(used) == (steps * batch_size if partial is Partial.DROP else n)
    assert flat.min() >= 0
    assert flat.max() < n


def test_every_example_comes_once_an_epoch():
    cases = list(itertools.product([(10, 3), (10, 5), (10, 10), (10, 1), (1, 1), (7, 4)], Partial))
    epochs = jax.jit(lambda key: [batch_indices(key, *sizes, partial=partial) for sizes, partial in cases])(KEY)
    for (sizes, partial), epoch in zip(cases, epochs, strict=True):
        check_epoch(epoch, *sizes, partial)


def test_a_batch_larger_than_the_set_is_filled_up_with_weight_zero():
    indices, weights = jax.jit(lambda key: batch_indices(key, 3, 5, partial=Partial.WEIGHT))(KEY)
    assert indices.shape == (1, 5)
    assert weights.tolist() == [[1, 1, 1, 0, 0]]
    assert indices.tolist()[0][3:] == [0, 0]


def _with_replacement(key, n, batch_size, *, partial):
    indices, weights = batch_indices(key, n, batch_size, partial=partial)
    return jax.random.randint(key, indices.shape, 0, n), weights


def _filling_counted(key, n, batch_size, *, partial):
    indices, weights = batch_indices(key, n, batch_size, partial=partial)
    return indices, jnp.ones_like(weights)


def _last_batch_lost(key, n, batch_size, *, partial):
    return batch_indices(key, n, batch_size, partial=Partial.DROP)


@pytest.mark.parametrize("mutant", [_with_replacement, _filling_counted, _last_batch_lost])
def test_the_epoch_check_catches(mutant):
    epoch = jax.jit(lambda key: mutant(key, 10, 3, partial=Partial.WEIGHT))(KEY)
    with pytest.raises(AssertionError):
        check_epoch(epoch, 10, 3, Partial.WEIGHT)


def check_uniform(make) -> None:
    """All 24 orders of 4 examples are equally likely: chi-square over 4,800 keys, significance 1e-6."""
    draw = jax.vmap(lambda key: make(key, 4, 4, partial=Partial.DROP)[0][0])
    orders = jax.jit(lambda key: draw(jax.random.split(key, 4800)))(KEY)
    names = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([names[tuple(order)] for order in np.asarray(orders).tolist()], minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_permutations_are_uniform():
    check_uniform(batch_indices)


def test_the_uniformity_check_catches_a_mere_rotation():
    def rotated(key, n, batch_size, *, partial):
        return jnp.roll(jnp.arange(n), jax.random.randint(key, (), 0, n))[None], None

    with pytest.raises(AssertionError):
        check_uniform(rotated)


def test_another_key_drops_other_examples_and_gives_another_order():
    draw = jax.vmap(lambda seed: batch_indices(jax.random.key(seed), 10, 4, partial=Partial.DROP)[0].ravel())
    orders = set(map(tuple, np.asarray(jax.jit(draw)(np.arange(20))).tolist()))
    assert len(orders) == 20
    dropped = {frozenset(range(10)) - set(order) for order in orders}
    assert len(dropped) > 10
    assert all(len(d) == 2 for d in dropped)


def test_without_a_key_examples_come_in_order():
    indices, weights = batch_indices(None, 5, 2, partial=Partial.WEIGHT)
    assert indices.tolist() == [[0, 1], [2, 3], [4, 0]]
    assert weights.tolist() == [[1, 1], [1, 1], [1, 0]]


def test_a_weighted_mean_over_the_epoch_is_the_exact_mean():
    values = np.random.default_rng(0).normal(size=10).astype(np.float32)

    @jax.jit
    def means(key):
        epochs = [batch_indices(key, 10, batch_size, partial=Partial.WEIGHT) for batch_size in (1, 3, 10, 12)]
        return [jnp.sum(weights * take(values, indices)) / jnp.sum(weights) for indices, weights in epochs]

    np.testing.assert_allclose(means(KEY), [values.mean()] * 4, rtol=1e-6)


def test_inside_jit_scan_and_vmap_under_strict_promotion():
    data = jax.device_put(make_dataset(np.arange(20.0).reshape(10, 2), np.arange(10)))

    def epoch(key, data):
        def step(total, batch):
            indices, weights = batch
            part = take(data, indices)
            return total + jnp.sum(weights * part.x[:, 0]) + 0 * jnp.sum(part.y).astype(jnp.float32), None

        return jax.lax.scan(step, jnp.float32(0), batch_indices(key, 10, 3, partial=Partial.WEIGHT))[0]

    with strict():
        keys = jax.random.split(KEY, 4)
        totals = jax.jit(jax.vmap(epoch, in_axes=(0, None)))(keys, data)
    np.testing.assert_allclose(totals, [90.0] * 4)
    with jax.numpy_dtype_promotion("standard"):
        eager = batch_indices(KEY, 10, 3, partial=Partial.DROP)
        jitted = jax.jit(lambda k: batch_indices(k, 10, 3, partial=Partial.DROP))(KEY)
    np.testing.assert_array_equal(eager[0], jitted[0])


def test_take_gathers_from_every_leaf_and_keeps_dtypes():
    tree = {"x": np.arange(12.0).reshape(4, 3).astype(jnp.bfloat16), "y": (np.arange(4, dtype=np.int8), None)}
    got = jax.jit(take)(tree, np.array([3, 0]))
    np.testing.assert_array_equal(np.asarray(got["x"], np.float32), [[9, 10, 11], [0, 1, 2]])
    assert (got["x"].dtype, got["y"][0].dtype, got["y"][1]) == (jnp.bfloat16, jnp.int8, None)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: batch_indices(KEY, 0, 1, partial=Partial.DROP),
            ValueError,
            r"n \(the number of examples\) must be at least 1",
        ),
        (lambda: batch_indices(KEY, 5, 0, partial=Partial.DROP), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: batch_indices(KEY, 5, 2.0, partial=Partial.DROP), TypeError, "batch_size must be an int, got 2.0"),
        (
            lambda: batch_indices(KEY, 5, 6, partial=Partial.DROP),
            ValueError,
            "6 exceeds the 5 examples.*Use batch_size <= 5, or",
        ),
        (lambda: batch_indices(KEY, 5, 2, partial="drop"), TypeError, "Partial.DROP or Partial.WEIGHT, got 'drop'"),
        (lambda: batch_indices(0, 5, 2, partial=Partial.DROP), TypeError, "typed key, got 0"),
        (lambda: take(np.zeros(3), np.array([3])), ValueError, "lie in 0 .. 2 for 3 examples, got 3 to 3"),
        (lambda: take(np.zeros(3), np.array([-1, 0])), ValueError, "got -1 to 0"),
        (lambda: take(np.zeros(3), np.float32([1])), TypeError, "indices must be integers, got float32"),
        (lambda: take((np.zeros(3), np.zeros(4)), np.array([1])), ValueError, r"with the same N .* \(3,\), \(4,\)"),
        (
            lambda: take(np.zeros(()), np.array([0])),
            ValueError,
            r"arrays \(N, \.\.\.\) with the same N .* got shapes \(\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

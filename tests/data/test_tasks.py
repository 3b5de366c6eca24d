"""Synthetic tasks: each target by NumPy from the inputs, one example at a time; balance, labels, determinism."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses
from jaxnn.data import Draws, tasks
from tests.helpers import float64, strict

N = 64
TASKS = {
    "copying": tasks.copying(5, 4, 6, steps=1),
    "copying without blanks": tasks.copying(2, 1, 1, steps=1),
    "adding": tasks.adding(7, steps=1),
    "parity": tasks.parity(9, steps=1),
    "induction": tasks.induction(12, 6, steps=1),
    "the same twice": tasks.induction(6, 6, shortest=6, steps=1),
    "sorting": tasks.sorting(5, 6, steps=1),
    "dyck": tasks.dyck(3, 2, 12, steps=1),
    "deep dyck": tasks.dyck(1, 20, 10, steps=1),
}
TOKENS = [name for name in TASKS if name != "adding"]


@functools.cache
def drawn(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A batch of each task; one program."""
    batches = jax.jit(lambda tasks, key: {name: task.batch(key, N) for name, task in tasks.items()})
    with strict():
        return jax.tree.map(np.asarray, batches(TASKS, jax.random.key(seed)))


def recalled(x: np.ndarray) -> list[int]:
    """The symbols before the first blank or signal, where the signal was L positions before the end."""
    length = next(i for i, token in enumerate(x) if token >= x.max() - 1)
    assert x[-length - 1] == x.max()
    return [-1] * (len(x) - length) + x[:length].tolist()


def odd(x: np.ndarray) -> list[int]:
    return [sum(x[: t + 1]) % 2 for t in range(len(x))]


def followed(x: np.ndarray) -> list[int]:
    """The token after the previous occurrence, in the second half."""
    half = len(x) // 2
    before = [max(s for s in range(t) if x[s] == x[t]) for t in range(half, len(x))]
    return [-1] * half + [x[s + 1] for s in before]


def ascending(x: np.ndarray) -> list[int]:
    half = len(x) // 2
    return [-1] * half + sorted(x[:half])


def closed(x: np.ndarray, types: int) -> list[int]:
    """The bracket that closes next, by a stack; the word is balanced."""
    found, stack = [], []
    for t, token in enumerate(x):
        if token < types:
            stack.append(token)
        else:
            assert stack.pop() == token - types, "another bracket is open"
        found.append(types + stack[-1] if t + 1 < len(x) and x[t + 1] >= types else -1)
    assert not stack
    return found


ORACLES: dict[str, Callable[[np.ndarray], list[int]]] = {
    "copying": recalled,
    "copying without blanks": recalled,
    "parity": odd,
    "induction": followed,
    "the same twice": followed,
    "sorting": ascending,
    "dyck": functools.partial(closed, types=3),
    "deep dyck": functools.partial(closed, types=1),
}


@pytest.mark.parametrize("name", TOKENS)
def test_targets_follow_from_the_inputs(name: str) -> None:
    x, y = drawn()[name]
    assert [ORACLES[name](row) for row in x] == y.tolist()
    shifted = np.roll(y, 1, axis=1)
    assert [ORACLES[name](row) for row in x] != shifted.tolist()


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_and_labels_are_below_the_vocabulary(name: str) -> None:
    x, y = drawn()[name]
    size = tasks.vocabulary(TASKS[name])
    assert x.dtype == y.dtype == np.int32
    assert x.shape == y.shape
    assert set(np.unique(x)) == set(range(size)), "every token occurs"
    assert set(np.unique(y)) <= {-1, *range(size)}
    assert (y >= 0).any(axis=1).all(), "each example has a target"
    loss = losses.softmax_cross_entropy(jnp.zeros((*y.shape, size)), y, ignore_index=-1)
    np.testing.assert_allclose(loss, np.log(size), rtol=1e-6)


def test_the_sum_of_the_marked() -> None:
    x, y = drawn()["adding"]
    assert (x.shape, y.shape) == ((N, 7, 2), (N, 1))
    assert set(np.unique(x[..., 1])) == {0, 1}
    assert (x[:, :3, 1].sum(axis=1) == 1).all()
    assert (x[:, 3:, 1].sum(axis=1) == 1).all()
    np.testing.assert_allclose(y[:, 0], [row[row[:, 1] == 1, 0].sum() for row in x], rtol=1e-6)
    with float64(), strict():
        _, sums = tasks.adding(50, steps=1).batch(jax.random.key(0), 20_000)
        assert sums.dtype == jnp.float64
    sums = np.asarray(sums)
    np.testing.assert_allclose([np.mean(sums), np.var(sums)], [1, 1 / 6], rtol=0.02)


@pytest.mark.slow
def test_the_same_key_the_same_examples() -> None:
    batches = [drawn(seed) for seed in (0, 1)]
    again = {name: task.batch(jax.random.key(0), N) for name, task in TASKS.items()}
    for name in TASKS:
        np.testing.assert_array_equal(batches[0][name][0], again[name][0])
        np.testing.assert_array_equal(batches[0][name][1], again[name][1])
        assert (batches[0][name][0] != batches[1][name][0]).any()


def test_two_draws_of_one_setting_are_one_program() -> None:
    assert tasks.dyck(2, 3, 8, steps=4).draw == tasks.dyck(2, 3, 8, steps=5).draw
    assert tasks.dyck(2, 3, 8, steps=4).draw != tasks.dyck(3, 2, 8, steps=4).draw


def test_periods_vary_and_tokens_of_a_period_are_distinct() -> None:
    x = drawn()["induction"][0]
    periods = [next(p for p in range(1, 12) if row[p] == row[0]) for row in x]
    assert set(periods) == {3, 4, 5, 6}
    for row, p in zip(x, periods, strict=True):
        assert len(set(row[:p])) == p
        assert row[p:].tolist() == row[: 12 - p].tolist()
    twice = drawn()["the same twice"][0]
    np.testing.assert_array_equal(twice[:, :6], twice[:, 6:])


def test_depth_is_bounded_and_reached() -> None:
    for name, types, bound in (("dyck", 3, 2), ("deep dyck", 1, 5)):
        depth = np.cumsum(np.where(drawn()[name][0] < types, 1, -1), axis=1)
        assert depth.min() == 0
        assert depth.max() == bound


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("copying: delay must be at least 1, got 0", lambda: tasks.copying(delay=0, steps=1)),
    ("adding: length must be at least 2, got 1", lambda: tasks.adding(1, steps=1)),
    ("parity: length must be at least 1", lambda: tasks.parity(0, steps=1)),
    ("shortest <= length <= symbols, got 4, 8, 7", lambda: tasks.induction(7, 8, steps=1)),
    ("shortest <= length <= symbols, got 9, 8, 9", lambda: tasks.induction(9, 8, shortest=9, steps=1)),
    ("sorting: symbols must be at least 1", lambda: tasks.sorting(0, steps=1)),
    ("a balanced word has an even length, got 7", lambda: tasks.dyck(length=7, steps=1)),
    ("Draws: steps must be at least 1", lambda: tasks.parity(steps=0)),
    ("are not tokens of one of these tasks", lambda: tasks.vocabulary(tasks.adding(steps=1))),
    ("are not tokens of one of these tasks", lambda: tasks.vocabulary(Draws((), lambda key, arrays, n: (), 1))),
]


@pytest.mark.parametrize(("told", "call"), BAD)
def test_bad_settings_are_named(told: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=told):
        call()

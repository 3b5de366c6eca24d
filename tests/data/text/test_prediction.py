"""Windows of a text: each with the tokens that follow, drawn uniformly, or all in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.data import Draws, text
from tests.helpers import float64, strict

L, T = 20, 4
TOKENS = np.random.default_rng(0).permutation(L)
"""Different tokens, so that a window tells its offset."""

SAMPLES = 16_000
CHI2 = 48.0
"""Exceeded with probability 2e-5 by a chi-squared variable of 15 degrees of freedom."""

drawn = jax.jit(lambda draws, key: draws.batch(key, SAMPLES))


def offsets(x: Any) -> np.ndarray:
    return np.argsort(TOKENS)[np.asarray(x)[:, 0]]


def are_windows_and_what_follows(x: Any, y: Any) -> bool:
    """Whether x and y are TOKENS[o : o + T] and TOKENS[o + 1 : o + T + 1]."""
    at = offsets(x)[:, None] + np.arange(T)
    whole = at.max() + 1 < L and x.shape == y.shape == at.shape
    return bool(whole and (x == TOKENS[at]).all() and (y == TOKENS[at + 1]).all())


def are_uniform(x: Any) -> bool:
    """Whether all L - T offsets occur equally often, by the chi-squared test."""
    counts = np.bincount(offsets(x), minlength=L - T)
    expected = len(x) / (L - T)
    return len(counts) == L - T and float(((counts - expected) ** 2 / expected).sum()) < CHI2


def test_windows_are_exact_and_uniform() -> None:
    x, y = drawn(text.windows(TOKENS, T, steps=3), jax.random.key(0))
    assert (x.dtype, y.dtype, x.shape, y.shape) == (jnp.int32, jnp.int32, (SAMPLES, T), (SAMPLES, T))
    assert are_windows_and_what_follows(x, y)
    assert are_uniform(x)
    assert set(offsets(x)) == set(range(L - T)), "the first and the last window among them"


def broken(start: int, stop: int, shift: int) -> Callable[..., Any]:
    """Windows whose offsets are from start .. stop - 1 and whose targets are `shift` tokens later."""

    def draw(key: Any, tokens: Any, n: int) -> Any:
        first = jax.random.randint(key, (n, 1), start, stop)
        at = jnp.minimum(first, L - T - 1) + jnp.arange(T)[None, :]
        return tokens[at], tokens[at + shift]

    return draw


def test_broken_windows_fail_these_checks() -> None:
    found = {}
    for name, draw in {
        "right": broken(0, L - T, 1),
        "never the last": broken(0, L - T - 1, 1),
        "never the first": broken(1, L - T, 1),
        "the last too often": broken(0, L - T + 1, 1),
        "the same token": broken(0, L - T, 0),
    }.items():
        x, y = drawn(Draws(jnp.asarray(TOKENS, jnp.int32), draw, 3), jax.random.key(1))
        found[name] = (are_windows_and_what_follows(x, y), are_uniform(x))
    assert found == {
        "right": (True, True),
        "never the last": (True, False),
        "never the first": (True, False),
        "the last too often": (True, False),
        "the same token": (False, True),
    }


def test_the_key_alone_decides() -> None:
    a, b = text.windows(TOKENS, T, steps=3), text.windows(TOKENS.tolist(), T, steps=3)
    first, second, other = (drawn(d, jax.random.key(k)) for d, k in ((a, 0), (b, 0), (a, 1)))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], other[0])
    with strict():
        np.testing.assert_array_equal(a.batch(jax.random.key(0), SAMPLES), first)
    with float64():
        assert text.windows(TOKENS, T, steps=3).batch(jax.random.key(0), 2)[0].dtype == jnp.int32


def test_the_longest_window_is_the_whole_text() -> None:
    x, y = text.windows(TOKENS, L - 1, steps=1).batch(jax.random.key(0), 2)
    np.testing.assert_array_equal(x, [TOKENS[:-1]] * 2)
    np.testing.assert_array_equal(y, [TOKENS[1:]] * 2)


def test_windows_of_one_length_are_one_program() -> None:
    traced = []

    @jax.jit
    def batch(draws: Draws, key: Any) -> Any:
        traced.append(draws.draw)
        return draws.batch(key, 2)

    for tokens, length in ((TOKENS, T), (TOKENS[::-1], T), (TOKENS, T + 1)):
        batch(text.windows(tokens, length, steps=3), jax.random.key(0))
    assert len(traced) == 2


@given(st.integers(2, 40), st.integers(1, 39))
def test_all_windows_predict_each_token_once(count: int, length: int) -> None:
    length = min(length, count - 1)
    tokens = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    x, y = text.all_windows(tokens, length)
    n = (count - 1) // length
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((n, length), (n, length), np.int32, np.int32)
    np.testing.assert_array_equal(x.ravel(), tokens[: n * length])
    np.testing.assert_array_equal(y.ravel(), tokens[1 : n * length + 1])


BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "length must be less than the number of tokens.*got length 20 for 20 tokens", lambda f: f(TOKENS, L)),
    (ValueError, "length must be at least 1, got 0", lambda f: f(TOKENS, 0)),
    (TypeError, "length must be an int, got 2.0", lambda f: f(TOKENS, 2.0)),
    (ValueError, r"tokens must have one axis \(L,\), got shape \(4, 5\)", lambda f: f(TOKENS.reshape(4, 5), 2)),
    (TypeError, "tokens must have an integer dtype, got float32. Encode", lambda f: f(TOKENS.astype(np.float32), 2)),
    (TypeError, "tokens must be an array of numbers, got str", lambda f: f("a text", 2)),
]


@pytest.mark.parametrize(("error", "told", "call"), BAD)
def test_what_has_no_window_is_named(error: type[Exception], told: str, call: Any) -> None:
    for function in (lambda *given: text.windows(*given, steps=1), text.all_windows):
        with pytest.raises(error, match=told):
            call(function)
    with pytest.raises(ValueError, match="windows: steps must be at least 1, got 0"):
        text.windows(TOKENS, T, steps=0)

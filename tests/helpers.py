"""What many tests lean on: float64, strict promotion, tree comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Inside, arrays may be float64: the dtype in which exactness is tested."""
    with jax.enable_x64(True):
        yield


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Inside, no dtype is promoted and no rank is broadcast silently."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def assert_close(got: Any, expected: Any, *, rtol: float, atol: float = 0.0) -> None:
    """Fail unless both pytrees have one structure and their leaves agree to the named tolerances."""
    got_leaves, got_tree = jax.tree.flatten(got)
    expected_leaves, expected_tree = jax.tree.flatten(expected)
    assert got_tree == expected_tree, f"structures differ: {got_tree} and {expected_tree}"
    for g, e in zip(got_leaves, expected_leaves, strict=True):
        assert np.shape(g) == np.shape(e), f"shapes differ: {np.shape(g)} and {np.shape(e)}"
        np.testing.assert_allclose(np.asarray(g, np.float64), np.asarray(e, np.float64), rtol=rtol, atol=atol)


def random(seed: int, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    """Standard normal numbers by NumPy, so that an oracle need not trust jax.random."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def slow(*cases: Any) -> list[Any]:
    """Cases for `parametrize` that only the long run takes; a tuple is one case of several arguments."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]

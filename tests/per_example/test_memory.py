"""Estimates of memory, held against the compiler's own, and microbatches chosen by them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import per_example
from jaxnn.per_example.memory import fitting_size, peak_bytes
from tests.helpers import random

PARAMS = {"w": random(0, 30, 40, dtype=np.float32), "v": random(1, 40, 3, dtype=np.float32)}
X = random(2, 64, 5, 30, dtype=np.float32)


def loss(p: Any, x: Any) -> Any:
    return jnp.sum(jnp.tanh(x @ p["w"]) @ p["v"]) ** 2


def clipped(x: Any) -> Any:
    return per_example.clipped_grad(per_example.record(loss)(PARAMS, x), 1.0)


def test_arrays_are_freed_after_their_last_use() -> None:
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    assert peak_bytes(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), x) == 8000
    assert peak_bytes(lambda x: (jnp.sin(x), jnp.cos(x), x), x) == 8000
    assert peak_bytes(lambda x: jnp.sum(x), x) == 4


def test_a_loop_takes_what_one_iteration_and_its_results_take() -> None:
    xs = jax.ShapeDtypeStruct((50, 1000), jnp.float32)
    inside = peak_bytes(lambda xs: lax.map(lambda x: jnp.sum(jnp.sin(x) * jnp.cos(x)), xs), xs)
    assert 12000 <= inside < 20000
    assert peak_bytes(lambda xs: lax.map(jnp.sin, xs), xs) >= 200_000


def test_the_estimate_is_near_what_the_compiler_needs() -> None:
    for f in (clipped, lambda x: per_example.variance(per_example.record(loss)(PARAMS, x))):
        analysis = jax.jit(f).lower(X).compile().memory_analysis()
        needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
        assert 0.6 * needed < peak_bytes(f, X) < 4 * needed


def test_microbatches_within_a_budget() -> None:
    """The same sums and norms; each microbatch within the budget, twice as many examples beyond it."""
    budget = peak_bytes(clipped, X) // 5
    size = fitting_size(clipped, (X,), budget)
    assert 1 < size < 64
    assert peak_bytes(clipped, X[:size]) <= budget < peak_bytes(clipped, X[: 2 * size])
    sums, norms = jax.jit(lambda x: per_example.over_microbatches(clipped, (x,), memory=budget))(X)
    whole, all_norms = jax.jit(clipped)(X)
    # In float32 the norms of some examples keep 4 digits: their positions' terms cancel.
    np.testing.assert_allclose(norms, all_norms, rtol=1e-4)
    for name in PARAMS:
        np.testing.assert_allclose(sums[name], whole[name], rtol=1e-4, atol=1e-6)


def test_a_budget_for_the_whole_batch_or_for_less_than_one_example() -> None:
    assert fitting_size(clipped, (X,), 2**40) == 64
    with pytest.raises(ValueError, match="memory must hold at least one example"):
        per_example.over_microbatches(clipped, (X,), memory=100)


def test_size_or_memory() -> None:
    for settings in ({}, {"size": 2, "memory": 2**20}):
        with pytest.raises(ValueError, match="pass one of size and memory"):
            per_example.over_microbatches(clipped, (X,), **settings)

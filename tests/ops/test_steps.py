"""Loops over chunks of examples: the order of results, and sums, whichever examples make a chunk."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops.steps import Step, map_examples, sum_examples
from tests.helpers import random

STEPS = [Step(size, apart) for size in (1, 3, 4, 12) for apart in (False, True)]


def test_results_are_in_the_order_of_the_examples() -> None:
    x, y = random(0, 12, 2).astype(np.float32), np.arange(12)

    @jax.jit
    def every(x: Any, y: Any) -> Any:
        def f(x: Any, y: Any) -> Any:
            return {"square": x**2, "index": y}, x[:, 0]

        return [map_examples(f, step, x, y) for step in STEPS], [
            sum_examples(lambda x: jnp.sum(x, axis=0), step, x) for step in STEPS
        ]

    mapped, sums = every(x, y)
    for (found, first), total in zip(mapped, sums, strict=True):
        np.testing.assert_array_equal(found["index"], y)
        np.testing.assert_array_equal(found["square"], x**2)
        np.testing.assert_array_equal(first, x[:, 0])
        np.testing.assert_allclose(total, x.sum(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("apart", "expected"), [(False, [4, 5, 6, 7]), (True, [1, 4, 7, 10])])
def test_the_examples_of_a_chunk(apart: bool, expected: list[int]) -> None:
    np.testing.assert_array_equal(Step(4, apart).chunk(jnp.int32(1), [jnp.arange(12)])[0], expected)

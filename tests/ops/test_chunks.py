"""Loops over chunks of examples against the whole batch at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import steps
from jaxnn.ops.steps import Step, chunks, map_and_sum_examples, map_examples, sum_examples
from tests.helpers import random

N = 24
STEPS = [Step(24), Step(6), Step(1), Step(6, apart=True), Step(8, parts=4), Step(4, parts=4), Step(24, parts=4)]


@pytest.mark.parametrize("step", STEPS)
def test_every_division_gives_rows_in_order_and_the_whole_sum(step: Step) -> None:
    x, y = random(0, N, 3).astype(np.float32), random(1, N).astype(np.float32)

    def rows(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.cumsum(x, axis=1) * y[:, None]

    def total(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(rows(x, y), axis=0)

    want = np.cumsum(x, axis=1) * y[:, None]
    np.testing.assert_allclose(map_examples(rows, step, x, y), want, rtol=1e-6)
    np.testing.assert_allclose(sum_examples(total, step, x, y), want.sum(axis=0), rtol=1e-5, atol=1e-5)
    found, summed = map_and_sum_examples(lambda x, y: ({"rows": y}, total(x, y)), step, x, y)
    np.testing.assert_array_equal(found["rows"], y)
    np.testing.assert_allclose(summed, want.sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("devices", "n", "expected"),
    [
        (1, 24, Step(6)),
        (4, 24, Step(24, parts=4)),  # 6 on each device
        (8, 24, Step(24, parts=8)),
        (4, 96, Step(24, parts=4)),
        (8, 6, Step(6, parts=2)),  # 6 examples are shared evenly by 2 of 8 devices at most
        (8, 7, Step(7)),
        (8, 0, Step(0, parts=8)),
    ],
)
def test_a_chunk_fills_the_bytes_of_each_device(
    devices: int, n: int, expected: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 bytes each, in 70."""
    monkeypatch.setattr(steps, "shards", lambda arrays: devices)
    assert chunks(10, 70, np.zeros((n, 2))) == expected
    parts = devices if n == 0 else np.gcd(devices, n)
    assert chunks(10, 70, np.zeros((n, 2)), apart=True) == expected._replace(apart=bool(parts == 1))

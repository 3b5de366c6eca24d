"""Pooling over all positions: values, the first-tie rule, NaN, float32 sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.layers.pooling import global_average, global_max
from jaxnn.ops.pooling import max_pool
from tests.helpers import assert_close, float64, random, strict


def check_global_max(pool) -> None:
    """Against a max-pool whose window is the whole image, on images full of ties."""
    x = np.random.default_rng(0).integers(-1, 2, (3, 3, 4, 5)).astype(np.float64)
    x[0] = -np.inf
    dy = random(1, 3, 5)

    @jax.jit
    def both(x, dy):
        results = []
        for f in (pool, lambda x: max_pool(x, window=(3, 4))[:, 0, 0]):
            y, vjp = jax.vjp(f, x)
            results.append((y, vjp(dy)[0]))
        return results

    with float64(), strict():
        assert_close(*both(x, dy), rtol=1e-12)


def test_global_max_takes_the_first():
    check_global_max(global_max)
    with pytest.raises(AssertionError):
        check_global_max(lambda x: x.max((1, 2)))
    with pytest.raises(AssertionError):
        check_global_max(lambda x: global_max(x[:, ::-1, ::-1]))


def test_global_max_passes_nan_and_infinity_on():
    x = np.array([[1.0, np.inf], [np.nan, 3.0], [5.0, -np.inf]], np.float32)[None]
    np.testing.assert_array_equal(jax.jit(global_max)(x), [[np.nan, np.inf]])


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_global_average(dtype):
    with float64(), strict():
        x = jnp.asarray(1 + np.abs(random(0, 2, 16, 16, 3)), dtype)
        got = jax.jit(global_average)(x)
        assert got.dtype == dtype
    exact = np.asarray(x, np.float64).mean((1, 2))
    assert_close(got, exact, rtol=1e-12 if dtype == jnp.float64 else 2**-8)

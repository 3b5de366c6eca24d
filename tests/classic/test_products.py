"""Counts of a program, by hand; three ways to one product."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import models
from jaxnn.classic import products
from jaxnn.classic.products import Counts
from tests.helpers import random

N, D, P = 5, 4, 3
X, W = jnp.asarray(random(0, N, D), jnp.float32), jnp.asarray(random(1, D, P), jnp.float32)

COUNTS = {
    "scalar by scalar": Counts(N * D * P, N * D * P, 2 * N * D * P),
    "vector by matrix": Counts(N * D * P, N, N * (D + D * P)),
    "matrix by matrix": Counts(N * D * P, 1, N * D + D * P),
}


@pytest.mark.parametrize("name", products.WAYS)
def test_each_way_is_the_product_and_counts_as_by_hand(name: str) -> None:
    way = products.WAYS[name]
    np.testing.assert_allclose(jax.jit(way)(X, W), np.asarray(X) @ np.asarray(W), rtol=1e-5, atol=1e-6)
    assert products.count(way, X, W) == COUNTS[name]
    assert products.count(jax.jit(way), X, W) == COUNTS[name]


def test_other_programs() -> None:
    assert products.count(lambda x: jnp.sin(x) + 1, X) == Counts(0, 0, 0)
    assert products.count(lambda i: i * i, jnp.arange(3)) == Counts(0, 0, 0), "integers are not counted"
    loop = products.count(lambda x: lax.fori_loop(0, 7, lambda i, z: z * z, x), X)
    assert loop == Counts(7 * N * D, 7, 14 * N * D)
    branches = products.count(lambda x: lax.cond(x[0, 0] > 0, lambda z: z @ W, lambda z: z[:, :P], x), X)
    assert branches == COUNTS["matrix by matrix"]
    nested = products.count(jax.vmap(lambda row: row @ W), X)
    assert nested.multiplications == N * D * P
    with pytest.raises(ValueError, match="has a while loop"):
        products.count(lambda x: lax.while_loop(lambda z: z[0, 0] > 0, lambda z: z - 1, x), X)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_its_window(groups: int) -> None:
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4 // groups, 8))

    def program(x: jax.Array, w: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=groups)

    assert products.count(program, x, w).multiplications == 2 * 16 * 8 * 9 * 4 // groups


def test_a_network_counts_its_weights() -> None:
    net = models.mlp([6, 5, 4])
    params, state = net.init(jax.random.key(0), (6,))
    assert products.count(net.predict, params, state, jnp.ones((3, 6))).multiplications == 3 * (30 + 20)


def test_times_by_a_clock_of_our_own() -> None:
    ticks = itertools.count()
    found = products.seconds(3, 4, 2, repeats=3, clock=lambda: float(next(ticks)))
    assert found == dict.fromkeys(products.WAYS, 1.0)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        products.seconds(repeats=0)


def test_a_program_without_multiplications() -> None:
    assert np.isnan(products.count(lambda x: x + x, 1.0).per_multiplication)

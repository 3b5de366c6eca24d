"""Parity's networks: published sizes up to 16 inputs, and agreement on all inputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn.classic import parity
from jaxnn.classic.boolean import inputs
from jaxnn.classic.threshold import Network, bipolar
from jaxnn.layers import Layer
from tests.helpers import slow

MAKERS = (parity.dnf, parity.counter, parity.chain, parity.tree)


@functools.partial(jax.jit, static_argnums=0)
def outputs(net: Layer, params: Any, x: Any) -> Any:
    """(N,), some rows at a time: 2^16 inputs of 2^15 hidden units do not fit into memory."""
    return jax.lax.map(lambda row: net.predict(params, (), row[None])[0, 0], x, batch_size=256)


@functools.cache
def network(make: Callable[[int], Network], n: int) -> Network:
    return make(n)


def assert_parity(network: Network, n: int) -> None:
    np.testing.assert_array_equal(outputs(*network, inputs(n)), [i.bit_count() % 2 for i in range(2**n)])


@pytest.mark.parametrize("n", [2, 5, *slow(3, 4, *range(6, 17))])
def test_published_sizes(n: int) -> None:
    dnf, counter, chain, tree = (network(make, n) for make in MAKERS)
    assert dnf.units - 1 == 2 ** (n - 1)
    assert dnf.parameters == (n + 2) * 2 ** (n - 1) + 1
    assert counter.units - 1 == n
    assert counter.parameters == (n + 1) ** 2
    assert chain.units == tree.units == 3 * (n - 1)
    assert chain.parameters == tree.parameters == 9 * (n - 1)
    assert (dnf.layers, counter.layers, chain.layers) == (2, 2, 2 * (n - 1))
    assert tree.layers == 2 * math.ceil(math.log2(n))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [3, *slow(2, *range(4, 17))])
def test_parity_of_up_to_16_inputs(make: Callable[[int], Network], n: int) -> None:
    assert_parity(network(make, n), n)


@pytest.mark.parametrize("make", [parity.dnf, parity.tree, *slow(parity.counter, parity.chain)])
def test_parity_of_signs(make: Callable[[int], Network]) -> None:
    expected = [2 * (i.bit_count() % 2) - 1 for i in range(32)]
    np.testing.assert_array_equal(outputs(*bipolar(make(5)), 2 * inputs(5) - 1), expected)


@pytest.mark.parametrize("make", MAKERS)
def test_a_broken_bias_is_found(make: Callable[[int], Network]) -> None:
    net, params = network(make, 3)
    leaves, tree = jax.tree.flatten(params)
    for i in (0, len(leaves) - 2):  # the first bias and the last
        broken = tree.unflatten([*leaves[:i], leaves[i] - 1, *leaves[i + 1 :]])
        with pytest.raises(AssertionError):
            assert_parity(Network(net, broken), 3)


def test_bad_input_is_named() -> None:
    for make in MAKERS:
        with pytest.raises(ValueError, match=f"parity.{make.__name__}: n must be at least 2, got 1"):
            make(1)
    with pytest.raises(ValueError, match="expected 0 <= start < stop, got start 2, stop 2"):
        parity.Inputs(2, 2)

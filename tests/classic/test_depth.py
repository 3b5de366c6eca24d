"""One program for all depths and kinds is the network it stands for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import models
from jaxnn.classic import depth
from jaxnn.layers import BatchNorm, Dense, Flatten, Sigmoid
from tests.helpers import assert_close

MOST = 3
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def plain_network(layers: int, norm: int, skip: int) -> tuple[Any, Any]:
    """The same network by the combinators, and how it picks its parameters and state out of the switched one's."""
    hidden = (Dense(depth.UNITS), *([BatchNorm()] if norm else []), Sigmoid)
    block = models.residual(*hidden) if skip else models.serial(*hidden)
    net = models.serial(Flatten, *hidden, *[block] * (layers - 1), Dense(10))

    def chosen(values: Any) -> Any:
        """Of (flatten, dense, norm, sigmoid, gated blocks .., dense)."""
        first, blocks = values[1:4], values[4 : 4 + layers - 1]
        kept = [(each[0], *([each[1]] if norm else []), each[2]) for each in (first, *blocks)]
        inner = [(each, ()) if skip else each for each in kept[1:]]
        return ((), *kept[0], *inner, values[-1])

    return net, chosen


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "norm", "skip"), [(1, 1, 0), (2, 0, 0), (3, 1, 1), (2, 0, 1)])
def test_switches_make_the_plain_network(layers: int, norm: int, skip: int) -> None:
    net = depth.network(jnp.asarray(layers), norm=jnp.asarray(norm), skip=jnp.asarray(skip), most=MOST)
    params, state = net.init(jax.random.key(1), (4,))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    expected_net, chosen = plain_network(layers, norm, skip)
    for train in (False, True):
        got, _ = net.apply(params, state, X, train=train)
        expected, _ = expected_net.apply(chosen(params), chosen(state) if norm else (), X, train=train)
        assert_close(got, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_layers_that_are_off_have_no_gradient() -> None:
    net = depth.network(jnp.asarray(2), norm=1, skip=1, most=MOST)
    params, state = net.init(jax.random.key(1), (4,))
    grads = jax.grad(lambda p: net.apply(p, state, X, train=True)[0].sum() ** 2)(params)
    sizes = [float(jnp.abs(each[0]["w"]).sum()) for each in grads[4:6]]
    assert sizes[0] > 0
    assert sizes[1] == 0


def test_bad_depths() -> None:
    with pytest.raises(ValueError, match=r"each of depths must lie in \[1, inf\), got 0"):
        depth.by_depth((0, 2))


def test_more_layers_than_there_are_parameters_for_are_named() -> None:
    with pytest.raises(ValueError, match=r"depth must lie in \[1, 8\], got 9"):
        depth.network(9)

"""Hidden units that start alike stay alike, whatever they are trained on; a single weight's difference parts them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import losses, optim, train
from jaxnn.classic import symmetry
from jaxnn.initializers import constant, normal
from tests.helpers import float64

NET = symmetry.network(constant(1.0), hidden=3)
VG = jax.value_and_grad(train.mean_loss(NET, losses.sigmoid_binary_cross_entropy), has_aux=True)


@jax.jit
def trained(params: Any, x: Any, y: Any) -> Any:
    """Fifty steps of Adam."""
    opt = optim.adam(0.1)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        _, grads = VG(params, (), x, y)
        updates, state = opt.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, opt.init(params)), None, length=50)[0][0]


def start(weight: float, bias: float, out: float, nudge: float = 0.0) -> Any:
    incoming = {"w": jnp.full((2, 3), weight).at[0, 0].add(nudge), "b": jnp.full(3, bias)}
    return (incoming, (), {"w": jnp.full((3, 1), out), "b": jnp.zeros(1)})


weights = st.floats(-2, 2)


@pytest.mark.slow
@given(weights, weights, weights, st.integers(0, 100))
@settings(max_examples=10)
def test_equal_units_stay_equal(weight: float, bias: float, out: float, seed: int) -> None:
    with float64():
        x = jax.random.normal(jax.random.key(seed), (20, 2), jnp.float64)
        y = (x[:, :1] * x[:, 1:] > 0).astype(jnp.float64)
        assert symmetry.spread(trained(start(weight, bias, out), x, y)) < 1e-9


def test_the_slightest_difference_parts_them() -> None:
    with float64():
        x = jax.random.normal(jax.random.key(0), (20, 2), jnp.float64)
        y = (x[:, :1] * x[:, 1:] > 0).astype(jnp.float64)
        assert symmetry.spread(trained(start(0.5, 0.1, 0.5, nudge=1e-3), x, y)) > 5e-3, "it grew"


def test_spread_sees_every_kind_of_difference() -> None:
    params = start(0.5, 0.1, 0.5)
    assert symmetry.spread(params) == 0
    incoming, _, outgoing = params
    for other in (
        (incoming | {"w": incoming["w"].at[1, 2].add(0.25)}, (), outgoing),
        (incoming | {"b": incoming["b"].at[0].add(-0.25)}, (), outgoing),
        (incoming, (), outgoing | {"w": outgoing["w"].at[1, 0].add(0.25)}),
    ):
        np.testing.assert_allclose(symmetry.spread(other), 0.25)


@pytest.mark.slow
def test_the_exclusive_or_needs_units_that_differ() -> None:
    equal, random = (symmetry.run(w_init, key=jax.random.key(3)) for w_init in (constant(0.5), normal(0.5)))
    assert equal.history[-1]["spread"] < 1e-4 < 0.5 < random.history[-1]["spread"]
    assert equal.history[-1]["loss"] > 0.4
    assert random.history[-1]["loss"] < 0.1
    last = equal.history[-1]
    assert max(abs(last[f"unit_{j}"] - last["unit_0"]) for j in range(4)) < 1e-4

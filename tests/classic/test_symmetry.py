"""Hidden units that start alike stay alike, whatever they are trained on; a single weight's difference parts them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import losses, optim, train
from jaxnn.classic import symmetry
from jaxnn.initializers import constant, normal
from tests.helpers import float64, random

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
    dtype = jax.dtypes.canonicalize_dtype(float)
    incoming = {"w": np.full((2, 3), weight, dtype), "b": np.full(3, bias, dtype)}
    incoming["w"][0, 0] += nudge
    return (incoming, (), {"w": np.full((3, 1), out, dtype), "b": np.zeros(1, dtype)})


def points(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty points of the plane, and whether their coordinates have the same sign."""
    x = random(seed, 20, 2)
    return x, (x[:, :1] * x[:, 1:] > 0).astype(float)


weights = st.floats(-2, 2)


@pytest.mark.slow
@given(weights, weights, weights, st.integers(0, 100))
@settings(max_examples=10)
def test_equal_units_stay_equal(weight: float, bias: float, out: float, seed: int) -> None:
    with float64():
        assert symmetry.spread(trained(start(weight, bias, out), *points(seed))) < 1e-9


def test_the_slightest_difference_parts_them() -> None:
    with float64():
        assert symmetry.spread(trained(start(0.5, 0.1, 0.5, nudge=1e-3), *points(2))) > 5e-3, "it grew"


def test_spread_sees_every_kind_of_difference() -> None:
    params = start(0.5, 0.1, 0.5)
    spread = jax.jit(symmetry.spread)
    assert spread(params) == 0
    for layer, name, where in ((0, "w", (1, 2)), (0, "b", 0), (2, "w", (1, 0))):
        other = jax.tree.map(np.copy, params)
        other[layer][name][where] += 0.25
        np.testing.assert_allclose(spread(other), 0.25)


@pytest.mark.slow
def test_the_exclusive_or_needs_units_that_differ() -> None:
    equal, drawn = (symmetry.run(w_init, key=jax.random.key(3)) for w_init in (constant(0.5), normal(0.5)))
    assert equal.history[-1]["spread"] < 1e-4 < 0.5 < drawn.history[-1]["spread"]
    assert equal.history[-1]["loss"] > 0.4
    assert drawn.history[-1]["loss"] < 0.1
    last = equal.history[-1]
    assert max(abs(last[f"unit_{j}_{i}"] - last[f"unit_0_{i}"]) for j in range(4) for i in (1, 2)) < 1e-4
    assert symmetry.separation(equal.params) < 1e-4
    assert symmetry.most_separate([equal, drawn]) == 1


def test_separation_is_that_of_the_most_similar_pair_whatever_its_sign() -> None:
    units = random(3, 4, 4).astype(np.float32)  # (units, 2 weights + bias + outgoing)
    params = ({"w": units[:, :2].T, "b": units[:, 2]}, (), {"w": units[:, 3:], "b": np.zeros(1)})
    pairs = [(j, k) for j in range(4) for k in range(j)]
    each = [min(np.abs(units[j] - units[k]).max(), np.abs(units[j] + units[k]).max()) for j, k in pairs]
    np.testing.assert_allclose(symmetry.separation(params), min(each), rtol=1e-6)
    units[2] = -units[0]
    params = ({"w": units[:, :2].T, "b": units[:, 2]}, (), {"w": units[:, 3:], "b": np.zeros(1)})
    assert symmetry.separation(params) == 0
    assert symmetry.spread(params) > 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least two hidden units, got 1"):
        symmetry.separation(({"w": np.ones((2, 1)), "b": np.ones(1)}, (), {"w": np.ones((1, 1))}))
    with pytest.raises(ValueError, match="at least one run, got none"):
        symmetry.most_separate([])

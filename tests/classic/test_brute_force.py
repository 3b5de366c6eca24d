"""Enumeration finds the best setting, of costs with and without derivatives, and says when there are too many."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import boolean, brute_force
from jaxnn.classic.threshold import THRESHOLD
from jaxnn.layers import Dense
from jaxnn.models import serial

VALUES = (-1.0, 0.0, 1.0)
NET = serial(Dense(2), THRESHOLD, Dense(1), THRESHOLD)
LIKE = ({"b": np.zeros(2), "w": np.zeros((2, 2))}, (), {"b": np.zeros(1), "w": np.zeros((2, 1))}, ())
INPUTS = boolean.inputs(2).astype(np.float32)


def mistakes_of(table: Any) -> Any:
    """The share of wrong rows of a truth table, as a cost of the parameters of the 2-2-1 network."""
    return lambda params: jnp.mean(jnp.abs(NET.predict(params, (), INPUTS)[:, 0] - jnp.asarray(table, jnp.float32)))


def by_numpy(entries: Any) -> np.ndarray:
    """The outputs of the 2-2-1 network with these entries: b (2), w (2, 2), b, w (2) in this order."""
    b, w, c, v = np.array(entries[:2]), np.reshape(entries[2:6], (2, 2)), entries[6], np.array(entries[7:])
    return ((INPUTS @ w + b >= 0) @ v + c >= 0).astype(float)


@pytest.mark.slow
def test_every_setting_of_a_small_network_for_xor() -> None:
    xor = np.array([0, 1, 1, 0])
    found = brute_force.search(mistakes_of(xor), LIKE, VALUES)
    expected = [np.mean(np.abs(by_numpy(s) - xor)) for s in itertools.product(VALUES, repeat=9)]
    np.testing.assert_array_equal(found.costs, expected)
    assert (found.cost, found.settings, found.ties) == (0.0, 3**9, sum(e == 0 for e in expected))
    np.testing.assert_array_equal(NET.predict(found.theta, (), INPUTS)[:, 0], xor)
    index = int(np.argmin(found.costs))
    again = brute_force.setting(LIKE, VALUES, index)
    assert [np.asarray(a).tolist() for a in (again[0]["w"], again[2]["w"])] == [
        np.asarray(a).tolist() for a in (found.theta[0]["w"], found.theta[2]["w"])
    ]


def test_chunks_do_not_matter_and_nan_is_never_best() -> None:
    def cost(w: Any) -> Any:
        return jnp.where(w[0] < 0, jnp.nan, jnp.sum((w - 0.4) ** 2))

    whole, pieces = (brute_force.search(cost, np.zeros(3), (-1, 0, 0.5, 2), chunk=n) for n in (4096, 7))
    np.testing.assert_allclose(whole.costs, pieces.costs, rtol=1e-6)
    assert whole.theta.tolist() == [0.5, 0.5, 0.5]
    assert np.isnan(whole.costs).sum() == 16


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"at most 16,777,216 settings, got 3\^650 = about 10\^310"):
        brute_force.search(jnp.sum, np.zeros((65, 10)), VALUES)
    with pytest.raises(ValueError, match="at most 100 settings, got 3\\^5 = 243"):
        brute_force.search(jnp.sum, np.zeros(5), VALUES, most=100)
    with pytest.raises(ValueError, match=r"one number, got shape \(2,\). Take the mean"):
        brute_force.search(lambda w: w, np.zeros(2), VALUES)
    with pytest.raises(ValueError, match="values must be distinct finite numbers"):
        brute_force.search(jnp.sum, np.zeros(2), (1, 1))
    with pytest.raises(ValueError, match="the cost of every setting is NaN"):
        brute_force.search(lambda w: jnp.nan * w[0], np.zeros(2), VALUES)
    with pytest.raises(TypeError, match="cost must be a function"):
        brute_force.search(None, np.zeros(2), VALUES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"index must lie in \[0, 9\), got 9"):
        brute_force.setting(np.zeros(2), VALUES, 9)


def test_a_cost_in_half_precision_that_is_not_a_number_is_never_the_best() -> None:
    def cost(w: Any) -> Any:
        return jnp.where(w[0] < 0, jnp.nan, jnp.sum(w)).astype(jnp.bfloat16)

    found = brute_force.search(cost, jnp.zeros(2), [-1, 1])
    assert (found.theta.tolist(), found.cost) == ([1.0, -1.0], 0.0)
    assert brute_force.setting(jnp.zeros(100), [0, 1], np.int64(3))[-3:].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: brute_force.search(jnp.sum, jnp.zeros(2, int), [0.5, 1.0]), "like must have a floating dtype"),
        (lambda: brute_force.search(lambda w: w[0] * 1j, jnp.zeros(2), [0, 1]), "must return a real number"),
        (lambda: brute_force.setting(jnp.zeros(2), [0, 1], 1.5), "index must be an int"),
    ],
)
def test_what_cannot_be_searched_is_named(call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


def test_nothing_to_search_is_named() -> None:
    with pytest.raises(ValueError, match="at least one entry"):
        brute_force.search(lambda w: jnp.ones(()), (), [0, 1])

"""The delta rule is gradient descent on 1/2 (d - y)^2: step by step, by the library's networks, at its limit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import losses, optim, train
from jaxnn.classic import adaline, perceptron
from jaxnn.classic.neurons import with_bias
from jaxnn.layers import Dense
from jaxnn.models import serial
from tests.helpers import assert_close, float64, random, strict

numbers = st.floats(-3, 3, allow_nan=False, width=32)
rates = st.floats(0.015625, 1.5, width=32)


def descent_step(net: Any, params: Any, x: Any, y: Any, rate: Any) -> Any:
    """One step of `optim.sgd` on the half squared error of one example."""
    vg = jax.value_and_grad(train.mean_loss(net, losses.half_squared_error), has_aux=True)
    _, grads = vg(params, net.init(jax.random.key(0), x.shape[1:])[1], x, y)
    updates, _ = optim.sgd(rate).update(grads, optim.sgd(rate).init(params), params)
    return optim.apply_updates(params, updates)


@jax.jit
def both_small_rules(w: Any, b: Any, x: Any, y: Any, rate: Any) -> Any:
    """((one weight, by the rule and by descent), (weight and bias, by the rule and by descent))."""
    one, two = serial(Dense(1, b_init=None)), serial(Dense(1))
    row, target = x[None, None], y[None, None]
    descended = descent_step(one, ({"w": w[None, None]},), row, target, rate)[0]["w"][0, 0]
    pair = descent_step(two, ({"w": w[None, None], "b": b[None]},), row, target, rate)[0]
    return (
        (adaline.smallest_step(w, x, y, learning_rate=rate), descended),
        (adaline.two_parameter_step(w, b, x, y, learning_rate=rate), (pair["w"][0, 0], pair["b"][0])),
    )


@given(w=numbers, b=numbers, x=numbers, y=numbers, rate=rates)
def test_the_smallest_perceptron_and_its_sister_are_gradient_descent(**values: float) -> None:
    with float64():
        (one, one_descended), (two, two_descended) = both_small_rules(**{k: jnp.float64(v) for k, v in values.items()})
    assert_close(one, one_descended, rtol=1e-12, atol=1e-12)
    assert_close(two, two_descended, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "broken",
    [
        lambda w, x, y, rate: w - rate * (y - w * x) * x,  # down the wrong way
        lambda w, x, y, rate: w + rate * 2 * (y - w * x) * x,  # the 1/2 forgotten
        lambda w, x, y, rate: w + rate * (y - w * x),  # the input forgotten
        lambda w, x, y, rate: w + rate * (y - np.sign(w * x)) * x,  # Rosenblatt's error in place of the linear one
    ],
)
def test_another_rule_is_not_gradient_descent(broken: Any) -> None:
    with float64():
        w, b, x, y, rate = (jnp.float64(v) for v in (0.5, 0.0, 1.5, 2.0, 0.1))
        (one, descended), _ = both_small_rules(w, b, x, y, rate)
        assert_close(one, descended, rtol=1e-12)
        assert abs(broken(w, x, y, rate) - descended) > 0.01


def test_the_error_shrinks_by_one_minus_eta_x_squared() -> None:
    for rate, x in ((1.0, 0.5), (0.3, 2.0), (0.25, 2.0), (0.6, 2.0)):
        w, before = 1.0, 3.0 - 1.0 * x
        for n in range(1, 6):
            w = adaline.smallest_step(w, x, 3.0, learning_rate=rate)
            assert 3.0 - w * x == pytest.approx(before * (1 - rate * x**2) ** n, abs=1e-12)


@pytest.mark.slow
def test_a_pass_is_an_epoch_of_batches_of_one() -> None:
    x, d = random(0, 30, 4), random(1, 30)
    with float64():
        found = adaline.fit(x, d, learning_rate=0.05, passes=1)
        net, opt = serial(Dense(1, b_init=None)), optim.sgd(0.05)
        step = train.make_step(jax.value_and_grad(train.mean_loss(net, losses.half_squared_error), has_aux=True), opt)
        ts = train.init(net, opt, jax.random.key(0), jax.ShapeDtypeStruct((4,), jnp.float64))
        ts = ts._replace(params=jax.tree.map(jnp.zeros_like, ts.params))
        errors = []
        for features, target in zip(x, d, strict=True):
            ts, report = step(ts, features[None], target[None, None])
            errors.append(report["loss"])
        assert_close(found.w, ts.params[0]["w"][:, 0], rtol=1e-12)
        assert_close(found.errors, np.mean(errors)[None], rtol=1e-12)


def test_it_finds_the_least_squares_solution() -> None:
    x, noise = np.concatenate([np.ones((50, 1)), random(0, 50, 3)], axis=1), random(1, 50)
    exact = x @ np.array([1.0, -2.0, 0.5, 3.0])
    with float64():
        found = adaline.fit(x, exact, learning_rate=0.1, passes=100)
        np.testing.assert_allclose(found.w, [1.0, -2.0, 0.5, 3.0], rtol=1e-10)
        assert found.errors[-1] < 1e-18
        best = np.linalg.lstsq(x, exact + noise, rcond=None)[0]
        near, nearer = (
            np.abs(adaline.fit(x, exact + noise, learning_rate=rate, passes=2000).w - best).max()
            for rate in (1e-2, 1e-3)
        )
    assert nearer < 0.2 * near < 0.02


def test_too_large_a_rate_shows_in_the_errors() -> None:
    errors = adaline.fit([[1.0, 2.0]], [1.0], learning_rate=0.41, passes=50).errors
    assert errors[-1] > 2 * errors[0]
    errors = adaline.fit([[1.0, 2.0]], [1.0], learning_rate=0.39, passes=50).errors
    assert errors[-1] < 0.5 * errors[0]


def test_it_classifies_and_its_rate_may_be_traced() -> None:
    corners = with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])
    labels = np.array([-1, 1, 1, 1])  # OR
    many = jax.jit(jax.vmap(lambda rate: adaline.fit(corners, labels, learning_rate=rate, passes=200)))(
        jnp.array([0.02, 0.1])
    )
    for w in many.w:
        assert perceptron.predict(w, corners).tolist() == labels.tolist()


def test_promotions_are_strict() -> None:
    with float64(), strict():
        found = adaline.fit(random(0, 5, 2), random(1, 5), learning_rate=0.1, passes=2)
        assert found.w.dtype == found.errors.dtype == jnp.float64


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: adaline.fit(np.zeros(3), np.zeros(3), learning_rate=0.1, passes=1), r"x \(3,\)"),
        (lambda: adaline.fit(np.ones((3, 1)), np.zeros(3), learning_rate="0.1", passes=1), "learning_rate must be"),
        (
            lambda: adaline.fit(np.ones((3, 1)), np.zeros(3), learning_rate=-1.0, passes=1),
            r"must lie in \[0, inf\), got -1",
        ),
        (lambda: adaline.fit(np.ones((3, 1)), np.zeros(3), learning_rate=0.1, passes=0), "passes must be at least 1"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()

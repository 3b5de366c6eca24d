"""Activations with a parameter: values against NumPy, slopes that learn, derivatives far from 0, no weight decay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, losses, models, optim, per_example, train
from jaxnn.layers import Dense, PRelu, Swish, parametric
from tests.helpers import assert_close, float64, random, strict

Z = np.concatenate([random(0, 3, 2, 4) * 3, np.zeros((1, 2, 4))])
SLOPE = np.array([0.25, -0.5, 0.0, 1.0])


@pytest.mark.parametrize("parameter", [SLOPE, SLOPE[:1]], ids=["of each channel", "shared"])
def test_values_are_the_formulas(parameter: Any) -> None:
    with float64(), strict():
        prelu = parametric.apply({"slope": parameter}, Z, form=parametric.PRELU)
        swish = parametric.apply({"beta": parameter}, Z, form=parametric.SWISH)
    np.testing.assert_allclose(prelu, np.maximum(Z, 0) + parameter * np.minimum(Z, 0), rtol=1e-12)
    np.testing.assert_allclose(swish, Z / (1 + np.exp(-parameter * Z)), rtol=1e-12)


def test_their_special_cases_are_activations_without_parameters() -> None:
    z, one = Z.astype(np.float32), np.ones(1, np.float32)

    def of(form: Any, parameter: float) -> Any:
        return parametric.apply({form.param: parameter * one}, z, form=form)

    assert_close(of(parametric.PRELU, 0.0), activations.relu(z), rtol=0)
    assert_close(of(parametric.PRELU, 0.3), activations.leaky_relu(z, negative_slope=0.3), rtol=1e-6)
    assert_close(of(parametric.SWISH, 1.0), activations.silu(z), rtol=1e-6)
    assert_close(of(parametric.SWISH, 0.0), z / 2, rtol=0)


@pytest.mark.parametrize("form", [parametric.PRELU, parametric.SWISH], ids=lambda form: form.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_derivatives_are_finite_far_from_0_and_those_of_autodiff(form: Any, dtype: str) -> None:
    z = jnp.array([-1e4, -3.0, -1.0, 0.0, 1e-3, 2.0, 1e4], jnp.float32)
    p = jnp.full_like(z, 0.8)
    hand = form.input_slope(z, p), form.param_slope(z, p)
    for slope, argument in zip(hand, (0, 1), strict=True):
        automatic = jax.grad(lambda *zp: jnp.sum(form.value(*zp)), argument)(z, p)
        np.testing.assert_allclose(slope, automatic, rtol=1e-5, atol=1e-6)
        assert np.isfinite(slope).all()
    y = parametric.apply({form.param: jnp.ones(7, dtype)}, z[None].astype(dtype), form=form)
    assert y.dtype == dtype


def test_swish_far_out_does_not_overflow() -> None:
    assert parametric.SWISH.param_slope(jnp.float32(1e30), jnp.float32(1.0)) == 0


def test_a_slope_is_learned() -> None:
    """The function |z| has slope -1 below 0; a fit of one PReLU finds it."""
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    net = models.serial(PRelu())
    result = train.fit(
        net, losses.half_squared_error, optim.sgd(1.0), (x, np.abs(x)), key=jax.random.key(0), epochs=60,
        batch_size=64, progress=False,
        value_and_grad=backprop.value_and_grad(net, losses.half_squared_error),
    )  # fmt: skip
    np.testing.assert_allclose(result.params[0]["slope"], [-1.0], atol=1e-3)


@pytest.mark.slow
def test_per_example_gradients_come_from_the_tape_without_a_fallback() -> None:
    net, loss = models.serial(Dense(4), PRelu(), Dense(4), Swish(shared=True), Dense(2)), losses.softmax_cross_entropy
    x, y = random(1, 5, 3).astype(np.float32), np.arange(5) % 2
    params, state = net.init(jax.random.key(0), (3,))
    tape = backprop.record(net, loss)(params, state, x, y)
    assert backprop.coverage(net, loss).complete

    def one(params: Any, x: Any, y: Any) -> Any:
        return loss(net.predict(params, state, x[None]), y[None])[0]

    each = jax.vmap(jax.grad(one), (None, 0, 0))(params, x, y)
    assert_close(per_example.materialize(tape), each, rtol=1e-4, atol=1e-6)
    expected = sum(np.sum(np.square(leaf).reshape(5, -1), axis=1) for leaf in jax.tree.leaves(each))
    np.testing.assert_allclose(per_example.sq_norms(tape), expected, rtol=1e-4)


def test_penalties_leave_out_the_parameters_of_activations() -> None:
    params, _ = models.serial(Dense(3), PRelu(), Dense(3), Swish()).init(jax.random.key(0), (2,))
    moved = jax.tree.map(lambda a: a, params)
    moved[1]["slope"] += 5
    moved[3]["beta"] -= 5
    assert losses.l2(1.0)(params) == losses.l2(1.0)(moved)

"""Dropout: the mask, the scale, the modes, a traced rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.layers import Dropout, dropout
from tests.helpers import assert_close, strict

RATE = 0.2
X = np.random.default_rng(0).uniform(1, 2, (100, 100)).astype(np.float32)


def check(apply) -> None:
    """A fraction `rate` is zero, the rest is x / (1 - rate), the mean stays: 4 standard errors over 10,000 draws."""
    y = np.asarray(jax.jit(apply)(X, key=jax.random.key(0), rate=RATE))  # the rate is traced
    dropped = y == 0
    np.testing.assert_allclose(dropped.mean(), RATE, atol=4 * np.sqrt(RATE * (1 - RATE) / X.size))
    assert_close(y[~dropped], X[~dropped] / (1 - RATE), rtol=1e-6)
    np.testing.assert_allclose(y.mean(), X.mean(), rtol=0.03)


def test_inverted_dropout():
    with strict():
        check(dropout.apply)


def unscaled(x, *, key, rate):
    return jnp.where(dropout.mask(key, x.shape, rate), x, 0)


def rate_is_kept(x, *, key, rate):
    return dropout.apply(x, key=key, rate=1 - rate)


def one_mask_for_each_row(x, *, key, rate):
    kept = jnp.broadcast_to(dropout.mask(key, (4, 1), rate), (4, 2500)).reshape(x.shape)
    return dropout.apply_mask(x, kept, rate)


@pytest.mark.parametrize("mutant", [unscaled, rate_is_kept, one_mask_for_each_row])
def test_broken_dropout_is_caught(mutant):
    with pytest.raises(AssertionError):
        check(mutant)


def test_given_mask_is_its_own_adjoint():
    @jax.jit
    def both(x, key):
        kept = dropout.mask(key, x.shape, RATE)
        y, vjp = jax.vjp(lambda x: dropout.apply(x, key=key, rate=RATE), x)
        return (dropout.apply_mask(x, kept, RATE), y), (dropout.apply_mask(2 * x, kept, RATE), vjp(2 * x)[0])

    values, adjoints = both(X, jax.random.key(1))
    assert_close(*values, rtol=0)
    assert_close(*adjoints, rtol=1e-6)


def test_evaluation_is_the_identity_and_rate_0_too():
    layer = Dropout(RATE)
    assert layer.init(jax.random.key(0), (3,)) == ((), ())
    y, state = layer.apply((), (), X, key=jax.random.key(0), train=False)
    assert y is X
    assert state == ()
    assert_close(jax.jit(dropout.apply)(X, key=jax.random.key(0), rate=0.0), X, rtol=0)


def test_one_trace_for_many_rates():
    traces = []

    def zeros(rate):
        traces.append(rate)
        return jnp.mean(dropout.apply(X, key=jax.random.key(0), rate=rate) == 0)

    rates = np.array([0.0, 0.3, 0.9], np.float32)
    assert_close(jax.jit(jax.vmap(zeros))(rates), rates, rtol=0, atol=0.02)
    assert len(traces) == 1


def test_half_precision_keeps_its_dtype_and_infinity_is_dropped():
    x = np.full(50, np.inf, jnp.bfloat16)
    y = jax.jit(dropout.apply)(x, key=jax.random.key(0), rate=0.5)
    assert y.dtype == jnp.bfloat16
    assert set(np.unique(np.asarray(y, np.float32))) == {0.0, np.inf}


def test_training_needs_a_typed_key():
    with pytest.raises(ValueError, match=r"dropout: needs a random key, got None\. Pass key="):
        Dropout(0.5).apply((), (), X, train=True)
    with pytest.raises(TypeError, match=r"dropout: key must be a typed key, got .*Make one with jax\.random\.key"):
        Dropout(0.5).apply((), (), X, key=jax.random.PRNGKey(0), train=True)

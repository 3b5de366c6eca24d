"""Logistic regression: likelihoods and gradients against scipy and `jax.grad`, ascent against Newton's maximum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special

from jaxnn import losses
from jaxnn.classic import logistic, multiclass
from jaxnn.classic.neurons import with_bias
from tests.helpers import assert_close, float64, random, slow, strict

N, D, K = 40, 3, 4
X = np.concatenate([np.ones((N, 1)), random(0, N, D - 1)], axis=1)
Y = np.where(X @ [0.3, 1.0, -0.5] + random(1, N) >= 0, 1, -1)
LABELS = np.arange(N) % K


@jax.jit
def two_classes(w: Any) -> Any:
    """((log-likelihood, gradient), (minus the loss, its gradient by `jax.grad`))."""
    ours = logistic.log_likelihood(w, X, Y), logistic.gradient(w, X, Y)
    return ours, jax.value_and_grad(lambda w: -losses.logistic(X @ w, Y).sum())(w)


@jax.jit
def many_classes(w: Any) -> Any:
    """The same for K classes."""
    ours = logistic.softmax_log_likelihood(w, X, LABELS), logistic.softmax_gradient(w, X, LABELS)
    return ours, jax.value_and_grad(lambda w: -losses.softmax_cross_entropy(X @ w, LABELS).sum())(w)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 3.0, 300.0]))
def test_log_likelihoods_are_minus_the_losses_and_gradients_are_theirs(seed: int, scale: float) -> None:
    w, many = scale * random(seed, D), scale * random(seed, D, K)
    with float64():
        got, expected = two_classes(w)
        assert_close(got, expected, rtol=1e-10, atol=1e-10)
        assert_close(got[0], special.log_expit(Y * (X @ w)).sum(), rtol=1e-12)
        got, expected = many_classes(many)
        assert_close(got, expected, rtol=1e-10, atol=1e-10)
        assert_close(got[0], special.log_softmax(X @ many, axis=1)[np.arange(N), LABELS].sum(), rtol=1e-12)


@pytest.mark.slow
def test_a_batch_epoch_is_one_step_up_the_gradient() -> None:
    with float64():
        found = logistic.fit(X, Y, key=jax.random.key(0), learning_rate=0.02, epochs=2, batch_size=N)
        w = np.zeros(D)
        for _ in range(2):
            w = w + 0.02 * X.T @ (special.expit(-Y * (X @ w)) * Y)
        assert_close(found.w, w, rtol=1e-12)
        down = -w
        assert logistic.log_likelihood(w, X, Y) > found.log_likelihood[0] > logistic.log_likelihood(down, X, Y)
        many = logistic.softmax_fit(X, LABELS, K, key=jax.random.key(0), learning_rate=0.02, epochs=1, batch_size=N)
        assert_close(many.w, 0.02 * X.T @ (np.eye(K)[LABELS] - 1 / K), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batch_size", [7, *slow(1, N)])
def test_each_ascent_meets_every_example_once_in_an_epoch(batch_size: int) -> None:
    # With a rate of almost 0 the weights hardly move, so that an epoch adds up the gradient at the start.
    how: dict[str, Any] = {"learning_rate": 1e-9, "epochs": 1, "batch_size": batch_size}

    @jax.jit
    def found(key: Any) -> Any:
        two = logistic.fit(X, Y, key=key, **how).w, logistic.gradient(np.zeros(D), X, Y)
        many = logistic.softmax_fit(X, LABELS, K, key=key, **how).w
        return two, (many, logistic.softmax_gradient(np.zeros((D, K)), X, LABELS))

    with float64():
        for w, gradient in jax.device_get(found(jax.random.key(1))):
            assert_close(1e9 * w, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_batch_ascent_finds_the_maximum_and_the_others_come_near() -> None:
    best = optimize.minimize(lambda w: -special.log_expit(Y * (X @ w)).sum(), np.zeros(D), tol=1e-12)
    with float64():
        batch = logistic.fit(X, Y, key=jax.random.key(0), learning_rate=0.05, epochs=3000, batch_size=N)
        np.testing.assert_allclose(batch.w, best.x, rtol=1e-4)
        assert float(batch.log_likelihood[-1]) == pytest.approx(-best.fun, rel=1e-9)
        assert (np.diff(batch.log_likelihood) >= -1e-12).all()  # small steps up never go down
        assert_close(batch.log_likelihood[0], N * np.log(0.5), rtol=1e-12)
        for size, near in ((1, 0.05), (8, 0.05)):
            other = logistic.fit(X, Y, key=jax.random.key(0), learning_rate=0.02, epochs=300, batch_size=size)
            assert -best.fun - near * N < float(other.log_likelihood[-1]) <= -best.fun + 1e-9


def test_stochastic_ascent_is_a_function_of_its_key() -> None:
    settings: dict[str, Any] = {"learning_rate": 0.1, "epochs": 2, "batch_size": 1}
    with float64():
        fit = jax.jit(lambda seed: logistic.fit(X, Y, key=jax.random.key(seed), **settings).w)
        first, again, other = (np.asarray(fit(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("dtype", [int, bool, np.float64, np.int8])
def test_labels_0_and_1_are_those_of_minus_1_and_1(dtype: Any) -> None:
    settings: dict[str, Any] = {"key": jax.random.key(2), "learning_rate": 0.1, "epochs": 2, "batch_size": 16}
    bits, w = (Y > 0).astype(dtype), random(5, D)

    def every(y: Any) -> Any:
        return logistic.log_likelihood(w, X, y), logistic.gradient(w, X, y), logistic.fit(X, y, **settings).w

    with float64():
        assert_close(every(bits), every(Y), rtol=0)
        assert_close(jax.jit(every)(bits), jax.jit(every)(Y), rtol=0)


def test_the_constant_alone_learns_the_log_odds() -> None:
    with float64():
        for positive in (30, 25, 4):
            y = (np.arange(40) < positive).astype(int)
            found = logistic.fit(
                np.ones((40, 1)), y, key=jax.random.key(0), learning_rate=0.1, epochs=300, batch_size=40
            )
            np.testing.assert_allclose(found.w, np.log(positive / (40 - positive)), rtol=1e-6)


def test_a_trace_is_the_fit_after_every_update() -> None:
    settings: dict[str, Any] = {"key": jax.random.key(2), "learning_rate": 0.1, "epochs": 3, "batch_size": 16}
    with float64():
        fit, trace = logistic.fit(X, Y, **settings), logistic.trace(X, Y, **settings)
        np.testing.assert_array_equal(trace.w, fit.w)
        assert trace.log_likelihood.shape == (3 * 3 + 1,)  # 16, 16 and 8 examples
        assert_close(trace.log_likelihood[::3], fit.log_likelihood, rtol=1e-12)
        assert_close(trace.log_likelihood[-1], logistic.log_likelihood(trace.w, X, Y), rtol=1e-12)


@pytest.mark.slow
def test_two_classes_are_the_softmax_of_two() -> None:
    with float64():
        one = logistic.fit(X, Y, key=jax.random.key(0), learning_rate=0.02, epochs=5, batch_size=7)
        # The weights of two classes move by half of each step apart, so their difference moves by twice the rate.
        two = logistic.softmax_fit(
            X, (Y < 0).astype(int), 2, key=jax.random.key(0), learning_rate=0.01, epochs=5, batch_size=7
        )
        assert_close(two.w[:, 0] - two.w[:, 1], one.w, rtol=1e-10)
        assert_close(logistic.softmax_probability(two.w, X)[:, 0], logistic.probability(one.w, X), rtol=1e-10)


@pytest.mark.slow
def test_many_classes_are_told_apart() -> None:
    centres = np.array([[0, 3], [3, 0], [-3, 0], [0, -3]])
    x = with_bias(centres[np.arange(80) % 4] + 0.5 * random(0, 80, 2))
    labels = np.arange(80) % 4
    found = logistic.softmax_fit(x, labels, 4, key=jax.random.key(0), learning_rate=0.1, epochs=20, batch_size=8)
    assert (np.asarray(multiclass.predict(found.w, x)) == labels).all()
    assert (np.asarray(logistic.softmax_probability(found.w, x)).argmax(axis=1) == labels).all()


@pytest.mark.slow
def test_promotions_are_strict_and_a_traced_wrong_label_shows() -> None:
    with float64(), strict():
        settings: dict[str, Any] = {"key": jax.random.key(0), "learning_rate": 0.1, "epochs": 2, "batch_size": 7}
        assert logistic.fit(X, Y, **settings).w.dtype == jnp.float64
        assert logistic.softmax_fit(X, LABELS, K, **settings).w.dtype == jnp.float64
        assert logistic.probability(np.zeros(D), X).dtype == jnp.float64
        assert np.isnan(jax.jit(lambda y: logistic.log_likelihood(np.zeros(D), X, y))(np.full(N, 2.0)))
        assert np.isnan(jax.jit(lambda y: logistic.softmax_log_likelihood(np.zeros((D, K)), X, y))(np.full(N, K)))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"batch_size": 41}, "batch_size must be at most the number of examples, 40, got 41"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"key": 3}, "must be a typed key"),
        ({"learning_rate": None}, "learning_rate must be"),
        ({"learning_rate": -0.1}, r"learning_rate must lie in \[0, inf\), got -0.1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], text: str) -> None:
    usual = {"key": jax.random.key(0), "learning_rate": 0.1, "epochs": 1, "batch_size": 8}
    with float64(), pytest.raises((ValueError, TypeError), match=text):
        logistic.fit(X, Y, **(usual | settings))
    with float64(), pytest.raises((ValueError, TypeError), match=text):
        logistic.softmax_fit(X, LABELS, K, **(usual | settings))


def test_bad_labels_are_named() -> None:
    with float64(), pytest.raises(ValueError, match=r"labels must be -1 or .*, or 0 or 1, got 2"):
        logistic.log_likelihood(np.zeros(D), X, (Y > 0).astype(int) + 1)
    with float64(), pytest.raises(ValueError, match="got 0 and -1 among the same labels"):
        logistic.gradient(np.zeros(D), X, np.where(np.arange(N) == 0, 0, Y))
    with float64(), pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got 3"):
        logistic.softmax_gradient(np.zeros((D, 3)), X, LABELS)

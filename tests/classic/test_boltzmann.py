"""The restricted Boltzmann machine against enumeration of all states: partition function, gradient, sampling, CD."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import boltzmann
from jaxnn.classic.boltzmann import Machine
from tests.helpers import assert_close, float64, strict

V, H = 4, 3
VISIBLE = np.array(list(itertools.product([0.0, 1.0], repeat=V)))
HIDDEN = np.array(list(itertools.product([0.0, 1.0], repeat=H)))


def machine(seed: int = 0, v: int = V, h: int = H, size: float = 1.0) -> Machine:
    numbers = np.random.default_rng(seed)
    return Machine(*(jnp.asarray(size * numbers.standard_normal(shape)) for shape in ((v, h), v, h)))


def joint(m: Machine) -> np.ndarray:
    """e^(-E(v, h)) of all states, (2^V, 2^H)."""
    w, a, b = map(np.asarray, m)
    return np.exp(VISIBLE @ w @ HIDDEN.T + (VISIBLE @ a)[:, None] + (HIDDEN @ b)[None])


def moments(weights: np.ndarray) -> Machine:
    """<v h'>, <v>, <h> under a distribution over all states."""
    p = weights / weights.sum()
    return Machine(VISIBLE.T @ p @ HIDDEN, p.sum(1) @ VISIBLE, p.sum(0) @ HIDDEN)


def transition(m: Machine) -> np.ndarray:
    """The matrix P(v' | v) of one step of Gibbs sampling."""
    states = joint(m)
    return (states / states.sum(1, keepdims=True)) @ (states / states.sum(0, keepdims=True)).T


def with_data(m: Machine, p: np.ndarray) -> np.ndarray:
    """The distribution over all states with p (2^V,) of the visible units, and P(h | v)."""
    states = joint(m)
    return p[:, None] * states / states.sum(1, keepdims=True)


def frequencies(v: Any) -> np.ndarray:
    """How often each of the 2^V states occurs among samples v (..., V)."""
    index = np.asarray(v).reshape(-1, V).astype(int) @ (2 ** np.arange(V)[::-1])
    return np.bincount(index, minlength=2**V) / len(index)


DATA = VISIBLE[[0, 3, 3, 9, 12, 15]]


@jax.jit
def exact(m: Machine, v: Any) -> Any:
    return *jax.value_and_grad(boltzmann.log_likelihood)(m, v), boltzmann.log_partition(m)


def test_likelihood_and_its_gradient_by_enumeration() -> None:
    with float64(), strict():
        m = machine()
        states = joint(m)
        log_p = np.log(states.sum(1) / states.sum())
        expected = log_p @ frequencies(DATA)
        value, gradient, log_z = exact(m, jnp.asarray(DATA))
        np.testing.assert_allclose(log_z, np.log(states.sum()), rtol=1e-13)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        data, model = moments(with_data(m, frequencies(DATA))), moments(states)
        assert_close(gradient, jax.tree.map(np.subtract, data, model), rtol=1e-11, atol=1e-13)


def test_either_layer_may_be_the_smaller_one_and_large() -> None:
    with float64():
        tall = Machine(*(jnp.asarray(part, jnp.float64) for part in machine(1, 14, 3, 0.5)))
        wide = Machine(tall.w.T, tall.b, tall.a)
        large = Machine(jnp.zeros((13, 13)), jnp.arange(13.0), jnp.zeros(13))  # more than one block of states
        of_tall, of_wide, of_large = jax.jit(lambda *each: [boltzmann.log_partition(m) for m in each])(
            tall, wide, large
        )
        np.testing.assert_allclose(of_tall, of_wide, rtol=1e-12)
        np.testing.assert_allclose(of_large, np.logaddexp(0, np.arange(13.0)).sum() + 13 * np.log(2), rtol=1e-12)


def test_conditional_probabilities() -> None:
    with float64(), strict():
        m = machine(2)
        states = joint(m)
        given_v = (states / states.sum(1, keepdims=True)) @ HIDDEN
        np.testing.assert_allclose(boltzmann.hidden_probability(m, jnp.asarray(VISIBLE)), given_v, rtol=1e-12)
        given_h = (states / states.sum(0, keepdims=True)).T @ VISIBLE
        np.testing.assert_allclose(boltzmann.visible_probability(m, jnp.asarray(HIDDEN)), given_h, rtol=1e-12)


@functools.partial(jax.jit, static_argnames="steps")
def many(m: Machine, v: Any, key: Any, steps: int) -> Any:
    return boltzmann.contrastive_divergence(m, v, key=key, steps=steps)


def test_cd_has_the_expectation_of_the_transition_matrix() -> None:
    """From 60,000 chains: their distribution after k steps, and CD-k, within 4 standard errors (1/2 / sqrt(N))."""
    m = jax.tree.map(jnp.float32, machine(3))
    copies = 10_000
    start = jnp.asarray(np.tile(DATA, (copies, 1)), jnp.float32)
    for steps in (1, 3):
        direction, samples = many(m, start, jax.random.key(steps), steps)
        after = frequencies(DATA) @ np.linalg.matrix_power(transition(m), steps)
        error = 4 * 0.5 / np.sqrt(len(start))
        np.testing.assert_allclose(frequencies(samples), after, atol=error)
        expected = jax.tree.map(np.subtract, moments(with_data(m, frequencies(DATA))), moments(with_data(m, after)))
        assert_close(direction, expected, rtol=0, atol=2 * error)
        wrong = frequencies(DATA) @ np.linalg.matrix_power(transition(m), steps + 1)
        assert steps > 1 or np.abs(wrong - after).max() > 2 * error, "a second step would be seen"


def test_cd_points_up_and_tends_to_the_gradient() -> None:
    """The expected CD-k, by the transition matrix: its angle to the exact gradient, which closes as k grows."""
    cosines = []
    for seed in range(8):
        m = machine(seed)
        data, states = frequencies(DATA), joint(m)
        positive = moments(with_data(m, data))
        exact = np.concatenate([np.ravel(p - q) for p, q in zip(positive, moments(states), strict=True)])
        row = []
        for k in (1, 10, 400):
            negative = moments(with_data(m, data @ np.linalg.matrix_power(transition(m), k)))
            found = np.concatenate([np.ravel(p - q) for p, q in zip(positive, negative, strict=True)])
            row.append(found @ exact / np.linalg.norm(found) / np.linalg.norm(exact))
        cosines.append(row)
    first, tenth, last = np.array(cosines).T
    assert (first > 0).all()
    assert (tenth > first).all()
    np.testing.assert_allclose(last, 1, atol=1e-6)


def test_gibbs_sampling_keeps_the_distribution() -> None:
    m = jax.tree.map(jnp.float32, machine(4))
    p = joint(m).sum(1)
    np.testing.assert_allclose(p @ transition(m), p, rtol=1e-6)
    drawn = np.random.default_rng(0).choice(2**V, 40_000, p=p / p.sum())
    after = boltzmann.gibbs(m, jnp.asarray(VISIBLE[drawn]), key=jax.random.key(0), steps=2)
    np.testing.assert_allclose(frequencies(after), p / p.sum(), atol=4 * 0.5 / np.sqrt(40_000))


def test_chains_go_on_where_they_are() -> None:
    m = jax.tree.map(jnp.float32, machine(5))
    v, chains, key = jnp.asarray(DATA, jnp.float32), jnp.ones((50, V)), jax.random.key(0)
    (direction, after), sampled = jax.jit(
        lambda m, v, chains: (
            boltzmann.contrastive_divergence(m, v, key=key, chains=chains),
            boltzmann.gibbs(m, chains, key=key, steps=1),
        )
    )(m, v, chains)
    assert after.shape == (50, V)
    np.testing.assert_allclose(direction.a, DATA.mean(0) - np.asarray(after).mean(0), atol=1e-6)
    assert (sampled == after).all()


@pytest.mark.slow
def test_training_raises_the_likelihood_towards_its_maximum() -> None:
    x, p = np.tile(DATA, (20, 1)), frequencies(DATA)[frequencies(DATA) > 0]
    best = (p * np.log(p)).sum()
    settings: dict[str, Any] = {"hidden": 8, "epochs": 1000, "batch_size": 60, "learning_rate": 0.5}
    for persistent in (False, True):
        found = boltzmann.fit(x, key=jax.random.key(0), persistent=persistent, **settings)
        values = np.asarray(jax.lax.map(lambda m: boltzmann.log_likelihood(m, jnp.float32(DATA)), found))
        assert values[0] < -2.6  # near -4 log 2, of the uniform distribution
        assert best - 0.5 < values[:500].max() < values.max() < best
        assert persistent or values[-100:].mean() > best - 0.25  # at this rate persistent chains mix too slowly


def test_dtypes() -> None:
    half = jax.tree.map(jnp.bfloat16, machine())
    gibbs = functools.partial(boltzmann.gibbs, key=jax.random.key(0), steps=2)
    assert jax.eval_shape(gibbs, half, jnp.ones((2, V), jnp.bfloat16)).dtype == jnp.float32
    settings: dict[str, Any] = {"hidden": 2, "epochs": 1, "batch_size": 4, "learning_rate": 0.1}
    shapes = jax.eval_shape(lambda key: boltzmann.fit(DATA, key=key, **settings), jax.random.key(0))
    assert shapes.w.shape == (1, V, 2)
    with float64(), strict():
        shapes = jax.eval_shape(lambda x, key: boltzmann.fit(x, key=key, **settings), DATA, jax.random.key(0))
        assert shapes.w.dtype == jnp.float64


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: boltzmann.log_partition(Machine(jnp.zeros((30, 30)), jnp.zeros(30), jnp.zeros(30))),
            "at most 24 units, got 30",
        ),
        (lambda: boltzmann.gibbs(machine(), VISIBLE, key=None, steps=1), "needs a random key"),
        (lambda: boltzmann.gibbs(machine(), VISIBLE, key=jax.random.key(0), steps=0), "steps must be at least 1"),
        (
            lambda: boltzmann.fit(2 * DATA, key=jax.random.key(0), hidden=2, epochs=1, batch_size=2, learning_rate=0.1),
            "x must be 0 or 1, got 2. Convert grey levels",
        ),
        (
            lambda: boltzmann.fit(DATA, key=jax.random.key(0), hidden=2, epochs=1, batch_size=9, learning_rate=0.1),
            "boltzmann.fit: batch_size must be at most the number of examples, 6, got 9",
        ),
        (
            lambda: boltzmann.fit(DATA, key=jax.random.key(0), hidden=0, epochs=1, batch_size=2, learning_rate=0.1),
            "hidden must be at least 1",
        ),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


SMALL = boltzmann.Machine(jnp.ones((3, 2)), jnp.zeros(3), jnp.zeros(2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: boltzmann.gibbs(SMALL, np.ones((2, 5)), key=jax.random.key(0), steps=1), "with V = 3, got"),
        (lambda: boltzmann.contrastive_divergence(SMALL, np.ones(3), key=jax.random.key(0)), "\\(N, V\\), N >= 1"),
        (
            lambda: boltzmann.contrastive_divergence(
                SMALL, np.ones((2, 3)), key=jax.random.key(0), chains=np.ones((2, 4))
            ),
            "with V = 3, got",
        ),
        (lambda: boltzmann.log_likelihood(SMALL, np.zeros((0, 3))), "N >= 1"),
        (lambda: boltzmann.log_partition(SMALL._replace(a=jnp.zeros(2))), "expected a machine with w"),
        (
            lambda: boltzmann.fit([[1, 0]], key=None, hidden=2, epochs=1, batch_size=1, learning_rate=0.1),
            "needs a random key",
        ),
    ],
)
def test_shapes_that_do_not_match_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_units_in_lists() -> None:
    v = [[1, 0, 1]]
    assert boltzmann.log_likelihood(SMALL, v) == boltzmann.log_likelihood(SMALL, jnp.asarray(v))
    boltzmann.contrastive_divergence(SMALL, v, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"batch_size must be an int, got 1\.5"):
        boltzmann.fit(v, key=jax.random.key(0), hidden=2, epochs=1, batch_size=1.5, learning_rate=0.1)

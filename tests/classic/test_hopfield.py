"""The Hopfield network: every update lowers the energy, patterns are stored, and the capacity is .138 N."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from jaxnn.classic import hopfield
from tests.helpers import float64, strict


def signs(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape)


def symmetric(seed: int, n: int) -> np.ndarray:
    w = np.random.default_rng(seed).standard_normal((n, n))
    w += w.T
    np.fill_diagonal(w, 0)
    return w


@functools.partial(jax.jit, static_argnames="rule")
def updated(w: Any, state: Any, order: Any, rule: Any = hopfield.update) -> tuple[Any, Any]:
    """All states of the updates of these units, and their energies."""
    _, states = jax.lax.scan(lambda s, i: (rule(w, s, i),) * 2, state, order)
    states = jnp.concatenate([state[None], states])
    return states, hopfield.energy(w, states)


recalled = jax.jit(jax.vmap(lambda w, s, key: hopfield.recall(w, s, key=key), (None, 0, 0)))


def recall_all(w: Any, states: Any, seed: int = 0) -> Any:
    return recalled(w, states, jax.random.split(jax.random.key(seed), len(states)))


def test_hebb_and_the_energy_by_loops() -> None:
    xi = signs(0, 3, 7)
    w = np.zeros((7, 7))
    for i in range(7):
        for j in range(7):
            w[i, j] = sum(xi[p, i] * xi[p, j] for p in range(3)) / 7 * (i != j)
    with float64(), strict():
        np.testing.assert_allclose(hopfield.hebb(xi), w, rtol=1e-14)
        expected = [-sum(w[i, j] * s[i] * s[j] for i in range(7) for j in range(7)) / 2 for s in xi]
        np.testing.assert_allclose(hopfield.energy(jnp.asarray(w), jnp.asarray(xi)), expected, rtol=1e-13)


@given(st.integers(0, 10_000))
def test_no_update_raises_the_energy(seed: int) -> None:
    w, state = symmetric(seed, 12), signs(seed + 1, 12)
    order = np.random.default_rng(seed).integers(0, 12, 60)
    with float64():
        states, energies = map(np.asarray, updated(w, state, order))
    fields = np.einsum("tj,tj->t", w[order], states[:-1])
    changed = (states[1:] != states[:-1]).any(axis=1)
    np.testing.assert_allclose(np.diff(energies), -2 * np.abs(fields) * changed, atol=1e-12)
    assert (np.take_along_axis(states[1:], order[:, None], 1)[:, 0] == np.sign(fields)).all()


def test_wrong_updates_raise_it() -> None:
    w, state, order = symmetric(0, 12), signs(1, 12), np.random.default_rng(2).integers(0, 12, 200)
    broken = {
        "the other sign": (lambda w, s, i: s.at[i].set(-jnp.sign(w[i] @ s)), w),
        "all at once": (lambda w, s, i: jnp.sign(w @ s), w),
        "connections one way": (hopfield.update, np.triu(w)),
        "self-connections": (hopfield.update, w - 9 * np.eye(12)),
    }
    with float64():
        for name, (rule, weights) in broken.items():
            assert (np.diff(updated(weights, state, order, rule)[1]) > 0.1).any(), name
    two = jnp.array([[0.0, -1.0], [-1.0, 0.0]])
    assert (jnp.sign(two @ jnp.ones(2)) == -1).all(), "all at once: from (1, 1) to (-1, -1) and back"


def test_recall_ends_in_a_minimum() -> None:
    w, starts = symmetric(3, 12), signs(4, 20, 12)
    with float64():
        found = recall_all(w, starts)
        assert found.converged.all()
        assert (found.sweeps > 1).any()
        energies = hopfield.energy(jnp.asarray(w), found.state)
        for i in range(12):
            flipped = found.state.at[:, i].multiply(-1)
            assert (hopfield.energy(jnp.asarray(w), flipped) >= energies).all()
        assert (recall_all(w, found.state).sweeps == 1).all()
    assert hopfield.recall(w, starts[0], key=jax.random.key(0), sweeps=1).sweeps == 1


def test_a_field_of_zero_keeps_the_state() -> None:
    found = hopfield.recall(np.zeros((3, 3)), [1, -1, 1], key=jax.random.key(0))
    assert found.state.tolist() == [1, -1, 1]
    assert found.converged


def test_patterns_are_recalled_from_noise() -> None:
    xi = signs(5, 6, 128)
    noisy = xi * np.where(np.random.default_rng(6).random(xi.shape) < 0.2, -1, 1)
    for rule in (hopfield.hebb, hopfield.projection):
        assert (recall_all(rule(xi), noisy).state == xi).all(), "one pattern for each 21 units, a fifth of them flipped"
    assert (recall_all(hopfield.hebb(xi), -noisy).state == -xi).all(), "with a pattern its inverse is stored"


@pytest.mark.slow
def test_projection_stores_correlated_patterns_where_hebb_fails() -> None:
    base = signs(7, 64)
    xi = base * np.where(np.random.default_rng(8).random((8, 64)) < 0.1, -1, 1)
    xi = np.concatenate([xi, xi[:1]])  # a repetition has no effect
    q = np.asarray(hopfield.projection(xi))
    exact = xi.T @ np.linalg.pinv(xi.T)
    np.testing.assert_allclose(q, exact - np.diag(np.diag(exact)), atol=1e-6)
    assert (recall_all(q, xi).state == xi).all()
    assert (recall_all(hopfield.hebb(xi), xi).state != xi).any()
    alone = hopfield.projection(np.eye(5) * 2 - 1)  # all of space: every state is stored
    assert (recall_all(alone, signs(9, 10, 5)).state == signs(9, 10, 5)).all()


@pytest.mark.slow
def test_the_mean_field_equations() -> None:
    """By iteration, in the form in which they are published."""

    def overlap(load: float) -> float:
        m, r = 1.0, 1.0
        for _ in range(20_000):
            c = np.sqrt(2 / (np.pi * load * r)) * np.exp(-(m**2) / (2 * load * r))
            r = (1 - c) ** -2
            m = special.erf(m / np.sqrt(2 * load * r))
        return float(m)

    with float64():
        loads = np.array([0.02, 0.05, 0.1, 0.13, 0.137])
        np.testing.assert_allclose(
            jax.vmap(hopfield.retrieval_overlap)(loads), [overlap(load) for load in loads], rtol=1e-9
        )
        critical = float(hopfield.critical_load())
        assert critical == pytest.approx(0.1379, abs=5e-5)
        assert hopfield.retrieval_overlap(critical) == pytest.approx(0.967, abs=1e-3)
        assert hopfield.retrieval_overlap(1.001 * critical) == 0


def test_unstable_bits_are_as_many_as_gaussian_noise_makes() -> None:
    """One update of one unit of a stored pattern: the other P - 1 patterns add noise of variance (P - 1) / N."""
    n, p = 512, 128
    xi = signs(10, p, n)
    wrong = float(np.mean(np.sign(xi @ np.asarray(hopfield.hebb(xi))) != xi))
    assert wrong == pytest.approx(special.erfc(np.sqrt(n / (2 * (p - 1)))) / 2, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "low", "high"), [(0.08, 0.998, 1), (0.12, 0.97, 0.995), (0.18, 0, 0.75)])
def test_the_capacity_in_simulation(load: float, low: float, high: float) -> None:
    n = 1000
    xi = signs(11, int(load * n), n)
    overlaps = np.mean(np.asarray(recall_all(hopfield.hebb(xi), xi[:20]).state) * xi[:20], axis=1)
    assert low <= overlaps.mean() <= high
    if load < 0.13:
        assert overlaps.mean() == pytest.approx(float(hopfield.retrieval_overlap(load)), abs=0.01)


def test_states_may_be_lists_and_numpy_arrays_of_integers() -> None:
    xi = np.array([1, 1, -1, -1])
    w = np.asarray(hopfield.hebb([xi]))
    assert float(hopfield.energy(w, xi.tolist())) == -1.5
    after = hopfield.update(w, np.array([1, 1, 1, -1]), 2)
    np.testing.assert_array_equal(after, xi)
    assert after.dtype == w.dtype


def test_dtypes_and_transformations() -> None:
    xi = signs(12, 2, 16)
    assert hopfield.hebb(xi.astype(jnp.bfloat16)).dtype == hopfield.hebb(xi).dtype == jnp.float32
    with float64(), strict():
        w = hopfield.projection(xi)
        found = hopfield.recall(w, xi[0].astype(np.float32), key=jax.random.key(0))
        assert found.state.dtype == w.dtype == jnp.float64
    assert jnp.isnan(jax.jit(hopfield.hebb)(0.5 * xi)).any(), "traced patterns that are not signs"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: hopfield.hebb([[0, 1]]), "patterns must be -1 or 1, got 0. Convert bits by 2"),
        (lambda: hopfield.hebb([1, -1]), r"patterns must have shape \(N, D\).* one number per example as x\[:, None\]"),
        (lambda: hopfield.hebb([[1j, 1]]), "real numbers, got dtype complex"),
        (lambda: hopfield.recall(np.eye(3), [1, -1], key=jax.random.key(0)), r"got \(3, 3\) and \(2,\)"),
        (lambda: hopfield.recall(np.eye(2), [1, -1], key=0), "typed key"),
        (lambda: hopfield.recall(np.eye(2), [1, 0], key=jax.random.key(0)), "state must be -1 or 1"),
        (lambda: hopfield.retrieval_overlap(0.0), "load must be a finite number > 0"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_loads_and_states_without_an_answer() -> None:
    loads = jax.jit(jax.vmap(hopfield.retrieval_overlap))(jnp.array([-1.0, 0.1, np.nan]))
    np.testing.assert_array_equal(np.isnan(loads), [True, False, True])
    with pytest.raises(ValueError, match=r"states \(\.\.\., N\), got \(4, 4\) and \(3,\)"):
        hopfield.energy(np.zeros((4, 4)), np.ones(3))
    w = hopfield.hebb([[1, -1, 1]])
    assert hopfield.recall(w, [1, -1, 1], key=jax.random.key(0), sweeps=10**10).converged

"""Poisson batches of fixed shape: who is drawn, how often, and what an accountant makes of it."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats

from jaxnn.per_example import dp_event, poisson_batch, poisson_size
from tests.helpers import slow

DRAWS = 4000
SIGMAS = 4.5
"""How many standard errors a frequency may be off: 7 in a million are, of each."""


def drawn(examples: int, probability: float, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whether each draw holds each example, (DRAWS, n), and the sums of weights (DRAWS,)."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    indices, weights = jax.jit(jax.vmap(lambda key: poisson_batch(key, examples, probability, size)))(keys)
    assert (indices.dtype, weights.dtype) == (np.int32, np.float32)
    held = np.zeros((DRAWS, examples))
    np.add.at(held, (np.arange(DRAWS)[:, None], np.asarray(indices)), np.asarray(weights))
    assert set(np.unique(held)) <= {0, 1}, "an example is drawn twice"
    assert set(np.unique(weights)) <= {0, 1}
    return held, np.asarray(weights).sum(1)


def worst(found: np.ndarray, expected: float) -> float:
    """The largest deviation of frequencies from a probability, in standard errors."""
    return float(np.abs(found - expected).max() / math.sqrt(expected * (1 - expected) / DRAWS))


@pytest.mark.parametrize("size", [18, *slow(30, 45)])
def test_each_example_is_drawn_on_its_own(size: int) -> None:
    """Where no draw overflows (of 30 at 0.2, none is above 17 here): frequencies of all examples and of all pairs."""
    held, counts = drawn(30, 0.2, size)
    assert counts.max() <= 17
    assert worst(held.mean(0), 0.2) <= SIGMAS
    pairs = held.T @ held / DRAWS
    assert worst(pairs[np.triu_indices(30, 1)], 0.04) <= SIGMAS
    expected = scipy.stats.binom(30, 0.2).pmf(np.arange(3, 11))
    assert np.abs((counts[:, None] == np.arange(3, 11)).mean(0) - expected).max() <= SIGMAS * 0.5 / math.sqrt(DRAWS)


def test_a_draw_that_overflows_keeps_a_uniform_subset() -> None:
    held, counts = drawn(30, 0.2, 4)
    tail = scipy.stats.binom(30, 0.2)
    assert counts.max() == 4
    assert worst((counts == 4).mean(), tail.sf(3)) <= SIGMAS
    kept = sum(min(k, 4) * tail.pmf(k) for k in range(31)) / 30
    assert worst(held.mean(0), kept) <= SIGMAS


def test_everyone_and_no_one() -> None:
    held, _ = drawn(7, 1.0, 9)
    assert held.all()
    held, counts = drawn(7, 2.0**-31, 9)
    assert not held.any()
    assert counts.max() == 0


@pytest.mark.slow
def test_small_probabilities_are_not_rounded_to_multiples_of_a_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """q = 1.7 * 2^-24 takes 435 of the 2^32 values of a word; uniform float32 numbers would take 2^-23 or none."""
    words = np.array([434, 435, 2**32 - 1, 0, 436], np.uint32)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: words)
    indices, weights = poisson_batch(jax.random.key(0), 5, 1.7 * 2**-24, 3)
    assert indices.tolist() == [0, 3, 0]
    assert weights.tolist() == [1, 1, 0]
    assert poisson_batch(jax.random.key(0), 5, 1.0, 5)[1].sum() == 5
    # Of four below the threshold the three least stay.
    assert sorted(poisson_batch(jax.random.key(0), 5, 0.5, 3)[0].tolist()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("examples", "probability", "steps", "failure"),
    [(1000, 0.05, 100, 1e-6), (60_000, 256 / 60_000, 10_000, 1e-12), (5, 0.5, 3, 0.5), (3, 1.0, 1, 1e-9)],
)
def test_the_least_size_that_seldom_overflows(examples: int, probability: float, steps: int, failure: float) -> None:
    size = poisson_size(examples, probability, steps, failure)
    tail = scipy.stats.binom(examples, probability)
    assert 1 <= size <= examples
    assert steps * tail.sf(size) <= failure
    assert size == 1 or steps * tail.sf(size - 1) > failure


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"key": jax.random.PRNGKey(0)}, TypeError, "key must be a typed key"),
        ({"examples": 0}, ValueError, "examples must be at least 1"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"probability": 0.0}, ValueError, "probability must be a finite number > 0"),
        ({"probability": 1.5}, ValueError, r"probability must lie in \[0, 1\]"),
        ({"probability": 2.0**-33}, ValueError, r"at least 2\^-32"),
    ],
)
def test_draws_out_of_range(call: Any, error: Any, message: str) -> None:
    arguments = {"key": jax.random.key(0), "examples": 10, "probability": 0.1, "size": 4} | call
    with pytest.raises(error, match=message):
        poisson_batch(**arguments)


def test_probability_must_be_known() -> None:
    with pytest.raises(TypeError, match="must be known while tracing"):
        jax.jit(lambda q: poisson_batch(jax.random.key(0), 10, q, 4))(0.1)
    with pytest.raises(ValueError, match=r"failure must lie in \[0, 1\)"):
        poisson_size(10, 0.1, 5, 1.0)


SETTINGS = {"noise_multiplier": 1.1, "probability": 0.01, "steps": 500}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"noise_multiplier": -1.0}, ValueError, "noise_multiplier must lie in"),
        ({"probability": 0.0}, ValueError, "probability must be a finite number > 0"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"size": 20}, ValueError, "needs examples and size"),
    ],
)
def test_events_out_of_range(changed: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        dp_event(**(SETTINGS | changed))


def test_without_an_accountant_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxnn\[privacy\]'"):
        dp_event(**SETTINGS)


def imported(name: str) -> Any:
    """A peer, whose own warnings are no failures of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.parametrize(("accountant", "size"), [("Rdp", None), *slow(("Pld", None), ("Pld", 30))])
def test_epsilon_is_that_of_jax_privacy(accountant: str, size: int | None) -> None:
    """2,000 examples at 0.01, 500 steps; where 30 places overflow, once in 80 draws, epsilon is thrice as large."""
    peer = imported("jax_privacy.accounting")
    cut = {} if size is None else {"examples": 2000, "size": size}
    config = getattr(peer, f"{accountant}AccountantConfig")()
    epsilon = config.create_accountant().compose(dp_event(**SETTINGS, **cut)).get_epsilon(1e-5)
    params = peer.DpParams(
        noise_multipliers=1.1, num_samples=2000, delta=1e-5, batch_size=20, truncated_batch_size=size
    )
    assert epsilon == pytest.approx(peer.DpsgdTrainingAccountant(config).compute_epsilon(500, params), rel=1e-9)
    assert epsilon == pytest.approx({("Pld", None): 1.08, ("Rdp", None): 1.32}.get((accountant, size), 3.39), abs=0.01)


def test_events_are_those_of_jax_privacy() -> None:
    peer = imported("jax_privacy.experimental.accounting")
    assert dp_event(**SETTINGS) == peer.dpsgd_event(1.1, 500, sampling_prob=0.01)
    theirs = peer.truncated_dpsgd_event(1.1, 500, sampling_prob=0.01, num_examples=2000, truncated_batch_size=30)
    assert dp_event(**SETTINGS, examples=2000, size=30) == theirs


def test_without_sampling_epsilon_is_that_of_one_gaussian() -> None:
    """T steps of multiplier sigma are one of sigma / sqrt(T), whose delta Balle and Wang (2018) give exactly."""
    accounting = imported("dp_accounting")
    event = dp_event(noise_multiplier=8.0, probability=1.0, steps=16)
    epsilon = accounting.pld.PLDAccountant().compose(event).get_epsilon(1e-6)
    sigma, normal = 2.0, scipy.stats.norm.cdf
    delta = normal(1 / (2 * sigma) - epsilon * sigma) - math.exp(epsilon) * normal(-1 / (2 * sigma) - epsilon * sigma)
    assert delta == pytest.approx(1e-6, rel=0.02)


def test_the_numbers_of_the_documentation() -> None:
    accounting = imported("dp_accounting")
    settings = {"probability": 256 / 60_000, "steps": 10_000}
    pld = accounting.pld.PLDAccountant
    assert pld().compose(dp_event(noise_multiplier=1.1, **settings)).get_epsilon(1e-5) == pytest.approx(1.98, abs=0.005)
    assert pld().compose(dp_event(noise_multiplier=1.75, **settings)).get_epsilon(1e-5) == pytest.approx(1.0, abs=0.005)

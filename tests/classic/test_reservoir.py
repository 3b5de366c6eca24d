"""The echo-state network: contraction, memory up to N, spectral radii against NumPy, a chaotic series continued."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import reservoir
from jaxnn.classic.neurons import with_bias
from jaxnn.classic.reservoir import Reservoir
from jaxnn.data import series
from tests.helpers import float64, random, strict

states = jax.jit(reservoir.states, static_argnames="activation")


LINE = Reservoir(jnp.eye(3, k=1), jnp.eye(1, 3), jnp.zeros(3), jnp.ones(()))


def identity(z: Any) -> Any:
    return z


def scaled(made: Reservoir, factor: Any) -> Reservoir:
    return made._replace(w=factor * made.w)


def test_the_states_by_loops() -> None:
    w, w_in, b = 0.3 * random(0, 4, 4), random(1, 2, 4), random(2, 4)
    u, start = random(3, 6, 2), random(4, 4)
    x, expected = start, []
    for t in range(6):
        z = [
            b[j] + sum(x[i] * w[i, j] for i in range(4)) + sum(u[t, d] * w_in[d, j] for d in range(2)) for j in range(4)
        ]
        x = 0.7 * x + 0.3 * np.tanh(z)
        expected.append(x)
    with float64(), strict():
        made = Reservoir(*(jnp.asarray(part) for part in (w, w_in, b, 0.3)))
        np.testing.assert_allclose(states(made, u, start=jnp.asarray(start)), expected, rtol=1e-12)


@pytest.mark.slow
def test_spectral_radii_are_numpys() -> None:
    with float64(), strict():
        for seed in range(6):
            w = random(seed, 30, 30) * (np.random.default_rng(seed).random((30, 30)) < 0.2)
            exact = np.abs(np.linalg.eigvals(w)).max()
            np.testing.assert_allclose(reservoir.spectral_radius(jnp.asarray(w)), exact, rtol=1e-4)
        assert reservoir.spectral_radius(jnp.eye(5, k=1)) == 0, "nilpotent"
        made = reservoir.make(jax.random.key(0), 1, 60, radius=0.8, density=0.2)
        assert np.abs(np.linalg.eigvals(made.w)).max() == pytest.approx(0.8, rel=1e-4)
        assert np.mean(np.asarray(made.w) != 0) == pytest.approx(0.2, abs=0.03)


def test_two_starts_approach_each_other_by_the_largest_singular_value() -> None:
    """The echo-state property: |x(t) - x'(t)| <= (1 - leak + leak s)^t |x(0) - x'(0)|, s the largest singular value."""
    u, starts = random(5, 60, 1), random(6, 2, 40)
    with float64():
        for leak in (1.0, 0.4):
            made = reservoir.make(jax.random.key(1), 1, 40, leak=leak)
            made = scaled(made, 0.9 / np.linalg.norm(made.w, 2))
            first, second = (np.asarray(states(made, u, start=jnp.asarray(s))) for s in starts)
            distances = np.linalg.norm(first - second, axis=1)
            bound = (1 - leak + leak * 0.9) ** np.arange(1, 61) * np.linalg.norm(starts[0] - starts[1])
            assert (distances <= bound).all()


def test_a_spectral_radius_beyond_one_does_not_forget() -> None:
    silence, starts = np.zeros((400, 1)), 0.01 * random(7, 2, 40)
    with float64():
        made = reservoir.make(jax.random.key(1), 1, 40, radius=1.0)
        last = {}
        for radius in (0.8, 1.3):
            first, second = (np.asarray(states(scaled(made, radius), silence, start=jnp.asarray(s))) for s in starts)
            last[radius] = np.linalg.norm(first[-1] - second[-1])
    assert last[0.8] < 1e-12 < 0.1 < last[1.3]


@pytest.mark.slow
def test_a_delay_line_remembers_as_many_inputs_as_it_has_units() -> None:
    n, u = 8, random(8, 4000)
    with float64():
        line = Reservoir(jnp.eye(n, k=1), jnp.eye(1, n), jnp.zeros(n), jnp.ones(()))
        x = states(line, u[:, None], activation=identity)
        found = np.asarray(reservoir.memory(x[n:], u[n:], delays=20))
    np.testing.assert_allclose(found[:n], 1, rtol=1e-10)
    assert found[n:].max() < 0.01
    assert found.sum() == pytest.approx(n, abs=0.1)


@pytest.mark.slow
def test_no_reservoir_remembers_more_than_its_units() -> None:
    n, u = 20, np.random.default_rng(9).uniform(-1, 1, 6000)
    with float64():
        capacity = {}
        for name, activation in (("linear", identity), ("tanh", jnp.tanh)):
            made = reservoir.make(jax.random.key(2), 1, n, density=0.5)
            x = states(made, u[:, None], activation=activation)[200:]
            capacity[name] = float(reservoir.memory(x, u[200:], delays=60).sum())
    assert 5 < capacity["tanh"] < capacity["linear"] < n + 60 * n / 5700 + 0.5  # r^2 of noise: N / T each


def test_the_readout_is_ridge_regression() -> None:
    x, y = random(10, 30, 5), random(11, 30, 2)
    with float64(), strict():
        phi = np.asarray(with_bias(x))
        spared = 0.7 * np.diag([0.0] + 5 * [1.0])
        exact = np.linalg.solve(phi.T @ phi + spared, phi.T @ y)
        np.testing.assert_allclose(reservoir.readout(x, y, penalty=0.7), exact, rtol=1e-10)


def test_a_network_on_its_own_is_fed_its_outputs() -> None:
    made, w_out = reservoir.make(jax.random.key(3), 2, 6, bias=0.5), jnp.asarray(random(12, 7, 2), jnp.float32)
    x, expected = jnp.asarray(random(13, 6), jnp.float32), []
    found = reservoir.generate(made, w_out, x, steps=4)
    for _ in range(4):
        expected.append(np.concatenate([[1], x]) @ w_out)
        x = reservoir.states(made, expected[-1][None], start=x)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_it_continues_a_chaotic_series() -> None:
    with float64():
        u = series.mackey_glass(3400)[:, None] - 1
        made = reservoir.make(jax.random.key(4), 1, 300, radius=0.9, density=0.05, bias=0.2)
        x = states(made, u[:2999])
        w_out = reservoir.readout(x[200:], u[201:3000], penalty=1e-8)
        one_step = np.asarray(with_bias(x[200:]) @ w_out)[:, 0] - np.asarray(u)[201:3000, 0]
        free = np.asarray(reservoir.generate(made, w_out, states(made, u[2999:3000], start=x[-1])[0], steps=400))[:, 0]
    truth, deviation = np.asarray(u)[3000:, 0], np.std(np.asarray(u))
    assert np.sqrt(np.mean(one_step**2)) < 1e-3 * deviation
    assert np.abs(free - truth)[:84].max() < 0.1 * deviation
    assert np.abs(np.full(400, np.asarray(u)[2999, 0]) - truth)[:84].max() > deviation, "a constant is far off"


def test_dtypes() -> None:
    made = reservoir.make(jax.random.key(0), 1, 5, density=1)  # an int
    for dtype in (np.float64, np.float32, jnp.bfloat16, int):
        assert states(made, np.ones((3, 1), dtype)).dtype == jnp.float32
    with float64(), strict():
        made = jax.eval_shape(lambda key: reservoir.make(key, 1, 5, radius=0.5, leak=0.5), jax.random.key(0))
        assert {leaf.dtype for leaf in made} == {np.dtype("float64")}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reservoir.make(jax.random.key(0), 1, 0), "inputs or units must be at least 1"),
        (lambda: reservoir.make(jax.random.key(0), 1, 5, density=1.5), r"density must lie in \[0, 1\]"),
        (lambda: reservoir.make(jax.random.key(0), 1, 5, radius=0.0), "radius must be a finite number > 0"),
        (lambda: reservoir.make(0, 1, 5), "typed key"),
        (lambda: reservoir.memory(np.ones((5, 2)), np.ones(4), delays=2), r"got \(5, 2\), \(4,\), 2"),
        (lambda: reservoir.memory(np.ones((5, 2)), np.ones(5), delays=5), "delays < T"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reservoir.make(jax.random.key(0), 1, 3, density=0.0), "spectral radius 0 with this key"),
        (lambda: reservoir.spectral_radius(np.ones((2, 3))), "must be square"),
        (lambda: states(LINE, np.ones((5, 2))), "expected u \\(T, 1\\)"),
        (lambda: states(LINE, np.ones((5, 1)), start=np.ones(2)), "got \\(5, 1\\) and \\(2,\\)"),
        (lambda: reservoir.generate(LINE, jnp.ones((4, 2)), jnp.ones(3), steps=1), "expected w_out \\(4, 1\\)"),
        (lambda: reservoir.memory(np.ones((9, 2)), np.ones(9), delays=2), "u must vary"),
        (lambda: reservoir.memory(np.ones((9, 2)), np.full(9, np.nan), delays=2), "u must be finite"),
        (lambda: reservoir.readout([[0.0], [1.0]], [[np.nan], [1.0]]), "y must be finite"),
    ],
)
def test_what_has_no_answer_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_spectral_radius_at_extreme_scales(scale: float) -> None:
    w = scale * np.array([[0.0, 2.0], [-2.0, 0.0]], np.float32)
    np.testing.assert_allclose(reservoir.spectral_radius(w), 2 * scale, rtol=1e-5)
    assert reservoir.spectral_radius([[1, 0], [0, 3]]) == 3

"""Adafactor against transcriptions of its paper's algorithms, its offset, its dtypes and what it rejects."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.numerics import safe_divide
from jaxnn.optim.rules.factored import _quotient
from tests.helpers import assert_close, float64, random, slow
from tests.optim.running import STEPS, along, descend, noise, start, traced

MATRICES, SCALED = "scale_by_factored_rms: matrices", "scale_by_factored_rms"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("factored", MATRICES, "row = _quotient(row, jnp.mean(row, rows, keepdims=True))", "row = row"),
    ("factored", MATRICES, "jnp.mean(square, columns)", "jnp.sum(square, columns)"),
    ("factored", MATRICES, "square = abs_sq(g) + cast_like(epsilon, v)", "square = abs_sq(g)"),
    ("factored", MATRICES, "shape[axes[0]] >= least", "shape[axes[0]] >= 4 * least"),
    ("factored", SCALED, "t = (count + 1)", "t = (count + 2)"),
    ("factored", SCALED, "v = d * v + (1 - d) * square\n", "v = (1 - d) * v + d * square\n"),
    ("factored", "adafactor: matrices", "state.count - offset, 0", "state.count + offset, 0"),
    ("factored", "adafactor: no learning rate", "_rms(u), clipping_threshold", "_rms(u), 1.0"),
    ("factored", "adafactor: no learning rate", "bounded(u, _rms(u)", "bounded(u, 10 * _rms(u)"),
    ("factored", "adafactor", "jnp.maximum(_rms(p), 1e-3) * u", "(_rms(p) + 1e-3) * u"),
    ("factored", "adafactor", "safe_sqrt(jnp.mean(abs_sq(x)))", "safe_sqrt(jnp.sum(abs_sq(x)))"),
    ("factored", "adafactor: momentum", "b * ema + (1 - b) * u", "b * ema + u"),
    ("factored", "adafactor: decay", "add_decay(steps, params, decay,", "add_decay(steps, params, rate * decay,"),
    ("factored", "adafactor: mask", "decay, weight_decay_mask, where", "decay, None, where"),
]


def rms(x: np.ndarray) -> float:
    return np.sqrt(np.mean(x**2))


def algorithm_4(n: int, m: int, e1: float, e2: float, d: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adafactor for weight matrices, with the step sizes of section 9; row and column SUMS, as there."""
    x, r, c = start(n, m), np.zeros(n), np.zeros(m)
    for t, xi in enumerate(noise(n, m), start=1):
        g = x + xi
        alpha = max(e2, rms(x)) * min(1e-2, 1 / np.sqrt(t))
        beta = 1 - t**-0.8
        r = beta * r + (1 - beta) * (g**2 + e1) @ np.ones(m)
        c = beta * c + (1 - beta) * np.ones(n) @ (g**2 + e1)
        v = np.outer(r, c) / (np.ones(n) @ r)
        u = g / np.sqrt(v)
        x = x - alpha * u / max(1, rms(u) / d)
    return x, r, c


def algorithm_5(n: int, e1: float, e2: float, d: float) -> tuple[np.ndarray, np.ndarray]:
    """Adafactor for weight vectors."""
    x, v = start(n), np.zeros(n)
    for t, xi in enumerate(noise(n), start=1):
        g = x + xi
        alpha = max(e2, rms(x)) * min(1e-2, 1 / np.sqrt(t))
        beta = 1 - t**-0.8
        v = beta * v + (1 - beta) * (g**2 + e1)
        u = g / np.sqrt(v)
        x = x - alpha * u / max(1, rms(u) / d)
    return x, v


def published(**settings: float) -> optim.Optimizer:
    """Adafactor with the paper's relative step sizes."""
    return optim.adafactor(lambda t: jnp.minimum(1e-2, 1 / jnp.sqrt(t + 1.0)), min_dim_size_to_factor=1, **settings)


@pytest.mark.parametrize(
    ("shape", "e1", "d"),
    [
        ((6, 4), 1e-2, 0.5),
        *slow(*((shape, *s) for shape in ((4, 6), (5, 5)) for s in ((1e-30, 1.0), (1e-2, 0.5))), ((6, 4), 1e-30, 1.0)),
    ],
)
def test_is_the_paper_for_matrices(shape: tuple[int, int], e1: float, d: float) -> None:
    params, state = descend(published(eps=e1, clipping_threshold=d), *shape)
    x, r, c = algorithm_4(*shape, e1, 1e-3, d)
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    # v_row is the mean over the largest axis, whichever of the two it is, and a mean is a sum over its length.
    means = (r / shape[1], c / shape[0]) if shape[1] >= shape[0] else (c / shape[0], r / shape[1])
    assert_close((state.v_row, state.v_col), means, rtol=1e-12)
    assert state.count == STEPS


def test_is_the_paper_for_vectors() -> None:
    params, state = descend(published(), 7)
    x, v = algorithm_5(7, 1e-30, 1e-3, 1.0)
    assert_close((params, state.v), (x, v), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_momentum_and_decay_come_after_the_step_size() -> None:
    """ema <- b ema + (1 - b) step; the update is -(ema + decay params), the decay not times the learning rate."""
    with float64():
        opt = optim.adafactor(0.5, momentum=0.75, dtype_momentum=jnp.float64, weight_decay_rate=0.1, factored=False)
        updates, _, state = along(opt, np.array([2.0, -2.0]), np.array([[3.0, 3.0]]))
        assert_close(state.ema, np.array([0.25, 0.25]), rtol=1e-12)
        assert_close(updates, np.array([[-0.45, -0.05]]), rtol=1e-12)


@pytest.mark.slow
def test_only_large_axes_are_factored_and_the_rest_keeps_one_zero() -> None:
    sizes = {"big": (3, 5, 4), "small": (2, 9), "scalar": ()}
    params = {name: np.ones(shape, np.float32) for name, shape in sizes.items()} | {"none": None}
    opt = optim.scale_by_factored_rms(min_dim_size_to_factor=4)
    state = jax.eval_shape(opt.init, params)
    shapes = {name: jax.tree.map(jnp.shape, getattr(state, name)) for name in ("v_row", "v_col", "v")}
    assert shapes["v_row"] == {"big": (3, 4), "small": (1,), "scalar": (1,), "none": None}
    assert shapes["v_col"] == {"big": (3, 5), "small": (1,), "scalar": (1,), "none": None}
    assert shapes["v"] == {"big": (1,), "small": (2, 9), "scalar": (), "none": None}
    updates, _, _ = along(opt, params, jax.tree.map(lambda p: p[None], params))
    assert_close(jax.tree.map(lambda u: u[0], updates), params, rtol=1e-6)


def test_an_offset_ahead_of_the_count_is_the_first_step_again() -> None:
    def two(offset: int) -> Any:
        opt, x = optim.adafactor(0.1, 2, decay_offset=offset), random(0, 4, 4, dtype=np.float32)
        first, state = opt.update(x, opt.init(x), x)
        state = state._replace(count=jnp.asarray(offset + 1, jnp.int32))
        return first, opt.update(-x, state, x)[0]

    plain, near, far = jax.jit(lambda: [two(offset) for offset in (0, 1, 1000)])()
    assert_close((near, far), (plain, plain), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), *slow(((),), ((3,),))])
def test_zero_gradients_without_eps_and_zero_parameters_are_safe(shape: tuple[int, ...]) -> None:
    opt, zeros = optim.adafactor(0.1, 2, eps=0.0), np.zeros(shape, np.float32)

    @jax.jit
    def two(params: Any) -> Any:
        first, state = opt.update(zeros, opt.init(params), params)
        slope = jax.grad(lambda p: jnp.sum(opt.update(zeros + 1, opt.init(p), p)[0]))(params)
        return first, opt.update(zeros + 1, state, params)[0], slope

    first, second, slope = two(zeros)
    assert_close(first, zeros, rtol=0)
    # At zero parameters the step is 0.001 of the learning rate.
    assert_close(second, zeros - 1e-4, rtol=1e-4)
    assert np.isfinite(slope).all()


def test_tiny_gradients_do_not_underflow_in_float32() -> None:
    """Squares of 1e-15 times eps are far below the smallest float32; the direction is still the sign."""
    g = np.full((1, 4, 4), 1e-16, np.float32)
    updates, _, _ = along(optim.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=0.0), g[0], g)
    assert_close(updates, np.ones((1, 4, 4)), rtol=1e-5)


def test_quotients_are_those_of_safe_divide_to_the_bit() -> None:
    sizes = np.float32([0, 1e-45, 1e-40, 1.2e-38, 3e-38, 1e-15, 1, 3, 1e30, 3e38, np.inf])
    x, y = (a.ravel() for a in np.meshgrid(np.concatenate([sizes / 4, -sizes / 4]), sizes))
    got, expected = jax.jit(lambda x, y: (_quotient(x, y), safe_divide(x, y)))(x, y)
    np.testing.assert_array_equal(got, expected)


def test_without_a_learning_rate_the_step_is_the_size_of_the_parameters() -> None:
    updates, _, _ = along(optim.adafactor(), np.float32([2, -2]), np.float32([[5, -5]]))
    assert_close(updates, np.float32([[-2, 2]]), rtol=1e-6)


@traced
def test_the_mean_of_updates_keeps_its_dtype() -> None:
    params = np.ones((2, 3), jnp.bfloat16)
    opt = optim.adafactor(0.1, momentum=0.9, dtype_momentum=jnp.bfloat16)
    _, state = jax.eval_shape(lambda p: opt.update(p, opt.init(p), p), params)
    assert state.ema.dtype == jnp.bfloat16
    assert state.v.dtype == jnp.float32
    assert optim.adafactor(0.1, momentum=0.9).init(params).ema.dtype == jnp.float32
    assert optim.adafactor(0.1, momentum=0.0).init(params).ema is None


@traced
def test_bad_calls() -> None:
    x = jnp.ones(2)
    for opt in (optim.adafactor(0.1), optim.adafactor(0.1, multiply_by_parameter_scale=False, weight_decay_rate=0.1)):
        with pytest.raises(ValueError, match="adafactor: update needs the parameters, got params=None"):
            opt.update(x, opt.init(x))
    with pytest.raises(ValueError, match=r"adafactor: momentum must lie in \[0, 1\), got 1"):
        optim.adafactor(0.1, momentum=1.0)
    with pytest.raises(ValueError, match=r"adafactor: weight_decay_rate must lie in \[0, inf\), got -1"):
        optim.adafactor(0.1, weight_decay_rate=-1.0)
    with pytest.raises(ValueError, match=r"scale_by_factored_rms: epsilon must lie in \[0, inf\), got -1"):
        optim.adafactor(0.1, eps=-1.0)

"""MoMo and MoMo-Adam against transcriptions of the paper, and where the gradient is 0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, slow
from tests.optim.running import STEPS, along, noise, start, traced
from tests.optim.valued import descend_with_value, value_and_gradient

MUTANTS: list[tuple[str, str, str, str]] = [
    ("momo", "momo: model", "state.count == 0, jnp.zeros_like(value)", "state.count < 0, 0 * value"),
    ("momo", "momo: model", "jnp.minimum(rate / rho, meets)", "rate / rho"),
    ("momo", "momo: decay",
     "return ((1 - cast_like(c, d)) * p.astype(d.dtype) - cast_like(tau, d) * d) / cast_like(c, d)",
     "return (1 - cast_like(c, d)) / cast_like(c, d) * p.astype(d.dtype) - cast_like(tau, d) * d"),
    ("momo", "momo: adapts from above", "s / (2 * c * rho)", "s / (c * rho)"),
    ("momo", "momo: adapts", "tau * squares / 2", "tau * squares"),
    ("momo", "momo_adam: model", "jnp.minimum(rate / rho,", "jnp.minimum(rate,"),
    ("momo", "momo_adam: model", "(1 - cast_like(b2, v) ** count.astype(v.dtype))", "1.0"),
    ("momo", "momo_adam: model", "inner_product(scaled, d)", "sum_of_squares(d)"),
    ("momo", "momo_adam: adapts", "c * (f - rho * lb)", "c * (f - lb)"),
]  # fmt: skip


def general(
    a: float, beta: float, decay: float, least: float, adapt: bool, adam: tuple[float, float] | None = None
) -> tuple[Any, ...]:
    """General MoMo: D is 1, or Adam's; x <- (x - tau d / D) / (1 + a decay), the bound estimated if `adapt`."""
    x, d, v, f, gamma, lb = start(4, 3), np.zeros((4, 3)), np.zeros((4, 3)), 0.0, 0.0, least
    for t, xi in enumerate(noise(4, 3), start=1):
        value, g = value_and_gradient(x, xi)
        b = 0.0 if adam is None and t == 1 else beta
        f, gamma, d = b * f + (1 - b) * value, b * gamma + (1 - b) * np.sum(g * x), b * d + (1 - b) * g
        scale, rho = np.ones((4, 3)), 1.0
        if adam is not None:
            v = adam[0] * v + (1 - adam[0]) * g**2
            scale, rho = adam[1] + np.sqrt(v / (1 - adam[0] ** t)), 1 - beta**t
        c, dot, size = 1 + a * decay, np.sum(d * x), np.sum(d * d / scale)
        if adapt and c * (f - gamma) + dot < c * rho * lb:
            lb = max((c * (f - gamma) + dot) / (2 * c * rho), least)
        tau = min(a / rho, max(c * (f - rho * lb - gamma) + dot, 0.0) / size)
        if adapt:
            lb = max((f + dot - gamma - tau * size / 2) / rho, least)
        x = (x - tau * d / scale) / c
    return x, d, v, f, gamma, lb


@pytest.mark.parametrize(("decay", "adapt"), [(0.3, True), *slow((0.0, False), (0.0, True), (0.3, False))])
def test_momo_is_the_paper(decay: float, adapt: bool) -> None:
    params, state = descend_with_value(optim.momo(0.7, 0.8, 2.0, decay, adapt), 4, 3)
    x, d, _, f, gamma, lb = general(0.7, 0.8, decay, 2.0, adapt)
    assert_close(params, x, rtol=1e-12, atol=1e-13)
    assert_close((state.exp_avg, state.barf, state.gamma, state.lb), (d, f, gamma, lb), rtol=1e-12, atol=1e-13)
    assert state.count == STEPS


@pytest.mark.parametrize(("decay", "adapt"), [(0.3, True), *slow((0.0, False), (0.0, True), (0.3, False))])
def test_momo_adam_is_the_paper(decay: float, adapt: bool) -> None:
    params, state = descend_with_value(optim.momo_adam(0.2, 0.8, 0.95, 1e-3, 2.0, decay, adapt), 4, 3)
    x, d, v, f, gamma, lb = general(0.2, 0.8, decay, 2.0, adapt, (0.95, 1e-3))
    assert_close(params, x, rtol=1e-12, atol=1e-13)
    assert_close((state.exp_avg, state.exp_avg_sq), (d, v), rtol=1e-12, atol=1e-13)
    assert_close((state.barf, state.gamma, state.lb), (f, gamma, lb), rtol=1e-12, atol=1e-13)


def test_decay_keeps_the_point_that_the_step_was_computed_for() -> None:
    """One step without a cap ends where the decayed model of the loss is at its bound."""
    updates, _, _ = along(optim.momo(100.0, weight_decay=0.01), np.float32(2), np.float32([4]), value=np.float32(4))
    assert_close(4 + 4 * updates, np.zeros(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_a_zero_gradient_takes_no_step(name: str) -> None:
    for settings in ({}, {"adapt_lower_bound": True}):
        params, grads = {"w": np.ones(2, np.float32), "none": None}, {"w": np.zeros((1, 2), np.float32), "none": None}
        updates, _, state = along(getattr(optim, name)(**settings), params, grads, value=np.float32(1))
        assert_close(updates, grads, rtol=0)
        assert np.isfinite([float(state.lb), float(state.gamma)]).all()


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_a_parameter_without_gradient_stays(name: str) -> None:
    opt, w, b = getattr(optim, name)(), jnp.array([2.0]), jnp.array([1.0])
    value, grads = jnp.float32(4), {"w": 2 * w, "b": b}
    _, state = opt.update(grads, opt.init({"w": w, "b": b}), {"w": w, "b": b}, value=value)
    updates, after = opt.update(grads | {"b": None}, state, {"w": w, "b": b}, value=value)
    assert updates["b"] is None
    assert after.exp_avg["b"] == state.exp_avg["b"]
    assert updates["w"] < 0


def test_without_eps_too() -> None:
    zeros = np.zeros(1, np.float32)
    assert_close(along(optim.momo_adam(eps=0.0), np.float32(1), zeros, value=1.0)[0], zeros, rtol=0)


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
@traced
def test_bad_arguments(name: str) -> None:
    make, params = getattr(optim, name), jnp.ones(2)
    with pytest.raises(ValueError, match=f"{name}: update needs the extra argument value"):
        make().update(params, make().init(params), params)
    with pytest.raises(ValueError, match=f"{name}: update needs the parameters"):
        make().update(params, make().init(params), value=1.0)
    with pytest.raises(ValueError, match="lower_bound must lie in"):
        make(lower_bound=float("nan"))
    with pytest.raises(TypeError, match="split_real_and_imaginary"):
        make().init(jnp.ones(2, jnp.complex64))

"""D-adapted Adam and Prodigy against transcriptions of their algorithms, and where the estimate is 0/0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close
from tests.optim.running import STEPS, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("dadapt", "dadapt_adamw: settings", "jnp.sqrt(1 - b2**t) / (1 - b1**t)", "1 - b2**t"),
    ("dadapt", "dadapt_adamw: settings", "(1 - root) * rate * g", "rate * g"),
    ("dadapt", "dadapt_adamw: settings", "cast_like(weight_decay, g) * rate * p", "cast_like(weight_decay, g) * p"),
    ("dadapt", "dadapt_adamw: settings", "q = safe_sqrt(cast_like(b2, d))", "q = cast_like(b2, d)"),
    ("dadapt", "prodigy: settings", "cast_like(b3, g) * s + cast_like(weight, g) * g", "cast_like(b3, g) * s + g"),
    ("dadapt", "prodigy: settings", "lambda p, p0: p0 - p", "lambda p, p0: p - p0"),
    ("dadapt", "prodigy: settings", "cast_like(d, v) * cast_like(eps, v)", "cast_like(eps, v)"),
    ("dadapt", "prodigy: settings", "cast_like(estim_lr_coef, r) * safe_divide", "safe_divide"),
    ("dadapt", "prodigy: safeguard", "(old if safeguard_warmup else lr)", "lr"),
    ("dadapt", "prodigy: settings", "(1 - cast_like(b2, g)) * dg * dg", "(1 - cast_like(b2, g)) * g * g"),
]


def test_dadapt_adamw_is_the_version_of_adam() -> None:
    """With gamma_t = learning_rate sqrt(1 - b2^t) / (1 - b1^t), and A of the step before in the inner product."""
    b1, b2, eps, decay, d = 0.8, 0.95, 1e-3, 0.1, 1e-3
    x, r = start(4, 3), 0.0
    m = v = s = np.zeros((4, 3))
    for t, xi in enumerate(noise(4, 3), start=1):
        g = x + xi
        rate = d * 0.7 * np.sqrt(1 - b2**t) / (1 - b1**t)
        r = np.sqrt(b2) * r + (1 - np.sqrt(b2)) * rate * np.sum(g * s / (np.sqrt(v) + eps))
        m = b1 * m + (1 - b1) * rate * g
        v = b2 * v + (1 - b2) * g**2
        s = np.sqrt(b2) * s + (1 - np.sqrt(b2)) * rate * g
        x = x - m / (np.sqrt(v) + eps) - decay * rate * x
        d = max(d, r / ((1 - np.sqrt(b2)) * np.abs(s).sum()))
    params, state = descend(optim.dadapt_adamw(0.7, (b1, b2), eps, 1e-3, decay), 4, 3)
    assert d > 1e-3
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert_close((state.exp_avg, state.exp_avg_sq, state.grad_sum), (m, v, s), rtol=1e-12, atol=1e-14)
    assert_close((state.estim_lr, state.numerator_weighted), (d, r), rtol=1e-12, atol=1e-14)
    assert state.count == STEPS


def test_prodigy_is_the_version_of_adam() -> None:
    """The paper's r and s are d_0 (1 - sqrt b2) times these, which cancels; the new d multiplies eps."""
    b1, b2, eps, decay, d0 = 0.8, 0.95, 1e-3, 0.1, 1e-3
    x0, d, r = start(4, 3), d0, 0.0
    x, m, v, s = x0, np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))
    for t, xi in enumerate(noise(4, 3), start=1):
        g, old = x + xi, d
        gamma = 0.3 * np.sqrt(1 - b2**t) / (1 - b1**t)
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = np.sqrt(b2) * r + (1 - np.sqrt(b2)) * gamma * d**2 * np.sum(g * (x0 - x))
        s = np.sqrt(b2) * s + (1 - np.sqrt(b2)) * gamma * d**2 * g
        d = max(d, r / np.abs(s).sum())
        x = x - gamma * old * (m / (np.sqrt(v) + d * eps) + decay * x)
    params, state = descend(optim.prodigy(0.3, (b1, b2), None, eps, d0, weight_decay=decay), 4, 3)
    assert d > d0
    assert_close(params, x, rtol=1e-12, atol=1e-14)
    assert_close((state.exp_avg, state.exp_avg_sq, state.params0), (m, v, x0), rtol=1e-12, atol=1e-14)
    weight = d0 * (1 - np.sqrt(b2))
    assert_close((state.grad_sum, state.numerator_weighted), (s / weight, r / weight), rtol=1e-12, atol=1e-12)
    assert_close(state.estim_lr, d, rtol=1e-12)


@pytest.mark.parametrize("name", ["dadapt_adamw", "prodigy"])
@pytest.mark.parametrize(("rate", "gradient"), [(1.0, 0.0), (lambda count: jnp.minimum(count / 10, 1.0), 1.0)])
def test_a_zero_gradient_or_rate_at_first_leaves_the_estimate(name: str, rate: object, gradient: float) -> None:
    """0/0 in optax, and NaN from there on: the first step of every warm-up from 0."""
    opt, params = getattr(optim, name)(rate), {"w": np.ones(2, np.float32), "none": None}
    grads = {"w": np.float32([[gradient] * 2, [1, 1]]), "none": None}

    def body(state: Any, g: Any) -> Any:
        updates, state = opt.update(g, state, params)
        return state, (updates["w"], state.estim_lr)

    updates, estimates = jax.jit(lambda g: jax.lax.scan(body, opt.init(params), g)[1])(grads)
    assert_close((updates[0], estimates[0]), (np.zeros(2), np.float32(1e-6)), rtol=1e-7)
    assert (updates[1] < 0).all()


@pytest.mark.parametrize("name", ["dadapt_adamw", "prodigy"])
@traced
def test_bad_arguments(name: str) -> None:
    make, params = getattr(optim, name), jnp.ones(2)
    with pytest.raises(ValueError, match=f"{name}: estim_lr0 must be greater than 0"):
        make(estim_lr0=0.0)
    with pytest.raises(ValueError, match=r"betas\[1\] must lie in \[0, 1\), got 1"):
        make(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match=f"{name}: update needs the parameters"):
        make().update(params, make().init(params))
    with pytest.raises(TypeError, match="split_real_and_imaginary"):
        make().init(jnp.ones(2, jnp.complex64))


def test_prodigy_decays_what_the_mask_names() -> None:
    """In the first step, where nothing that the arrays share depends on the decay yet."""
    params = {"w": np.float32([[2, -1]]), "b": np.float32([0.5])}
    grads = jax.tree.map(np.cos, params)

    def first(**settings: Any) -> Any:
        opt = optim.prodigy(0.5, estim_lr0=0.1, **settings)
        return opt.update(grads, opt.init(params), params)[0]

    def of_matrices(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    settings = ({}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "weight_decay_mask": of_matrices})
    without, everywhere, masked = jax.jit(lambda: [first(**setting) for setting in settings])()
    assert_close(masked, {"w": everywhere["w"], "b": without["b"]}, rtol=0, atol=0)
    assert float(abs(everywhere["b"] - without["b"])[0]) > 1e-3
    with pytest.raises(ValueError, match="prodigy: the mask must be a pytree of bools"):
        jax.eval_shape(lambda: first(weight_decay=0.3, weight_decay_mask={"other": True}))

"""Schedule-free rules: float64 transcriptions of the paper, special behaviour, mutants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, strict
from tests.optim.running import descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("schedule_free", "schedule_free_sgd", "(new - y) +", "(new - z) +"),
    ("schedule_free", "schedule_free_sgd", "(1 - cast_like(c, u)) * (1 - b) * (new - z)", "(1 - b) * (new - z)"),
    ("schedule_free", "schedule_free", "weight = max_lr ** cast_like(weight_lr_power, max_lr)", "weight = max_lr**2"),
    (
        "schedule_free",
        "schedule_free",
        "at_count(learning_rate, state.step_count)",
        "at_count(learning_rate, state.step_count - 1)",
    ),
    ("schedule_free", "schedule_free", "jnp.maximum(state.max_lr, cast_like(", "jnp.minimum(jnp.inf, cast_like("),
    (
        "schedule_free",
        "schedule_free_sgd",
        "c = safe_divide(weight, weight_sum)",
        "c = safe_divide(weight, state.weight_sum)",
    ),
    ("schedule_free", "schedule_free_adamw: settings", "adamw(rate, b1=0.0, b2=b2", "adamw(rate, b1=0.5, b2=b2"),
    ("schedule_free", "schedule_free_sgd: decay", "rate, weight_decay=decay", "rate, weight_decay=2 * decay"),
]


def test_sgd_is_equations_3_to_5_of_defazio() -> None:
    """y_t = (1 - beta) z_t + beta x_t; z_{t+1} = z_t - gamma grad(y_t); x_{t+1} = (1 - 1/(t+1)) x_t + z_{t+1} / (t+1).

    The paper's c_{t+1} = 1 / (t + 1) counts z_1 = x_1 with weight one; here, as in its algorithm 1 and in optax, the
    weight of z_1 is 0: c at the first step is 1.
    """
    gamma, beta, decay = 0.05, 0.8, 0.1
    x = z = start(4, 3)
    for t, xi in enumerate(noise(4, 3), start=1):
        y = (1 - beta) * z + beta * x
        z = z - gamma * (y + xi + decay * y)
        x = (1 - 1 / t) * x + 1 / t * z
    y = (1 - beta) * z + beta * x
    with float64():
        found, state = descend(optim.schedule_free_sgd(gamma, b1=beta, weight_decay=decay), 4, 3)
        mean = optim.schedule_free_eval_params(state, found)
        assert_close((found, state.z, mean), (y, z, x), rtol=1e-12, atol=1e-13)


def test_adamw_is_algorithm_1_of_defazio() -> None:
    """Its learning rate gamma_t has the factor sqrt(1 - b2^t); here the factor is in the direction alone, so that

    eps is divided by it, and neither the decay nor the weights have it: the lines marked.
    """
    gamma, b1, b2, eps, lam, warm = 0.02, 0.9, 0.99, 1e-8, 0.1, 10
    x = z = y = start(4, 3)
    v, total = np.zeros((4, 3)), 0.0
    for t, xi in enumerate(noise(4, 3), start=1):
        g = y + xi
        v = b2 * v + (1 - b2) * g**2
        rate = gamma * min(1.0, (t - 1) / warm)  # the base rule's schedule is taken at t - 1, the weights' at t
        z = z - rate * g / (np.sqrt(v) / np.sqrt(1 - b2**t) + eps) - rate * lam * y  # marked
        weight = (gamma * min(1.0, t / warm)) ** 2  # marked
        total += weight
        c = weight / total
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x
    with float64():
        opt = optim.schedule_free_adamw(jnp.asarray(gamma), warm, b1, b2, eps, lam)
        found, state = descend(opt, 4, 3)
        mean = optim.schedule_free_eval_params(state, found)
        assert_close((found, state.z, mean, state.weight_sum), (y, z, x, np.float64(total)), rtol=1e-12, atol=1e-12)


def test_optax_evaluates_our_state() -> None:
    found, state = descend(optim.schedule_free_sgd(0.05), 4, 3)
    both = jax.jit(lambda: [m.schedule_free_eval_params(state, found) for m in (optim, optax.contrib)])
    with float64():
        assert_close(*both(), rtol=1e-12)


def test_a_learning_rate_of_zero_keeps_the_mean() -> None:
    opt, params = optim.schedule_free_sgd(0.0), {"w": np.ones(2, np.float32), "none": None}

    @jax.jit
    def first(params: Any) -> Any:
        updates, state = opt.update(params, opt.init(params), params)
        return updates, optim.schedule_free_eval_params(state, params)

    with strict():
        updates, mean = first(params)
    assert updates["none"] is None
    assert_close((updates["w"], mean["w"]), (np.zeros(2), np.ones(2)), rtol=1e-6)


def test_bfloat16_parameters_have_a_float32_z_and_sum() -> None:
    params = np.ones(2, jnp.bfloat16)
    state = optim.schedule_free_sgd(0.1).init(params)
    assert {state.z.dtype, state.weight_sum.dtype, state.b1.dtype} == {jnp.dtype(jnp.float32)}
    assert optim.schedule_free_sgd(0.1, state_dtype=jnp.bfloat16).init(params).z.dtype == jnp.bfloat16
    assert jax.eval_shape(optim.schedule_free_eval_params, state, params).dtype == jnp.bfloat16


def test_an_optax_rule_may_be_the_base() -> None:
    with float64():
        ours, theirs = (descend(optim.schedule_free(rule(0.05), 0.05), 4, 3)[0] for rule in (optim.sgd, optax.sgd))
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.schedule_free_sgd(-1.0), ValueError, "learning_rate must lie in"),
        (lambda: optim.schedule_free_sgd(0.1, b1=0.0), ValueError, "schedule_free: b1 must be greater than 0"),
        (lambda: optim.schedule_free_sgd(0.1, b1=1.5), ValueError, "schedule_free: b1 must lie in"),
        (lambda: optim.schedule_free_sgd(0.1, weight_lr_power=-1.0), ValueError, "weight_lr_power must lie in"),
        (lambda: optim.schedule_free(0.1, 0.1), TypeError, "schedule_free: base_optimizer must be an optimizer"),
        (lambda: optim.schedule_free_eval_params((), jnp.ones(1)), TypeError, "must be a ScheduleFreeState, got tuple"),
        (lambda: optim.schedule_free_sgd(0.1).update(jnp.ones(1), None), ValueError, "needs the parameters"),
    ],
)
@traced
def test_bad_input_is_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()

"""Hyperparameters may be traced: many settings train in one compiled program and equal separate runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim, schedules
from tests.helpers import assert_close, random, slow

SETTINGS = 64
STATIC = {
    "min_dim_size_to_factor": "a size decides the state's shapes",
    "initial_accumulator_value": "the state's first value is made by init",
    "threshold": "traced too, held by test_adam_variants",
}

RULES: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "adam": {},
    "adamw": {"weight_decay": 0.01},
    "nadam": {},
    "nadamw": {"weight_decay": 0.01},
    "adamax": {},
    "adamaxw": {"weight_decay": 0.01},
    "amsgrad": {},
    "adabelief": {},
    "yogi": {},
    "radam": {},
    "adan": {"weight_decay": 0.01},
    "novograd": {"weight_decay": 0.01},
    "ademamix": {"weight_decay": 0.01},
    "simplified_ademamix": {"alpha": 0.5},
    "adopt": {},
    "acprop": {},
    "adagrad": {},
    "adadelta": {"weight_decay": 0.01},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "lion": {},
    "signum": {},
    "sign_sgd": {},
    "rprop": {},
    "lamb": {"weight_decay": 0.01},
    "lars": {"weight_decay": 0.01},
    "fromage": {},
    "madgrad": {},
    "cocob": {"weight_decay": 0.01},
    "optimistic_gradient_descent": {},
    "optimistic_adam_v2": {},
    "sm3": {},
    "dog": {},
    "dowg": {},
    "prodigy": {},
    "dadapt_adamw": {},
    "muon": {},
    "muon_with_roles": {"roles": lambda p: jax.tree.map(lambda x: "hidden" if x.ndim == 2 else "vector", p)},
    "adafactor": {},
    "polyak_sgd": {},
    "momo": {},
    "momo_adam": {},
    "noisy_sgd": {"seed": 0},
    "sophia": {"random": True},
    "galore": {"rank": 16, "update_proj_gap": 50},
    "shampoo": {"relative_eps": 1e-4},
    "soap": {"shampoo_beta": 0.95},
    "lbfgs": {},
}
"""Rules with the settings in which they are run; every float argument among settings and defaults is traced."""

STEPS = {"lbfgs": 10}
"""Fewer than 100 for a rule that takes differences of gradients, which here are noise: it amplifies rounding."""


def real_arguments(name: str) -> dict[str, float]:
    """The float arguments of a factory: settings first, defaults next, and a learning rate."""
    given = RULES[name]
    found = {}
    for key, parameter in inspect.signature(getattr(optim, name)).parameters.items():
        value = given.get(key, parameter.default)
        if key == "learning_rate" and not isinstance(value, float):
            value = 0.01
        if isinstance(value, float) and key not in STATIC:
            found[key] = value
    return found


def final_params(make: Callable[..., Any], steps: int = 100) -> Callable[[dict[str, Any]], Any]:
    """From hyperparameters to the parameters after some steps on a fixed sequence of gradients, in float32."""
    params = {
        "w": np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3),
        "b": np.linspace(0.1, 1.0, 3, dtype=np.float32),
    }
    noise = random(0, steps, dtype=np.float32)

    def value_fn(params: Any, grad_fn: Any = None) -> Any:
        return 0.5 * jnp.vdot(params["w"], params["w"]) + 0.5 * jnp.vdot(params["b"], params["b"])

    def run(hyperparameters: dict[str, Any]) -> Any:
        opt = make(**hyperparameters)

        def body(carry: Any, xi: Any) -> tuple[Any, None]:
            params, state = carry
            grads = jax.tree.map(lambda p: p + xi * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
            extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn, "obj_fn": value_fn}
            updates, state = opt.update(grads, state, params, grad_fn=jax.grad(value_fn), **extra)
            return (optim.apply_updates(params, updates), state), None

        start = jax.tree.map(jnp.asarray, params)
        return jax.lax.scan(body, (start, opt.init(start)), noise)[0][0]

    return run


QUICK = ("adam", "polyak_sgd")
"""An element-wise rule, and one of the value of the loss."""


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in RULES if name not in QUICK))])
def test_64_settings_in_one_program_equal_separate_runs(name: str) -> None:
    chex.clear_trace_counter()
    factory, fixed = getattr(optim, name), {k: v for k, v in RULES[name].items() if not isinstance(v, float)}
    fixed.pop("random", None)
    run = final_params(lambda **traced: factory(**fixed, **traced), STEPS.get(name, 100))
    reals = real_arguments(name)
    assert reals
    spread = np.linspace(0.9, 1.0, SETTINGS)
    settings = {key: (value * spread).astype(np.float32) for key, value in reals.items()}
    together = jax.device_get(jax.jit(jax.vmap(chex.assert_max_traces(run, n=1)))(settings))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together))
    for i in (0, SETTINGS - 1):
        one = {key: float(column[i]) for key, column in settings.items()}
        alone = jax.jit(lambda one=one: run(one))()
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=1e-5, atol=1e-6)


def test_schedule_parameters_may_be_traced() -> None:
    def make(peak: Any) -> Any:
        return optim.adam(schedules.warmup_cosine_decay_schedule(0.0, peak, 10, 100))

    run = final_params(make)
    peaks = np.linspace(0.01, 0.1, SETTINGS, dtype=np.float32)
    together = jax.device_get(jax.jit(jax.vmap(lambda peak: run({"peak": peak})))(peaks))
    for i in (0, SETTINGS - 1):
        peak = float(peaks[i])
        alone = jax.jit(lambda peak=peak: run({"peak": peak}))()
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=1e-5, atol=1e-6)

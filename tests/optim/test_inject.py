"""Hyperparameters in the state."""

from __future__ import annotations

import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random
from tests.optim.running import along, optax_still, traced

MUTANTS = [
    ("inject", "inject_hyperparams: schedule", "return self.schedule_fn(state.count)", "return self.schedule_fn("
     "state.count + 1)"),
    ("inject", "inject_hyperparams: schedule", "increment(state.count))\n\n    def __call__", "state.count)\n\n    def "
     "__call__"),
    ("inject", "inject_hyperparams", "bound.arguments | hyperparams", "hyperparams | bound.arguments | "
     "{'learning_rate': 0.2}"),
    ("inject", "inject_hyperparams", "increment(state.count), hyperparams", "state.count, hyperparams"),
]  # fmt: skip
PARAMS = {"w": np.ones(3, np.float32), "none": None}
GRADS = {"w": np.full(3, 0.5, np.float32), "none": None}


@pytest.mark.parametrize("library", [optim, optax])
def test_a_live_learning_rate_needs_no_new_compilation(library: Any) -> None:
    chex.clear_trace_counter()
    opt = optim.inject_hyperparams(library.sgd)(0.5)
    step = jax.jit(chex.assert_max_traces(opt.update, n=1))
    state = opt.init(PARAMS)
    for rate in (0.5, 0.25, 0.125):
        state = optim.with_hyperparams(state, learning_rate=rate)
        updates, state = step(GRADS, state, PARAMS)
        assert updates["w"].tolist() == [-0.5 * rate] * 3
    assert optim.get_hyperparams(state) == {"learning_rate": 0.125}


def test_a_value_may_be_written_into_the_state_as_in_optax() -> None:
    opt = optim.inject_hyperparams(optim.sgd)(learning_rate=0.5)
    state = opt.init(PARAMS)
    state.hyperparams["learning_rate"] = 0.25
    updates, state = opt.update(GRADS, state, PARAMS)
    assert updates["w"].tolist() == [-0.125] * 3
    assert state.hyperparams["learning_rate"].dtype == jnp.float32


def test_the_values_equal_those_passed_to_the_rule() -> None:
    with float64():
        injected = optim.inject_hyperparams(optim.adamw)(0.1, b2=0.9, mask=lambda p: True)
        mine, _, state = along(injected, random(0, 3), random(1, 10, 3))
        theirs, _, _ = along(optim.adamw(0.1, b2=0.9), random(0, 3), random(1, 10, 3))
        assert_close(mine, theirs, rtol=1e-14)
    assert set(state.hyperparams) == {"learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"}


@pytest.mark.slow
def test_sizes_and_flags_stay_static() -> None:
    opt = optim.inject_hyperparams(optim.adafactor)(0.1)
    state = opt.init({"w": jnp.ones((256, 256))})
    assert "min_dim_size_to_factor" not in state.hyperparams
    opt.update({"w": jnp.ones((256, 256))}, state, {"w": jnp.ones((256, 256))})
    assert next(iter(inspect.signature(optim.inject_hyperparams(optim.adam)).parameters)) == "learning_rate"


def test_decays_stay_below_one_beside_bfloat16_parameters() -> None:
    params = jnp.ones(2, jnp.bfloat16)
    ours = optim.inject_hyperparams(optim.adam)(1e-3).init(params).hyperparams["b2"]
    theirs = optax.inject_hyperparams(optax.adam)(1e-3).init(params).hyperparams["b2"]
    assert ours < 1
    optax_still(theirs >= 1, "b2, rounded to bfloat16")


def test_a_schedule_with_a_state_sees_the_extra_arguments() -> None:
    class Follow:
        """The last value passed."""

        def init(self) -> Any:
            return jnp.zeros(())

        def update(self, state: Any, value: Any = 0.0, **extra: Any) -> Any:
            return jnp.asarray(value)

        def __call__(self, state: Any, **extra: Any) -> Any:
            return state

    opt = optim.inject_hyperparams(optim.sgd)(Follow())
    state = opt.init(PARAMS)
    for value, expected in ((3.0, 0.0), (4.0, -1.5), (0.0, -2.0)):
        updates, state = opt.update(GRADS, state, PARAMS, value=value)
        np.testing.assert_allclose(updates["w"], expected)


def test_hyperparameters_are_found_inside_other_wrappers_and_in_optax_states() -> None:
    make = optim.inject_hyperparams(optim.sgd)
    opt = optim.partition({"a": make(0.1), "b": make(0.2)}, {"x": "a", "y": "b"})
    state = optim.with_hyperparams(opt.init({"x": jnp.ones(1), "y": jnp.ones(1)}), learning_rate=0.5)
    assert optim.get_hyperparams(state.inner_states["a"]) == {"learning_rate": 0.5}
    with pytest.raises(ValueError, match="occur in several places"):
        optim.get_hyperparams(state)
    theirs = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.1)).init(jnp.ones(1))
    assert optim.get_hyperparams(optim.with_hyperparams(theirs, learning_rate=0.5)) == {"learning_rate": 0.5}


@traced
def test_complaints() -> None:
    with pytest.raises(ValueError, match="static_args must be arguments of the factory"):
        optim.inject_hyperparams(optim.sgd, static_args="other")
    with pytest.raises(ValueError, match="the state holds none"):
        optim.get_hyperparams(optim.sgd(0.1).init(PARAMS))
    scheduled = optim.inject_hyperparams(optim.adam)(lambda count: 0.1).init(PARAMS)
    for wrong in ({"learning_rate": 0.1}, {"other": 0.1}):
        with pytest.raises(ValueError, match=r"follow a schedule"):
            optim.with_hyperparams(scheduled, **wrong)
    with pytest.raises(ValueError, match=r"learning_rate is an int, got 0\.5"):
        optim.with_hyperparams(optim.inject_hyperparams(optim.sgd)(1).init(PARAMS), learning_rate=0.5)
    with pytest.raises(TypeError, match="must be an optimizer"):
        optim.inject_hyperparams(lambda learning_rate: learning_rate)(0.1).init(PARAMS)


def test_keys_and_the_factorys_own_functions_are_left_alone() -> None:
    params = {"w": np.ones(3, np.float32)}
    opt = optim.inject_hyperparams(optim.noisy_sgd)(0.1, key=jax.random.key(0))
    assert set(optim.get_hyperparams(opt.init(params))) == {"learning_rate", "eta", "gamma"}
    plain = optim.noisy_sgd(0.1, key=jax.random.key(0))
    updates, expected = jax.jit(lambda p: [o.update(p, o.init(p), p)[0] for o in (opt, plain)])(params)
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)
    assert "clip_value_fn" not in optim.get_hyperparams(optim.inject_hyperparams(optim.adopt)(0.1).init(params))


@traced
def test_a_function_that_is_no_schedule_is_named() -> None:
    def axes(params):
        return jax.tree.map(lambda p: None, params)

    opt = optim.inject_hyperparams(optim.muon)(0.1, muon_weight_dimension_numbers=axes)
    with pytest.raises(TypeError, match=r'muon_weight_dimension_numbers is a function.*static_args="muon_weight_dim'):
        opt.init({"w": jnp.ones((3, 2))})
    state = optim.inject_hyperparams(optim.sgd)(0.1).init(jnp.ones(1))
    with pytest.raises(ValueError, match=r"with_hyperparams: learning_rate must be one number"):
        optim.with_hyperparams(state, learning_rate=jnp.ones(3))

"""The parity tool must see what it is there to see: differences planted in a rule of a known size."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxnn import optim
from jaxnn.compare import Case, measure
from jaxnn.compare.parity import shared_fields

STEPS = 10


def scaled(factor: float) -> optim.Optimizer:
    """Adam whose updates are a factor too large; its state is right as long as the gradients are the same."""
    adam = optim.adam(0.01)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = adam.update(grads, state, params)
        return jax.tree.map(lambda u: factor * u, updates), state

    return optim.Optimizer(adam.init, update)


def decayed(factor: float) -> optim.Optimizer:
    """Adam that hands on a second moment a factor too large, and uses the right one."""
    adam = optim.adam(0.01)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        true = state._replace(nu=jax.tree.map(lambda v: v / factor, state.nu))
        updates, new = adam.update(grads, true, params)
        return updates, new._replace(nu=jax.tree.map(lambda v: factor * v, new.nu))

    return optim.Optimizer(adam.init, update)


def case(ours: optim.Optimizer, **settings: Any) -> Case:
    return Case(lambda library: ours, lambda: optax.adam(0.01), steps=STEPS, **settings)


@pytest.mark.parametrize("gap", [1e-3, 1e-9])
def test_a_difference_in_the_parameters_is_seen_in_its_size(gap: float) -> None:
    found = measure(case(scaled(1 + gap)), "same")
    assert 1e-4 * gap < found.params < gap
    assert found.params_ulp == pytest.approx(found.params / 2.0**-52)
    assert max(found.state.values()) < 1e-15


@pytest.mark.slow
def test_on_its_own_trajectory_a_difference_reaches_the_state() -> None:
    found = measure(case(scaled(1.001)))
    assert found.state["mu"] > 1e-6
    assert found.state["count"] == 0


def test_a_difference_in_one_state_field_is_seen_in_that_field() -> None:
    found = measure(case(decayed(1 + 1e-6)), "same")
    assert found.state["nu"] == pytest.approx(1e-6, rel=1e-6)
    assert max(found.params, found.state["mu"], found.state["count"]) < 1e-14
    assert found.largest == found.state["nu"]
    assert "nu" not in measure(case(decayed(1.5), fields={"nu": ""}), "same").state


@pytest.mark.slow
def test_nan_is_a_difference() -> None:
    assert not measure(case(scaled(math.nan))).largest <= 1e300


def test_fields_that_do_not_exist_are_named() -> None:
    ours, theirs = (library.adam(0.1).init(jnp.ones(1)) for library in (optim, optax))
    with pytest.raises(ValueError, match=r"no state field \['momentum'\]"):
        shared_fields(ours, theirs, {"momentum": "mu"})
    with pytest.raises(ValueError, match=r"no state field \['velocity'\]"):
        shared_fields(ours, theirs, {"nu": "velocity"})

"""What every rule says to bad input: hyperparameters when it is made, parameters and gradients when it is used."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn import optim
from tests.optim.test_traced import RULES

FACTORIES = [name for name in RULES if "learning_rate" in inspect.signature(getattr(optim, name)).parameters]


def make(name: str, **changes: Any) -> optim.Optimizer:
    """A rule with the settings of the tests of traced hyperparameters, some of them changed."""
    settings = {key: value for key, value in RULES[name].items() if key != "random"}
    return getattr(optim, name)(**({"learning_rate": 0.01} | settings | changes))


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", FACTORIES)
def test_a_learning_rate_must_be_finite_and_not_negative(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, inf\), got (-0.1|nan|inf)"):
        make(name, learning_rate=rate)


@pytest.mark.parametrize("name", FACTORIES)
def test_decay_rates_below_one(name: str) -> None:
    names = inspect.signature(getattr(optim, name)).parameters
    for decay in ("b1", "b2", "decay", "rho", "beta"):
        if decay in names and not (decay == "beta" and name.startswith("optimistic")):  # a weight there
            with pytest.raises(ValueError, match=rf"{decay} must lie in \[0, 1"):
                make(name, **{decay: 1.5})
            with pytest.raises(ValueError, match=rf"{decay} must lie in \[0, 1"):
                make(name, **{decay: -0.1})


@pytest.mark.parametrize("name", FACTORIES)
def test_weight_decay_must_not_be_negative(name: str) -> None:
    if "weight_decay" in inspect.signature(getattr(optim, name)).parameters:
        with pytest.raises(ValueError, match=r"weight_decay must lie in \[0, inf\), got -1"):
            make(name, weight_decay=-1.0)


@pytest.mark.parametrize("name", FACTORIES)
def test_integer_parameters_are_rejected(name: str) -> None:
    with pytest.raises(TypeError, match=r"\['n'\] must have a floating dtype, got int32"):
        make(name).init({"n": jnp.arange(3)})


@pytest.mark.parametrize("name", FACTORIES)
def test_a_mismatched_gradient_tree_is_printed_beside_the_other(name: str) -> None:
    opt, params = make(name), {"w": jnp.ones((2, 2))}
    grads = {"w": {"deeper": jnp.ones((2, 2))}}

    def value_fn(params: Any, grad_fn: Any = None) -> jax.Array:
        return jnp.zeros(())

    extra = {"value": jnp.zeros(()), "grad": grads, "value_fn": value_fn, "grad_fn": lambda p: grads}
    with pytest.raises((ValueError, TypeError)) as caught:
        opt.update(grads, opt.init(params), params, **extra, obj_fn=value_fn)
    assert "deeper" in str(caught.value)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_learning_rate_must_be_one_number(name: str) -> None:
    with pytest.raises(ValueError, match=r"learning_rate must be one number, got an array of shape \(4,\).*vmap"):
        make(name, learning_rate=jnp.ones(4))
    with pytest.raises(ValueError, match="must be one number"):
        jax.jit(lambda rate: make(name, learning_rate=rate).init(jnp.ones(2)))(jnp.ones(4))
    with pytest.raises(TypeError, match="learning_rate must be a real number, got '1e-3'"):
        make(name, learning_rate="1e-3")


@pytest.mark.parametrize(
    ("kept", "given"), [((2,), (3,)), ((2,), (2, 1)), ((1,), (3,)), ((2, 1), (2,)), ((3, 1), (3, 2))], ids=str
)
@pytest.mark.parametrize("name", ["adam", "sgd", "adagrad", "lion", "adabelief"])
def test_a_gradient_of_another_shape_than_the_state_is_no_broadcast(
    name: str, kept: tuple[int, ...], given: tuple[int, ...]
) -> None:
    opt = optim.sgd(0.1, momentum=0.9) if name == "sgd" else getattr(optim, name)(0.1)
    state = opt.init({"w": jnp.ones(kept)})
    message = rf"the gradient at \['w'\] has shape {re.escape(str(given))} but its state {re.escape(str(kept))}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(opt.update, {"w": jnp.ones(given)}, state)


@pytest.mark.parametrize("name", ["adam", "sgd", "lion"])
def test_a_module_that_holds_functions_is_no_tree_of_parameters(name: str) -> None:
    with pytest.raises(TypeError, match=r"\['act'\] must be an array, got .*equinox.filter\(model, equinox.is_inexact"):
        getattr(optim, name)(0.1).init({"w": jnp.ones((2, 2)), "act": jax.nn.relu})


def test_states_that_mean_different_things_are_of_different_classes() -> None:
    states = {
        name: type(getattr(optim, name)(0.1).init(jnp.ones(2))) for name in ("adam", "adamax", "adabelief", "yogi")
    }
    assert len(set(states.values())) == 4
    assert type(optim.adamw(0.1).init(jnp.ones(2))) is states["adam"]
    assert type(optim.acprop(0.1).init(jnp.ones(2))) is states["adabelief"]


def test_a_schedule_must_return_one_number() -> None:
    opt, params = optim.sgd(lambda count: jnp.ones(2)), jnp.ones(2)
    with pytest.raises(ValueError, match=r"value of the schedule .* must be one number, got an array of shape \(2,\)"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(TypeError, match="must be a real number, got None"):
        optim.sgd(lambda count: None).update(params, opt.init(params), params)


@pytest.mark.parametrize("state", [(), None, optim.chain(optim.adam(0.1), optim.clip(1.0)).init(jnp.ones(2))])
def test_another_state_is_an_error(state: Any) -> None:
    with pytest.raises(
        (TypeError, AttributeError), match=r"state must be what this rule's init made|no attribute 'count'"
    ):
        optim.adam(0.1).update(jnp.ones(2), state, jnp.ones(2))


def test_a_gradient_of_another_shape_is_named() -> None:
    opt, params = optim.adam(0.1), {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"gradient at \['w'\] has shape \(2, 3\) but its parameter \(3, 2\)"):
        opt.update({"b": jnp.ones(2), "w": jnp.ones((2, 3))}, opt.init(params), params)


def test_updates_must_fit_the_parameters() -> None:
    with pytest.raises(ValueError, match=r"an update has shape \(2,\) but its parameter \(3, 2\)"):
        optim.apply_updates({"w": jnp.ones((3, 2))}, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="updates must have the structure of the parameters"):
        optim.apply_updates({"w": jnp.ones(2)}, {"v": jnp.ones(2)})


def test_links_of_a_chain() -> None:
    with pytest.raises(TypeError, match=r"Unpack it: chain\(\*links\)"):
        optim.chain([optim.sgd(0.1), optim.clip(1.0)])
    with pytest.raises(TypeError, match=r"each link must be a pair \(name, optimizer\)"):
        optim.named_chain(optim.clip(1.0))


def test_masks_may_be_arrays_that_are_known() -> None:
    params = {"w": jnp.ones(1), "b": jnp.ones(1)}
    opt = optim.adamw(0.1, weight_decay=0.5, mask={"w": jnp.array(True), "b": jnp.array(False)})
    plain = optim.adamw(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    assert opt.update(params, opt.init(params), params)[0] == plain.update(params, opt.init(params), params)[0]
    with pytest.raises(TypeError, match="bools that are known while tracing"):
        jax.jit(lambda m: optim.adamw(0.1, mask=m).update(params, opt.init(params), params))(
            {"w": jnp.array(True), "b": jnp.array(False)}
        )

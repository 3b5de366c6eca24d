"""What every rule says to bad input: hyperparameters when it is made, parameters and gradients when it is used."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.optim.running import traced
from tests.optim.test_traced import RULES

FACTORIES = [name for name in RULES if "learning_rate" in inspect.signature(getattr(optim, name)).parameters]


def make(name: str, **changes: Any) -> optim.Optimizer:
    """A rule with the settings of the tests of traced hyperparameters, some of them changed."""
    settings = {key: value for key, value in RULES[name].items() if key != "random"}
    return getattr(optim, name)(**({"learning_rate": 0.01} | settings | changes))


@pytest.mark.parametrize("name", FACTORIES)
@traced
def test_hyperparameters_out_of_range_are_named(name: str) -> None:
    for rate in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"must lie in \[0, inf\), got (-0.1|nan|inf)"):
            make(name, learning_rate=rate)
    names = inspect.signature(getattr(optim, name)).parameters
    for decay in ("b1", "b2", "decay", "rho", "beta"):
        if decay in names and not (decay == "beta" and name.startswith("optimistic")):  # a weight there
            for value in (1.5, -0.1):
                with pytest.raises(ValueError, match=rf"{decay} must lie in \[0, 1"):
                    make(name, **{decay: value})
    if "weight_decay" in names:
        with pytest.raises(ValueError, match=r"weight_decay must lie in \[0, inf\), got -1"):
            make(name, weight_decay=-1.0)


@pytest.mark.parametrize("name", FACTORIES)
@traced
def test_parameters_and_gradients_of_another_kind_are_named(name: str) -> None:
    """Integers; and a tree of gradients is printed beside the other."""
    with pytest.raises(TypeError, match=r"\['n'\] must have a floating dtype, got int32"):
        make(name).init({"n": np.arange(3, dtype=np.int32)})
    opt, zero = make(name), lambda params, grad_fn=None: jnp.zeros(())

    def update(w: Any) -> Any:
        grads = {"w": {"deeper": w}}
        extra = {"value": 0.0, "grad": grads, "value_fn": zero, "grad_fn": lambda p: grads, "obj_fn": zero}
        return opt.update(grads, opt.init({"w": w}), {"w": w}, **extra)

    with pytest.raises((ValueError, TypeError)) as caught:
        jax.eval_shape(update, np.ones((2, 2), np.float32))
    assert "deeper" in str(caught.value)


@pytest.mark.parametrize("name", FACTORIES)
@traced
def test_a_learning_rate_must_be_one_number(name: str) -> None:
    four, two = np.ones(4, np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"learning_rate must be one number, got an array of shape \(4,\).*vmap"):
        make(name, learning_rate=four)
    with pytest.raises(ValueError, match="must be one number"):
        jax.eval_shape(lambda rate: make(name, learning_rate=rate).init(two), four)
    with pytest.raises(TypeError, match="learning_rate must be a real number, got '1e-3'"):
        make(name, learning_rate="1e-3")


@pytest.mark.parametrize("name", ["adam", "sgd", "adagrad", "lion", "adabelief"])
@traced
def test_a_gradient_of_another_shape_than_the_state_is_no_broadcast(name: str) -> None:
    opt = optim.sgd(0.1, momentum=0.9) if name == "sgd" else getattr(optim, name)(0.1)
    for kept, given in (((2,), (3,)), ((2,), (2, 1)), ((1,), (3,)), ((2, 1), (2,)), ((3, 1), (3, 2))):
        state = jax.eval_shape(opt.init, {"w": np.ones(kept, np.float32)})
        message = rf"the gradient at \['w'\] has shape {re.escape(str(given))} but its state {re.escape(str(kept))}"
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(opt.update, {"w": np.ones(given, np.float32)}, state)


@pytest.mark.parametrize("name", ["adam", "sgd", "lion"])
@traced
def test_a_module_that_holds_functions_is_no_tree_of_parameters(name: str) -> None:
    with pytest.raises(TypeError, match=r"\['act'\] must be an array, got .*equinox.filter\(model, equinox.is_inexact"):
        getattr(optim, name)(0.1).init({"w": np.ones((2, 2), np.float32), "act": jax.nn.relu})


@traced
def test_states_that_mean_different_things_are_of_different_classes() -> None:
    states = {
        name: type(getattr(optim, name)(0.1).init(jnp.ones(2))) for name in ("adam", "adamax", "adabelief", "yogi")
    }
    assert len(set(states.values())) == 4
    assert type(optim.adamw(0.1).init(jnp.ones(2))) is states["adam"]
    assert type(optim.acprop(0.1).init(jnp.ones(2))) is states["adabelief"]


@traced
def test_a_schedule_must_return_one_number() -> None:
    opt, params = optim.sgd(lambda count: jnp.ones(2)), jnp.ones(2)
    with pytest.raises(ValueError, match=r"value of the schedule .* must be one number, got an array of shape \(2,\)"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(TypeError, match="must be a real number, got None"):
        optim.sgd(lambda count: None).update(params, opt.init(params), params)


@pytest.mark.parametrize("state", [(), None, optim.chain(optim.adam(0.1), optim.clip(1.0)).init(jnp.ones(2))])
@traced
def test_another_state_is_an_error(state: Any) -> None:
    with pytest.raises(
        (TypeError, AttributeError), match=r"state must be what this rule's init made|no attribute 'count'"
    ):
        optim.adam(0.1).update(jnp.ones(2), state, jnp.ones(2))


@traced
def test_a_gradient_of_another_shape_is_named() -> None:
    opt, params = optim.adam(0.1), {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"gradient at \['w'\] has shape \(2, 3\) but its parameter \(3, 2\)"):
        opt.update({"b": jnp.ones(2), "w": jnp.ones((2, 3))}, opt.init(params), params)


@traced
def test_updates_must_fit_the_parameters() -> None:
    with pytest.raises(ValueError, match=r"an update has shape \(2,\) but its parameter \(3, 2\)"):
        optim.apply_updates({"w": jnp.ones((3, 2))}, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="updates must have the structure of the parameters"):
        optim.apply_updates({"w": jnp.ones(2)}, {"v": jnp.ones(2)})


@traced
def test_links_of_a_chain() -> None:
    with pytest.raises(TypeError, match=r"Unpack it: chain\(\*links\)"):
        optim.chain([optim.sgd(0.1), optim.clip(1.0)])
    with pytest.raises(TypeError, match=r"each link must be a pair \(name, optimizer\)"):
        optim.named_chain(optim.clip(1.0))


def test_masks_may_be_arrays_that_are_known() -> None:
    params = {"w": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    opt = optim.adamw(0.1, weight_decay=0.5, mask={"w": jnp.array(True), "b": jnp.array(False)})
    plain = optim.adamw(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    found, expected = jax.jit(lambda p: [o.update(p, o.init(p), p)[0] for o in (opt, plain)])(params)
    assert found == expected
    with pytest.raises(TypeError, match="bools that are known while tracing"):
        jax.jit(lambda m: optim.adamw(0.1, mask=m).update(params, opt.init(params), params))(
            {"w": jnp.array(True), "b": jnp.array(False)}
        )

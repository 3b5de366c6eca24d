"""What an optimizer is, known from outside: every factory has a spec, and makes the same rule again from it."""

from __future__ import annotations

import gc
import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.compare.course import random_params
from tests.helpers import float64

CASES = {name: case for name, case in all_cases().items() if optim.spec(case.ours(optim)) is not None}
FACTORIES = {
    name: f
    for name in optim.__all__
    if name != "build"
    and inspect.isfunction(f := getattr(optim, name))
    and inspect.signature(f).return_annotation == "Optimizer"
}
BY_HAND = ("of_three_examples", "MultiSteps", "inject_hyperparams", "dpsgd", "differentially_private_aggregate")
"""Cases that are made of an optimizer by other means than a factory."""


def parameters(case: Any) -> Any:
    return random_params(jax.random.key(0), jnp.float64, matrices=case.matrices, positive=case.positive)


def extra(params: Any) -> dict[str, Any]:
    def loss(params: Any, **_: Any) -> Any:
        return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    return {"value": loss(params), "grad": params, "value_fn": loss, "grad_fn": jax.grad(loss), "obj_fn": loss}


def updates(opt: Any, params: Any) -> Any:
    """Those of two steps."""
    state, found = opt.init(params), []
    for scale in (1.0, -0.5):
        grads = jax.tree.map(lambda p, scale=scale: scale * jnp.cos(3 * p), params)
        made, state = opt.update(grads, state, params, **extra(params))
        found.append(made)
    return found


def test_every_factory_is_specified() -> None:
    assert len(FACTORIES) > 130
    assert [name for name, f in FACTORIES.items() if not hasattr(f, "__wrapped__")] == []
    assert {name.partition(":")[0] for name in all_cases() if name not in CASES} <= set(BY_HAND)


def test_one_rule_has_one_structure_whatever_its_numbers() -> None:
    structure, numbers = optim.spec(optim.adam(1e-3, b2=0.9))
    assert numbers == {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.9, "eps": 1e-8}
    assert optim.spec(optim.adam(np.float32(0.5)))[0] == structure
    assert type(optim.spec(optim.adam(1))[1]["learning_rate"]) is float
    assert hash(optim.spec(optim.adam(0.1))[0]) == hash(structure)
    for other in (
        optim.adam(0.1, b1=0.0),
        optim.adam(0.1, nesterov=True),
        optim.adam(0.1, mu_dtype=jnp.bfloat16),
        optim.adam(0.1, eps_root=1e-3),
        optim.adam(lambda count: 0.1),
        optim.nadam(0.1),
        optim.chain(optim.adam(0.1)),
    ):
        assert optim.spec(other)[0] != structure


def test_combinators_compose_and_foreign_parts_count_by_identity() -> None:
    foreign, schedule = optax.clip(1.0), optim.linear_schedule(0.1, 0.0, 5)

    def make(rate: float, foreign: Any = foreign, schedule: Any = schedule) -> Any:
        parts = {"a": optim.sgd(rate), "b": optim.chain(foreign, optim.adam(schedule))}
        return optim.partition(parts, {"x": "a", "y": "b"})

    structure, numbers = optim.spec(make(0.1))
    assert optim.spec(make(0.2))[0] == structure
    assert numbers["transforms['a']"] == {"learning_rate": 0.1}
    assert set(numbers["transforms['b']"]["links[1]"]) == {"b1", "b2", "eps"}
    assert optim.spec(make(0.1, foreign=optax.clip(1.0)))[0] != structure
    assert optim.spec(make(0.1, schedule=optim.linear_schedule(0.1, 0.0, 5)))[0] != structure
    for unknown in (foreign, optim.GradientTransformation(*optax.sgd(0.1)), (), None):
        assert optim.spec(unknown) is None


def test_what_a_combinator_returns_unchanged_keeps_its_own_spec() -> None:
    adam = optim.adam(0.1)
    before = optim.spec(adam)
    optim.with_extra_args_support(adam)
    optim.chain(adam)
    assert optim.spec(adam) == before


QUICK = ("adam", "partition")
SAMPLE = [name for i, name in enumerate(CASES) if i % 20 == 0 and name not in QUICK and "line" not in name]
REST = [name for name in CASES if name not in (*QUICK, *SAMPLE) and "line" not in name]


@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param(SAMPLE, marks=pytest.mark.slow), pytest.param(REST, marks=pytest.mark.proof)],
    ids=["two", "sample", "rest"],
)
def test_rules_made_again_of_traced_numbers_do_the_same(names: Any) -> None:
    specs = {name: optim.spec(CASES[name].ours(optim)) for name in names}
    with float64():
        params = {name: parameters(CASES[name]) for name in names}

        @jax.jit
        def both(numbers: Any, params: Any) -> Any:
            again = {n: updates(optim.build(specs[n][0], numbers[n]), params[n]) for n in names}
            return again, {n: updates(CASES[n].ours(optim), params[n]) for n in names}

        again, first = both({name: specs[name][1] for name in names}, params)
        for name in names:
            for a, b in zip(jax.tree.leaves(again[name]), jax.tree.leaves(first[name]), strict=True):
                # optax's warm-up, which we follow, is in float32 unless its peak is an array of float64.
                tolerance = 1e-6 if "warm-up" in name else 1e-9
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-12, err_msg=name)


def test_numbers_may_be_mapped_over() -> None:
    structure, numbers = optim.spec(optim.sgd(0.1, momentum=0.9))
    rates, ones = np.float32([0.1, 0.2]), np.ones(2, np.float32)

    def first(rate: Any) -> Any:
        opt = optim.build(structure, numbers | {"learning_rate": rate})
        return opt.update(ones, opt.init(ones))[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(first))(rates), -rates[:, None] * np.ones(2), rtol=1e-6)


def test_a_zero_among_the_numbers_changes_no_structure() -> None:
    structure, numbers = optim.spec(optim.adamw(0.1))
    opt = optim.build(structure, numbers | {"b1": 0.0, "weight_decay": 0})
    assert optim.spec(opt)[0] == structure
    assert opt.init(np.ones(2, np.float32)).mu is not None


def test_what_is_not_of_a_spec_is_named() -> None:
    structure, numbers = optim.spec(optim.sgd(0.1, momentum=0.9))
    for wrong in ({"learning_rate": 0.1}, numbers | {"eps": 1.0}):
        with pytest.raises(ValueError, match="build: sgd has the numbers learning_rate, momentum, got learning_rate"):
            optim.build(structure, wrong)
    for pair in ((structure, (0.1, 0.9)), (numbers, structure), ("sgd", numbers), (structure, None)):
        with pytest.raises(TypeError, match="build: expected the structure and the numbers that spec"):
            optim.build(*pair)


def test_an_optimizer_with_another_init_or_update_has_no_spec() -> None:
    """Its program is its own: made again of a spec, it would begin, or step, as the plain rule does."""
    adam = optim.adam(0.1)
    warm = adam._replace(init=lambda params: adam.init(params)._replace(count=jnp.int32(100)))
    halved = adam._replace(update=lambda *args, **extra: adam.update(*args, **extra))
    assert optim.spec(adam) is not None
    for other in (warm, halved, optim.Optimizer(warm.init, adam.update)):
        assert optim.spec(other) is None
        assert optim.spec(optim.chain(other))[1] == {}


def test_a_spec_goes_with_its_optimizer() -> None:
    specs = importlib.import_module("jaxnn.optim.spec")._SPECS
    gc.freeze()  # what there is already, so that collecting takes no second
    try:
        before = len(specs)
        opt = optim.adam(0.1)
        assert len(specs) > before
        del opt
        gc.collect()
        assert len(specs) == before
    finally:
        gc.unfreeze()


def test_a_description_is_the_call() -> None:
    assert optim.describe(optim.adamw(1e-3, weight_decay=0.1)) == "adamw(learning_rate=0.001, weight_decay=0.1)"
    opt = optim.chain(optim.clip(1.0), optim.adafactor(0.1))
    assert optim.describe(opt) == "chain(clip(max_delta=1.0), adafactor(learning_rate=0.1))"
    assert optim.spec(eval(optim.describe(opt), vars(optim))) == optim.spec(opt)
    assert optim.describe(optim.lbfgs()) == "lbfgs()"
    foreign = optax.clip(1.0)
    assert optim.describe(foreign) == repr(foreign)

"""Masks, labels and axes for parameters whose type is callable, such as an `equinox.Module`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, optim, tree
from jaxnn.per_example.recording.arguments import arguments_of
from tests.helpers import slow
from tests.optim.running import traced


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """Parameters of a network that is called on its input, as those of equinox are."""

    w: Any
    b: Any
    inner: Any = None

    def __call__(self, x: Any) -> Any:
        return x @ self.w.T + self.b


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class ByRank:
    """A function of the parameters that is a pytree: its one leaf is no bool."""

    rank: Any

    def __call__(self, params: Any) -> Any:
        return jax.tree.map(lambda p: jnp.ndim(p) == self.rank, params)


PARAMS = jax.tree.map(
    lambda shape: np.ones(shape, np.float32),
    Module((2, 3), (2,), Module((2, 2), (2,))),
    is_leaf=lambda shape: isinstance(shape, tuple),
)
MASK = jax.tree.map(lambda p: p.ndim > 1, PARAMS)
PREFIX = Module(True, False, Module(True, False))


def each(function: Any) -> Any:
    """A module with the function's values in place of the bools."""
    return jax.tree.map(function, MASK)


def with_mask(factory: Any) -> Any:
    """mask -> the rule with weight decay where the mask is True; every argument annotated as a mask is this one."""
    parameters = inspect.signature(factory).parameters
    known = {
        "learning_rate": 0.1,
        "weight_decay": 0.1,
        "weight_decay_rate": 0.1,
        "adam_weight_decay": 0.1,
        "roles": "vector",
    }
    given = {name: value for name, value in known.items() if name in parameters}
    masks = [name for name, p in parameters.items() if p.annotation == "Mask"]
    return lambda mask: factory(**given, **dict.fromkeys(masks, mask))


MASKED = {
    name: with_mask(getattr(optim, name))
    for name in optim.__all__
    if inspect.isfunction(getattr(optim, name))
    and "Mask" in [p.annotation for p in inspect.signature(getattr(optim, name)).parameters.values()]
} | {
    "masked": lambda m: optim.masked(optim.adam(0.1), m),
    "freeze": optim.freeze,
    "selective_transform": lambda m: optim.selective_transform(optim.adam(0.1), freeze_mask=m),
    "partition": lambda m: optim.partition({True: optim.adam(0.1), False: optim.sgd(0.1)}, m),
    "inject_hyperparams": lambda m: optim.inject_hyperparams(optim.adamw)(0.1, weight_decay=0.1, mask=m),
}
LABELLED = {
    "partition": (lambda m: "a" if m else "b", lambda t: optim.partition({"a": optim.adam(0.1), "b": optim.sgd(1)}, t)),
    "muon": (
        lambda m: optim.MuonDimensionNumbers(1, 0) if m else None,
        lambda t: optim.muon(0.1, muon_weight_dimension_numbers=t),
    ),
    "galore": (
        lambda m: optim.GaLoreDimensionNumbers(1, 0) if m else None,
        lambda t: optim.galore(0.1, 1, weight_dimension_numbers=t),
    ),
    "muon_with_roles": (lambda m: "hidden" if m else "vector", lambda t: optim.muon_with_roles(0.1, t)),
}

EVERY = {name: (bool, make) for name, make in MASKED.items()}
EVERY |= {f"{name} axes": pair for name, pair in LABELLED.items()}

SHORT = ("adamw", "masked", "partition")


def energy(params: Any) -> Any:
    """A loss, for the rules that need its curvature."""
    return sum(jnp.sum(p.astype(jnp.float32) ** 2) for p in jax.tree.leaves(params))


def program(opt: Any, params: Any = PARAMS) -> str:
    """The traced program of two updates."""

    def two(grads: Any) -> Any:
        state = opt.init(params)
        for _ in range(2):
            updates, state = opt.update(grads, state, params, obj_fn=energy)
        return updates, state

    return str(jax.make_jaxpr(two)(params))


@pytest.mark.parametrize("name", [*SHORT, *slow(*(name for name in MASKED if name not in SHORT))])
def test_a_callable_mask_is_a_tree(name: str) -> None:
    make = MASKED[name]
    expected = program(make(lambda params: MASK))
    assert program(make(MASK)) == expected
    assert program(make(ByRank(2))) == expected
    if name != "partition":  # whose labels must be hashable
        assert program(make(each(jnp.asarray))) == expected
    assert expected != program(make(lambda params: each(lambda m: not m)))


@pytest.mark.parametrize("name", ["partition", *slow(*(name for name in LABELLED if name != "partition"))])
def test_callable_labels_and_axes_are_trees(name: str) -> None:
    entry, make = LABELLED[name]
    found = each(entry)
    assert callable(found)
    assert program(make(found)) == program(make(lambda params: found))


@pytest.mark.parametrize("name", ["adamw", "lars", *slow(*(name for name in EVERY if name not in ("adamw", "lars")))])
def test_a_function_sees_the_dtypes_of_the_parameters(name: str) -> None:
    entry, make = EVERY[name]
    halves = jax.tree.map(lambda p: p.astype(jnp.bfloat16) if p.ndim > 1 else p, PARAMS)

    def by_dtype(params: Any) -> Any:
        return jax.tree.map(lambda p: entry(p.dtype == jnp.bfloat16), params)

    assert program(make(by_dtype), halves) == program(make(each(entry)), halves)


def test_a_callable_mask_may_be_a_prefix_and_hold_none() -> None:
    params = dataclasses.replace(PARAMS, b=None)
    mask = Module(True, None, False)
    spread = Module(True, None, Module(False, False))
    for make in (MASKED[name] for name in ("adamw", "masked", "freeze")):
        assert program(make(mask), params) == program(make(lambda p: spread), params)


@traced
def test_a_callable_mask_of_another_tree_is_refused_as_a_mask() -> None:
    mask = Module(True, False, Module(True, True))
    with pytest.raises(ValueError, match="masked: the mask must be a pytree of bools like the parameters"):
        optim.masked(optim.adam(0.1), mask).init({"w": jnp.ones(2), "b": jnp.ones(1)})
    with pytest.raises(TypeError, match="masked: the mask must hold bools"):
        optim.masked(optim.adam(0.1), dataclasses.replace(PREFIX, w=jnp.tanh)).init(PARAMS)
    with pytest.raises(TypeError, match="masked: the mask must hold bools"):
        jax.jit(lambda m: optim.masked(optim.adam(0.1), m).init(PARAMS))(each(jnp.asarray))


def test_penalties_take_callable_masks() -> None:
    for penalty in (losses.l1, losses.l2, losses.l2_grad):
        made, expected = (jax.make_jaxpr(penalty(0.1, mask=m))(PARAMS) for m in (MASK, lambda params: MASK))
        assert str(made) == str(expected)


def test_recorded_losses_take_callable_marks() -> None:
    found = arguments_of((PARAMS, jnp.ones((4, 3))), 0, None, Module(True, False, False))
    assert found.paths == (".w",)


def test_called_calls_functions_and_other_callables() -> None:
    params = {"w": jnp.ones(2)}
    assert tree.called(ByRank(1), params) == {"w": True}
    assert tree.called(jax.tree_util.Partial(lambda p: {"w": False}), params) == {"w": False}
    assert tree.called(True, params) is True
    assert tree.called(None, params) is None

"""Rules for some of the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import slow, strict
from tests.optim.running import along, traced

MUTANTS = [
    ("partition", "masked", "new if m else old", "new if m else 0 * old"),
    (
        "partition",
        "partition",
        "states = {}\n",
        "updates, states = jax.tree.map(lambda g: 2 * g, updates), {}\n",
    ),
    (
        "partition",
        "masked: function",
        "state.inner_state, seen, extra",
        "state.inner_state, _hide(chosen, grads), extra",
    ),
    ("partition", "freeze", "masked(set_to_zero(), mask)", "masked(set_to_zero(), lambda p: True)"),
]
PARAMS: Any = jax.tree.map(
    lambda shape: np.ones(shape, np.float32),
    {"w": (2, 3), "b": (3,), "none": None, "deep": {"w": (3, 1), "b": (1,)}},
    is_leaf=lambda shape: isinstance(shape, tuple),
)
GRADS = jax.tree.map(lambda p: 0.5 * p, PARAMS)
LABELS = {"w": "adam", "b": "sgd", "none": None, "deep": "sgd"}


@pytest.mark.parametrize("library", [optim, *slow(optax)])
def test_a_partition_is_each_rule_alone(library: Any) -> None:
    """Ours with our rules, and with optax's plain ones."""
    opt = optim.partition({"adam": library.adam(0.1), "sgd": library.sgd(0.01, 0.9)}, LABELS)
    with strict() if library is optim else jax.numpy_rank_promotion("warn"):
        _, visited, state = along(opt, PARAMS, jax.tree.map(lambda g: np.stack([g] * 3), GRADS))
    params = jax.tree.map(lambda p: p[-1], visited)
    for label, rule in (("adam", optax.adam(0.1)), ("sgd", optax.sgd(0.01, 0.9))):
        alone = along(rule, np.float32(1), np.full(3, 0.5, np.float32))[1][-1]
        mine = {"adam": [params["w"]], "sgd": [params["b"], params["deep"]["w"], params["deep"]["b"]]}[label]
        for leaf in mine:
            np.testing.assert_allclose(leaf, np.broadcast_to(alone, leaf.shape), rtol=1e-5)
    assert params["none"] is None
    kept = optim.named_state(state.inner_states["adam"])
    assert not any("deep" in name or name.endswith("/b") for name in kept)


def test_masks_as_prefixes_functions_and_arrays() -> None:
    expected = {"w": 2.0, "b": 1.0, "none": None, "deep": {"w": 2.0, "b": 2.0}}
    masks = (
        {"w": True, "b": False, "none": None, "deep": True},
        {"w": jnp.asarray(np.True_), "b": np.array(False), "none": None, "deep": np.True_},
        lambda p: {"w": True, "b": False, "none": None, "deep": True},
    )
    for mask in masks:
        opt = optim.masked(optim.scale(2.0), mask)
        updates, _ = opt.update(PARAMS, opt.init(PARAMS), PARAMS)
        assert jax.tree.map(lambda u: float(u.ravel()[0]), updates) == expected


def test_a_gradient_that_is_none_keeps_its_state() -> None:
    opt = optim.masked(optim.adam(0.1), {"a": True, "b": False})
    params = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}

    def first(params: Any) -> Any:
        start = opt.init(params)
        return start, *opt.update({"a": None, "b": params["b"]}, start, params)

    start, updates, state = jax.eval_shape(first, params)
    assert updates["a"] is None
    assert jax.tree.structure(state) == jax.tree.structure(start)


def test_extra_arguments_are_masked_if_asked() -> None:
    seen = []

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append(extra["tags"])
        return grads, state

    inner = optim.Optimizer(lambda params: (), update)
    grads = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    for asked in (False, True):
        opt = optim.masked(inner, {"a": True, "b": False}, mask_compatible_extra_args=asked)
        opt.update(grads, opt.init(grads), tags={"a": 1.0, "b": 2.0})
    assert seen == [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": optim.MaskedNode()}]


def test_nested_partitions_and_freezing() -> None:
    inner = optim.partition(
        {"w": optim.adam(0.1), "b": optim.sgd(0.1)}, {"w": "w", "b": "b", "none": None, "deep": "w"}
    )
    opt = optim.selective_transform(inner, freeze_mask={"w": False, "b": False, "none": None, "deep": True})
    updates, frozen = jax.jit(lambda: [o.update(GRADS, o.init(PARAMS), PARAMS)[0] for o in (opt, optim.freeze(True))])()
    assert not any(map(np.any, jax.tree.leaves((updates["deep"], frozen))))
    np.testing.assert_allclose(updates["b"], -0.05)


def test_trees_of_parameters_in_the_state_are_found() -> None:
    opt = optim.partition({"adam": optim.adam(0.1), "sgd": optim.sgd(0.1, 0.9)}, LABELS)
    state = jax.device_get(jax.jit(opt.init)(PARAMS))
    doubled = optim.tree_map_params(opt, lambda x: x + 2, state, transform_non_params=lambda x: x + 1)
    assert doubled.inner_states["adam"].inner_state.count == 1
    assert doubled.inner_states["adam"].inner_state.mu["w"][0, 0] == 2
    assert doubled.inner_states["sgd"].inner_state.trace["deep"]["w"][0, 0] == 2
    opt = optim.masked(optim.adam(0.1), {"a": True, "b": False})
    state = opt.init({"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)})

    def is_masked(x: Any) -> bool:
        return isinstance(x, optim.MaskedNode)

    for library in (optim, optax):
        names = library.tree_map_params(opt, lambda _, n: n, state, {"a": "A", "b": "B"}, is_leaf=is_masked)
        assert names.inner_state.mu == {"a": "A", "b": "B"}


@traced
def test_complaints() -> None:
    with pytest.raises(ValueError, match=r"got labels .*'adam'.* transformations for .*'other'"):
        optim.partition({"other": optim.sgd(0.1)}, LABELS).init(PARAMS)
    with pytest.raises(ValueError, match="must be a pytree of bools like the parameters"):
        optim.masked(optim.sgd(0.1), {"other": True}).init(PARAMS)
    with pytest.raises(ValueError, match="partition: the labels must be a pytree like the parameters"):
        optim.partition({"a": optim.sgd(0.1)}, {"other": "a"}).init(PARAMS)
    with pytest.raises(TypeError, match="known while tracing"):
        jax.jit(lambda m: optim.masked(optim.sgd(0.1), m).init(np.ones(1, np.float32)))(True)
    with pytest.raises(TypeError, match="must be an optimizer with init and update"):
        optim.masked(0.1, True)

"""Every rule on the parameters of flax, flax.nnx and equinox, and its state written by flax and read again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.optim.keys import raw_key, typed_key
from tests.helpers import slow

CASES = all_cases()
WEIGHTS = {"partition", "masked", "freeze", "selective_transform", "muon_with_roles", "named_chain"}
"""Cases whose masks or labels are those of other parameters."""
RULES = {name: case.ours for name, case in CASES.items() if ":" not in name and name not in WEIGHTS} | {
    "shampoo": lambda lib: lib.shampoo(0.1),
    "soap": lambda lib: lib.soap(0.1),
    "soap: vectors": lambda lib: lib.soap(0.1, precondition_1d=True),
    "masked": lambda lib: lib.masked(lib.sm3(0.1), True),
    "partition": lambda lib: lib.partition({"a": lib.soap(0.1)}, "a"),
    "muon_with_roles": lambda lib: lib.muon_with_roles(0.1, lambda p: jax.tree.map(lambda x: AXES[x.ndim], p)),
    "kahan": lambda lib: lib.kahan(lib.adam(0.1)),
    "master_weights": lambda lib: lib.master_weights(lib.adam(0.1)),
    "stochastic_rounding": lambda lib: lib.stochastic_rounding(lib.adam(0.1), jax.random.key(0)),
    "quantized_state": lambda lib: lib.quantized_state(lib.adam(0.1), key=jax.random.key(0), min_size=1, block_size=2),
}
AXES = {1: "vector", 2: "hidden"}
PARAMS = {"a": np.float32([[1.0, 2.0, 0.5], [0.3, 0.2, 0.1]]), "b": np.float32([[0.5, -1.0], [1.0, 0.1]])}
VECTOR = {"c": np.float32([1.0, -1.0])}


def names(quick: set[str]) -> list[Any]:
    return [*sorted(quick), *slow(*(name for name in RULES if name not in quick))]


def start(name: str) -> Any:
    """Parameters for a rule, matrices alone where it wants them."""
    case = CASES.get(name)
    params = PARAMS if case is not None and case.matrices else PARAMS | VECTOR
    return jax.tree.map(np.abs, params) if case is not None and case.positive else params


def loss(params: Any) -> Any:
    return sum((jnp.sum(p.astype(jnp.float32) ** 4) for p in jax.tree.leaves(params)), jnp.zeros(()))


def extra(params: Any) -> dict[str, Any]:
    value, grad = jax.value_and_grad(loss)(params)
    return {"value": value, "grad": grad, "value_fn": loss, "grad_fn": jax.grad(loss), "obj_fn": loss}


def step(opt: Any, params: Any, state: Any) -> tuple[Any, Any]:
    updates, state = opt.update(jax.grad(loss)(params), state, params, **extra(params))
    return optim.apply_updates(params, updates), state


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


@pytest.mark.parametrize("name", names({"sm3"}))
def test_nnx_optimizers_take_it(name: str) -> None:
    """A state that holds containers inside a tree of parameters comes back with mappings in their places."""
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):  # type: ignore[name-defined, misc]
        def __init__(self, params: Any) -> None:
            for key, value in params.items():
                setattr(self, key, nnx.Param(value))

    def run(params: Any) -> Any:
        model = Model(params)
        optimizer = nnx.Optimizer(model, RULES[name](optim), wrt=nnx.Param)
        for _ in range(2):
            arrays = nnx.as_pure(nnx.state(model))
            grads = nnx.grad(lambda model: loss(nnx.as_pure(nnx.state(model))))(model)
            optimizer.update(model, grads, **extra(arrays))
        return dict(nnx.as_pure(nnx.state(model))), jax.tree.leaves(nnx.as_pure(optimizer.opt_state))

    def plain(params: Any) -> Any:
        opt = RULES[name](optim)
        state = opt.init(params)
        for _ in range(2):
            params, state = step(opt, params, state)
        return params, jax.tree.leaves(state)

    if name not in ("sm3", "shampoo", "soap"):
        made, expected = (jax.eval_shape(function, start(name)) for function in (run, plain))
        assert shapes(made) == shapes(expected)
        return
    ours, theirs = (jax.jit(function)(start(name)) for function in (run, plain))
    assert shapes(ours) == shapes(theirs)
    for key, value in theirs[0].items():
        np.testing.assert_allclose(ours[0][key], value, rtol=1e-5)


@pytest.mark.parametrize("name", names({"sm3", "noisy_sgd", "sophia"}))
def test_flax_writes_its_state_and_reads_it_again(name: str) -> None:
    serialization = pytest.importorskip("flax.serialization")
    params, opt = start(name), RULES[name](optim)
    shape = jax.eval_shape(opt.init, params)
    # Numbers that show a leaf in the wrong place; init and update of every rule would take long to compile.
    leaves = [np.full(s.shape, i, s.dtype) for i, s in enumerate(jax.tree.leaves(shape))]
    state = jax.tree.unflatten(jax.tree.structure(shape), leaves)
    blank = jax.tree.map(np.zeros_like, state)
    found = serialization.from_bytes(blank, serialization.to_bytes(state))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert shapes(found) == shapes(state)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), leaves, strict=True))


def test_every_part_of_every_state_is_mapped() -> None:
    for name, rule in RULES.items():
        opt = rule(optim)
        state = jax.eval_shape(opt.init, start(name))
        found = optim.tree_map_params(opt, lambda _: 1, state, transform_non_params=lambda _: 0)
        assert jax.tree.structure(found) == jax.tree.structure(state), name
        assert set(jax.tree.leaves(found)) <= {0, 1}, name


def test_a_train_state_goes_on_after_it_was_read() -> None:
    train_state = pytest.importorskip("flax.training.train_state")
    serialization = pytest.importorskip("flax.serialization")
    for opt in (optim.sm3(0.1), optim.noisy_sgd(0.1, key=0)):
        step = jax.jit(lambda ts: ts.apply_gradients(grads=PARAMS))
        ts = step(train_state.TrainState.create(apply_fn=loss, params=PARAMS, tx=opt))
        read = serialization.from_bytes(ts, serialization.to_bytes(ts))
        a, b = (step(t) for t in (ts, read))
        assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", names(set()))
def test_frozen_dicts_and_equinox_modules_are_parameters(name: str) -> None:
    flax = pytest.importorskip("flax.core")
    equinox = pytest.importorskip("equinox")

    class Model(equinox.Module):  # type: ignore[name-defined, misc]
        a: Any
        b: Any
        act: Any
        c: Any = None

        def __call__(self, x: Any) -> Any:
            raise AssertionError("parameters are no function")

    opt, params = RULES[name](optim), start(name)
    expected = shapes(jax.eval_shape(lambda p: step(opt, p, opt.init(p))[0], params))
    model = equinox.filter(Model(act=jnp.tanh, **params), equinox.is_inexact_array)
    for other in (flax.freeze(params), model):

        def two(p: Any) -> Any:
            state = opt.init(p)
            p, state = step(opt, p, state)
            p, after = step(opt, p, state)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            return p

        made = jax.eval_shape(two, other)
        assert type(made) is type(other)
        assert jax.tree.leaves(shapes(made)) == jax.tree.leaves(expected)


def test_states_hold_raw_keys_and_read_typed_ones() -> None:
    for name in ("noisy_sgd", "sophia", "stochastic_rounding", "quantized_state", "dpsgd"):
        kinds = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(RULES[name](optim).init, PARAMS))}
        assert jnp.dtype(jnp.uint32) in kinds
        assert not any(jnp.issubdtype(kind, jax.dtypes.prng_key) for kind in kinds)
    opt = optim.add_noise(0.1, 0.5, jax.random.key(3))
    state = opt.init(PARAMS)
    old = state._replace(rng_key=jax.random.key(3))
    a, b = (jax.jit(opt.update)(PARAMS, s) for s in (state, old))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    rbg = jax.random.key(3, impl="rbg")
    assert raw_key(rbg).shape == (4,)
    assert typed_key(raw_key(rbg), rbg).dtype == rbg.dtype
    opt = optim.add_noise(0.1, 0.5, rbg)
    assert jax.jit(lambda p: opt.update(p, opt.init(p))[1])(PARAMS).count == 1

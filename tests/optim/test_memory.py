"""A donated update-and-apply of an element-wise rule needs no memory of the parameters' size but what it is given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn import optim, tree
from jaxnn.compare.cases import all_cases
from jaxnn.compare.course import random_params
from tests.helpers import slow

RULES: dict[str, Any] = {
    "sgd": lambda: optim.sgd(0.1),
    "momentum": lambda: optim.sgd(0.1, momentum=0.9),
    "nesterov": lambda: optim.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optim.adam(1e-3),
    "adamw": lambda: optim.adamw(1e-3, weight_decay=0.01),
    "rmsprop": lambda: optim.rmsprop(1e-3),
    "adagrad": lambda: optim.adagrad(0.1),
}
SIDE = 256


def memory(opt: optim.Optimizer, params: Any, *, keep: bool = False) -> Any:
    """What XLA's analysis says of the compiled step; with `keep`, of one that returns the updates too."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optim.apply_updates(params, updates), state, updates if keep else ()

    state = jax.eval_shape(opt.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile().memory_analysis()


def nbytes(arrays: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays))


CASES = [(name, layout) for name in RULES for layout in ("leaves", "packed", "bfloat16")]
QUICK = [("adamw", "leaves"), ("adam", "packed"), ("nesterov", "bfloat16")]


@pytest.mark.parametrize(("name", "layout"), [*QUICK, *slow(*(case for case in CASES if case not in QUICK))])
def test_a_donated_step_has_no_temporary_of_a_parameters_size(name: str, layout: str) -> None:
    dtype = jnp.bfloat16 if layout == "bfloat16" else jnp.float32
    sizes: Any = {"w": (SIDE, SIDE), "v": (SIDE, SIDE), "b": (SIDE,)}
    params = {name: jax.ShapeDtypeStruct(size, dtype) for name, size in sizes.items()}
    if layout == "packed":
        params = jax.eval_shape(lambda p: tree.pack(p)[0], params)
    opt = RULES[name]()
    found = memory(opt, params)
    if found is None:
        pytest.skip("this backend gives no memory analysis")
    one_leaf = SIDE * SIDE * dtype.dtype.itemsize
    carried = nbytes((params, jax.eval_shape(opt.init, params)))
    assert found.temp_size_in_bytes < 0.05 * one_leaf
    assert found.alias_size_in_bytes >= 0.99 * carried  # parameters and state are written where they were


@pytest.mark.parametrize("dtype", [jnp.float32, *slow(jnp.bfloat16)])
def test_lion_needs_no_more_than_a_copy_of_its_moment(dtype: Any) -> None:
    """Both its step and its new mu read the old mu. XLA on CPU makes two loops of them and copies mu; optax's too."""
    params = {name: jax.ShapeDtypeStruct((SIDE, SIDE), dtype) for name in ("w", "v")}
    opt = optim.lion(1e-4, weight_decay=0.01)
    found, state = memory(opt, params), jax.eval_shape(opt.init, params)
    if found is None:
        pytest.skip("this backend gives no memory analysis")
    assert found.temp_size_in_bytes <= 1.01 * nbytes(state.mu)


def test_the_analysis_would_show_such_a_temporary() -> None:
    """A norm of all updates must be known before any is applied; and updates that are returned need room."""
    params = {name: jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32) for name in ("w", "v")}
    clipped = optim.chain(optim.adam(1e-3), optim.clip_by_global_norm(1.0))
    found, kept = memory(clipped, params), memory(optim.adam(1e-3), params, keep=True)
    if found is None:
        pytest.skip("this backend gives no memory analysis")
    assert found.temp_size_in_bytes + kept.output_size_in_bytes - kept.alias_size_in_bytes >= 4 * SIDE * SIDE


def shared(*trees: Any) -> list[list[str]]:
    """The arrays of these pytrees that are one buffer, by their paths."""
    places: dict[int, list[str]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(trees):
        if isinstance(x, jax.Array) and x.size and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            places.setdefault(x.unsafe_buffer_pointer(), []).append(jax.tree_util.keystr(path))
    return [same for same in places.values() if len(same) > 1]


def test_a_shared_buffer_is_found() -> None:
    x = jnp.ones(2)
    assert shared({"a": x}, (jnp.copy(x), x)) == [["[0]['a']", "[1][1]"]]


@pytest.mark.parametrize("names", [["adadelta"], *slow([*all_cases()])])
def test_no_buffer_stands_twice_in_what_is_donated(names: list[str]) -> None:
    """XLA refuses to donate a buffer twice: a moment that starts as another's zeros is an array of its own."""
    for name in names:
        case = all_cases()[name]
        params = random_params(jax.random.key(0), jnp.float32, matrices=case.matrices, positive=case.positive)
        assert shared(params, case.ours(optim).init(params)) == [], name


@pytest.mark.slow
@pytest.mark.parametrize("make", [optim.shampoo, optim.soap, optim.sm3], ids=["shampoo", "soap", "sm3"])
def test_no_buffer_of_a_matrix_rule_stands_twice(make: Any) -> None:
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3), "s": jnp.ones(())}
    state = make(0.1).init(params)
    assert shared(params, state) == []
    update = jax.jit(make(0.1).update, donate_argnums=(1, 2))
    jax.block_until_ready(update(params, state, jax.tree.map(jnp.copy, params)))

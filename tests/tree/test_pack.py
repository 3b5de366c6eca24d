"""Packing a tree into one vector for each dtype, and its gradient."""

from __future__ import annotations

from typing import Any

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim, tree
from tests.helpers import assert_close, float64, random, strict

ARRAYS = st.one_of(
    *(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), elements=st.integers(-9, 9))
        for dtype in ("float32", "float16", "int32")
    )
)
TREES = st.recursive(
    st.none() | ARRAYS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children, children)
        | st.dictionaries(st.sampled_from("abc"), children, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@hypothesis.given(TREES)
def test_the_round_trip_is_exact(a: Any) -> None:
    a = jax.tree.map(jnp.asarray, a)
    with strict():
        buffers, unpack = tree.pack(a)
        back = unpack(buffers)
    chex.assert_trees_all_equal_structs(back, a)
    chex.assert_trees_all_equal_shapes_and_dtypes(back, a)
    chex.assert_trees_all_equal(back, a)
    assert all(buffer.ndim == 1 and str(buffer.dtype) == name for name, buffer in buffers.items())
    assert sum(buffer.size for buffer in buffers.values()) == tree.size(a)


def test_leaves_lie_in_the_order_of_the_tree() -> None:
    a = {"b": np.float32([[1, 2], [3, 4]]), "a": np.float32(0), "c": (None, np.float32([5]))}
    half = (np.ones(2, jnp.bfloat16), np.zeros(1, np.float32), np.zeros(1, jnp.bfloat16))
    buffers, half = jax.device_get(jax.jit(lambda *trees: [tree.pack(t)[0] for t in trees])(a, half))
    assert_close(buffers, {"float32": np.arange(6.0)}, rtol=0)
    np.testing.assert_array_equal(half["bfloat16"].astype(np.float32), [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(half["float32"], [0.0])


def network(width: int, depth: int) -> Any:
    """Parameters of a small network, in two dtypes and with a None leaf."""
    weights = random(0, depth, width, width, dtype=np.float32) / np.float32(width**0.5)
    return {"layers": [{"w": w, "b": None} for w in weights], "scale": np.ones(width, jnp.bfloat16)}


def loss(params: Any) -> Any:
    x = jnp.ones((2, params["scale"].size))
    for layer in params["layers"]:
        x = jnp.tanh(x @ layer["w"])
    return jnp.sum((x * params["scale"].astype(x.dtype)) ** 2)


@pytest.mark.slow
def test_the_gradient_equals_that_of_the_leaves_packed() -> None:
    params = network(5, 4)
    buffers, unpack = tree.pack(params)
    value, grads = jax.jit(jax.value_and_grad(lambda b: loss(unpack(b))))(buffers)
    expected, leaves = jax.jit(jax.value_and_grad(loss))(params)
    assert value == expected
    chex.assert_trees_all_equal(grads, tree.pack(leaves)[0])
    chex.assert_trees_all_equal(unpack(grads), leaves)


@pytest.mark.slow
def test_second_derivatives_and_maps_pass_through() -> None:
    with float64():
        params = {"w": jnp.linspace(0.5, 1.0, 6).reshape(2, 3), "b": jnp.linspace(0.1, 0.2, 2)}
        buffers, unpack = tree.pack(params)

        def f(b: Any) -> Any:
            p = unpack(b)
            return jnp.sum(jnp.sin(p["w"]) ** 3) * jnp.prod(p["b"])

        flat = jax.hessian(lambda x: f({"float64": x}))(buffers["float64"])
        reverse = jax.jacrev(jax.jacrev(lambda x: f({"float64": x})))(buffers["float64"])
        assert_close(flat, reverse, rtol=1e-12, atol=1e-15)
        blocks = jax.hessian(lambda p: jnp.sum(jnp.sin(p["w"]) ** 3) * jnp.prod(p["b"]))(params)
        assert_close(flat[2:, 2:].reshape(2, 3, 2, 3), blocks["w"]["w"], rtol=1e-12, atol=1e-15)
        many = jax.vmap(lambda s: unpack(jax.tree.map(lambda x: s * x, buffers)))(jnp.arange(3.0))
        assert_close(many, jax.tree.map(lambda x: jnp.arange(3.0).reshape(3, *[1] * x.ndim) * x, params), rtol=0)


def test_the_gradient_is_one_concatenation_for_each_dtype() -> None:
    """A slice for each leaf would make it a sum of as many padded vectors, each as long as the whole."""
    params = {"w": [np.ones((2, 3), np.float32)] * 50, "h": [np.ones(4, jnp.bfloat16)] * 50}
    buffers, unpack = tree.pack(params)

    def total(p: Any) -> Any:
        return sum(jnp.sum(jnp.sin(x.astype(jnp.float32))) for x in jax.tree.leaves(p))

    def counted(f: Any) -> dict[str, int]:
        names = [equation.primitive.name for equation in jax.make_jaxpr(jax.grad(f))(buffers).eqns]
        return {name: names.count(name) for name in ("concatenate", "pad", "split", "add_any")}

    assert counted(lambda b: total(unpack(b))) == {"concatenate": 2, "pad": 0, "split": 2, "add_any": 0}

    def by_slices(b: Any) -> Any:
        return total([b["float32"][6 * i : 6 * i + 6] for i in range(50)])

    assert counted(by_slices)["pad"] + counted(by_slices)["add_any"] >= 50


def test_training_on_buffers_traces_once_and_equals_training_on_leaves() -> None:
    opt, traces = optim.adam(0.01), []

    def make(f: Any) -> Any:
        @jax.jit
        def step(p: Any, s: Any) -> Any:
            traces.append(f)
            updates, s = opt.update(jax.grad(f)(p), s, p)
            return optim.apply_updates(p, updates), s

        return step

    params = network(4, 3)
    buffers, unpack = tree.pack(params)
    packed, leaves, unpacked = make(lambda b: loss(unpack(b))), make(loss), jax.jit(unpack)
    state, leaf_state = jax.jit(lambda: (opt.init(buffers), opt.init(params)))()
    for _ in range(10):
        buffers, state = packed(buffers, state)
        params, leaf_state = leaves(params, leaf_state)
    assert len(traces) == 2  # one of each
    assert_close(unpacked(buffers), params, rtol=1e-5, atol=1e-6)
    assert state.mu["bfloat16"].dtype == jnp.float32
    mu = unpacked(state.mu)
    assert_close(mu, leaf_state.mu, rtol=1e-4, atol=1e-6)
    assert jax.tree.leaves(mu)[0].dtype == jnp.float32


def test_an_update_of_many_leaves_is_as_short_as_of_one() -> None:
    opt = optim.adam(0.01)

    def length(params: Any) -> int:
        return len(jax.make_jaxpr(opt.update)(params, jax.eval_shape(opt.init, params), params).eqns)

    few, many = ([np.ones(3, np.float32)] * n for n in (1, 40))
    packed = [jax.eval_shape(lambda leaves: tree.pack(leaves)[0], leaves) for leaves in (few, many)]
    assert length(packed[1]) == length(packed[0])
    assert length(many) > 10 * length(few)


def test_packing_works_inside_jit() -> None:
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.arange(2, dtype=np.int32)}

    @jax.jit
    def twice(p: Any) -> Any:
        buffers, unpack = tree.pack(p)
        return unpack({name: 2 * buffer for name, buffer in buffers.items()})

    assert_close(twice(params), jax.tree.map(lambda x: 2 * x, params), rtol=0)


@pytest.mark.parametrize("empty", [{}, None, (), {"w": None, "parts": ()}])
def test_a_tree_without_leaves(empty: Any) -> None:
    buffers, unpack = tree.pack(empty)
    assert buffers == {}
    assert unpack(buffers) == empty


def test_what_is_no_array_of_numbers_is_named() -> None:
    with pytest.raises(TypeError, match=r"leaf \['k'\] must be an array of numbers, got key<fry>"):
        tree.pack({"w": np.ones(1), "k": jax.random.key(0)})
    with pytest.raises(TypeError, match=r"leaf \['layers'\]\[1\] must be an array of numbers, got str"):
        tree.pack({"layers": [np.ones(1), "relu"]})
    with pytest.raises(TypeError, match=r"leaf \(the tree itself\) must be an array of numbers, got function"):
        tree.pack(lambda x: x)


def test_buffers_of_another_tree_are_rejected() -> None:
    buffers, unpack = tree.pack({"w": np.ones((2, 2), np.float32), "h": np.ones(3, jnp.bfloat16)})
    with pytest.raises(ValueError, match=r"'float32': \(4,\).*got \{'float32': \(5,\)"):
        unpack({"float32": np.ones(5, np.float32), "bfloat16": buffers["bfloat16"]})
    with pytest.raises(ValueError, match=r"got \{'float32': \(4,\)\}"):
        unpack({"float32": buffers["float32"]})
    with pytest.raises(ValueError, match=r"got .*\(4, 1\)"):
        unpack(buffers | {"float32": np.ones((4, 1), np.float32)})
    with pytest.raises(TypeError, match="must be a dict from dtype names to vectors, got tuple"):
        unpack(tuple(buffers.values()))  # type: ignore[arg-type]

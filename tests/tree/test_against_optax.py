"""optax.tree's functions: its values, with None leaves; and ours where the words were ours before."""

from __future__ import annotations

import collections
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim, tree
from tests.helpers import assert_close, float64, strict

IN_OPTIM = {
    "bias_correction": "bias_correction",
    "map_params": "tree_map_params",
    "update_infinity_moment": "update_infinity_moment",
    "update_moment": "update_moment",
    "update_moment_per_elem_norm": "update_moment_per_elem_norm",
}
NAMES = sorted(n for n in dir(optax.tree) if not n.startswith("_"))


class Inner(NamedTuple):
    count: Any
    mu: Any


class Outer(NamedTuple):
    count: Any
    inner: Any


def random_tree(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((2, 3)),
        "b": (rng.standard_normal(2), None),
        "c": rng.standard_normal(2) + 1j * rng.standard_normal(2),
    }


def everything(t: Any, a: dict[str, Any], b: dict[str, Any], key: Any) -> dict[str, Any]:
    """One call of each function, on `jaxnn.tree` or `optax.tree`."""
    reals = {k: v for k, v in a.items() if k in ("w", "b")}
    return {
        "add": t.add(a, b),
        "add three": t.add(a, b, a),
        "sub": t.sub(a, b),
        "mul": t.mul(a, b),
        "div": t.div(a, b),
        "scale": t.scale(0.5, a),
        "scale by keyword": t.scale(scalar=0.5, tree=a),
        "add_scale": t.add_scale(a, 0.5, b),
        "vdot": t.vdot(a, b),
        "sum": t.sum(a),
        "pairwise": t.sum(a, associative_reduction=True),
        "max": t.max(reals),
        "min": t.min({**reals, "empty": jnp.zeros(0)}),
        "norm": [t.norm(a), t.norm(a, ord=2), t.norm(a, 1), t.norm(a, ord=np.inf), t.norm(a, "inf", squared=True)],
        "squared": t.norm(a, squared=True),
        "conj": t.conj(a),
        "real": t.real(a),
        "clip": [t.clip(reals, -0.5), t.clip(reals, max_value=0.5), t.clip(reals, -0.1, 0.1)],
        "where": t.where(jnp.array(False), a, b),
        "allclose": [t.allclose(a, a), t.allclose(a, b), t.allclose(a, b, rtol=1e9)],
        "like": [t.zeros_like(a), t.ones_like(reals, dtype=jnp.float32), t.full_like(a, 2)],
        "cast": [t.cast(reals, jnp.float32), t.cast(a, None), t.cast_like(reals, t.cast(reals, jnp.float32))],
        "batch": t.batch_shape(a, (2, 1)),
        "random": [t.random_like(key, reals), t.random_like(key, reals, jax.random.uniform, jnp.float32)],
        "keys": t.unwrap_random_key_data(t.split_key_like(key, reals)),
    }


def test_values_are_optaxs() -> None:
    with float64():
        given = random_tree(0), random_tree(1), jax.random.key(0)
        with strict():
            got = jax.device_get(jax.jit(functools.partial(everything, tree))(*given))
        expected = jax.device_get(jax.jit(functools.partial(everything, optax.tree))(*given))
        assert got.keys() == expected.keys()
        for name in got:
            parts = [jax.tree.map(lambda x: [np.real(x), np.imag(x)], values[name]) for values in (got, expected)]
            assert_close(*parts, rtol=1e-12, atol=1e-14)
            assert jax.tree.map(lambda x: x.dtype, got[name]) == jax.tree.map(lambda x: x.dtype, expected[name]), name


def test_every_function_is_here_with_its_arguments() -> None:
    for name, place in IN_OPTIM.items():
        assert hasattr(optim, place)
        with pytest.raises(AttributeError, match=f"jaxnn.optim.{place}"):
            getattr(tree, name)

    def arguments(module: Any) -> dict[str, Any]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
            for name in NAMES
            if name not in IN_OPTIM
        }

    assert arguments(tree) == arguments(optax.tree)


def test_a_complex_factor_makes_real_leaves_complex() -> None:
    np.testing.assert_array_equal(tree.scale(1j, {"a": np.ones(2, np.float32)})["a"], np.full(2, 1j))
    np.testing.assert_array_equal(
        tree.add_scale(np.ones(2, np.float32), 1j, np.ones(2, np.float32)), np.full(2, 1 + 1j)
    )
    assert tree.scale(2.0, np.ones(2, np.complex64)).dtype == np.complex64


def test_integers_are_scaled_without_cutting() -> None:
    assert tree.scale(0.5, np.array([3, 4], np.int32)).tolist() == [1.5, 2.0]
    assert tree.scale(0.5, {"x": 3.0})["x"] == 1.5


def test_sums_do_not_stall_in_half_precision_and_the_norm_has_a_derivative_at_zero() -> None:
    ones, zeros = {"w": np.ones(10_000, jnp.bfloat16)}, {"w": np.zeros(2, np.float32)}
    total, square, slope = jax.jit(lambda: (tree.sum(ones), tree.vdot(ones, ones), jax.grad(tree.norm)(zeros)["w"]))()
    assert float(total) == float(square) == 10_000
    assert slope.tolist() == [0.0, 0.0]


def test_empty_trees_and_none() -> None:
    for empty in ({}, {"w": None}):
        assert float(tree.sum(empty)) == float(tree.norm(empty)) == float(tree.norm(empty, "inf")) == 0
        assert (float(tree.max(empty)), float(tree.min(empty))) == (-np.inf, np.inf)
        assert bool(tree.allclose(empty, empty))
        assert tree.size(empty) == 0
        assert tree.dtype(empty) == jnp.float32
    assert tree.add_scale({"w": None}, 2.0, {"w": jnp.ones(1)}) == {"w": None}


def test_dtype() -> None:
    for dtypes in (("float16", "float32"), ("bfloat16", "bfloat16"), ("int32", "float32", "float16")):
        t = [np.zeros(1, d) for d in dtypes]
        for handler in ("promote", "highest", "lowest"):
            assert tree.dtype(t, handler) == optax.tree.dtype(t, handler), (dtypes, handler)


def test_errors() -> None:
    mixed = {"a": np.ones(1, np.float16), "b": np.ones(1, jnp.bfloat16)}
    with pytest.raises(ValueError, match=r"float16 at \['a'\] and bfloat16 at \['b'\]"):
        tree.dtype(mixed)
    with pytest.raises(ValueError, match="neither of"):
        tree.dtype(mixed, "highest")
    with pytest.raises(ValueError, match="mixed_dtype_handler must be"):
        tree.dtype(mixed, "best")
    with pytest.raises(ValueError, match="ord must be"):
        tree.norm(mixed, 3)
    with pytest.raises(ValueError, match="vdot: leaves must have the same shape"):
        tree.vdot(np.ones((4, 1), np.float32), np.ones(4, np.float32))


STATE = [
    Outer(jnp.array(3), {"lr": 0.1, "mu": Inner(jnp.array(4), {"lr": 1.0})}),
    collections.OrderedDict(lr=None, x=(1.0, [Inner(5, 6.0)])),
]


@pytest.mark.parametrize("key", ["count", "lr", "mu", "Inner", "Outer", "x", "nothing"])
def test_found_values_are_optaxs(key: str) -> None:
    def told(found: Any) -> list[tuple[str, str]]:
        return sorted((" ".join(map(str, path)), str(value)) for path, value in found)

    assert told(tree.get_all_with_path(STATE, key)) == told(optax.tree.get_all_with_path(STATE, key))


def test_get_and_set() -> None:
    with pytest.raises(KeyError, match=r"'count', at \[0\]\[Outer.count\], "):
        tree.get(STATE, "count")
    of_outer = lambda path, _: getattr(path[-1], "tuple_name", "") == "Outer"  # noqa: E731
    assert int(tree.get(STATE, "count", filtering=of_outer)) == 3
    assert tree.get(STATE, "nothing", 7) == 7
    flat = [Outer(1, Inner(2, 3.0)), {"count": 4, "mu": (5, None)}]
    for filtering in (None, of_outer):
        got, expected = (t.set(flat, filtering, count=9) for t in (tree, optax.tree))
        assert got == expected
    # Within a value that lacks the name optax looks no further: it finds three and replaces two.
    assert [v for _, v in tree.get_all_with_path(tree.set(STATE, count=9), "count")] == [9, 9, 9]
    assert sorted(int(v) for _, v in optax.tree.get_all_with_path(optax.tree.set(STATE, count=9), "count")) == [4, 9, 9]
    assert jax.tree.structure(tree.set(STATE, count=9)) == jax.tree.structure(STATE)
    assert tree.set(STATE, Inner=0)[0].inner["mu"] == 0
    with pytest.raises(KeyError, match="no value is called 'nothing'"):
        tree.set(STATE, nothing=1)
    with pytest.raises(KeyError, match="that passes the filter"):
        tree.set(STATE, lambda path, value: False, count=1)
    state = optim.adam(0.1).init({"w": np.ones(2, np.float32)})
    assert int(tree.get(tree.set(state, count=jnp.array(8)), "count")) == 8

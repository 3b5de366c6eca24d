"""Penalties on the weights: values, gradients, which leaves they see."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, tree
from tests.helpers import assert_close, float64, random, slow, strict

W1, W2, B = random(0, 3, 2), random(1, 2), random(2, 2)
PARAMS = ({"w": W1, "b": B}, None, {"deep": {"kernel": W2, "scale": B}}, ())
ALL = [W1, B, W2, B]
PENALTIES = {
    "l2": (losses.l2(0.3), losses.l2_grad(0.3), lambda w: 0.3 * np.sum(w**2)),
    "l1": (losses.l1(0.3), losses.l1_grad(0.3), lambda w: 0.3 * np.sum(np.abs(w))),
    "elastic": (
        losses.elastic(0.2, 0.7),
        losses.elastic_grad(0.2, 0.7),
        lambda w: 0.2 * np.sum(np.abs(w)) + 0.7 * np.sum(w**2),
    ),
}


@functools.cache
def jitted(f: Any) -> Any:
    return jax.jit(f)


@functools.cache
def derivatives() -> dict[str, tuple[Any, Any]]:
    """The hand-written derivative and jax.grad of each, by one program."""
    with float64(), strict():
        return jax.jit(lambda p: {name: (grad(p), jax.grad(f)(p)) for name, (f, grad, _) in PENALTIES.items()})(PARAMS)


def check(penalty: Any, oracle: Any, leaves: list[np.ndarray]) -> None:
    with float64(), strict():
        got = jitted(penalty)(PARAMS)
    assert got.shape == ()
    assert got.dtype == np.float64
    assert_close(got, sum(oracle(w) for w in leaves), rtol=1e-13)


@pytest.mark.parametrize("name", PENALTIES)
def test_weights_are_penalised_and_biases_are_not(name: str) -> None:
    penalty, _, oracle = PENALTIES[name]
    check(penalty, oracle, [W1, W2])
    with pytest.raises(AssertionError):  # the value with biases is another
        check(penalty, oracle, ALL)


@pytest.mark.parametrize(
    "broken",
    [losses.l2(0.15), losses.l2(0.3, mask=None), losses.l1(0.3), lambda p: -losses.l2(0.3)(p)],
    ids=["a half", "biases too", "absolute", "sign"],
)
def test_a_broken_penalty_fails(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check(broken, PENALTIES["l2"][2], [W1, W2])


@pytest.mark.parametrize("name", PENALTIES)
def test_gradient(name: str) -> None:
    got, automatic = derivatives()[name]
    assert_close(got, automatic, rtol=1e-14)
    with pytest.raises(AssertionError):
        assert_close(jax.tree.map(lambda g: np.asarray(g) / 2, got), automatic, rtol=1e-14)
    assert not np.any(got[0]["b"])
    assert not np.any(got[2]["deep"]["scale"])


def test_masks() -> None:
    oracle = PENALTIES["l2"][2]
    check(losses.l2(0.3, mask=None), oracle, ALL)
    check(losses.l2(0.3, mask=lambda p: jax.tree.map(lambda w: w.ndim == 1, p)), oracle, [B, W2, B])
    chosen = ({"w": False, "b": True}, None, {"deep": {"kernel": np.bool_(False), "scale": False}}, ())
    check(losses.l2(0.3, mask=chosen), oracle, [B])
    with float64():
        grads = jax.jit(losses.l2_grad(0.3, mask=chosen))(PARAMS)
    assert_close(grads[0]["b"], 0.6 * B, rtol=1e-14)
    assert not np.any(grads[0]["w"])
    assert tree.is_weight(PARAMS) == ({"w": True, "b": False}, None, {"deep": {"kernel": True, "scale": False}}, ())


def test_empty_parameters() -> None:
    for empty in ((), {}, None, {"b": np.ones(2, np.float32)}):
        assert float(losses.elastic(1.0, 1.0)(empty)) == 0.0
        assert jax.tree.structure(losses.l1_grad(1.0)(empty)) == jax.tree.structure(empty)


@pytest.mark.parametrize("dtype", ["bfloat16", *slow("float16", "float32")])
def test_low_precision(dtype: str) -> None:
    with strict():
        weights = {"w": np.full(4096, 0.5, dtype)}
        l2, l2_grad = losses.l2(2.0), losses.l2_grad(2.0)
        value, grad, auto = jax.jit(lambda p: (l2(p), l2_grad(p), jax.grad(l2)(p)))(weights)
    assert value.dtype == jnp.float32
    assert float(value) == 2048.0
    assert grad["w"].dtype == jnp.dtype(dtype)
    assert_close(grad, auto, rtol=0)


def test_parameters_of_several_dtypes() -> None:
    elastic, elastic_grad = losses.elastic(1.0, 1.0), losses.elastic_grad(1.0, 1.0)
    with float64(), strict():
        weights = {"a": {"w": np.ones(2, np.float32)}, "b": {"w": np.ones(3, np.float64)}}
        value, grads = jax.jit(lambda p: (elastic(p), elastic_grad(p)))(weights)
    assert value.dtype == np.float64
    assert float(value) == 10.0
    assert [g.dtype for g in jax.tree.leaves(grads)] == [np.float32, np.float64]


def test_kinks_have_derivative_0() -> None:
    functions = losses.l1_grad(1.0), losses.elastic_grad(1.0, 1.0), jax.grad(losses.l1(1.0))
    for grad in jax.jit(lambda p: [f(p) for f in functions])({"w": np.zeros(2, np.float32)}):
        assert not np.any(grad["w"])


def test_swept_strength() -> None:
    weights = {"w": np.array([1.0, -2.0], np.float32)}
    values = jax.jit(jax.vmap(lambda s: losses.elastic(s, 2 * s)(weights)))(np.array([0.0, 0.5], np.float32))
    assert_close(values, np.array([0.0, 6.5]), rtol=1e-6)

"""Roots that can be differentiated at 0: values, derivatives of every order, and what they cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import tree
from jaxnn.numerics import largest, safe_cbrt, safe_sqrt
from tests.helpers import float64, strict

ROOTS = [(safe_sqrt, jnp.sqrt), (safe_cbrt, jnp.cbrt)]
DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]


@pytest.mark.parametrize(("root", "plain"), ROOTS)
def test_values_are_those_of_the_plain_root_to_the_bit(root: Any, plain: Any) -> None:
    with float64():
        numbers = np.concatenate([[0.0, np.inf, 1e-300, 2e-38], np.random.default_rng(0).lognormal(0, 9, 999)])
        pairs = [(root, plain), (lambda x: 1 / (root(x) + 1e-8), lambda x: 1 / (plain(x) + 1e-8))]
        for dtype in DTYPES:
            with np.errstate(over="ignore"):
                x = numbers.astype(dtype)
            # XLA for CPUs keeps what it fuses in float32, and fuses two quotients of float16 differently.
            some = pairs[: 1 if dtype == jnp.float16 else 2]
            for got, expected in jax.jit(lambda x, some=some: [(f(x), g(x)) for f, g in some])(x):
                assert got.dtype == expected.dtype
                assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize(("root", "plain"), ROOTS)
def test_it_moves_the_memory_and_has_the_kernels_of_the_plain_root(root: Any, plain: Any) -> None:
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)

    def cost(f: Any) -> Any:
        compiled = jax.jit(lambda x, g: g / (f(x) + 1e-8)).lower(x, x).compile()
        found: Any = compiled.cost_analysis()
        return found["bytes accessed"], compiled.as_text().count("fusion(")

    assert cost(root) == cost(plain)


@pytest.mark.parametrize(("root", "plain"), ROOTS)
def test_derivatives_are_the_plain_ones_where_x_is_not_0_and_0_where_it_is(root: Any, plain: Any) -> None:
    with float64(), strict():
        x = np.array([0.0, 0.5, 0.0, 4.0])

        def derivatives(f: Any, x: Any) -> list[Any]:
            found = []
            for _ in range(4):
                f = jax.grad(f)
                found.append(jax.vmap(f)(x))
            return found

        got, plain_ones = jax.jit(lambda x, y: (derivatives(root, x), derivatives(plain, y)))(x, np.where(x == 0, 1, x))
        for ours, theirs in zip(got, plain_ones, strict=True):
            np.testing.assert_allclose(ours, np.where(x == 0, 0, theirs), rtol=1e-14)


def test_derivatives_pass_through_every_transformation() -> None:
    x, want = np.float32([0.0, 4.0]), np.float32([0.0, 0.25])

    def total(x: Any) -> Any:
        return jnp.sum(safe_sqrt(x))

    def scanned(x: Any) -> Any:
        return jax.lax.scan(lambda c, v: (c + safe_sqrt(v), None), jnp.zeros(()), x)[0]

    functions = (total, jax.jit(total), jax.checkpoint(total), scanned, jax.checkpoint(scanned))

    @jax.jit
    def derivatives(x: Any) -> Any:
        first = [derived(f)(x) for f in functions for derived in (jax.grad, jax.jacfwd)]
        second = [jax.hessian(total)(x), jax.hessian(scanned)(x), jax.jacrev(jax.jacrev(scanned))(x)]
        return [*first, jax.linearize(safe_sqrt, x)[1](jnp.ones(2))], second

    first, second = derivatives(x)
    for found in first:
        np.testing.assert_array_equal(found, want)
    for found in second:
        np.testing.assert_array_equal(found, np.diag([0.0, -1 / 32]))


def test_the_norm_of_a_tree_of_zeros_has_a_derivative() -> None:
    found = jax.jit(jax.grad(tree.norm))({"w": np.zeros(2, np.float32), "b": np.float32(0)})
    assert all(np.all(leaf == 0) for leaf in jax.device_get(jax.tree.leaves(found)))


def test_the_largest_passes_its_derivative_to_one_entry() -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.float32)  # with many ties
    axes = (0, 1, -1)
    found = jax.jit(
        lambda x: [(largest(x, axis), jax.grad(lambda x, axis=axis: largest(x, axis).sum())(x)) for axis in axes]
    )
    for axis, (values, grads) in zip(axes, found(x), strict=True):
        np.testing.assert_array_equal(values, x.max(axis))
        expected = np.zeros_like(x)
        np.put_along_axis(expected, x.argmax(axis, keepdims=True), 1.0, axis)
        np.testing.assert_array_equal(grads, expected, err_msg=f"axis {axis}")

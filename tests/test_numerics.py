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
        for dtype in DTYPES:
            with np.errstate(over="ignore"):
                x = jnp.asarray(numbers.astype(dtype))
            for f, g in ((root, plain), (lambda x: 1 / (root(x) + 1e-8), lambda x: 1 / (plain(x) + 1e-8))):
                if f is not root and dtype == jnp.float16:
                    continue  # XLA for CPUs keeps what it fuses in float32, and fuses the two differently
                got, expected = jax.jit(lambda x, f=f, g=g: (f(x), g(x)))(x)
                assert got.dtype == expected.dtype
                assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize(("root", "plain"), ROOTS)
def test_it_moves_the_memory_and_has_the_kernels_of_the_plain_root(root: Any, plain: Any) -> None:
    def cost(f: Any) -> Any:
        compiled = jax.jit(lambda x, g: g / (f(x) + 1e-8)).lower(jnp.ones(1000), jnp.ones(1000)).compile()
        found: Any = compiled.cost_analysis()
        return found["bytes accessed"], compiled.as_text().count("fusion(")

    assert cost(root) == cost(plain)


@pytest.mark.parametrize(("root", "plain"), ROOTS)
def test_derivatives_are_the_plain_ones_where_x_is_not_0_and_0_where_it_is(root: Any, plain: Any) -> None:
    with float64(), strict():
        x = jnp.array([0.0, 0.5, 0.0, 4.0])
        nth, expected = root, plain
        for _ in range(4):
            nth, expected = jax.grad(nth), jax.grad(expected)
            want = jnp.where(x == 0, 0, jax.vmap(expected)(jnp.where(x == 0, 1.0, x)))
            np.testing.assert_allclose(jax.jit(jax.vmap(nth))(x), want, rtol=1e-14)


def test_derivatives_pass_through_every_transformation() -> None:
    x = jnp.array([0.0, 4.0])
    want = jnp.array([0.0, 0.25])

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
        np.testing.assert_array_equal(found, jnp.diag(jnp.array([0.0, -1 / 32])))


def test_the_norm_of_a_tree_of_zeros_has_a_derivative() -> None:
    found = jax.grad(tree.norm)({"w": jnp.zeros(2), "b": jnp.zeros(())})
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_largest_passes_its_derivative_to_one_entry(axis: int) -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.float32)  # with many ties
    np.testing.assert_array_equal(largest(jnp.asarray(x), axis), x.max(axis))
    grads = jax.jit(jax.grad(lambda x: largest(x, axis).sum()))(jnp.asarray(x))
    expected = np.zeros_like(x)
    np.put_along_axis(expected, x.argmax(axis, keepdims=True), 1.0, axis)
    np.testing.assert_array_equal(grads, expected)

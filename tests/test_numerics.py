"""Roots that can be differentiated at 0: values, derivatives of every order, and what they cost; exact products."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import tree
from jaxnn.numerics import EXACT, by_pieces, dot_general, largest, multiplied, pieces, safe_cbrt, safe_sqrt
from tests.helpers import float64, random, strict

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


def test_three_pieces_are_the_number_and_two_are_not() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(5000) * 2.0 ** rng.integers(-90, 120, 5000)).astype(np.float32)
    found = [np.asarray(p, np.float64) for p in jax.jit(pieces)(x)]
    assert {p.dtype for p in pieces(x)} == {jnp.dtype(jnp.bfloat16)}
    errors = [np.max(np.abs((sum(found[: k + 1]) - x) / x)) for k in range(3)]
    assert errors[0] > 2.0**-9
    assert 2.0**-18 < errors[1] < 2.0**-16
    assert errors[2] == 0


def test_pieces_of_the_largest_and_of_no_number() -> None:
    x = np.array([np.finfo(np.float32).max, np.inf, -np.inf, np.nan, 0, 1e-44], np.float32)
    first, second, third = (np.asarray(p, np.float64) for p in jax.jit(pieces)(x))
    assert first[0] + second[0] + third[0] == x[0]
    np.testing.assert_array_equal(first[1:5], x[1:5])
    assert np.all(second[1:] == 0)
    assert np.all(third[1:] == 0)


OF_ROWS = functools.partial(lax.dot_general, dimension_numbers=(((0,), (0,)), ((), ())))


def _relative(got: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


def _halves(dtype: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """(a of a half precision, b of float32, a' b in float64), with sums that cancel to a tenth of their terms."""
    a, b = random(0, 400, 24).astype(dtype), random(1, 400, 40).astype(np.float32)
    return a, b, a.astype(np.float64).T @ b.astype(np.float64)


def test_a_product_by_pieces_is_as_good_as_float32() -> None:
    a, b, expected = _halves(jnp.bfloat16)

    def without(count: int) -> Any:
        kept = lambda a, b: sum(multiplied(OF_ROWS, a, p) for p in pieces(b)[:count])  # noqa: E731
        return _relative(jax.jit(kept)(a, b), expected)

    plain = _relative(jax.jit(lambda a, b: OF_ROWS(a.astype(jnp.float32), b))(a, b), expected)
    assert _relative(jax.jit(functools.partial(by_pieces, OF_ROWS))(a, b), expected) < min(2 * plain, 2.0**-21)
    assert without(2) > 2.0**-19
    assert without(1) > 2.0**-11


def test_derivatives_of_a_product_by_pieces() -> None:
    a, b, expected = _halves(jnp.bfloat16)

    def slope(b: Any) -> Any:
        return jax.grad(lambda b: jnp.sum(by_pieces(OF_ROWS, a, b) ** 2) / 2)(b)

    wide = a.astype(np.float64)
    assert _relative(jax.jit(slope)(b), wide @ expected) < 2.0**-20
    again = jax.jit(jax.grad(lambda b: jnp.sum(slope(b) ** 2) / 2))(b)
    assert _relative(again, wide @ (wide.T @ (wide @ expected))) < 2.0**-20


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_products_of_half_precision_are_exact_and_summed_in_float32(dtype: Any) -> None:
    a, b, _ = _halves(dtype)
    b = b.astype(dtype)
    expected = a.astype(np.float64).T @ b.astype(np.float64)
    numbers = (((0,), (0,)), ((), ()))
    found = jax.jit(lambda a, b: dot_general(a, b, numbers))(a, b)
    assert found.dtype == jnp.float32
    assert _relative(found, expected) < 1e-6
    assert _relative(jax.jit(lambda a, b: lax.dot_general(a, b, numbers))(a, b), expected) > 1e-4  # summed in its own


def test_six_products_are_as_good_as_float32_and_three_are_not() -> None:
    a, b = random(0, 128, 512).astype(np.float32), random(1, 512, 128).astype(np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    (a1, a2, a3), (b1, b2, b3) = ([np.asarray(p, np.float32) for p in pieces(x)] for x in (a, b))
    three = (a1 @ b2 + a2 @ b1) + a1 @ b1
    six = (a1 @ b3 + a3 @ b1 + a2 @ b2) + three
    assert _relative(six, expected) < 3e-7
    assert _relative(three, expected) > 2e-6


def _lowered(f: Any, platform: str, *shapes: Any) -> str:
    return str(jax.export.export(jax.jit(f), platforms=[platform])(*shapes).mlir_module())


def test_the_products_of_each_platform() -> None:
    half, wide = (jax.ShapeDtypeStruct((4096, 512), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    numbers = (((0,), (0,)), ((), ()))

    def exact(x: Any, y: Any) -> Any:
        return dot_general(x, y, numbers, EXACT)

    six = "num_primitive_operations = 6"
    text = {p: _lowered(exact, p, wide, wide) for p in ("cpu", "cuda", "tpu")}
    assert [six in text[p] for p in text] == [False, True, False]
    assert ["HIGHEST" in text[p] for p in text] == [True, False, True]
    mixed = {p: _lowered(exact, p, half, wide).count("stablehlo.dot_general") for p in ("cpu", "cuda", "tpu")}
    assert mixed == {"cpu": 1, "cuda": 3, "tpu": 3}
    assert mixed["cuda"] == _lowered(lambda x, y: exact(y, x), "cuda", half, wide).count("stablehlo.dot_general")
    # Without EXACT the ambient precision holds, for float32.
    assert "HIGHEST" not in _lowered(lambda x, y: dot_general(x, y, numbers), "cpu", wide, wide)
    small = jax.ShapeDtypeStruct((128, 512), jnp.float32)
    assert six not in _lowered(exact, "cuda", small, small)

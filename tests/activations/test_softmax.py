"""Softmax and log-softmax and the products of their Jacobians."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.activations import log_softmax, log_softmax_jvp, log_softmax_vjp, softmax, softmax_jvp, softmax_vjp
from tests.helpers import assert_close, float64, random, slow, strict

FORMS = {softmax: scipy.special.softmax, log_softmax: scipy.special.log_softmax}
JVP = {softmax: softmax_jvp, log_softmax: log_softmax_jvp}
VJP = {softmax: softmax_vjp, log_softmax: log_softmax_vjp}
INF = float("inf")


def jacobian(f, z: np.ndarray) -> np.ndarray:
    """The full Jacobian of one vector, from its equation."""
    p = scipy.special.softmax(z)
    return np.diag(p) - np.outer(p, p) if f is softmax else np.eye(len(z)) - np.outer(np.ones(len(z)), p)


Z, V = random(0, 5), random(1, 5)


def of_z_and_v(products: list[Any]) -> list[np.ndarray]:
    """Products of Jacobians, at Z and V in float64, by one program."""
    with float64():
        return jax.tree.map(np.asarray, jax.jit(lambda z, v: [f(z, v) for f in products])(Z, V))


def check_jvp(f, jvp: np.ndarray) -> None:
    np.testing.assert_allclose(jvp, jacobian(f, Z) @ V, rtol=1e-12, atol=1e-14)


def check_vjp(f, vjp: np.ndarray) -> None:
    np.testing.assert_allclose(vjp, V @ jacobian(f, Z), rtol=1e-12, atol=1e-14)


@partial(jax.jit, static_argnames="axis")
def values(z: Any, axis: int = -1) -> tuple[Any, Any]:
    return softmax(z, axis=axis), log_softmax(z, axis=axis)


@given(
    seed=st.integers(0, 1000),
    shape_axis=st.sampled_from([((5,), -1), ((3, 4), 0), ((2, 3, 4), 1), ((2, 1), -1)]),
    spread=st.sampled_from([1.0, 1e2, 1e4]),
)
def test_value_equals_scipy(seed: int, shape_axis, spread: float) -> None:
    shape, axis = shape_axis
    z = spread * random(seed, *shape)
    with float64(), strict():
        found = values(z, axis)
    for f, got in zip(FORMS, found, strict=True):
        np.testing.assert_allclose(got, FORMS[f](z, axis=axis), rtol=1e-12, atol=1e-15, err_msg=f.__name__)


@pytest.mark.slow
def test_value_and_gradient_equal_jax_and_torch() -> None:
    torch = pytest.importorskip("torch")
    z, v = 3 * random(0, 4, 6), random(1, 4, 6)
    for ours, theirs, peer in (
        (softmax, jax.nn.softmax, torch.softmax),
        (log_softmax, jax.nn.log_softmax, torch.log_softmax),
    ):
        x = torch.tensor(z, requires_grad=True)
        y = peer(x, dim=-1)
        (slope,) = torch.autograd.grad(y, x, torch.tensor(v))
        with float64():
            value, pull = jax.vjp(ours, z)
            assert_close(value, theirs(z), rtol=1e-12)
            np.testing.assert_allclose(value, y.detach().numpy(), rtol=1e-12)
            for got in (pull(jnp.asarray(v))[0], VJP[ours](z, v)):
                np.testing.assert_allclose(got, slope.numpy(), rtol=1e-11, atol=1e-14)


def test_products_equal_autodiff() -> None:
    cases = {(f, axis): random(0, *shape) for f in FORMS for shape, axis in [((5,), -1), ((3, 4), 0), ((2, 3, 4), 1)]}
    along = [random(1, *z.shape) for z in cases.values()]

    @jax.jit
    def ours_and_theirs(zs: Any, vs: Any) -> Any:
        found = []
        for (f, axis), z, v in zip(cases, zs, vs, strict=True):
            g = partial(f, axis=axis)
            ours = JVP[f](z, v, axis=axis), VJP[f](z, v, axis=axis)
            found.append((ours, (jax.jvp(g, (z,), (v,))[1], jax.vjp(g, z)[1](v)[0])))
        return found

    with float64(), strict():
        for ours, theirs in ours_and_theirs(list(cases.values()), along):
            assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_products_equal_the_jacobian() -> None:
    products = of_z_and_v([JVP[softmax], JVP[log_softmax], VJP[softmax], VJP[log_softmax]])
    for f, check, product in zip([*FORMS, *FORMS], [check_jvp] * 2 + [check_vjp] * 2, products, strict=True):
        check(f, product)


@jax.jit
def value_and_products(z: Any, v: Any) -> dict[str, Any]:
    return {f.__name__: (f(z), JVP[f](z, v), VJP[f](z, v), jax.vjp(f, z)[1](v)[0]) for f in FORMS}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", *slow("float64", "float16")])
def test_stable_and_masked(dtype) -> None:
    z = np.array([[1e4, 1e4, -1e4], [1e4, -1e4, -INF], [-1e4, -1e4, -INF], [-INF, 3.0, -INF]], dtype)
    v = np.array([[1.0, -2.0, 3.0]] * 4, dtype)
    eps = float(jnp.finfo(dtype).eps)
    with float64(), strict():
        found = jax.tree.map(np.asarray, value_and_products(z, v))
    p = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])
    np.testing.assert_array_equal(found["softmax"][0].astype(np.float64), p)
    half, drop = -np.log(2), -2e4
    # -2e4 - log 2 in the first row, rounded to each dtype
    low = float(np.array(drop + half, dtype))
    expected = [[half, half, low], [0, drop, -INF], [half, half, -INF], [-INF, 0, -INF]]
    expected = np.array(expected, dtype).astype(np.float64)
    np.testing.assert_allclose(found["log_softmax"][0].astype(np.float64), expected, rtol=eps)
    for name, (value, *products) in found.items():
        for result in (value, *products):
            assert result.dtype == dtype, name
        for product in products:
            assert np.isfinite(product.astype(np.float64)).all(), name
        assert_close(products[1], products[2], rtol=8 * eps, atol=8 * eps)


def test_a_vector_without_any_score_is_nan() -> None:
    assert np.isnan(values(np.full(3, -INF, np.float32))).all()


@given(seed=st.integers(0, 1000), shift=st.floats(-1e6, 1e6))
def test_shift_invariant(seed: int, shift: float) -> None:
    z = np.round(random(seed, 5) * 1024) / 1024
    shift = round(shift)  # so that z + shift is exact in float64 and equality can be demanded
    with float64():
        np.testing.assert_array_equal(values(z + shift), values(z))


def test_probabilities_sum_to_one_and_logarithms_agree() -> None:
    with float64():
        p, log_p = map(np.asarray, values(4 * random(0, 7, 9)))
    np.testing.assert_allclose(np.sum(p, axis=-1), np.ones(7), rtol=1e-14)
    assert_close(np.exp(log_p), p, rtol=1e-13)


def test_one_softmax_product_serves_both_sides() -> None:
    assert softmax_vjp is softmax_jvp


def test_half_precision_sums_in_float32() -> None:
    # A bfloat16 sum of ones stops at 256.
    for got, expected in zip(values(np.zeros(4096, jnp.bfloat16)), (1 / 4096, -np.log(4096)), strict=True):
        np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=2**-8)


def test_mixed_dtypes_return_that_of_z() -> None:
    z, v = jax.ShapeDtypeStruct((3,), jnp.bfloat16), jax.ShapeDtypeStruct((3,), jnp.float64)
    with float64(), strict():
        for product in (*JVP.values(), *VJP.values()):
            assert jax.eval_shape(product, z, v).dtype == jnp.bfloat16


def test_vmap() -> None:
    z = random(0, 3, 4, dtype=np.float32)
    assert_close(jax.jit(jax.vmap(values))(z), values(z), rtol=1e-6)


INTEGERS = np.arange(3, dtype=np.int32)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(INTEGERS), TypeError, "softmax: z must have a floating dtype, got int32"),
        (lambda: log_softmax(INTEGERS), TypeError, "log_softmax: z must have a floating dtype, got int32"),
        (lambda: softmax_jvp(ones(3), INTEGERS), TypeError, "softmax_jvp: v must have a floating dtype"),
        (lambda: softmax(ones()), ValueError, r"softmax: z has no axis -1, got shape \(\)"),
        (lambda: log_softmax(ones(2, 3), axis=2), ValueError, r"log_softmax: z has no axis 2, got .* \(2, 3\)"),
        (lambda: softmax(ones(2, 0)), ValueError, "softmax: needs at least one score on axis -1"),
        (
            lambda: log_softmax_vjp(ones(4, 1), ones(4)),
            ValueError,
            r"log_softmax_vjp: z and v must have the same shape, got z \(4, 1\), v \(4,\)",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def p_of(z):
    return jax.nn.softmax(z)


MUTANTS = [
    (check_jvp, softmax, lambda z, v: p_of(z) * v),
    (check_jvp, softmax, lambda z, v: p_of(z) * (v - jnp.sum(v))),
    (check_jvp, softmax, lambda z, v: v - p_of(z) * jnp.sum(v)),
    (check_jvp, log_softmax, log_softmax_vjp),
    (check_vjp, log_softmax, log_softmax_jvp),
    (check_vjp, log_softmax, lambda z, v: v - p_of(z)),
]


@cache
def of_mutants() -> list[np.ndarray]:
    return of_z_and_v([mutant for *_, mutant in MUTANTS])


@pytest.mark.parametrize("mutant", range(len(MUTANTS)))
def test_a_wrong_product_is_found(mutant) -> None:
    check, f, _ = MUTANTS[mutant]
    with pytest.raises(AssertionError):
        check(f, of_mutants()[mutant])


def test_the_naive_form_fails_where_ours_is_stable() -> None:
    z = np.array([1e4, 0.0], np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        assert np.isnan(np.exp(z) / np.sum(np.exp(z))).any()
        assert np.isinf(np.log(values(z)[0])).any()  # the logarithm of a softmax: -inf where log_softmax says -10000

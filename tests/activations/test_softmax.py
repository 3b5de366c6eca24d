"""Softmax and log-softmax and the products of their Jacobians."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.activations import log_softmax, log_softmax_jvp, log_softmax_vjp, softmax, softmax_jvp, softmax_vjp
from tests.helpers import assert_close, float64, random, strict

FORMS = {softmax: scipy.special.softmax, log_softmax: scipy.special.log_softmax}
JVP = {softmax: softmax_jvp, log_softmax: log_softmax_jvp}
VJP = {softmax: softmax_vjp, log_softmax: log_softmax_vjp}
both = pytest.mark.parametrize("f", [softmax, log_softmax], ids=lambda f: f.__name__)
INF = float("inf")


def jacobian(f, z: np.ndarray) -> np.ndarray:
    """The full Jacobian of one vector, from its equation."""
    p = scipy.special.softmax(z)
    return np.diag(p) - np.outer(p, p) if f is softmax else np.eye(len(z)) - np.outer(np.ones(len(z)), p)


def check_jvp(f, jvp) -> None:
    z, v = random(0, 5), random(1, 5)
    with float64():
        np.testing.assert_allclose(jvp(jnp.asarray(z), jnp.asarray(v)), jacobian(f, z) @ v, rtol=1e-12, atol=1e-14)


def check_vjp(f, vjp) -> None:
    z, v = random(0, 5), random(1, 5)
    with float64():
        np.testing.assert_allclose(vjp(jnp.asarray(z), jnp.asarray(v)), v @ jacobian(f, z), rtol=1e-12, atol=1e-14)


@both
@given(
    seed=st.integers(0, 1000),
    shape_axis=st.sampled_from([((5,), -1), ((3, 4), 0), ((2, 3, 4), 1), ((2, 1), -1)]),
    spread=st.sampled_from([1.0, 1e2, 1e4]),
)
def test_value_equals_scipy(f, seed: int, shape_axis, spread: float) -> None:
    shape, axis = shape_axis
    z = spread * random(seed, *shape)
    with float64(), strict():
        got = f(jnp.asarray(z), axis=axis)
    np.testing.assert_allclose(got, FORMS[f](z, axis=axis), rtol=1e-12, atol=1e-15)


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
            value, pull = jax.vjp(ours, jnp.asarray(z))
            assert_close(value, theirs(jnp.asarray(z)), rtol=1e-12)
            np.testing.assert_allclose(value, y.detach().numpy(), rtol=1e-12)
            for got in (pull(jnp.asarray(v))[0], VJP[ours](jnp.asarray(z), jnp.asarray(v))):
                np.testing.assert_allclose(got, slope.numpy(), rtol=1e-11, atol=1e-14)


@both
@pytest.mark.parametrize(("shape", "axis"), [((5,), -1), ((3, 4), 0), ((2, 3, 4), 1)])
def test_products_equal_autodiff(f, shape, axis) -> None:
    with float64(), strict():
        z, v = jnp.asarray(random(0, *shape)), jnp.asarray(random(1, *shape))
        g = partial(f, axis=axis)
        ours = jax.jit(lambda z, v: (JVP[f](z, v, axis=axis), VJP[f](z, v, axis=axis)))(z, v)
        theirs = jax.jit(lambda z, v: (jax.jvp(g, (z,), (v,))[1], jax.vjp(g, z)[1](v)[0]))(z, v)
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@both
def test_products_equal_the_jacobian(f) -> None:
    check_jvp(f, JVP[f])
    check_vjp(f, VJP[f])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16])
@both
def test_stable_and_masked(f, dtype) -> None:
    with float64(), strict():
        z = jnp.array([[1e4, 1e4, -1e4], [1e4, -1e4, -INF], [-1e4, -1e4, -INF], [-INF, 3.0, -INF]], dtype)
        v = jnp.array([[1.0, -2.0, 3.0]] * 4, dtype)
        p = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])
        value = f(z)
        assert value.dtype == dtype
        if f is softmax:
            np.testing.assert_array_equal(np.asarray(value, np.float64), p)
        else:
            half = -float(jnp.asarray(np.log(2), dtype))
            drop = -float(jnp.asarray(2e4, dtype))
            # -2e4 - log 2 in the first row, rounded to each dtype
            low = float(jnp.asarray(-2e4 - np.log(2), dtype))
            expected = [[half, half, low], [0, drop, -INF], [half, half, -INF], [-INF, 0, -INF]]
            np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=float(jnp.finfo(dtype).eps))
        products = jax.jit(lambda z, v: (JVP[f](z, v), VJP[f](z, v), jax.vjp(f, z)[1](v)[0]))(z, v)
        for product in products:
            assert product.dtype == dtype
            assert np.isfinite(np.asarray(product, np.float64)).all()
        eps = float(jnp.finfo(dtype).eps)
        assert_close(products[1], products[2], rtol=8 * eps, atol=8 * eps)


@both
def test_a_vector_without_any_score_is_nan(f) -> None:
    assert np.isnan(f(jnp.full(3, -INF))).all()


@both
@given(seed=st.integers(0, 1000), shift=st.floats(-1e6, 1e6))
def test_shift_invariant(f, seed: int, shift: float) -> None:
    z = np.round(random(seed, 5) * 1024) / 1024
    shift = round(shift)  # so that z + shift is exact in float64 and equality can be demanded
    with float64():
        np.testing.assert_array_equal(f(jnp.asarray(z + shift)), f(jnp.asarray(z)))


def test_probabilities_sum_to_one_and_logarithms_agree() -> None:
    with float64():
        z = jnp.asarray(4 * random(0, 7, 9))
        np.testing.assert_allclose(jnp.sum(softmax(z), axis=-1), np.ones(7), rtol=1e-14)
        assert_close(jnp.exp(log_softmax(z)), softmax(z), rtol=1e-13)


def test_one_softmax_product_serves_both_sides() -> None:
    assert softmax_vjp is softmax_jvp


@both
def test_half_precision_sums_in_float32(f) -> None:
    z = jnp.zeros(4096, jnp.bfloat16)  # a bfloat16 sum of ones stops at 256
    expected = 1 / 4096 if f is softmax else -np.log(4096)
    np.testing.assert_allclose(np.asarray(f(z), np.float64), expected, rtol=2**-8)


@both
def test_mixed_dtypes_return_that_of_z(f) -> None:
    with float64(), strict():
        for product in (JVP[f], VJP[f]):
            assert product(jnp.ones(3, jnp.bfloat16), jnp.ones(3)).dtype == jnp.bfloat16


@both
def test_jit_and_vmap(f) -> None:
    z = jnp.asarray(random(0, 3, 4), jnp.float32)
    assert_close(jax.jit(jax.vmap(f))(z), f(z), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(jnp.arange(3)), TypeError, "softmax: z must have a floating dtype, got int32"),
        (lambda: log_softmax(jnp.arange(3)), TypeError, "log_softmax: z must have a floating dtype, got int32"),
        (lambda: softmax_jvp(jnp.ones(3), jnp.arange(3)), TypeError, "softmax_jvp: v must have a floating dtype"),
        (lambda: softmax(jnp.ones(())), ValueError, r"softmax: z has no axis -1, got shape \(\)"),
        (lambda: log_softmax(jnp.ones((2, 3)), axis=2), ValueError, r"log_softmax: z has no axis 2, got .* \(2, 3\)"),
        (lambda: softmax(jnp.ones((2, 0))), ValueError, "softmax: needs at least one score on axis -1"),
        (
            lambda: log_softmax_vjp(jnp.ones((4, 1)), jnp.ones(4)),
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


@pytest.mark.parametrize(
    ("check", "f", "mutant"),
    [
        (check_jvp, softmax, lambda z, v: p_of(z) * v),
        (check_jvp, softmax, lambda z, v: p_of(z) * (v - jnp.sum(v))),
        (check_jvp, softmax, lambda z, v: v - p_of(z) * jnp.sum(v)),
        (check_jvp, log_softmax, log_softmax_vjp),
        (check_vjp, log_softmax, log_softmax_jvp),
        (check_vjp, log_softmax, lambda z, v: v - p_of(z)),
    ],
)
def test_a_wrong_product_is_found(check, f, mutant) -> None:
    with pytest.raises(AssertionError):
        check(f, mutant)


def test_the_naive_form_fails_where_ours_is_stable() -> None:
    z = jnp.array([1e4, 0.0])
    assert np.isnan(jnp.exp(z) / jnp.sum(jnp.exp(z))).any()
    assert np.isinf(jnp.log(softmax(z))).any()  # the logarithm of a softmax: -inf where log_softmax says -10000

"""The matrix product: values, adjoints, sums in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import matmul
from tests.helpers import assert_close, float64, random, strict

LEADING = [(), (5,), (2, 3)]


def test_linear_is_a_matrix_product_with_its_adjoints():
    cases = [(random(0, *n, 4), random(1, 4, 3), random(2, 3), random(3, *n, 3)) for n in LEADING]

    @jax.jit
    def every(cases):
        found = []
        for x, w, b, dy in cases:
            y, vjp = jax.vjp(matmul.linear, x, w, b)
            ours = matmul.linear_input_grad(w, dy), matmul.linear_weight_grad(x, dy), matmul.bias_grad(dy)
            found.append((y, ours, vjp(dy)))
        return found

    with float64(), strict():
        found = every(cases)
    for (x, w, b, _), (y, ours, automatic) in zip(cases, found, strict=True):
        assert_close(y, x @ w + b, rtol=1e-13)
        assert_close(ours, automatic, rtol=1e-12, atol=1e-15)


def check_input_adjoint(input_grad) -> None:
    """<x w, dy> = <x, A' dy>, the weight square so that a transposed one fits too."""
    x, w, dy = random(0, 5, 4), random(1, 4, 4), random(2, 5, 4)
    with float64():
        np.testing.assert_allclose(np.vdot(x @ w, dy), np.vdot(x, jax.jit(input_grad)(w, dy)), 1e-12)


def test_inner_product_identity_and_a_transposed_weight_breaks_it():
    check_input_adjoint(matmul.linear_input_grad)
    with pytest.raises(AssertionError):
        check_input_adjoint(lambda w, dy: matmul.linear_input_grad(w.T, dy))


def check_accumulates(product) -> None:
    """1 + 4095 times 0.001 in bfloat16 storage: float32 sums say 5.09, bfloat16 sums stop at 1."""
    x = np.full((1, 4096), 0.001)
    x[0, 0] = 1.0
    x = jnp.asarray(x, jnp.bfloat16)
    got = product(x, jnp.ones((4096, 1), jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    assert_close(got, np.asarray(x, np.float64).sum(keepdims=True), rtol=2**-8)


@pytest.mark.slow
def test_half_precision_is_summed_in_float32():
    check_accumulates(matmul.linear)
    check_accumulates(lambda x, w: matmul.linear_input_grad(w.reshape(1, -1), x))
    with pytest.raises(AssertionError):
        check_accumulates(lambda x, w: jax.lax.scan(lambda s, a: (s + a, None), x[0, 0], x[0, 1:])[0][None, None])
    grads = matmul.linear_weight_grad(jnp.ones((4096, 1), jnp.bfloat16), jnp.full((4096, 1), 1.0, jnp.bfloat16))
    assert grads.dtype == jnp.float32
    assert float(grads[0, 0]) == 4096.0
    assert float(matmul.bias_grad(jnp.ones((4096, 1), jnp.bfloat16))[0]) == 4096.0


@pytest.mark.parametrize(("x", "w"), [(jnp.float32, jnp.bfloat16), (jnp.float16, jnp.float16)])
def test_result_has_the_promoted_dtype(x, w):
    y = jax.eval_shape(matmul.linear, jax.ShapeDtypeStruct((2, 3), x), jax.ShapeDtypeStruct((3, 4), w))
    assert y.dtype == jnp.promote_types(x, w)

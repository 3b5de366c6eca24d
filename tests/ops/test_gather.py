"""Rows by index, their gradient, and indices out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import gather
from tests.helpers import assert_close, float64, random, strict

INDICES = np.array([[0, 3, 3], [1, 0, 3]])


def check_adjoint(weight_grad) -> None:
    w, dy = random(0, 5, 4), random(1, 2, 3, 4)
    onehot = np.eye(5)[INDICES]
    with float64(), strict():
        y, vjp = jax.vjp(lambda w: gather.take_rows(w, jnp.asarray(INDICES)), jnp.asarray(w))
        assert_close(y, onehot @ w, rtol=1e-12)
        got = weight_grad(jnp.asarray(INDICES), jnp.asarray(dy), 5)
        assert_close(got, np.einsum("nmv,nmd->vd", onehot, dy), rtol=1e-12, atol=1e-15)
        assert_close(got, vjp(jnp.asarray(dy))[0], rtol=1e-12, atol=1e-15)


def test_it_is_a_product_with_one_hot_rows():
    check_adjoint(gather.take_rows_weight_grad)
    with pytest.raises(AssertionError):  # a repeated index overwrites
        check_adjoint(lambda i, dy, rows: jnp.zeros((rows, 4), dy.dtype).at[i].set(dy))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8])
def test_traced_indices_out_of_range_give_nan_and_no_gradient(dtype):
    w = jnp.arange(6.0).reshape(3, 2)
    indices = jnp.array([0, 3, 100, 255 if dtype == jnp.uint8 else -1]).astype(dtype)
    y, dw = jax.jit(lambda w, i: (gather.take_rows(w, i), jax.grad(lambda w: gather.take_rows(w, i).sum())(w)))(
        w, indices
    )
    np.testing.assert_array_equal(y, [[0, 1], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_array_equal(dw, [[1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(gather.take_rows_weight_grad(indices, jnp.ones((4, 2)), 3), dw)


def test_half_precision_gradients_are_summed_in_float32():
    dw = gather.take_rows_weight_grad(jnp.zeros(1000, jnp.int32), jnp.ones((1000, 1), jnp.bfloat16), 2)
    assert dw.dtype == jnp.float32
    np.testing.assert_array_equal(dw, [[1000], [0]])


@pytest.mark.parametrize("bad", [-1, 3])
def test_known_indices_out_of_range_raise(bad):
    with pytest.raises(ValueError, match=rf"must lie in \[0, 3\), got {bad} \(1 outside\)"):
        gather.take_rows(jnp.zeros((3, 2)), jnp.array([0, bad]))


def test_messages():
    with pytest.raises(TypeError, match=r"indices must have an integer dtype, got float32\. Convert them"):
        gather.take_rows(jnp.zeros((3, 2)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"got \(3, 2\) for indices \(2,\)"):
        gather.take_rows_weight_grad(jnp.array([0, 1]), jnp.zeros((3, 2)), 3)

"""Rows by index, their gradient, and indices out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import gather
from tests.helpers import assert_close, float64, random, slow, strict

INDICES = np.array([[0, 3, 3], [1, 0, 3]])


def check_adjoint(weight_grad) -> None:
    w, dy = random(0, 5, 4), random(1, 2, 3, 4)
    onehot = np.eye(5)[INDICES]

    @jax.jit
    def both(w, indices, dy):
        y, vjp = jax.vjp(lambda w: gather.take_rows(w, indices), w)
        return y, vjp(dy)[0], weight_grad(indices, dy, 5)

    with float64(), strict():
        y, automatic, got = both(w, INDICES, dy)
    assert_close(y, onehot @ w, rtol=1e-12)
    assert_close(got, np.einsum("nmv,nmd->vd", onehot, dy), rtol=1e-12, atol=1e-15)
    assert_close(got, automatic, rtol=1e-12, atol=1e-15)


def test_it_is_a_product_with_one_hot_rows():
    check_adjoint(gather.take_rows_weight_grad)
    with pytest.raises(AssertionError):  # a repeated index overwrites
        check_adjoint(lambda i, dy, rows: jnp.zeros((rows, 4), dy.dtype).at[i].set(dy))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, *slow(np.int8)])
def test_traced_indices_out_of_range_give_nan_and_no_gradient(dtype):
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    indices = np.array([0, 3, 100, 255 if dtype == np.uint8 else -1]).astype(dtype)

    @jax.jit
    def both(w, i):
        automatic = jax.grad(lambda w: gather.take_rows(w, i).sum())(w)
        return gather.take_rows(w, i), automatic, gather.take_rows_weight_grad(i, np.ones((4, 2), np.float32), 3)

    y, *grads = both(w, indices)
    np.testing.assert_array_equal(y, [[0, 1], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2])
    for dw in grads:
        np.testing.assert_array_equal(dw, [[1, 1], [0, 0], [0, 0]])


def test_half_precision_gradients_are_summed_in_float32():
    dw = jax.jit(gather.take_rows_weight_grad, static_argnums=2)(
        np.zeros(1000, np.int32), np.ones((1000, 1), jnp.bfloat16), 2
    )
    assert dw.dtype == jnp.float32
    np.testing.assert_array_equal(dw, [[1000], [0]])


@pytest.mark.parametrize("bad", [-1, 3])
def test_known_indices_out_of_range_raise(bad):
    with pytest.raises(ValueError, match=rf"must lie in \[0, 3\), got {bad} \(1 outside\)"):
        gather.take_rows(np.zeros((3, 2)), np.array([0, bad]))


def test_messages():
    with pytest.raises(TypeError, match=r"indices must have an integer dtype, got float32\. Convert them"):
        gather.take_rows(np.zeros((3, 2)), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"got \(3, 2\) for indices \(2,\)"):
        gather.take_rows_weight_grad(np.array([0, 1]), np.zeros((3, 2)), 3)

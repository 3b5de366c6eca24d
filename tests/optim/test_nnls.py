"""Non-negative least squares: scipy's active set, optax's numbers, the conditions of optimality."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import scipy.optimize

from jaxnn import optim
from tests.helpers import assert_close, float64


def test_against_scipy_and_optax() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 5)), rng.standard_normal((9, 3))
    with float64():
        got = jax.jit(lambda a, b: optim.nnls(a, b, 2000))(a, b)
        expected = np.stack([scipy.optimize.nnls(a, column)[0] for column in b.T], axis=1)
        assert_close(got, expected, rtol=1e-8, atol=1e-9)
        assert (np.asarray(got) == 0).any()
        # optax's first step has c = 0 and is taken back: it is one behind.
        both = jax.jit(lambda a, b: (optim.nnls(a, b, 20), optax.nnls(a, b, 21)))
        ours, theirs = both(a, b[:, 0])
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_bound_zero_matrix_and_errors() -> None:
    a, b, zeros = np.float32([[1, 0], [0, 2]]), np.float32([3, -1]), np.zeros((2, 3), np.float32)
    found, zero = jax.jit(lambda: (optim.nnls(a, b, 200, unroll=2, L=4.0), optim.nnls(zeros, b, 2)))()
    assert_close(found, np.array([3.0, 0.0]), rtol=1e-4)
    assert not zero.any()
    with pytest.raises(ValueError, match=r"A must be \(M, N\) and b \(M,\) or \(M, K\), got \(2, 2\) and \(3,\)"):
        optim.nnls(a, np.ones(3, np.float32), 1)
    with pytest.raises(TypeError, match=r"nnls: b must .*floating"):
        optim.nnls(a, np.array([1, 2], np.int32), 1)

"""Power iteration and inverse roots against NumPy's eigenvalues and optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.running import traced


def symmetric(*eigenvalues: float) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix of these eigenvalues, and its eigenvectors."""
    q = np.linalg.qr(random(0, len(eigenvalues), len(eigenvalues)))[0]
    return (q * np.array(eigenvalues)) @ q.T, q


@pytest.mark.parametrize("eigenvalues", [(1.0, -4.0, 2.0), *slow(((3.0, 1.0, 0.5),), ((1.0, 1e-9),))])
def test_power_iteration_finds_the_largest_eigenvalue_with_its_sign(eigenvalues: tuple[float, ...]) -> None:
    a, q = symmetric(*eigenvalues)
    with float64(), strict():
        value, vector = jax.jit(lambda a: optim.power_iteration(a, num_iters=1000, error_tolerance=1e-12))(a)
        value, vector = np.asarray(value), np.asarray(vector)
    i = int(np.argmax(np.abs(eigenvalues)))
    assert_close(value, eigenvalues[i], rtol=1e-12)
    assert_close(abs(vector @ q[:, i]), 1.0, rtol=1e-12)


@pytest.mark.slow
def test_power_iteration_is_optaxs() -> None:
    a, _ = symmetric(3.0, 2.0, 1.0)
    tree = {"x": jnp.ones(2), "y": jnp.full(1, 0.5)}

    def multiply(v: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"x": 2 * v["x"], "y": -v["y"]}

    with float64():
        for key in (None, jax.random.key(3)):
            assert_close(
                optim.power_iteration(jnp.asarray(a), key=key),
                optax.power_iteration(jnp.asarray(a), key=key),
                rtol=1e-12,
            )
        tree = jax.tree.map(lambda x: x.astype(float), tree)
        assert_close(
            optim.power_iteration(multiply, v0=tree), optax.power_iteration(multiply, v0=tree), rtol=1e-12, atol=1e-15
        )


def test_power_iteration_stops_after_num_iters() -> None:
    """One iteration from v0 = (1, 1): v = A v0 / |A v0| = (2, 1) / sqrt(5), value = 9 / 5, then (4, 1) / sqrt(17)."""
    a = np.diag(np.float32([2, 1]))
    value, vector = jax.jit(lambda a: optim.power_iteration(a, v0=jnp.ones(2), num_iters=1))(a)
    assert_close(value, 9 / 5, rtol=1e-6)
    assert_close(vector, np.array([4, 1]) / np.sqrt(17), rtol=1e-6)


@pytest.mark.slow
def test_zero_large_half_and_complex_matrices() -> None:
    value, vector = optim.power_iteration(jnp.zeros((3, 3)))
    assert value == 0
    assert_close(jnp.linalg.norm(vector), 1.0, rtol=1e-6)
    assert_close(optim.power_iteration(jnp.diag(jnp.array([1e30, 1e25])))[0], 1e30, rtol=1e-6)
    value, vector = optim.power_iteration(jnp.diag(jnp.array([4.0, 1.0], jnp.bfloat16)))
    assert vector.dtype == jnp.bfloat16
    assert_close(value, 4.0, rtol=1e-2)
    hermitian = jnp.array([[2.0, 1j], [-1j, 2.0]])
    assert_close(optim.power_iteration(hermitian)[0].real, 3.0, rtol=1e-5)
    root, error = optim.matrix_inverse_pth_root(jnp.zeros((3, 3)), 2)
    assert_close(root, 1e11 * np.eye(3), rtol=1e-5)
    assert error <= 1e-6


def test_integer_matrices() -> None:
    a = np.array([[2, 1], [1, 2]])
    assert_close(optim.power_iteration(a)[0], 3.0, rtol=1e-5)
    root = optim.matrix_inverse_pth_root(jnp.asarray(a), 2)[0]
    assert_close(root @ root @ a, np.eye(2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("p", [3, *slow(1, 2, 4, 5, 6, 8)])
def test_inverse_roots_of_any_order(p: int) -> None:
    """optax's power of a matrix knows 1, 2, 4 and 8 only, and takes the nearest of them for others."""
    eigenvalues = np.logspace(1, -2, 6)
    a, q = symmetric(*eigenvalues)
    with float64(), strict():
        root, error = jax.jit(lambda a: optim.matrix_inverse_pth_root(a, p, 100, 0.0, 1e-12))(a)
        assert_close(root, (q * eigenvalues ** (-1 / p)) @ q.T, rtol=1e-9, atol=1e-9)
        assert error <= 1e-12
    with float64():
        roots = jax.jit(lambda a: [library.matrix_inverse_pth_root(a, p)[0] for library in (optim, optax)])
        mine, theirs = map(np.asarray, roots(a))
    if p in (1, 2, 4, 8):
        assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    else:
        assert np.max(np.abs(mine - theirs)) > 0.1


@pytest.mark.slow
def test_the_ridge_is_relative_to_the_largest_eigenvalue() -> None:
    a = np.diag([4.0, 1.0, 0.0])
    roots = jax.jit(lambda a: optim.matrix_inverse_pth_root(a, 2, ridge_epsilon=0.01))
    root, error = jax.device_get(roots(a.astype(np.float32)))
    assert_close(np.diag(root), 1 / np.sqrt([4.04, 1.04, 0.04]), rtol=1e-4)
    assert error <= 1e-6
    one, error = jax.jit(lambda a: optim.matrix_inverse_pth_root(a, 4))(np.full((1, 1), 16.0, jnp.bfloat16))
    assert (one.dtype, float(one[0, 0]), float(error)) == (jnp.bfloat16, 0.5, 0.0)


def test_an_indefinite_matrix_reports_its_error() -> None:
    _, error = jax.jit(lambda a: optim.matrix_inverse_pth_root(a, 2))(np.diag(np.float32([1, -1])))
    assert not error < 0.1


@traced
def test_complaints() -> None:
    with pytest.raises(ValueError, match=r"must be square, got shape \(2, 3\)"):
        optim.power_iteration(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"must be square, got shape \(3,\)"):
        optim.matrix_inverse_pth_root(np.ones(3, np.float32), 2)
    with pytest.raises(ValueError, match="a function needs v0"):
        optim.power_iteration(lambda v: v)
    with pytest.raises(ValueError, match="p must be at least 1, got 0"):
        optim.matrix_inverse_pth_root(np.eye(2, dtype=np.float32), 0)
    with pytest.raises(ValueError, match=r"ridge_epsilon must lie in \[0, inf\)"):
        optim.matrix_inverse_pth_root(np.eye(2, dtype=np.float32), 2, ridge_epsilon=-1.0)

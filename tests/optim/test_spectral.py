"""Derivatives of decompositions where eigenvalues or singular values meet, or are 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.optim.matrix.spectral import eigh, orthonormal, power, svd
from tests.helpers import float64, random, slow

SPECTRA = {"apart": [0.5, 1, 2, 3], "meet": [1, 1, 2, 2], "all": [2, 2, 2, 2], "near": [1, 1 + 1e-9, 1 + 1e-5, 2]}
STEP = 1e-4


def symmetric(spectrum: Any) -> np.ndarray:
    q = np.linalg.qr(random(0, 4, 4))[0]
    return q @ np.diag(spectrum) @ q.T


def difference(f: Any, x: Any, direction: Any) -> np.ndarray:
    """The central difference of fourth order along a direction."""
    points = [np.asarray(f(x + shift * STEP * direction)) for shift in (2, 1, -1, -2)]
    return (-points[0] + 8 * points[1] - 8 * points[2] + points[3]) / (12 * STEP)


@pytest.mark.parametrize("name", ["meet", *slow(*(name for name in SPECTRA if name != "meet"))])
def test_a_power_has_its_true_derivative_where_eigenvalues_meet(name: str) -> None:
    with float64():
        h, e = jnp.asarray(symmetric(SPECTRA[name])), random(1, 4, 4)
        direction = jnp.asarray(e + e.T)
        f = jax.jit(lambda h: power(h, -0.25, 1e-3, 1e-3))
        # The largest eigenvalue alone moves the floor; where it is double it has a kink, so there it is left out.
        if SPECTRA[name][-1] == SPECTRA[name][-2]:
            f = jax.jit(lambda h: power(h, -0.25, 1e-3, 0.0))
        found = jax.jit(lambda h: jax.jvp(f, (h,), (direction,))[1])(h)
        np.testing.assert_allclose(found, difference(f, h, direction), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_power_of_a_matrix_of_low_rank_is_differentiated_along_its_range() -> None:
    with float64():
        g, direction = jnp.asarray(random(2, 4, 2)), jnp.asarray(random(3, 4, 2))
        f = jax.jit(lambda g: power(g @ g.T, -0.25, 1e-6, 1e-6) @ g)
        found = jax.jit(lambda g: jax.jvp(f, (g,), (direction,))[1])(g)
        np.testing.assert_allclose(found, difference(f, g, direction), rtol=1e-6, atol=1e-8)
        for eps in (jnp.zeros(()), jnp.full((), 1e-6)):
            grads = jax.jit(jax.grad(lambda g, *eps: jnp.sum(power(g @ g.T, -0.25, *eps)), (0, 1, 2)))
            assert all(np.isfinite(leaf).all() for leaf in grads(0 * g, eps, eps))


def test_the_derivative_in_eps_is_right() -> None:
    with float64():
        h = jnp.asarray(symmetric(SPECTRA["meet"]))
        for f in (jax.jit(lambda x: power(h, -0.25, x, 0.2)), jax.jit(lambda x: power(h, -0.25, 0.1, x))):
            np.testing.assert_allclose(jax.jit(jax.jacfwd(f))(0.15), difference(f, 0.15, 1.0), atol=1e-10)


@pytest.mark.parametrize("name", ["meet"])
def test_spaces_of_clusters_have_their_true_derivative(name: str) -> None:
    """Of the projector on the upper half: eigenvectors inside a cluster may turn, the space may not."""
    with float64():
        h, e = symmetric(SPECTRA[name]), random(1, 4, 4)

        def projector(h: Any) -> Any:
            upper = eigh(h)[1][:, 2:]
            return upper @ upper.T

        f = jax.jit(projector)
        found = jax.jit(lambda h, e: jax.jvp(projector, (h,), (e,))[1])(h, e + e.T)
        np.testing.assert_allclose(found, difference(f, h, e + e.T), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_derivatives_are_those_of_jax_where_all_is_simple() -> None:
    with float64():
        h, a, tall = (
            jnp.asarray(symmetric(SPECTRA["apart"])),
            jnp.asarray(random(4, 4, 4)),
            jnp.asarray(random(5, 4, 2)),
        )
        pairs = [
            (lambda x: eigh(x), lambda x: tuple(jnp.linalg.eigh(x)), h),
            (lambda x: svd(x), lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)), tall),
            (lambda x: svd(x), lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)), tall.T),
            (lambda x: svd(x), lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)), a),
            (lambda x: orthonormal(x), lambda x: jnp.linalg.qr(x)[0], a),
        ]
        for ours, theirs, x in pairs:
            for got, want in zip(*jax.jit(lambda x, f=ours, g=theirs: (f(x), g(x)))(x), strict=True):
                np.testing.assert_array_equal(got, want)
            jacobians = jax.jit(lambda x, f=ours, g=theirs: (jax.jacrev(f)(x), jax.jacfwd(g)(x)))(x)
            for got, want in zip(*map(jax.tree.leaves, jacobians), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_an_orthogonal_factor_of_dependent_columns_stays_orthogonal() -> None:
    with float64():
        a, direction = (random(seed, 4, 4) * [1, 1, 1, 0] for seed in (6, 7))  # the last column is what others leave
        along = jax.jit(lambda a: jax.jvp(orthonormal, (a,), (direction,)))
        expected = difference(jax.jit(orthonormal), a, direction)
        np.testing.assert_allclose(along(a)[1], expected, rtol=1e-8, atol=1e-8)
        q, turned = map(np.asarray, along(a * [1, 0, 1, 1]))
        np.testing.assert_allclose(q.T @ turned + turned.T @ q, np.zeros((4, 4)), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_two_derivatives_of_zeros_and_of_multiples_of_the_identity_are_finite(dtype: Any) -> None:
    with float64():

        def total(x: Any) -> Any:
            parts = (eigh(x)[1], *svd(x), orthonormal(x), power(x, -0.25, 1e-12, 1e-6), power(x, -0.5, 0.0, 0.0))
            return sum(
                jnp.sum(part * jnp.cos(jnp.arange(part.size, dtype=dtype).reshape(part.shape))) for part in parts
            )

        both = jax.jit(lambda x: (jax.grad(total)(x), jax.hessian(total)(x)))
        for x in (jnp.zeros((3, 3), dtype), jnp.eye(3, dtype=dtype), jnp.diag(jnp.array([1, 0, 0], dtype))):
            assert all(np.isfinite(leaf).all() for leaf in both(x))

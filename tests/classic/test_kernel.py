"""Kernel machines against linear machines on the explicit features, SciPy, and the conditions of optimality."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, optimize

from jaxnn.classic import kernel, perceptron
from jaxnn.classic.kernel import gaussian, polynomial
from tests.helpers import float64, random, slow, strict

X = random(0, 40, 2)
Y = np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0)
NOISY = np.where(np.random.default_rng(1).random(40) < 0.1, -Y, Y)


def monomials(x: np.ndarray) -> np.ndarray:
    """The features whose scalar product is (x.z + 1)^2."""
    a, b = x.T
    root = np.sqrt(2)
    return np.stack([np.ones_like(a), root * a, root * b, a**2, b**2, root * a * b], axis=1)


def gram(width: float = 0.7) -> np.ndarray:
    with float64():
        return np.asarray(gaussian(X, X, width=width))


def test_kernels_are_scalar_products_of_features() -> None:
    with float64(), strict():
        np.testing.assert_allclose(polynomial(X, X[:5], degree=2), monomials(X) @ monomials(X[:5]).T, rtol=1e-10)
        np.testing.assert_allclose(polynomial(X, X, degree=1, constant=0.0), X @ X.T, rtol=1e-12, atol=1e-14)
        found = gaussian(X, X[:5], width=0.7)
        expected = [[np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2)) for b in X[:5]] for a in X]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        x, z = random(2, 2, 1)
        powers = np.arange(60)
        scaled = np.concatenate([[1.0], np.cumprod(1 / np.sqrt(np.arange(1, 60)))])
        phi, psi = (np.exp(-(v**2) / 2) * v**powers * scaled for v in (x, z))  # the features of the Gaussian kernel
        np.testing.assert_allclose(gaussian(x[None], z[None], width=1.0)[0, 0], phi @ psi, rtol=1e-12)
    assert np.linalg.eigvalsh(gram()).min() > -1e-12, "positive semidefinite"


def test_the_kernel_perceptron_is_the_perceptron_on_the_features() -> None:
    phi = monomials(X)
    with float64():
        direct = perceptron.fit(phi, Y)
        dual = kernel.perceptron(polynomial(X, X, degree=2), Y)
        assert (dual.mistakes, dual.passes, dual.converged) == (direct.mistakes, direct.passes, direct.converged)
        assert dual.converged
        assert dual.mistakes > 10
        np.testing.assert_allclose(dual.w @ phi, direct.w, atol=1e-10)
        assert (np.abs(dual.w).sum() == dual.mistakes) & (dual.w * Y >= 0).all()
        wrong = kernel.perceptron(polynomial(X, X, degree=2, constant=0.5), Y)
        assert wrong.mistakes != direct.mistakes, "another kernel makes other mistakes"
        linear = kernel.perceptron(polynomial(X, X, degree=1), Y, passes=50)
    assert not linear.converged, "the exclusive or is not linearly separable"


def test_kernel_ridge_is_ridge_regression_on_the_features() -> None:
    phi, penalty = monomials(X), 0.3
    targets = random(3, 40)
    with float64(), strict():
        a = kernel.ridge(polynomial(X, X, degree=2), targets, penalty=penalty)
        w = np.linalg.solve(phi.T @ phi + penalty * np.eye(6), phi.T @ targets)
        np.testing.assert_allclose(phi.T @ a, w, rtol=1e-9)
        smooth = kernel.ridge(gaussian(X, X, width=0.7), targets, penalty=penalty)
        new = random(4, 9, 2)
        oracle = interpolate.RBFInterpolator(
            X, targets, kernel="gaussian", epsilon=1 / (np.sqrt(2) * 0.7), smoothing=penalty, degree=-1
        )
        np.testing.assert_allclose(gaussian(new, X, width=0.7) @ smooth, oracle(new), rtol=1e-9)
        assert np.abs(gaussian(new, X, width=0.8) @ smooth - oracle(new)).max() > 1e-2


def violations(found: kernel.Support, k: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    """By how much each condition of Karush, Kuhn and Tucker fails, (5,)."""
    alpha, margin = y * found.a, y * (k @ found.a + found.bias)
    free = (alpha > 1e-6 * c) & (alpha < (1 - 1e-6) * c)
    return np.array(
        [
            max(-alpha.min(), alpha.max() - c, 0) / c,
            abs(found.a.sum()) / alpha.sum(),
            max((1 - margin[alpha <= 1e-6 * c]).max(initial=0), 0),  # outside or on the margin
            np.abs(margin[free] - 1).max(initial=0),  # on it
            max((margin[alpha >= (1 - 1e-6) * c] - 1).max(initial=0), 0),  # inside
        ]
    )


@pytest.mark.parametrize(("y", "c"), [(NOISY, 1.0), *slow((Y, 1e3), (NOISY, 0.1), (NOISY, 10.0))])
def test_the_support_vector_machine_is_optimal(y: np.ndarray, c: float) -> None:
    k = gram()
    found = kernel.support(k, y, c=c)
    assert violations(found, k, y, c).max() < 1e-5
    total = np.abs(found.a).sum()
    assert -1e-8 * total < found.gap < 1e-4 * total
    assert (found.a == 0).sum() > 0 or c == 0.1
    for broken in (
        found._replace(bias=found.bias + 0.01),
        found._replace(a=1.01 * found.a),
        found._replace(a=np.roll(found.a, 1)),
    ):
        assert violations(broken, k, y, c).max() > 1e-3


def test_the_dual_by_another_method() -> None:
    k, c = gram(), 1.0
    q = k * np.outer(NOISY, NOISY)
    oracle = optimize.minimize(
        lambda alpha: (alpha @ q @ alpha / 2 - alpha.sum(), q @ alpha - 1),
        np.full(40, 0.5),
        jac=True,
        bounds=[(0, c)] * 40,
        constraints={"type": "eq", "fun": lambda alpha: NOISY @ alpha, "jac": lambda alpha: NOISY},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(NOISY * kernel.support(k, NOISY, c=c).a, oracle.x, atol=1e-4)


def test_the_margin_is_the_distance_of_the_convex_hulls() -> None:
    """A hard margin in the plane: 2 / |w| is the least distance of the classes' convex hulls."""
    x = np.concatenate([random(5, 15, 2) - 3, random(6, 15, 2) + 3])
    y = np.repeat([-1.0, 1.0], 15)
    with float64():
        found = kernel.support(polynomial(x, x, degree=1, constant=0.0), y, c=1e4)
    w = x.T @ found.a
    nearest = optimize.minimize(
        lambda t: np.sum((t[:15] @ x[:15] - t[15:] @ x[15:]) ** 2),
        np.full(30, 1 / 15),
        bounds=[(0, 1)] * 30,
        constraints=[
            {"type": "eq", "fun": lambda t, part=part: t[part].sum() - 1} for part in (slice(15), slice(15, 30))
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert 2 / np.linalg.norm(w) == pytest.approx(np.sqrt(nearest.fun), rel=1e-4)
    assert (y * (x @ w + found.bias)).min() == pytest.approx(1, abs=1e-5)
    assert 2 <= (np.abs(found.a) > 1e-8).sum() <= 4


def test_dtypes_and_transformations() -> None:
    assert gaussian(X.astype(jnp.bfloat16), X, width=1.0).dtype == gaussian(X, X, width=1.0).dtype == jnp.float32
    widths = jnp.array([0.5, 1.0])
    many = jax.jit(jax.vmap(lambda width: kernel.ridge(gaussian(X, X, width=width), Y, penalty=0.1)))(widths)
    one = kernel.ridge(gaussian(X, X, width=1.0), Y, penalty=0.1)
    np.testing.assert_allclose(many[1], one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gaussian(X, X[:, :1], width=1.0), r"same D, got \(40, 2\) and \(40, 1\)"),
        (lambda: gaussian(X, X, width=0.0), "width must be a finite number > 0"),
        (lambda: polynomial(X, X, degree=0), "degree must be at least 1"),
        (lambda: polynomial(X, X, degree=2, constant=-1.0), r"constant must lie in \[0, inf\)"),
        (lambda: kernel.perceptron(X, Y), r"Gram matrix \(N, N\) of the examples, got \(40, 2\)"),
        (lambda: kernel.ridge(np.eye(3), np.ones(4), penalty=1.0), r"x \(3, 3\) and y \(4,\)"),
        (lambda: kernel.ridge(np.eye(3), np.ones(3), penalty=0.0), "penalty must be a finite number > 0"),
        (lambda: kernel.support(np.eye(3), np.ones(3), c=1.0), "must have both classes"),
        (lambda: kernel.support(np.eye(3), np.array([0, 1, 1]), c=1.0), "labels must be -1 or .1, got 0"),
        (lambda: kernel.support(np.eye(3), np.array([-1, 1, 1]), c=0.0), "c must be a finite number > 0"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


@pytest.mark.parametrize(("at", "width", "expected"), [(0.0, 1e-30, 1.0), (1.0, 1e-30, 0.0), (2e30, 1e30, np.exp(-2))])
def test_the_gaussian_at_extreme_widths(at: float, width: float, expected: float) -> None:
    np.testing.assert_allclose(gaussian([[at]], [[0.0]], width=width), [[expected]], rtol=1e-6)


def test_the_support_vectors_of_a_kernel_of_zeros() -> None:
    found = kernel.support(np.zeros((3, 3)), [1, 1, -1], c=1.0)  # f is the bias: the class of two
    assert found.bias == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: kernel.support([[1.0, 0.9], [0.0, 1.0]], [1, -1], c=1.0), "symmetric with a diagonal >= 0"),
        (lambda: kernel.ridge([[-1.0, 0.0], [0.0, 1.0]], [1.0, 2.0], penalty=2.0), "symmetric with a diagonal >= 0"),
        (lambda: kernel.ridge([[1.0, 3.0], [3.0, 1.0]], [1.0, 2.0], penalty=1.0), "not positive definite in float32"),
        (lambda: kernel.ridge(np.eye(2), [np.nan, 2.0], penalty=1.0), "y must be finite"),
    ],
)
def test_what_is_no_gram_matrix_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

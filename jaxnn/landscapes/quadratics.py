"""Quadratics with a prescribed spectrum, without and with noise.

Arguments of the constructors are concrete. ValueError: a number out of range, or a traced condition number or noise
level; TypeError: a size that is not an int, or a key that is not typed or is traced. Points, samples and the key of
`sample` may be traced.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import concrete_number, require_key, require_positive_int
from jaxnn.landscapes.base import Landscape, make_landscape, require_point
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, ArrayLike, DTypeLike, Key, Scalar


@dataclass(frozen=True, eq=False)
class NoisyQuadratic(Landscape):
    """1/2 (x - xi)' Q (x - xi) with noise xi ~ N(0, sigma^2 I); as a landscape, its exact expectation over xi.

    E f(x; xi) = 1/2 x' Q x + 1/2 sigma^2 tr Q, and the gradient's noise is -Q xi, of covariance sigma^2 Q^2.

    Attributes:
        matrix: Q, (d, d), symmetric.
        eigenvalues: (d,), ascending.
        noise_level: sigma.

    Example:
        >>> landscape = noisy_quadratic(jax.random.key(0))
        >>> xi = landscape.sample(jax.random.key(1), 128)
        >>> jax.vmap(landscape.example_loss, in_axes=(None, 0))(jnp.ones(100), xi).shape
        (128,)
    """

    matrix: np.ndarray
    eigenvalues: np.ndarray
    noise_level: float

    def sample(self, key: Key, n: int, *, dtype: DTypeLike = jnp.float32) -> Array:
        """n samples of xi, (n, d), of this dtype: the "data set" of the problem."""
        require_key("noisy_quadratic.sample", key)
        n = require_positive_int("noisy_quadratic.sample", "n", n)
        return self.noise_level * jax.random.normal(key, (n, self.dimensions), dtype)

    def example_loss(self, x: ArrayLike, xi: ArrayLike) -> Array:
        """1/2 (x - xi)' Q (x - xi) for one point x (d,) and one sample xi (d,), both floating; () of the dtype of x."""
        x = require_point(self.name, x, self.dimensions)
        xi = require_point(f"{self.name}, xi", xi, self.dimensions)
        dtype = accumulation_dtype(x.dtype, xi.dtype)
        return _quadratic_form(x.astype(dtype) - xi.astype(dtype), self.matrix).astype(x.dtype)


def quadratic(
    condition_number: Scalar, *, dimensions: int = 2, logarithmic: bool = True, key: Key | None = None
) -> Landscape:
    """f(x) = 1/2 x' Q x, the eigenvalues of Q spaced from 1 to the condition number, logarithmically by default.

    Args:
        condition_number: largest over smallest eigenvalue, >= 1; concrete.
        dimensions: d >= 2.
        logarithmic: space the eigenvalues logarithmically; False: linearly.
        key: for a uniformly random rotation; None: the eigenvectors are the axes, the last one the steepest.

    Returns:
        Landscape: minimum 0 at the origin, start (1, ..., 1) and bounds [-2, 2]. Gradient descent with a constant
        rate eta converges where 0 < eta < 2 / condition_number.

    Example:
        >>> quadratic(100.0)(jnp.array([1.0, 1.0]))
        Array(50.5, dtype=float32)
    """
    where = "quadratic"
    d = require_positive_int(where, "dimensions", dimensions, 2)
    kappa = concrete_number(condition_number)
    if kappa is None or not 1 <= kappa < np.inf:
        got = "a traced value or an array" if kappa is None else f"{kappa:g}"
        raise ValueError(f"{where}: condition_number must be a concrete finite number >= 1, got {got}.")
    eigenvalues = np.geomspace(1.0, kappa, d) if logarithmic else np.linspace(1.0, kappa, d)
    matrix = np.diag(eigenvalues) if key is None else _rotated(eigenvalues, _rotation(where, key, d))
    return make_landscape(
        f"quadratic, condition number {kappa:g}",
        lambda x: _quadratic_form(x, matrix),
        start=np.ones(d),
        bounds=(-2.0, 2.0),
        minima=np.zeros((1, d)),
        minimum_value=0.0,
    )


def noisy_quadratic(key: Key, *, noise_level: Scalar = 0.6, small: int = 90, large: int = 10) -> NoisyQuadratic:
    """The noisy quadratic of DeepOBS: f(x; xi) = 1/2 (x - xi)' Q (x - xi), xi ~ N(0, sigma^2 I), Q = R' diag(lambda) R.

    `small` eigenvalues are drawn from U(0, 1) and `large` ones from U(30, 60), a spectrum like that of the Hessian of
    a network; R is a uniformly random rotation.

    Args:
        key: determines eigenvalues and rotation (not the noise); the same values with and without `jax.enable_x64`.
        noise_level: sigma, the standard deviation of each coordinate of xi, >= 0; concrete.
        small: number of eigenvalues from U(0, 1), >= 0.
        large: number from U(30, 60), >= 0; d = small + large >= 2.

    Returns:
        NoisyQuadratic: a landscape whose value at x is the expected loss, with minimum sigma^2 tr(Q) / 2 at 0;
        `example_loss(x, xi)` for one sample and `sample(key, n)` for samples. Start (1, ..., 1), as in DeepOBS (whose
        data are 1000 fixed samples); bounds [-2, 2].

    Example:
        >>> landscape = noisy_quadratic(jax.random.key(0))
        >>> landscape.dimensions, int((landscape.eigenvalues >= 30).sum())
        (100, 10)

    Reference: Schneider, Balles & Hennig 2019, "DeepOBS: A Deep Learning Optimizer Benchmark Suite" (problem
        quadratic_deep); spectrum after Chaudhari et al. 2017, "Entropy-SGD: Biasing Gradient Descent Into Wide
        Valleys".
    """
    where = "noisy_quadratic"
    small = require_positive_int(where, "small", small, 0)
    large = require_positive_int(where, "large", large, 0)
    d = require_positive_int(where, "small + large", small + large, 2)
    sigma = concrete_number(noise_level)
    if sigma is None or not 0 <= sigma < np.inf:
        got = "a traced value or an array" if sigma is None else f"{sigma:g}"
        raise ValueError(f"{where}: noise_level must be a concrete finite number >= 0, got {got}.")
    _require_concrete_key(where, key)
    of_small, of_large, of_rotation = jax.random.split(key, 3)
    drawn = [_uniform(of_small, small, 0.0, 1.0), _uniform(of_large, large, 30.0, 60.0)]
    eigenvalues = np.sort(np.concatenate(drawn))
    matrix = _rotated(eigenvalues, _rotation(where, of_rotation, d))
    floor = 0.5 * sigma**2 * float(np.trace(matrix))
    return NoisyQuadratic(
        name="noisy quadratic",
        function=lambda x: _quadratic_form(x, matrix) + floor,
        start=np.ones(d),
        bounds=(-2.0, 2.0),
        minima=np.zeros((1, d)),
        minimum_value=floor,
        saddle_points=np.zeros((0, d)),
        matrix=matrix,
        eigenvalues=eigenvalues,
        noise_level=sigma,
    )


def _quadratic_form(x: Array, matrix: np.ndarray) -> Array:
    """1/2 x' Q x, in full precision on every device."""
    q = jnp.asarray(matrix, x.dtype)
    return 0.5 * jnp.dot(x, jnp.dot(q, x, precision=jax.lax.Precision.HIGHEST), precision=jax.lax.Precision.HIGHEST)


def _rotated(eigenvalues: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """R' diag(eigenvalues) R, made exactly symmetric."""
    q = rotation.T @ (eigenvalues[:, None] * rotation)
    return 0.5 * (q + q.T)


def _rotation(where: str, key: Key, d: int) -> np.ndarray:
    """A uniformly random rotation (d, d) (Haar measure), determinant +1, orthogonal in float64.

    The Q of a QR decomposition of a Gaussian matrix is uniform once the signs of R's diagonal are moved into it
    (Mezzadri 2007, "How to generate random matrices from the classical compact groups").
    """
    _require_concrete_key(where, key)
    normal = np.asarray(jax.random.normal(key, (d, d), jnp.float32), np.float64)
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


def _uniform(key: Key, n: int, low: float, high: float) -> np.ndarray:
    return np.asarray(jax.random.uniform(key, (n,), jnp.float32, low, high), np.float64)


def _require_concrete_key(where: str, key: Key | None) -> None:
    require_key(where, key)
    if isinstance(key, jax.core.Tracer):
        raise TypeError(f"{where}: key must be concrete, got a traced one. Make the landscape outside jit and vmap.")

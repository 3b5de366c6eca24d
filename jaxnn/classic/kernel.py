"""Kernel machines: linear machines in a feature space that only its scalar products define.

f(x) = sum_i a_i K(x_i, x) + bias, with the examples x_i in place of weights. Training takes the Gram matrix of the
examples, K(x_i, x_j) (N, N), positive semidefinite, e.g. `gaussian(x, x, width=1.0)`; f of others is then
`gaussian(others, x, width=1.0) @ a + bias`. Labels y are (N,), each -1 or +1. ValueError: shapes do not match, concrete
values are not finite, or labels are others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import optimize  # type: ignore[import-untyped]

from jaxnn.checks import require_between, require_positive, require_positive_int
from jaxnn.classic import perceptron as primal
from jaxnn.classic.neurons import as_examples, as_rows, as_signs, require_finite
from jaxnn.losses.base import concrete_array, float_info
from jaxnn.types import Array, ArrayLike, Scalar


def gaussian(x: ArrayLike, z: ArrayLike, *, width: Scalar) -> Array:
    """The Gaussian kernel: K(x, z) = e^(-|x - z|^2 / (2 width^2)), (N, M), for x (N, D) and z (M, D).

    Args:
        width: > 0; may be traced.

    Reference: Aizerman, M. A., Braverman, E. M. & Rozonoer, L. I. (1964). Theoretical foundations of the potential
        function method in pattern recognition learning.

    Example:
        >>> gaussian([[0.0], [99.0]], [[0.0]], width=2.0).ravel()
        Array([1., 0.], dtype=float32)
    """
    require_positive("kernel.gaussian", "width", width)
    rows, others = _pair("kernel.gaussian", x, z)
    # Differences are divided before they are squared, by a width that is not 0 in this dtype.
    scale = jnp.maximum(jnp.asarray(width, rows.dtype), float_info(rows.dtype).tiny)
    return jnp.exp(-squared_distances(rows, others, scale) / 2)


@jax.jit
def squared_distances(x: Array, z: Array, scale: Scalar = 1.0) -> Array:
    """|(x - z) / scale|^2, (N, M), of x (N, D) and z (M, D)."""
    # |x|^2 - 2 x.z + |z|^2 would cancel; all N M D differences at once would not fit.
    return lax.map(lambda row: jnp.sum(jnp.square((row[None] - z) / scale), axis=1), x, batch_size=64)


def polynomial(x: ArrayLike, z: ArrayLike, *, degree: int, constant: Scalar = 1.0) -> Array:
    """The polynomial kernel: K(x, z) = (x.z + constant)^degree, (N, M), for x (N, D) and z (M, D).

    Args:
        degree: >= 1; the features are all monomials up to it, those of that degree alone with `constant=0`.
        constant: >= 0; may be traced.

    Reference: Poggio, T. (1975). On optimal nonlinear associative recall.

    Example:
        >>> polynomial([[1.0, 2.0]], [[3.0, 4.0]], degree=2)
        Array([[144.]], dtype=float32)
    """
    require_between("kernel.polynomial", "constant", constant, 0, float("inf"), open_high=True)
    rows, others = _pair("kernel.polynomial", x, z)
    power = require_positive_int("kernel.polynomial", "degree", degree)
    return (jnp.matmul(rows, others.T, precision="highest") + jnp.asarray(constant, rows.dtype)) ** power


def perceptron(gram: ArrayLike, y: ArrayLike, *, passes: int = 1000) -> primal.Fit:
    """Rosenblatt's rule in the feature space, from a = 0: on each mistake a_i <- a_i + y_i, without bias.

    The mistakes are those of `perceptron.fit` on the features, since w = sum_i a_i phi(x_i).

    Args:
        passes: the largest number of passes.

    Returns:
        `perceptron.Fit`; its w is a (N,).

    Reference: Aizerman, Braverman & Rozonoer (1964), as above.

    Example:
        >>> x, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [-1, 1, 1, -1]  # XOR
        >>> perceptron(polynomial(x, x, degree=2), y).converged
        Array(True, dtype=bool)
    """
    products, signs = as_signs("kernel.perceptron", _square("kernel.perceptron", gram), y)
    limit = require_positive_int("kernel.perceptron", "passes", passes)

    def rule(a: Array, row: Array, sign: Array) -> tuple[Array, Array]:
        product, unit = jnp.split(row, 2)
        mistake = primal.predict(a, product) != sign
        return jnp.where(mistake, a + sign * unit, a), mistake

    rows = jnp.concatenate([products, jnp.eye(len(signs), dtype=products.dtype)], axis=1)
    return primal.repeat(rule, jnp.zeros_like(signs), rows, signs, limit)


def ridge(gram: ArrayLike, y: ArrayLike, *, penalty: Scalar) -> Array:
    """Kernel ridge regression: a = (K + penalty I)^-1 y minimizes sum_i (y_i - f(x_i))^2 + penalty a'K a, without bias.

    Args:
        y: targets (N,), real.
        penalty: > 0, in float32 not much less than 1e-6 of the trace of K; may be traced.

    Returns:
        a (N,).

    Raises:
        ValueError: also if K + penalty I is not positive definite in this precision.

    Reference: Saunders, C., Gammerman, A. & Vovk, V. (1998). Ridge regression learning algorithm in dual variables.

    Example:
        >>> ridge([[3.0, 0.0], [0.0, 3.0]], [4.0, 8.0], penalty=1.0)
        Array([1., 2.], dtype=float32)
    """
    products, targets = as_examples("kernel.ridge", _square("kernel.ridge", gram), y)
    require_finite("kernel.ridge", "y", targets[:, None])
    require_positive("kernel.ridge", "penalty", penalty)
    system = products + jnp.asarray(penalty, products.dtype) * jnp.eye(len(products), dtype=products.dtype)
    a = jax.scipy.linalg.solve(system, targets.astype(products.dtype), assume_a="pos")
    known = concrete_array(a)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(
            f"kernel.ridge: gram + penalty I is not positive definite in {products.dtype}: gram must be positive "
            "semidefinite, such as that of `gaussian`. Raise the penalty, or use float64."
        )
    return a


class Support(NamedTuple):
    """A support vector machine in float64: a (N,) with a_i = y_i alpha_i, the bias, and the duality gap.

    Examples with alpha_i > 0 are the support vectors. The gap is how far the objective may be from its minimum.
    """

    a: np.ndarray[Any, Any]
    bias: float
    gap: float


def support(gram: ArrayLike, y: ArrayLike, *, c: float) -> Support:
    """The support vector machine: minimize 1/2 a'K a + c sum_i max(0, 1 - y_i f(x_i)), through its dual.

    maximize sum_i alpha_i - 1/2 a'K a, a_i = y_i alpha_i, with 0 <= alpha_i <= c and sum_i y_i alpha_i = 0

    The equation by the method of multipliers, the bounds by `scipy.optimize.minimize` (L-BFGS-B), on the host.

    Args:
        c: > 0, the price of a violated margin; large for a hard margin.

    Raises:
        ValueError: also if y has one class only.
        RuntimeError: the gap stays above 0.1% of the objective.

    Reference: Boser, B. E., Guyon, I. M. & Vapnik, V. N. (1992). A training algorithm for optimal margin classifiers.
        Cortes, C. & Vapnik, V. (1995). Support-vector networks. Hestenes, M. R. (1969). Multiplier and gradient
        methods.

    Example:
        >>> x, y = np.array([[0.0], [1.0], [3.0], [4.0]]), [-1, -1, 1, 1]
        >>> found = support(polynomial(x, x, degree=1, constant=0.0), y, c=100.0)
        >>> found.a.round(4) + 0.0, round(found.bias, 4)  # f(x) = x - 2
        (array([ 0. , -0.5,  0.5,  0. ]), -2.0)
    """
    as_signs("kernel.support", _square("kernel.support", gram), y)
    require_positive("kernel.support", "c", c)
    products, signs = np.asarray(gram, np.float64), np.asarray(y, np.float64)
    if abs(signs.sum()) == len(signs):
        raise ValueError("kernel.support: y must have both classes, -1 and +1, got one.")
    alpha, bias, weight = np.zeros(len(signs)), 0.0, float(np.trace(products)) / len(signs) or 1.0
    options, bounds = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-9}, optimize.Bounds(0, c)

    def lagrangian(alpha: Any) -> tuple[Any, Any]:
        fitted, excess = products @ (signs * alpha), signs @ alpha
        value = (signs * alpha) @ fitted / 2 - alpha.sum() + (bias + weight * excess / 2) * excess
        return value, signs * (fitted + bias + weight * excess) - 1

    for _ in range(100):
        alpha = optimize.minimize(lagrangian, alpha, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        bias += weight * (excess := signs @ alpha)  # the multiplier of the equation is the bias
        if abs(excess) < 1e-9 * alpha.sum():
            break
    a = signs * alpha
    dual = alpha.sum() - a @ products @ a / 2
    gap = a @ products @ a / 2 + c * np.maximum(0, 1 - signs * (products @ a + bias)).sum() - dual
    if not gap < 1e-3 * dual:
        remedy = "Lower c, and scale the kernel so that K(x, x) is about 1."
        raise RuntimeError(f"kernel.support: did not converge: the gap is {gap:g}, the objective {dual:g}. {remedy}")
    return Support(a, float(bias), float(gap))


def _pair(where: str, x: ArrayLike, z: ArrayLike) -> tuple[Array, Array]:
    """Examples (N, D) and (M, D) in one dtype."""
    rows, others = as_rows(where, "x", x), as_rows(where, "z", z)
    if rows.shape[1] != others.shape[1]:
        raise ValueError(f"{where}: x (N, D) and z (M, D) must have the same D, got {rows.shape} and {others.shape}.")
    dtype = jnp.promote_types(rows.dtype, others.dtype)
    return rows.astype(dtype), others.astype(dtype)


def _square(where: str, gram: ArrayLike) -> Array:
    products = as_rows(where, "gram", gram)
    if products.shape[0] != products.shape[1]:
        raise ValueError(f"{where}: gram must be the Gram matrix (N, N) of the examples, got {products.shape}.")
    known = concrete_array(products)
    if known is not None and (
        (known.diagonal() < 0).any() or not np.allclose(known, known.T, rtol=0, atol=1e-3 * np.abs(known).max())
    ):
        raise ValueError(f"{where}: gram must hold K(x_i, x_j), so be symmetric with a diagonal >= 0, but is not.")
    return products

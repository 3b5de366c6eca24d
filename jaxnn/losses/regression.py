"""Regression losses: squared, absolute and robust errors, cosine distance.

Outputs are y (N, ...), floating, targets d (N, ...), real, of the same shape; losses (N,), float32 (float64 for float64
outputs). ValueError: shapes differ, or there is no example axis; TypeError: outputs are not floating. A derivative
takes the arguments of its loss, and returns the shape and dtype of the outputs.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn.losses.base import absolute, as_pair, entries_per_example, mean_per_example, positive, sum_per_example
from jaxnn.losses.cosine_along import cosine_distance_along
from jaxnn.losses.elementwise import huber_of, log_cosh_each, log_cosh_of
from jaxnn.losses.optax_form import also_takes_calls_of
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.types import Array, ArrayLike, Scalar


def half_squared_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Half the squared Euclidean distance of outputs y and targets d: 1/2 sum_j (y_j - d_j)^2, (N, ...) -> (N,).

    Example:
        >>> half_squared_error(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)))
        Array([2.5], dtype=float32)

    Reference: Widrow & Hoff 1960, "Adaptive switching circuits".
    """
    y, d, _ = as_pair("half_squared_error", outputs, targets)
    return 0.5 * sum_per_example(jnp.square(y - d))


def half_squared_error_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `half_squared_error` with respect to the outputs y (targets d): y - d.

    Example:
        >>> half_squared_error_grad(jnp.array([3.0]), jnp.array([1.0]))
        Array([2.], dtype=float32)
    """
    y, d, dtype = as_pair("half_squared_error_grad", outputs, targets)
    return (y - d).astype(dtype)


def mse(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Mean squared error: (1/K) sum_j (y_j - d_j)^2, the mean over all K outputs of an example, (N, ...) -> (N,).

    Example:
        >>> mse(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)))
        Array([2.5], dtype=float32)
    """
    y, d, _ = as_pair("mse", outputs, targets)
    return mean_per_example(jnp.square(y - d))


def mse_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `mse` with respect to the outputs y (targets d): 2 (y - d) / K, K outputs.

    Example:
        >>> mse_grad(jnp.array([[3.0, 1.0]]), jnp.ones((1, 2)))
        Array([[2., 0.]], dtype=float32)
    """
    y, d, dtype = as_pair("mse_grad", outputs, targets)
    return (2 * (y - d) / entries_per_example(y)).astype(dtype)


def sum_squared_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Sum of squared errors (SSE), without the factor 1/2: sum_j (y_j - d_j)^2, (N, ...) -> (N,).

    Twice `half_squared_error`, and K times `mse` of K outputs: the three have the same minimum, and their gradients
    differ by these factors, so that the same learning rate is 2 or K times as large.

    Example:
        >>> sum_squared_error(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)))
        Array([5.], dtype=float32)

    Reference: Legendre 1805, "Nouvelles méthodes pour la détermination des orbites des comètes".
    """
    y, d, _ = as_pair("sum_squared_error", outputs, targets)
    return sum_per_example(jnp.square(y - d))


def sum_squared_error_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `sum_squared_error` with respect to the outputs y (targets d): 2 (y - d).

    Example:
        >>> sum_squared_error_grad(jnp.array([3.0]), jnp.array([1.0]))
        Array([4.], dtype=float32)
    """
    y, d, dtype = as_pair("sum_squared_error_grad", outputs, targets)
    return (2 * (y - d)).astype(dtype)


def euclidean_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Euclidean distance of outputs y and targets d, the L2 norm without its square: sqrt(sum_j (y_j - d_j)^2).

    Its mean over examples weights a large error less than the squared error does: each example has a gradient of
    norm 1, however far it is from its target. `absolute_error` is the L1 norm.

    Example:
        >>> euclidean_error(jnp.array([[3.0, -4.0], [0.0, 0.0]]), jnp.zeros((2, 2)))
        Array([5., 0.], dtype=float32)

    Reference: Weber 1909, "Über den Standort der Industrien" (the point of least mean distance).
    """
    y, d, _ = as_pair("euclidean_error", outputs, targets)
    return _unit(_flat(y - d))[1][:, 0]


def euclidean_error_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `euclidean_error` with respect to the outputs y (targets d): (y - d) / |y - d|, 0 at y = d.

    Example:
        >>> euclidean_error_grad(jnp.array([[3.0, -4.0], [0.0, 0.0]]), jnp.zeros((2, 2)))
        Array([[ 0.6, -0.8],
               [ 0. ,  0. ]], dtype=float32)
    """
    y, d, dtype = as_pair("euclidean_error_grad", outputs, targets)
    return _unit(_flat(y - d))[0].reshape(y.shape).astype(dtype)


def absolute_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """L1 error of outputs y and targets d: sum_j |y_j - d_j|, (N, ...) -> (N,).

    Example:
        >>> absolute_error(jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2)))
        Array([3.], dtype=float32)
    """
    y, d, _ = as_pair("absolute_error", outputs, targets)
    return sum_per_example(absolute(y - d))


def absolute_error_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `absolute_error` with respect to the outputs y (targets d): sign(y - d), 0 at y = d.

    Example:
        >>> absolute_error_grad(jnp.array([3.0, 1.0]), jnp.ones(2))
        Array([1., 0.], dtype=float32)
    """
    y, d, dtype = as_pair("absolute_error_grad", outputs, targets)
    return jnp.sign(y - d).astype(dtype)


def huber(outputs: ArrayLike, targets: ArrayLike, *, delta: Scalar = 1.0) -> Array:
    """Huber's loss: sum_j h(y_j - d_j), h(r) = r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2).

    Args:
        outputs, targets: y and d (N, ...).
        delta: where the parabola becomes a line, > 0, in units of the outputs; may be traced.

    Example:
        >>> huber(jnp.array([0.5, 3.0]), jnp.zeros(2))
        Array([0.125, 2.5  ], dtype=float32)

    Reference: Huber 1964, "Robust estimation of a location parameter".
    """
    y, d, _ = as_pair("huber", outputs, targets)
    return sum_per_example(huber_of(y - d, positive("huber", "delta", delta, y.dtype)))


def huber_grad(outputs: ArrayLike, targets: ArrayLike, *, delta: Scalar = 1.0) -> Array:
    """Derivative of `huber` with respect to the outputs y (targets d): y - d, clipped to [-delta, delta].

    Example:
        >>> huber_grad(jnp.array([0.5, 3.0]), jnp.zeros(2))
        Array([0.5, 1. ], dtype=float32)
    """
    y, d, dtype = as_pair("huber_grad", outputs, targets)
    bend = positive("huber_grad", "delta", delta, y.dtype)
    return jnp.clip(y - d, -bend, bend).astype(dtype)


@also_takes_calls_of(log_cosh_each)
def log_cosh(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Logarithm of the hyperbolic cosine of the error: sum_j log cosh(y_j - d_j), (N, ...) -> (N,).

    Near r^2 / 2 for small errors r and near |r| - log 2 for large ones; accurate for both.

    Example:
        >>> log_cosh(jnp.array([0.0, 1e4]), jnp.zeros(2))
        Array([   0.   , 9999.307], dtype=float32)

    Reference: Green 1990, "Bayesian reconstructions from emission tomography data using a modified EM algorithm".
    """
    y, d, _ = as_pair("log_cosh", outputs, targets)
    return sum_per_example(log_cosh_of(y - d))


def log_cosh_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `log_cosh` with respect to the outputs y (targets d): tanh(y - d).

    Example:
        >>> log_cosh_grad(jnp.array([0.0, 1e4]), jnp.zeros(2))
        Array([0., 1.], dtype=float32)
    """
    y, d, dtype = as_pair("log_cosh_grad", outputs, targets)
    return jnp.tanh(y - d).astype(dtype)


@also_takes_calls_of(cosine_distance_along)
def cosine_distance(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """One minus the cosine of the angle between vectors on the last axis: 1 - y.d / (|y| |d|).

    A zero vector has cosine 0 with every other (distance 1), and its derivative is 0. The mean over positions,
    (N,), in [0, 2].

    Args:
        outputs: y (N, ..., D), floating, at least 2 axes.
        targets: d (N, ..., D), real, same shape.

    Example:
        >>> cosine_distance(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.ones((2, 2)))
        Array([0.29289323, 1.        ], dtype=float32)

    Reference: Salton, Wong & Yang 1975, "A vector space model for automatic indexing".
    """
    y, d, _ = as_pair("cosine_distance", outputs, targets)
    _require_vectors("cosine_distance", y)
    return mean_per_example(1 - jnp.sum(_unit(y)[0] * _unit(d)[0], axis=-1))


def cosine_distance_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `cosine_distance` with respect to the outputs y: ((u.v) u - v) / |y|, u = y / |y|, v = d / |d|.

    Divided by the number of positions; 0 where y or d is the zero vector.

    Example:
        >>> cosine_distance_grad(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 5.0]]))
        Array([[ 0. , -0.5]], dtype=float32)
    """
    y, d, dtype = as_pair("cosine_distance_grad", outputs, targets)
    _require_vectors("cosine_distance_grad", y)
    (u, length), (v, _) = _unit(y), _unit(d)
    cosine = jnp.sum(u * v, axis=-1, keepdims=True)
    return (safe_divide(cosine * u - v, length) / math.prod(y.shape[1:-1])).astype(dtype)


def _require_vectors(where: str, y: Array) -> None:
    if y.ndim < 2:
        raise ValueError(f"{where}: outputs must be vectors on the last axis, (N, ..., D), got shape {y.shape}.")


def _flat(x: Array) -> Array:
    """(N, ...) as (N, K), K = 1 for a shape (N,)."""
    return x.reshape(x.shape[0], entries_per_example(x))


def _unit(x: Array) -> tuple[Array, Array]:
    """x / |x| on the last axis (0 for the zero vector), and |x| with that axis kept."""
    # Dividing by the largest entry first keeps the squares from overflowing; neither u nor u' depends on it.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    scaled = safe_divide(x, largest)
    length = safe_sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
    return safe_divide(scaled, length), largest * length

"""Cross-entropy, Kullback-Leibler divergence and entropy of distributions over K outcomes on the last axis.

Positions are the vectors of K entries of an example: one in (N, K), T in (N, T, K).

Losses are (N,), in nats, float32 (float64 for float64 outputs). ValueError: shapes differ, there is no class axis, or
concrete probabilities lie outside [0, 1] (traced ones give NaN); TypeError: outputs are not floating. A derivative
takes the arguments of its loss, and returns the shape and dtype of the outputs.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from jaxnn.losses.base import as_outputs, as_pair, mean_per_example, refuse_labels, require_within_unit
from jaxnn.losses.binary import OUTPUT_REMEDY, floored
from jaxnn.losses.divergence_along import kl_divergence_along
from jaxnn.losses.optax_form import also_takes_calls_of
from jaxnn.numerics import xlogy
from jaxnn.types import Array, ArrayLike, DType

TARGET_REMEDY = "Targets are distributions: jax.nn.one_hot converts labels."


def cross_entropy(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Cross-entropy of probabilities: -sum_k d_k log y_k, the mean over positions, (N, ..., K) -> (N,).

    It is `kl_divergence` plus the entropy of d, so that both have the same minimum and the same derivative. Without its
    minus sign, which some texts drop, it would be the log-likelihood, to be maximized. For logits, or integer labels,
    use `softmax_cross_entropy`.

    Inside the logarithm y is at least the smallest normal number of its dtype, as in `binary_cross_entropy`.

    Args:
        outputs: probabilities y (N, ..., K) in [0, 1], floating; normally summing to 1 (not checked).
        targets: distributions d (N, ..., K) in [0, 1], same shape; `jax.nn.one_hot(labels, K)` for integer labels.

    Example:
        >>> cross_entropy(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        Array([0.6931472, 0.       ], dtype=float32)

    Reference: Good 1952, "Rational decisions".
    """
    y, d, dtype = _probabilities("cross_entropy", outputs, targets)
    return mean_per_example(0.0 - jnp.sum(d * jnp.log(floored(y, dtype)), axis=-1))  # 0, not -0, without error


def cross_entropy_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `cross_entropy` with respect to the probabilities y: -d / y / number of positions.

    Example:
        >>> cross_entropy_grad(jnp.array([[0.5, 0.5]]), jnp.array([[0.0, 1.0]]))
        Array([[-0., -2.]], dtype=float32)
    """
    y, d, dtype = _probabilities("cross_entropy_grad", outputs, targets)
    return (-d / floored(y, dtype) / _positions(y)).astype(dtype)


@also_takes_calls_of(kl_divergence_along)
def kl_divergence(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Kullback-Leibler divergence KL(d || y) = sum_k d_k (log d_k - log y_k), the mean over positions: (N,).

    It is -sum_k d_k log y_k minus the entropy of d, KL = cross-entropy - H(d): some texts print a plus, or equate the
    two, which holds for one-hot d only (H = 0). Outcomes with d_k = 0 contribute 0 and have derivative 0, in both
    arguments, even where log y_k is -inf; where y_k = 0 < d_k the loss is +inf.

    Args:
        outputs: LOG-probabilities log y (N, ..., K), floating, e.g. `jax.nn.log_softmax(logits)`.
        targets: distributions d (N, ..., K) in [0, 1], same shape.

    Example:
        >>> kl_divergence(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[0.0, 1.0]]))
        Array([0.6931472], dtype=float32)

    Reference: Kullback & Leibler 1951, "On information and sufficiency".
    """
    log_y, d, _ = _log_probabilities("kl_divergence", outputs, targets)
    zero = d <= 0  # a probability that rounding carried below 0 counts as 0
    used, d = jnp.where(zero, jnp.zeros_like(log_y), log_y), jnp.where(zero, jnp.zeros_like(d), d)
    return mean_per_example(jnp.sum(xlogy(d, d) - d * used, axis=-1))


def kl_divergence_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `kl_divergence` with respect to the log-probabilities: -d / number of positions.

    Example:
        >>> kl_divergence_grad(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[0.0, 1.0]]))
        Array([[-0., -1.]], dtype=float32)
    """
    log_y, d, dtype = _log_probabilities("kl_divergence_grad", outputs, targets)
    return (-d / _positions(log_y)).astype(dtype)


def entropy(probabilities: ArrayLike) -> Array:
    """Entropy of distributions: H(d) = -sum_k d_k log d_k, with 0 log 0 = 0; the mean over positions: (N,).

    Args:
        probabilities: d (N, ..., K) in [0, 1], floating.

    Example:
        >>> entropy(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
        Array([0.6931472, 0.       ], dtype=float32)

    Reference: Shannon 1948, "A mathematical theory of communication", section 6.
    """
    d, _ = _distribution("entropy", probabilities)
    d = jnp.where(d <= 0, jnp.zeros_like(d), d)
    return mean_per_example(0.0 - jnp.sum(xlogy(d, d), axis=-1))  # 0, not -0, where one class is certain


def entropy_grad(probabilities: ArrayLike) -> Array:
    """Derivative of `entropy` with respect to d: -(log d + 1) / number of positions, 0 at d = 0.

    The true derivative at 0 is infinite. Argument and errors as for `entropy`; returns its shape and dtype.

    Example:
        >>> entropy_grad(jnp.array([[0.0, 1.0]]))
        Array([[ 0., -1.]], dtype=float32)
    """
    d, dtype = _distribution("entropy_grad", probabilities)
    zero = d <= 0
    grad = jnp.where(zero, jnp.zeros_like(d), -(jnp.log(jnp.where(zero, jnp.ones_like(d), d)) + 1))
    return (grad / _positions(d)).astype(dtype)


def _positions(x: Array) -> int:
    """The number of positions per example."""
    return math.prod(x.shape[1:-1])


def _require_classes(where: str, x: Array) -> None:
    if x.ndim < 2:
        raise ValueError(f"{where}: outputs must have shape (N, ..., K), outcomes on the last axis, got {x.shape}.")


def _distribution(where: str, probabilities: ArrayLike) -> tuple[Array, DType]:
    raw, dtype = as_outputs(where, probabilities)
    _require_classes(where, raw)
    return require_within_unit(where, "outputs", probabilities, raw.astype(dtype), OUTPUT_REMEDY), raw.dtype


def _log_probabilities(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    refuse_labels(where, outputs, targets)
    log_y, d, dtype = as_pair(where, outputs, targets)
    _require_classes(where, log_y)
    return log_y, require_within_unit(where, "targets", targets, d, TARGET_REMEDY), dtype


def _probabilities(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    y, d, dtype = _log_probabilities(where, outputs, targets)
    return require_within_unit(where, "outputs", outputs, y, OUTPUT_REMEDY), d, dtype

"""Losses of the margin d f between a score f and a label d in {-1, +1}, and the multi-class hinge.

For losses of the margin, outputs are scores f (N, ...), floating, and targets labels d (N, ...), each -1 or +1, of any
real dtype and the same shape. Losses are (N,), float32 (float64 for float64 outputs). ValueError: shapes differ, there
is no example axis, or a concrete label is neither -1 nor +1 (a traced one gives NaN); TypeError: outputs are not
floating. A derivative takes the arguments of its loss, and returns the shape and dtype of the outputs.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.losses.base import (
    as_labels,
    as_outputs,
    as_pair,
    class_mask,
    concrete_array,
    mean_per_example,
    poison,
    sum_per_example,
)
from jaxnn.losses.elementwise import perceptron_loss_each
from jaxnn.losses.optax_form import also_takes_calls_of
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike, DType


def hinge(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Hinge loss of scores f and labels d_j = -1 or +1: sum_j max(0, 1 - d_j f_j), (N, ...) -> (N,).

    Example:
        >>> hinge(jnp.array([0.5, 2.0, 0.5]), jnp.array([1, 1, -1]))
        Array([0.5, 0. , 1.5], dtype=float32)

    Reference: Cortes & Vapnik 1995, "Support-vector networks".
    """
    f, d, _ = _scores("hinge", outputs, targets)
    slack = 1 - d * f
    # "<= 0", not "> 0": NaN propagates, and the kink takes the constant branch.
    return sum_per_example(jnp.where(slack <= 0, jnp.zeros_like(slack), slack))


def hinge_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `hinge` with respect to the scores f (labels d): -d where d f < 1, else 0 (also at d f = 1).

    Example:
        >>> hinge_grad(jnp.array([0.5, 1.0, 0.5]), jnp.array([1, 1, -1]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    f, d, dtype = _scores("hinge_grad", outputs, targets)
    return jnp.where(1 - d * f <= 0, jnp.zeros_like(f), -d).astype(dtype)


def square_loss(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Square loss of scores f and labels d_j = -1 or +1: sum_j (1 - d_j f_j)^2, (N, ...) -> (N,).

    It equals the squared error (f - d)^2: margins over 1 are penalized too.

    Example:
        >>> square_loss(jnp.array([0.5, 2.0]), jnp.array([1, -1]))
        Array([0.25, 9.  ], dtype=float32)
    """
    f, d, _ = _scores("square_loss", outputs, targets)
    return sum_per_example(jnp.square(1 - d * f))


def square_loss_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `square_loss` with respect to the scores f (labels d): -2 d (1 - d f).

    Example:
        >>> square_loss_grad(jnp.array([0.5, 2.0]), jnp.array([1, -1]))
        Array([-1.,  6.], dtype=float32)
    """
    f, d, dtype = _scores("square_loss_grad", outputs, targets)
    return (-2 * d * (1 - d * f)).astype(dtype)


def logistic(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Logistic loss of scores f and labels d_j = -1 or +1: sum_j log(1 + e^(-d_j f_j)), (N, ...) -> (N,).

    `sigmoid_binary_cross_entropy` with labels -1 and +1 instead of 0 and 1. It is -log P(d | x) with
    P(d | x) = sigmoid(d f). Some texts print -d log f or log(1 + e^(d f)): the first is no function of a score f < 0,
    the second falls with every mistake.

    Example:
        >>> logistic(jnp.array([0.0, 1e4]), jnp.array([1, -1]))
        Array([6.931472e-01, 1.000000e+04], dtype=float32)

    Reference: Cox 1958, "The regression analysis of binary sequences".
    """
    f, d, _ = _scores("logistic", outputs, targets)
    return sum_per_example(jax.nn.softplus(-d * f))


def logistic_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `logistic` with respect to the scores f (labels d): -d sigmoid(-d f).

    Example:
        >>> logistic_grad(jnp.array([0.0, 1e4]), jnp.array([1, -1]))
        Array([-0.5,  1. ], dtype=float32)
    """
    f, d, dtype = _scores("logistic_grad", outputs, targets)
    return (-d * jax.nn.sigmoid(-d * f)).astype(dtype)


@also_takes_calls_of(perceptron_loss_each)
def perceptron_loss(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Perceptron loss of scores f and labels d_j = -1 or +1: sum_j max(0, -d_j f_j), (N, ...) -> (N,).

    The perceptron rule is SGD on it with learning rate 1, one example a step.

    Example:
        >>> perceptron_loss(jnp.array([0.5, 0.5]), jnp.array([1, -1]))
        Array([0. , 0.5], dtype=float32)

    Reference: Rosenblatt 1958, "The perceptron: a probabilistic model for information storage and organization in the
    brain".
    """
    f, d, _ = _scores("perceptron_loss", outputs, targets)
    slack = -d * f
    return sum_per_example(jnp.where(slack < 0, jnp.zeros_like(slack), slack))


def perceptron_loss_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `perceptron_loss` with respect to the scores f (labels d): -d where d f <= 0, else 0.

    At the kink f = 0 it is -d: a score of 0 counts as a mistake for both labels, so that descent moves away from w = 0.

    Example:
        >>> perceptron_loss_grad(jnp.array([0.5, 0.5, 0.0]), jnp.array([1, -1, 1]))
        Array([ 0.,  1., -1.], dtype=float32)
    """
    f, d, dtype = _scores("perceptron_loss_grad", outputs, targets)
    return jnp.where(-d * f < 0, jnp.zeros_like(f), -d).astype(dtype)


def multiclass_hinge(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Multi-class hinge: max(0, 1 + max over k != c of z_k - z_c), c the label; the mean over positions.

    Args:
        outputs: scores z (N, ..., K), floating; K >= 2 classes on the last axis; a position is one vector of them.
        targets: labels (N, ...), integers (else TypeError) in [0, K) (else ValueError; NaN if traced).

    Example:
        >>> multiclass_hinge(jnp.array([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0]]), jnp.array([0, 1]))
        Array([0. , 1.5], dtype=float32)

    Reference: Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines".
    """
    slack, _, _, _ = _multiclass("multiclass_hinge", outputs, targets)
    return mean_per_example(jnp.where(slack <= 0, jnp.zeros_like(slack), slack))


def multiclass_hinge_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `multiclass_hinge` with respect to the scores: +1 at the best wrong class, -1 at the label.

    Divided by the number of positions. 0 where the margin is at least 1 (at the kink too); ties go to the first
    wrong class.

    Example:
        >>> multiclass_hinge_grad(jnp.array([[3.0, 2.5, 3.0]]), jnp.array([1]))
        Array([[ 1., -1.,  0.]], dtype=float32)
    """
    slack, label, rival, dtype = _multiclass("multiclass_hinge_grad", outputs, targets)
    direction = rival.astype(slack.dtype) - label.astype(slack.dtype)
    grad = jnp.where((slack <= 0)[..., None], jnp.zeros_like(direction), direction)
    grad = jnp.where(jnp.isnan(slack)[..., None], jnp.full_like(grad, jnp.nan), grad)
    return (grad / math.prod(slack.shape[1:])).astype(dtype)


def _scores(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    """Scores and labels -1 / +1 in the dtype of the arithmetic (other traced labels NaN), dtype of the scores."""
    f, d, dtype = as_pair(where, outputs, targets)
    known = concrete_array(targets)
    if known is None:
        return f, poison(d, jnp.abs(d) == 1), dtype
    wrong = known[np.abs(known.astype(np.float64)) != 1]
    if wrong.size:
        raise ValueError(
            f"{where}: labels must be -1 or +1, got {wrong[0]}. Map labels 0 and 1 by 2 * y - 1 (in a signed dtype)."
        )
    return f, d, dtype


def _multiclass(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, Array, DType]:
    """1 + best wrong score - score of the label (N, ...), bools at label and first best wrong class, dtype."""
    raw, dtype = as_outputs(where, outputs)
    if raw.ndim < 2:
        raise ValueError(f"{where}: outputs must have shape (N, ..., K), classes on the last axis, got {raw.shape}.")
    z, classes = raw.astype(dtype), raw.shape[-1]
    if classes < 2:
        raise ValueError(f"{where}: needs at least 2 classes on the last axis, got shape {raw.shape}. Use hinge.")
    labels, valid = as_labels(where, beside(targets, raw), raw.shape[:-1], classes)
    label = class_mask(labels, classes)
    rival = class_mask(jnp.argmax(jnp.where(label, jnp.full_like(z, -jnp.inf), z), axis=-1), classes)

    def at(mask: Array) -> Array:
        return jnp.sum(jnp.where(mask, z, jnp.zeros_like(z)), axis=-1)

    return poison(1 + at(rival) - at(label), valid), label, rival, raw.dtype

"""Element-wise losses under optax's names and arguments: no reduction.

`jaxnn.losses.huber(y, d)` and the like return one number per example; these return one per element, in the shape of
the predictions. Arithmetic and results are float32 (float64 for float64 predictions).

Predictions are y (...), floating; targets d have the same shape, up to axes of size 1, or are a scalar; for
`squared_error`, `l2_loss` and `huber_loss` None means 0. ValueError: shapes do not match, or concrete labels are
invalid (traced ones give NaN); TypeError: predictions are not floating.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.losses.base import absolute, concrete_array, poison, positive, require_within_unit
from jaxnn.losses.optax_form import fitted, floating, weighed
from jaxnn.types import Array, ArrayLike, Scalar

LABEL_REMEDY = "Labels -1 and +1 become 0 and 1 by (y + 1) / 2."


def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Squared error per element: (y - d)^2, in the shape of the predictions y; targets None for d = 0.

    Example:
        >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]))
        Array([[0., 4.]], dtype=float32)

    Reference: Gauss 1809, "Theoria motus corporum coelestium".
    """
    return jnp.square(_errors("squared_error", predictions, targets))


def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Half the squared error per element: (y - d)^2 / 2, in the shape of y; targets None for 0. Derivative y - d.

    Example:
        >>> l2_loss(jnp.array([1.0, 3.0]))
        Array([0.5, 4.5], dtype=float32)

    Reference: Gauss 1809, "Theoria motus corporum coelestium".
    """
    return 0.5 * jnp.square(_errors("l2_loss", predictions, targets))


def huber_loss(predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: Scalar = 1.0) -> Array:
    """Huber's loss per element: r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2), r = y - d.

    Its derivative is r clipped to [-delta, delta].

    Args:
        predictions: y (...), floating; the result has its shape.
        targets: d; None for 0.
        delta: where the parabola becomes a line, > 0; may be traced.

    Example:
        >>> huber_loss(jnp.array([0.5, 3.0]))
        Array([0.125, 2.5  ], dtype=float32)

    Reference: Huber 1964, "Robust estimation of a location parameter".
    """
    r = _errors("huber_loss", predictions, targets)
    return huber_of(r, positive("huber_loss", "delta", delta, r.dtype))


def huber_of(r: Array, delta: Array) -> Array:
    """r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2)."""
    size = absolute(r)
    near = size <= delta
    # The square of a large r may overflow, and 0 times its derivative would be NaN.
    square = jnp.square(jnp.where(near, r, jnp.zeros_like(r)))
    return jnp.where(near, 0.5 * square, delta * (size - 0.5 * delta))


def log_cosh_each(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """`losses.log_cosh` under optax's arguments: log cosh(y - d) per element; targets None for 0."""
    return log_cosh_of(_errors("log_cosh", predictions, targets))


def log_cosh_of(r: Array) -> Array:
    """log cosh r, accurate for small r (r^2 / 2) and large ones (|r| - log 2)."""
    small = jnp.abs(r) < 1
    # cosh r = 1 + 2 sinh^2(r/2) is accurate for small r, where |r| - log 2 + ... would cancel.
    near = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.where(small, r, jnp.zeros_like(r)))))
    far = jnp.abs(r) + jnp.log1p(jnp.exp(-2 * jnp.abs(r))) - math.log(2)
    return jnp.where(small, near, far)


def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Hinge loss per element: max(0, 1 - d f). Its derivative is -d where d f < 1, else 0 (at the kink d f = 1 too).

    Args:
        predictor_outputs: scores f (...), floating.
        targets: labels d, each -1 or +1.

    Example:
        >>> hinge_loss(jnp.array([0.5, 2.0, 0.5]), jnp.array([1, 1, -1]))
        Array([0.5, 0. , 1.5], dtype=float32)

    Reference: Cortes & Vapnik 1995, "Support-vector networks".
    """
    f, d = _scores("hinge_loss", predictor_outputs, targets)
    slack = 1 - d * f
    return jnp.where(slack <= 0, jnp.zeros_like(slack), slack)


def perceptron_loss_each(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """`losses.perceptron_loss` under optax's arguments: max(0, -d f) per element, with derivative -d at f = 0."""
    f, d = _scores("perceptron_loss", predictor_outputs, targets)
    slack = -d * f
    return jnp.where(slack < 0, jnp.zeros_like(slack), slack)


def sigmoid_binary_cross_entropy_each(logits: ArrayLike, labels: ArrayLike) -> Array:
    """`losses.sigmoid_binary_cross_entropy` under optax's arguments, per logit: d log(1 + e^-z) + (1 - d) log(1 + e^z).

    An infinite logit on the side of its label 0 or 1 gives 0. The derivative is sigmoid(z) - d.
    """
    z, d = _logits("sigmoid_binary_cross_entropy", logits, labels)
    return _bernoulli(z, d)


def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: Scalar | None = None, gamma: Scalar = 2.0
) -> Array:
    """Focal loss per logit: a_t (1 - p_t)^gamma H, H the binary cross-entropy, p_t the probability of the label.

    For the label 1, p_t = p = sigmoid(z) and a_t = alpha; for the label 0, 1 - p and 1 - alpha; for labels d between
    them 1 - p_t = d (1 - p) + (1 - d) p and a_t = alpha d + (1 - alpha)(1 - d). The power is taken in the log domain,
    so neither p_t = 1 nor gamma < 1 gives NaN.

    Args:
        logits: z (...), floating.
        labels: d in [0, 1].
        alpha: weight of the label 1, in [0, 1], 1 - alpha that of the label 0; None for no weights.
        gamma: exponent, >= 0; 0 is the binary cross-entropy. May be traced.

    Example:
        >>> sigmoid_focal_loss(jnp.array([0.0, 4.0]), jnp.array([1, 1]))
        Array([1.732868e-01, 5.871571e-06], dtype=float32)

    Reference: Lin et al. 2017, "Focal loss for dense object detection", equation 5.
    """
    z, d = _logits("sigmoid_focal_loss", logits, labels)
    log_p, log_q = -jax.nn.softplus(-z), -jax.nn.softplus(z)
    hard = (d <= 0) | (d >= 1)
    soft = jnp.where(hard, jnp.full_like(d, 0.5), d)
    mixed = jnp.logaddexp(jnp.log1p(-soft) + log_p, jnp.log(soft) + log_q)
    wrong = jnp.where(hard, jnp.where(d <= 0, log_p, log_q), mixed)
    power = jnp.asarray(gamma, z.dtype)
    # 0 * -inf at an infinite logit, for gamma = 0, would be NaN.
    loss = _bernoulli(z, d) * jnp.exp(weighed(jnp.broadcast_to(power, wrong.shape), wrong))
    if alpha is None:
        return loss
    a = jnp.asarray(alpha, z.dtype)
    return (a * d + (1 - a) * (1 - d)) * loss


def _errors(where: str, predictions: ArrayLike, targets: ArrayLike | None) -> Array:
    y = floating(where, "predictions", predictions)
    return y if targets is None else y - fitted(where, y, "targets", targets)


def _scores(where: str, predictor_outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    f = floating(where, "predictor_outputs", predictor_outputs)
    d = fitted(where, f, "targets", targets)
    known = concrete_array(targets)
    if known is None:
        return f, poison(d, jnp.abs(d) == 1)
    wrong = known[np.abs(known.astype(np.float64)) != 1]
    if wrong.size:
        raise ValueError(f"{where}: targets must be -1 or +1, got {wrong.flat[0]}. Map labels 0 and 1 by 2 * y - 1.")
    return f, d


def _logits(where: str, logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    z = floating(where, "logits", logits)
    return z, require_within_unit(where, "labels", labels, fitted(where, z, "labels", labels), LABEL_REMEDY)


def _bernoulli(z: Array, d: Array) -> Array:
    return weighed(d, jax.nn.softplus(-z)) + weighed(1 - d, jax.nn.softplus(z))

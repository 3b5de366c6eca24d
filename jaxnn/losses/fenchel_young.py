"""Fenchel-Young losses under optax's names: of any convex maximum, sparsemax, the perceptron and its margin form.

A Fenchel-Young loss is max_p (<p, z> - R(p)) - (<d, z> - R(d)): the maximum over distributions p, minus the value at
the target d. R = 0 gives the perceptron loss, R = 1/2 |p|^2 the sparsemax loss, the negative entropy the
softmax cross-entropy.

The multi-class losses take scores z (..., K), floating, K >= 2, and labels (...), integers in [0, K), and return (...).
Results are float32 (float64 for float64 scores). ValueError: shapes do not match, K < 2, or a concrete label is out of
range (a traced one gives NaN); TypeError: scores are not floating, labels are not integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnn import checks
from jaxnn.losses.base import as_labels, class_mask, concrete_array, poison
from jaxnn.losses.optax_form import fitted, floating, weighed
from jaxnn.placement import beside
from jaxnn.projections.simplex import nearest_in_simplex
from jaxnn.types import Array, ArrayLike


def make_fenchel_young_loss(max_fun: Callable[..., ArrayLike]) -> Callable[..., Array]:
    """The Fenchel-Young loss of f(z) = max_p <p, z> - R(p): f(z) - <d, z> on the last axis, without the constant R(d).

    Its derivative in z is grad f(z) - d; grad f(z) is the maximizer p.

    Args:
        max_fun: f, from scores (K,) to a number, such as `jax.scipy.special.logsumexp`.

    Returns:
        loss(scores z (..., K), targets d (..., K), *args, **settings) -> (...); f is called as f(z, *args, **settings).

    Raises:
        TypeError: `max_fun` is not a function; from the loss, scores are not floating.
        ValueError: from the loss, shapes do not fit.

    Example:
        >>> from jax.scipy.special import logsumexp
        >>> make_fenchel_young_loss(logsumexp)(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
        Array([0.6931472], dtype=float32)

    Reference: Blondel, Martins & Niculae 2020, "Learning with Fenchel-Young losses", section 3.
    """
    checks.require_function("make_fenchel_young_loss", "max_fun", max_fun, "logsumexp", optional=False)

    def fenchel_young_loss(scores: ArrayLike, targets: ArrayLike, *args: Any, **settings: Any) -> Array:
        z = floating("fenchel_young_loss", "scores", scores)
        if z.ndim == 0:
            raise ValueError("fenchel_young_loss: scores must have a last axis, got a scalar.")
        d = fitted("fenchel_young_loss", z, "targets", targets)
        value = jnp.vectorize(lambda s: max_fun(s, *args, **settings), signature="(n)->()")(z)
        return jnp.asarray(value) - jnp.sum(weighed(d, z), axis=-1)

    return fenchel_young_loss


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Binary sparsemax loss per element: 0 where t <= -1, t where t >= 1, else (t + 1)^2 / 4.

    t = -z for the label 1, z for the label 0. The loss is 0 exactly where the sparse sigmoid clip((z + 1) / 2, 0, 1) is
    the label; it is differentiable everywhere.

    Args:
        logits: z (...), floating.
        labels: 0 or 1, or bools, same shape.

    Example:
        >>> sparsemax_loss(jnp.array([0.0, 3.0, 3.0]), jnp.array([1, 1, 0]))
        Array([0.25, 0.  , 3.  ], dtype=float32)

    Reference: Blondel, Martins & Niculae 2020, "Learning with Fenchel-Young losses", section 4.4.
    """
    z = floating("sparsemax_loss", "logits", logits)
    d = fitted("sparsemax_loss", z, "labels", labels)
    known = concrete_array(labels)
    if known is None:
        d = poison(d, (d == 0) | (d == 1))
    elif (wrong := known[(known != 0) & (known != 1)]).size:
        raise ValueError(f"sparsemax_loss: labels must be 0 or 1, got {np.ravel(wrong)[0]}. (y + 1) / 2 maps -1 to 0.")
    # (1 - 2 d), not a select by d: a NaN label must propagate.
    t = (1 - 2 * d) * z
    bend = jnp.square(0.5 * (jnp.clip(t, -1, 1) + 1))
    return jnp.where(t >= 1, t, bend)


def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Sparsemax loss of scores z (..., K) and labels c (...): <p, z> - z_c + 1/2 (1 - |p|^2).

    p is the distribution nearest to z. The loss is 0 where z_c exceeds all others by at least 1. The derivative is
    p - e_c, e_c one-hot at c.

    Example:
        >>> multiclass_sparsemax_loss(jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([0, 0]))
        Array([0.25, 0.  ], dtype=float32)

    Reference: Martins & Astudillo 2016, "From softmax to sparsemax: a sparse model of attention and multi-label
    classification", equation 18.
    """
    z, right, valid = _classes("multiclass_sparsemax_loss", scores, labels)
    p = nearest_in_simplex(z)
    ahead = z - _at(right, z)[..., None]
    # `weighed`: a score of -inf has p = 0 and must not give 0 * inf.
    return poison(jnp.sum(weighed(p, ahead), axis=-1) + 0.5 * (1 - jnp.sum(jnp.square(p), axis=-1)), valid)


def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Multi-class hinge loss of scores z (..., K) and labels c (...): max(0, 1 + max over k != c of z_k - z_c).

    The derivative is +1 at the first best wrong class and -1 at the label, 0 where the margin is at least 1.

    Example:
        >>> multiclass_hinge_loss(jnp.array([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0]]), jnp.array([0, 1]))
        Array([0. , 1.5], dtype=float32)

    Reference: Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines".
    """
    slack, valid = _slack("multiclass_hinge_loss", scores, labels, 1.0)
    return poison(jnp.where(slack <= 0, jnp.zeros_like(slack), slack), valid)


def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Multi-class perceptron loss of scores z (..., K) and labels c (...): max_k z_k - z_c.

    The derivative is +1 at the first best wrong class and -1 at the label, also where the two tie; 0 where the label's
    score exceeds all others.

    Example:
        >>> multiclass_perceptron_loss(jnp.array([[3.0, 1.0], [3.0, 2.5]]), jnp.array([0, 1]))
        Array([0. , 0.5], dtype=float32)

    Reference: Collins 2002, "Discriminative training methods for hidden Markov models: theory and experiments with
    perceptron algorithms".
    """
    slack, valid = _slack("multiclass_perceptron_loss", scores, labels, 0.0)
    return poison(jnp.where(slack < 0, jnp.zeros_like(slack), slack), valid)


def _classes(where: str, scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, Array]:
    """Scores, the one-hot mask of the labels, and which labels are valid."""
    z = floating(where, "scores", scores)
    if z.ndim == 0 or z.shape[-1] < 2:
        raise ValueError(f"{where}: scores must have at least 2 classes on the last axis, got shape {z.shape}.")
    index, valid = as_labels(where, beside(labels, z), z.shape[:-1], z.shape[-1])
    return z, class_mask(index, z.shape[-1]), valid


def _at(mask: Array, z: Array) -> Array:
    return jnp.sum(jnp.where(mask, z, jnp.zeros_like(z)), axis=-1)


def _slack(where: str, scores: ArrayLike, labels: ArrayLike, margin: float) -> tuple[Array, Array]:
    """margin + best wrong score - score of the label, and which labels are valid."""
    z, right, valid = _classes(where, scores, labels)
    rival = class_mask(jnp.argmax(jnp.where(right, jnp.full_like(z, -jnp.inf), z), axis=-1), z.shape[-1])
    return margin + _at(rival, z) - _at(right, z), valid

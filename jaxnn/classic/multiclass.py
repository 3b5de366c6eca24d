"""The multi-class perceptron: one unit per class, the largest output wins, and a mistake updates two units."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.classic.neurons import as_examples, outputs
from jaxnn.classic.perceptron import Fit, repeat
from jaxnn.losses.base import as_labels
from jaxnn.metrics import predicted_class
from jaxnn.types import Array, ArrayLike


def predict(w: ArrayLike, x: ArrayLike) -> Array:
    """The class of the unit with the largest output: argmax_k w_k.x, the first in a tie.

    Args:
        w: weights (D, K).
        x: features (..., D).

    Returns:
        (...) int32 in 0 .. K - 1; -1 where an output is NaN.

    Reference: Nilsson (1965), Learning machines (linear machines).

    Example:
        >>> predict([[1.0, 0.0, -1.0]], [[2.0], [0.0], [-2.0]])
        Array([0, 0, 2], dtype=int32)
    """
    return predicted_class(outputs("multiclass.predict", w, x))


def update(w: Array, x: Array, label: Array) -> tuple[Array, Array]:
    """The rule on one example: on a mistake w_label <- w_label + x and w_guess <- w_guess - x; else w is unchanged.

    Args:
        w: weights (D, K), w_k column k; guess is the class of `predict`.
        x: features (D,).
        label: class, () int.

    Returns:
        (weights (D, K), whether the example was misclassified, () bool).

    Reference: Nilsson (1965), Learning machines (the fixed-increment rule for R categories).

    Example:
        >>> update(jnp.zeros((1, 3)), jnp.array([2.0]), jnp.array(2))
        (Array([[-2.,  0.,  2.]], dtype=float32), Array(True, dtype=bool))
    """
    guess, classes = predict(w, x).astype(label.dtype), jnp.arange(w.shape[1], dtype=label.dtype)
    move = (classes == label).astype(w.dtype) - (classes == guess).astype(w.dtype)  # 0 where the guess is correct
    return w + x[:, None] * move[None, :], guess != label


def fit(x: ArrayLike, labels: ArrayLike, classes: int, *, passes: int = 1000) -> Fit:
    """The multi-class perceptron: from w = 0, one example after the other, until a pass without a mistake.

    With two classes it makes the mistakes of `perceptron.fit` with class 0 as +1, and w_0 - w_1 is twice its weights.
    On separable examples it makes at most 2 (R / gamma)^2 mistakes, R = max_i |x_i|, gamma the least w_label.x - w_k.x
    over examples and k != label for a separator of norm 1 (Novikoff's proof, with two units updated per mistake).

    Args:
        x: features (N, D), see `neurons.with_bias`.
        labels: (N,), integers in 0 .. classes - 1.
        classes: K >= 2.
        passes: the largest number of passes through all examples.

    Returns:
        perceptron.Fit with w (D, K); its `converged` says whether it converged.

    Raises:
        ValueError: shapes do not match, fewer than 2 classes, or a concrete label is out of range (with a traced one
            the fit does not converge).
        TypeError: labels are not integers.

    Reference: Nilsson (1965), Learning machines; Crammer & Singer (2003), Ultraconservative online algorithms for
        multiclass problems (other ways to distribute an update over the units).

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> found = fit(with_bias([[0], [1], [2]]), jnp.array([0, 1, 2]), 3)
        >>> predict(found.w, with_bias([[0], [1], [2]])).tolist(), bool(found.converged)
        ([0, 1, 2], True)
    """
    features, targets = as_examples("multiclass.fit", x, labels)
    require_positive_int("multiclass.fit", "classes", classes, 2)
    checked, _ = as_labels("multiclass.fit", targets, targets.shape, classes)
    limit = require_positive_int("multiclass.fit", "passes", passes)
    return repeat(update, jnp.zeros((features.shape[1], classes), features.dtype), features, checked, limit)

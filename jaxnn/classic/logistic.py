"""Logistic regression, of two classes and of many, by gradient ASCENT on the log-likelihood.

w <- w + eta sum_i grad log P(y_i | x_i; w), over all N examples (batch: `batch_size=N`), one (stochastic: 1), or a
random subset (mini-batch). The sum is not divided by the number of examples: eta is the weight of one example whatever
the batch size, and batch ascent on many examples needs a small eta.

Features x are (N, D), with the constant feature of `neurons.with_bias` for a bias, weights w (D,) and labels (N,), each
-1 or +1, or each 0 or 1; for K classes weights are (D, K) and labels integers in 0 .. K - 1. ValueError: shapes do not
match, a concrete label is out of range (a traced one gives NaN), or batch_size is not in 1 .. N; TypeError: labels of
classes are not integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_between, require_key, require_positive_int
from jaxnn.classic.neurons import as_binary, as_examples, outputs
from jaxnn.data import Partial, batch_indices
from jaxnn.losses.base import as_labels
from jaxnn.types import Array, ArrayLike, DType, Key, Scalar

Each: TypeAlias = Callable[[Array, Array, Array], Array]
"""(w, x (B, D), y) -> a value per example (B,), or K of them (B, K); y is (B,), for K classes one-hot (B, K)."""


class Fit(NamedTuple):
    """The result of gradient ascent.

    Attributes:
        w: weights, (D,); (D, K) for K classes.
        log_likelihood: (epochs + 1,), of all examples, in nats, at the start and after each epoch (`trace`: after each
            update).
    """

    w: Array
    log_likelihood: Array


def probability(w: ArrayLike, x: ArrayLike) -> Array:
    """P(+1 | x; w) = sigmoid(w.x).

    Args:
        w: weights (D,).
        x: features (..., D).

    Returns:
        (...), in [0, 1].

    Reference: Cox (1958), The regression analysis of binary sequences.

    Example:
        >>> probability([1.0, 1.0], [[0.0, 0.0], [1.0, 2.0]])
        Array([0.5      , 0.95257413], dtype=float32)
    """
    return jax.nn.sigmoid(outputs("logistic", w, x))


def log_likelihood(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """sum_i log P(y_i | x_i; w) = sum_i log sigmoid(y_i w.x_i).

    Returns:
        (), in nats, at most 0.

    Reference: Cox (1958), The regression analysis of binary sequences.

    Example:
        >>> log_likelihood([0.0], [[1.0], [2.0]], [1, -1])
        Array(-1.3862944, dtype=float32)
    """
    return jnp.sum(_log_probability(jnp.asarray(w), *as_binary("logistic.log_likelihood", x, y)))


def gradient(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """Gradient of the log-likelihood: sum_i P(-y_i | x_i; w) y_i x_i, with P(-y | x; w) = sigmoid(-y w.x).

    Returns:
        (D,), the direction of ascent.

    Reference: Cox (1958), The regression analysis of binary sequences.

    Example:
        >>> gradient([0.0], [[1.0], [2.0]], [1, -1])
        Array([-0.5], dtype=float32)
    """
    features, signs = as_binary("logistic.gradient", x, y)
    return _pull(features, _surprise(jnp.asarray(w), features, signs))


def fit(x: ArrayLike, y: ArrayLike, *, key: Key, learning_rate: Scalar, epochs: int, batch_size: int) -> Fit:
    """Logistic regression of two classes, from w = 0.

    On separable examples its supremum is 0, which the log-likelihood approaches as the weights grow without bound.

    Args:
        x, y: features (N, D) and labels (N,), -1 and +1 or 0 and 1.
        key: typed random key of the order of the examples, new in each epoch.
        learning_rate: eta; may be traced.
        epochs: passes through all examples.
        batch_size: N for batch, 1 for stochastic ascent; a last batch may be smaller.

    Returns:
        Fit with w (D,).

    Reference: Cox (1958), The regression analysis of binary sequences; Robbins & Monro (1951), A stochastic
        approximation method.

    Example:
        >>> x, y = [[1.0, -1.0], [1.0, 0.5], [1.0, 1.0]], [-1, -1, 1]
        >>> found = fit(x, y, key=jax.random.key(0), learning_rate=0.1, epochs=9, batch_size=3)
        >>> print(f"{found.log_likelihood[0]:.2f} {found.log_likelihood[9]:.2f}")
        -2.08 -1.59

        The constant feature alone learns the prior of the classes: its weight is the log odds log(30 / 10) = 1.0986, so
        that P(1) = 3/4 for every example.

        >>> constant, y = jnp.ones((40, 1)), jnp.array([1] * 30 + [0] * 10)
        >>> prior = fit(constant, y, key=jax.random.key(0), learning_rate=0.1, epochs=50, batch_size=40)
        >>> prior.w.round(4), probability(prior.w, [1.0]).round(4)
        (Array([1.0986], dtype=float32), Array(0.75, dtype=float32))
    """
    features, signs = as_binary("logistic.fit", x, y)
    _require("logistic.fit", features, key, learning_rate, epochs, batch_size)
    start, rate = jnp.zeros_like(features[0]), jnp.asarray(learning_rate, features.dtype)
    return _ascend(_log_probability, _surprise, start, features, signs, key, rate, epochs, batch_size)


def trace(x: ArrayLike, y: ArrayLike, *, key: Key, learning_rate: Scalar, epochs: int, batch_size: int) -> Fit:
    """The ascent of `fit`, with the log-likelihood of all examples after every update instead of every epoch.

    Args:
        x, y, key, learning_rate, epochs, batch_size: as for `fit`.

    Returns:
        Fit with w (D,), that of `fit`, and log_likelihood (epochs ceil(N / batch_size) + 1,).

    Example:
        >>> x, y = [[1.0, -1.0], [1.0, 0.5], [1.0, 1.0]], [-1, -1, 1]
        >>> trace(x, y, key=jax.random.key(0), learning_rate=0.1, epochs=2, batch_size=1).log_likelihood.shape
        (7,)
    """
    features, signs = as_binary("logistic.trace", x, y)
    _require("logistic.trace", features, key, learning_rate, epochs, batch_size)
    start, rate = jnp.zeros_like(features[0]), jnp.asarray(learning_rate, features.dtype)
    return _ascend(_log_probability, _surprise, start, features, signs, key, rate, epochs, batch_size, every=True)


def softmax_probability(w: ArrayLike, x: ArrayLike) -> Array:
    """P(k | x; w) = softmax of w_k.x over the classes k.

    Args:
        w: weights (D, K).
        x: features (..., D).

    Returns:
        (..., K), each row adding up to 1.

    Reference: Cox (1966), Some procedures connected with the logistic qualitative response curve (several outcomes).

    Example:
        >>> softmax_probability([[1.0, 0.0]], [[0.0], [2.0]])
        Array([[0.5       , 0.5       ],
               [0.880797  , 0.11920291]], dtype=float32)
    """
    return jax.nn.softmax(outputs("logistic", w, x), axis=-1)


def softmax_log_likelihood(w: ArrayLike, x: ArrayLike, labels: ArrayLike) -> Array:
    """sum_i log P(label_i | x_i; w) = sum_i (w_label.x_i - log sum_k exp w_k.x_i).

    Returns:
        (), in nats, at most 0.

    Reference: Cox (1966), Some procedures connected with the logistic qualitative response curve.

    Example:
        >>> softmax_log_likelihood(jnp.zeros((1, 4)), [[1.0], [2.0]], jnp.array([3, 0]))
        Array(-2.7725887, dtype=float32)
    """
    weights = jnp.asarray(w)
    return jnp.sum(_log_softmax(weights, *_as_classes("logistic.softmax_log_likelihood", x, labels, weights.shape[-1])))


def softmax_gradient(w: ArrayLike, x: ArrayLike, labels: ArrayLike) -> Array:
    """Gradient of the log-likelihood: sum_i x_i (d_i - softmax(w'x_i))', d_i one-hot at the label.

    Returns:
        (D, K), the direction of ascent.

    Reference: Bridle (1990), Probabilistic interpretation of feedforward classification network outputs.

    Example:
        >>> softmax_gradient(jnp.zeros((1, 2)), [[1.0]], jnp.array([1]))
        Array([[-0.5,  0.5]], dtype=float32)
    """
    weights = jnp.asarray(w)
    features, d = _as_classes("logistic.softmax_gradient", x, labels, weights.shape[-1])
    return _pull(features, _softmax_surprise(weights, features, d))


def softmax_fit(
    x: ArrayLike, labels: ArrayLike, classes: int, *, key: Key, learning_rate: Scalar, epochs: int, batch_size: int
) -> Fit:
    """Logistic regression of several classes, from w = 0.

    Args:
        classes: K >= 2.
        key, learning_rate, epochs, batch_size: as for `fit`.

    Returns:
        Fit with w (D, K); `multiclass.predict(w, x)` returns the most likely class.

    Reference: Cox (1966), Some procedures connected with the logistic qualitative response curve; Bridle (1990),
        Probabilistic interpretation of feedforward classification network outputs.

    Example:
        >>> found = softmax_fit([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]], jnp.array([0, 1, 2]), 3, key=jax.random.key(0),
        ...                     learning_rate=1.0, epochs=50, batch_size=1)
        >>> softmax_probability(found.w, [1.0, 1.0]).argmax()
        Array(2, dtype=int32)
    """
    require_positive_int("logistic.softmax_fit", "classes", classes, 2)
    features, d = _as_classes("logistic.softmax_fit", x, labels, classes)
    _require("logistic.softmax_fit", features, key, learning_rate, epochs, batch_size)
    start = jnp.zeros((features.shape[1], classes), features.dtype)
    rate = jnp.asarray(learning_rate, features.dtype)
    return _ascend(_log_softmax, _softmax_surprise, start, features, d, key, rate, epochs, batch_size)


def _log_probability(w: Array, x: Array, y: Array) -> Array:
    """log P(y | x; w) of each example, (B,)."""
    return jax.nn.log_sigmoid(y * outputs("logistic", w, x))


def _surprise(w: Array, x: Array, y: Array) -> Array:
    """The derivative of each log P(y | x; w) in the output w.x, (B,): P(-y | x) y."""
    return jax.nn.sigmoid(-y * outputs("logistic", w, x)) * y


def _log_softmax(w: Array, x: Array, d: Array) -> Array:
    """log P(label | x; w) of each example, (B,); d is 1 at the label."""
    return jnp.sum(d * jax.nn.log_softmax(outputs("logistic", w, x), axis=-1), axis=-1)


def _softmax_surprise(w: Array, x: Array, d: Array) -> Array:
    """The derivative of each log P(label | x; w) in the outputs w_k.x, (B, K): d - P(. | x)."""
    return d - jax.nn.softmax(outputs("logistic", w, x), axis=-1)


def _pull(x: Array, surprise: Array) -> Array:
    """sum_i x_i surprise_i': (D,) or (D, K)."""
    return jnp.matmul(x.T, surprise, precision="highest")


def _as_classes(where: str, x: ArrayLike, labels: ArrayLike, classes: int) -> tuple[Array, Array]:
    """Features (N, D) and targets (N, K), 1 at the label; NaN for a traced label out of range."""
    features, targets = as_examples(where, x, labels)
    numbers, valid = as_labels(where, targets, targets.shape, classes)
    return features, _one_hot(numbers, valid, classes, features.dtype)


@functools.partial(jax.jit, static_argnames=("classes", "dtype"))
def _one_hot(labels: Array, valid: Array, classes: int, dtype: DType) -> Array:
    """(N, K), 1 at the label; NaN where it is not valid."""
    return jnp.where(valid[:, None], jax.nn.one_hot(labels, classes, dtype=dtype), jnp.nan)


def _require(where: str, x: Array, key: Key, learning_rate: Scalar, epochs: int, batch_size: int) -> None:
    require_key(where, key)
    require_between(where, "learning_rate", learning_rate, 0, float("inf"), open_high=True)
    require_positive_int(where, "epochs", epochs)
    if require_positive_int(where, "batch_size", batch_size) > x.shape[0]:
        raise ValueError(f"{where}: batch_size must be at most the number of examples, {x.shape[0]}, got {batch_size}.")


@functools.partial(jax.jit, static_argnames=("log_probability", "surprise", "epochs", "batch_size", "every"))
def _ascend(
    log_probability: Each,
    surprise: Each,
    w: Array,
    x: Array,
    y: Array,
    key: Key,
    learning_rate: Array,
    epochs: int,
    batch_size: int,
    every: bool = False,
) -> Fit:
    """Ascent from w; the log-likelihood after each epoch, or after every update."""

    def height(w: Array) -> Array:
        return jnp.sum(log_probability(w, x, y))

    def step(w: Array, batch: tuple[Array, Array]) -> tuple[Array, Array | None]:
        index, weight = batch
        pulls = surprise(w, x[index], y[index])
        weighted = pulls * weight.astype(x.dtype).reshape(weight.shape + (1,) * (pulls.ndim - 1))
        w = w + learning_rate * _pull(x[index], weighted)
        return w, height(w) if every else None

    def epoch(w: Array, key: Key) -> tuple[Array, Array]:
        w, values = lax.scan(step, w, batch_indices(key, x.shape[0], batch_size, partial=Partial.WEIGHT))
        return w, height(w)[None] if values is None else values

    start = height(w)
    w, values = lax.scan(epoch, w, jax.random.split(key, epochs))
    return Fit(w, jnp.concatenate([start[None], values.reshape(-1)]))

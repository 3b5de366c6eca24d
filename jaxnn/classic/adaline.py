"""The delta rule (ADALINE): a linear unit trained on the squared error, for regression and for classification.

`fit` takes features (N, D), with the constant feature of `neurons.with_bias` for a bias. For classification the targets
are -1 and +1, and `perceptron.predict` returns the class.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_between, require_positive_int
from jaxnn.classic.neurons import as_examples
from jaxnn.types import Array, ArrayLike, Scalar


class Fit(NamedTuple):
    """The result of the delta rule.

    Attributes:
        w: weights (D,), float32 (float64 for float64 features).
        errors: (passes,), the mean of 1/2 (d - w.x)^2 over each pass, each example before its update. With a learning
            rate that is too large they overflow to inf and NaN.
    """

    w: Array
    errors: Array


def delta_rule(w: Array, x: Array, d: Array, *, learning_rate: Scalar) -> Array:
    """One step of the delta rule: w <- w + eta (d - w.x) x, gradient descent on 1/2 (d - w.x)^2 of one example.

    The error d - w.x is multiplied by 1 - eta |x|^2: its magnitude shrinks if 0 < eta |x|^2 < 2.

    Args:
        w: weights (D,).
        x: features (D,).
        d: desired output, ().
        learning_rate: eta; may be traced.

    Reference: Widrow & Hoff (1960), Adaptive switching circuits.

    Example:
        >>> delta_rule(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array(3.0), learning_rate=0.1)
        Array([0.3, 0.6], dtype=float32)
    """
    return w + learning_rate * (d - jnp.dot(w, x, precision="highest")) * x


def fit(x: ArrayLike, d: ArrayLike, *, learning_rate: Scalar, passes: int) -> Fit:
    """The delta rule from w = 0, cycling through the examples in order.

    With a small constant eta the weights converge to a cycle of N steps, which shrinks to the least-squares solution of
    smallest norm as eta -> 0. If w.x = d has an exact solution, they converge to one for 0 < eta |x|^2 < 2, every x.

    Args:
        x: features (N, D).
        d: desired outputs (N,): real numbers (regression), or -1 and +1 (classification).
        learning_rate: eta; may be traced.
        passes: number of passes through all examples.

    Raises:
        TypeError: x or d is not real, the learning rate not one number, or passes not an integer.
        ValueError: shapes do not fit, x is not finite, the learning rate is negative or infinite, or passes < 1.

    Reference: Widrow & Hoff (1960), Adaptive switching circuits.

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> x = jnp.array([[-1.0], [0.0], [1.0]])
        >>> fit(with_bias(x), 2 * x[:, 0] + 1, learning_rate=0.5, passes=40).w.round(3)
        Array([1., 2.], dtype=float32)
    """
    features, targets = as_examples("adaline.fit", x, d)
    require_between("adaline.fit", "learning_rate", learning_rate, 0, float("inf"), open_high=True)
    count = require_positive_int("adaline.fit", "passes", passes)
    rate = jnp.asarray(learning_rate, features.dtype)
    return _fit(features, targets.astype(features.dtype), rate, count)


def smallest_step(w: Array, x: Array, y: Array, *, learning_rate: Scalar = 1.0) -> Array:
    """The delta rule for one weight and one input: w <- w + eta (y - yhat) x, yhat = w x.

    Gradient descent on 1/2 (y - yhat)^2, whose derivative in w is -(y - yhat) x. Each step multiplies the error on one
    example by 1 - eta x^2: to 0 for eta x^2 = 1; its magnitude does not shrink for eta x^2 >= 2.

    Args:
        w: the weight, ().
        x: the input, ().
        y: the desired output, ().
        learning_rate: eta; may be traced.

    Reference: Widrow & Hoff (1960), Adaptive switching circuits.

    Example:
        >>> float(smallest_step(jnp.array(0.0), jnp.array(0.5), jnp.array(2.0)))
        1.0
    """
    return w + learning_rate * (y - w * x) * x


def two_parameter_step(w: Array, b: Array, x: Array, y: Array, *, learning_rate: Scalar = 1.0) -> tuple[Array, Array]:
    """`smallest_step` with a bias: w <- w + eta (y - yhat) x and b <- b + eta (y - yhat), yhat = w x + b.

    Gradient descent on 1/2 (y - yhat)^2 in (w, b); the bias is the weight of an input that is always 1.

    Args:
        w, b: the weight and the bias, ().
        x: the input, ().
        y: the desired output, ().
        learning_rate: eta; may be traced.

    Reference: Widrow & Hoff (1960), Adaptive switching circuits.

    Example:
        >>> w, b = two_parameter_step(jnp.array(0.0), jnp.array(0.0), jnp.array(0.5), jnp.array(2.0))
        >>> float(w), float(b)
        (1.0, 2.0)
    """
    error = y - (w * x + b)
    return w + learning_rate * error * x, b + learning_rate * error


@functools.partial(jax.jit, static_argnames="passes")
def _fit(x: Array, d: Array, learning_rate: Array, passes: int) -> Fit:
    def step(w: Array, example: tuple[Array, Array]) -> tuple[Array, Array]:
        features, target = example
        error = 0.5 * jnp.square(target - jnp.dot(w, features, precision="highest"))
        return delta_rule(w, features, target, learning_rate=learning_rate), error

    def one_pass(w: Array, _: None) -> tuple[Array, Array]:
        w, errors = lax.scan(step, w, (x, d))
        return w, jnp.mean(errors)

    return Fit(*lax.scan(one_pass, jnp.zeros_like(x[0]), length=passes))

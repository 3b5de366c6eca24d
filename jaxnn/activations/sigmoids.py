"""Smooth steps and their integral: sigmoid, tanh, softplus."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.activations.base import elementwise
from jaxnn.types import Array


@elementwise
def sigmoid(z: Array) -> Array:
    """The logistic function.

    a = 1 / (1 + exp(-z)); a in [0, 1], no overflow for any finite z

    Example:
        >>> sigmoid(jnp.array([-1e4, 0.0, 1e4]))
        Array([0. , 0.5, 1. ], dtype=float32)

    Reference: Rumelhart, Hinton & Williams (1986), Learning representations by back-propagating errors, equation 2.
    """
    return jax.lax.logistic(z)


@elementwise
def sigmoid_derivative(z: Array) -> Array:
    """d sigmoid / dz = s (1 - s), s = sigmoid(z), in [0, 1/4].

    Example:
        >>> sigmoid_derivative(jnp.array([-1e4, 0.0, 1e4]))
        Array([0.  , 0.25, 0.  ], dtype=float32)
    """
    s = jax.lax.logistic(z)
    return s * (1 - s)


@elementwise
def tanh(z: Array) -> Array:
    """The hyperbolic tangent.

    a = (exp(z) - exp(-z)) / (exp(z) + exp(-z)) = 2 sigmoid(2 z) - 1; a in [-1, 1]

    Example:
        >>> tanh(jnp.array([-1e4, 0.0, 1e4]))
        Array([-1.,  0.,  1.], dtype=float32)

    Reference: LeCun, Bottou, Orr & Müller (1998), Efficient BackProp, section 4.4.
    """
    return jnp.tanh(z)


@elementwise
def tanh_derivative(z: Array) -> Array:
    """d tanh / dz = 1 - tanh(z)^2.

    Example:
        >>> tanh_derivative(jnp.array([-1e4, 0.0, 1e4]))
        Array([0., 1., 0.], dtype=float32)
    """
    t = jnp.tanh(z)
    return (1 + t) * (1 - t)  # 1 - t^2 would round t^2 first and lose digits near |t| = 1


@elementwise
def softplus(z: Array) -> Array:
    """The smooth ReLU.

    a = log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)); a >= 0, no overflow for any finite z

    Example:
        >>> softplus(jnp.array([-1e4, 1e4]))
        Array([    0., 10000.], dtype=float32)

    Reference: Dugas, Bengio, Bélisle, Nadeau & Garcia (2001), Incorporating second-order functional knowledge for
        better option pricing.
    """
    return jnp.logaddexp(z, jnp.zeros_like(z))


@elementwise
def softplus_derivative(z: Array) -> Array:
    """d softplus / dz = sigmoid(z).

    Example:
        >>> softplus_derivative(jnp.array([-1e4, 0.0, 1e4]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jax.lax.logistic(z)

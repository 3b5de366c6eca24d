"""Self-gated units, z times a smooth step of z: GELU (erf and tanh), SiLU, Mish. Smooth everywhere."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn.activations.base import elementwise
from jaxnn.types import Array

GELU_CUBIC = 0.044715
"""Coefficient of z^3 in the tanh form of GELU (Hendrycks & Gimpel 2016, section 2)."""


@elementwise
def gelu(z: Array) -> Array:
    """The Gaussian error linear unit, erf form.

    a = z Phi(z), Phi(z) = (1 + erf(z / sqrt 2)) / 2 = erfc(-z / sqrt 2) / 2; a >= -0.17

    Example:
        >>> gelu(jnp.array([-1e4, 0.0, 1e4]))
        Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Hendrycks & Gimpel (2016), Gaussian error linear units, section 2.
    """
    return z * _normal_cdf(z)


@elementwise
def gelu_derivative(z: Array) -> Array:
    """d gelu / dz = Phi(z) + z phi(z), phi(z) = exp(-z^2 / 2) / sqrt(2 pi).

    Example:
        >>> gelu_derivative(jnp.array([-1e4, 0.0, 1e4]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return _normal_cdf(z) + z * jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)


@elementwise
def gelu_tanh(z: Array) -> Array:
    """The Gaussian error linear unit, tanh form: within 5e-4 of the erf form.

    a = z (1 + tanh u) / 2 = z sigmoid(2 u), u = sqrt(2 / pi) (z + 0.044715 z^3)

    Example:
        >>> gelu_tanh(jnp.array([-1e4, 0.0, 1e4]))
        Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Hendrycks & Gimpel (2016), Gaussian error linear units, section 2.
    """
    return z * jax.lax.logistic(_gelu_gate(z))  # 1 + tanh u would cancel for z < 0


@elementwise
def gelu_tanh_derivative(z: Array) -> Array:
    """d gelu_tanh / dz = s + z s (1 - s) 2 du/dz, s = sigmoid(2 u), du/dz = sqrt(2 / pi) (1 + 3 0.044715 z^2).

    Example:
        >>> gelu_tanh_derivative(jnp.array([-1e4, 0.0, 1e4]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    s = jax.lax.logistic(_gelu_gate(z))
    gate_slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * GELU_CUBIC * z * z)
    return s + z * s * (1 - s) * gate_slope


@elementwise
def silu(z: Array) -> Array:
    """The sigmoid-weighted linear unit, also called swish.

    a = z sigmoid(z); a >= -0.28

    Example:
        >>> silu(jnp.array([-1e4, 0.0, 1e4]))
        Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Elfwing, Uchibe & Doya (2018), Sigmoid-weighted linear units for neural network function approximation in
        reinforcement learning.
    """
    return z * jax.lax.logistic(z)


@elementwise
def silu_derivative(z: Array) -> Array:
    """d silu / dz = s (1 + z (1 - s)), s = sigmoid(z).

    Example:
        >>> silu_derivative(jnp.array([0.0, 1e4]))
        Array([0.5, 1. ], dtype=float32)
    """
    s = jax.lax.logistic(z)
    return s * (1 + z * (1 - s))


@elementwise
def mish(z: Array) -> Array:
    """The Mish unit: z times tanh of softplus.

    a = z tanh(softplus(z)) = z tanh(log(1 + exp(z))); a >= -0.31

    Example:
        >>> mish(jnp.array([-1e4, 0.0, 1e4]))
        Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Misra (2020), Mish: a self regularized non-monotonic activation function, equation 1.
    """
    return z * jnp.tanh(jnp.logaddexp(z, jnp.zeros_like(z)))


@elementwise
def mish_derivative(z: Array) -> Array:
    """d mish / dz = t + z (1 - t^2) sigmoid(z), t = tanh(softplus(z)).

    Example:
        >>> mish_derivative(jnp.array([0.0, 1e4]))
        Array([0.6, 1. ], dtype=float32)
    """
    t = jnp.tanh(jnp.logaddexp(z, jnp.zeros_like(z)))
    return t + z * ((1 + t) * (1 - t)) * jax.lax.logistic(z)  # z (1 + t) first would overflow: inf 0 = NaN


def _normal_cdf(z: Array) -> Array:
    return jax.lax.erfc(-z / math.sqrt(2)) / 2  # (1 + erf) / 2 would cancel for z < 0


def _gelu_gate(z: Array) -> Array:
    return 2 * math.sqrt(2 / math.pi) * (z + GELU_CUBIC * z * z * z)

"""Rectifiers: ReLU, its square, leaky ReLU, ELU, SELU. At z = 0 each has the derivative of its branch z <= 0."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.activations.base import elementwise, real_setting
from jaxnn.types import Array, Scalar

SELU_ALPHA = 1.6732632423543772848170429916717
"""alpha for which mean 0 and variance 1 are a fixed point of SELU (Klambauer et al. 2017, equation 14)."""

SELU_SCALE = 1.0507009873554804934193349852946
"""lambda of the same fixed point."""


@elementwise
def relu(z: Array) -> Array:
    """The rectified linear unit, with derivative 0 at the kink z = 0.

    a = max(z, 0); a >= 0

    Example:
        >>> relu(jnp.array([-2.0, 0.0, 3.0]))
        Array([0., 0., 3.], dtype=float32)

    Reference: Nair & Hinton (2010), Rectified linear units improve restricted Boltzmann machines.
    """
    return jnp.where(z <= 0, 0.0, z)  # jnp.maximum has derivative 1/2 at 0; `z <= 0` (not `z > 0`) propagates NaN


@elementwise
def relu_derivative(z: Array) -> Array:
    """d relu / dz = 1 if z > 0, else 0: 0 at the kink z = 0, as in jax.nn and torch; some texts have 1 there.

    Example:
        >>> relu_derivative(jnp.array([-2.0, 0.0, 3.0]))
        Array([0., 0., 1.], dtype=float32)
    """
    return jnp.where(z <= 0, jnp.zeros_like(z), jnp.ones_like(z))


@elementwise
def relu_squared(z: Array) -> Array:
    """The square of the rectified linear unit: its derivative is continuous, 0 at z = 0.

    a = max(z, 0)^2; a >= 0

    Example:
        >>> relu_squared(jnp.array([-2.0, 0.0, 3.0]))
        Array([0., 0., 9.], dtype=float32)

    Reference: So, Manke, Liu, Dai, Shazeer & Le (2021), Primer: searching for efficient transformers for language
        modeling, section 4.2.
    """
    kept = jnp.where(z <= 0, jnp.zeros_like(z), z)
    return kept * kept


@elementwise
def relu_squared_derivative(z: Array) -> Array:
    """d relu_squared / dz = 2 max(z, 0).

    Example:
        >>> relu_squared_derivative(jnp.array([-2.0, 0.0, 3.0]))
        Array([0., 0., 6.], dtype=float32)
    """
    return 2 * jnp.where(z <= 0, jnp.zeros_like(z), z)


@elementwise
def leaky_relu(z: Array, *, negative_slope: Scalar = 0.01) -> Array:
    """The leaky rectifier, with derivative negative_slope at the kink z = 0.

    a = z if z > 0, negative_slope z if z <= 0

    Args:
        negative_slope: slope of the left branch, any real number; 0 makes it `relu`. May be traced.

    Example:
        >>> leaky_relu(jnp.array([-2.0, 0.0, 3.0]), negative_slope=0.5)
        Array([-1.,  0.,  3.], dtype=float32)

    Reference: Maas, Hannun & Ng (2013), Rectifier nonlinearities improve neural network acoustic models, equation 2.
    """
    slope = real_setting("leaky_relu", "negative_slope", negative_slope, z.dtype)
    return jnp.where(z <= 0, slope * z, z)


@elementwise
def leaky_relu_derivative(z: Array, *, negative_slope: Scalar = 0.01) -> Array:
    """d leaky_relu / dz = 1 if z > 0, else negative_slope: that at the kink z = 0 too (as in torch; jax.nn has 1).

    Example:
        >>> leaky_relu_derivative(jnp.array([-2.0, 0.0, 3.0]), negative_slope=0.5)
        Array([0.5, 0.5, 1. ], dtype=float32)
    """
    slope = real_setting("leaky_relu", "negative_slope", negative_slope, z.dtype)
    return jnp.where(z <= 0, slope, 1.0)


@elementwise
def elu(z: Array, *, alpha: Scalar = 1.0) -> Array:
    """The exponential linear unit, with derivative alpha at z = 0.

    a = z if z > 0, alpha (exp(z) - 1) if z <= 0

    Args:
        alpha: the limit at z = -infinity is -alpha. May be traced.

    Example:
        >>> elu(jnp.array([-1e4, 0.0, 3.0]), alpha=2.0)
        Array([-2.,  0.,  3.], dtype=float32)

    Reference: Clevert, Unterthiner & Hochreiter (2016), Fast and accurate deep network learning by exponential linear
        units, equation 15.
    """
    return _elu(z, real_setting("elu", "alpha", alpha, z.dtype))


@elementwise
def elu_derivative(z: Array, *, alpha: Scalar = 1.0) -> Array:
    """d elu / dz = 1 if z > 0, else alpha exp(z): alpha at z = 0, which is a kink unless alpha = 1.

    Example:
        >>> elu_derivative(jnp.array([-1e4, 0.0, 3.0]), alpha=2.0)
        Array([0., 2., 1.], dtype=float32)
    """
    return _elu_derivative(z, real_setting("elu", "alpha", alpha, z.dtype))


@elementwise
def selu(z: Array) -> Array:
    """The self-normalizing ELU.

    a = lambda z if z > 0, lambda alpha (exp(z) - 1) if z <= 0, with lambda = 1.0507..., alpha = 1.6733...; a >= -1.7581

    Example:
        >>> selu(jnp.array([-1e4, 0.0, 1.0]))
        Array([-1.7580993,  0.       ,  1.050701 ], dtype=float32)

    Reference: Klambauer, Unterthiner, Mayr & Hochreiter (2017), Self-normalizing neural networks, equation 2.
    """
    return SELU_SCALE * _elu(z, jnp.asarray(SELU_ALPHA, z.dtype))


@elementwise
def selu_derivative(z: Array) -> Array:
    """d selu / dz = lambda if z > 0, else lambda alpha exp(z): lambda alpha = 1.7581 at the kink z = 0.

    Example:
        >>> selu_derivative(jnp.array([-1e4, 0.0, 1.0]))
        Array([0.       , 1.7580993, 1.050701 ], dtype=float32)
    """
    return SELU_SCALE * _elu_derivative(z, jnp.asarray(SELU_ALPHA, z.dtype))


def _elu(z: Array, alpha: Array) -> Array:
    # The inner where keeps expm1 finite in the unselected branch: inf there would make the gradient 0 * inf = NaN.
    return jnp.where(z > 0, z, alpha * jnp.expm1(jnp.where(z > 0, 0.0, z)))


def _elu_derivative(z: Array, alpha: Array) -> Array:
    return jnp.where(z > 0, 1.0, alpha * jnp.exp(jnp.where(z > 0, 0.0, z)))

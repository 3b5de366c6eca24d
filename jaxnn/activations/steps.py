"""Step and piecewise-linear functions: sign, Heaviside, linear, piecewise linear, hard tanh."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.activations.base import elementwise, real_setting
from jaxnn.checks import require_between
from jaxnn.types import Array, Scalar


@elementwise
def sign(z: Array) -> Array:
    """The sign, with sign(0) = 0.

    a = 1 if z > 0, 0 if z = 0, -1 if z < 0

    A unit that must output one of two classes, also at z = 0, uses `perceptron_sign`: 1 if z >= 0, -1 if z < 0.

    Example:
        >>> sign(jnp.array([-2.0, 0.0, 3.0]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    return jnp.sign(z)


@elementwise
def sign_derivative(z: Array) -> Array:
    """d sign / dz = 0, at the jump z = 0 too.

    Example:
        >>> sign_derivative(jnp.array([-2.0, 0.0]))
        Array([0., 0.], dtype=float32)
    """
    return jnp.zeros_like(z)


@elementwise
def perceptron_sign(z: Array) -> Array:
    """The perceptron's sign, with sign(0) = +1: the output is always one of the two classes.

    a = 1 if z >= 0, -1 if z < 0

    `sign` has sign(0) = 0.

    Example:
        >>> perceptron_sign(jnp.array([-2.0, 0.0, 3.0]))
        Array([-1.,  1.,  1.], dtype=float32)

    Reference: Rosenblatt (1958), The perceptron: a probabilistic model for information storage and organization in the
        brain.
    """
    return jnp.where(z == 0, 1.0, jnp.sign(z))  # jnp.sign propagates NaN; a comparison alone would hide it


@elementwise
def perceptron_sign_derivative(z: Array) -> Array:
    """d perceptron_sign / dz = 0, at the jump z = 0 too.

    Example:
        >>> perceptron_sign_derivative(jnp.array([-2.0, 0.0]))
        Array([0., 0.], dtype=float32)
    """
    return jnp.zeros_like(z)


@elementwise
def heaviside(z: Array, *, at_zero: Scalar = 0.5) -> Array:
    """The unit step, with value 1/2 at 0 unless `at_zero` says otherwise.

    a = 1 if z > 0, at_zero if z = 0, 0 if z < 0

    Args:
        at_zero: the value at the jump, in [0, 1]. The threshold unit of McCulloch and Pitts takes 1, as it fires at its
            threshold, and so do the networks of `jaxnn.classic.threshold`; the unit step of signal processing 1/2, the
            default; some texts 0. May be traced.

    Example:
        >>> heaviside(jnp.array([-2.0, 0.0, 3.0]), at_zero=1)
        Array([0., 1., 1.], dtype=float32)

    Reference: McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity.
    """
    value = real_setting("heaviside", "at_zero", at_zero, z.dtype)
    require_between("heaviside", "at_zero", at_zero, 0, 1)
    return jnp.where(z == 0, value, (jnp.sign(z) + 1) / 2)


@elementwise
def heaviside_derivative(z: Array, *, at_zero: Scalar = 0.5) -> Array:
    """d heaviside / dz = 0, at the jump z = 0 too.

    Example:
        >>> heaviside_derivative(jnp.array([-2.0, 0.0]))
        Array([0., 0.], dtype=float32)
    """
    real_setting("heaviside", "at_zero", at_zero, z.dtype)
    require_between("heaviside", "at_zero", at_zero, 0, 1)
    return jnp.zeros_like(z)


@elementwise
def linear(z: Array) -> Array:
    """The identity, a = z.

    Example:
        >>> linear(jnp.array([-2.0, 3.0]))
        Array([-2.,  3.], dtype=float32)
    """
    return z


@elementwise
def linear_derivative(z: Array) -> Array:
    """dz / dz = 1.

    Example:
        >>> linear_derivative(jnp.array([-2.0, 3.0]))
        Array([1., 1.], dtype=float32)
    """
    return jnp.ones_like(z)


@elementwise
def piecewise_linear(z: Array) -> Array:
    """A ramp of slope 1 between two plateaus.

    a = 0 if z <= -1/2, z + 1/2 if -1/2 < z < 1/2, 1 if z >= 1/2

    Example:
        >>> piecewise_linear(jnp.array([-2.0, 0.0, 0.25, 3.0]))
        Array([0.  , 0.5 , 0.75, 1.  ], dtype=float32)
    """
    return jnp.where(z <= -0.5, 0.0, jnp.where(z >= 0.5, 1.0, z + 0.5))


@elementwise
def piecewise_linear_derivative(z: Array) -> Array:
    """d piecewise_linear / dz = 1 if -1/2 < z < 1/2, else 0: 0 at both kinks.

    Example:
        >>> piecewise_linear_derivative(jnp.array([-0.5, 0.0, 0.5]))
        Array([0., 1., 0.], dtype=float32)
    """
    return (jnp.abs(z) < 0.5).astype(z.dtype)


@elementwise
def hard_tanh(z: Array) -> Array:
    """z clipped to [-1, 1].

    a = -1 if z <= -1, z if -1 < z < 1, 1 if z >= 1; a in [-1, 1]

    Example:
        >>> hard_tanh(jnp.array([-2.0, 0.5, 3.0]))
        Array([-1. ,  0.5,  1. ], dtype=float32)

    Reference: Collobert (2004), Large scale machine learning, PhD thesis.
    """
    return jnp.where(z <= -1, -1.0, jnp.where(z >= 1, 1.0, z))


@elementwise
def hard_tanh_derivative(z: Array) -> Array:
    """d hard_tanh / dz = 1 if -1 < z < 1, else 0: 0 at both kinks (as in torch; jax.nn has 1 there).

    Example:
        >>> hard_tanh_derivative(jnp.array([-1.0, 0.0, 1.0]))
        Array([0., 1., 0.], dtype=float32)
    """
    return (jnp.abs(z) < 1).astype(z.dtype)

"""The orthogonal initializer."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn.initializers.base import Initializer, arguments, require_number, require_two_axes
from jaxnn.types import Array, DTypeLike, Key, Scalar, Shape


def orthogonal(gain: Scalar = 1.0) -> Initializer:
    """A random orthogonal matrix (Haar measure), times `gain`.

    With W = weight.reshape(prod(shape[:-1]), shape[-1]), (fan_in, out):
    W' W = gain^2 I if fan_in >= out (orthonormal columns), W W' = gain^2 I if fan_in <= out (orthonormal rows)

    This W is (in, out), for y = x W; that of y = W a, for a column a, is its transpose.

    W, or W' if fan_in < out, is gain Q diag(sign(diag R)) for Z = Q R, Z standard normal; without the signs the
    distribution of Q would depend on the convention of the QR routine. Factorized in float32 (float64 for float64).

    Args:
        gain: the norm of the orthogonal columns or rows, e.g. sqrt(2) before a ReLU. May be traced.

    Raises:
        TypeError: gain is a string or None.
        ValueError: gain has axes; from the initializer, a shape with fewer than 2 axes.

    Example:
        >>> w = orthogonal()(jax.random.key(0), (4, 2))
        >>> jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-6)
        Array(True, dtype=bool)

    Reference: Saxe, McClelland & Ganguli (2014), Exact solutions to the nonlinear dynamics of learning in deep linear
        neural networks. Mezzadri (2007), How to generate random matrices from the classical compact groups, section 5.
    """
    require_number("orthogonal", "gain", gain)

    def init(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        shape, wide = arguments("orthogonal", key, shape, dtype)
        require_two_axes("orthogonal", shape)
        if 0 in shape:
            return jnp.zeros(shape, dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        z = jax.random.normal(key, (max(rows, columns), min(rows, columns)), wide)
        q, r = jnp.linalg.qr(z)
        q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(wide)[None, :]
        w = q if rows >= columns else q.T
        return (jnp.asarray(gain).astype(wide) * w.reshape(shape)).astype(dtype)

    return init

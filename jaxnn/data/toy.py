"""Toy data sets in few dimensions, each a pure function of a key.

`key` is a random key, n >= 1 the number of points, which take the classes (in `xor` the corners) in turn, `noise` the
standard deviation of the noise. Unless stated otherwise, the points are x (n, 2), float32 (float64 if `jax.enable_x64`
is on), and their labels y (n,), int32 in 0 .. classes - 1. ValueError: n < 1, fewer than 2 arms, or `centers` or
`weights` of another shape than stated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.data.dataset import Dataset
from jaxnn.types import Array, ArrayLike, Key, Scalar

_TWO = ("0", "1")


def two_moons(key: Key, n: int, *, noise: Scalar = 0.1) -> Dataset:
    """Two interleaved half circles of radius 1: class 0 the upper about (0, 0), class 1 the lower about (1, 1/2).

    x = (cos t, sin t) or (1 - cos t, 1/2 - sin t), t ~ U(0, pi), plus `noise` N(0, I).

    Example:
        >>> jax.jit(two_moons, static_argnums=1)(jax.random.key(0), 4).y
        Array([0, 1, 0, 1], dtype=int32)
    """
    y, (angle_key, noise_key) = _labels("two_moons", n, 2), jax.random.split(key)
    t = jax.random.uniform(angle_key, (n,), maxval=jnp.pi)
    first = y == 0
    clean = jnp.stack(
        [jnp.where(first, jnp.cos(t), 1 - jnp.cos(t)), jnp.where(first, jnp.sin(t), 0.5 - jnp.sin(t))], axis=1
    )
    return Dataset(clean + noise * jax.random.normal(noise_key, (n, 2)), y, "two-moons", _TWO)


def spirals(key: Key, n: int, *, classes: int = 2, turns: Scalar = 1.5, noise: Scalar = 0.02) -> Dataset:
    """Spiral arms about the origin, one per class, rotated by 2 pi / classes from one to the next.

    x = r (sin t, cos t), r ~ U(0, 1), t = 2 pi (turns r + class / classes), plus `noise` N(0, I).

    Args:
        classes: number of arms, >= 2.
        turns: revolutions of an arm around the origin.

    Example:
        >>> jax.eval_shape(lambda key: spirals(key, 3, classes=3), jax.random.key(0)).classes
        ('0', '1', '2')

    Reference: Lang & Witbrock 1988, "Learning to tell two spirals apart" (with regular spacing and three turns).
    """
    require_positive_int("spirals", "classes", classes, 2)
    y, (radius_key, noise_key) = _labels("spirals", n, classes), jax.random.split(key)
    r = jax.random.uniform(radius_key, (n,))
    t = 2 * jnp.pi * (turns * r + y.astype(r.dtype) / classes)
    clean = r[:, None] * jnp.stack([jnp.sin(t), jnp.cos(t)], axis=1)
    names = tuple(str(c) for c in range(classes))
    return Dataset(clean + noise * jax.random.normal(noise_key, (n, 2)), y, "spirals", names)


def xor(key: Key, n: int, *, noise: Scalar = 0.1) -> Dataset:
    """The exclusive or: corners (+-1, +-1), class 1 where the signs differ, plus `noise` N(0, I).

    Args:
        n: number of points, corners (-1, -1), (-1, 1), (1, -1), (1, 1) in turn.
        noise: standard deviation of the noise; 0 gives the truth table.

    Example:
        >>> jax.jit(xor, static_argnums=1)(jax.random.key(0), 4).y
        Array([0, 1, 1, 0], dtype=int32)

    Reference: Minsky & Papert 1969, "Perceptrons": no single linear threshold computes it.
    """
    corner = _labels("xor", n, 4)
    bits = jnp.stack([corner // 2, corner % 2], axis=1)
    spread = noise * jax.random.normal(key, (n, 2))
    clean = 2 * bits.astype(spread.dtype) - 1
    return Dataset(clean + spread, bits[:, 0] ^ bits[:, 1], "xor", _TWO)


def blobs(key: Key, n: int, *, centers: ArrayLike, deviation: Scalar = 1.0) -> Dataset:
    """Gaussian blobs: class k is N(centers[k], deviation^2 I).

    Args:
        centers: (K, D), the mean of each class.
        deviation: standard deviation in each direction.

    Returns:
        x (n, D) in the dtype of `centers` (float32 for integers), y (n,) in 0 .. K - 1.

    Example:
        >>> jax.jit(lambda key: blobs(key, 4, centers=[[0.0, 0.0], [9.0, 9.0]]))(jax.random.key(0)).x.shape
        (4, 2)
    """
    means = jnp.asarray(centers)
    if means.ndim != 2:
        raise ValueError(f"blobs: centers must have shape (K, D), one row for each class, got {means.shape}.")
    means = means if jnp.issubdtype(means.dtype, jnp.floating) else means.astype(jnp.float32)
    y = _labels("blobs", n, len(means))
    spread = deviation * jax.random.normal(key, (n, means.shape[1]), means.dtype)
    return Dataset(means[y] + spread, y, "blobs", tuple(str(c) for c in range(len(means))))


def linear_regression(key: Key, n: int, *, weights: ArrayLike, bias: Scalar = 0.0, noise: Scalar = 0.1) -> Dataset:
    """Targets y = weights . x + bias + noise N(0, 1) at x ~ N(0, I).

    Args:
        weights: (D,), the true weights.
        bias: the true bias.
        noise: standard deviation of the noise on y.

    Returns:
        x (n, D) and y (n,), in the dtype of `weights` (float32 for integers); no classes.

    Example:
        >>> jax.jit(lambda key: linear_regression(key, 5, weights=[2.0, -1.0]))(jax.random.key(0)).y.shape
        (5,)
    """
    n, truth = require_positive_int("linear_regression", "n", n), jnp.asarray(weights)
    if truth.ndim != 1:
        raise ValueError(f"linear_regression: weights must have shape (D,), got {truth.shape}.")
    truth = truth if jnp.issubdtype(truth.dtype, jnp.floating) else truth.astype(jnp.float32)
    input_key, noise_key = jax.random.split(key)
    x = jax.random.normal(input_key, (n, len(truth)), truth.dtype)
    y = jnp.matmul(x, truth, precision="highest") + bias + noise * jax.random.normal(noise_key, (n,), truth.dtype)
    return Dataset(x, y, "linear-regression")


def _labels(where: str, n: int, classes: int) -> Array:
    """0, 1, .., classes - 1, 0, 1, ..: n labels, int32."""
    return jnp.arange(require_positive_int(where, "n", n), dtype=jnp.int32) % classes

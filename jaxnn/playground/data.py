"""The six data sets of TensorFlow Playground by its published formulas, each a pure function of a key.

Points lie in the plane, most of them within [-6, 6] in each coordinate. Targets are real: -1 or +1 for classification,
any number for regression. `noise` is nu, the original's percentage divided by 100: 0 to 0.5; may be traced. Where the
formula says so, it perturbs the location at which the label is evaluated, not the point itself. `key` is a typed random
key, n the number of points: a Dataset without class names, x (n, 2) and y (n,) in the default float dtype. ValueError:
noise outside [0, 0.5], n below 1, or odd n for `circle`, `gauss` and `spiral`, which have halves.

Reference for all: Smilkov, D., Carter, S., Sculley, D., Viegas, F. B. & Wattenberg, M. (2017). Direct-manipulation
visualization of deep networks; its data sets are src/dataset.ts of github.com/tensorflow/playground.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_positive_int
from jaxnn.data import Dataset
from jaxnn.types import Array, Key, Scalar

MAX_NOISE = 0.5
"""The largest noise of the original: 50 percent."""

CENTRES = ((-4.0, 2.5), (0.0, 2.5), (4.0, 2.5), (-4.0, -2.5), (0.0, -2.5), (4.0, -2.5))
"""Centres of the hills and hollows of `reg_gauss`."""

SIGNS = (1.0, -1.0, 1.0, -1.0, 1.0, -1.0)
"""+1 for a hill, -1 for a hollow."""

Problem = Literal["classification", "regression"]


class Source(NamedTuple):
    """A data set: its function, its kind of problem, and the original's number of points."""

    make: Callable[..., Dataset]
    problem: Problem
    points: int


def circle(key: Key, n: int = 500, *, noise: Scalar = 0.0) -> Dataset:
    """A disc (label +1) within a ring (-1). Noise perturbs the location at which the label is evaluated, not the point.

    r ~ U(0, 2.5) for the first half, U(3.5, 5) for the second, t ~ U(0, 2 pi), p = (r sin t, r cos t);
    label +1 if |p + nu e| < 2.5, e ~ U(-5, 5)^2, else -1.

    Example:
        >>> circle(jax.random.key(0), 4).y
        Array([ 1.,  1., -1., -1.], dtype=float32)
    """
    half = _half("circle", n, noise)
    radius_key, angle_key, noise_key = jax.random.split(key, 3)
    share = jax.random.uniform(radius_key, (2, half))
    r = jnp.concatenate([2.5 * share[0], 3.5 + 1.5 * share[1]])
    x = _polar(r, _uniform(angle_key, (n,), 0.0, 2 * jnp.pi))
    seen = x + noise * _uniform(noise_key, x.shape, -5.0, 5.0)
    return Dataset(x, _sign(jnp.square(seen).sum(axis=1) < 2.5**2, x), "circle")


def xor(key: Key, n: int = 500, *, noise: Scalar = 0.0) -> Dataset:
    """Four squares, +1 where the coordinates have the same sign, with a gap of 0.6 between them. Noise flips labels.

    x_i = u_i + 0.3 if u_i > 0 else u_i - 0.3, u ~ U(-5, 5)^2; label +1 if the product of the coordinates of x + nu e is
    >= 0, e ~ U(-5, 5)^2, else -1.

    Example:
        >>> bool(jnp.abs(xor(jax.random.key(0), 50).x).min() > 0.3)
        True
    """
    _check("xor", n, noise)
    point_key, noise_key = jax.random.split(key)
    clean = _uniform(point_key, (n, 2), -5.0, 5.0)
    x = clean + jnp.where(clean > 0, 0.3, -0.3).astype(clean.dtype)
    seen = x + noise * _uniform(noise_key, x.shape, -5.0, 5.0)
    return Dataset(x, _sign(seen[:, 0] * seen[:, 1] >= 0, x), "xor")


def gauss(key: Key, n: int = 500, *, noise: Scalar = 0.0) -> Dataset:
    """Two isotropic Gaussians: the first half at (2, 2), label +1, the second at (-2, -2), label -1.

    The VARIANCE of each coordinate is 0.5 + 7 nu.

    Example:
        >>> gauss(jax.random.key(0), 4).y
        Array([ 1.,  1., -1., -1.], dtype=float32)
    """
    half = _half("gauss", n, noise)
    spread = jnp.sqrt(0.5 + 7 * noise) * jax.random.normal(key, (n, 2))
    y = _halves(half, spread)
    return Dataset(2 * y[:, None] + spread, y, "gauss")


def spiral(key: Key, n: int = 500, *, noise: Scalar = 0.0) -> Dataset:
    """Two spiral arms of 1.75 turns. Noise moves the points.

    r = 5 i / h, t = 3.5 pi i / h + {0, pi}, i = 0 .. h - 1, h = n / 2; point (r sin t, r cos t) + nu U(-1, 1)^2; the
    first arm is +1, the second, turned by pi, -1.

    Example:
        >>> spiral(jax.random.key(0), 4).x.round(2)
        Array([[ 0.  ,  0.  ],
               [-1.77,  1.77],
               [ 0.  , -0.  ],
               [ 1.77, -1.77]], dtype=float32)
    """
    half = _half("spiral", n, noise)
    shift = _uniform(key, (n, 2), -1.0, 1.0)
    i = jnp.arange(half, dtype=shift.dtype) / half
    arm = 3.5 * jnp.pi * i
    clean = _polar(jnp.tile(5 * i, 2), jnp.concatenate([arm, arm + jnp.pi]))
    return Dataset(clean + noise * shift, _halves(half, shift), "spiral")


def reg_plane(key: Key, n: int = 1200, *, noise: Scalar = 0.0) -> Dataset:
    """A plane: target (x_1 + x_2) / 10, evaluated at a location perturbed by the noise.

    x ~ U(-6, 6)^2; target the sum of the coordinates of x + nu e, over 10, e ~ U(-6, 6)^2.

    Example:
        >>> made = reg_plane(jax.random.key(0), 5)
        >>> bool(jnp.allclose(made.y, made.x.sum(axis=1) / 10))
        True
    """
    x, seen = _square("reg_plane", key, n, noise)
    return Dataset(x, seen.sum(axis=1) / 10, "reg-plane")


def reg_gauss(key: Key, n: int = 1200, *, noise: Scalar = 0.0) -> Dataset:
    """Three hills and three hollows, alternating in two rows; targets are evaluated at a location perturbed by noise.

    x ~ U(-6, 6)^2; target SIGNS[k] max(1 - d_k / 2, 0), d_k the distance of x + nu e, e ~ U(-6, 6)^2, from the nearest
    of the `CENTRES`, number k; 0 farther than 2 from all.

    Example:
        >>> reg_gauss(jax.random.key(0), 5).x.shape
        (5, 2)
    """
    x, seen = _square("reg_gauss", key, n, noise)
    away = seen[:, None, :] - jnp.array(CENTRES, x.dtype)[None]
    height = jnp.clip(1 - jnp.sqrt(jnp.square(away).sum(axis=2)) / 2, 0, 1)
    nearest = jnp.argmax(height, axis=1)
    return Dataset(x, jnp.array(SIGNS, x.dtype)[nearest] * height.max(axis=1), "reg-gauss")


SOURCES = MappingProxyType(
    {
        "circle": Source(circle, "classification", 500),
        "xor": Source(xor, "classification", 500),
        "gauss": Source(gauss, "classification", 500),
        "spiral": Source(spiral, "classification", 500),
        "reg-plane": Source(reg_plane, "regression", 1200),
        "reg-gauss": Source(reg_gauss, "regression", 1200),
    }
)
"""The data sets by their names on the command line."""


def _check(where: str, n: int, noise: Scalar, minimum: int = 1) -> None:
    require_positive_int(where, "n", n, minimum)
    require_between(where, "noise", noise, 0, MAX_NOISE)


def _half(where: str, n: int, noise: Scalar) -> int:
    """n / 2."""
    _check(where, n, noise, 2)
    if n % 2:
        raise ValueError(f"{where}: n must be even, half of the points for each label, got {n}.")
    return n // 2


def _uniform(key: Key, shape: tuple[int, ...], low: float, high: float) -> Array:
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def _polar(r: Array, t: Array) -> Array:
    """(r sin t, r cos t): angles are measured from the top."""
    return jnp.stack([r * jnp.sin(t), r * jnp.cos(t)], axis=1)


def _sign(positive: Array, like: Array) -> Array:
    return jnp.where(positive, 1.0, -1.0).astype(like.dtype)


def _halves(half: int, like: Array) -> Array:
    """+1 for the first half, -1 for the second."""
    return _sign(jnp.arange(2 * half) < half, like)


def _square(where: str, key: Key, n: int, noise: Scalar) -> tuple[Array, Array]:
    """Points (n, 2) uniform on [-6, 6]^2, and the locations (n, 2) at which their targets are evaluated."""
    _check(where, n, noise)
    point_key, noise_key = jax.random.split(key)
    x = _uniform(point_key, (n, 2), -6.0, 6.0)
    return x, x + noise * _uniform(noise_key, x.shape, -6.0, 6.0)

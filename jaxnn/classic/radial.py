"""Radial basis networks: a hidden layer of Gaussian units about centres, and linear outputs by least squares.

y(x) = b + sum_m w_m e^(-|x - c_m|^2 / (2 width^2)). Once the centres c (M, D) and the width are fixed, the outputs are
linear in w and b, and training is one linear system. Inputs x are (N, D), in float32 (float64 for float64 x).
ValueError: shapes do not match, or concrete values are not finite.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import as_array, require_between, require_positive_int
from jaxnn.classic.kernel import gaussian, squared_distances
from jaxnn.classic.neurons import as_rows, require_finite, with_bias
from jaxnn.losses.base import as_targets
from jaxnn.types import Array, ArrayLike, Scalar


class Network(NamedTuple):
    """A network: centres (M, D), width (), and the output weights w (M + 1,) or (M + 1, K), the first the bias."""

    centres: Array
    width: Array
    w: Array


def kmeans(x: ArrayLike, centres: ArrayLike, *, steps: int = 100) -> Array:
    """Lloyd's algorithm: each centre moves to the mean of the points nearest to it, until none moves.

    The sum of squared distances of the points to their nearest centres never rises. A centre without points stays; of
    equally near centres the first counts.

    Args:
        x: points (N, D).
        centres: initial ones (M, D), e.g. `jax.random.choice(key, x, (M,), replace=False)`.
        steps: the largest number of steps.

    Returns:
        centres (M, D).

    Reference: Lloyd, S. P. (1982). Least squares quantization in PCM. Moody, J. & Darken, C. J. (1989). Fast learning
        in networks of locally-tuned processing units (for the centres of a network).

    Example:
        >>> kmeans([[0.0], [1.0], [9.0], [11.0]], [[0.0], [1.0]])
        Array([[ 0.5],
               [10. ]], dtype=float32)
    """
    rows, first = as_rows("radial.kmeans", "x", x), as_rows("radial.kmeans", "centres", centres)
    if rows.shape[1] != first.shape[1]:
        raise ValueError(
            f"radial.kmeans: x (N, D) and centres (M, D) must agree in D, got {rows.shape}, {first.shape}."
        )
    limit = min(require_positive_int("radial.kmeans", "steps", steps), 2**31 - 1)  # the largest int32
    return _kmeans(rows, first.astype(rows.dtype), limit)


def spacing(centres: ArrayLike) -> Array:
    """The mean distance from a centre to the nearest other one: a width at which neighbouring Gaussians overlap.

    Args:
        centres: (M, D), M at least 2.

    Returns:
        ().

    Reference: Moody & Darken (1989), as above.

    Example:
        >>> spacing([[0.0], [1.0], [2.0], [7.0]])
        Array(2., dtype=float32)
    """
    points = as_rows("radial.spacing", "centres", centres)
    if len(points) < 2:
        raise ValueError("radial.spacing: needs at least 2 centres, got 1. Choose a width for a single one.")
    others = squared_distances(points, points) + jnp.diag(jnp.full(len(points), jnp.inf, points.dtype))
    return jnp.mean(jnp.sqrt(jnp.min(others, axis=1)))


def features(x: ArrayLike, centres: ArrayLike, *, width: Scalar) -> Array:
    """The constant feature and the outputs of the Gaussian units: (1, e^(-|x - c_m|^2 / (2 width^2)), ..), (N, M + 1).

    Args:
        width: > 0, the standard deviation of each Gaussian; may be traced.

    Reference: Broomhead, D. S. & Lowe, D. (1988). Multivariable functional interpolation and adaptive networks.

    Example:
        >>> features([[1.0], [99.0]], [[1.0]], width=1.0)
        Array([[1., 1.],
               [1., 0.]], dtype=float32)
    """
    return with_bias(gaussian(x, centres, width=width))


def fit(x: ArrayLike, y: ArrayLike, *, centres: ArrayLike, width: Scalar, penalty: Scalar = 0.0) -> Network:
    """Least squares for the output weights: minimize sum_i |y_i - y(x_i)|^2 + penalty sum_m |w_m|^2.

    With a centre at every example and no penalty the network interpolates: the matrix of Gaussians at distinct points
    is not singular. It may be ill-conditioned; use float64 or a penalty then.

    Args:
        y: targets (N,), or (N, K), e.g. one-hot classes.
        centres: (M, D).
        width: > 0; may be traced.
        penalty: >= 0, on the weights, not on the bias; may be traced.

    Returns:
        Network.

    Reference: Broomhead & Lowe (1988), as above. Micchelli, C. A. (1986). Interpolation of scattered data: distance
        matrices and conditionally positive definite functions.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([1.0, -1.0, 2.0])
        >>> predict(fit(x, y, centres=x, width=1.0), x).round(3)
        Array([ 1., -1.,  2.], dtype=float32)
    """
    phi = features(x, centres, width=width)
    w = output_weights(phi, y, penalty=penalty)
    return Network(jnp.asarray(centres, phi.dtype), jnp.asarray(width, phi.dtype), w)


def output_weights(phi: ArrayLike, y: ArrayLike, *, penalty: Scalar = 0.0) -> Array:
    """The weights of linear outputs: minimize |phi w - y|^2 + penalty |w without its first row|^2.

    Args:
        phi: features (N, M), the first of them the constant one.
        y: targets (N,) or (N, K).
        penalty: >= 0; may be traced.

    Returns:
        w (M,) or (M, K). Where several fit equally well, that of smallest norm.

    Reference: Hoerl, A. E. & Kennard, R. W. (1970). Ridge regression: biased estimation for nonorthogonal problems.

    Example:
        >>> output_weights([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], [1.0, 3.0, 5.0]).round(3)
        Array([1., 2.], dtype=float32)
    """
    require_between("output_weights", "penalty", penalty, 0, float("inf"), open_high=True)
    rows = as_rows("output_weights", "phi", phi)
    targets = as_targets("output_weights", as_array("output_weights", "y", y), rows.dtype)
    if targets.ndim not in (1, 2) or len(targets) != len(rows):
        raise ValueError(f"output_weights: y must be ({len(rows)},) or ({len(rows)}, K), got {targets.shape}.")
    require_finite("output_weights", "y", targets.reshape(len(targets), -1))
    return _solve(rows, targets, jnp.asarray(penalty, rows.dtype))


def predict(network: Network, x: ArrayLike) -> Array:
    """y(x) of inputs (N, D): (N,) or (N, K).

    Example:
        >>> predict(Network(jnp.zeros((1, 1)), jnp.array(1.0), jnp.array([3.0, 2.0])), [[0.0]])
        Array([5.], dtype=float32)
    """
    phi = features(x, network.centres, width=network.width)
    if jnp.shape(network.w)[:1] != phi.shape[1:]:
        raise ValueError(
            f"radial.predict: expected output weights (M + 1, ...) for M = {phi.shape[1] - 1} centres, got "
            f"{jnp.shape(network.w)}."
        )
    return jnp.matmul(phi, network.w.astype(phi.dtype), precision="highest")


@jax.jit
def _solve(phi: Array, y: Array, penalty: Array) -> Array:
    # The penalty as rows of the system: normal equations would square its singular values.
    root = jnp.sqrt(penalty) * jnp.eye(phi.shape[1], dtype=phi.dtype)[1:]
    padded = jnp.pad(y, [(0, len(root)), (0, 0)][: y.ndim])
    return jnp.linalg.lstsq(jnp.concatenate([phi, root]), padded)[0]


@jax.jit
def _kmeans(x: Array, centres: Array, steps: int) -> Array:
    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        centres, count, _ = carry
        nearest = jnp.argmin(squared_distances(x, centres), axis=1)
        member = jax.nn.one_hot(nearest, len(centres), dtype=x.dtype)
        sizes = jnp.sum(member, axis=0)[:, None]
        means = jnp.matmul(member.T, x, precision="highest") / jnp.maximum(sizes, 1)
        moved = jnp.where(sizes > 0, means, centres)
        return moved, count + 1, jnp.any(moved != centres)

    start = (centres, jnp.int32(0), jnp.array(True))
    return lax.while_loop(lambda carry: carry[2] & (carry[1] < steps), step, start)[0]

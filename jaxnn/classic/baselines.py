"""Baselines for networks: linear least squares, for all classes at once or in pairs, and nearest neighbours.

Both are matrix products on the device: the least-squares weights come from the Gram matrix of all features (of the
features of each class, for pairs), the distances to all points from one product per batch of queries. ValueError:
shapes do not match, k or a concrete label or ridge is out of range (a traced label out of range belongs to no class),
or concrete features, queries or points are not finite; TypeError: labels are not integers, or `pairwise_predict` gets
another number of features than w has rows. Arithmetic is in float32, or float64 for float64 features.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.checks import require_positive, require_positive_int
from jaxnn.classic.neurons import as_examples, require_finite
from jaxnn.losses.base import as_labels
from jaxnn.numerics import accumulate
from jaxnn.types import Array, ArrayLike, Scalar


def least_squares(x: ArrayLike, labels: ArrayLike, classes: int, *, ridge: Scalar = 1e-3) -> Array:
    """The linear classifier of least squared error on targets +1 for the class and -1 for the others.

    w = argmin (1/N) sum_i |w'x_i - d_i|^2 + ridge |w|^2, from the normal equations by Cholesky's factorization

    Args:
        x: features (N, D), of about unit size; see `neurons.with_bias`.
        labels: (N,), integers in 0 .. classes - 1.
        classes: K >= 2.
        ridge: > 0, small against the mean square of the features; keeps the Gram matrix of constant pixels
            well-conditioned in float32. May be traced.

    Returns:
        w (D, K); `multiclass.predict(w, x)` returns the class of the largest output.

    Reference: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition, section
        III.C.1 (the linear classifier); Hoerl & Kennard (1970), Ridge regression.

    Example:
        >>> least_squares([[1.0, -1.0], [1.0, 1.0]], jnp.array([0, 1]), 2, ridge=1e-6).round(3)
        Array([[ 0.,  0.],
               [-1.,  1.]], dtype=float32)
    """
    features, numbers = _classified("baselines.least_squares", x, labels, classes, ridge)
    return _least_squares(features, numbers, jnp.asarray(ridge, features.dtype), classes)


def pairwise_least_squares(x: ArrayLike, labels: ArrayLike, classes: int, *, ridge: Scalar = 1e-3) -> Array:
    """A least-squares unit for each pair of classes a < b, fitted to +1 on examples of a and -1 on those of b.

    All K (K - 1) / 2 units come from the K Gram matrices of the single classes, added in pairs.

    Args:
        x, labels, classes, ridge: as for `least_squares`; labels concrete, because the number of
            examples per class decides the shapes.

    Returns:
        w (D, K (K - 1) / 2), pairs in the order (0, 1), (0, 2), .., (1, 2), ..; for `pairwise_predict`.

    Reference: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition, section
        III.C.1 (the pairwise linear classifier).

    Example:
        >>> pairwise_least_squares([[1.0, 0.0], [1.0, 1.0], [1.0, 5.0]], jnp.array([0, 1, 2]), 3).shape
        (2, 3)
    """
    features, numbers = _classified("baselines.pairwise_least_squares", x, labels, classes, ridge)
    known = np.asarray(numbers)
    counts, order = np.bincount(known, minlength=classes), np.argsort(known, kind="stable")
    # Every class is padded to the size of the largest with rows of weight 0, so that one program serves all.
    starts = np.cumsum(counts) - counts
    rows = np.take(order, starts[:, None] + np.arange(counts.max()), mode="clip")
    parts = [_class_sums(features, *part) for part in zip(rows, counts, strict=True)]
    sums, grams = (jnp.stack(part) for part in zip(*parts, strict=True))
    pairs = np.stack(_pairs(classes), axis=1)
    return _solve_pairs(pairs, counts, sums, grams, jnp.asarray(ridge, features.dtype))


def pairwise_predict(w: ArrayLike, x: ArrayLike, classes: int) -> Array:
    """The class of the largest sum of pairwise votes in [-1, 1]: argmax_a sum_b clip(w_ab.x, -1, 1), w_ba = -w_ab.

    Args:
        w: (D, K (K - 1) / 2), from `pairwise_least_squares`.
        x: features (N, D).
        classes: K >= 2.

    Returns:
        (N,) int32; ties go to the first class.

    Reference: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition, section
        III.C.1 (there the outputs of a class's units are summed, with a sigmoid in place of the clip).

    Example:
        >>> x, labels = [[1.0, 0.0], [1.0, 1.0], [1.0, 5.0]], jnp.array([0, 1, 2])
        >>> pairwise_predict(pairwise_least_squares(x, labels, 3), x, 3)
        Array([0, 1, 2], dtype=int32)
    """
    require_positive_int("baselines.pairwise_predict", "classes", classes, 2)
    features = accumulate(jnp.asarray(x))
    weights = jnp.asarray(w, features.dtype)
    first, second = _pairs(classes)
    if weights.shape[-1] != len(first):
        raise ValueError(
            f"baselines.pairwise_predict: w must have {len(first)} columns, one per pair of {classes} classes, "
            f"got {weights.shape}."
        )
    duels = np.eye(classes)[first] - np.eye(classes)[second]
    won = jnp.clip(jnp.matmul(features, weights, precision="highest"), -1, 1)
    return jnp.argmax(jnp.matmul(won, jnp.asarray(duels, features.dtype)), axis=-1).astype(jnp.int32)


def nearest(x: ArrayLike, points: ArrayLike, *, k: int, batch_size: int = 500) -> Array:
    """The k nearest points to each query, by Euclidean distance: one matrix product per batch.

    |x - p|^2 = |x|^2 - 2 x.p + |p|^2; the first term is the same for all points and is omitted. In float32, rounding
    (about 1e-7 of the two terms) decides between points whose squared distances differ by less.

    Args:
        x: queries (N, D), real.
        points: (M, D), real; cast to the dtype of the queries (float32 for half precision and integers).
        k: number of neighbours, 1 .. M.
        batch_size: queries at a time, each with M distances; bounds the memory, the result is the same up to rounding.

    Returns:
        (N, k) int32, indices of points, the nearest first; ties go to the first point.

    Reference: Cover & Hart (1967), Nearest neighbor pattern classification.

    Example:
        >>> nearest([[0.9], [5.0]], [[0.0], [1.0], [4.0]], k=2)
        Array([[1, 0],
               [2, 1]], dtype=int32)
    """
    queries = accumulate(jnp.asarray(x))
    stored = jnp.asarray(points, queries.dtype)
    if queries.ndim != 2 or stored.ndim != 2 or queries.shape[1] != stored.shape[1] or not queries.shape[0]:
        raise ValueError(
            f"baselines.nearest: expected x (N, D) and points (M, D), got {queries.shape} and {stored.shape}. Flatten "
            "images by x.reshape(len(x), -1)."
        )
    require_finite("baselines.nearest", "x", queries)
    require_finite("baselines.nearest", "points", stored)
    if require_positive_int("baselines.nearest", "k", k) > stored.shape[0]:
        raise ValueError(f"baselines.nearest: k must be at most the number of points, {stored.shape[0]}, got {k}.")
    size = min(require_positive_int("baselines.nearest", "batch_size", batch_size), queries.shape[0])
    return _nearest(queries, stored, k, size)


def vote(labels: ArrayLike, classes: int) -> Array:
    """The most frequent class among the neighbours; of tied classes the one whose nearest member is nearest.

    Args:
        labels: (N, k) integers in 0 .. classes - 1, the labels of each query's neighbours, the nearest first.
        classes: K.

    Returns:
        (N,) int32.

    Reference: Cover & Hart (1967), Nearest neighbor pattern classification.

    Example:
        >>> vote(jnp.array([[2, 0, 1], [2, 0, 0], [1, 0, 0]]), 3)
        Array([2, 0, 0], dtype=int32)
    """
    neighbours = jnp.asarray(labels)
    if neighbours.ndim != 2 or not neighbours.shape[1]:
        raise ValueError(f"baselines.vote: labels must have shape (N, k), k >= 1, got {neighbours.shape}.")
    require_positive_int("baselines.vote", "classes", classes)
    neighbours, _ = as_labels("baselines.vote", neighbours, neighbours.shape, classes)
    k = neighbours.shape[1]
    member = neighbours[:, :, None] == jnp.arange(classes)[None, None, :]
    # A vote counts k + 1, minus the rank of the class's nearest neighbour, at most k: it only breaks ties.
    score = (k + 1) * jnp.sum(member, axis=1, dtype=jnp.int32)
    rank = jnp.where(jnp.any(member, axis=1), jnp.argmax(member, axis=1), k)
    return jnp.argmax(score - rank.astype(jnp.int32), axis=1).astype(jnp.int32)


def _classified(where: str, x: ArrayLike, labels: ArrayLike, classes: int, ridge: Scalar) -> tuple[Array, Array]:
    """Features (N, D) and labels (N,), checked."""
    features, targets = as_examples(where, x, labels)
    require_positive_int(where, "classes", classes, 2)
    require_positive(where, "ridge", ridge)
    return features, as_labels(where, targets, targets.shape, classes)[0]


def _pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs a < b of classes, as two arrays."""
    first, second = np.array(list(itertools.combinations(range(classes), 2))).T
    return first, second


def _solve(gram: Array, ridge: Array, right: Array) -> Array:
    """(gram + ridge I)^-1 right, gram (D, D) positive semidefinite, right (D,) or (D, K)."""
    factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(gram), dtype=gram.dtype))
    return jax.scipy.linalg.cho_solve(factor, right)


@functools.partial(jax.jit, static_argnames="classes")
def _least_squares(x: Array, labels: Array, ridge: Array, classes: int) -> Array:
    d = 2 * jax.nn.one_hot(labels, classes, dtype=x.dtype) - 1
    gram, right = (jnp.matmul(x.T, a, precision="highest") / len(x) for a in (x, d))
    return _solve(gram, ridge, right)


@jax.jit
def _class_sums(x: Array, rows: Array, count: Array) -> tuple[Array, Array]:
    """The sum of x (D,) and of x x' (D, D) over the first `count` of some rows."""
    inside = (jnp.arange(len(rows)) < count).astype(x.dtype)
    mine = x[rows] * inside[:, None]
    return jnp.sum(mine, axis=0), jnp.matmul(mine.T, mine, precision="highest")


@jax.jit
def _solve_pairs(pairs: Array, counts: Array, sums: Array, grams: Array, ridge: Array) -> Array:
    def of_pair(pair: Array) -> Array:
        a, b = pair
        n = jnp.maximum(counts[a] + counts[b], 1).astype(sums.dtype)
        return _solve((grams[a] + grams[b]) / n, ridge, (sums[a] - sums[b]) / n)

    return lax.map(of_pair, pairs).T


@functools.partial(jax.jit, static_argnames=("k", "size"))
def _nearest(x: Array, points: Array, k: int, size: int) -> Array:
    squares = jnp.sum(jnp.square(points), axis=1)

    def of_batch(rows: Array) -> Array:
        products = jnp.matmul(rows, points.T, precision="highest")
        _, which = lax.top_k(2 * products - squares[None, :], k)  # of equal values the first comes first
        return which

    n, d = x.shape
    steps = -(-n // size)
    batches = jnp.pad(x, ((0, steps * size - n), (0, 0))).reshape(steps, size, d)
    return lax.map(of_batch, batches).reshape(steps * size, k)[:n].astype(jnp.int32)

"""Non-negative least squares by accelerated projected gradient steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, ArrayLike, Scalar

HIGHEST = jax.lax.Precision.HIGHEST


def nnls(A: ArrayLike, b: ArrayLike, iters: int, unroll: int | bool = 1, L: Scalar | None = None) -> Array:
    """The x >= 0 that minimizes |A x - b|, approximated by `iters` steps.

    From x = p = 0, c = 1:   y = max(p - (A'A p - A'b) / L, 0);   d = (1 + sqrt(1 + 4 c^2)) / 2
    p <- y + (c - 1) / d (y - x);   x <- y;   c <- d
    |A x - b|^2 exceeds its minimum, at x*, by at most 4 L |x*|^2 / (iters + 1)^2.

    Args:
        A: (M, N), real.
        b: (M,), or (M, K) for K problems.
        iters: number of steps.
        unroll: of `jax.lax.scan`.
        L: an upper bound on the largest eigenvalue of A'A; None for the smaller of the Frobenius norm and
            the 1-norm of A'A.

    Returns:
        x (N,) or (N, K), float32 (float64 if A or b is).

    Raises:
        ValueError: shapes that do not match, or iters < 0.
        TypeError: A or b is not real and floating, or iters is not an int.

    Example:
        >>> nnls(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0]), 1000).round(3)
        Array([0. , 1.7], dtype=float32)

    Reference: Beck & Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems",
    section 4; Polyak 2015, "Projected gradient method for non-negative least square".
    """
    matrix, target = jnp.asarray(A), jnp.asarray(b)
    for name, array in (("A", matrix), ("b", target)):
        checks.require_floating("nnls", name, array.dtype, "Convert it: x.astype(jnp.float32).")
    if matrix.ndim != 2 or target.ndim not in (1, 2) or matrix.shape[0] != target.shape[0]:
        raise ValueError(f"nnls: A must be (M, N) and b (M,) or (M, K), got {matrix.shape} and {target.shape}.")
    checks.require_positive_int("nnls", "iters", iters, 0)
    dtype = accumulation_dtype(matrix.dtype, target.dtype)
    matrix, target = matrix.astype(dtype), target.astype(dtype)
    square = jnp.matmul(matrix.T, matrix, precision=HIGHEST)
    right = jnp.matmul(matrix.T, target, precision=HIGHEST)
    if L is None:
        sums = jnp.sum(jnp.abs(square), axis=0)
        bound = jnp.minimum(jnp.sqrt(jnp.sum(jnp.square(square))), jnp.max(sums, initial=0))
    else:
        bound = jnp.asarray(L, dtype)
    bound = jnp.where(bound == 0, jnp.ones_like(bound), bound)

    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        x, p, c = carry
        after = jax.nn.relu(p - (jnp.matmul(square, p, precision=HIGHEST) - right) / bound)
        c_after = (1 + jnp.sqrt(1 + 4 * jnp.square(c))) / 2
        return (after, after + (c - 1) / c_after * (after - x), c_after), None

    start = jnp.zeros_like(right)
    (x, _, _), _ = jax.lax.scan(step, (start, start, jnp.ones((), dtype)), length=iters, unroll=unroll)
    return x

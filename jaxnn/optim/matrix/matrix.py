"""The largest eigenvalue and the inverse roots of a matrix, by matrix products only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_positive_int
from jaxnn.numerics import accumulate, safe_divide
from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import dtypes_of, widen
from jaxnn.optim.norms import norm, total
from jaxnn.optim.scalars import cast_like
from jaxnn.types import Array, Key, PyTree, Scalar


def power_iteration(
    matrix: Array | Callable[[PyTree], PyTree],
    *,
    v0: PyTree | None = None,
    num_iters: Scalar = 100,
    error_tolerance: Scalar = 1e-6,
    precision: lax.Precision = lax.Precision.HIGHEST,
    key: Key | None = None,
) -> tuple[Array, PyTree]:
    """The eigenvalue of largest magnitude and its eigenvector.

    v <- z / |z|;   z <- A v;   eigenvalue = <v, z>;   until |z - eigenvalue v| <= error_tolerance |eigenvalue|

    It converges for diagonalizable matrices with one eigenvalue of largest magnitude, and is computed in the
    accumulation dtype. Where z is 0, v stays, so that the zero matrix has the eigenvalue 0 (in optax, NaN).

    Args:
        matrix: (n, n), or a function that multiplies a pytree like v0 by the matrix.
        v0: start: a vector, or for a function the pytree that it takes. None means uniform in [-1, 1].
        num_iters: largest number of iterations.
        error_tolerance: relative.
        precision: of the products with an array.
        key: of the random start; None means `jax.random.key(0)`.

    Returns:
        (eigenvalue, eigenvector of norm 1); the vector has the dtypes of v0, by default the matrix's.

    Raises:
        ValueError: a matrix that is not square; a function without v0.

    Reference: Golub, G. H. & Van Loan, C. F. (2013). Matrix computations, 4th edition, section 7.3.1.

    Example:
        >>> value, vector = jax.jit(power_iteration)(jnp.diag(jnp.array([1.0, -3.0])))
        >>> value, abs(vector.round(3))
        (Array(-3., dtype=float32), Array([0., 1.], dtype=float32))
    """
    require_nonnegative("power_iteration", num_iters=num_iters, error_tolerance=error_tolerance)
    multiply, start = _multiplication(matrix, v0, precision, key)

    def times_matrix(v: PyTree) -> PyTree:
        return widen(multiply(dtypes_of(v, start)))

    def body(carry: Any) -> Any:
        i, v, z, _, _ = carry
        v = _unit(z, v)
        z = times_matrix(v)
        value = _dot(v, z)
        rest = jax.tree.map(lambda a, b: a - value.astype(a.dtype) * b, z, v)
        return i + 1, v, z, value, jnp.sqrt(_dot(rest, rest).real)

    def unfinished(carry: Any) -> Array:
        i, _, _, value, error = carry
        # Comparisons with NaN are False, so NaN stops the loop; more iterations would not remove it.
        return (i < num_iters) & (error > cast_like(error_tolerance, error) * jnp.abs(value))

    first = _unit(widen(start), widen(start))
    z = times_matrix(first)
    value = _dot(first, z)
    infinite = jnp.full((), jnp.inf, value.real.dtype)
    _, v, z, value, _ = lax.while_loop(unfinished, body, (jnp.zeros((), jnp.int32), first, z, value, infinite))
    return value, dtypes_of(_unit(z, v), start)


def matrix_inverse_pth_root(
    matrix: Array,
    p: int,
    num_iters: Scalar = 100,
    ridge_epsilon: Scalar = 1e-6,
    error_tolerance: Scalar = 1e-6,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> tuple[Array, Array]:
    """A^(-1/p) of a positive semi-definite matrix, by the coupled Newton iteration.

    A <- A + ridge_epsilon max(largest eigenvalue, 1e-16) I;   z = (1 + p) / (2 |A|_F)
    M = z A,  H = z^(1/p) I;   then   T = ((p + 1) I - M) / p;   M <- T^p M;   H <- H T
    until max |M - I| <= error_tolerance.

    H tends to A^(-1/p) while M tends to I. The iteration stops before a step in which max |M - I| grows by a factor of
    1.2 or more. All is in the accumulation dtype (in optax partly in float32), for any p (in optax 1, 2, 4 and 8).

    Args:
        matrix: (n, n), symmetric and positive semi-definite.
        p: positive int; static.
        num_iters: largest number of iterations.
        ridge_epsilon: relative to the largest eigenvalue.
        error_tolerance: largest |M - I| of an entry at which it stops.
        precision: of the matrix products.

    Returns:
        (root (n, n) in the matrix's dtype, max |M - I|: well above the tolerance, it has not converged).

    Raises:
        ValueError: a matrix that is not square.

    Reference: Higham, N. J. (2008). Functions of matrices: theory and computation, equation 7.18.

    Example:
        >>> fourth_root = jax.jit(lambda a: matrix_inverse_pth_root(a, 4))
        >>> root, error = fourth_root(jnp.diag(jnp.array([16.0, 1.0])))
        >>> root.round(3)
        Array([[0.5, 0. ],
               [0. , 1. ]], dtype=float32)
    """
    require_positive_int("matrix_inverse_pth_root", "p", p)
    require_nonnegative(
        "matrix_inverse_pth_root", num_iters=num_iters, ridge_epsilon=ridge_epsilon, error_tolerance=error_tolerance
    )
    matrix = _square("matrix_inverse_pth_root", matrix)
    wide = accumulate(matrix)
    eye = jnp.eye(matrix.shape[0], dtype=wide.dtype)
    largest, _ = power_iteration(wide, precision=precision)
    # 1e-16 as in optax: the zero matrix gets a ridge too, and its root is finite.
    wide = wide + cast_like(ridge_epsilon, wide) * jnp.maximum(largest.real, cast_like(1e-16, wide)) * eye
    if matrix.shape[0] == 1:
        return (wide ** cast_like(-1 / p, wide)).astype(matrix.dtype), jnp.zeros((), wide.real.dtype)

    def error_of(m: Array) -> Array:
        return jnp.max(jnp.abs(m - eye))

    def unfinished(carry: Any) -> Array:
        i, _, _, error, improves = carry
        return (i < num_iters) & (error > cast_like(error_tolerance, error)) & improves

    def body(carry: Any) -> Any:
        i, m, h, error, _ = carry
        t = cast_like(1 + 1 / p, m) * eye - cast_like(1 / p, m) * m
        new_m = jnp.matmul(_power(t, p, precision), m, precision=precision)
        new_error = error_of(new_m)
        improves = new_error < cast_like(1.2, error) * error  # it may grow a little before it falls
        m, h = (jnp.where(improves, new, old) for new, old in ((new_m, m), (jnp.matmul(h, t, precision=precision), h)))
        return i + 1, m, h, jnp.where(improves, new_error, error), improves

    # Scaled to entries near 1, the norm neither overflows nor underflows. The scale cancels: no derivative.
    size = lax.stop_gradient(jnp.max(jnp.abs(wide)))
    z = safe_divide(cast_like((1 + p) / 2, size), size * norm(safe_divide(wide, jnp.broadcast_to(size, wide.shape))))
    m, h = z * wide, z ** cast_like(1 / p, z) * eye
    carry = (jnp.zeros((), jnp.int32), m, h, error_of(m), jnp.asarray(True))
    _, _, h, error, _ = lax.while_loop(unfinished, body, carry)
    return h.astype(matrix.dtype), error


def _multiplication(matrix: Any, v0: Any, precision: Any, key: Any) -> tuple[Callable[[PyTree], PyTree], PyTree]:
    """The product with a vector, and the vector to start from."""
    if callable(matrix):
        if v0 is None:
            raise ValueError(
                "power_iteration: a function needs v0 to start from, got none. Pass a pytree like its argument."
            )
        return matrix, v0
    matrix = _square("power_iteration", matrix)
    wide = accumulate(matrix)
    if v0 is None:
        key = jax.random.key(0) if key is None else key
        v0 = jax.random.uniform(key, matrix.shape[-1:], wide.real.dtype, -1.0, 1.0).astype(matrix.dtype)
    return lambda v: jnp.matmul(wide, accumulate(v), precision=precision), v0


def _square(where: str, matrix: Any) -> Array:
    """A square matrix, integers as float32; ValueError for any other array."""
    shape = jnp.shape(matrix)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"{where}: the matrix must be square, got shape {shape}.")
    matrix = jnp.asarray(matrix)
    return matrix if jnp.issubdtype(matrix.dtype, jnp.inexact) else accumulate(matrix)


def _dot(a: PyTree, b: PyTree) -> Array:
    """The inner product of two pytrees."""
    return total(jax.tree.map(jnp.vdot, a, b))


def _unit(z: PyTree, otherwise: PyTree) -> PyTree:
    """z / |z|, or `otherwise` where z is 0."""
    size = lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(z)])))
    scaled = jax.tree.map(lambda x: safe_divide(x, jnp.broadcast_to(size.astype(x.real.dtype), x.shape)), z)
    length = jnp.sqrt(_dot(scaled, scaled).real)
    return jax.tree.map(
        lambda x, old: jnp.where(
            size == 0, old, safe_divide(x, jnp.broadcast_to(length.astype(x.real.dtype), x.shape))
        ),
        scaled,
        otherwise,
    )


def _power(x: Array, exponent: int, precision: Any) -> Array:
    """x^exponent by squaring."""
    half = x if exponent == 1 else _power(x, exponent // 2, precision)
    if exponent == 1:
        return half
    square = jnp.matmul(half, half, precision=precision)
    return square if exponent % 2 == 0 else jnp.matmul(square, x, precision=precision)

"""Decompositions of matrices whose derivatives stay finite where eigenvalues or singular values meet, or are 0.

The derivative of an eigenvector divides by the gaps to the other eigenvalues. In a cluster of equal eigenvalues the
vectors are defined up to a rotation and have no derivative; here it is that of the motion without rotation inside the
cluster, which gives the right derivative of their span. A power of the matrix is differentiable there, and `power`
computes its derivative. Values equal those of `jnp.linalg` to the bit. Second derivatives are finite too, but not
inside `lax.scan`, which differentiates `jnp.linalg` instead of these rules.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_divide
from jaxnn.optim.matrix.kronecker import EXACT, multiply
from jaxnn.optim.precision.rounding import float_info
from jaxnn.optim.scalars import cast_like
from jaxnn.types import Array, Scalar

_dot = functools.partial(jnp.matmul, precision=EXACT)


@jax.custom_jvp
def eigh(h: Array) -> tuple[Array, Array]:
    """Eigenvalues, least first, and eigenvectors of a symmetric matrix."""
    values, vectors = jnp.linalg.eigh(h)
    return values, vectors


@eigh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    values, vectors = eigh(*primals)
    moved = _turned(tangents[0], vectors)
    inverse = _where_apart(_gaps(values), jnp.max(jnp.abs(values)))
    return (values, vectors), (jnp.diagonal(moved), _dot(vectors, inverse * moved))


@jax.custom_jvp
def svd(a: Array) -> tuple[Array, Array, Array]:
    """(u, s, v'), a = u diag(s) v', with min(m, n) columns of u and v, and s with the largest first."""
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    return u, s, vh


@svd.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    u, s, vh = svd(*primals)
    (da,), v = tangents, vh.T
    moved = _dot(u.T, _dot(da, v))
    inverse = _where_apart(_gaps(s * s), s[0] * s[0])
    ones = _where_apart(s, s[0])
    du = _dot(u, inverse * (moved * s + (moved * s).T)) + _outside(u, _dot(da, v)) * ones
    dv = _dot(v, inverse * (moved * s[:, None] + (moved * s[:, None]).T)) + _outside(v, _dot(da.T, u)) * ones
    return (u, s, vh), (du, jnp.diagonal(moved), dv.T)


@jax.custom_jvp
def orthonormal(a: Array) -> Array:
    """The orthogonal factor of a square matrix: q of a = q r, r upper triangular.

    Columns of a that are linearly dependent on earlier ones do not determine those of q; their derivative only keeps q
    orthogonal.
    """
    return jnp.linalg.qr(a)[0]


@orthonormal.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    q = orthonormal(a)
    r, moved = jnp.triu(_dot(q.T, a)), _dot(q.T, da)
    size = jnp.abs(jnp.diagonal(r))
    depends = size <= _uncertain(a) * jnp.max(size)
    r = jnp.where(depends, jnp.eye(len(r), dtype=r.dtype), r)
    moved = jnp.where(depends, jnp.zeros_like(moved), moved)
    below = jnp.tril(jax.lax.linalg.triangular_solve(r, moved, left_side=False), -1)  # of moved r^-1
    return q, _dot(q, below - below.T)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def power(h: Array, exponent: float, eps: Scalar, relative_eps: Scalar) -> Array:
    """h^exponent of a positive semi-definite matrix, with 0^exponent := 0.

    Eigenvalues are first raised to at least their rounding error, n machine-eps times the largest, then eps and
    relative_eps times the largest are added.

    The derivative of V diag(f(d)) V' along E is V (F * V' E V) V', with F_ij = (f(d_i) - f(d_j)) / (d_i - d_j), f'(d_i)
    where both are equal. It needs no derivative of V, and so exists where eigenvalues meet.

    Reference: Daleckii, J. L. & Krein, S. G. (1965). Integration and differentiation of functions of Hermitian
        operators and applications to the theory of perturbations.
    """
    values, vectors = eigh(h)
    powers = positive_power(_raised(values, values[-1], eps, relative_eps), exponent)
    return _dot(multiply(vectors, 1, powers), vectors.T)


@power.defjvp
def _(exponent: float, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (h, eps, relative_eps), (dh, d_eps, d_relative) = primals, tangents
    values, vectors = eigh(h)
    moved, largest, uncertain = _turned(dh, vectors), values[-1], cast_like(_uncertain(h), h)
    raised = _raised(values, largest, eps, relative_eps)
    powers = positive_power(raised, exponent)
    slopes = safe_divide(exponent * powers, raised)
    above = values > uncertain * largest
    by_itself = jnp.where(above, slopes, jnp.zeros_like(slopes))
    # The quotient of differences has error eps / gap, the mean of both slopes gap^2: equal at gap = eps^(1/3).
    near = jnp.abs(_gaps(values)) <= float(float_info(h.dtype).eps) ** (1 / 3) * jnp.maximum(raised[:, None], raised)
    apart = jnp.where(near, jnp.zeros_like(moved), _gaps(values))
    quotients = jnp.where(near, (by_itself[:, None] + by_itself) / 2, safe_divide(_gaps(powers), apart))
    lifted = jnp.where(above, jnp.zeros_like(raised), uncertain) + cast_like(relative_eps, h)
    shifts = slopes * (lifted * moved[-1, -1] + cast_like(d_eps, h) + cast_like(d_relative, h) * largest)
    value = _dot(multiply(vectors, 1, powers), vectors.T)
    return value, _dot(_dot(vectors, quotients * moved + jnp.diag(shifts)), vectors.T)


def positive_power(x: Array, exponent: float) -> Array:
    """x^exponent where x > 0, else 0."""
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, jnp.ones_like(x)) ** cast_like(exponent, x), jnp.zeros_like(x))


def _raised(values: Array, largest: Array, eps: Scalar, relative_eps: Scalar) -> Array:
    """Eigenvalues as `power` raises them before it takes the power."""
    uncertain = cast_like(_uncertain(values), values)
    # eps I is the paper's start of the sum; the relative term bounds the condition number at any scale of gradients.
    return jnp.maximum(values, uncertain * largest) + cast_like(eps, values) + cast_like(relative_eps, values) * largest


def _uncertain(x: Array) -> float:
    """Rounding error of the eigenvalues of an (n, n) matrix, relative to the largest: n machine-eps."""
    return len(x) * float(float_info(x.dtype).eps)


def _turned(dh: Array, vectors: Array) -> Array:
    """V' dh V, of the symmetric part of dh, which is all that eigh depends on."""
    return _dot(vectors.T, _dot((dh + dh.T) / 2, vectors))


def _gaps(x: Array) -> Array:
    """x_j - x_i, at (i, j)."""
    return x[None, :] - x[:, None]


def _where_apart(x: Array, largest: Array) -> Array:
    """1 / x, 0 where |x| is at most the rounding error of `largest`."""
    return safe_divide(1.0, jnp.where(jnp.abs(x) <= _uncertain(x) * largest, jnp.zeros_like(x), x))


def _outside(u: Array, x: Array) -> Array:
    """x without its part in the space of the columns of u."""
    return x - _dot(u, _dot(u.T, x))

"""Newton-Schulz iterations: approximately the nearest orthogonal matrix, by matrix products only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.numerics import accumulate, safe_divide, safe_sqrt
from jaxnn.optim.matrix.muon_axes import MuonDimensionNumbers, fans, matrix_axes
from jaxnn.optim.scalars import abs_sq, cast_like
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, Scalar

Preconditioning: TypeAlias = Literal["frobenius", "spectral", "aol", "schatten"]
Rows: TypeAlias = Sequence[tuple[Scalar, Scalar, Scalar]]
"""The coefficients (a, b, c) of each step."""

PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")
GRAM_STEPS = 3
"""Steps on one Gram matrix before it is recomputed. An error in its smallest eigenvalues grows by a^2 in each step:
140-fold in all for Jordan's coefficients, before the matrix is multiplied and its Gram matrix recomputed. In 5 steps it
would grow 20,000-fold; after 8 no digit of float32 would be left."""


def orthogonalize_via_newton_schulz(
    x: Array,
    ns_coeffs: Any,
    ns_steps: int = 5,
    preconditioning: Preconditioning = "frobenius",
    eps: Scalar = 1e-8,
    dimension_numbers: MuonDimensionNumbers | None = None,
) -> Array:
    """U f(S) V' for x = U S V', with f an iterated odd polynomial that brings the singular values near 1.

    x <- x scaled so that S <= 1 (see `preconditioning`; "aol" scales each row, so U and V are of the scaled x), then in
    each step   x <- a x + b (x x') x + c (x x')^2 x

    It is computed in the accumulation dtype, with the shorter side of x as its rows. Where the longer is more than 1.5
    times as long, up to 3 steps are done on the small matrices: with A = x x', Q = a I + b A + c A^2,
    P <- Q P and A <- Q A Q; then x <- P x. This is equal in exact arithmetic and needs 2/3 of the products at a ratio
    of 4; in float32 the two differ by about 1e-5 of the largest singular value.

    Args:
        x: floating matrix, or an array with `dimension_numbers`.
        ns_coeffs: (a, b, c), or one row of them for each step; may be traced. (3.4445, -4.775, 2.0315) gives singular
            values between 0.7 and 1.2; (2, -1.5, 0.5) converges to 1, more slowly.
        ns_steps: steps if `ns_coeffs` is (a, b, c); static.
        preconditioning: "frobenius": x / (|x| + eps). "spectral": x / (largest singular value + eps).
            "schatten": x / sqrt(max(|x x'|, eps)). "aol": each row of x / sqrt(max(sum over its row of |x x'|, eps)).
        eps: >= 0. (For the last two optax uses 1e-8 whatever eps is.)
        dimension_numbers: which axes are rows and columns; the other axes are batch axes.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        ValueError: x is not a matrix and `dimension_numbers` do not make it one; coefficients of another shape.

    Reference: Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural networks. Boissin, T. et al.
        (2025). Turbo-Muon: accelerating orthogonality-based optimization with pre-conditioning ("aol"). Grishina, E.,
        Smirnov, M. & Rakhuba, M. (2025). Accelerating Newton-Schulz iteration for orthogonalization via Chebyshev-type
        polynomials ("schatten").

    Example:
        >>> x = jnp.array([[3.0, 0.0], [0.0, -2.0]])
        >>> orthogonalize_via_newton_schulz(x, (2.0, -1.5, 0.5), 10).round(3) + 0.0
        Array([[ 1.,  0.],
               [ 0., -1.]], dtype=float32)
    """
    axes = matrix_axes("orthogonalize_via_newton_schulz", x.shape, dimension_numbers)
    rows = coefficient_rows("orthogonalize_via_newton_schulz", ns_coeffs, ns_steps)
    require_preconditioning("orthogonalize_via_newton_schulz", preconditioning)
    return orthogonalized(x, axes, rows, preconditioning, eps)


def orthogonalized(
    x: Array,
    axes: tuple[tuple[int, ...], ...],
    rows: Rows,
    preconditioning: Preconditioning = "frobenius",
    eps: Scalar = 1e-8,
) -> Array:
    """`orthogonalize_via_newton_schulz` of checked arguments."""

    def placed(x: Array, rows: Rows, eps: Scalar) -> Array:
        return _orthogonalized(x, axes, rows, preconditioning, eps)

    return compiler_sharded(placed, x, x, rows, eps)


def _orthogonalized(
    x: Array, axes: tuple[tuple[int, ...], ...], rows: Rows, preconditioning: Preconditioning, eps: Scalar
) -> Array:
    """`orthogonalized` inside `compiler_sharded`."""
    order = sum(axes, ())
    batch = tuple(x.shape[i] for i in axes[0])
    moved = x.transpose(order)
    y = accumulate(moved).reshape(*batch, *fans(x.shape, axes))
    tall = y.shape[-2] > y.shape[-1]
    y, gram = _preconditioned(y.mT if tall else y, preconditioning, eps)
    length = GRAM_STEPS if 2 * y.shape[-1] > 3 * y.shape[-2] else 1
    for start in range(0, len(rows), length):
        gram = y @ _adjoint(y) if gram is None else gram
        y, gram = _steps(gram, rows[start : start + length]) @ y, None
    y = (y.mT if tall else y).reshape(moved.shape).astype(x.dtype)
    return y.transpose([order.index(i) for i in range(x.ndim)])


def _steps(gram: Array, rows: Rows) -> Array:
    """The matrix P by which some steps multiply x, from x x'."""
    eye = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
    product = None
    for i, (a, b, c) in enumerate(rows):
        factor = cast_like(a, gram) * eye + cast_like(b, gram) * gram + cast_like(c, gram) * (gram @ gram)
        product = factor if product is None else factor @ product
        if i + 1 < len(rows):
            gram = factor @ (factor @ gram)  # all are polynomials of one matrix, so they commute
    return eye if product is None else product


def _preconditioned(x: Array, kind: Preconditioning, eps: Scalar) -> tuple[Array, Array | None]:
    """x with singular values of at most 1 (nearly), and x x' if it is known by then."""
    e = cast_like(eps, x)
    # Beside a norm of x: eps bounds what a tiny x is scaled by. Zero divided by zero is zero, so eps = 0 is safe.
    if kind == "frobenius":
        return safe_divide(x, _wide(safe_sqrt(jnp.sum(abs_sq(x), (-2, -1))) + e, x)), None
    gram = x @ _adjoint(x)
    if kind == "spectral":
        largest = safe_sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[..., -1], 0))
        return safe_divide(x, _wide(largest + e, x)), None
    if kind == "schatten":
        scale = _inverse_root(safe_sqrt(jnp.sum(abs_sq(gram), (-2, -1))), e)[..., None, None]
        return x * jnp.broadcast_to(scale, x.shape), gram * jnp.broadcast_to(scale * scale, gram.shape)
    row = _inverse_root(jnp.sum(jnp.abs(gram), -1), e)[..., None]
    return x * jnp.broadcast_to(row, x.shape), gram * (row * row.mT)


def _inverse_root(x: Array, eps: Array) -> Array:
    """1 / sqrt(max(x, eps)), 0 where x and eps are 0."""
    # A bound of the squared norm, inside the root, as in optax.
    return safe_divide(jnp.ones_like(x), safe_sqrt(jnp.maximum(x, eps)))


def _wide(scale: Array, x: Array) -> Array:
    """One number for each matrix, broadcast to its entries."""
    return jnp.broadcast_to(scale[..., None, None], x.shape)


def _adjoint(x: Array) -> Array:
    return x.conj().mT if jnp.iscomplexobj(x) else x.mT


def coefficient_rows(where: str, ns_coeffs: Any, ns_steps: int) -> Rows:
    """(a, b, c) for each step: repeated, or the rows of `ns_coeffs`."""
    coeffs = jnp.asarray(ns_coeffs, float)
    if coeffs.ndim not in (1, 2) or coeffs.shape[-1] != 3 or coeffs.size == 0:
        raise ValueError(f"{where}: ns_coeffs must be (a, b, c) or a row of them for each step, got {coeffs.shape}.")
    if coeffs.ndim == 1:
        return [(coeffs[0], coeffs[1], coeffs[2])] * require_positive_int(where, "ns_steps", ns_steps)
    return [(row[0], row[1], row[2]) for row in coeffs]


def require_preconditioning(where: str, kind: Any) -> None:
    """Raise ValueError unless it is one of the four."""
    if kind not in PRECONDITIONINGS:
        names = ", ".join(map(repr, PRECONDITIONINGS))
        raise ValueError(f"{where}: preconditioning must be one of {names}, got {kind!r}.")

"""The dtype of arithmetic, and operations with finite values and derivatives at 0 and at ties."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn import missing
from jaxnn.types import Array, DType, DTypeLike


def accumulation_dtype(*dtypes: DTypeLike) -> DType:
    """The dtype of sums over values of these dtypes: float64 if any is float64, else float32.

    Half-precision storage (bfloat16, float16) is summed in float32, because adding 0.001 to 1 in bfloat16 gives 1.
    Complex numbers are summed as complex64 or complex128.

    Example:
        >>> accumulation_dtype(jnp.bfloat16)
        dtype('float32')
    """
    found = [jnp.dtype(d) for d in dtypes]
    wide = any(d in (jnp.float64, jnp.complex128) for d in found)
    if any(jnp.issubdtype(d, jnp.complexfloating) for d in found):
        return jnp.dtype(jnp.complex128) if wide else jnp.dtype(jnp.complex64)
    return jnp.dtype(jnp.float64) if wide else jnp.dtype(jnp.float32)


def accumulate(x: Array) -> Array:
    """`x` in its accumulation dtype: narrower floats, integers and bools become float32, other dtypes stay."""
    return x.astype(accumulation_dtype(x.dtype))


def safe_divide(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """numerator / denominator, with x/0 := 0; the derivative there is 0 too, never NaN.

    The inner `where` keeps 0 out of the division: the unselected branch has a finite value and derivative.

    Example:
        >>> safe_divide(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]))
        Array([0.5, 0. ], dtype=float32)
    """
    zero = denominator == 0
    return jnp.where(
        zero, jnp.zeros_like(denominator), numerator / jnp.where(zero, jnp.ones_like(denominator), denominator)
    )


def safe_sqrt(x: Array) -> Array:
    """sqrt(x) for x >= 0, with derivative 0 at x = 0 (where the true one is infinite), at every order.

    The values are those of `jnp.sqrt`, but 0 at -0. Its selects cost no memory traffic: XLA fuses them. A
    `jax.custom_jvp` would avoid them, but `lax.scan` loses its rule when a derivative is differentiated again.

    Example:
        >>> jax.grad(safe_sqrt)(0.0)
        Array(0., dtype=float32, weak_type=True)
    """
    zero = x == 0
    return jnp.where(zero, jnp.zeros_like(x), jnp.sqrt(jnp.where(zero, jnp.ones_like(x), x)))


def safe_cbrt(x: Array) -> Array:
    """The cube root, with derivative 0 at x = 0 (where the true one is infinite), at every order; see `safe_sqrt`.

    Example:
        >>> jax.grad(safe_cbrt)(0.0)
        Array(0., dtype=float32, weak_type=True)
    """
    zero = x == 0
    return jnp.where(zero, jnp.zeros_like(x), jnp.cbrt(jnp.where(zero, jnp.ones_like(x), x)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(x: Array, axis: int) -> Array:
    """The maximum of a real x along an axis; the derivative goes to the first entry that attains it.

    `jnp.max` divides its derivative among the entries equal to the maximum. If the compiler computes x twice and rounds
    differently (fused multiply-add), no entry is equal: 0/0, NaN.

    Example:
        >>> jax.grad(lambda x: largest(x, 0))(jnp.array([1.0, 3.0, 3.0]))
        Array([0., 1., 0.], dtype=float32)
    """
    return jnp.max(x, axis)


@largest.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    first = jnp.argmax(x, axis, keepdims=True)
    chosen = jax.lax.broadcasted_iota(first.dtype, x.shape, axis % x.ndim) == first
    return largest(x, axis), jnp.sum(jnp.where(chosen, tangent, jnp.zeros_like(tangent)), axis)


def xlogy(x: Array, y: Array) -> Array:
    """x log y, with 0 log y := 0 for every y, 0 included; derivatives there are 0 in both arguments.

    Example:
        >>> xlogy(jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0]))
        Array([0., 0.], dtype=float32)
    """
    zero = x == 0
    return jnp.where(zero, jnp.zeros_like(x), x * jnp.log(jnp.where(zero, jnp.ones_like(y), y)))


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

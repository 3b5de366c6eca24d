"""The dtype of arithmetic, products that are exact to float32, and operations with finite values and derivatives at 0
and at ties."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
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


Precision: TypeAlias = Any
"""The precision of a product: None for the ambient `jax.default_matmul_precision`, or `EXACT`."""

EXACT = lax.Precision.HIGHEST
"""The precision of statistics, whose errors would break a clipping norm and hide a variance: see `dot_general`."""

SIX_PRODUCTS = lax.DotAlgorithmPreset.BF16_BF16_F32_X6
"""float32 operands as three bfloat16 pieces each, multiplied in the six products above 2^-24 on tensor cores, summed in
float32. Relative error of a product of sums of 1,024 normal terms, in norm: 1.4e-7; of float32 arithmetic: 3.4e-7."""

OF_HALF = {jnp.dtype(jnp.bfloat16): lax.Precision.DEFAULT, jnp.dtype(jnp.float16): EXACT}
"""The precision at which products of half-precision operands are exact: float32 holds all 16 or 22 bits of each. By
default a TPU would round float16 to bfloat16; a GPU runs both on tensor cores."""

SIX_FROM = 2**28
"""Multiply-adds from which six products on tensor cores are faster: below, launches take most of the time."""

PIECES_FROM = 2**30
"""Multiply-adds from which a product of bfloat16 with float32 is split into three."""

PIECES_INNER = 128
"""Outputs per entry of the float32 operand from which splitting it costs less than the three products saved."""

BFLOAT16_MAX = (2 - 2**-7) * 2.0**127

Bilinear: TypeAlias = Callable[..., Array]
"""f(x, y, precision=..., preferred_element_type=...), linear in x and in y: a dot_general, an einsum."""


def dot_general(x: Array, y: Array, dimension_numbers: Any, precision: Precision = None) -> Array:
    """`lax.dot_general` of two arrays of any floating dtypes, summed and returned in their accumulation dtype.

    | operands | precision None | `EXACT` |
    |---|---|---|
    | bfloat16 both, float16 both | as they are, on tensor cores: every product is exact in float32 | the same |
    | float32 both, float16 and another | float32, at the ambient precision | `exact_float32` |
    | bfloat16 and float32 | float32, at the ambient precision | large, off the CPU: `by_pieces`; else as above |
    | float64 among them | float64 | float64 |

    Reference: Henry, G., Tang, P. T. P. & Heinecke, A. (2019). Leveraging the bfloat16 artificial intelligence datatype
        for higher-precision computations, section 2.

    Example:
        >>> x = jnp.ones((3, 2), jnp.bfloat16)
        >>> dot_general(x, x, (((0,), (0,)), ((), ()))).dtype
        dtype('float32')
    """
    return multiplied(functools.partial(lax.dot_general, dimension_numbers=dimension_numbers), x, y, precision)


def exact_einsum(subscripts: str, x: Array, y: Array) -> Array:
    """`jnp.einsum` of two arrays of any floating dtypes at precision `EXACT`, in their accumulation dtype.

    Example:
        >>> exact_einsum("nd,np->dp", jnp.ones((3, 2), jnp.bfloat16), jnp.ones((3, 1)))[:, 0]
        Array([3., 3.], dtype=float32)
    """
    return multiplied(functools.partial(jnp.einsum, subscripts), x, y, EXACT)


def multiplied(f: Bilinear, x: Array, y: Array, precision: Precision = None) -> Array:
    """A bilinear function of two arrays of any floating dtypes, as in the table of `dot_general`.

    Example:
        >>> product = functools.partial(jnp.einsum, "nd,n->d")
        >>> multiplied(product, jnp.ones((3, 2), jnp.bfloat16), jnp.ones(3, jnp.bfloat16))
        Array([3., 3.], dtype=float32)
    """
    wide = accumulation_dtype(x.dtype, y.dtype)
    if x.dtype == y.dtype and x.dtype in OF_HALF:
        return f(x, y, precision=OF_HALF[x.dtype], preferred_element_type=wide)
    if precision == EXACT and _worth_pieces(f, x, y):
        if y.dtype == jnp.bfloat16:
            return _split_on_accelerators(lambda b, a, **how: f(a, b, **how), y, x)
        return _split_on_accelerators(f, x, y)
    x, y = x.astype(wide), y.astype(wide)
    if precision == EXACT and wide == jnp.float32:
        return exact_float32(f, x, y)
    return f(x, y, precision=precision, preferred_element_type=wide)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def multiplied_in_half(f: Bilinear, x: Array, y: Array) -> Array:
    """`multiplied` of two arrays of one half-precision dtype, with half-precision operands in its derivatives too.

    The cotangent of the result is rounded to the dtype of x and y. By JAX's own rule it would be a float32 operand of
    the products of the backward pass, which for a GPU makes them float32 products.

    Example:
        >>> product, x = functools.partial(jnp.einsum, "nd,n->d"), jnp.ones((3, 2), jnp.bfloat16)
        >>> multiplied_in_half(product, x, x[:, 0]).dtype
        dtype('float32')
    """
    return multiplied(f, x, y)


@multiplied_in_half.defjvp
def _(f: Bilinear, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (d_x, d_y) = primals, tangents
    how: Any = {"precision": OF_HALF[x.dtype], "preferred_element_type": None}
    return multiplied_in_half(f, x, y), accumulate(f(d_x, y, **how)) + accumulate(f(x, d_y, **how))


def exact_float32(f: Bilinear, x: Array, y: Array) -> Array:
    """f(x, y) of float32, correct to its rounding: large ones by `SIX_PRODUCTS` on NVIDIA GPUs, else at HIGHEST.

    On an H200 that takes 0.45 of the time of HIGHEST. A TPU compiles HIGHEST to the same six products; some of the
    CPU's code for products knows no algorithms.

    Example:
        >>> exact_float32(functools.partial(jnp.einsum, "nd,n->d"), jnp.ones((3, 2)), jnp.ones(3))
        Array([3., 3.], dtype=float32)
    """
    precisely = functools.partial(f, preferred_element_type=jnp.float32, precision=EXACT)
    if _known(x, y) or _multiply_adds(precisely, x, y) < SIX_FROM:
        return precisely(x, y)
    return lax.platform_dependent(x, y, cuda=functools.partial(precisely, precision=SIX_PRODUCTS), default=precisely)


def _multiply_adds(f: Callable[..., Array], x: Array, y: Array) -> int:
    """Those of a product f of x and y, without batch axes; with B batches up to sqrt(B) times as many."""
    if x.size * y.size < SIX_FROM:  # at most one for each pair of entries
        return x.size * y.size
    # Of sizes (K, M), (K, P) and (M, P) the geometric mean is that of the multiply-adds K M P.
    return math.isqrt(x.size * y.size * jax.eval_shape(f, x, y).size)


def _known(*arrays: Array) -> bool:
    """Whether no array is traced: outside of `jax.jit` every `platform_dependent` would be compiled anew."""
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)


def _worth_pieces(f: Bilinear, x: Array, y: Array) -> bool:
    """Whether one operand is bfloat16, the other float32, and the product large in the sizes that count."""
    if {x.dtype, y.dtype} != {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)}:
        return False
    wide = functools.partial(f, precision=EXACT, preferred_element_type=jnp.float32)
    count = _multiply_adds(lambda x, y: wide(accumulate(x), accumulate(y)), x, y)
    return count >= PIECES_FROM and count >= PIECES_INNER * (y if x.dtype == jnp.bfloat16 else x).size


def _split_on_accelerators(f: Bilinear, narrow: Array, wide: Array) -> Array:
    """`by_pieces` on GPU and TPU; on CPU, which has no bfloat16 arithmetic, one float32 product."""

    def widened(narrow: Array, wide: Array) -> Array:
        return f(accumulate(narrow), wide, precision=EXACT, preferred_element_type=jnp.float32)

    if _known(narrow, wide):
        return widened(narrow, wide)
    return lax.platform_dependent(narrow, wide, cpu=widened, default=functools.partial(by_pieces, f))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def by_pieces(f: Bilinear, narrow: Array, wide: Array) -> Array:
    """f(narrow, wide) of bfloat16 and float32, linear in both, as the sum over the `pieces` of wide: three products.

    Every product is exact; the sum is float32. Half as many products as `SIX_PRODUCTS`, since narrow is one piece.
    Derivatives are as exact, but where `lax.scan` has lost their rule (see `safe_sqrt`) rounded to bfloat16.

    Example:
        >>> by_pieces(functools.partial(jnp.einsum, "nd,n->d"), jnp.ones((3, 2), jnp.bfloat16), jnp.full(3, 1 + 2**-20))
        Array([3.0000029, 3.0000029], dtype=float32)
    """
    terms = [multiplied(f, narrow, piece) for piece in pieces(wide)]
    return (terms[2] + terms[1]) + terms[0]


@by_pieces.defjvp
def _(f: Bilinear, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # Transposed, a piece would round the cotangent of `wide` to bfloat16.
    (narrow, wide), (d_narrow, d_wide) = primals, tangents
    change = multiplied(f, accumulate(d_narrow), wide, EXACT) + multiplied(f, accumulate(narrow), d_wide, EXACT)
    return by_pieces(f, narrow, wide), change


def pieces(x: Array) -> tuple[Array, Array, Array]:
    """bfloat16 p1, p2, p3 with p1 + p2 + p3 = x for float32 x: each holds 8 of its 24 bits.

    Exact for |x| >= 2^-110; below, p3 may underflow. An x that is not finite is (x, 0, 0).

    Example:
        >>> [float(p) for p in pieces(jnp.float32(1 + 2**-9 + 2**-20))]
        [1.0, 0.001953125, 9.5367431640625e-07]
    """
    most = jnp.asarray(BFLOAT16_MAX, x.dtype)
    found = []
    for _ in range(3):
        # A pair of conversions, to bfloat16 and back, would be removed by XLA; reduce_precision stays. It rounds what
        # is above bfloat16's maximum to infinity.
        near = jnp.clip(lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7), -most, most)
        piece = jnp.where(jnp.isfinite(x), near, x)
        found.append(piece.astype(jnp.bfloat16))
        x = jnp.where(jnp.isfinite(x), x - piece, jnp.zeros_like(x))
    return found[0], found[1], found[2]


def sum_of_products(x: Array, y: Array, axes: Sequence[int]) -> Array:
    """sum x y over some axes, which stay with size 1, of two arrays of one shape and dtype.

    On CPU a `lax.dot_general`: XLA in jaxlib 0.10.2 fuses y - x sum(x y) into a kernel whose numbers are wrong where y
    is large and has an axis that x lacks, as under `jax.vmap` over cotangents of one forward pass (jax issue 39103).
    Without such an axis the compiler makes the products and the sum of it again.

    Example:
        >>> sum_of_products(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]), (1,))
        Array([[11.]], dtype=float32)
    """

    def summed(x: Array, y: Array) -> Array:
        return jnp.sum(x * y, tuple(axes), keepdims=True)

    def as_product(x: Array, y: Array) -> Array:
        over = tuple(axis % x.ndim for axis in axes)
        others = tuple(axis for axis in range(x.ndim) if axis not in over)
        return jnp.expand_dims(lax.dot_general(x, y, ((over, over), (others, others)), precision=EXACT), over)

    if _known(x, y):
        return summed(x, y)
    return lax.platform_dependent(x, y, cpu=as_product, default=summed)


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

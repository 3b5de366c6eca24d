"""Norms and weighted sum of matrix products a_i' delta_i, as of the gradients of N examples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec

from jaxnn.kernels import hopper
from jaxnn.kernels.switch import used
from jaxnn.numerics import exact_einsum
from jaxnn.placement import compiler_sharded, rows_spec, shards
from jaxnn.types import Array
from jaxnn.varying import varying_axes


def product_norms_and_sum(a: Array, delta: Array, w: Array | None = None) -> tuple[Array, Array]:
    """(|g_i|^2, sum_i w_i g_i) of the products g_i = a_i' delta_i, in Frobenius norm.

    With kernels switched on (`use`), lowered for CUDA and of shapes that it takes (`takes`), one kernel reads a and
    delta once and never stores g_i: of the N K P numbers it holds one tile for each processor. Everywhere else it is
    `product_norms_and_sum_reference`, which stores them all; so it is inside `jax.shard_map` and on a mesh of several
    devices. Placed by `in_shardings` alone, a and delta are gathered to each device for the kernel. Under `jax.vmap`
    the kernel runs once for each set. Derivatives, forward and reverse and of any order, are those of the reference.

    The kernel multiplies bfloat16 as it is, each product exact in float32, and sums in float32; relative error of both
    results against float64 below 1e-6 (it was compiled for an H200 and interpreted, but not yet run on one).

    Args:
        a: (N, T, K), floating.
        delta: (N, T, P), floating.
        w: (N,), floating, or None for ones.

    Returns:
        (N,) and (K, P), float32; float64 if a or delta is.

    Raises:
        ValueError: shapes that are not these.
        TypeError: a dtype that is not floating.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4 (T = 1, without the sum).

    Example:
        >>> a = jnp.ones((2, 3, 4), jnp.bfloat16)
        >>> sq_norms, total = product_norms_and_sum(a, a[..., :1], jnp.array([1.0, 0.5]))
        >>> sq_norms, total[0]
        (Array([36., 36.], dtype=float32), Array([4.5], dtype=float32))
    """
    _require_factors(a, delta, w)
    if not takes(a, delta):
        return product_norms_and_sum_reference(a, delta, w)
    weights = jnp.ones(a.shape[0], jnp.float32) if w is None else w.astype(jnp.float32)
    return _by_platform(a, delta, weights)


def product_norms_and_sum_reference(a: Array, delta: Array, w: Array | None = None) -> tuple[Array, Array]:
    """`product_norms_and_sum` in plain `jax.numpy`: stores all g_i, (N, K, P).

    Args:
        a: (N, T, K), floating.
        delta: (N, T, P), floating.
        w: (N,), floating, or None for ones.

    Returns:
        (N,) and (K, P), float32; float64 if a or delta is.

    Example:
        >>> a = jnp.ones((2, 3, 4))
        >>> product_norms_and_sum_reference(a, a[..., :1])[0]
        Array([36., 36.], dtype=float32)
    """
    _require_factors(a, delta, w)
    found: tuple[Array, Array] = compiler_sharded(_stored, (rows_spec(a), PartitionSpec()), a, delta, w)
    return found


def _stored(a: Array, delta: Array, w: Array | None) -> tuple[Array, Array]:
    products = exact_einsum("ntk,ntp->nkp", a, delta)
    total = jnp.sum(products, axis=0) if w is None else exact_einsum("n,nkp->kp", w.astype(products.dtype), products)
    return jnp.sum(jnp.square(products), axis=(1, 2)), total


def takes(a: Array, delta: Array) -> bool:
    """Whether `product_norms_and_sum` of these has a kernel where it is lowered for CUDA.

    Kernels are switched on; a (N, T, K) and delta (N, T, P) are bfloat16 on one device; K and P are multiples of 128, T
    of 64 and at least 128, and there is work for the GPU: N K P >= 2^22.

    Example:
        >>> from jaxnn.kernels import use
        >>> a, delta = jnp.ones((16, 256, 256), jnp.bfloat16), jnp.ones((16, 256, 1024), jnp.bfloat16)
        >>> with use(True):
        ...     takes(a, delta), takes(a[..., :100], delta)
        (True, False)
    """
    half = a.dtype == delta.dtype == jnp.bfloat16
    alone = used() and half and not varying_axes(a, delta) and shards((a, delta)) == 1
    return alone and hopper.plan(*a.shape, delta.shape[2]) is not None


def _require_factors(a: Array, delta: Array, w: Array | None) -> None:
    shapes = (a.shape, delta.shape, None if w is None else w.shape)
    if a.ndim != 3 or delta.ndim != 3 or a.shape[:2] != delta.shape[:2] or shapes[2] not in (None, a.shape[:1]):
        raise ValueError(
            f"product_norms_and_sum: expected a (N, T, K), delta (N, T, P) and w (N,) or None, got {shapes[0]}, "
            f"{shapes[1]} and {shapes[2]}."
        )
    for name, x in (("a", a), ("delta", delta), ("w", w)):
        if x is not None and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"product_norms_and_sum: expected floating {name}, got {x.dtype}; convert it with astype.")


# A custom JVP, not a VJP: derivatives of both modes and of any order are the reference's.
@jax.custom_jvp
def _by_platform(a: Array, delta: Array, w: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(a, delta, w, cuda=_set_by_set, default=product_norms_and_sum_reference)


@_by_platform.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    _, change = jax.jvp(product_norms_and_sum_reference, primals, tangents)
    return _by_platform(*primals), change


@custom_vmap
def _set_by_set(a: Array, delta: Array, w: Array) -> tuple[Array, Array]:
    """The kernel; under `vmap` one set after the other, since each fills the GPU."""
    return hopper.product_norms_and_sum(a, delta, w)


@_set_by_set.def_vmap
def _(size: int, batched: list[bool], *arrays: Array) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    moving = [x for x, there in zip(arrays, batched, strict=True) if there]

    def of_set(moved: list[Array]) -> tuple[Array, Array]:
        left = iter(moved)
        return _set_by_set(*[next(left) if there else x for x, there in zip(arrays, batched, strict=True)])

    return lax.map(of_set, moving), (True, True)

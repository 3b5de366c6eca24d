"""Norms of gradients of matrix products from Gram matrices of positions, also where the features are sharded.

    |sum_t a_t' delta_t|^2 = sum_st (a_s . a_t) (delta_s . delta_t) = sum_bc sum_st (a_s . a_t)_b (delta_s . delta_t)_c

for blocks b of the d features of a and c of the p of delta: with tensor-parallel parameters each device has its blocks.
Partitioned by the compiler, the Gram matrices (N, T, T) of all blocks would be summed over the devices before they are
multiplied; here each device multiplies its own, and the (N,) results are summed. Not so on a TPU, where XLA takes no
partitioner from JAX.

References: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4 (T = 1). Li, X., Tramer, F.,
Liang, P. & Hashimoto, T. (2022). Large language models can be strong differentially private learners, section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnn.numerics import accumulation_dtype, exact_einsum
from jaxnn.placement import axis_names, known_mesh, spec_of
from jaxnn.types import Array

NO_MESH = jax.sharding.AbstractMesh((), ())


def gram_norms(a: Array, delta: Array) -> Array:
    """|g_i|^2, (N,), of a (N, T, G, d) and delta (N, T, G, p)."""
    mesh = known_mesh((a, delta))
    # Inside `jax.shard_map` all is local already, and manual axes cannot be partitioned again.
    alone = mesh.size <= 1 or AxisType.Manual in mesh.axis_types
    total = products_sum(a, delta) if alone else _partitioned(a, delta)
    # Terms of either sign: where they cancel, rounding can leave the sum below 0, and its square root NaN.
    return jnp.maximum(total, jnp.zeros_like(total))


def products_sum(a: Array, delta: Array) -> Array:
    """The sum over pairs of positions (s, t) of (a_s . a_t) (delta_s . delta_t), (N,)."""
    return inner_product(_position_products(a), _position_products(delta), (1, 2, 3))


def inner_product(x: Array, y: Array, axis: tuple[int, ...]) -> Array:
    """The sum of x y over some axes, of Gram matrices that may be float32 and float64."""
    wide = accumulation_dtype(x.dtype, y.dtype)
    return jnp.sum(x.astype(wide) * y.astype(wide), axis=axis)


def _position_products(x: Array) -> Array:
    """x_s . x_t of all pairs of positions, x (N, T, G, d): (N, G, T, T)."""
    if x.shape[2] == 1:  # without the axis of groups XLA does not copy x on a CPU
        return exact_einsum("nsd,ntd->nst", x[:, :, 0], x[:, :, 0])[:, None]
    return exact_einsum("nsgd,ntgd->ngst", x, x)


# A custom JVP, since derivatives of any order are those of the plain sum; `custom_partitioning` has none, and no rule
# of `vmap`.
@jax.custom_jvp
def _partitioned(a: Array, delta: Array) -> Array:
    # libtpu calls no partitioner of JAX.
    return lax.platform_dependent(a, delta, tpu=products_sum, default=_over_sets)


@_partitioned.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    _, change = jax.jvp(products_sum, primals, tangents)
    return _partitioned(*primals), change


@custom_vmap
def _over_sets(a: Array, delta: Array) -> Array:
    """`products_sum` of a (..., N, T, G, d) and delta (..., N, T, G, p): (..., N)."""
    return _by_blocks(a, delta)


@_over_sets.def_vmap
def _(size: int, batched: Sequence[bool], a: Array, delta: Array) -> tuple[Array, bool]:
    a, delta = (
        x if there else jnp.broadcast_to(x, (size, *x.shape)) for x, there in zip((a, delta), batched, strict=True)
    )
    return _over_sets(a, delta), True


@custom_partitioning
def _by_blocks(a: Array, delta: Array) -> Array:
    return _mapped(a.ndim - 4)(a, delta)


def _mapped(axes: int) -> Callable[[Array, Array], Array]:
    """`products_sum` over so many leading axes."""
    return functools.reduce(lambda f, _: jax.vmap(f), range(axes), products_sum)


def _partition(mesh: Any, args: tuple[Any, Any], result: Any) -> tuple[Any, Any, Any, Any]:
    """How devices share the work: sets and examples as they come, then groups and features as far as these leave mesh
    axes."""
    of_a, of_delta = ([*x.sharding.spec, *(None,) * (len(x.shape) - len(x.sharding.spec))] for x in args)
    leading = len(args[0].shape) - 3
    shared = [one if one is not None else other for one, other in zip(of_a[:-1], of_delta[:-1], strict=True)]
    *rows, groups, d, p = spec_of(*shared[:leading], shared[-1], of_a[-1], of_delta[-1])
    over = (*axis_names(groups), *axis_names(d), *axis_names(p))

    def local(a: Array, delta: Array) -> Array:
        # The compiler calls this, maybe from a thread of its own, in which `with jax.enable_x64():` of the user is not
        # active. A mesh that is set would have the operations ask for shardings, in code that is one device's.
        with jax.enable_x64(result.dtype == jnp.float64), jax.sharding.use_abstract_mesh(NO_MESH):
            found = _mapped(leading - 1)(a, delta)
            return lax.psum(found, over) if over else found

    def placed(*spec: Any) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*spec))

    return mesh, local, placed(*rows), (placed(*rows, None, groups, d), placed(*rows, None, groups, p))


_by_blocks.def_partition(_partition, sharding_rule="... t g d, ... t g p -> ...")

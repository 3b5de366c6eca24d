"""Differentially private descent: per-example gradients are clipped and summed, and noise is added to the sum.

The privacy spent follows from the noise multiplier, the sampling rate and the number of steps. This module does no
accounting; see `per_example.dp_event`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_leading_axis
from jaxnn.numerics import accumulation_dtype, safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import Optimizer, dtypes_of, initial_moment, map_leaves, real_dtype, widen, widened
from jaxnn.optim.descent import descent
from jaxnn.optim.keys import raw_key, typed_key
from jaxnn.optim.rules.noise import as_key
from jaxnn.optim.rules.sgd import TraceState, trace
from jaxnn.optim.scalars import abs_sq, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Key, Params, PyTree, Scalar, ScalarOrSchedule
from jaxnn.varying import varying_axes


class DifferentiallyPrivateAggregateState(NamedTuple):
    """`rng_key`: raw data of the random key of the next step, uint32; `count`: int32 steps taken; `trace`: the decayed
    sum of private gradients (None without momentum)."""

    rng_key: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    trace: PyTree


def per_example_global_norm_clip(grads: PyTree, l2_norm_clip: Scalar) -> tuple[PyTree, Array]:
    """The sum over examples of gradients clipped to a norm: sum_i min(1, C / |g_i|) g_i, |g_i| over all arrays.

    Norms and sums are accumulated in float32 (float64 for float64) at the highest precision, so that half precision
    and TensorFloat-32 do not loosen the bound. The sums are stored in the gradients' dtypes.

    Args:
        grads: pytree of arrays (N, ...), one gradient for each of N examples; None leaves stay.
        l2_norm_clip: C, >= 0, may be infinite.

    Returns:
        (sums (...), the number of examples that were clipped, int32).

    Raises:
        ValueError: an array has no example axis or another N, or there is no example; l2_norm_clip negative.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> per_example_global_norm_clip([jnp.array([[3.0, 4.0], [0.0, 1.0]])], 2.5)
        ([Array([1.5, 3. ], dtype=float32)], Array(1, dtype=int32))
    """
    require_between("per_example_global_norm_clip", "l2_norm_clip", l2_norm_clip, 0, math.inf)
    _examples("per_example_global_norm_clip", grads)
    sums, clipped = _clipped_sums(widen(grads), l2_norm_clip)
    return dtypes_of(sums, grads), clipped


def per_example_layer_norm_clip(
    grads: PyTree, global_l2_norm_clip: Scalar, uniform: bool = True
) -> tuple[PyTree, PyTree]:
    """The sum over examples of gradients clipped array by array: sum_i min(1, C_k / |g_ik|) g_ik.

    C_k = C / sqrt(K) for each of K arrays if `uniform`, else C sqrt(D_k / D), with D_k of the D entries in array k.
    Both bound the norm over all arrays by C.

    Args:
        grads: pytree of arrays (N, ...), one gradient for each of N examples; None leaves stay.
        global_l2_norm_clip: C, >= 0, may be infinite.
        uniform: whether all arrays have the same bound.

    Returns:
        (sums (...), how many examples were clipped in each array, int32): two pytrees like `grads`.

    Raises:
        ValueError: an array has no example axis or another N, or there is no example; global_l2_norm_clip negative.

    Reference: McMahan, H. B., Ramage, D., Talwar, K. & Zhang, L. (2018). Learning differentially private recurrent
        language models, section 2 (per-layer clipping).

    Example:
        >>> clip = jax.jit(per_example_layer_norm_clip)
        >>> sums, clipped = clip([jnp.array([[3.0, 4.0]]), jnp.array([1.0])], 2.0)
        >>> clipped
        [Array(1, dtype=int32), Array(0, dtype=int32)]
    """
    require_between("per_example_layer_norm_clip", "global_l2_norm_clip", global_l2_norm_clip, 0, math.inf)
    examples = _examples("per_example_layer_norm_clip", grads)
    leaves, structure = jax.tree.flatten(grads)
    sizes = [leaf.size // examples for leaf in leaves]
    shares = [1 / len(leaves) if uniform else size / sum(sizes) for size in sizes]
    wide = jax.tree.leaves(widen(grads))
    pairs = [
        _clipped_sums(g, jnp.asarray(global_l2_norm_clip) * share**0.5) for g, share in zip(wide, shares, strict=True)
    ]
    sums, clipped = (jax.tree.unflatten(structure, column) for column in zip(*pairs, strict=True))
    return dtypes_of(sums, grads), clipped


@specified
def differentially_private_aggregate(
    l2_norm_clip: Scalar, noise_multiplier: Scalar, key: Key | int | None = None, *, seed: int | None = None
) -> Optimizer:
    """The mean of clipped per-example gradients, with noise.

    direction = (sum_i min(1, C / |g_i|) g_i + s C n) / N,   n standard normal,   C = l2_norm_clip,
    s = noise_multiplier,   N examples,   |g_i| over all arrays

    It does no privacy accounting. The gradients have a leading example axis, so this is the first link of a chain. The
    draws are those of optax for the same key in float32 and float64; half precision draws in float32 here.

    Gradients that differ between the devices of `jax.shard_map` raise: each device would clip by its own part of the
    norm, and all would add the same noise. With check_vma=False this goes undetected. `update` takes gradients (N, ...)
    for parameters (...).

    Args:
        l2_norm_clip: C, the clipping norm, >= 0.
        noise_multiplier: s, the noise's standard deviation as a multiple of C, >= 0.
        key: random key, typed or raw, or integer. Without one the noise is that of key 0, with a warning: known noise
            protects nothing.
        seed: older name of an integer key; ValueError if both are given.

    Raises:
        ValueError: a gradient that is not (N, ...), or that varies over mesh axes inside `shard_map`.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> opt = differentially_private_aggregate(2.5, 0.0, key=0)
        >>> opt.update(jnp.array([[3.0, 4.0], [0.0, 1.0]]), opt.init(jnp.zeros(2)))[0]
        Array([0.75, 1.5 ], dtype=float32)
    """
    require_nonnegative(
        "differentially_private_aggregate", l2_norm_clip=l2_norm_clip, noise_multiplier=noise_multiplier
    )
    first = as_key("differentially_private_aggregate", key, seed)

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        initial_moment(params)  # for its check that every parameter is floating
        return DifferentiallyPrivateAggregateState(raw_key(first), zero_count(), None)

    @widened
    def update(
        updates: PyTree, state: DifferentiallyPrivateAggregateState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, DifferentiallyPrivateAggregateState]:
        examples = _examples("differentially_private_aggregate", updates, params)
        if axes := sorted(varying_axes(updates)):
            raise ValueError(
                f"differentially_private_aggregate: inside shard_map the gradients differ over the mesh axes {axes}, "
                "expected the same on all devices: each would clip by its own part of the norm, and all would add the "
                "same noise. Use jax.jit with NamedSharding, or per_example.dp_sgd, which adds up the devices' "
                "examples before the noise."
            )
        sums, _ = _clipped_sums(updates, l2_norm_clip)
        leaves, structure = jax.tree.flatten(sums)
        next_key, *keys = jax.random.split(typed_key(state.rng_key, first), len(leaves) + 1)
        means = []
        for g, k in zip(leaves, keys, strict=True):
            deviation = cast_like(l2_norm_clip, g) * cast_like(noise_multiplier, g)
            means.append((g + deviation * jax.random.normal(k, g.shape, g.dtype)) / examples)
        updates = jax.tree.unflatten(structure, means)
        return updates, state._replace(count=increment(state.count), rng_key=jax.random.key_data(next_key))

    return Optimizer(init, update)


@specified
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    seed: Key | int,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> Optimizer:
    """Gradient descent on clipped, noisy per-example gradients: update = -learning_rate direction.

    direction is `differentially_private_aggregate`'s, with momentum its trace as in `sgd`. It does no privacy
    accounting.

    `per_example.dp_sgd` makes the same step from the loss of one example: it materializes no gradient (N, ...), takes
    any optimizer, and `per_example.dp_event` describes the run to an accountant. `update` takes gradients (N, ...) for
    parameters (...).

    Args:
        l2_norm_clip, noise_multiplier: see `differentially_private_aggregate`.
        seed: integer or random key.
        momentum: decay of the trace; None or a Python 0 keeps none.
        nesterov: whether to use Nesterov's momentum; needs momentum.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> opt = dpsgd(0.1, l2_norm_clip=2.5, noise_multiplier=0.0, seed=0)
        >>> params = jnp.zeros(2)
        >>> opt.update(jnp.array([[3.0, 4.0], [0.0, 1.0]]), opt.init(params), params)[0]
        Array([-0.075, -0.15 ], dtype=float32)
    """
    if nesterov and momentum is None:
        raise ValueError("dpsgd: nesterov=True needs a momentum, got momentum=None. Pass momentum=0.9, for instance.")
    require_nonnegative("dpsgd", momentum=momentum)
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed)
    if momentum is None or is_zero(momentum):
        return descent(private, learning_rate, where="dpsgd")
    sums = trace(momentum, nesterov)

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        return private.init(params)._replace(trace=sums.init(params).trace)

    def update(
        updates: PyTree, state: DifferentiallyPrivateAggregateState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, DifferentiallyPrivateAggregateState]:
        means, new = private.update(updates, state, params)
        steps, kept = sums.update(means, TraceState(state.trace, state.count), params)
        return steps, new._replace(trace=kept.trace)

    return descent(Optimizer(init, update), learning_rate, where="dpsgd")


def _clipped_sums(grads: PyTree, bound: Scalar) -> tuple[PyTree, Array]:
    """(sum_i min(1, bound / |g_i|) g_i, number of clipped examples) of wide gradients."""
    leaves = jax.tree.leaves(grads)
    precision = real_dtype(accumulation_dtype(*(g.dtype for g in leaves)))
    squares = [jnp.sum(abs_sq(g), range(1, g.ndim)).astype(precision) for g in leaves]
    norms = safe_sqrt(sum(squares[1:], squares[0]))
    largest = cast_like(bound, norms)
    clipped = norms > largest
    weights = jnp.where(clipped, safe_divide(jnp.where(clipped, largest, 0), norms), jnp.ones_like(norms))
    sums = map_leaves(lambda g: jnp.tensordot(weights.astype(g.dtype), g, 1, precision="highest"), grads)
    return sums, jnp.sum(clipped, dtype=jnp.int32)


def _examples(where: str, grads: PyTree, params: Params | None = None) -> int:
    """N, the number of examples; ValueError unless every gradient is (N, ...) for a parameter (...)."""
    remedy = "Take one of each example by jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y)."
    n = require_leading_axis(where, "the gradients", grads, remedy)
    if params is not None:
        map_leaves(lambda g, p: _require_example_axis(where, jnp.shape(g), jnp.shape(p)), grads, params)
    return n


def _require_example_axis(where: str, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the gradient's shape is the parameter's behind one axis of examples."""
    if got[1:] != shape:
        expected = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"{where}: a gradient must be ({expected}) for its parameter {shape}, got {got}.")

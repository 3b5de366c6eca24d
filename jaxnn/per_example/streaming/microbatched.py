"""The gradient and statistics of a batch larger than memory, in microbatches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.per_example.microbatch import over_microbatches
from jaxnn.per_example.recording.recorder import recorder_of
from jaxnn.per_example.streaming.gradient import statistics_of, value_and_grad, weights_for
from jaxnn.per_example.streaming.norms import SqNorms
from jaxnn.per_example.streaming.postponed import Postponed
from jaxnn.per_example.streaming.removed import kept_of
from jaxnn.types import Array, PyTree
from jaxnn.varying import sum_like, vary, varying_axes

WHERE = "microbatched_value_and_grad"
NORMS = SqNorms()


def microbatched_value_and_grad(
    loss: Callable[..., Any],
    statistics: PyTree = NORMS,
    *,
    size: int | None = None,
    memory: int | None = None,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> Callable[..., Any]:
    """`value_and_grad`, one microbatch after the other: the same results, in the memory of `size` examples.

    Losses, rows of statistics and aux are concatenated, gradients and sums over examples added up, each in its own
    dtype, and a statistic is made of the whole: a second moment is the mean over all examples of weight other than 0.
    Inside `jax.shard_map` devices add up gradients once, at the end.

    Args:
        loss, statistics, argnums, in_axes, has_aux, trainable: as for `value_and_grad`.
        size: examples in a microbatch; the last may be smaller.
        memory: instead of size, the bytes that intermediate arrays may take (`over_microbatches`).

    Returns:
        `vg(*args, weights=None) -> ((losses, stats[, aux]), grads)`, as of `value_and_grad`.

    Raises:
        TypeError, ValueError: as `value_and_grad` and `over_microbatches`; a `Variance`, whose parts do not add up.

    Example:
        >>> loss = lambda w, x: jnp.vdot(w, x)
        >>> vg = microbatched_value_and_grad(loss, size=2)
        >>> (losses, sq_norms), grads = vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]))
        >>> sq_norms, grads
        (Array([ 5., 25.,  1.], dtype=float32), Array([4., 7.], dtype=float32))
    """
    recorder = recorder_of(WHERE, loss, argnums, in_axes, has_aux, trainable)
    found, structure = statistics_of(statistics)
    [Postponed(statistic) for statistic in found]  # its checks
    options: dict[str, Any] = {"argnums": argnums, "in_axes": in_axes, "has_aux": has_aux, "trainable": trainable}

    def vg(*args: Any, weights: Array | None = None) -> Any:
        given = recorder.arguments(args, WHERE)
        shares = weights_for(WHERE, weights, given)
        # Of parameters of its own a device adds up its own microbatches: one sum over the devices, at the end.
        own = vary(given.leaves, varying_axes(given.leaves, given.mapped, shares))
        postponed = tuple(Postponed(statistic) for statistic in found)
        in_parts = value_and_grad(loss, postponed, **options)
        places = list(zip(given.mapped, given.axes, strict=True))
        batched = [jnp.moveaxis(x, axis, 0) if axis else x for x, axis in places if axis is not None]

        def part(batched: list[Array], shares: Array | None) -> Any:
            rest = iter(batched)
            mapped = [
                x if axis is None else jnp.moveaxis(next(rest), 0, axis) if axis else next(rest) for x, axis in places
            ]
            (losses, parts, *aux), grads = in_parts(*given.rebuilt(own, mapped), weights=shares)
            sums, rows = zip(*parts, strict=True) if parts else ((), ())
            return (grads, sums), (losses, rows, aux)

        (grads, sums), (losses, rows, aux) = over_microbatches(part, (batched, shares), size, memory=memory)
        kept = kept_of(shares, given.examples)
        values = [
            statistic.combined(some, each, given.examples, kept)
            for statistic, some, each in zip(postponed, sums, rows, strict=True)
        ]
        leaves = given.structure.flatten_up_to(grads)
        grads = jax.tree.unflatten(given.structure, sum_like(leaves, list(given.leaves)))
        return (losses, jax.tree.unflatten(structure, values), *aux), grads

    return vg

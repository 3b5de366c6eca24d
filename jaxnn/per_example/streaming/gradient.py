"""Statistics of per-example gradients and the gradient itself, in one backward pass that stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype
from jaxnn.per_example.recording.arguments import Arguments, arguments_of
from jaxnn.per_example.recording.preparing import on_their_mesh, varying
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.per_example.streaming.dense import TOTAL
from jaxnn.per_example.streaming.norms import SqNorms
from jaxnn.per_example.streaming.program import Program, program_of
from jaxnn.per_example.streaming.removed import without_removed, zero_where
from jaxnn.per_example.streaming.rule import Asked, Local, Row
from jaxnn.per_example.streaming.sites import all_sites
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Statistic
from jaxnn.placement import filled_as
from jaxnn.tape import weighted
from jaxnn.types import Array, PyTree
from jaxnn.varying import sum_like, vary, varying_axes

WHERE = "value_and_grad"
"""The function that messages name."""


def value_and_grad(
    loss: Callable[..., Any],
    statistics: PyTree = SqNorms(),
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> Callable[..., Any]:
    if not callable(loss):
        raise TypeError(
            f"value_and_grad: loss must be a function of one example, (params, *args) -> (), got {type(loss).__name__}."
        )
    found, structure = statistics_of(statistics)

    def vg(*args: Any, weights: Array | None = None) -> Any:
        with on_their_mesh(args, WHERE):
            given = arguments_of(args, argnums, in_axes, trainable, WHERE)
            if not given.examples:
                raise ValueError("value_and_grad: expected a batch of at least 1 example, got none.")
            traced, varied = varying(loss, given, has_aux)
            result = streamed(traced, varied, found, _weights(weights, given))
            # Inside `shard_map` parameters were cast to vary, so that rows of different devices are not added up. Their
            # gradients are those of `jax.grad`: summed over the devices that share the parameters.
            grads = sum_like(result.grads, jax.tree.unflatten(given.structure, given.leaves))
        values = jax.tree.unflatten(structure, result.values)
        head = (result.losses, values, result.aux) if has_aux else (result.losses, values)
        return head, grads

    return vg


def _weights(weights: Array | None, given: Arguments) -> Array | None:
    if weights is not None and jnp.shape(weights) != (given.examples,):
        raise ValueError(
            f"value_and_grad: expected one weight for each of {given.examples} examples, shape ({given.examples},), "
            f"got shape {jnp.shape(weights)}."
        )
    if weights is None:
        return None
    weights = jnp.asarray(weights)
    if jnp.issubdtype(weights.dtype, jnp.complexfloating):
        raise TypeError(f"value_and_grad: weights must be real numbers, got {weights.dtype.name}.")
    return weights


def statistics_of(statistics: PyTree) -> tuple[tuple[Statistic, ...], Any]:
    """The statistics of a tuple, list or dict of them, or of one, and the treedef."""
    leaves, structure = jax.tree.flatten(statistics, is_leaf=lambda x: isinstance(x, Statistic))
    for leaf in leaves:
        if not isinstance(leaf, Statistic):
            what = f"the class {leaf.__name__}" if isinstance(leaf, type) else type(leaf).__name__
            raise TypeError(
                "value_and_grad: statistics must be a statistic such as per_example.SqNorms(), or a tuple or dict of "
                f"them, got {what}."
            )
    return tuple(leaves), structure


class Result(NamedTuple):
    """The losses (N,), the value of each statistic, aux, and the gradient of the weighted sum."""

    losses: Array
    values: list[PyTree]
    aux: PyTree
    grads: PyTree


def streamed(
    found: Traced,
    given: Arguments,
    statistics: tuple[Statistic, ...],
    weights: Array | None = None,
    factors: Array | None = None,
) -> Result:
    """One backward pass of sum_i w_i loss_i. The gradients are of sum_i c_i w_i loss_i, c the factors (N,)."""
    mapped = given.mapped if weights is None else without_removed(given, weights)
    program = program_of(found, given)
    asked = asked_of(given, program, statistics)
    rows, sums = _zeros(given, asked)
    in_axes = (None, 0, 0, None, given.axes, None if factors is None else 0, 0)

    def one(trained: Any, taps: PyTree, zeros: Any, sums: Any, mapped: list[Any], factor: Any, mark: Array) -> Any:
        leaves = [trained.get(i, leaf) for i, leaf in enumerate(given.leaves)]
        locals_ = {
            i: Local(
                leaf,
                sums[i],
                {k: part.like for k, part in asked.parts[i].items()},
                {k: part.shared for k, part in asked.parts[i].items()},
                jnp.int32(0),
            )
            for i, leaf in trained.items()
        }
        return program(asked, leaves, taps, locals_, Row(mark, zeros, factor), mapped)

    def total(trained: Any, taps: PyTree, zeros: Any, sums: Any) -> tuple[Array, Any]:
        each, seen, aux = jax.vmap(one, in_axes)(trained, taps, zeros, sums, mapped, factors, rows.mark)
        return jnp.sum(each if weights is None else weighted(each, weights)), (each, seen, aux)

    trained = {i: given.leaves[i] for i in sorted(program.streamed)}
    derivative = jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)
    (grads, deltas, values, totals), (each, seen, aux) = derivative(trained, program.taps, rows.zeros, sums)

    for i, uses in program.rest(seen, deltas).items():
        leaf = jax.ShapeDtypeStruct(given.leaves[i].shape, given.leaves[i].dtype)
        gradients = Gradients(uses, leaf, given.examples, (len(asked.numbers), 0), factors, asked.needs | {TOTAL})
        for k, part in asked.parts[i].items():
            value = asked.statistics[k].of_use(gradients, part)
            if part.shape is None:
                totals[i][k] = value.reshape(given.leaves[i].shape).astype(totals[i][k].dtype)
            else:
                values[k, part.slot] = values[k, part.slot] + value.astype(asked.dtype)
        grads[i] = gradients.total
    kept = given.examples
    if weights is not None:
        removed = weights == 0
        kept = jnp.maximum(given.examples - jnp.sum(removed), 1)
        each, aux, values = zero_where(removed, (each, aux, values))
        # With no example left, what replaced them may have been anything.
        grads, totals = jax.tree.map(lambda x: jnp.where(jnp.all(removed), jnp.zeros_like(x), x), (grads, totals))
    batch = Batch(given.examples, weights is not None, kept, given.paths, given.structure)
    found_values = [_combined(asked, k, values, totals, batch) for k in range(len(statistics))]
    tree = jax.tree.unflatten(given.structure, [grads[i] for i in range(len(given.leaves))])
    return Result(each, found_values, aux, tree)


def asked_of(given: Arguments, program: Program, statistics: tuple[Statistic, ...]) -> Asked:
    """What each parameter contributes to each statistic."""
    shapes = zip(given.paths, given.leaves, strict=True)
    params = tuple(Parameter(path, tuple(leaf.shape), leaf.dtype) for path, leaf in shapes)
    parts = [
        {k: part for k, s in enumerate(statistics) if (part := s.prepare(param, params)) is not None}
        for param in params
    ]
    dtype = accumulation_dtype(jnp.float32, *(leaf.dtype for leaf in given.leaves))
    # Slices of one parameter that are concatenated again are parts of one site, and have numbers of their own.
    places = [(id(site), i) for site in all_sites(program.reading) for i in range(len(site.parts))]
    numbers = {place: number for number, place in enumerate(places)}
    return Asked(statistics, tuple(parts), numbers, dtype)


def _zeros(given: Arguments, asked: Asked) -> tuple[Row, Any]:
    """The zeros whose cotangents are the statistics: (rows (N, ...), sums by parameter)."""
    axes = varying_axes(given.leaves, given.mapped)
    slots = {(k, part.slot): part.shape for parts in asked.parts for k, part in parts.items() if part.shape is not None}

    def of_one(mapped: list[Any]) -> Row:
        zeros = {slot: jnp.zeros(shape, asked.dtype) for slot, shape in slots.items()}
        return vary(Row(jnp.zeros((), asked.dtype), zeros, None), axes)

    sums = []
    for leaf, parts in zip(given.leaves, asked.parts, strict=True):
        wide = jax.typeof(leaf).update(dtype=accumulation_dtype(leaf.dtype), weak_type=False)
        sums.append({k: filled_as(wide) for k, part in parts.items() if part.shape is None})
    return jax.vmap(of_one, in_axes=(given.axes,), axis_size=given.examples)(given.mapped), sums


def _combined(asked: Asked, k: int, values: Any, totals: Any, batch: Batch) -> PyTree:
    """The result of one statistic."""
    found = {slot: x for (statistic, slot), x in values.items() if statistic == k}
    of_params = [(parts[k].slot, sums[k]) for parts, sums in zip(asked.parts, totals, strict=True) if k in sums]
    return asked.statistics[k].combine(found | dict(of_params), batch)

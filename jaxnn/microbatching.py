"""Microbatching: a function of a batch, evaluated on one microbatch after the other, in the memory of one.

With optax's names and arguments, for any function. `optim.accumulate` accumulates gradients over several steps instead;
norms and clipped sums of per-example gradients (`per_example`) need no microbatches.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn import checks, missing
from jaxnn.placement import filled_as
from jaxnn.types import Array, PyTree

Function: TypeAlias = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """How the results x_i of microbatches are combined: finalize(update(... update(init(shapes), x_0, 0) ..., x_n, n)).

    Attributes:
        init: shapes and dtypes of one result -> the initial carry.
        update: (carry, result, index of the microbatch) -> the new carry.
        finalize: the final carry -> the result.
        aggregate: for `micro_vmap`: the results of a microbatch's examples, stacked on the first axis -> its result.

    Example:
        >>> largest = Accumulator(
        ...     init=lambda x: jnp.full(x.shape, -jnp.inf, x.dtype),
        ...     update=lambda carry, x, _: jnp.maximum(carry, x),
        ...     finalize=lambda carry: carry,
        ...     aggregate=lambda values: values.max(0),
        ... )
        >>> microbatch(lambda x: x.max(), 0, 2, largest)(jnp.array([1.0, 5.0, 3.0, 2.0]))
        Array(5., dtype=float32)
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, Any], PyTree]
    finalize: Callable[[PyTree], PyTree]
    aggregate: Callable[[PyTree], PyTree]


class AccumulationType(enum.Enum):
    """The ready-made accumulators.

    SUM adds the results. MEAN divides the sum by the number of microbatches in the batch, RUNNING_MEAN by the number
    that ran (`num_real_microbatches`). CONCAT concatenates on the first axis, in the order of the batch; rows of
    microbatches that did not run are 0.

    Example:
        >>> microbatch(lambda x: 2 * x, 0, 2, AccumulationType.CONCAT)(jnp.arange(4))
        Array([0, 2, 4, 6], dtype=int32)
    """

    MEAN = enum.auto()
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()
    CONCAT = enum.auto()


class IndividualOutputs(NamedTuple):
    """What `micro_grad` returns per example: the function's values, metrics of the gradients, auxiliary outputs."""

    values: Any
    metrics: Any
    aux: Any


def reshape_batch_axis(tree: PyTree, microbatch_size: int, axis: int = 0) -> PyTree:
    """The batch axis split into (M, microbatch_size): microbatch i holds examples i, i + M, i + 2 M, ...

    Strided, not contiguous: a sharded batch axis stays sharded, as the second of the two axes.

    Args:
        tree: pytree of arrays with a batch axis.
        microbatch_size: examples per microbatch, >= 1.
        axis: the batch axis, of every leaf.

    Returns:
        Each leaf with `axis`, of size N, replaced by axes of sizes M = N / microbatch_size and microbatch_size.

    Raises:
        ValueError: the size does not divide the batch.

    Example:
        >>> reshape_batch_axis(jnp.arange(6), 2)
        Array([[0, 3],
               [1, 4],
               [2, 5]], dtype=int32)
    """
    return jax.tree.map(lambda x: _split(jnp.asarray(x), microbatch_size, axis), tree)


def microbatch(
    fun: Function,
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | Array | None = None,
) -> Function:
    """A function that applies `fun` to one microbatch after the other and combines the results.

    Args:
        fun: any function of pytrees of arrays.
        argnums: positions of the arguments with a batch axis.
        microbatch_size: examples per microbatch, a divisor of the batch size; None returns `fun`.
        accumulator: an `AccumulationType`, an `Accumulator`, or a pytree of them that is a prefix of the result.
        argnames: names of the keyword arguments with a batch axis.
        in_axes: the batch axis of each, in the order of argnums and then argnames; one int for all.
        num_real_microbatches: stop after this many microbatches, not more than there are (not checked); ignored if
            microbatch_size is None. May be traced (then reverse mode is not available).

    Returns:
        A function of the arguments of `fun`.

    Raises:
        ValueError: microbatch_size < 1; in_axes of another length; when called: batch axes that differ in size, are
            empty or not divisible by microbatch_size; MEAN or RUNNING_MEAN of integers; accumulators that are no prefix
            of the result.
        TypeError: microbatch_size is not an int; when called: `accumulator` is none of these; an argument of `argnums`
            is passed by name, one of `argnames` by position.

    Example:
        >>> mean = microbatch(lambda x: (x + 1, x.mean()), 0, 2, (AccumulationType.CONCAT, AccumulationType.MEAN))
        >>> mean(jnp.arange(4.0))
        (Array([1., 2., 3., 4.], dtype=float32), Array(1.5, dtype=float32))
    """
    if microbatch_size is None:
        return fun
    size = checks.require_positive_int("microbatch", "microbatch_size", microbatch_size)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    axes = (in_axes,) * (len(numbers) + len(names)) if isinstance(in_axes, int) else tuple(in_axes)
    if len(axes) != len(numbers) + len(names):
        raise ValueError(f"microbatch: in_axes must name one axis for each of {numbers + names}, got {in_axes}.")

    @functools.wraps(fun)
    def in_pieces(*args: Any, **kwargs: Any) -> Any:
        absent = [i for i in numbers if not -len(args) <= i < len(args)] + [n for n in names if n not in kwargs]
        if absent:
            raise TypeError(
                f"microbatch: argnums are positional arguments and argnames keywords of the call, got {len(args)} "
                f"positional and the keywords {list(kwargs)} for {absent}. Name each as it is passed."
            )
        batched: dict[Any, PyTree] = {i % len(args): args[i] for i in numbers}
        batched |= {name: kwargs[name] for name in names}
        axis_of = dict(zip(batched, axes, strict=True))
        pieces = _count(batched, axis_of, size)
        split = {k: reshape_batch_axis(v, size, axis_of[k]) for k, v in batched.items()}

        def run(index: Any) -> Any:
            def part(x: Array, axis: int) -> Array:  # x has one axis more than the argument: count -1 from its end
                return jax.lax.dynamic_index_in_dim(x, index, axis % (x.ndim - 1), keepdims=False)

            taken = {k: jax.tree.map(functools.partial(part, axis=axis_of[k]), v) for k, v in split.items()}
            positional = [taken.get(i, a) for i, a in enumerate(args)]
            return fun(*positional, **{name: taken.get(name, a) for name, a in kwargs.items()})

        shapes = jax.eval_shape(run, 0)
        join = _joined(accumulator, pieces)
        end = pieces if num_real_microbatches is None else num_real_microbatches
        carry = jax.lax.fori_loop(0, end, lambda i, c: join.update(c, run(i), i), join.init(shapes))
        return join.finalize(carry)

    return in_pieces


def micro_vmap(
    fun: Function,
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Function = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: int | Array | None = None,
) -> Function:
    """`jax.vmap` over one microbatch after the other, the results concatenated or reduced over the examples.

    Args:
        fun: a function of one example. Keyword arguments are mapped over their first axis, as by `jax.vmap`.
        in_axes: the batch axis of each positional argument, None if it has none. An int is for one argument only
            (unlike `jax.vmap`): for two write (0, 0).
        out_axes: must be 0.
        microbatch_size, num_real_microbatches: as for `microbatch`.
        vmap_fn: replaces `jax.vmap`.
        accumulator: as for `microbatch`; SUM and the means also reduce over the examples. If microbatch_size is None,
            the whole batch is one microbatch, and only the accumulator's `aggregate` (see `Accumulator`) is applied.

    Returns:
        A function of batches.

    Raises:
        ValueError: out_axes is not 0; or as for `microbatch`.

    Example:
        >>> micro_vmap(lambda x: x**2, microbatch_size=2, accumulator=AccumulationType.SUM)(jnp.arange(4.0))
        Array(14., dtype=float32)
    """
    if out_axes != 0:
        raise ValueError(
            f"micro_vmap: out_axes must be 0, got {out_axes!r}. Move the axis of the result: jnp.moveaxis."
        )
    axes = (in_axes,) if isinstance(in_axes, int) else tuple(in_axes)

    def reduced(*args: Any, kwargs: dict[str, Any]) -> Any:
        each = vmap_fn(fun, axes, 0)(*args, **kwargs)
        return _joined(accumulator, 1).aggregate(each)

    in_pieces = microbatch(
        reduced,
        argnums=tuple(i for i, a in enumerate(axes) if a is not None),
        microbatch_size=microbatch_size,
        accumulator=accumulator,
        argnames="kwargs",
        in_axes=(*(a for a in axes if a is not None), 0),
        num_real_microbatches=num_real_microbatches,
    )

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return in_pieces(*args, kwargs=kwargs)

    return mapped


def micro_grad(
    fun: Function,
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[PyTree], PyTree] = lambda x: x,
    metrics_fn: Callable[[PyTree], PyTree] = lambda x: None,
    num_real_microbatches: int | Array | None = None,
) -> Function:
    """Per-example gradients, each transformed, then combined.

    The gradients of one microbatch are materialized at a time; for norms, clipped sums and variances
    `jaxnn.per_example` is far cheaper.

    Args:
        fun: a scalar loss of (params, batch); no positional arguments after the last of `batch_argnums`.
        has_aux: whether `fun` returns (loss, auxiliary output).
        argnums: positions of the arguments to differentiate with respect to.
        batch_argnums: positions of the arguments with a batch axis (axis 0).
        keep_batch_dim: call `fun` on batches of size 1; False: on examples without the axis.
        microbatch_size, num_real_microbatches: as for `microbatch`.
        accumulator: for the transformed gradients.
        transform_fn: applied to each per-example gradient.
        metrics_fn: applied to each per-example gradient before `transform_fn`; the results are returned per example.

    Returns:
        A function of the arguments of `fun`, returning (combined gradients, `IndividualOutputs` with the examples on
        axis 0). Keyword arguments are mapped over axis 0, as by `micro_vmap`; `keep_batch_dim` does not apply to them.

    Example:
        >>> grad = micro_grad(lambda w, x: 0.5 * jnp.sum((x - w) ** 2), microbatch_size=2, metrics_fn=jnp.abs)
        >>> total, each = grad(jnp.array(0.0), jnp.array([1.0, 2.0, 3.0, 4.0]))
        >>> total, each.metrics
        (Array(-10., dtype=float32), Array([1., 2., 3., 4.], dtype=float32))
    """
    batched = (batch_argnums,) if isinstance(batch_argnums, int) else tuple(batch_argnums)
    value_and_grad = jax.value_and_grad(fun, argnums, has_aux=has_aux)

    def of_one(*args: Any, **kwargs: Any) -> tuple[Any, IndividualOutputs]:
        value, grad = value_and_grad(*args, **kwargs)
        loss, aux = value if has_aux else (value, None)
        return transform_fn(grad), IndividualOutputs(loss, metrics_fn(grad), aux)

    mapped = micro_vmap(
        of_one,
        [0 if i in batched else None for i in range(max(batched) + 1)],
        accumulator=(accumulator, AccumulationType.CONCAT),
        microbatch_size=microbatch_size,
        num_real_microbatches=num_real_microbatches,
    )
    if not keep_batch_dim:
        return mapped

    @functools.wraps(fun)
    def with_axis(*args: Any, **kwargs: Any) -> Any:
        of_size_1 = functools.partial(jax.tree.map, lambda x: jnp.expand_dims(x, 1))
        return mapped(*[of_size_1(a) if i in batched else a for i, a in enumerate(args)], **kwargs)

    return with_axis


def _split(x: Array, size: int, axis: int) -> Array:
    count, rest = divmod(x.shape[axis], size)
    if rest:
        raise ValueError(f"microbatch_size={size} must divide the batch, got {x.shape[axis]} examples on axis {axis}.")
    two = x.reshape(*x.shape[:axis], size, count, *x.shape[axis % x.ndim + 1 :])
    return jnp.swapaxes(two, axis % x.ndim, axis % x.ndim + 1)


def _joined_axis(x: Array) -> Array:
    """(microbatches, examples of one, ...) -> (N, ...): the inverse of `_split`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])


def _count(batched: dict[Any, PyTree], axis_of: dict[Any, int], size: int) -> int:
    """The number of microbatches."""
    sizes = {jnp.shape(x)[axis_of[k]] for k, v in batched.items() for x in jax.tree.leaves(v)}
    if len(sizes) != 1:
        raise ValueError(f"microbatch: batch axes must have one size, got {sorted(sizes) or 'no batched argument'}.")
    count, rest = divmod(sizes.pop(), size)
    if rest or not count:
        raise ValueError(
            f"microbatch: microbatch_size={size} must divide the batch, got {count * size + rest} examples."
        )
    return count


def _floating(struct: Any) -> Array:
    if not jnp.issubdtype(struct.dtype, jnp.inexact):
        raise ValueError(f"microbatch: MEAN and RUNNING_MEAN need floating results, got {struct.dtype}. Use SUM.")
    return filled_as(struct)


def _ready(kind: AccumulationType, pieces: int) -> Accumulator:
    """The ready-made accumulator, for one array."""
    if kind is AccumulationType.SUM:
        return Accumulator(filled_as, lambda c, x, _: c + x, lambda c: c, functools.partial(jnp.sum, axis=0))
    mean = functools.partial(jnp.mean, axis=0)
    if kind is AccumulationType.MEAN:
        return Accumulator(_floating, lambda c, x, _: c + x, lambda c: c / pieces, mean)
    if kind is AccumulationType.RUNNING_MEAN:
        return Accumulator(
            _floating, lambda c, x, i: c + (x - c) / jnp.asarray(i + 1).astype(x.dtype), lambda c: c, mean
        )
    return Accumulator(
        lambda s: filled_as(s, before=(pieces,)), lambda c, x, i: c.at[i].set(x), _joined_axis, lambda x: x
    )


def _joined(accumulators: PyTree, pieces: int) -> Accumulator:
    """One accumulator of whole results from a prefix pytree of accumulators of their parts."""

    def each(kind: Any) -> Accumulator:
        if isinstance(kind, Accumulator):
            return kind
        if not isinstance(kind, AccumulationType):
            raise TypeError(f"microbatch: accumulator must be an AccumulationType or an Accumulator, got {kind!r}.")
        one = _ready(kind, pieces)

        def update(carry: PyTree, value: PyTree, index: Any) -> PyTree:
            return jax.tree.map(lambda c, x: one.update(c, x, index), carry, value)

        over = functools.partial(functools.partial, jax.tree.map)
        return Accumulator(over(one.init), update, over(one.finalize), over(one.aggregate))

    known = jax.tree.map(each, accumulators)

    def over(name: str) -> Callable[[PyTree], PyTree]:
        return lambda value: jax.tree.map(lambda one, part: getattr(one, name)(part), known, value)

    def update(carry: PyTree, value: PyTree, index: Any) -> PyTree:
        return jax.tree.map(lambda one, c, x: one.update(c, x, index), known, carry, value)

    return Accumulator(over("init"), update, over("finalize"), over("aggregate"))


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

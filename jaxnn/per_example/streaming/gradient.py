"""Statistics of per-example gradients and the gradient itself, in one backward pass that stores nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnn.numerics import Precision, accumulation_dtype
from jaxnn.per_example.plan import Plan
from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.preparing import on_their_mesh, varying
from jaxnn.per_example.recording.recorder import Recorder, recorder_of
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.per_example.streaming.hoisting import Hoisted
from jaxnn.per_example.streaming.norms import SqNorms
from jaxnn.per_example.streaming.planning import plan_of
from jaxnn.per_example.streaming.program import Program, program_of
from jaxnn.per_example.streaming.removed import kept_of, without_removed, zero_where
from jaxnn.per_example.streaming.rule import Asked, Local, Row, Slot
from jaxnn.per_example.streaming.sites import all_sites
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic, value_of
from jaxnn.placement import compiler_sharded, explicit_spec, filled_as, on_mesh, rows_spec
from jaxnn.tape import Use, weighted
from jaxnn.types import Array, PyTree
from jaxnn.varying import sum_like, vary, varying_axes

WHERE = "value_and_grad"
"""The function that messages name."""


SQ_NORMS = SqNorms()
"""The default statistic."""


def value_and_grad(
    loss: Callable[..., Any],
    statistics: PyTree = SQ_NORMS,
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> Streamed:
    """Statistics of per-example gradients AND the gradient, in one backward pass of any JAX loss: nothing is stored.

    The loss of ONE example is traced to a jaxpr, as by `record`. Each operation with a parameter gets a backward rule
    that sees the input a and the cotangent delta of the whole batch: it returns the gradient summed over the examples
    and what the statistics ask for, such as |a_i' delta_i|^2. Time and memory are about those of `jax.grad`: `scan` and
    `checkpoint` stay as they are, where a tape stores every a and delta.

    | parameter | way |
    |---|---|
    | used once, or in disjoint slices (a scanned stack, the chunks of a head) | streamed |
    | the output layer of `losses.chunked_softmax_cross_entropy` | streamed, a chunk of classes at a time |
    | used several times: tied tables, constants of a scan | a tape of its uses alone |
    | in an operation without a rule (see `record`) | per-example differentiation of it alone |

    `print(plan(vg, *args))` shows the way of each parameter. `record` keeps the tape: for Gram matrices, several
    weighted sums of one batch, curvature.

    | statistic | result |
    |---|---|
    | `SqNorms()`, `SqNorms(by="parameter")`, `"layer"`, groups | squared norms of the gradients, (N,), or a dict |
    | `Margin()` | S_i, how far rounding can move them, (N,) |
    | `Directional(v)` | g_i . v, (N,) |
    | `Projection(key, k)` | k random numbers of each gradient, (N, k) |
    | `SecondMoment()`, `Variance()` | element-wise, pytrees like the parameters |
    | a tuple, list or dict of them | the same of results |
    | your own | three small functions: `Statistic` |

    All can be differentiated again in reverse mode (meta-gradients); forward mode (`jax.jvp`, `jax.hessian`) raises, as
    for any `jax.custom_vjp`. Under `jax.jit` with arrays sharded by `NamedSharding`, rows (N, ...) are sharded as the
    examples, gradients as those of `jax.grad`, with the same communication; under tensor parallelism norms are summed
    over the devices too, (N,) for each sharded matrix. For this the mesh must be known while tracing: from arguments
    that are already on it, or `jax.set_mesh`. Placed by `in_shardings` alone, and on TPU, Gram matrices (N, T, T) of
    short sequences are summed instead.
    Inside `jax.shard_map` rows and sums of statistics are of the device's own examples, gradients are what `jax.grad`
    returns there.

    Args:
        loss: as for `record`: `(params, *args) -> ()`, or (loss, aux) with `has_aux`.
        statistics: a statistic, or a tuple, list or dict of them; () for the gradient alone.
        argnums, in_axes, has_aux, trainable: as for `record`.

    Returns:
        `vg(*args, weights=None) -> ((losses, statistics[, aux]), grads)`: losses (N,) and aux (N, ...) of the examples;
        grads of the SUM sum_i loss_i, None for parameters that are not trained. Statistics are in float32 (float64),
        gradients in the dtypes of the parameters. With `weights` (N,) gradients and statistics are of w_i loss_i; an
        example of weight 0, such as padding, is removed: it adds nothing, even if its gradient is infinite or NaN, and
        its rows are 0, as are derivatives with respect to its weight. Products that form gradients alone are at the
        ambient precision, as those of `jax.grad`; all others are exact to float32.

    Raises:
        TypeError, ValueError: as `record`; something other than statistics; weights of another shape; what the
            statistics themselves raise.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4. Bu, Z., Wang, Y.-X., Zha,
        S. & Karypis, G. (2023). Differentially private optimization on large model at small cost, section 3.

    Example:
        >>> def loss(params, x, y):
        ...     return (jnp.tanh(x @ params["w"] + params["b"]) @ params["v"] - y) ** 2
        >>> params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2), "v": jnp.ones(2)}
        >>> vg = jax.jit(value_and_grad(loss, SqNorms()))
        >>> (losses, sq_norms), grads = vg(params, jnp.eye(3), jnp.zeros(3))
        >>> losses.shape, sq_norms.shape, grads["w"].shape
        ((3,), (3,), (3, 2))
    """
    return Streamed(recorder_of(WHERE, loss, argnums, in_axes, has_aux, trainable), *statistics_of(statistics))


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """`value_and_grad(loss, statistics)`: see there.

    Attributes:
        recorder: knows the loss and its options.
        statistics, structure: the statistics, flat, and their treedef.
    """

    recorder: Recorder
    statistics: tuple[Statistic, ...]
    structure: Any

    def __call__(self, *args: Any, weights: Array | None = None) -> Any:
        """((losses, statistics[, aux]), grads)."""
        with on_their_mesh(args, WHERE):
            given = self.recorder.arguments(args, WHERE)
            shares = weights_for(WHERE, weights, given)
            traced, varied = varying(self.recorder.loss, given, self.recorder.has_aux, shares)
            result = streamed(traced, varied, self.statistics, weights=shares)
            # Inside `shard_map` parameters were cast to vary, so that rows of different devices are not added up. Their
            # gradients are those of `jax.grad`: summed over the devices that share the parameters.
            grads = jax.tree.unflatten(given.structure, sum_like(result.grads, list(given.leaves)))
        values = jax.tree.unflatten(self.structure, result.values)
        head = (result.losses, values, result.aux) if self.recorder.has_aux else (result.losses, values)
        return head, grads

    def plan(self, *args: Any) -> Plan:
        """How each parameter is computed; see `plan`."""

        def run(spy: Statistic) -> Callable[..., Any]:
            return dataclasses.replace(self, statistics=(spy,), structure=jax.tree.structure(0))

        return plan_of(run, args)


def weights_for(where: str, weights: Array | None, given: Arguments) -> Array | None:
    """The weights (N,) of a batch of at least one example, or None."""
    if not given.examples:
        raise ValueError(f"{where}: expected a batch of at least 1 example, got none.")
    if weights is not None and jnp.shape(weights) != (given.examples,):
        raise ValueError(
            f"{where}: expected one weight for each of {given.examples} examples, shape ({given.examples},), "
            f"got shape {jnp.shape(weights)}."
        )
    if weights is None:
        return None
    weights = jnp.asarray(weights)
    if jnp.issubdtype(weights.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: weights must be real numbers, got {weights.dtype.name}.")
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
    """The losses (N,), the value of each statistic, aux, and the gradient of each parameter."""

    losses: Array
    values: list[PyTree]
    aux: PyTree
    grads: list[Array | None]


def streamed(
    found: Traced,
    given: Arguments,
    statistics: tuple[Statistic, ...],
    *,
    weights: Array | None = None,
    factors: dict[int, Array] | None = None,
    clips: dict[int, Hoisted] | None = None,
    gradient: bool = True,
    precision: Precision = None,
) -> Result:
    """One backward pass of sum_i w_i loss_i: statistics, and with `gradient` the gradient.

    With `factors` c_l (N,) of some parameters, statistics that are sums of their gradients (`WideTotal`) are
    sum_i c_il w_i g_il. `clips`: the same with c_il a function of |w_i g_il|. `precision` is that of the products in
    such sums.
    """
    mapped = given.mapped if weights is None else without_removed(given, weights)
    program, clips, factors = program_of(found, given), clips or {}, factors or {}
    asked = asked_of(given, program, statistics, clips, gradient, precision)
    rows, sums = _zeros(given, asked)

    def one(taps: PyTree, zeros: Any, mapped: list[Any], factors: Any, mark: Array, *, trained: Any, sums: Any) -> Any:
        leaves = [trained.get(i, leaf) for i, leaf in enumerate(given.leaves)]
        locals_ = {i: _local(leaf, sums[i], asked.parts[i], clips.get(i)) for i, leaf in trained.items()}
        return program(asked, leaves, taps, locals_, Row(mark, zeros, factors), mapped)

    def total(taps: PyTree, zeros: Any, sums: Any, trained: Any) -> tuple[Array, Any]:
        # Not arguments of `jax.vmap`, which takes none that are sharded over the Explicit mesh axis of the examples.
        of_one = functools.partial(one, trained=trained, sums=sums)
        each, seen, aux = jax.vmap(of_one, (0, 0, given.axes, 0, 0))(taps, zeros, mapped, factors, rows.mark)
        return jnp.sum(each if weights is None else weighted(each, weights)), (each, seen, aux)

    trained = {i: given.leaves[i] for i in sorted(program.streamed)}
    derivative = jax.grad(total, argnums=(0, 1, 2, 3) if gradient else (0, 1, 2), has_aux=True)
    (deltas, values, totals, *grads), (each, seen, aux) = derivative(program.taps, rows.zeros, sums, trained)
    grads = grads[0] if gradient else {}
    for i, uses in program.rest(seen, deltas).items():
        bound = clips[i].bound if i in clips else ()
        grads[i], totals[i], found_rows = _of_rest(given, asked, i, uses, bound, factors.get(i), each)
        values |= {slot: values[slot] + x for slot, x in found_rows.items()}
    if weights is not None:
        removed = weights == 0
        each, aux, values = zero_where(removed, (each, aux, values))
        # With no example left, what replaced them may have been anything.
        grads, totals = jax.tree.map(lambda x: jnp.where(jnp.all(removed), jnp.zeros_like(x), x), (grads, totals))
    batch = Batch(given.examples, weights is not None, kept_of(weights, given.examples), given.paths, given.structure)
    found_values = [_combined(asked, k, values, totals, batch) for k in range(len(statistics))]
    return Result(each, found_values, aux, [grads.get(i) for i in range(len(given.leaves))])


def _of_rest(
    given: Arguments,
    asked: Asked,
    i: int,
    uses: tuple[Use, ...],
    bound: PyTree,
    factors: Array | None,
    losses: Array,
) -> tuple[Array | None, dict[int, Array], dict[Slot, Array]]:
    """(gradient, sums over examples, values of examples) of a parameter that is not streamed, from all of its uses."""
    leaf = given.leaves[i]

    def of_batch(uses: tuple[Use, ...], parts: dict[int, Part], bound: PyTree, factors: Array | None) -> Any:
        kind = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        clip = functools.partial(asked.clips[i], bound) if i in asked.clips else factors
        numbers = (len(asked.numbers), 0)
        gradients = Gradients(uses, kind, given.examples, numbers, clip, asked.needs, asked.precision)
        sums, rows = {}, {}
        for k, part in parts.items():
            value = value_of(asked.statistics[k], gradients, part)
            if part.shape is None:
                sums[k] = value.astype(accumulation_dtype(leaf.dtype))
            else:
                rows[k, part.slot] = value.astype(asked.dtype)
        return [gradients.total] if asked.gradient else [], sums, rows

    spec = explicit_spec(leaf) or PartitionSpec()
    places = ([spec] if asked.gradient else [], spec, rows_spec(losses))
    grads, sums, rows = compiler_sharded(of_batch, places, uses, asked.parts[i], bound, factors)
    return (grads[0] if grads else None), sums, rows


def _local(leaf: Array, sums: dict[int, Array], parts: dict[int, Part], clip: Hoisted | None) -> Local:
    """What the whole parameter brings to its uses."""
    like, shared = ({k: getattr(part, name) for k, part in parts.items()} for name in ("like", "shared"))
    return Local(leaf, sums, like, shared, jnp.int32(0), () if clip is None else clip.bound)


def asked_of(
    given: Arguments,
    program: Program,
    statistics: tuple[Statistic, ...],
    clips: dict[int, Hoisted],
    gradient: bool,
    precision: Precision,
) -> Asked:
    """What each parameter contributes to each statistic."""
    shapes = zip(given.paths, given.leaves, strict=True)
    params = tuple(Parameter(path, tuple(leaf.shape), leaf.dtype) for path, leaf in shapes)
    parts = [
        {k: part for k, s in enumerate(statistics) if (part := s.prepare(param, params)) is not None}
        for param in params
    ]
    for k, statistic in enumerate(statistics):
        kinds = {type(part[k].slot).__name__ for part in parts if k in part}
        if len(kinds) > 1:
            raise TypeError(
                f"{WHERE}: the slots of {type(statistic).__name__} must be of one type, which sorts, got {kinds}."
            )
    dtype = accumulation_dtype(jnp.float32, *(leaf.dtype for leaf in given.leaves))
    # Slices of one parameter that are concatenated again are parts of one site, and have numbers of their own.
    places = [(id(site), i) for site in all_sites(program.reading) for i in range(len(site.parts))]
    numbers = {place: number for number, place in enumerate(places)}
    functions = {i: clip.function for i, clip in clips.items()}
    return Asked(statistics, tuple(parts), numbers, dtype, gradient, precision, functions)


def _zeros(given: Arguments, asked: Asked) -> tuple[Row, Any]:
    """The zeros whose cotangents are the statistics: (rows (N, ...), sums by parameter)."""
    axes = varying_axes(given.leaves, given.mapped)
    slots = {(k, part.slot): part.shape for parts in asked.parts for k, part in parts.items() if part.shape is not None}

    def of_one(mapped: list[Any]) -> Row:
        zeros = {slot: jnp.zeros(shape, asked.dtype) for slot, shape in slots.items()}
        return vary(on_mesh(Row(jnp.zeros((), asked.dtype), zeros, {})), axes)

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

"""A tape from any JAX function: the loss of one example, written with whatever library."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.ops.views import View
from jaxnn.per_example.placing import ROWS, specs
from jaxnn.per_example.recording.arguments import Arguments, arguments_of
from jaxnn.per_example.recording.concatenating import leaves_of
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.reading import Reading, known, read
from jaxnn.per_example.recording.running import replay, tap, taps_of, uses_at_sites
from jaxnn.per_example.recording.tracing import Traced, traced
from jaxnn.placement import compiler_sharded, explicit_mesh, on_mesh, placed_shape
from jaxnn.tape import Tape, Use, Whole, of_weighted_losses
from jaxnn.types import Array, PyTree
from jaxnn.varying import vary, varying_axes


def record(
    loss: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> Callable[..., Any]:
    """A function that records a `Tape` of any loss: of flax, equinox, haiku, or your own.

    The loss of ONE example is traced to a jaxpr, and each parameter is followed to the operations that combine it with
    values that depend on the example. Under `vmap`, one backward pass computes the cotangents of the results of these
    operations; with the other operands they are the tape. The cost is that of an ordinary gradient, without the
    products that form the parameters' gradients. The model is not changed.

    | operation | recorded as |
    |---|---|
    | matrix products and einsums, the parameter on either side, batched too | product |
    | convolutions: stride, padding, dilations, groups, any layout | convolution |
    | sums, differences, products, quotients, max, power ... of w and data or a constant | addition, scaling |
    | `w[i]`, `jnp.take` along one axis | lookup |
    | in `lax.scan`, as a constant or sliced by the loop; in `jax.checkpoint` and `jax.jit` | these, of all iterations |
    | before it: reshape, transpose, slice, split, concatenate, flip, broadcast, cast, times a number | a view |
    | all else: `cond`, `while_loop`, `custom_vjp`, exp(w), sum(w), w ** 2, the smaller of w1 * w2 | materialized |

    Several uses of one parameter become one form of its gradient (`per_example.forms`). An embedding tied to the output
    matrix, looked up and multiplied, stays factored too: no table (V, D) is formed for each example. Uses of other
    kinds together, or of slices that overlap, are materialized in chunks of examples.

    A parameter of the last row falls back, for all its uses, to per-example differentiation in the same backward pass:
    N copies of it are differentiated, which takes N times its memory and, for a matrix, products of batches of one
    row. `print(per_example.plan(tape))` lists these parameters, with the operation. All results are exact either way.
    Operations with their own derivative (`custom_jvp`, `custom_vjp`, such as `jax.nn.relu`, straight-through
    estimators, gradient reversal) keep it.

    | library | parameters | outputs of one example x |
    |---|---|---|
    | flax.linen | `params = variables["params"]` | `model.apply({**variables, "params": params}, x[None])[0]` |
    | flax.nnx | `graph, params, rest = nnx.split(net, nnx.Param, ...)` | `nnx.merge(graph, params, rest)(x[None])[0]` |
    | equinox | `params, rest = eqx.partition(model, eqx.is_inexact_array)` | `eqx.combine(params, rest)(x)` |
    | haiku | `params = net.init(key, x)` | `net.apply(params, x)`, net without_apply_rng |

    All parameters count in norms, clipping and noise: do not pass running statistics and counters among them. Batch
    normalization must be in evaluation mode: the statistics of `x[None]` are those of ONE row, and its normalized value
    is 0 without an error. Updates that a model makes to its own state are lost.

    Inside `jax.shard_map` the tape is of the device's own examples, with and without the default checks. `jax.jit` with
    arrays sharded by `NamedSharding` records one tape of the whole batch. On a mesh with Explicit axes `jax.vmap` must
    accept the loss: look up rows of a table by `w.at[i].get(out_sharding=jax.sharding.PartitionSpec())`.

    Args:
        loss: `(params, *args) -> ()`, the loss of one example, pure; with `has_aux` a pair (loss, pytree of arrays).
            Call a model that expects a batch with `x[None]`, and take `[0]` of its result. Leave regularizers out, and
            add their gradient to the mean.
        argnums: the arguments that are parameters; with several, results are tuples of pytrees, as of `jax.grad`.
        in_axes: None: every argument but the parameters has the examples on axis 0. Else a tuple with an entry for
            each argument as for `jax.vmap`: an axis, None for arrays that all examples share (parameters), or a pytree.
        has_aux: whether loss returns a pair.
        trainable: True, or a pytree prefix of booleans for the parameters: those with False are constants, None in all
            results.

    Returns:
        `recorded(*args, weights=None) -> Tape`, or `(Tape, aux)` with `has_aux`, aux with a leading axis of examples;
        args are positional. Call it inside `jax.jit`. With `weights` (N,) it is the tape of w_i loss_i; an example of
        weight 0, such as a row of padding, adds nothing, even if its gradient is infinite or NaN. The tape's `outputs`
        are the losses, without weights.

    Raises:
        TypeError: loss is not a function; parameters that are not of a real floating dtype; loss returns no real
            number, or no pair with `has_aux`.
        ValueError: invalid argnums or in_axes; a loss that is not a scalar, such as that of a batch; no argument with
            examples; differing numbers of examples; side effects (`jax.debug.print`, `io_callback`); axis names of
            `vmap` (batch statistics) or communication between devices (`psum`, `all_gather`) in the loss; weights of
            another shape; arrays on a mesh with Explicit axes outside of `jax.jit`, with no mesh set.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4. Lee, J. & Kifer, D.
        (2021). Scaling up differentially private deep learning with fast per-example gradient clipping, section 4.

    Example:
        >>> def loss(params, x, y):
        ...     return (jnp.tanh(x @ params["w"] + params["b"]) @ params["v"] - y) ** 2
        >>> params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2), "v": jnp.ones(2)}
        >>> tape = jax.jit(record(loss))(params, jnp.eye(3), jnp.zeros(3))
        >>> from jaxnn import per_example
        >>> sums, norms = jax.jit(lambda tape: per_example.clipped_grad(tape, 1.0))(tape)
        >>> norms.shape, sums["w"].shape
        ((3,), (3, 2))
        >>> [row.uses for row in per_example.plan(tape)]
        ['addition', 'product', 'product']
    """
    if not callable(loss):
        raise TypeError(
            f"record: loss must be a function of one example, (params, *args) -> (), got {type(loss).__name__}."
        )

    def recorded(*args: Any, weights: Array | None = None) -> Any:
        with _on_their_mesh(args):
            found, given = _varying(loss, arguments_of(args, argnums, in_axes, trainable), has_aux)
            tape, aux = _recorded(found, given)
            if weights is not None:
                tape = of_weighted_losses(tape, weights)
        return (tape, aux) if has_aux else tape

    return recorded


@contextlib.contextmanager
def _on_their_mesh(args: tuple[Any, ...]) -> Iterator[None]:
    """Sets the arguments' mesh with Explicit axes if none is set; adds a remedy to JAX's errors about shardings."""
    mesh, unset = explicit_mesh(args), jax.sharding.get_abstract_mesh().empty
    if mesh is None:
        yield
        return
    if unset and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
        raise ValueError(
            "record: arrays are on a mesh with Explicit axes, but no mesh is set. Call it inside jax.jit with the "
            "arrays as arguments, or inside `with jax.set_mesh(mesh):`, or use a mesh with AxisType.Auto."
        )
    try:
        with jax.sharding.use_abstract_mesh(mesh) if unset else contextlib.nullcontext():
            yield
    except Exception as error:
        # ShardingTypeError is in no public module; the second is raised by a loop with a constant initial carry.
        if type(error).__name__ == "ShardingTypeError" or "is not found in mesh" in str(error):
            error.add_note(
                "record: on a mesh with Explicit axes jax.vmap must accept the loss. Look up rows of a table by "
                "`w.at[i].get(out_sharding=jax.sharding.PartitionSpec())`, not by w[i]; one row by `i[None]`. Start a "
                "loop that carries a scalar from one computed from the example, such as `jnp.zeros_like(x[0])`, not "
                "from 0.0. On a mesh with AxisType.Auto the compiler chooses all shardings."
            )
        raise


def _varying(loss: Callable[..., Any], given: Arguments, has_aux: bool) -> tuple[Traced, Arguments]:
    """The traced loss, and its arguments cast to vary over all mesh axes over which any value in it varies."""
    # Inside `shard_map` each device has its own examples. With parameters and examples varying alike, no differentiated
    # value is cast inside the loss; the transpose of such a cast is a sum over the devices.
    axes = varying_axes(given.leaves, given.mapped)
    while True:
        leaves, mapped = vary(on_mesh((given.leaves, given.mapped)), axes)
        given = dataclasses.replace(given, leaves=leaves, mapped=mapped)
        found = traced(loss, given, has_aux)
        # More axes: of constants that the loss closes over, or of its `axis_index`. Repeat until there are none.
        more = axes | varying_axes(found.consts, [v.aval for v in found.jaxpr.outvars])
        if more == axes:
            return found, given
        axes = more


def _recorded(found: Traced, given: Arguments) -> tuple[Tape, PyTree]:
    reading = _reading(found, given)
    axes = varying_axes(given.leaves, given.mapped)

    def total(taps: tuple[PyTree, PyTree]) -> tuple[Array, Any]:
        each, seen, aux = jax.vmap(one, in_axes=(0, given.axes))(taps, given.mapped)
        return jnp.sum(each), (each, seen, aux)

    def one(taps: tuple[PyTree, PyTree], mapped: list[Any]) -> tuple[Array, PyTree, PyTree]:
        at_sites, at_leaves = taps
        leaves = list(given.leaves)
        for leaf, zeros in at_leaves.items():
            leaves[leaf] = leaves[leaf] + zeros
        results, seen = replay(reading, found.consts, at_sites, [*leaves, *mapped])
        return results[0], seen, found.aux(results[1:])

    def taps(mapped: list[Any]) -> tuple[PyTree, PyTree]:
        return taps_of(reading, axes), {leaf: tap(jax.typeof(given.leaves[leaf]), axes) for leaf in reading.fallen}

    zeros = jax.vmap(taps, in_axes=(given.axes,), axis_size=given.examples)(given.mapped)
    deltas, (each, seen, aux) = jax.grad(total, has_aux=True)(zeros)

    # A parameter keeps all its uses, in the order of the jaxpr: its gradient is their sum, and a statistic must join
    # them before it squares (`forms.joined`). One that falls back has a single use, `Whole`: its tap is at the
    # parameter itself, so the derivative is the sum already.
    def uses(seen: PyTree, deltas: tuple[PyTree, PyTree]) -> tuple[tuple[Use, ...], ...]:
        found: list[list[Use]] = [[] for _ in given.leaves]
        for leaf, use in uses_at_sites(reading, seen, deltas[0]):
            found[leaf].append(use)
        for leaf, reason in reading.fallen.items():
            found[leaf].append(Whole(deltas[1][leaf], reason))
        return tuple(map(tuple, found))

    leaves = tuple(placed_shape(leaf) for leaf in given.leaves)
    tape = Tape(each, each, (), given.paths, given.structure, leaves)
    return dataclasses.replace(tape, uses=compiler_sharded(uses, specs(tape, ROWS), seen, deltas)), aux


def _reading(found: Traced, given: Arguments) -> Reading:
    """The uses of all parameters that do not fall back."""
    # A parameter that falls back becomes a value that depends on the example, so operations with it are read anew: one
    # with another parameter may now have a rule, or none. Repeated until no more parameters fall back.
    variables = found.jaxpr.invars[: len(given.leaves)]
    sizes = [math.prod(leaf.shape) for leaf in given.leaves]
    fallen: dict[int, str] = {}
    while True:
        params = {
            v: Param(i, View(leaf.shape))
            for i, (v, leaf) in enumerate(zip(variables, given.leaves, strict=True))
            if i not in fallen
        }
        reading = read(found.jaxpr, params, sizes)
        if (value := known(reading, found.jaxpr.outvars[0])) is not None:
            reading.falls(dict.fromkeys(leaves_of(value), "the loss itself"))
        if not reading.fallen:
            reading.fallen = fallen
            return reading
        fallen |= reading.fallen

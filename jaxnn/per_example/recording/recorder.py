"""A tape from any JAX function: the loss of one example, written with whatever library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.per_example.placing import ROWS, specs
from jaxnn.per_example.plan import Plan, plan
from jaxnn.per_example.recording.arguments import Arguments, arguments_of
from jaxnn.per_example.recording.preparing import on_their_mesh, reading_of, varying
from jaxnn.per_example.recording.tapping import Tapped
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.placement import compiler_sharded, explicit_mesh, placed_shape
from jaxnn.tape import Tape, Use, of_weighted_losses, whole
from jaxnn.types import Array, PyTree


def record(
    loss: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> Recorder:
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
    | `losses.chunked_softmax_cross_entropy` | softmax product: no logits are stored |
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
    return recorder_of("record", loss, argnums, in_axes, has_aux, trainable)


def recorder_of(
    where: str,
    loss: Callable[..., Any],
    argnums: int | Sequence[int],
    in_axes: Any,
    has_aux: bool,
    trainable: PyTree,
) -> Recorder:
    """The recorder of a loss, for the function `where`."""
    if not callable(loss):
        raise TypeError(
            f"{where}: loss must be a function of one example, (params, *args) -> (), got {type(loss).__name__}."
        )
    return Recorder(loss, argnums, in_axes, has_aux, trainable)


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder:
    """`record(loss, ...)`: a function that records a `Tape`, and knows its loss and options."""

    loss: Callable[..., Any]
    argnums: int | Sequence[int]
    in_axes: Any
    has_aux: bool
    trainable: PyTree

    def arguments(self, args: tuple[Any, ...], where: str = "record") -> Arguments:
        """The arguments of one call."""
        return arguments_of(args, self.argnums, self.in_axes, self.trainable, where)

    def __call__(self, *args: Any, weights: Array | None = None) -> Any:
        """The tape of these arguments; (tape, aux) with `has_aux`."""
        with on_their_mesh(args):
            found, given = varying(self.loss, self.arguments(args), self.has_aux)
            tape, aux = _recorded(found, given)
            if weights is not None:
                tape = of_weighted_losses(tape, weights)
        return (tape, aux) if self.has_aux else tape

    def plan(self, *args: Any) -> Plan:
        """The plan of its tape; see `plan`."""
        return plan(jax.eval_shape(lambda *args: self(*args)[0] if self.has_aux else self(*args), *args))


def _recorded(found: Traced, given: Arguments) -> tuple[Tape, PyTree]:
    tapped = Tapped(found, given, reading_of(found.jaxpr, given.leaves))

    def total(taps: PyTree) -> tuple[Array, Any]:
        each, seen, aux = jax.vmap(lambda taps, mapped: tapped(taps, given.leaves, mapped), in_axes=(0, given.axes))(
            taps, given.mapped
        )
        return jnp.sum(each), (each, seen, aux)

    deltas, (each, seen, aux) = jax.grad(total, has_aux=True)(tapped.zeros())
    leaves = tuple(placed_shape(leaf) for leaf in given.leaves)
    tape = Tape(each, each, (), given.paths, given.structure, leaves)
    explicit = explicit_mesh((seen, deltas)) is not None

    def uses(seen: PyTree, deltas: PyTree, leaves: list[Array]) -> tuple[tuple[Use, ...], ...]:
        found = tapped.uses(seen, deltas, leaves)
        # Their types say how arrays are sharded: all by examples, so none that the examples share.
        return tuple(tuple(map(whole, uses)) for uses in found) if explicit else found

    rows = specs(tape, ROWS)
    return dataclasses.replace(tape, uses=compiler_sharded(uses, rows, seen, deltas, list(given.leaves))), aux

"""The tape of one backward pass, and of several that share their forward pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.tape.uses import STATIC, Use, counted, error_of, errors, mapped, replaced, weighted
from jaxnn.types import Array, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tape:
    """The record of one backward pass.

    Attributes:
        losses: (N,), the loss of each example.
        outputs: (N, ...), the network's outputs.
        uses: for each parameter, in the order of `jax.tree.leaves(params)`, the tuple of its uses.
        paths: the parameters' paths, such as "[0]['w']".
        structure: the treedef of the parameters.
        leaves: the shape and dtype of each parameter, in the order of `paths`.
        coupled: the layers that couple the examples; with any, per-example gradients are undefined.

    Example:
        >>> from jaxnn.tape import Addition
        >>> leaf = jax.ShapeDtypeStruct((2,), jnp.float32)
        >>> use = Addition(jnp.ones((4, 1, 2)))
        >>> tape = Tape(jnp.zeros(4), jnp.zeros((4, 2)), ((use,),), ("['b']",), jax.tree.structure({"b": 0}), (leaf,))
        >>> tape.examples
        4
    """

    losses: Array
    outputs: Array
    uses: tuple[tuple[Use, ...], ...]
    paths: tuple[str, ...] = dataclasses.field(metadata=STATIC)
    structure: Any = dataclasses.field(metadata=STATIC)
    leaves: tuple[jax.ShapeDtypeStruct, ...] = dataclasses.field(metadata=STATIC)
    coupled: tuple[str, ...] = dataclasses.field(default=(), metadata=STATIC)

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.losses.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """The tapes of C output cotangents pulled back through one forward pass: each use has one input a and C deltas.

    g_ic = J_i' s_ic pulls cotangent s_ic of example i's outputs back to the parameters, J_i the Jacobian of these
    outputs. From `ggn_record` sum_c s_ic s_ic' is the Hessian of the example's loss with respect to its outputs, or
    has it as its expectation, and so sum_c g_ic g_ic' its generalized Gauss-Newton matrix. From `output_record` the
    s_ic are unit vectors, and g_ic is the gradient of output c.

    Attributes:
        tape: a `Tape` whose deltas have a leading axis C; everything else is as in one tape.
        count: C.
        fisher: whether sum_c g_ic g_ic' is a Fisher information, exactly or in expectation.

    Example:
        >>> from jaxnn.tape import Addition
        >>> leaf = jax.ShapeDtypeStruct((2,), jnp.float32)
        >>> use = Addition(jnp.ones((3, 4, 1, 2)))
        >>> tape = Tape(jnp.zeros(4), jnp.zeros((4, 2)), ((use,),), ("['b']",), jax.tree.structure({"b": 0}), (leaf,))
        >>> Columns(tape, 3).at(0).uses[0][0].delta.shape, Columns(tape, 3).as_examples().examples
        ((4, 1, 2), 12)
    """

    tape: Tape
    count: int = dataclasses.field(metadata=STATIC)
    fisher: bool = dataclasses.field(default=False, metadata=STATIC)

    def at(self, column: Array | int) -> Tape:
        """The tape of one column."""

        def chosen(delta: Array) -> Array:
            return lax.dynamic_index_in_dim(delta, column, keepdims=False)

        return with_errors(self.tape, jax.tree.map(chosen, errors_of(self.tape)))

    def as_examples(self) -> Tape:
        """One tape of N C examples: the C columns of example 0, then those of example 1, ...; inputs are repeated."""
        # N stays ahead of C where the two are merged, so that a sharded axis of examples stays sharded.

        def merged(x: Array) -> Array:
            return x.reshape(-1, *x.shape[2:])

        def repeat(x: Array) -> Array:
            return merged(jnp.broadcast_to(x[:, None], (x.shape[0], self.count, *x.shape[1:])))

        def in_turn(delta: Array) -> Array:
            return merged(jnp.moveaxis(delta, 0, 1))

        tape = self.tape
        return dataclasses.replace(
            tape,
            uses=tuple(tuple(mapped(use, repeat, in_turn) for use in uses) for uses in tape.uses),
            losses=repeat(tape.losses),
            outputs=repeat(tape.outputs),
        )


def errors_of(tape: Tape) -> tuple[tuple[Array, ...], ...]:
    """The array `errors` of each use, nested as the tape's `uses`."""
    return tuple(tuple(errors(use) for use in uses) for uses in tape.uses)


def with_errors(tape: Tape, found: PyTree) -> Tape:
    """A copy of the tape with the cotangents `found`: one array per use, nested as `errors_of` returns them.

    Example:
        >>> from jaxnn.tape import Addition
        >>> use, structure = Addition(jnp.ones((4, 1, 2))), jax.tree.structure({"b": 0})
        >>> tape = Tape(jnp.zeros(4), jnp.zeros(4), ((use,),), ("['b']",), structure, (use.delta,))
        >>> with_errors(tape, ((jnp.zeros((3, 4, 1, 2)),),)).uses[0][0].delta.shape
        (3, 4, 1, 2)
    """
    pairs = zip(tape.uses, found, strict=True)
    uses = tuple(
        tuple(replaced(use, **{error_of(use): error}) for use, error in zip(uses, of_uses, strict=True))
        for uses, of_uses in pairs
    )
    return dataclasses.replace(tape, uses=uses)


def of_weighted_losses(tape: Tape, weights: Array) -> Tape:
    """The tape of w_i loss_i, w (N,); `outputs` are unchanged.

    Where w_i is 0, row i of the losses and of every array of the uses is exactly 0, even if it was NaN.

    Example:
        >>> from jaxnn.tape import Addition
        >>> leaf = jax.ShapeDtypeStruct((2,), jnp.float32)
        >>> use = Addition(jnp.ones((2, 1, 2)))
        >>> tape = Tape(jnp.ones(2), jnp.ones(2), ((use,),), ("['b']",), jax.tree.structure({"b": 0}), (leaf,))
        >>> of_weighted_losses(tape, jnp.array([0.0, 3.0])).uses[0][0].delta[:, 0, 0]
        Array([0., 3.], dtype=float32)
    """
    if jnp.shape(weights) != (tape.examples,):
        raise ValueError(
            f"record: expected one weight for each of {tape.examples} examples, shape ({tape.examples},), "
            f"got shape {jnp.shape(weights)}."
        )
    weights = jnp.asarray(weights)

    def seen(x: Array) -> Array:
        return counted(x, weights)

    def cotangent(delta: Array) -> Array:
        return weighted(delta, weights).astype(delta.dtype)

    return dataclasses.replace(
        tape,
        losses=weighted(tape.losses, weights).astype(tape.losses.dtype),
        uses=tuple(tuple(mapped(use, seen, cotangent) for use in uses) for uses in tape.uses),
    )

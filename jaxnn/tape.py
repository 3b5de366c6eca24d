"""The tape of a backward pass: for each use of a parameter, what it saw (a) and the error that came back (delta).

A use is named by the KIND of linear operation, not by a layer: whatever gave a network its gradient, its weights took
part in a matrix product, a convolution, a sum, a scaling or a lookup, and the gradient of example i is a known function
of (a_i, delta_i). N counts examples, T the positions at which one example used the parameter; delta is the derivative
of the SUMMED loss, so that example i's rows are those of its own loss.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.ops.conv import Padding, conv_weight_grad
from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.ops.matmul import bias_grad, linear_weight_grad
from jaxnn.types import Array, Shape

STATIC = {"static": True}
"""Metadata of the fields that belong to a tape's structure."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """z = a w: `a` (N, T, D_in), `delta` (N, T, D_out); g_i = a_i' delta_i, of shape (D_in, D_out)."""

    a: Array
    delta: Array

    @property
    def shape(self) -> Shape:
        return (self.a.shape[-1], self.delta.shape[-1])

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        return linear_weight_grad(counted(self.a, weights), weighted(self.delta, weights))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """z = conv(a, w): `a` (N, *spatial, C_in), `delta` (N, *spatial', C_out); g_i correlates a_i with delta_i."""

    a: Array
    delta: Array
    window: Shape = dataclasses.field(metadata=STATIC)
    stride: Any = dataclasses.field(default=1, metadata=STATIC)
    padding: Padding = dataclasses.field(default="VALID", metadata=STATIC)
    dilation: Any = dataclasses.field(default=1, metadata=STATIC)
    groups: int = dataclasses.field(default=1, metadata=STATIC)

    def __post_init__(self) -> None:
        # Settings may come as lists; as part of a pytree's structure they must be hashable.
        for name in ("window", "stride", "padding", "dilation"):
            object.__setattr__(self, name, _as_tuples(getattr(self, name)))

    @property
    def shape(self) -> Shape:
        return (*self.window, self.a.shape[-1] // self.groups, self.delta.shape[-1])

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        return conv_weight_grad(
            counted(self.a, weights),
            weighted(self.delta, weights),
            self.window,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Addition:
    """z = x + b, b the same at every position: `delta` (N, T, D); g_i = sum_t delta_it."""

    delta: Array

    @property
    def shape(self) -> Shape:
        return self.delta.shape[2:]

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        return bias_grad(weighted(self.delta, weights))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """z = a s, s the same at every position: `a`, `delta` (N, T, D); g_i = sum_t a_it delta_it."""

    a: Array
    delta: Array

    @property
    def shape(self) -> Shape:
        return self.delta.shape[2:]

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        return bias_grad(accumulate(counted(self.a, weights)) * accumulate(weighted(self.delta, weights)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """z_t = w[index_t]: `indices` (N, T), `delta` (N, T, D); row v of g_i is the sum of delta_it where index_t = v."""

    indices: Array
    delta: Array
    rows: int = dataclasses.field(metadata=STATIC)

    @property
    def shape(self) -> Shape:
        return (self.rows, self.delta.shape[-1])

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        return take_rows_weight_grad(self.indices, weighted(self.delta, weights), self.rows)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """The gradients themselves, `grads` (N, *shape): for operations that are none of the others."""

    grads: Array

    @property
    def shape(self) -> Shape:
        return self.grads.shape[1:]

    def grad(self, weights: Array | None = None) -> Array:
        """sum_i w_i g_i, in the accumulation dtype."""
        grads = accumulate(counted(self.grads, weights))
        shares = jnp.ones(grads.shape[0], grads.dtype) if weights is None else weights.astype(grads.dtype)
        # A product, since XLA's sums over the first of two axes are slow on a CPU.
        return linear_weight_grad(shares[:, None], grads.reshape(grads.shape[0], -1)).reshape(self.shape)


Use: TypeAlias = Product | Convolution | Addition | Scaling | Lookup | Whole


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def weighted(delta: Array, weights: Array | None) -> Array:
    """w_i delta_i for each example, 0 where w_i is 0 whatever delta_i; the errors themselves without weights.

    Args:
        delta: (N, ...).
        weights: (N,), or None for none.

    Returns:
        As delta, with weights in its accumulation dtype.

    Example:
        >>> weighted(jnp.array([[[1.0]], [[jnp.nan]]]), jnp.array([3.0, 0.0])).ravel()
        Array([3., 0.], dtype=float32)
    """
    if weights is None:
        return delta
    wide = accumulate(delta)
    share = _of_examples(weights.astype(wide.dtype), wide)
    return jnp.where(share == 0, jnp.zeros((), wide.dtype), share * wide)


def counted(a: Array, weights: Array | None) -> Array:
    """a_i where example i counts, 0 where its weight is 0: so that infinities of one left out do not meet 0.

    Args:
        a: (N, ...).
        weights: (N,), or None for none.

    Example:
        >>> counted(jnp.array([[2.0], [jnp.inf]]), jnp.array([3.0, 0.0])).ravel()
        Array([2., 0.], dtype=float32)
    """
    return a if weights is None else jnp.where(_of_examples(weights == 0, a), jnp.zeros((), a.dtype), a)


def _of_examples(values: Array, like: Array) -> Array:
    """(N,) at every entry of (N, ...)."""
    return lax.broadcast_in_dim(values, like.shape, (0,))


def positions(x: Array) -> Array:
    """x (N, ..., D) as (N, T, D), T the product of the axes between.

    Example:
        >>> positions(jnp.ones((2, 5, 5, 3))).shape
        (2, 25, 3)
    """
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def total(uses: tuple[Use, ...], param: Array | jax.ShapeDtypeStruct, weights: Array | None = None) -> Array:
    """sum_i w_i g_i over all uses of a parameter, in its dtype; zeros if it was not used.

    Example:
        >>> total((Addition(jnp.ones((4, 1, 2))),), jnp.zeros(2))
        Array([4., 4.], dtype=float32)
    """
    return wide_total(uses, param, weights).astype(param.dtype)


def wide_total(uses: tuple[Use, ...], param: Array | jax.ShapeDtypeStruct, weights: Array | None = None) -> Array:
    """`total` in the accumulation dtype, for what is to be divided or squared before it is stored.

    Example:
        >>> wide_total((Addition(jnp.ones((4, 1, 2), jnp.bfloat16)),), jnp.zeros(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    if not uses:
        return jnp.zeros(param.shape, accumulation_dtype(param.dtype))
    return functools.reduce(jnp.add, [use.grad(weights) for use in uses]).reshape(param.shape)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tape:
    """What a backward pass saw.

    Attributes:
        losses: (N,), the loss of each example.
        outputs: (N, ...), what the network put out.
        uses: for each parameter, in the order of `jax.tree.leaves(params)`, the tuple of its uses.
        paths: the parameters' places, such as "[0]['w']".
        structure: the parameters' tree, and `leaves` their shapes and dtypes.
        coupled: the layers in which examples saw each other; statistics of single examples make no sense then.

    Example:
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
        """N."""
        return self.losses.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """The tapes of C errors sent back through one forward pass: what an example saw is common, its deltas are C.

    Sent back are the columns of a root of the Hessian with respect to the outputs, so that the generalized Gauss-Newton
    matrix of example i is sum_c g_ic g_ic'; or the unit vectors, so that g_ic is the gradient of output c.

    Attributes:
        tape: a `Tape` whose errors have a leading axis C; everything else is as of one tape.
        count: C.
        fisher: whether the columns are those of a Fisher information, exactly or in expectation.

    Example:
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

        return self._with(lambda use: replaced(use, **{error_of(use): chosen(errors(use))}))

    def as_examples(self) -> Tape:
        """One tape of C N examples, column by column; what was seen is repeated C times."""

        def merged(x: Array) -> Array:
            return x.reshape(-1, *x.shape[2:])

        def repeated(use: Use) -> Use:
            arrays = {f.name: getattr(use, f.name) for f in dataclasses.fields(use) if not f.metadata.get("static")}
            error = arrays.pop(error_of(use))
            seen = {name: merged(jnp.broadcast_to(x, (self.count, *x.shape))) for name, x in arrays.items()}
            return replaced(use, **seen, **{error_of(use): merged(error)})

        tape = self._with(repeated)
        return dataclasses.replace(
            tape,
            losses=jnp.tile(tape.losses, self.count),
            outputs=merged(jnp.broadcast_to(tape.outputs, (self.count, *tape.outputs.shape))),
        )

    def _with(self, f: Callable[[Use], Use]) -> Tape:
        return dataclasses.replace(self.tape, uses=tuple(tuple(f(use) for use in uses) for uses in self.tape.uses))


def error_of(use: Use) -> str:
    """The field of a use that depends on the error: `grads` of a `Whole`, else `delta`.

    Example:
        >>> error_of(Addition(jnp.ones((4, 1, 2))))
        'delta'
    """
    return "grads" if isinstance(use, Whole) else "delta"


def errors(use: Use) -> Array:
    """That field.

    Example:
        >>> errors(Addition(jnp.ones((4, 1, 2)))).shape
        (4, 1, 2)
    """
    return getattr(use, error_of(use))


def replaced(use: Use, **fields: Any) -> Use:
    """A use with other arrays.

    Example:
        >>> replaced(Addition(jnp.ones((4, 1, 2))), delta=jnp.ones((3, 1, 2))).delta.shape
        (3, 1, 2)
    """
    return dataclasses.replace(use, **fields)

"""The uses of parameters that a tape holds: one class for each kind of linear operation.

Of each, `shape` is that of the gradient g_i of one example, up to a reshape the parameter's, and `grad(weights)` their
sum with weights w (N,); None means 1 for all. Its products run at a `precision` of `numerics.dot_general`.
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

from jaxnn.losses.logits import Logits, error_at, put
from jaxnn.numerics import Precision, accumulate, accumulation_dtype, dot_general, multiplied
from jaxnn.ops.conv import Padding, conv_weight_grad
from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.ops.matmul import bias_grad, linear_weight_grad
from jaxnn.ops.views import View
from jaxnn.types import Array, Shape

STATIC = {"static": True}
"""Metadata of the fields that belong to a tape's structure."""

SHARED = {"shared": True}
"""Metadata of the fields that are arrays without an axis of examples."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """z = a w: `a` (N, T, D_in), `delta` (N, T, D_out); g_i = a_i' delta_i, of shape (D_in, D_out)."""

    a: Array
    delta: Array

    @property
    def shape(self) -> Shape:
        return (self.a.shape[-1], self.delta.shape[-1])

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        return linear_weight_grad(*weighted_factors(self.a, self.delta, weights), precision)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SoftmaxProduct:
    """z = a w + b and the softmax cross-entropy of each position of z, V logits whose cotangents are not stored.

    `a` (N, T, D), `labels` (N, T), `log_sums` (N, T), the log-sum-exp of z, and `delta` (N, T), the cotangent of the
    loss of each position. That of z, delta_it (softmax(z_it) - q_it), is formed `size` classes at a time. g_i = a_i'
    times it, of shape (D, V); transposed, (V, D), with class_axis 0.
    """

    a: Array
    labels: Array
    log_sums: Array
    delta: Array
    w: Array = dataclasses.field(metadata=SHARED)
    b: Array | None = None
    smoothing: Array | None = None
    class_axis: int = dataclasses.field(default=1, metadata=STATIC)
    size: int = dataclasses.field(default=1, metadata=STATIC)

    @property
    def shape(self) -> Shape:
        return self.w.shape

    @property
    def logits(self) -> Logits:
        """The logits, by chunks."""
        return Logits(self.a, self.w, self.b, self.class_axis, self.size)

    @property
    def chunk_shape(self) -> Shape:
        """That of the gradient at the classes of one chunk."""
        return tuple(self.size if axis == self.class_axis else n for axis, n in enumerate(self.shape))

    def at(self, c: Array | int) -> Product:
        """The product with the classes of chunk c; its delta is 0 at classes of the chunk before it."""
        delta = error_at(self.logits, self.labels, self.log_sums, self.smoothing, self.delta, jnp.asarray(c))
        return Product(self.a, delta) if self.class_axis == 1 else Product(delta, self.a)

    def whole(self) -> Product:
        """The product with all classes: delta (N, T, V) in memory."""
        return dataclasses.replace(self, size=self.logits.classes).at(0)

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        logits = self.logits

        def add(total: Array, c: Array) -> tuple[Array, None]:
            return put(logits, total, self.at(c).grad(weights, precision), c, self.class_axis), None

        return logits.scan(add, logits.zeros(self.shape))[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GroupedProduct:
    """z_k = a_k w_k for each group k of G: `a` (N, T, G, D_in), `delta` (N, T, G, D_out), D_in and D_out per group.

    g_i[d, k, p] = sum_t a[i, t, k, d] delta[i, t, k, p]; as (D_in, G D_out) it is in the order of a grouped
    convolution's kernel.
    """

    a: Array
    delta: Array

    @property
    def shape(self) -> Shape:
        return (self.a.shape[-1], *self.delta.shape[2:])

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        einsum = functools.partial(jnp.einsum, "ntgd,ntgp->dgp")
        return multiplied(einsum, *weighted_factors(self.a, self.delta, weights), precision)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """z = conv(a, w): `a` (N, *spatial, C_in), `delta` (N, *spatial', C_out); g_i correlates a_i with delta_i.

    `window` are the spatial sizes of w; the other settings are those of `ops.conv.conv`.
    """

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

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        return conv_weight_grad(
            counted(self.a, weights),
            weighted(self.delta, weights),
            self.window,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            precision=precision,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Addition:
    """z = x + b, b the same at every position: `delta` (N, T, D); g_i = sum_t delta_it."""

    delta: Array

    @property
    def shape(self) -> Shape:
        return self.delta.shape[2:]

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
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

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        return bias_grad(accumulate(counted(self.a, weights)) * accumulate(weighted(self.delta, weights)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """z_t = w[index_t], w (rows, D): `indices` (N, T), `delta` (N, T, D); g_i[v] sums delta_it where index_it = v.

    An index outside [0, rows) adds nothing.
    """

    indices: Array
    delta: Array
    rows: int = dataclasses.field(metadata=STATIC)

    @property
    def shape(self) -> Shape:
        return (self.rows, self.delta.shape[-1])

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        return take_rows_weight_grad(self.indices, weighted(self.delta, weights), self.rows)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """The materialized gradients, `grads` (N, *shape), for all other operations; `because` names it, if known."""

    grads: Array
    because: str = dataclasses.field(default="", metadata=STATIC)

    @property
    def shape(self) -> Shape:
        return self.grads.shape[1:]

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        grads = accumulate(counted(self.grads, weights))
        shares = jnp.ones(grads.shape[0], grads.dtype) if weights is None else weights.astype(grads.dtype)
        # A product, since XLA's reduction over the first of two axes is slow on a CPU. The shape is kept: flattened
        # gradients of a matrix whose columns are sharded would be gathered.
        return dot_general(shares, grads, (((0,), (0,)), ((), ())), precision)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A use of an injective view of the parameter: g_i = view'(g_i of the use), view' the adjoint of the view.

    The use is of the view's entries in row-major order.
    """

    use: Unplaced
    view: View = dataclasses.field(metadata=STATIC)

    @property
    def shape(self) -> Shape:
        return self.view.source

    def grad(self, weights: Array | None = None, precision: Precision = None) -> Array:
        """sum_i w_i g_i for weights w (N,), None for 1, in the accumulation dtype."""
        return self.view.adjoint(self.use.grad(weights, precision).reshape(self.view.shape))


Unplaced: TypeAlias = Product | SoftmaxProduct | GroupedProduct | Convolution | Addition | Scaling | Lookup | Whole
Use: TypeAlias = Unplaced | Placed


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def weighted(delta: Array, weights: Array | None) -> Array:
    """w_i delta_i (N, ...), exactly 0 where w_i is 0, in delta's accumulation dtype; delta itself without weights. The
    same of a.

    Example:
        >>> weighted(jnp.array([[[1.0]], [[jnp.nan]]]), jnp.array([3.0, 0.0])).ravel()
        Array([3., 0.], dtype=float32)
    """
    if weights is None:
        return delta
    # Half-precision factors, rounded down, would keep a clipped norm only if w delta needed no rounding. Rounded
    # entries, even toward 0, undo the cancellation of an example's positions, by percents of its norm. So w delta is
    # float32, which `numerics.by_pieces` multiplies without rounding.
    wide = accumulate(delta)
    share = _of_examples(weights.astype(wide.dtype), wide)
    return jnp.where(share == 0, jnp.zeros((), wide.dtype), share * wide)


def counted(a: Array, weights: Array | None) -> Array:
    """a_i (N, ...), replaced by 0 where w_i is 0, so that infinity times 0 makes no NaN in a sum over examples."""
    return a if weights is None else jnp.where(_of_examples(weights == 0, a), jnp.zeros((), a.dtype), a)


def weighted_factors(a: Array, delta: Array, weights: Array | None) -> tuple[Array, Array]:
    """a and delta with the weights in the narrower one: at the output matrix of a large vocabulary a weighted copy of
    delta would be as large as the logits."""
    if a.shape[-1] < delta.shape[-1]:
        return weighted(a, weights), counted(delta, weights)
    return counted(a, weights), weighted(delta, weights)


def _of_examples(values: Array, like: Array) -> Array:
    """`values` (N,) broadcast to the shape (N, ...) of `like`."""
    return lax.broadcast_in_dim(values, like.shape, (0,))


def whole(use: Use) -> Use:
    """A use with its cotangents in memory: a `SoftmaxProduct` as a `Product`, all others as they are."""
    if isinstance(use, Placed):
        return dataclasses.replace(use, use=use.use.whole()) if isinstance(use.use, SoftmaxProduct) else use
    return use.whole() if isinstance(use, SoftmaxProduct) else use


def positions(x: Array) -> Array:
    """x (N, ..., D) as (N, T, D), T the product of the axes between.

    Example:
        >>> positions(jnp.ones((2, 5, 5, 3))).shape
        (2, 25, 3)
    """
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def total(
    uses: tuple[Use, ...],
    param: Array | jax.ShapeDtypeStruct,
    weights: Array | None = None,
    precision: Precision = None,
) -> Array:
    """sum_i w_i g_i over all uses of a parameter, in the parameter's dtype; zeros without uses."""
    return wide_total(uses, param, weights, precision).astype(param.dtype)


def wide_total(
    uses: tuple[Use, ...],
    param: Array | jax.ShapeDtypeStruct,
    weights: Array | None = None,
    precision: Precision = None,
) -> Array:
    """`total` in the accumulation dtype, for sums that are divided or squared before they are rounded."""
    if not uses:
        return jnp.zeros(param.shape, accumulation_dtype(param.dtype))
    # Reshaped one by one: one use may have its entries flat, another in the parameter's shape.
    return functools.reduce(jnp.add, [use.grad(weights, precision).reshape(param.shape) for use in uses])


def error_of(use: Use) -> str:
    """The name of the field that is linear in the cotangent: `grads` of a `Whole`, or of a placed one; else `delta`."""
    return "grads" if isinstance(use.use if isinstance(use, Placed) else use, Whole) else "delta"


def errors(use: Use) -> Array:
    """The array in the field `error_of(use)`."""
    return getattr(use.use if isinstance(use, Placed) else use, error_of(use))


def mapped(use: Use, seen: Callable[[Array], Array], cotangent: Callable[[Array], Array]) -> Any:
    """The use with its cotangent mapped by `cotangent`, its other arrays (N, ...) (inputs, indices) by `seen`."""
    if isinstance(use, Placed):
        return dataclasses.replace(use, use=mapped(use.use, seen, cotangent))
    fields = [f for f in dataclasses.fields(use) if not (f.metadata.get("static") or f.metadata.get("shared"))]
    names = [f.name for f in fields if getattr(use, f.name) is not None]
    of = {name: cotangent if name == error_of(use) else seen for name in names}
    return replaced(use, **{name: of[name](getattr(use, name)) for name in names})


def replaced(use: Use, **fields: Any) -> Use:
    """The use with these fields replaced; of a `Placed`, those of its use."""
    if isinstance(use, Placed):
        return dataclasses.replace(use, use=dataclasses.replace(use.use, **fields))
    return dataclasses.replace(use, **fields)

"""What recurrent layers share: the loop over positions, its carry, padding, and their `Layer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.initializers import Initializer
from jaxnn.layers.base import Kind, Layer, param, param_dtype, require_net
from jaxnn.layers.sequences import mask_of, only, values_of, with_values
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.ops.matmul import add_bias, linear
from jaxnn.placement import beside, filled_as
from jaxnn.types import Array, DType, DTypeLike, Key, Params, PyTree, State
from jaxnn.varying import vary, varying_axes

Carry: TypeAlias = dict[str, Array]
"""What a recurrence hands from one position to the next: {"h": (N, H)}, of the LSTM also "c"."""

Step: TypeAlias = Callable[[Params, Carry, Array], tuple[Carry, PyTree]]
"""(params, carry, z) -> (carry, what the backward pass needs), z (N, G H) the input product x w + b at one position."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RecurrentKind(Kind):
    """The kind of a recurrent layer: also the names in its carry."""

    carry: tuple[str, ...] = ("h",)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """What a recurrence leaves for its backward pass; T is the first axis, as the loop writes it.

    Attributes:
        x: the inputs (T, N, D), 0 where masked.
        before: the carry (T, N, H) that each position started from.
        kept: what the step kept of each position.
        mask: (T, N), or None.
    """

    x: Array
    before: Carry
    kept: PyTree
    mask: Array | None


def run(
    where: str, step: Step, params: Params, x: Array, carry: Carry | None, mask: Array | None, names: tuple[str, ...]
) -> tuple[Array, Carry, History]:
    """(outputs (N, T, H), the last carry, history) of a recurrence: carry_t = step(carry_(t-1), x_t w + b).

    The product x w is one for all positions. At masked positions the carry is held, x counts as 0 and the output is 0.
    """
    x, z = input_product(where, params, x, mask)
    u = param(where, params, "u")
    if u.ndim != 2 or u.shape[1] != z.shape[2]:
        raise ValueError(f"{where}: u must have shape (H, {z.shape[2]}) to match w, got {u.shape}.")
    params = params | {"u": beside_inputs(u, x)}
    first = first_carry(where, carry, z, dict.fromkeys(names, u.shape[0]), params)
    counts = None if mask is None else mask.T

    def at(carry: Carry, now: tuple[Array, Array | None]) -> tuple[Carry, tuple[Array, Carry, PyTree]]:
        z, counts = now
        new, kept = step(params, carry, biased(params, z))
        new = held(counts, new, carry)
        return new, (new["h"], carry, kept)

    # The bias is added in the loop, where XLA fuses it with the gates: outside it would be a pass over all of z.
    # Not unrolled: on a CPU two positions an iteration are no faster.
    last, (h, before, kept) = lax.scan(at, first, (z, counts))
    y = only(mask, jnp.swapaxes(h, 0, 1).astype(output_dtype(params, x)))
    return y, cast_like(last, carry), History(x, before, kept, counts)


def input_product(where: str, params: Params, x: Array, mask: Array | None) -> tuple[Array, Array]:
    """(x (T, N, D), 0 where masked; z = x w (T, N, G H), in the accumulation dtype)."""
    w = param(where, params, "w")
    require_floating(where, "x", x.dtype, "Put Embedding in front of tokens; convert numbers: x.astype(jnp.float32).")
    if x.ndim != 3 or not x.shape[1] or x.shape[2] != w.shape[0]:
        raise ValueError(
            f"{where}: x must have shape (N, T, {w.shape[0]}), T >= 1, to match w {w.shape}, got {x.shape}. "
            "One position alone is x[:, None]."
        )
    if mask is not None and mask.shape != x.shape[:2]:
        raise ValueError(f"{where}: the mask must have shape (N, T) = {x.shape[:2]}, got {mask.shape}.")
    x = jnp.swapaxes(only(mask, x), 0, 1)
    return x, accumulate(linear(x, w))


def biased(params: Params, z: Array) -> Array:
    """z + b, if the layer has a bias."""
    return add_bias(z, params["b"]) if "b" in params else z


def output_dtype(params: Params, x: Array) -> DType:
    """The dtype of a layer's outputs: that of x and w, promoted."""
    return jnp.promote_types(x.dtype, params["w"].dtype)


def beside_inputs(u: Array, x: Array) -> Array:
    """u in the promoted dtype of x and u, that of its products."""
    return u.astype(jnp.promote_types(x.dtype, u.dtype))


def recurrent_product(u: Array, h: Array) -> Array:
    """h u in the accumulation dtype; of half-precision u with h, and the result, rounded to that dtype.

    So the cotangent of the product is of this dtype as well, and half precision stays on tensor cores, see `linear`.
    """
    return accumulate(linear(h.astype(u.dtype), u))


def held(counts: Array | None, new: PyTree, old: PyTree) -> PyTree:
    """`new` (N, H) where a position counts, else `old`."""
    if counts is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(counts[:, None], new, old), new, old)


def first_carry(where: str, carry: Carry | None, z: Array, sizes: Mapping[str, int], params: Params) -> Carry:
    """The carry to start from, (N, size) by name, in the accumulation dtype; zeros for None."""
    n = z.shape[1]
    if carry is None:
        return {
            name: zero_carry(jax.eval_shape(lambda z, size=size: z[0, :, :size], z), params)
            for name, size in sizes.items()
        }
    wanted = {name: (n, size) for name, size in sizes.items()}
    found = {name: jnp.shape(value) for name, value in carry.items()} if isinstance(carry, Mapping) else carry
    if found != wanted:
        raise ValueError(
            f"{where}: the state must be () or a carry of shapes {wanted}, got {found}. Make it by "
            f"models.begin(net, params, state, {n})."
        )
    # Zeros that are the same on every device of a `shard_map` are not so after the first position.
    # One from `begin` lies on no mesh, or replicated; in the loop it must be sharded as the inputs.
    placed = {name: beside(carry[name], z[0, :, :size]) for name, size in sizes.items()}
    return {name: vary(value.astype(z.dtype), varying_axes(z, params)) for name, value in placed.items()}


def zero_carry(kind: Any, *others: PyTree) -> Array:
    """Zeros of a type (sharding included) that vary over the mesh axes of the other arrays as well."""
    return vary(filled_as(kind), varying_axes(*others))


def cast_like(last: Carry, first: Carry | None) -> Carry:
    """The last carry in the dtypes of the first, so that the state of a loop keeps its type."""
    return last if first is None else {name: last[name].astype(first[name].dtype) for name in last}


def recurrent_layer(
    kind: RecurrentKind,
    init: Callable[..., Params],
    apply: Callable[..., tuple[Array, Carry]],
    hidden: int,
    of_init: Mapping[str, Any],
    of_apply: Mapping[str, Any] = MappingProxyType({}),
) -> Layer:
    """The Layer of a recurrence: `init(key, features, hidden, dtype=..., **of_init)`, `apply(params, x, ...)`."""
    name = kind.name
    require_positive_int(name, "hidden", hidden)

    def layer_init(key: Key, example: Any) -> tuple[Params, State]:
        one: Any = values_of(example)
        if len(one.shape) != 2:
            raise ValueError(
                f"{name}: an example must have shape (T, D), positions and features, got {one.shape}. Put Embedding in "
                "front of tokens."
            )
        return init(key, one.shape[-1], hidden, dtype=param_dtype(one), **of_init), ()

    def layer_apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        first = carry_in(state)
        y, carry = apply(params, values_of(x), carry=first, mask=mask_of(x), **of_apply)
        return with_values(x, y), state if first is None else carry

    options = {"hidden": hidden, **of_apply, **of_init}
    return Layer(layer_init, layer_apply, kind, MappingProxyType(options), sequences=True)


def carry_in(state: State) -> Carry | None:
    """The carry to start from: the state of a recurrent layer; None for `()`."""
    return None if isinstance(state, tuple) and not state else state


def blocks(key: Key, init: Initializer, rows: int, hidden: int, gates: int, dtype: DTypeLike) -> Array:
    """A matrix (rows, gates hidden) whose blocks of columns, one for each gate, are initialized one by one."""
    keys = jax.random.split(key, gates)
    return jnp.concatenate([init(keys[i], (rows, hidden), dtype) for i in range(gates)], axis=1)


def split(z: Array, parts: int) -> list[Array]:
    """The blocks of columns of the gates."""
    return list(lax.split(z, [z.shape[-1] // parts] * parts, axis=z.ndim - 1))


def start(layer: Layer, n: int, dtype: DTypeLike = jnp.float32) -> State:
    """The zero carry of one recurrent layer for n examples, in the accumulation dtype; `models.begin` is of a network.

    Example:
        >>> from jaxnn.layers import LSTM
        >>> jax.tree.map(jnp.shape, start(LSTM(4), 2))
        {'c': (2, 4), 'h': (2, 4)}
    """
    kind: Any = layer.kind
    shape = (require_positive_int("start", "n", n), layer.options["hidden"])
    return {name: jnp.zeros(shape, accumulation_dtype(dtype)) for name in kind.carry}


REVERSED = Kind("reversed")


def Reversed(layer: Layer) -> Layer:
    """A layer on sequences read from their ends: y_t = layer(x_T, ..., x_1) at the place of x_t.

    Values and mask are reversed, so that a recurrent layer reads the positions that count from the last to the first.

    Args:
        layer: one that keeps the positions, (N, T, ...) -> (N, T, ...), such as `LSTM(128)`.

    Reference: Schuster, M. & Paliwal, K. K. (1997). Bidirectional recurrent neural networks.

    Example:
        >>> from jaxnn.activations import relu
        >>> from jaxnn.layers import RNN
        >>> params = {"w": jnp.ones((1, 1)), "u": jnp.ones((1, 1))}
        >>> Reversed(RNN(1, activation=relu)).predict((params,), (), jnp.array([[[1.0], [2.0], [3.0]]])).ravel()
        Array([6., 5., 3.], dtype=float32)
    """
    require_net("Reversed", layer)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        params, state = layer.init(key, example)
        return (params,), state

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y, state = layer.apply(params[0], state, reversed_in_time(x), key=key, train=train)
        return reversed_in_time(y), state

    return Layer(init, apply, REVERSED, parts=(layer,), sequences=True)


def reversed_in_time(x: Any) -> Any:
    """x (N, T, ...), or values and mask of `Sequences`, with the positions in reverse order; a context stays."""
    values = values_of(x)
    if values.ndim < 2:
        raise ValueError(f"Reversed: x must have shape (N, T, ...), got {values.shape}.")
    turned = lax.rev(values, (1,))
    if values is x:
        return turned
    return dataclasses.replace(x, values=turned, mask=None if x.mask is None else lax.rev(x.mask, (1,)))

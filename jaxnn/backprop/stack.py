"""The rule of a stack of equal blocks: the chain rule of a serial as one reversed scan over the blocks.

With x_l = f(x_(l-1); w_l) for l = 1, ..., L and the same f,

    dC/dx_(l-1) = J_x(l)' dC/dx_l      dC/dw_l = J_w(l)' dC/dx_l

the carry of the scan is dC/dx_l, its outputs are the gradients (or the uses) of the blocks, along an axis of L. A use
of each block is one use of the stack: a product with w (L, D, P) is a product in L groups, z_l = a_l w_l.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.combinators import backward, forward, parts_couple, through_parts, uses_of_parts
from jaxnn.backprop.rule import USES, Cache, Collect, Rule, register
from jaxnn.layers.base import Layer
from jaxnn.models.stack import keys_of
from jaxnn.models.ties import STACK
from jaxnn.ops.views import Reshape, Slice, Transpose, View
from jaxnn.tape import STATIC, Addition, GroupedProduct, Placed, Product, Scaling, Use, Whole
from jaxnn.types import Array, Key, Params, PyTree, Shape, State


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Caches:
    """The caches of all blocks: their arrays along a first axis, everything else (flags, functions) once."""

    arrays: list[Array]
    rest: tuple[Any, ...] = dataclasses.field(metadata=STATIC)
    structure: Any = dataclasses.field(metadata=STATIC)

    def of_one(self, arrays: list[Array]) -> Cache:
        """The cache of a block, from its arrays."""
        left = iter(arrays)
        leaves = [next(left) if leaf is _ARRAY else leaf for leaf in self.rest]
        return jax.tree.unflatten(self.structure, leaves)


_ARRAY = "array"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Inputs:
    """The inputs of all blocks along a first axis, for a stack that computes their forward passes again."""

    x: Any
    state: State
    keys: Key | None
    train: bool = dataclasses.field(metadata=STATIC)


def _forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    (block,), n = layer.parts, layer.options["n"]
    keys = keys_of(key, n)
    if layer.options["remat"]:

        def keep_input(x: Any, of_block: Any) -> tuple[Any, Any]:
            p, s, k = of_block
            y, new = block.apply(p, s, x, key=k, train=train)
            return y, (new, x)

        y, (new, inputs) = lax.scan(keep_input, x, (params, state, keys), length=n)
        return y, new, _Inputs(inputs, state, keys, train)
    seen: list[_Caches] = []

    def keep_cache(x: Any, of_block: Any) -> tuple[Any, Any]:
        p, s, k = of_block
        y, new, cache = forward(block, p, s, x, key=k, train=train)
        leaves, structure = jax.tree.flatten(cache)
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        seen.append(_Caches([], tuple(_ARRAY if isinstance(leaf, jax.Array) else leaf for leaf in leaves), structure))
        return y, (new, arrays)

    y, (new, arrays) = lax.scan(keep_cache, x, (params, state, keys), length=n)
    return y, new, dataclasses.replace(seen[-1], arrays=arrays)


@dataclasses.dataclass(frozen=True)
class _Stack(Rule):
    def backward(self, layer: Layer, params: Params, cache: Any, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        (block,) = layer.parts

        def body(dy: Any, of_block: Any) -> tuple[Any, PyTree]:
            p, kept = of_block
            if isinstance(cache, _Inputs):
                # The barrier ties the second forward pass to the cotangent, as in `checkpoint`.
                kept, dy = lax.optimization_barrier((kept, dy))
                _, _, one = forward(block, p, kept[1], kept[0], key=_key(kept[2], cache.keys), train=cache.train)
            else:
                one = cache.of_one(kept)
            return backward(block, p, one, dy, collect)

        kept = cache.arrays if isinstance(cache, _Caches) else (cache.x, cache.state, _data(cache.keys))
        dx, found = lax.scan(body, dy, (params, kept), length=layer.options["n"], reverse=True)
        if collect is USES:
            places: Any = jax.tree.structure(params)
            leaves = zip(places.flatten_up_to(found), jax.tree.leaves(params), strict=True)
            found = jax.tree.unflatten(
                places, [tuple(u for use in uses for u in stacked(use, p.shape)) for uses, p in leaves]
            )
        return dx, found


def _data(keys: Key | None) -> Array | None:
    """Key data: barriers take no keys."""
    return None if keys is None else jax.random.key_data(keys)


def _key(data: Array | None, keys: Key | None) -> Key | None:
    return None if data is None or keys is None else jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))


def stacked(use: Use, shape: Shape) -> tuple[Use, ...]:
    """The uses of a stack's parameter of that shape, (L, ...), from a use of each block's, arrays with an axis of L.

    Example:
        >>> use = Product(jnp.ones((5, 2, 3, 4)), jnp.ones((5, 2, 3, 6)))  # 5 blocks, 2 examples, 3 positions
        >>> [u.shape for u in stacked(use, (5, 4, 6))]
        [(5, 4, 6)]
    """

    def inner(x: Array) -> Array:  # (L, N, T, ...) as (N, T, L, ...)
        return jnp.moveaxis(x, 0, 2)

    def flat(x: Array) -> Array:
        return inner(x).reshape(*x.shape[1:3], -1)

    match use:
        case Product():
            view = View(shape).then(Transpose((1, 0, 2)))
            return (Placed(GroupedProduct(inner(use.a), inner(use.delta)), view),)
        case Addition():
            return (Addition(flat(use.delta)),)
        case Scaling():
            return (Scaling(flat(use.a), flat(use.delta)),)
        case Whole():
            return (dataclasses.replace(use, grads=jnp.moveaxis(use.grads, 0, 1)),)
    return tuple(_slice_of(jax.tree.map(lambda x: x[i], use), i, shape) for i in range(shape[0]))  # noqa: B023


def _slice_of(use: Use, i: int, shape: Shape) -> Placed:
    """A use of block i as one of a slice of the stack's parameter."""
    whole = (1,) * len(shape)
    view = View(shape).then(Slice((i, *(0,) * (len(shape) - 1)), (i + 1, *shape[1:]), whole)).then(Reshape(shape[1:]))
    if not isinstance(use, Placed):
        return Placed(use, view)
    for step in use.view.steps:
        view = view.then(step)
    return Placed(use.use, view)


STACK_RULE = register(STACK, _Stack(_forward, through_parts, uses_of_parts, parts_couple))
"""One reversed scan over the blocks."""

"""Layers of flax's nnx modules."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key
from jaxnn.layers import Layer
from jaxnn.optim.base import dtypes_of
from jaxnn.train.foreign.base import NNX, Settings, arguments_of, mode, require_maker
from jaxnn.types import Array, Key, Params, PyTree, State


def from_nnx(nnx: Any, module: Any, call: Callable[[Any, Array, bool], Array] | None) -> Layer:
    """The `Layer` of an nnx module, or of a function from `nnx.Rngs` to one; see `from_flax`."""

    def parted(made: Any) -> Any:
        return nnx.split(made, nnx.Param, nnx.RngState, ...)

    def values(params: Any, others: Any) -> tuple[Params, State]:
        return nnx.to_pure_dict(params), nnx.to_pure_dict(others) or ()

    given = isinstance(module, nnx.Module)
    if not given:
        require_maker("from_flax", module, "nnx.Rngs", "an instance, or lambda rngs: Model(..., rngs=rngs)")
    made = module if given else nnx.eval_shape(lambda: module(nnx.Rngs(0)))
    if not isinstance(made, nnx.Module):
        raise TypeError(f"from_flax: the function must return an nnx module, got {made!r:.60}.")
    name = type(made).__name__
    where = f"from_flax: {name}"
    named = () if call else arguments_of(where, made.__call__, (), "call=lambda module, x, train: module(x, ...)")
    graph, own, streams, others = parted(made)
    held = values(own, others) if given else None
    own, streams, others = jax.tree.map(_abstract, (own, streams, others))  # the module's arrays may be donated

    def filled(state: Any, by: PyTree) -> Any:
        state = jax.tree.map(lambda leaf: leaf, state)  # replaced in place
        nnx.replace_by_pure_dict(state, by)
        return state

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        if held is not None:
            return jax.tree.map(jnp.copy, held)
        _, params, _, rest = parted(module(nnx.Rngs(key)))
        return values(params, rest)

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        if train and jax.tree.leaves(streams):
            require_key(where, key)
        keys = _started(streams, jax.random.key(0) if key is None else key)
        net = nnx.merge(graph, filled(own, params), keys, filled(others, state or {}))
        if train:
            net.train()
        else:
            net.eval()
        y = call(net, x, train) if call else net(x, **mode(named, train))
        if not (train and state):
            return y, state
        return y, dtypes_of(_only(state, nnx.to_pure_dict(parted(net)[3])), state)  # as those of linen

    return Layer(init, apply, NNX, MappingProxyType({"form": name, "settings": Settings((graph, call))}))


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _started(streams: Any, key: Key) -> Any:
    """The random streams with keys of their own, each a function of `key`, and their counts at 0."""
    leaves, structure = jax.tree.flatten(streams)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    keys = iter(jax.random.split(key, sum(is_key)) if any(is_key) else ())

    def start(leaf: Any, is_key: bool) -> Array:
        if not is_key:
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jax.random.split(next(keys), leaf.shape) if leaf.shape else next(keys)

    return jax.tree.unflatten(structure, list(map(start, leaves, is_key)))


def _only(like: PyTree, new: PyTree) -> PyTree:
    """The entries of nested dicts that are in `like` too: a call may have added others, such as sown values."""
    return {name: _only(part, new[name]) for name, part in like.items()} if isinstance(like, dict) else new

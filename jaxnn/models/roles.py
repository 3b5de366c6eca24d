"""The role of each parameter of a network, for optimizers that treat matrices by what they do."""

from __future__ import annotations

import jax

from jaxnn.layers import dense, embedding, position
from jaxnn.layers.base import Layer
from jaxnn.models.combinators import SERIAL
from jaxnn.models.ties import STACK
from jaxnn.types import Params, PyTree

EMBEDDINGS = (embedding.KIND, position.LEARNED)


def roles(net: Layer, params: Params) -> PyTree:
    """The role "hidden", "embedding", "head" or "vector" of each parameter, for `optim.muon_with_roles`.

    Tables of embeddings and learned positions are embeddings, also where they are tied to the output; the matrix of a
    dense layer at the end of the network is the head; every other array of two axes or more (without the axis of blocks
    of a stack) is hidden; the rest are vectors.

    Args:
        net, params: a network and its parameters.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> from jaxnn.models import serial
        >>> net = serial(Dense(4), Relu, Dense(2))
        >>> roles(net, net.init(jax.random.key(0), (3,))[0])
        ({'b': 'vector', 'w': 'hidden'}, (), {'b': 'vector', 'w': 'head'})
    """
    return _roles(net, params, 0, is_last=True)


def _roles(layer: Layer, params: Params, axes: int, *, is_last: bool) -> PyTree:
    """The roles inside a layer whose parameters have `axes` axes of blocks; `is_last`: the outputs come from it."""
    if layer.kind is STACK:
        return _roles(layer.parts[0], params, axes + 1, is_last=False)
    if layer.parts:
        last = max((i for i, p in enumerate(params) if jax.tree.leaves(p)), default=-1)
        ends = is_last and layer.kind is SERIAL
        parts = enumerate(zip(layer.parts, params, strict=True))
        return tuple(_roles(part, p, axes, is_last=ends and i == last) for i, (part, p) in parts)
    head = is_last and layer.kind is dense.KIND
    matrix = "embedding" if layer.kind in EMBEDDINGS else "head" if head else "hidden"
    return jax.tree.map(lambda p: matrix if p.ndim - axes >= 2 else "vector", params)

"""The layers of a network that have parameters, by path, with the blocks of a stack one by one; and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxnn.layers import attention, position
from jaxnn.layers.base import Layer
from jaxnn.layers.recurrence import REVERSED, RecurrentKind
from jaxnn.models.combinators import PARALLEL, RESIDUAL, SERIAL, require_params, spread
from jaxnn.models.ties import STACK
from jaxnn.models.transformer import ENCODER_DECODER
from jaxnn.types import Params, State

Arrays: TypeAlias = dict[str, Any]
"""Arrays of one layer by name; of ours the parameters and the running statistics together, whose names differ."""

CACHED = (attention.KIND, attention.CROSS, position.LEARNED, position.SINUSOIDAL)
"""Kinds whose state, if they have one, serves decoding."""

TUPLES = (SERIAL, RESIDUAL, PARALLEL, ENCODER_DECODER)
"""Kinds whose parameters and state are tuples with one entry for each part."""


class Site(NamedTuple):
    """A layer at its place in a network.

    Attributes:
        path: the indices of the parts, joined with "/", such as "2/0/1"; a block of a stack counts as a part.
        layer: the layer.
        arrays: its parameters and running statistics.
    """

    path: str
    layer: Layer
    arrays: Arrays

    def __str__(self) -> str:
        return f"{self.path or 'the network'} ({self.layer.kind.name})"


def sites(net: Layer, params: Params, state: State, path: str = "") -> Iterator[Site]:
    """The leaf layers that have arrays, depth first, in the order in which they are applied.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> from jaxnn.models import serial
        >>> net = serial(Dense(2), Relu, serial(Dense(1)))
        >>> [str(site) for site in sites(net, *net.init(jax.random.key(0), (3,)))]
        ['0 (dense)', '2/0 (dense)']
    """
    if not net.parts:
        if arrays := _arrays(net, params, state):
            yield Site(path, net, arrays)
        return
    for name, part, p, s in _children(net, params, state):
        yield from sites(part, p, s, f"{path}/{name}".lstrip("/"))


def rebuilt(net: Layer, params: Params, state: State, found: Mapping[str, Arrays], path: str = "") -> Any:
    """(params, state) of the structure of these, with the arrays that were found for each path.

    Example:
        >>> from jaxnn.layers import Dense
        >>> rebuilt(Dense(1), {"w": 0}, (), {"": {"w": 5}})
        ({'w': 5}, ())
    """
    if not net.parts:
        one = found.get(path, {})
        return tuple(tree if not tree else {name: one[name] for name in tree} for tree in (params, state))
    made = [
        rebuilt(part, p, s, found, f"{path}/{name}".lstrip("/")) for name, part, p, s in _children(net, params, state)
    ]
    if net.kind is STACK:
        return jax.tree.map(lambda *blocks: np.stack(blocks), *made)
    if net.kind is REVERSED:
        return (made[0][0],), made[0][1]
    return tuple(p for p, _ in made), tuple(s for _, s in made) if state else ()


def ties(net: Layer, path: str = "") -> dict[str, str]:
    """Path of each tied layer -> path of the layer whose parameters it has.

    Example:
        >>> from jaxnn.layers import Embedding, tied
        >>> from jaxnn.models import serial
        >>> embed = Embedding(7, 4)
        >>> ties(serial(embed, tied(embed)))
        {'1': '0'}
    """
    found = {}
    for to, source in net.options.get("ties", ()):
        found[_joined(path, to)] = _joined(path, source)
    for i, part in enumerate(net.parts if net.kind is not STACK else ()):
        found |= ties(part, _joined(path, (i,)))
    return found


def leaves(net: Layer) -> Iterator[Layer]:
    """The leaf layers, in the order in which they are applied; of a stack those of one block."""
    for part in net.parts:
        yield from leaves(part)
    if not net.parts:
        yield net


def _arrays(layer: Layer, params: Params, state: State) -> Arrays:
    """Parameters and running statistics of one layer; a custom one may have other pytrees than dicts."""
    if jax.tree.leaves(state) and (layer.kind in CACHED or isinstance(layer.kind, RecurrentKind)):
        raise ValueError(
            f"interchange: the state of {layer.kind.name} holds a cache or carry of `models.begin`. Pass the state of "
            "net.init, or of training."
        )
    pairs = (("params", params), ("state", state))
    parts = [tree if isinstance(tree, Mapping) else {name: tree} for name, tree in pairs if jax.tree.leaves(tree)]
    return {name: x for part in parts for name, x in part.items()}


def _joined(path: str, indices: tuple[int, ...]) -> str:
    return "/".join([path, *map(str, indices)]).lstrip("/")


def _children(net: Layer, params: Params, state: State) -> list[tuple[str, Layer, Params, State]]:
    """(name, layer, params, state) of each part."""
    if net.kind is STACK:
        block, n = net.parts[0], net.options["n"]
        return [(str(i), block, *jax.tree.map(_slice(i), (params, state))) for i in range(n)]
    if net.kind is REVERSED:
        return [("0", net.parts[0], params[0], state)]
    if net.kind not in TUPLES:
        raise ValueError(
            f"interchange: {net.kind.name} is a composed layer of another library, whose parts cannot be told apart in "
            "its parameters. Use those of jaxnn.models: serial, residual, parallel, stack."
        )
    require_params(net.kind.name, params, net.parts)
    each = zip(net.parts, params, spread(state, net.parts), strict=True)
    return [(str(i), part, p, s) for i, (part, p, s) in enumerate(each)]


def _slice(i: int) -> Callable[[Any], Any]:
    """Block i of an array of a stack, or its shape."""

    def of(x: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x[i]

    return of

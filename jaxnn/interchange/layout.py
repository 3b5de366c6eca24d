"""Where features of images have another order in PyTorch: channels are the first axis there, (C, H, W), here the last.

`Flatten` makes a vector of an image, so features come in another order than here. What follows must know it: the rows
of the next dense layer, and normalizations and activations with parameters before it. Where `Reshape` makes an image of
a vector, it is the columns of the dense layer before. The order is an array of indices: theirs = ours[order].
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.interchange.sites import Arrays, Site, leaves, ties
from jaxnn.layers import (
    activation,
    attention,
    batch_norm,
    conv,
    conv_transpose,
    dense,
    dropout,
    embedding,
    flatten,
    gated,
    group_norm,
    layer_norm,
    parametric,
    pooling,
    position,
    reshape,
    rms_norm,
)
from jaxnn.layers.base import Example, Layer, as_example, output_example
from jaxnn.layers.recurrence import RecurrentKind
from jaxnn.layers.sequences import values_of
from jaxnn.models.combinators import PARALLEL, RESIDUAL, SERIAL, concatenate, spread
from jaxnn.models.ties import STACK, filled
from jaxnn.types import Params, Shape, State

Order = np.ndarray[Any, Any] | None
"""Of a vector's features, which of ours stands at each place of theirs; None if the order is the same."""

CHANNELS_FIRST = (
    conv.KIND, conv_transpose.KIND, pooling.MAX_POOL, pooling.AVERAGE_POOL, reshape.UPSAMPLE, batch_norm.KIND,
    group_norm.KIND,
)  # fmt: skip
"""Kinds whose counterparts in PyTorch take (N, C, *spatial)."""

CHANNELS_LAST = (
    dense.KIND, gated.KIND, embedding.KIND, attention.KIND, attention.CROSS, position.LEARNED, position.SINUSOIDAL,
)  # fmt: skip
"""Kinds whose counterparts in PyTorch have features last; recurrent ones too (with batch_first)."""

EACH_FEATURE = (batch_norm.KIND, layer_norm.KIND, rms_norm.KIND, parametric.KIND)
"""Kinds whose arrays have one number for each feature (or one for all), and that mean the same in any order."""


class Orders(NamedTuple):
    """The orders of a layer's input and output features."""

    rows: Order = None
    columns: Order = None


@dataclasses.dataclass(frozen=True)
class _Flow:
    """What goes from layer to layer: one example; the order of its features, if it is a vector; the paths of the layers
    whose output features are these, None if they are not known."""

    example: Any
    order: Order = None
    makers: tuple[str, ...] | None = None

    @property
    def shape(self) -> Shape:
        return values_of(self.example).shape


class _Walk:
    """One pass through a network, layer by layer."""

    def __init__(self, where: str, net: Layer) -> None:
        self.where = where
        self.leaves = list(leaves(net))
        self.place = -1
        self.found: dict[str, Orders] = {}

    def through(self, net: Layer, params: Params, state: State, flow: _Flow, path: str) -> _Flow:
        """The flow after a layer or network."""
        if not net.parts:
            self.place += 1
            if net.kind is SERIAL:  # of no parts: the identity beside a residual block
                return flow
            return self.leaf(net, params, state, flow, path)
        if net.kind is SERIAL:
            each = zip(net.parts, filled(net, params), spread(state, net.parts), strict=True)
            for i, (part, p, s) in enumerate(each):
                flow = self.through(part, p, s, flow, _below(path, i))
            return flow
        if net.kind is STACK:
            p, s = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (params, state))
            return self.stacked(net, p, s, flow, path)
        out = _Flow(output_example(net, params, state, flow.example))
        if net.kind in (RESIDUAL, PARALLEL):
            each = zip(net.parts, filled(net, params), spread(state, net.parts), strict=True)
            # Features that one branch would have in another order go into the others too.
            inner = dataclasses.replace(flow, makers=None)
            flows = [self.through(part, p, s, inner, _below(path, i)) for i, (part, p, s) in enumerate(each)]
            return dataclasses.replace(out, order=self.joined(net, flows, path))
        self.require_known(flow, net, path)
        self.place += sum(1 for _ in leaves(net))
        return out

    def stacked(self, net: Layer, params: Params, state: State, flow: _Flow, path: str) -> _Flow:
        """After a stack; its blocks are alike, so that their orders are those of the first."""
        after = self.through(net.parts[0], params, state, flow, _below(path, 0))
        if not _equal(flow.order, after.order):
            self.unknown(path, net, "one block of it does not keep the order of the features that Flatten makes")
        first = f"{_below(path, 0)}/"
        for name, orders in list(self.found.items()):
            if name.startswith(first) or name == first[:-1]:
                self.found |= {_below(path, i) + name[len(first) - 1 :]: orders for i in range(net.options["n"])}
        return dataclasses.replace(after, makers=None)

    def joined(self, net: Layer, flows: list[_Flow], path: str) -> Order:
        """The order of a sum of branches, or of their concatenation."""
        if all(flow.order is None for flow in flows):
            return None
        if net.kind is PARALLEL and net.options["combine"] is concatenate:
            starts = np.cumsum([0, *(flow.shape[-1] for flow in flows)])
            orders = [np.arange(f.shape[-1]) if f.order is None else f.order for f in flows]
            return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])
        if not all(_equal(flow.order, flows[0].order) for flow in flows):
            self.unknown(path, net, "its branches have features in different orders after Flatten")
        return flows[0].order

    def leaf(self, layer: Layer, params: Params, state: State, flow: _Flow, path: str) -> _Flow:
        """The flow after one layer."""
        out = _Flow(output_example(layer, params, state, flow.example))
        vector = len(flow.shape) == 1
        if layer.kind in (dense.KIND, gated.KIND):
            if flow.order is not None:
                self.found[path] = Orders(rows=flow.order)
            return dataclasses.replace(out, makers=(path,))
        if layer.kind in EACH_FEATURE or layer.kind in (activation.KIND, dropout.KIND):
            if flow.order is not None and layer.kind in EACH_FEATURE:
                self.found[path] = Orders(columns=flow.order)
            makers = flow.makers
            if makers is not None and layer.kind in EACH_FEATURE:
                makers = (*makers, path)
            return dataclasses.replace(flow, example=out.example, makers=makers)
        if layer.kind in (flatten.KIND, reshape.RESHAPE):
            if vector and len(out.shape) == 1:
                return flow
            return self.to_image(layer, flow, out, path) if vector else self.from_image(layer, flow, out, path)
        self.require_known(flow, layer, path)
        return out

    def from_image(self, layer: Layer, flow: _Flow, out: _Flow, path: str) -> _Flow:
        """After Flatten or Reshape of an example with several axes."""
        if not self.channels_first(len(flow.shape), before=True):
            return out
        if len(out.shape) == 1:
            return dataclasses.replace(out, order=channels_first_order(flow.shape))
        if out.shape[-1] != flow.shape[-1]:
            self.unknown(path, layer, f"it makes {out.shape} of an image {flow.shape}, and so changes the channels")
        return out  # the positions of the image as a sequence, each with its channels

    def to_image(self, layer: Layer, flow: _Flow, out: _Flow, path: str) -> _Flow:
        """After Reshape of a vector."""
        self.require_known(flow, layer, path)
        order = channels_first_order(out.shape) if self.channels_first(len(out.shape), before=False) else None
        if order is None:
            return out
        if flow.makers is None:
            self.unknown(path, layer, "no dense layer makes the features of which it makes an image")
        for maker in flow.makers or ():
            self.found[maker] = self.found.get(maker, Orders())._replace(columns=order)
        return out

    def channels_first(self, axes: int, *, before: bool) -> bool:
        """Whether an example with several axes has its channels first in PyTorch: by the nearest layer before (or
        after) that only takes it so or so; else, whether it is an image."""
        near = self.leaves[: self.place][::-1] if before else self.leaves[self.place + 1 :]
        for other in near:
            if other.kind in (flatten.KIND, reshape.RESHAPE):
                break
            if other.kind in CHANNELS_FIRST:
                return True
            if other.kind in CHANNELS_LAST or isinstance(other.kind, RecurrentKind):
                return False
        return axes >= 3

    def require_known(self, flow: _Flow, layer: Layer, path: str) -> None:
        """Raise if a layer gets features in another order and cannot follow it."""
        if flow.order is not None:
            self.unknown(path, layer, "it gets features in the order of Flatten, which differs in PyTorch")

    def unknown(self, path: str, layer: Layer, why: str) -> None:
        """Raise ValueError: the order of the features is not known."""
        raise ValueError(
            f"{self.where}: at {path or 'the network'} ({layer.kind.name}), {why}. PyTorch has the channels of images "
            "first, and only dense layers, and layers of one number per feature, can be given another order: put a "
            "Dense next to Flatten or Reshape."
        )


def torch_orders(where: str, net: Layer, params: Params, state: State, example: Example) -> dict[str, Orders]:
    """The orders of features, by the paths of the layers whose arrays must be permuted.

    Example:
        >>> from jaxnn.layers import Conv, Dense, Flatten
        >>> from jaxnn.models import serial
        >>> net = serial(Conv(2, 1), Flatten, Dense(3))
        >>> torch_orders("to_torch", net, *net.init(jax.random.key(0), (1, 3, 1)), (1, 3, 1))["2"].rows
        array([0, 2, 4, 1, 3, 5])
    """
    if not any(layer.kind in (flatten.KIND, reshape.RESHAPE) for layer in leaves(net)):
        return {}
    walk = _Walk(where, net)
    walk.through(net, params, state, _Flow(as_example(example)), "")
    for to, source in ties(net).items():
        if any(path == source or path.startswith(f"{source}/") for path in walk.found):
            raise ValueError(
                f"{where}: the layer at {source} has features of an image in PyTorch's order, where the one at {to}, "
                "tied to it, need not have them so. Convert a network in which they are not tied."
            )
    return walk.found


def channels_first_order(shape: Shape) -> Order:
    """The order of the features of an image (*spatial, C) flattened as (C, *spatial); None if it is the same.

    Example:
        >>> channels_first_order((2, 2))
        array([0, 2, 1, 3])
    """
    places = np.arange(np.prod(shape)).reshape(shape)
    order = np.moveaxis(places, -1, 0).ravel()
    return None if np.array_equal(order, np.arange(order.size)) else order


def arranged(site: Site, orders: Orders, *, inverse: bool = False) -> Arrays:
    """The arrays of a layer with features in PyTorch's order, from ours; or ours from these."""

    def along(x: Any, order: Order, axis: int) -> Any:
        if order is None or x.shape[axis] == 1:
            return x
        return np.take(x, np.argsort(order) if inverse else order, axis)

    arrays = {}
    for name, x in site.arrays.items():
        x = along(x, orders.rows, 0) if x.ndim == 2 else x
        arrays[name] = along(x, orders.columns, x.ndim - 1)
    return arrays


def _below(path: str, i: int) -> str:
    return f"{path}/{i}".lstrip("/")


def _equal(a: Order, b: Order) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))

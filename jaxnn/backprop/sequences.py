"""Rules of padded sequences and of tied parameters.

**Tied embedding**, z_nt = w h_nt with the table w (V, D), z = h w': dC/dh = delta w and dC/dw = delta' h, which is a use
of the transpose of w: h' delta, (D, V). The lookup of the same table is another use (`linear`), and the gradient is the
sum over both.

**Padding**, the mask of tokens: integers have no derivative. **Values**, which drops the mask: a cotangent at a masked
position is dropped, and the context gets none. **Last position**: dC/dx is dC/dy at the last position that counts, and 0
elsewhere.

Reference: Press, O. & Wolf, L. (2017). Using the output embedding to improve language models, section 3.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.combinators import backward, forward
from jaxnn.backprop.rule import AUTOMATIC, Cache, Collect, Rule, keep_input, register, rule_of
from jaxnn.layers import padding, tying
from jaxnn.layers.base import Layer
from jaxnn.layers.sequences import Sequences, mask_of, no_context, only, values_of, with_values
from jaxnn.numerics import dot_general
from jaxnn.ops.views import Transpose, View
from jaxnn.tape import Placed, Product, positions
from jaxnn.types import Array, Key, Params, PyTree, State


def _unembedding_input_grad(layer: Layer, params: Params, h: Array, dy: Array) -> Array:
    w = params["w"].astype(dy.dtype)
    return dot_general(dy, w, (((dy.ndim - 1,), (0,)), ((), ()))).astype(h.dtype)


def _unembedding_uses(layer: Layer, params: Params, h: Array, dy: Array) -> PyTree:
    view = View(params["w"].shape).then(Transpose((1, 0)))
    return {"w": (Placed(Product(positions(h), positions(dy)), view),)}


UNEMBEDDING = register(tying.UNEMBEDDING, Rule(keep_input, _unembedding_input_grad, _unembedding_uses))
"""dC/dh = delta w; dC/dw = delta' h, added to the gradient of the lookups."""


@dataclasses.dataclass(frozen=True)
class _Tied(Rule):
    """The rule of the layer that another is tied to."""

    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        return backward(layer.options["of"], params, cache, dy, collect)


def _tied_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    if isinstance(params, tuple) and not params:
        layer.apply(params, state, x, key=key, train=train)  # raises
    return forward(layer.options["of"], params, state, x, key=key, train=train)


def _tied_input_grad(layer: Layer, params: Params, cache: Cache, dy: Any) -> Any:
    return rule_of(layer.options["of"]).input_grad(layer.options["of"], params, cache, dy)


def _tied_uses(layer: Layer, params: Params, cache: Cache, dy: Any) -> PyTree:
    return rule_of(layer.options["of"]).uses(layer.options["of"], params, cache, dy)


def _tied_couples(layer: Layer, train: bool) -> bool:
    return rule_of(layer.options["of"]).couples(layer.options["of"], train)


def _tied_by_hand(layer: Layer) -> bool:
    rule = rule_of(layer.options["of"])
    return rule is not AUTOMATIC and rule.by_hand(layer.options["of"])


TIED = register(tying.TIED, _Tied(_tied_forward, _tied_input_grad, _tied_uses, _tied_couples, _tied_by_hand))
"""As the layer it is tied to; the gradient is added to that layer's."""


def _keep_shape(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    return y, state, x


def _padding_input_grad(layer: Layer, params: Params, x: Any, dy: Sequences) -> Any:
    return dataclasses.replace(dy, mask=x.mask) if isinstance(x, Sequences) else dy.values


PADDING = register(padding.PADDING, Rule(_keep_shape, _padding_input_grad))
"""Tokens have no derivative; the cotangent of a context passes."""


def _values_input_grad(layer: Layer, params: Params, x: Any, dy: Array) -> Any:
    return with_values(no_context(x), dy)


VALUES = register(padding.VALUES, Rule(_keep_shape, _values_input_grad))
"""dC/dx = dC/dy, 0 at masked positions."""


def _last_input_grad(layer: Layer, params: Params, x: Any, dy: Array) -> Any:
    values, mask = values_of(x), mask_of(x)
    mask = jnp.ones(values.shape[:2], bool) if mask is None else mask
    dx = only(padding.is_last(mask), lax.broadcast_in_dim(dy, values.shape, (0, 2)))
    return with_values(no_context(x), dx)


LAST_POSITION = register(padding.LAST, Rule(_keep_shape, _last_input_grad))
"""dC/dy at the last position that counts."""

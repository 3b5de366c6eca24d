"""Rules of padded sequences and of tied parameters.

**Tied embedding**, z_nt = w h_nt with the table w (V, D), z = h w': dC/dh = delta w and dC/dw = delta' h, which is a
use of the transpose of w: h' delta, (D, V). The lookup of the same table is another use (`linear`), and the gradient is
the sum over both.

**Encoder-decoder**: the decoder's backward pass gives the cotangent of the context, from which the encoder's begins.

**Padding**, the mask of tokens: integers have no derivative. **Values**, which drops the mask: a cotangent at a masked
position is dropped, and the context gets none. **Last position**: dC/dx is dC/dy at the last position that counts, and
0 elsewhere; **mean position**: dC/dy / m at each of the m positions that count.

**Learned positions**, y_nt = x_nt + w_t: dC/dx = dC/dy, and w_t, the same for all examples, is added once in each:
dC/dw_t = sum_n dC/dy_nt. Sines and cosines are constants.

Reference: Press, O. & Wolf, L. (2017). Using the output embedding to improve language models, section 3.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.combinators import (
    backward,
    forward,
    parts_couple,
    parts_of,
    settled,
    through_parts,
    uses_of_parts,
)
from jaxnn.backprop.rule import AUTOMATIC, Cache, Collect, Rule, keep_input, register, rule_of
from jaxnn.layers import padding, position, tying
from jaxnn.layers.base import Layer
from jaxnn.layers.sequences import Sequences, mask_of, no_context, only, values_of, with_values
from jaxnn.models.combinators import join
from jaxnn.models.ties import filled
from jaxnn.models.transformer import ENCODER_DECODER, require_context, with_context
from jaxnn.numerics import accumulate, dot_general
from jaxnn.ops.views import Slice, Transpose, View
from jaxnn.tape import Addition, Placed, Product, positions
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


def _padding_input_grad(layer: Layer, params: Params, x: Any, dy: Any) -> Any:
    return dataclasses.replace(dy, mask=x.mask) if isinstance(x, Sequences) else dy.values


PADDING = register(padding.PADDING, Rule(keep_input, _padding_input_grad))
"""Tokens have no derivative; the cotangent of a context passes."""


def _values_input_grad(layer: Layer, params: Params, x: Any, dy: Array) -> Any:
    return with_values(no_context(x), dy)


VALUES = register(padding.VALUES, Rule(keep_input, _values_input_grad))
"""dC/dx = dC/dy, 0 at masked positions."""


def _last_input_grad(layer: Layer, params: Params, x: Any, dy: Array) -> Any:
    values, mask = values_of(x), mask_of(x)
    mask = jnp.ones(values.shape[:2], bool) if mask is None else mask
    dx = only(padding.is_last(mask), lax.broadcast_in_dim(dy, values.shape, (0, 2)))
    return with_values(no_context(x), dx)


LAST_POSITION = register(padding.LAST, Rule(keep_input, _last_input_grad))
"""dC/dy at the last position that counts."""


def _mean_input_grad(layer: Layer, params: Params, x: Any, dy: Array) -> Any:
    values, mask = values_of(x), mask_of(x)
    shares = padding.position_shares(values, mask)
    wide = lax.broadcast_in_dim(accumulate(dy), values.shape, (0, *range(2, values.ndim)))
    dx = (wide * lax.broadcast_in_dim(shares, values.shape, (0, 1))).astype(dy.dtype)
    return with_values(no_context(x), dx)


MEAN_POSITION = register(padding.MEAN, Rule(keep_input, _mean_input_grad))
"""dC/dy / m at each of the m positions that count."""


def _passed(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return dy.astype(x.dtype)


def _learned_uses(layer: Layer, params: Params, x: Array, dy: Array) -> PyTree:
    w = params["w"]
    view = View(w.shape).then(Slice((0, 0), dy.shape[1:], (1, 1)))
    return {"w": (Placed(Addition(dy.reshape(dy.shape[0], 1, -1)), view),)}


LEARNED_POSITIONS = register(position.LEARNED, Rule(keep_input, _passed, _learned_uses))
"""dC/dx = dC/dy; dC/dw_t = sum_n dC/dy_nt."""

SINUSOIDAL_POSITIONS = register(position.SINUSOIDAL, Rule(keep_input, _passed))
"""dC/dx = dC/dy."""


def _encoded_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    x = require_context(x)
    reader, writer = parts_of(layer, params, state, key)
    context, s, of_encoder = forward(*reader[:3], x.context, key=reader[3], train=train)
    y, t, of_decoder = forward(*writer[:3], with_context(x, context), key=writer[3], train=train)
    return y, join([s, t]), (of_encoder, of_decoder, not isinstance(context, Sequences))


@dataclasses.dataclass(frozen=True)
class _Encoded(Rule):
    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        (encoder, decoder), (p, q) = layer.parts, filled(layer, params)
        of_encoder, of_decoder, is_array = cache
        dx, writing = backward(decoder, q, of_decoder, dy, collect)
        context, reading = backward(encoder, p, of_encoder, dx.context.values if is_array else dx.context, collect)
        return dataclasses.replace(dx, context=context), settled(layer, params, (reading, writing))


ENCODED = register(ENCODER_DECODER, _Encoded(_encoded_forward, through_parts, uses_of_parts, parts_couple))
"""The decoder's backward pass returns the cotangent of the context, from which the encoder's begins."""

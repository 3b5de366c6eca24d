"""Rules of multi-head attention, for itself and for another sequence.

With q = R(norm(x wq)), k = R(norm(c wk)), v = c wv, o = attend(q, k, v), y = concat(o) wo (R the rotary encoding, norm
the optional RMS norm of each head; c = x in self-attention):

    dC/dwo = concat(o)' dy                  do = dy wo'
    (dq, dk, dv) = the derivative of `attend` (`jaxnn.ops.attention`), from o and the log-sum-exp, block by block
    dq0 = norm'(R' dq)                      R' = the rotation by the negative angles; norm' as in `norms`
    dC/dwq = x' dq0,  dC/dwk = c' dk0,  dC/dwv = c' dv
    dC/dx = dq0 wq' (+ dk0 wk' + dv wv' where c = x),  dC/dc = dk0 wk' + dv wv'

All parameters are used at every position: the products run over positions. Kept from the forward pass are x, c, q, k,
v, o, the log-sum-exp and, with the norm, the projections before it; probabilities are not.

Reference: Vaswani, A. et al. (2017). Attention is all you need, section 3.2 (the layer).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxnn.backprop.norms import rms_input_grad, rms_moments
from jaxnn.backprop.rule import Cache, Collect, Rule, computed_once, register
from jaxnn.layers import attention
from jaxnn.layers.attention import Settings, output, project, require_fit, turns, visible
from jaxnn.layers.attention_layers import context_of
from jaxnn.layers.base import Layer
from jaxnn.layers.sequences import mask_of, only, values_of, with_values
from jaxnn.ops.attention import attend, attend_grads
from jaxnn.ops.matmul import linear_input_grad
from jaxnn.ops.rotary import rotate
from jaxnn.tape import Addition, Product, Scaling, positions
from jaxnn.types import Array, Key, Params, PyTree, State


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Kept:
    """What the backward pass needs: x, and c, what keys are made of, None for x."""

    x: Array
    c: Array | None
    mask: Array | None
    before: tuple[Array, Array] | None
    q: Array
    k: Array
    v: Array
    o: Array
    lse: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Deltas:
    """Cotangents of the products with wq, wk, wv and wo, (N, T, columns); (xhat, cotangent) of the heads' scales."""

    q: Array
    k: Array
    v: Array
    y: Array
    scaled: dict[str, tuple[Array, Array]]


def _kept(params: Params, settings: Settings, x: Array, c: Array | None, mask: Array | None) -> _Kept:
    """The forward pass up to o."""
    read = x if c is None else c
    require_fit(params, x, read, mask, settings)
    before, (q, k, v) = project(params, x, read, settings)
    o, lse = attend(q, k, v, visible(mask, settings), scale=settings.scale)
    return _Kept(x, c, mask, before if "q_scale" in params else None, q, k, v, o, lse)


def _self_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    if state:
        raise ValueError("attention: a cache of keys and values is for decoding, and has no backward pass.")
    mask = mask_of(x)
    kept = _kept(params, layer.options["settings"], only(mask, values_of(x)), None, mask)
    return with_values(x, output(params, kept.o)), state, kept


def _cross_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    context = context_of(x)
    c = only(context.mask, context.values)
    kept = _kept(params, layer.options["settings"], only(x.mask, x.values), c, context.mask)
    return x.with_values(output(params, kept.o)), state, kept


def _deltas(layer: Layer, params: Params, kept: _Kept, dy: Any) -> _Deltas:
    """The cotangents at every use of a parameter, from that of the output."""
    if isinstance(dy, _Deltas):
        return dy
    settings: Settings = layer.options["settings"]
    dy = values_of(with_values(dy, values_of(dy)))
    do = linear_input_grad(params["wo"], dy).reshape(kept.o.shape).astype(kept.o.dtype)
    seen = visible(kept.mask, settings)
    dq, dk, dv = attend_grads(kept.q, kept.k, kept.v, kept.o, kept.lse, do, seen, scale=settings.scale)
    if settings.rotary is not None:
        dq, dk = (rotate(d, -turns(d, settings)) for d in (dq, dk))
    scaled: dict[str, tuple[Array, Array]] = {}
    if kept.before is not None:
        parts = [rms_moments(y, settings.eps) for y in kept.before]
        scaled = {"q_scale": (parts[0].xhat, dq), "k_scale": (parts[1].xhat, dk)}
        dq, dk = (
            rms_input_grad({"scale": params[name]}, part, d)
            for name, part, d in zip(scaled, parts, (dq, dk), strict=True)
        )
    dq, dk, dv = (d.reshape(*d.shape[:2], -1).astype(kept.x.dtype) for d in (dq, dk, dv))
    return _Deltas(dq, dk, dv, dy, scaled)


def _input_grads(params: Params, deltas: _Deltas) -> tuple[Array, Array]:
    """The cotangents of x by its queries, and of what keys and values are made of."""
    of_keys = linear_input_grad(params["wk"], deltas.k) + linear_input_grad(params["wv"], deltas.v)
    return linear_input_grad(params["wq"], deltas.q), of_keys


def _self_input_grad(layer: Layer, params: Params, kept: _Kept, dy: Any) -> Any:
    by_queries, by_keys = _input_grads(params, _deltas(layer, params, kept, dy))
    return by_queries + by_keys


def _cross_input_grad(layer: Layer, params: Params, kept: _Kept, dy: Any) -> Any:
    return _input_grads(params, _deltas(layer, params, kept, dy))


def _uses(layer: Layer, params: Params, kept: _Kept, dy: Any) -> PyTree:
    """Products over positions, the biases' sums, and the scales of the normalized heads."""
    deltas = _deltas(layer, params, kept, dy)
    c, o = kept.x if kept.c is None else kept.c, kept.o.reshape(*kept.o.shape[:2], -1)
    of = {"q": (kept.x, deltas.q), "k": (c, deltas.k), "v": (c, deltas.v), "o": (o, deltas.y)}
    uses: dict[str, Any] = {f"w{name}": (Product(a, delta),) for name, (a, delta) in of.items()}
    uses |= {f"b{name}": (Addition(delta),) for name, (_, delta) in of.items() if f"b{name}" in params}
    scaled = {name: (Scaling(positions(xhat), positions(delta)),) for name, (xhat, delta) in deltas.scaled.items()}
    return uses | scaled


@dataclasses.dataclass(frozen=True)
class _Attention(Rule):
    """A rule that computes the cotangents at all uses once, for `input_grad` and for `collect`."""

    def backward(self, layer: Layer, params: Params, cache: _Kept, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        deltas: Any = computed_once(_deltas(layer, params, cache, dy))
        found = collect(self)(layer, params, cache, deltas)
        dx = self.input_grad(layer, params, cache, deltas)
        if layer.kind is attention.KIND:
            return with_values(dy, dx), found
        by_queries, by_keys = dx
        context = dy.context.with_values(dy.context.values + by_keys)
        return dataclasses.replace(dy.with_values(by_queries), context=context), found


ATTENTION = register(attention.KIND, _Attention(_self_forward, _self_input_grad, _uses))
"""do = dy wo'; (dq, dk, dv) by blocks; dC/dx = dq wq' + dk wk' + dv wv'; products over positions."""

CROSS_ATTENTION = register(attention.CROSS, _Attention(_cross_forward, _cross_input_grad, _uses))
"""The same, with dC/dx = dq wq' and dC/dc = dk wk' + dv wv', added to the context's cotangent."""

"""The rule of gated dense layers: y = f(z) u, z = x w + b, u = x v + c.

By the product rule dC/dz = f'(z) u dC/dy and dC/du = f(z) dC/dy; then two dense layers of one input,

    dC/dx = dz w' + du v',   dC/dw = x' dz,   dC/dv = x' du

Reference: Dauphin, Y. N., Fan, A., Auli, M. & Grangier, D. (2017). Language modeling with gated convolutional networks,
    section 3.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxnn.activations.table import DERIVATIVES
from jaxnn.backprop.rule import Cache, Collect, Rule, computed_once, register
from jaxnn.layers import gated
from jaxnn.layers.base import Layer
from jaxnn.numerics import accumulate
from jaxnn.ops.matmul import linear_input_grad
from jaxnn.tape import Addition, Product, positions
from jaxnn.types import Array, Key, Params, PyTree, State


def _forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    z, u = gated.products(params, x)
    y = (accumulate(layer.options["gate"](z)) * accumulate(u)).astype(z.dtype)
    return y, state, (x, z, u)


def _deltas(layer: Layer, cache: Cache, dy: Any) -> tuple[Array, Array]:
    """(dz, du), from the cotangent of y."""
    if isinstance(dy, tuple):
        return dy
    function, (x, z, u) = layer.options["gate"], cache
    if function in DERIVATIVES:
        value, slope = function(accumulate(z)), DERIVATIVES[function](accumulate(z))
        wide = accumulate(dy)
        return (wide * accumulate(u) * slope).astype(x.dtype), (wide * value).astype(x.dtype)
    value, pull = jax.vjp(function, z)
    return pull((accumulate(dy) * accumulate(u)).astype(z.dtype))[0], (accumulate(dy) * accumulate(value)).astype(
        x.dtype
    )


def _input_grad(layer: Layer, params: Params, cache: Cache, dy: Any) -> Array:
    dz, du = _deltas(layer, cache, dy)
    return linear_input_grad(params["w"], dz) + linear_input_grad(params["v"], du)


def _uses(layer: Layer, params: Params, cache: Cache, dy: Any) -> PyTree:
    x = positions(cache[0])
    deltas = [positions(delta) for delta in _deltas(layer, cache, dy)]
    products = {name: (Product(x, delta),) for name, delta in zip("wv", deltas, strict=True)}
    return products | {name: (Addition(delta),) for name, delta in zip("bc", deltas, strict=True) if name in params}


def _by_hand(layer: Layer) -> bool:
    return layer.options["gate"] in DERIVATIVES


@dataclasses.dataclass(frozen=True)
class _Gated(Rule):
    """A rule that computes dz and du once."""

    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        deltas: Any = computed_once(_deltas(layer, cache, dy))
        return self.input_grad(layer, params, cache, deltas), collect(self)(layer, params, cache, deltas)


GATED_DENSE = register(gated.KIND, _Gated(_forward, _input_grad, _uses, by_hand=_by_hand))
"""dz = f'(z) u dy, du = f(z) dy; dC/dx = dz w' + du v'; two products over positions."""

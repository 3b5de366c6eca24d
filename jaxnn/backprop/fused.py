"""Loss and last layer fused: the derivative at the logits z in one step, without dividing by y = s(z).

**Softmax and cross-entropy**, y = softmax(z), C = -sum_k d_k log y_k: dC/dy_k = -d_k / y_k, and through the softmax
dC/dz_j = y_j (-d_j / y_j + sum_k y_k d_k / y_k) = y_j sum_k d_k - d_j, which is y - d for a distribution d.
**Sigmoid and binary cross-entropy**: dC/dy = -d / y + (1 - d) / (1 - y), y' = y (1 - y), so dC/dz = y - d.

In two steps, d / y overflows or loses all digits where y has rounded to 0; y - d does neither. The two agree as long as
no probability has rounded to 0 or 1. Where one has, the fused form is still the derivative of -sum d log s(z), while
`jax.grad` returns about 0. The losses of logits (`softmax_cross_entropy`, `sigmoid_binary_cross_entropy`) have these
derivatives already and need no fusion.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TypeAlias

import jax.numpy as jnp

from jaxnn import activations, losses
from jaxnn.backprop.combinators import SERIAL_RULE
from jaxnn.backprop.pointwise import ACTIVATION
from jaxnn.backprop.rule import AtLogits, Cache, rule_of
from jaxnn.layers.base import Layer
from jaxnn.numerics import accumulate
from jaxnn.types import Array, Loss

OutputError: TypeAlias = Callable[[Array, Array, Cache], Array | AtLogits]
"""(outputs, targets, the network's cache) -> dC_i/d outputs (or logits) of each example."""

FUSED: dict[tuple[object, object], Callable[..., Array]] = {
    (activations.softmax, losses.cross_entropy): losses.softmax_cross_entropy_grad,
    (activations.sigmoid, losses.binary_cross_entropy): losses.sigmoid_binary_cross_entropy_grad,
}
"""The fused pairs (last activation, loss), and their derivatives with respect to the logits."""


def output_error(net: Layer, loss: Loss) -> OutputError:
    """The function that returns each loss's derivative in the outputs, or in the logits of a fused pair."""
    at_logits = FUSED.get((_last_function(net), loss)) if isinstance(loss, FunctionType) else None
    if at_logits is None:
        loss_grad = losses.derivative_of(loss)
        return lambda outputs, targets, cache: loss_grad(outputs, targets)

    def fused(outputs: Array, targets: Array, cache: Cache) -> AtLogits:
        return AtLogits(at_logits(_last_cache(net, cache), accumulate(jnp.asarray(targets))))

    return fused


def is_fused(net: Layer, loss: Loss) -> bool:
    """Whether loss and last layer are differentiated in one step."""
    return isinstance(loss, FunctionType) and (_last_function(net), loss) in FUSED


def _last_function(net: Layer) -> object:
    """The network's last activation if its rule is `ACTIVATION` and it has no settings but axis = -1; else None."""
    while net.parts and rule_of(net) is SERIAL_RULE:
        net = net.parts[-1]
    settings = dict(net.options)
    function = settings.pop("function", None)
    plain = rule_of(net) is ACTIVATION and settings in ({}, {"axis": -1})
    return function if plain and isinstance(function, FunctionType) else None


def _last_cache(net: Layer, cache: Cache) -> Array:
    """The cache of the last leaf of nested serials: its z."""
    while net.parts:
        net, cache = net.parts[-1], cache[-1]
    return cache

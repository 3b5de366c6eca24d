"""Broken rules of layers on sequences, each caught by the check that the right rule passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import activations, backprop, layers, losses
from jaxnn.backprop import attention, checkpoint, combinators, gated, sequences, stack
from jaxnn.initializers import zeros
from jaxnn.layers import (
    Attention,
    CrossAttention,
    Dense,
    Dropout,
    Embedding,
    GatedDense,
    Kind,
    Layer,
    LearnedPositions,
    Padding,
    Sequences,
    Tanh,
    Values,
    position,
    tied,
    tying,
)
from jaxnn.models import encoded, parallel, residual, serial
from jaxnn.models import stack as stack_of
from jaxnn.models.ties import put
from jaxnn.ops.views import Slice, View
from jaxnn.tape import Addition, Placed, Product
from tests.backprop.mutants import (
    Mutant,
    in_place_of,
    in_place_of_rule,
    input_grad,
    no_bias,
    of_gradient,
    of_rule,
    table_with,
    uses,
)
from tests.helpers import random

MASK, CONTEXT_MASK = np.array([True, True, False]), np.array([False, True, True, True])


def _rows(mask: np.ndarray, n: int) -> Any:
    return jnp.broadcast_to(jnp.asarray(mask)[None], (n, len(mask)))


def _split(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    context = Sequences(x[:, 3:], _rows(CONTEXT_MASK, x.shape[0]))
    return Sequences(x[:, :3], _rows(MASK, x.shape[0]), context), state


def _joined(layer: Any, params: Any, x: Any, dy: Sequences) -> Any:
    assert dy.context is not None
    return jnp.concatenate([dy.values, dy.context.values], axis=1)


SPLIT = Layer(lambda key, example: ((), ()), _split, Kind("split"), sequences=True)
"""(N, 7, D) as sequences of 3 positions, the last one padding, that may read a context of 4, the first one padding."""

backprop.register(SPLIT.kind, backprop.Rule(backprop.keep_input, _joined))

X, HALVES = random(0, 2, 3, 4), random(0, 2, 7, 4)
WORDS = np.array([[0, 2, 1], [2, 2, 3]])
EMBED, SQUARE = Embedding(4, 4), Dense(4)
BIASES: dict[str, Any] = {"b_init": zeros}
LABELS = np.array([[1, 0, 3], [2, 2, 0]])
CE = losses.softmax_cross_entropy

PLAIN = of_rule(Attention(2, **BIASES), X)
CAUSAL = of_rule(Attention(2, causal=True), X)
MASKED = of_rule(serial(SPLIT, Attention(2, **BIASES), Values), HALVES)
SCALED = of_rule(Attention(2, scale=0.3), X)
TURNED = of_rule(Attention(2, rotary=3.0), X)
NORMED = of_rule(Attention(2, qk_norm=True), X)
CROSS = of_rule(serial(SPLIT, CrossAttention(2, **BIASES), Values), HALVES)
CROSS_TWICE = of_rule(serial(SPLIT, residual(CrossAttention(2)), residual(CrossAttention(2)), Values), HALVES)
CROSS_IN_BRANCHES = of_rule(serial(SPLIT, parallel(CrossAttention(2), CrossAttention(1)), Values), HALVES)
GATED = of_rule(GatedDense(3, activations.silu, **BIASES), X)
LEARNED = of_rule(LearnedPositions(5), X)
SINUSOIDAL = of_rule(layers.SinusoidalPositions(), X)
LAST = of_rule(serial(SPLIT, layers.LastPosition), HALVES)
MEAN = of_rule(serial(SPLIT, layers.MeanPosition), HALVES)
UNEMBEDDED = of_rule(serial(EMBED, Tanh, tied(EMBED)), WORDS)
PADDED = of_gradient(serial(Padding(1), EMBED, Attention(2), tied(EMBED), Values), CE, WORDS, LABELS)
TIED = of_rule(serial(SQUARE, Tanh, tied(SQUARE)), X)
TIED_AGAIN = of_gradient(serial(EMBED, Tanh, SQUARE, tied(EMBED)), CE, WORDS, LABELS, remat_every=2)
STACKED = of_rule(stack_of(residual(Dense(4)), 3), X)
RECOMPUTED = of_rule(stack_of(serial(Dense(4), Dropout(0.5)), 2, remat=True), X, key=jax.random.key(0))


def _read(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    return dataclasses.replace(_split(params, state, x)[0], mask=None), state


READ = Layer(lambda key, example: ((), ()), _read, Kind("read"), sequences=True)
backprop.register(READ.kind, backprop.Rule(backprop.keep_input, _joined))
ENCODER = Dense(4)
ENCODED = of_rule(serial(READ, encoded(ENCODER, serial(residual(CrossAttention(2)), Values))), HALVES)


def grads_of(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """The derivative of attention in the rule with other arguments: change(q, k, v, o, lse, do, visible) -> these."""
    return in_place_of(attention, "attend_grads", lambda right: lambda *args, **how: right(*change(*args), **how))


def results_of(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """The derivative of attention in the rule with other results: change(dq, dk, dv) -> these."""
    return in_place_of(attention, "attend_grads", lambda right: lambda *args, **how: change(*right(*args, **how)))


def seen(**fields: Any) -> Callable[[Any], Any]:
    return grads_of(lambda *args: (*args[:6], dataclasses.replace(args[6], **fields)))


def missing_ties(right: Any) -> Any:
    def settled(layer: Any, params: Any, found: Any) -> Any:
        for to, _ in layer.options.get("ties", ()):
            found = put(found, to, ())
        return found

    return settled


def one_step_off(use: Placed) -> Placed:
    view = View(use.view.source).then(Slice((1, 0), (4, 4), (1, 1)))
    return Placed(use.use, view)


def without_encoder(right: Any) -> Any:
    def backward(layer: Any, params: Any, cache: Any, dy: Any, collect: Any) -> Any:
        return right(layer, params, cache, jax.tree.map(jnp.zeros_like, dy) if layer is ENCODER else dy, collect)

    return backward


def gates(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """Other (dz, du), from the right ones, z and u."""

    def broken(right: Any) -> Any:
        def deltas(layer: Any, cache: Any, dy: Any) -> Any:
            return (
                dy if isinstance(dy, tuple) else change(layer.options["gate"], *cache[1:], dy, *right(layer, cache, dy))
            )

        return deltas

    return in_place_of(gated, "_deltas", broken)


SEQUENCE_MUTANTS = [
    Mutant("attention: mask forgotten", MASKED, seen(mask=None)),
    Mutant("attention: causality forgotten", CAUSAL, seen(causal=False)),
    Mutant("attention: causal, one later", CAUSAL, seen(first=1)),
    Mutant("attention: causal, not itself", CAUSAL, seen(first=-1)),
    Mutant("attention: scale dropped", SCALED, in_place_of(
        attention, "attend_grads", lambda right: lambda *args, scale=None: right(*args))),
    Mutant("attention: without do . o", PLAIN, grads_of(lambda q, k, v, o, *rest: (q, k, v, 0 * o, *rest))),
    Mutant("attention: keys one step off", PLAIN, grads_of(lambda q, k, *rest: (q, jnp.roll(k, 1, 1), *rest))),
    Mutant("attention: heads exchanged", PLAIN, results_of(lambda dq, dk, dv: (jnp.flip(dq, 2), dk, dv))),
    Mutant("attention: keys' and values' exchanged", PLAIN, results_of(lambda dq, dk, dv: (dq, dv, dk))),
    Mutant("attention: rotated forward again", TURNED, in_place_of(
        attention, "rotate", lambda right: lambda d, by: right(d, -by))),
    Mutant("attention: not rotated back", TURNED, in_place_of(attention, "rotate", lambda right: lambda d, by: d)),
    Mutant("attention: norm of heads forgotten", NORMED, in_place_of(
        attention, "rms_input_grad", lambda right: lambda params, part, d: d)),
    Mutant("attention: scales of heads see the keys", NORMED, in_place_of_rule(layers.attention.KIND, **uses(
        q_scale=lambda use: dataclasses.replace(use, a=jnp.flip(use.a, 1))))),
    Mutant("attention: through the queries only", PLAIN, in_place_of(
        attention, "_input_grads", lambda right: lambda *a: (right(*a)[0], 0 * right(*a)[1]))),
    Mutant("attention: matrices not transposed", PLAIN, in_place_of(
        attention, "linear_input_grad", lambda right: lambda w, dy: right(w.T, dy))),
    Mutant("attention: wo sees the values", PLAIN, in_place_of_rule(layers.attention.KIND, **uses(
        wo=lambda use: Product(jnp.flip(use.a, 1), use.delta)))),
    Mutant("attention: bias of the queries dropped", PLAIN, in_place_of_rule(
        layers.attention.KIND, **uses(bq=no_bias))),
    Mutant("cross-attention: context's cotangent dropped", CROSS, in_place_of(
        attention, "_input_grads", lambda right: lambda *a: (right(*a)[0], 0 * right(*a)[1]))),
    Mutant("cross-attention: context's cotangent twice", CROSS_TWICE, in_place_of(
        combinators, "no_context", lambda right: lambda x: x)),
    Mutant("cross-attention: context's cotangent of one branch", CROSS_IN_BRANCHES, in_place_of(
        combinators, "added", lambda right: lambda x, y: dataclasses.replace(right(x, y), context=x.context)
        if isinstance(x, Sequences) else right(x, y))),
    Mutant("cross-attention: mask of the context forgotten", CROSS, seen(mask=None)),
    Mutant("cross-attention: keys of the values", CROSS, in_place_of_rule(layers.attention.CROSS, **uses(
        wk=lambda use: Product(use.a[:, ::-1], use.delta)))),
    Mutant("gated: u forgotten", GATED, gates(lambda f, z, u, dy, dz, du: (dz / u, du))),
    Mutant("gated: f for its derivative", GATED, gates(lambda f, z, u, dy, dz, du: (dy * u * f(z), du))),
    Mutant("gated: derivative of another function", GATED, in_place_of(
        gated, "DERIVATIVES", table_with(activations.silu, activations.gelu_derivative))),
    Mutant("gated: matrices exchanged", GATED, in_place_of_rule(layers.gated.KIND, uses=lambda right: lambda *a: {
        **right.uses(*a), "w": right.uses(*a)["v"], "v": right.uses(*a)["w"]})),
    Mutant("learned positions: one step off", LEARNED, in_place_of_rule(position.LEARNED, **uses(w=one_step_off))),
    Mutant("learned positions: one vector for all", LEARNED, in_place_of_rule(position.LEARNED, **uses(
        w=lambda use: Placed(Addition(0 * use.use.delta + jnp.mean(use.use.delta)), use.view)))),
    Mutant("sinusoidal positions: scaled", SINUSOIDAL, in_place_of_rule(
        position.SINUSOIDAL, **input_grad(lambda right, *leaf: 2 * right(*leaf)))),
    Mutant("last position: the one before", LAST, in_place_of_rule(layers.padding.LAST, **input_grad(
        lambda right, *leaf: (dx := right(*leaf)).with_values(jnp.roll(dx.values, -1, 1))))),
    Mutant("mean position: divided by all positions", MEAN, in_place_of_rule(layers.padding.MEAN, **input_grad(
        lambda right, *leaf: (dx := right(*leaf)).with_values(dx.values * 2 / 3)))),
    Mutant("values: cotangent of padding kept", PADDED, in_place_of(
        sequences, "with_values", lambda right: lambda x, dy: right(x, jnp.ones_like(dy)))),
    Mutant("unembedding: not transposed", UNEMBEDDED, in_place_of_rule(tying.UNEMBEDDING, **uses(
        w=lambda use: use.use))),
    Mutant("unembedding: h sees w'", UNEMBEDDED, in_place_of_rule(tying.UNEMBEDDING, **input_grad(
        lambda right, layer, params, *rest: right(layer, {"w": params["w"].T}, *rest)))),
    Mutant("tied: second use missed", TIED, in_place_of(combinators, "settled", missing_ties)),
    Mutant("tied: table used by the lookup only", UNEMBEDDED, in_place_of(combinators, "settled", missing_ties)),
    Mutant("tied: second use missed where recomputed", TIED_AGAIN, in_place_of(checkpoint, "settled", missing_ties)),
    Mutant("stack: uses of the blocks exchanged", STACKED, in_place_of(
        stack, "stacked", lambda right: lambda use, shape: right(jax.tree.map(lambda x: x[::-1], use), shape))),
    Mutant("stack: other masks the second time", RECOMPUTED, in_place_of(
        stack, "_key", lambda right: lambda *a: jax.random.fold_in(right(*a), 1))),
    Mutant("encoder-decoder: the encoder gets nothing", ENCODED, in_place_of(sequences, "backward", without_encoder)),
]  # fmt: skip

SEQUENCE_QUICK = [
    "attention: without do . o", "cross-attention: context's cotangent twice", "tied: second use missed",
    "learned positions: one step off",
]  # fmt: skip

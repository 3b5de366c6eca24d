"""Checkpointing: store the input of every k-th part, and recompute the parts between in the backward pass.

A stack of n parts stores n activations for its backward pass. With a checkpoint at every k-th part it stores n / k, and
the k of the segment that is differentiated: n / k + k in all, which is least, 2 sqrt(n), at k = sqrt(n). The price is
one more forward pass. The last segment is not recomputed: its backward pass comes first.

Reference: Chen, T., Xu, B., Zhang, C. & Guestrin, C. (2016). Training deep nets with sublinear memory cost, section 4.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax import lax

from jaxnn.backprop.combinators import SERIAL_RULE, Part, parts_of, run, run_back, settled
from jaxnn.backprop.rule import AtLogits, Cache, Collect, Rule, rule_of
from jaxnn.checks import require_positive_int
from jaxnn.layers.base import Layer
from jaxnn.models.combinators import join
from jaxnn.models.ties import filled
from jaxnn.types import Array, Key, Params, PyTree, State


@dataclasses.dataclass(frozen=True)
class _Segment:
    """A segment to recompute: its parts and their input."""

    parts: list[Part]
    x: Array
    train: bool


@dataclasses.dataclass(frozen=True)
class _Checkpointed(Rule):
    """A serial's rule. Its cache has one entry per part: for the parts of the last segment their own caches; for those
    of any other segment its `_Segment` at the first part, and None at the rest."""

    def backward(
        self, layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
    ) -> tuple[Array, PyTree]:
        starts = [i for i, kept in enumerate(cache) if isinstance(kept, _Segment)]
        last = starts[-1] + len(cache[starts[-1]].parts) if starts else 0
        error, found = run_back(
            list(zip(layer.parts, filled(layer, params), cache, strict=True))[last:], dy, collect, first=last
        )
        for start in reversed(starts):
            error, inner = _again(cache[start], error, collect, start)
            found = inner + found
        return error, settled(layer, params, tuple(found))


def checkpointed(net: Layer, every: int) -> Rule:
    """The rule of a serial that stores the input of every `every`-th part only; ValueError if `net` is not one."""
    every = require_positive_int("value_and_grad", "remat_every", every)
    if rule_of(net) is not SERIAL_RULE:
        raise ValueError(
            f"value_and_grad: remat_every counts the parts of models.serial(...), got a {net.kind.name} layer. "
            "Leave remat_every out, or wrap the network's parts in a serial."
        )

    def forward(
        layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
    ) -> tuple[Array, State, Cache]:
        parts = parts_of(layer, params, state, key)
        cache: list[Any] = []
        states: list[State] = []
        for start in range(0, len(parts), every):
            segment = parts[start : start + every]
            y, new, caches = run(segment, x, train=train, first=start)
            last = start + every >= len(parts)
            cache += caches if last else [_Segment(segment, x, train), *[None] * (len(segment) - 1)]
            states += new
            x = y
        return x, join(states), cache

    return _Checkpointed(forward, SERIAL_RULE.input_grad, SERIAL_RULE.uses, SERIAL_RULE.couples)


def _again(segment: _Segment, dy: Any, collect: Collect, first: int) -> tuple[Array, list[PyTree]]:
    """The backward pass of a segment, after its recomputed forward pass."""
    # The barrier makes the second forward pass depend on the cotangent. Without it XLA's common-subexpression
    # elimination merges the two forward passes and keeps all activations alive.
    layers = [layer for layer, *_ in segment.parts]
    held = [(p, s, None if key is None else jax.random.key_data(key)) for _, p, s, key in segment.parts]
    held, x, dy = lax.optimization_barrier((held, segment.x, dy))
    keys = [
        None if key is None else _like(data, key) for (*_, key), (*_, data) in zip(segment.parts, held, strict=True)
    ]
    parts = [(layer, p, s, key) for layer, (p, s, _), key in zip(layers, held, keys, strict=True)]
    _, _, caches = run(parts, x, train=segment.train)
    triples = [(layer, p, cache) for (layer, p, *_), cache in zip(parts, caches, strict=True)]
    return run_back(triples, dy, collect, first=first)


def _like(data: Array, key: Key) -> Key:
    """Key data as a key of `key`'s implementation."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))

"""Networks of ours beside modules of flax.linen that compute the same, and their outputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="flax is not installed")
import flax.linen as nn

from jaxnn import interchange, models
from jaxnn.initializers import zeros
from jaxnn.layers import (
    GRU,
    LSTM,
    RNN,
    Attention,
    BatchNorm,
    Conv,
    ConvTranspose,
    CrossAttention,
    Dense,
    DepthwiseConv,
    Embedding,
    GatedDense,
    Gelu,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    PRelu,
    RMSNorm,
    Sequences,
)
from jaxnn.layers.sequences import values_of
from tests.helpers import random

TOKENS = 11


class Case(NamedTuple):
    """Our network, the module, one example, names where needed."""

    ours: Layer
    theirs: nn.Module
    example: Any
    names: Mapping[str, Any] | None = None


class Evaluated(nn.Module):
    """CNN with batch norm, in evaluation mode."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for features in (4, 5):
            x = nn.max_pool(nn.Conv(features, (3, 3), use_bias=False)(x), (2, 2), (2, 2))
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(5)(nn.relu(nn.Dense(8)(x)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm(epsilon=1e-5)(x), mask=nn.make_causal_mask(x[..., 0]))
        h = nn.Dense(16)(nn.LayerNorm(epsilon=1e-5)(x))
        return x + nn.Dense(8)(nn.gelu(h, approximate=False))


class Transformer(nn.Module):
    """A decoder whose output matrix is the table of the embedding."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(TOKENS, 8)
        x = embed(tokens) + nn.Embed(6, 8)(jnp.arange(tokens.shape[1]))
        for _ in range(2):
            x = Block()(x)
        return embed.attend(nn.LayerNorm(epsilon=1e-5)(x))


class Cross(nn.Module):
    @nn.compact
    def __call__(self, x: Any, context: Any) -> Any:
        return nn.MultiHeadDotProductAttention(2)(x, context)


class Gated(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        up = nn.Dense(6, use_bias=False, name="up")(x)
        return nn.Dense(5, name="down")(nn.silu(nn.Dense(6, use_bias=False, name="gate")(x)) * up)


def transformer(stacked: bool) -> Layer:
    return models.transformer(
        TOKENS,
        width=8,
        depth=2,
        attention=Attention(2, causal=True, b_init=zeros),
        mlp=models.serial(Dense(16), Gelu, Dense(8)),
        norm=LayerNorm(),
        positions=LearnedPositions(6),
        stacked=stacked,
    )


def pair(*shapes: tuple[int, ...]) -> Sequences:
    """One example of features, with a context."""
    x, context = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return Sequences(x, context=Sequences(context))


tokens = jax.ShapeDtypeStruct((6,), jnp.int32)
pads = ((1, 1), (2, 2))
CASES: dict[str, Case] = {
    "dense": Case(Dense(4), nn.Dense(4), (3,)),
    "dense without bias": Case(Dense(4, b_init=None), nn.Dense(4, use_bias=False), (3,)),
    "conv 1-D": Case(Conv(4, 3, stride=2), nn.Conv(4, (3,), 2, "VALID"), (9, 3)),
    "conv 2-D": Case(
        Conv(6, (3, 2), stride=(2, 1), padding=pads, dilation=(1, 2), groups=2),
        nn.Conv(6, (3, 2), (2, 1), pads, kernel_dilation=(1, 2), feature_group_count=2),
        (7, 6, 4),
    ),
    "conv 3-D": Case(Conv(4, 2, padding="SAME"), nn.Conv(4, (2, 2, 2)), (4, 3, 5, 3)),
    "depthwise": Case(DepthwiseConv(3), nn.Conv(3, (3, 3), padding="VALID", feature_group_count=3), (5, 5, 3)),
    "transposed 1-D": Case(ConvTranspose(4, 3, stride=2), nn.ConvTranspose(4, (3,), (2,), "VALID"), (5, 3)),
    "transposed 2-D": Case(ConvTranspose(4, (3, 2)), nn.ConvTranspose(4, (3, 2), padding="VALID"), (4, 5, 3)),
    "batch norm": Case(BatchNorm(), nn.BatchNorm(use_running_average=True), (4, 5, 3)),
    "layer norm": Case(LayerNorm(eps=1e-6), nn.LayerNorm(use_fast_variance=False), (5,)),
    "group norm": Case(GroupNorm(2, eps=1e-6), nn.GroupNorm(2, use_fast_variance=False), (3, 5, 4)),
    "RMS norm": Case(RMSNorm(eps=1e-6), nn.RMSNorm(), (5,)),
    "PReLU": Case(PRelu(shared=True), nn.PReLU(), (4,)),
    "embedding": Case(Embedding(TOKENS, 4), nn.Embed(TOKENS, 4), tokens),
    "RNN": Case(RNN(4), nn.RNN(nn.SimpleCell(4)), (5, 3)),
    "LSTM": Case(LSTM(4), nn.RNN(nn.OptimizedLSTMCell(4)), (5, 3)),
    "GRU": Case(GRU(4), nn.RNN(nn.GRUCell(4)), (5, 3)),
    "bidirectional": Case(
        models.bidirectional(LSTM(4)),
        nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.LSTMCell(4))),
        (5, 3),
        {"0": "forward_rnn/cell", "1/0": "backward_rnn/cell"},
    ),
    "attention": Case(Attention(2, b_init=zeros), nn.MultiHeadDotProductAttention(2), (5, 8)),
    "attention of narrow heads": Case(
        Attention(2, head_features=3),
        nn.MultiHeadDotProductAttention(2, qkv_features=6, use_bias=False),
        (5, 8),
    ),
    "cross-attention": Case(CrossAttention(2, b_init=zeros), Cross(), pair((5, 8), (4, 6))),
    "gated": Case(models.serial(GatedDense(6), Dense(5)), Gated(), (5,), {"0": ("gate", "up")}),
    "CNN": Case(models.cnn([4, 5], [8], 5, batch_norm=True, padding="SAME"), Evaluated(), (8, 12, 3)),
    "transformer": Case(transformer(False), Transformer(), tokens),
    "transformer, stacked": Case(transformer(True), Transformer(), tokens),
}  # fmt: skip


@functools.cache
def variables_of(name: str) -> Any:
    """Variables of the module in the order in which it makes them, with random numbers in float64."""
    made = CASES[name].theirs.init(jax.random.key(0), *arguments(inputs(name, np.float32)))
    count = iter(range(1000))

    def filled(tree: Any, key: str = "") -> Any:
        if isinstance(tree, Mapping):
            return {name: filled(below, name) for name, below in tree.items()}
        values = 0.5 * random(next(count), *tree.shape)
        return np.abs(values) + 0.5 if key == "var" else values

    return filled(made)


def inputs(name: str, dtype: Any = np.float64) -> Any:
    """Three examples."""
    example = CASES[name].example
    if isinstance(example, Sequences):
        context = Sequences(random(1, 3, *example.context.values.shape, dtype=dtype))
        return Sequences(random(0, 3, *example.values.shape, dtype=dtype), context=context)
    if hasattr(example, "dtype"):
        return np.random.default_rng(0).integers(0, TOKENS, (3, *example.shape))
    return random(0, 3, *example, dtype=dtype)


def arguments(x: Any) -> tuple[Any, ...]:
    return (x.values, x.context.values) if isinstance(x, Sequences) else (x,)


def cast(tree: Any, dtype: Any) -> Any:
    """A dict of dicts of arrays in another dtype, in the same order."""
    return {k: cast(v, dtype) for k, v in tree.items()} if isinstance(tree, Mapping) else tree.astype(dtype)


def outputs(name: str, variables: Any, x: Any) -> np.ndarray:
    """The module's outputs."""
    return np.asarray(jax.jit(CASES[name].theirs.apply)(variables, *arguments(x)))


def predicted(name: str, params: Any, state: Any, x: Any) -> np.ndarray:
    """Our network's outputs."""
    return np.asarray(values_of(jax.jit(CASES[name].ours.predict)(params, state, x)))


def converted(name: str, variables: Any) -> tuple[Any, Any]:
    """(params, state) of our network."""
    case = CASES[name]
    return interchange.from_linen(case.ours, variables, case.example, names=case.names)

"""Layers: modules of plain functions, and CamelCase factories that wrap them as a `Layer`.

The modules of layers with parameters hold `init` and `apply` as functions of arrays (`layers.dense.init(key, 784,
512)`, `layers.dense.apply(params, x)`); the factories wrap them in the protocol by which networks compose,
`init(key, example) -> (params, state)` and `apply(params, state, x, *, key=None, train=False) -> (y, state)`.

| layer | module | x -> y | parameters | state, randomness |
|---|---|---|---|---|
| `Dense(features)` | `dense` | (N, ..., D) -> (N, ..., features) | w, b | |
| `Conv(features, window)` | `conv` | (N, *spatial, C) -> (N, *spatial', features) | w, b | |
| `DepthwiseConv(window)` | `conv` | (N, *spatial, C) -> (N, *spatial', C multiplier) | w, b | |
| `ConvTranspose(features, window)` | `conv_transpose` | (N, *spatial, C) -> (N, *spatial', features) | w, b | |
| `Upsample(factor)` | `reshape` | (N, *spatial, C) -> (N, *spatial', C) | | |
| `MaxPool(window)`, `AveragePool(window)` | `pooling` | (N, *spatial, C) -> (N, *spatial', C) | | |
| `GlobalAveragePool`, `GlobalMaxPool` | `pooling` | (N, *spatial, C) -> (N, C) | | |
| `Flatten` | `flatten` | (N, ...) -> (N, D) | | |
| `Reshape(*shape)` | `reshape` | (N, ...) -> (N, *shape) | | |
| `BatchNorm()` | `batch_norm` | (N, ..., C), shape kept | scale, shift | mean, var |
| `LayerNorm()` | `layer_norm` | (N, ..., D), shape kept | scale, shift | |
| `GroupNorm(groups)` | `group_norm` | (N, *spatial, C), shape kept | scale, shift | |
| `RMSNorm()` | `rms_norm` | (N, ..., D), shape kept | scale | |
| `Dropout(rate)` | `dropout` | (N, ...), shape kept | | a key in training |
| `Embedding(vocabulary, features)` | `embedding` | integers (N, ...) -> (N, ..., features) | w | |
| `Attention(heads)` | `attention` | (N, T, D), shape kept | wq, wk, wv, wo | a cache, in decoding |
| `CrossAttention(heads)` | `attention` | `Sequences` (N, T, D), shape kept | wq, wk, wv, wo | |
| `tied(embedding)` | `tying` | (N, ..., D) -> (N, ..., V), logits by the embedding's table | those of the embedding | |
| `tied(layer)` | `tying` | as `layer` | those of `layer` | as `layer` |
| `GatedDense(features)` | `gated` | (N, ..., D) -> (N, ..., features) | w, v | |
| `LearnedPositions(length)` | `position` | (N, T, D), shape kept | w | a count, in decoding |
| `SinusoidalPositions()` | `position` | (N, T, D), shape kept | | a count, in decoding |
| `Padding(token)` | `padding` | integers (N, T) -> `Sequences` | | |
| `Values` | `padding` | `Sequences` -> (N, T, D) | | |
| `LastPosition`, `MeanPosition` | `padding` | (N, T, D) -> (N, D) | | |
| `RNN(hidden)` | `recurrent` | (N, T, D) -> (N, T, hidden) | w, u, b | `()` or the carry h |
| `LSTM(hidden)` | `lstm` | (N, T, D) -> (N, T, hidden) | w, u, b | `()` or the carry h, c |
| `GRU(hidden)` | `gru` | (N, T, D) -> (N, T, hidden) | w, u, b, b_u | `()` or the carry h |
| `LinearRecurrence(hidden)` | `linear_recurrence` | (N, T, D) -> (N, T, hidden) | w, b | `()` or the carry h |
| `Reversed(layer)` | `recurrence` | as `layer`, from the last position to the first | those of `layer` | as `layer` |
| `Activation(function)`, `Relu`, `Tanh`, ... | `activation` | (N, ...), shape kept | | |
| `PRelu()`, `Swish()`, `Parametric(form)` | `parametric` | (N, ..., C), shape kept | slope; beta; that of the form | |

A layer's `init` takes a typed random key. `apply` raises TypeError for x that is not floating (of `embedding`, not
integer; `Flatten`, `MaxPool`, and `Dropout` in evaluation mode take any dtype), and ValueError for shapes that do
not fit. An invalid setting raises either, in the factory or, where its check needs the number of axes, in `init` or
`apply`.

A name without parentheses is a Layer itself (`Flatten`, `Relu`); one with them is a factory (`Dense(10)`).

Recurrent layers begin every call at a zero carry, with the state `()`; with the state of `models.begin` they go on
from the carry of the call before: for decoding token by token and for long texts in pieces.

Sequences of unequal length are padded to one length T and travel through a network as `Sequences`, values with a mask.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
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
    gru,
    layer_norm,
    linear_recurrence,
    lstm,
    padding,
    parametric,
    pooling,
    position,
    recurrent,
    reshape,
    rms_norm,
    sequences,
)
from jaxnn.layers.activation import (
    Activation,
    Elu,
    Gelu,
    HardTanh,
    Identity,
    LeakyRelu,
    LogSoftmax,
    Mish,
    Relu,
    ReluSquared,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from jaxnn.layers.attention_layers import Attention, CrossAttention
from jaxnn.layers.base import Kind, Layer, stateless
from jaxnn.layers.batch_norm import BatchNorm
from jaxnn.layers.conv import Conv, DepthwiseConv
from jaxnn.layers.conv_transpose import ConvTranspose
from jaxnn.layers.dense import Dense
from jaxnn.layers.dropout import Dropout
from jaxnn.layers.embedding import Embedding
from jaxnn.layers.flatten import Flatten
from jaxnn.layers.gated import GatedDense
from jaxnn.layers.group_norm import GroupNorm
from jaxnn.layers.gru import GRU
from jaxnn.layers.layer_norm import LayerNorm
from jaxnn.layers.linear_recurrence import LinearRecurrence
from jaxnn.layers.lstm import LSTM
from jaxnn.layers.padding import LastPosition, MeanPosition, Padding, Values
from jaxnn.layers.parametric import Parametric, PRelu, Swish
from jaxnn.layers.pooling import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from jaxnn.layers.position import LearnedPositions, SinusoidalPositions
from jaxnn.layers.recurrence import Reversed
from jaxnn.layers.recurrent import RNN
from jaxnn.layers.reshape import Reshape, Upsample
from jaxnn.layers.rms_norm import RMSNorm
from jaxnn.layers.sequences import Sequences
from jaxnn.layers.tying import tied

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Attention",
    "AveragePool",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "CrossAttention",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Elu",
    "Embedding",
    "Flatten",
    "GatedDense",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "HardTanh",
    "Identity",
    "Kind",
    "LastPosition",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "LearnedPositions",
    "LinearRecurrence",
    "LogSoftmax",
    "MaxPool",
    "MeanPosition",
    "Mish",
    "PRelu",
    "Padding",
    "Parametric",
    "RMSNorm",
    "Relu",
    "ReluSquared",
    "Reshape",
    "Reversed",
    "Selu",
    "Sequences",
    "Sigmoid",
    "Silu",
    "SinusoidalPositions",
    "Softmax",
    "Softplus",
    "Swish",
    "Tanh",
    "Upsample",
    "Values",
    "activation",
    "attention",
    "batch_norm",
    "conv",
    "conv_transpose",
    "dense",
    "dropout",
    "embedding",
    "flatten",
    "gated",
    "group_norm",
    "gru",
    "layer_norm",
    "linear_recurrence",
    "lstm",
    "padding",
    "parametric",
    "pooling",
    "position",
    "recurrent",
    "reshape",
    "rms_norm",
    "sequences",
    "stateless",
    "tied",
]  # fmt: skip

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

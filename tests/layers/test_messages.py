"""Bad input to a layer: what was got, what was expected, how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import layers
from jaxnn.layers import (
    Activation,
    Attention,
    AveragePool,
    BatchNorm,
    Conv,
    CrossAttention,
    Dense,
    DepthwiseConv,
    Dropout,
    Embedding,
    Flatten,
    GatedDense,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LastPosition,
    LayerNorm,
    LearnedPositions,
    MaxPool,
    MeanPosition,
    Padding,
    Relu,
    RMSNorm,
    Sequences,
    SinusoidalPositions,
    attention,
    conv,
    dense,
    dropout,
    tied,
    tying,
)

KEY = jax.random.key(0)


def fed(layer: Any, example: Any, x: Any, **mode: Any) -> Callable[[], Any]:
    """Initialise with one example, apply to x; what the parameters are does not matter."""

    def run() -> Any:
        params, state = jax.eval_shape(lambda: layer.init(KEY, example))
        params, state = jax.tree.map(lambda p: np.ones(p.shape, p.dtype), (params, state))
        return layer.apply(params, state, x, **mode)

    return run


def ones(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def attending(**how: Any) -> Callable[[], Any]:
    """Attention of (2, 3, 4) with two heads, unless `how` says otherwise."""
    context = how.pop("context", None)
    params = {f"w{name}": ones((4, 4)) for name in "qkvo"}
    return lambda: attention.apply(params, ones((2, 3, 4)), context, **{"heads": 2, **how})


READING = Sequences(ones((3, 4)), context=Sequences(ones((5, 4))))
MASKED = Sequences(ones((2, 3, 4)), np.array([[True, True, False], [True, False, False]]))
integers = np.ones((2, 4), np.int32)
V, T = ValueError, TypeError
CASES = [
    # a bad setting
    (lambda: Dense(0), V, "Dense: features must be at least 1, got 0"),
    (lambda: Dense(2.5), T, "Dense: features must be an int, got 2.5 (float)"),
    (lambda: Conv(True, 3), T, "Conv: features must be an int, got True (bool)"),
    (lambda: dense.init(KEY, 3, -1), V, "dense: out_features must be at least 1, got -1"),
    (lambda: conv.init(KEY, (3, 0), 1, 2), V, "conv: window must be at least 1, got 0"),
    (lambda: conv.init(KEY, 3, 4, 6, groups=4), V, "groups=4, in_channels=4, out_channels=6"),
    (lambda: DepthwiseConv(3, multiplier=0), V, "multiplier must be at least 1, got 0"),
    (lambda: MaxPool(0), V, "max_pool: window must be at least 1, got 0"),
    (lambda: MaxPool(2.5), T, "max_pool: window must be an int"),
    (lambda: AveragePool(2, stride=(1, 0)), V, "average_pool: stride must be at least 1, got 0"),
    (lambda: BatchNorm(momentum=1.5), V, "batch_norm: momentum must lie in [0, 1], got 1.5"),
    (lambda: BatchNorm(eps=-1e-5), V, "batch_norm: eps must lie in [0, inf), got -1e-05"),
    (lambda: LayerNorm(eps=float("nan")), V, "layer_norm: eps must lie in [0, inf), got nan"),
    (lambda: RMSNorm(eps=float("inf")), V, "rms_norm: eps must lie in [0, inf), got inf"),
    (lambda: GroupNorm(0), V, "group_norm: groups must be at least 1, got 0"),
    (lambda: Dropout(1.0), V, "dropout: rate must lie in [0, 1), got 1"),
    (lambda: Dropout(-0.1), V, "dropout: rate must lie in [0, 1), got -0.1"),
    (lambda: dropout.apply(ones(3), key=KEY, rate=2.0), V, "dropout: rate must lie in [0, 1), got 2"),
    (lambda: Embedding(0, 3), V, "embedding: vocabulary must be at least 1, got 0"),
    (lambda: Activation("relu"), T, "expected a function such as jaxnn.activations.relu, got 'relu'"),
    # a bad example
    (lambda: Dense(2).init(KEY, ()), V, "Dense: an example must have at least one axis"),
    (lambda: Dense(2).init(KEY, (0,)), V, "every axis of an example must have size >= 1, got (0,)"),
    (lambda: Dense(2).init(KEY, 784), T, "expected the shape of ONE example, such as (28, 28, 1) or (784,), got 784"),
    (lambda: Conv(2, 3).init(KEY, (28,)), V, "Conv: an example must be (*spatial, channels), such as (28, 28, 1)"),
    (lambda: Conv(2, (3, 3)).init(KEY, (28, 1)), V, "Conv: window must be an int or 1 ints, got (3, 3)"),
    (lambda: Conv(3, 3, groups=3).init(KEY, (8, 8, 4)), V, "groups must divide the channels, got groups=3"),
    (lambda: BatchNorm().init(KEY, ()), V, "batch_norm: an example must have at least one axis"),
    (lambda: GroupNorm(3).init(KEY, (4,)), V, "got groups=3 and 4 channels. Use a divisor"),
    (lambda: Embedding(9, 3).init(KEY, (5,)), T, "an example must have an integer dtype, got float32. Tokens are"),
    # a bad input
    (
        fed(Dense(2), (3,), ones((2, 4))),
        V,
        "dense: x must have 3 features on its last axis to match w (3, 2), got x (2, 4)",
    ),
    (fed(Dense(2), (4,), integers), T, "dense: x must have a floating dtype, got int32. Convert it"),
    (fed(Conv(2, 3), (8, 8, 1), ones((8, 8, 1))), V, "Add the missing batch axis (x[None]) or channel axis"),
    (fed(Conv(2, 3), (8, 8, 3), ones((1, 3, 8, 8))), V, "must have 3 channels on its last axis"),
    (fed(Conv(2, 3), (8, 8, 1), ones((1, 2, 2, 1))), V, "conv: a window that spans 3 does not fit an axis of size 2"),
    (fed(Conv(2, 3), (8, 8, 1), ones((1, 8, 8, 1), np.int8)), T, "conv: x must have a floating dtype, got int8"),
    (lambda: conv.apply({"w": ones((1, 1, 2, 3))}, ones((1, 2, 2, 4)), groups=2), V, "groups must divide the output"),
    (fed(MaxPool(3), (2, 2, 1), ones((1, 2, 2, 1))), V, "max_pool: a window that spans 3 does not fit"),
    (fed(MaxPool(2), (4, 1), ones((4, 1))), V, "at least one spatial axis, got shape (4, 1)"),
    (fed(AveragePool(2), (4, 1), ones((2, 4, 1), np.int32)), T, "average_pool: x must have a floating dtype"),
    (fed(GlobalAveragePool, (4,), ones((2, 4))), V, "global_average_pool: x must be (N, *spatial, C)"),
    (fed(GlobalMaxPool, (4, 1), ones((2, 0, 1))), V, "none of them empty, got shape (2, 0, 1)"),
    (fed(GlobalMaxPool, (4, 1), ones((2, 4, 1), np.int32)), T, "global_max_pool: x must have a floating dtype"),
    (fed(Flatten, (), np.float32(1.0)), V, "flatten: x must have a batch axis, got shape ()"),
    (fed(BatchNorm(), (4,), ones((3, 5))), V, "batch_norm: x must be (N, ..., 4) to match scale (4,), got x (3, 5)"),
    (
        fed(BatchNorm(), (4,), ones((1, 4)), train=True),
        V,
        "at least two values for each channel, got 1 (x (1, 4)). Use a",
    ),
    (fed(BatchNorm(), (4,), ones((0, 4)), train=True), V, "at least two values for each channel, got 0"),
    (fed(BatchNorm(), (4,), integers, train=True), T, "batch_norm: x must have a floating dtype, got int32"),
    (fed(LayerNorm(), (4,), ones((4,))), V, "layer_norm: x must be (N, ..., 4) to match scale (4,), got x (4,). Add"),
    (fed(GroupNorm(2), (4,), ones((2, 6))), V, "group_norm: x must be (N, ..., 4)"),
    (fed(RMSNorm(), (4,), integers), T, "rms_norm: x must have a floating dtype, got int32"),
    (fed(Dropout(0.5), (4,), ones((2, 4)), train=True), V, "dropout: needs a random key, got None"),
    (fed(Dropout(0.5), (4,), integers, train=True, key=KEY), T, "dropout: x must have a floating dtype, got int32"),
    (lambda: dropout.apply_mask(ones((4, 1)), ones(4, bool), 0.5), V, "x and mask must have the same shape"),
    (
        fed(Embedding(9, 3), integers[0], ones((2, 4))),
        T,
        "embedding: x must have an integer dtype, got float32. Tokens",
    ),
    (fed(Embedding(9, 3), integers[0], 9 * integers), V, "indices must lie in [0, 9), got 9 (8 outside)"),
    (fed(Embedding(9, 3), integers[0], -integers), V, "must lie in [0, 9), got -1"),
    (lambda: layers.PRelu(start=float("nan")), V, "prelu: start must be finite, got nan"),
    (lambda: layers.Swish(start="one"), T, "swish: start must be a real number, got 'one'"),
    (lambda: layers.Parametric("prelu", start=1.0), T, "Parametric: form must be a Form, such as"),
    (fed(layers.PRelu(), (4,), ones((2, 3))), V, "prelu: z must be (N, ..., 4) to match slope (4,), got z (2, 3)"),
    (fed(layers.PRelu(), (4,), integers), T, "prelu: z must have a floating dtype, got int32"),
    (lambda: layers.PRelu().init(KEY, ()), V, "prelu: an example must have at least one axis"),
    (fed(Relu, (4,), integers), T, "activation: z must have a floating dtype, got int32"),
    # attention
    (lambda: Attention(0), V, "attention: heads must be at least 1, got 0"),
    (lambda: Attention(2.0), T, "attention: heads must be an int, got 2.0 (float)"),
    (lambda: Attention(2, rotary=-1.0), V, "attention: rotary must be a finite number > 0, got -1"),
    (lambda: Attention(2, scale="small"), T, "attention: scale must be a real number, got 'small'"),
    (lambda: CrossAttention(2, eps=-1.0), V, "attention: eps must lie in [0, inf), got -1"),
    (lambda: Attention(3).init(KEY, (5, 4)), V, "heads must divide the features, got 3 and 4. Or pass head_features."),
    (lambda: Attention(4, kv_heads=3).init(KEY, (5, 4)), V, "attention: kv_heads must divide heads, got 3 and 4"),
    (lambda: Attention(2).init(KEY, (4,)), V, "attention: an example must have shape (T, D), got (4,)"),
    (
        fed(Attention(2, rotary=10.0), (3, 6), ones((2, 3, 6))),
        V,
        "features of a head must be even, got 3: they are rotated",
    ),
    (
        fed(Attention(2), (3, 4), ones((2, 3, 6))),
        V,
        "attention: x must have shape (N, T, 4) to match its weights (4, 4)",
    ),
    (fed(Attention(2), (3, 4), ones((2, 4))), V, "attention: x must have shape (N, T, 4)"),
    (
        fed(Attention(2), (3, 4), ones((2, 3, 4), np.int32)),
        T,
        "got int32. Put Embedding in front of attention for tokens",
    ),
    (attending(mask=ones((2, 3))), T, "attention: mask must be bool, True where a key counts, got float32"),
    (attending(mask=ones((3,), bool)), V, "mask must have shape (N, S) = (2, 3) or (N, T, S) = (2, 3, 3), got (3,)"),
    (attending(mask=ones((2, 1, 3), bool)), V, "(N, T, S) = (2, 3, 3), got (2, 1, 3)"),
    (attending(context=ones((2, 5, 4)), causal=True), V, "causal attention needs as many queries as keys, got 3 and 5"),
    (attending(context=ones((3, 5, 4))), V, "x and context must have one N, got (2, 3, 4) and (3, 5, 4)"),
    (attending(heads=3), V, "attention: heads must divide the 4 columns of wq, got 3"),
    (lambda: CrossAttention(2).init(KEY, (3, 4)), V, "x must be Sequences(values, context=Sequences(...)), got Shape"),
    (
        fed(CrossAttention(2), READING, Sequences(ones((2, 3, 4)))),
        V,
        "got Sequences without a context. models.encoder_decoder makes it; for self-attention use Attention.",
    ),
    # positions, gates, padding, ties
    (
        fed(LearnedPositions(3), (3, 4), ones((2, 5, 4))),
        V,
        "x has 5 positions, but the layer was made for 3. Make it with LearnedPositions(5), or cut x; rotary",
    ),
    (
        fed(LearnedPositions(3), (3, 4), ones((2, 3, 5))),
        V,
        "learned_positions: x must have shape (N, T, 4), got (2, 3, 5)",
    ),
    (fed(LearnedPositions(3), (3, 4), ones((2, 3, 4), np.int32)), T, "got int32. Put Embedding in front for tokens"),
    (lambda: LearnedPositions(0), V, "LearnedPositions: length must be at least 1, got 0"),
    (fed(SinusoidalPositions(), (3, 5), ones((2, 3, 5))), V, "the number of features must be even, got 5"),
    (lambda: GatedDense(0), V, "GatedDense: features must be at least 1, got 0"),
    (lambda: GatedDense(2, "silu"), T, "GatedDense: expected a function such as jaxnn.activations.silu, got 'silu'"),
    (lambda: GatedDense(2).init(KEY, ()), V, "GatedDense: an example must have at least one axis, got shape ()"),
    (
        fed(GatedDense(2), (3,), ones((2, 4))),
        V,
        "gated_dense: x must have 3 features on its last axis to match w (3, 2)",
    ),
    (fed(GatedDense(2), (4,), integers), T, "gated_dense: x must have a floating dtype, got int32"),
    (lambda: Padding(0.0), T, "Padding: token must be an int, got 0.0 (float)"),
    (lambda: Padding(True), T, "Padding: token must be an int, got True (bool)"),
    (fed(Padding(0), (3,), ones((2, 3))), T, "x must have an integer dtype, got float32. Padding is told by a token"),
    (fed(Padding(0), (3, 2), ones((2, 3, 2), np.int32)), V, "Padding: tokens must have shape (N, T), got (2, 3, 2)"),
    (fed(LastPosition, (3,), ones((2, 3))), V, "LastPosition: x must have shape (N, T, D) with T >= 1, got (2, 3)"),
    (fed(MeanPosition, (3,), ones((2, 3))), V, "MeanPosition: x must have shape (N, T, D) with T >= 1, got (2, 3)"),
    (fed(MeanPosition, (3, 2), ones((2, 3, 2), np.int32)), T, "got int32. Put Embedding in front for tokens"),
    (
        fed(Flatten, (3, 4), MASKED),
        V,
        "a layer must keep the positions, (2, 3), got outputs (2, 12). Take one vector per",
    ),
    (fed(GlobalAveragePool, (3, 4), MASKED), V, "got outputs (2, 4). Take one vector per example by MeanPosition or"),
    (fed(Conv(4, 2), (3, 4), MASKED), V, "a layer must keep the positions, (2, 3), got outputs (2, 2, 4)"),
    (lambda: tied("embedding"), T, "tied: net must be a Layer"),
    (
        fed(tied(Embedding(9, 4)), (3, 4), ones((2, 3, 4))),
        V,
        "no network around this layer contains the embedding layer",
    ),
    (
        lambda: tied(Dense(4)).apply((), (), ones((2, 4))),
        V,
        "contains the dense layer that it is tied to. Put both into",
    ),
    (
        lambda: tying.logits({"w": ones((9, 4))}, ones((2, 5))),
        V,
        "h must have 4 features on its last axis to match the",
    ),
    (lambda: tying.logits({"w": ones((9, 4))}, integers), T, "tied: h must have a floating dtype, got int32"),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[text[:40] for _, _, text in CASES])
def test_message(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert text in str(caught.value)


def test_there_are_many():
    assert len({text for _, _, text in CASES}) >= 40

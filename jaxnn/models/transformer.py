"""Transformers: decoder, encoder, and encoder-decoder, each a composition of layers.

A block adds to each position what it reads from others (attention) and what it computes from itself (a two-layer
perceptron, MLP). Normalized before each part (pre-norm, x + f(norm(x))) deep networks train without warm-up; the
original form normalizes after it, norm(x + f(x)).

References:
    Vaswani, A. et al. (2017). Attention is all you need.
    Xiong, R. et al. (2020). On layer normalization in the transformer architecture.
    Radford, A. et al. (2019). Language models are unsupervised multitask learners (the decoder alone).
    Devlin, J., Chang, M.-W., Lee, K. & Toutanova, K. (2019). BERT (the encoder alone).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax

from jaxnn.checks import require_positive_int
from jaxnn.initializers import Initializer, normal, zeros
from jaxnn.layers import (
    Attention,
    CrossAttention,
    Dense,
    Dropout,
    Embedding,
    Layer,
    Padding,
    ReluSquared,
    RMSNorm,
    Sequences,
    Values,
    tied,
)
from jaxnn.layers.base import Kind, output_example
from jaxnn.models.combinators import fold, join, require_params, residual, serial, spread
from jaxnn.models.stack import stack
from jaxnn.models.ties import fill, find_ties
from jaxnn.types import Key, Params, Scalar, State

ENCODER_DECODER = Kind("encoder_decoder")
SMALL = normal(0.02)


def transformer(
    vocabulary: int,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    causal: bool = True,
    attention: Layer | None = None,
    mlp: Layer | None = None,
    norm: Layer | None = None,
    pre_norm: bool = True,
    positions: Layer | None = None,
    dropout: Scalar = 0.0,
    embedding_init: Initializer = SMALL,
    head: Layer | None = None,
    pad: int | None = None,
    stacked: bool = False,
) -> Layer:
    """A transformer on tokens (N, T): a decoder (`causal`), which predicts the next token, or an encoder.

    embedding [positions] - depth x (attention, MLP) - norm - head. By default: RMS norm before each part, rotary
    positions, normalized queries and keys, an MLP of 4 times the width with squared ReLU, no biases, output projections
    that start at 0, and the embedding's table as the head.

    Args:
        vocabulary: V, number of tokens.
        width: D, features of a position.
        depth: number of blocks.
        heads: of the attention by default.
        causal: whether a position sees only those before it, and itself.
        attention: the attention of each block; None for `Attention(heads, causal=causal, rotary=10_000.0, qk_norm=True,
            out_init=zeros)`. For learned or sinusoidal positions or ALiBi pass one without `rotary`.
        mlp: the second part of each block, (N, T, D) -> (N, T, D); None for `mlp_of(width)`.
        norm: the normalization; None for `RMSNorm()`.
        pre_norm: whether to normalize before each part, x + f(norm(x)), and at the end; else after it, norm(x + f(x)).
        positions: a layer after the embedding, such as `LearnedPositions(1024)` or `SinusoidalPositions()`.
        dropout: fraction of the embeddings and of the outputs of each part dropped in training.
        embedding_init: initializer of the table (V, D).
        head: the layer on top, such as `Dense(vocabulary)`, or `serial(MeanPosition, Dense(10))` for one output per
            example; None for `tied(embedding)`, logits (N, T, V).
        pad: the padding token, whose positions no one sees; None if sequences have one length.
        stacked: whether the blocks are a `stack`, compiled once for any depth; else a serial, which on CPU is faster.

    Returns:
        A Layer; parameters of block l at [..., l] of the serial.

    Example:
        >>> import jax.numpy as jnp
        >>> net = transformer(65, width=32, depth=2, heads=2)
        >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((16,), jnp.int32))
        >>> net.predict(params, state, jnp.zeros((3, 16), jnp.int32)).shape
        (3, 16, 65)
    """
    embed = Embedding(vocabulary, width, w_init=embedding_init)
    if attention is None:
        attention = Attention(heads, causal=causal, rotary=10_000.0, qk_norm=True, out_init=zeros)
    norm = RMSNorm() if norm is None else norm
    inner = block(attention, mlp_of(width) if mlp is None else mlp, norm=norm, pre_norm=pre_norm, dropout=dropout)
    parts = [*_padding(pad), embed, *_maybe(positions), *_dropout(dropout), *_blocks(inner, depth, stacked)]
    parts += [norm] if pre_norm else []
    return serial(*parts, tied(embed) if head is None else head, *([] if pad is None else [Values]))


def encoder_decoder(
    source_vocabulary: int,
    target_vocabulary: int | None = None,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    mlp: Layer | None = None,
    norm: Layer | None = None,
    pre_norm: bool = True,
    positions: Layer | None = None,
    dropout: Scalar = 0.0,
    pad: int | None = None,
    stacked: bool = False,
) -> Layer:
    """A transformer from sequences to sequences: the decoder also reads the encoder's outputs, by cross-attention.

    Inputs are `Sequences(target, context=Sequences(source))`, tokens (N, T) and (N, S); outputs are logits (N, T, V)
    for the token after each target position.

    Args:
        source_vocabulary: number of tokens.
        target_vocabulary: that of the target; None for one vocabulary of both, and one table for the two lookups and
            the head (Vaswani et al., section 3.4). Else the table of the target is also the head.
        width, depth, heads, mlp, norm, pre_norm, positions, dropout, pad, stacked: as for `transformer`, of both.
            With `positions` attention has no rotary encoding.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.layers import Sequences
        >>> net = encoder_decoder(10, 20, width=16, depth=1, heads=2)
        >>> x = Sequences(jnp.zeros((3, 5), jnp.int32), context=Sequences(jnp.zeros((3, 7), jnp.int32)))
        >>> params, state = net.init(jax.random.key(0), jax.tree.map(lambda tokens: tokens[0], x))
        >>> net.predict(params, state, x).shape
        (3, 5, 20)
    """
    norm, mlp = RMSNorm() if norm is None else norm, mlp_of(width) if mlp is None else mlp
    how: dict[str, Any] = {"rotary": 10_000.0 if positions is None else None, "qk_norm": True, "out_init": zeros}
    source = Embedding(source_vocabulary, width, w_init=SMALL)
    if target_vocabulary is None:
        # Tied itself, an embedding is an output matrix; a serial of it is the lookup again.
        reads = serial(source)
        writes, head = tied(reads), tied(source)
    else:
        reads, writes = source, Embedding(target_vocabulary, width, w_init=SMALL)
        head = tied(writes)
    reading = block(Attention(heads, **how), mlp, norm=norm, pre_norm=pre_norm, dropout=dropout)
    cross = CrossAttention(heads, qk_norm=True, out_init=zeros)
    writing = block(Attention(heads, causal=True, **how), cross, mlp, norm=norm, pre_norm=pre_norm, dropout=dropout)

    def tower(embed: Layer, inner: Layer) -> list[Layer]:
        parts = [*_padding(pad), embed, *_maybe(positions), *_dropout(dropout), *_blocks(inner, depth, stacked)]
        return [*parts, norm] if pre_norm else parts

    return encoded(serial(*tower(reads, reading)), serial(*tower(writes, writing), head, Values))


def encoded(encoder: Layer, decoder: Layer) -> Layer:
    """The decoder applied to `Sequences` whose context has gone through the encoder; params are the pair of theirs.

    Example:
        >>> import jax.numpy as jnp
        >>> net = encoded(Dense(4), serial(CrossAttention(2), Values))
        >>> x = Sequences(jnp.ones((1, 3, 8)), context=Sequences(jnp.ones((1, 5, 6))))
        >>> params, state = net.init(jax.random.key(0), jax.tree.map(lambda v: v[0], x))
        >>> net.predict(params, state, x).shape
        (1, 3, 8)
    """
    parts = (encoder, decoder)
    ties = find_ties(parts)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        inputs = require_context(example)
        params, state = encoder.init(jax.random.fold_in(key, 0), inputs.context)
        context = output_example(encoder, params, state, inputs.context)
        of_decoder, decoder_state = decoder.init(jax.random.fold_in(key, 1), with_context(inputs, context))
        return (params, of_decoder), join([state, decoder_state])

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        require_params("encoder_decoder", params, parts)
        x = require_context(x)
        (p, q), (s, t) = fill(ties, params), spread(state, parts)
        context, s = encoder.apply(p, s, x.context, key=fold(key, 0), train=train)
        y, t = decoder.apply(q, t, with_context(x, context), key=fold(key, 1), train=train)
        return y, join([s, t])

    options = MappingProxyType({"ties": ties} if ties else {})
    return Layer(init, apply, ENCODER_DECODER, options, parts, sequences=True)


def require_context(x: Any) -> Sequences:
    """x, if it is `Sequences` with a context; else ValueError."""
    if not isinstance(x, Sequences) or x.context is None:
        raise ValueError(
            "encoder_decoder: x must be Sequences(target, context=Sequences(source)), got "
            f"{'no context' if isinstance(x, Sequences) else type(x).__name__}."
        )
    return x


def with_context(x: Sequences, context: Any) -> Sequences:
    """x with another context, an array or `Sequences`."""
    return Sequences(x.values, x.mask, context if isinstance(context, Sequences) else Sequences(context))


def block(*parts: Layer, norm: Layer | None = None, pre_norm: bool = True, dropout: Scalar = 0.0) -> Layer:
    """The parts of a transformer block, each beside a residual connection and with its own normalization.

    Args:
        parts: e.g. attention, cross-attention, an MLP.
        norm, pre_norm, dropout: as for `transformer`; dropout acts on each part's output.

    Example:
        >>> net = block(Attention(2, causal=True), mlp_of(8))
        >>> params, state = net.init(jax.random.key(0), (5, 8))
        >>> net.predict(params, state, jax.numpy.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    norm = RMSNorm() if norm is None else norm
    dropped = _dropout(dropout)
    if pre_norm:
        return serial(*[residual(norm, part, *dropped) for part in parts])
    return serial(*[each for part in parts for each in (residual(part, *dropped), norm)])


def mlp_of(width: int, hidden: int | None = None, activation: Layer = ReluSquared) -> Layer:
    """A two-layer perceptron on each position, without biases; its second matrix starts at 0.

    Args:
        width: D, features in and out.
        hidden: units between; None for 4 D.
        activation: between the layers. For a gated MLP write `serial(GatedDense(hidden), Dense(width))`.

    Example:
        >>> mlp_of(8).init(jax.random.key(0), (5, 8))[0][0]["w"].shape
        (8, 32)
    """
    hidden = 4 * require_positive_int("mlp_of", "width", width) if hidden is None else hidden
    return serial(Dense(hidden, b_init=None), activation, Dense(width, w_init=zeros, b_init=None))


def _blocks(inner: Layer, depth: int, stacked: bool) -> list[Layer]:
    depth = require_positive_int("transformer", "depth", depth)
    return [stack(inner, depth)] if stacked else [inner] * depth


def _padding(pad: int | None) -> list[Layer]:
    return [] if pad is None else [Padding(pad)]


def _maybe(layer: Layer | None) -> list[Layer]:
    return [] if layer is None else [layer]


def _dropout(rate: Scalar) -> list[Layer]:
    """A dropout layer, or none at rate 0."""
    return [Dropout(rate)] if rate else []

"""Decoding: token by token, with the keys, values and recurrent states of the tokens before kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.checks import as_array, concrete_number, require_integer, require_key, require_positive_int
from jaxnn.layers import (
    attention,
    attention_layers,
    conv,
    conv_transpose,
    flatten,
    group_norm,
    padding,
    pooling,
    position,
    recurrence,
    reshape,
    tying,
)
from jaxnn.layers.base import Kind, Layer, require_net
from jaxnn.layers.sequences import Sequences
from jaxnn.models.combinators import join, spread
from jaxnn.models.sampling import require_sampling, sample
from jaxnn.models.ties import STACK, filled
from jaxnn.models.transformer import ENCODER_DECODER
from jaxnn.placement import compiler_sharded, rows_spec
from jaxnn.types import Array, ArrayLike, Key, Params, Scalar, State
from jaxnn.varying import vary, varying_axes


def generate(
    net: Layer,
    params: Params,
    state: State,
    prompt: ArrayLike,
    count: int,
    *,
    key: Key | None = None,
    lengths: ArrayLike | None = None,
    temperature: Scalar = 1.0,
    top_k: int | None = None,
    top_p: Scalar | None = None,
    stop: int | None = None,
    context: Sequences | None = None,
) -> Array:
    """Continue prompts by tokens that the network predicts, each drawn by `sample`, in one `lax.while_loop`.

    The prompts are read at once; then each step computes one position, at a cost that does not depend on where it is.
    Compile it: `jax.jit(functools.partial(generate, net, count=100))`.

    Args:
        net: a network from tokens (N, T) to logits (N, T, V) in which no position depends on a later one, such as
            `models.transformer(...)`; or a `models.encoder_decoder`, with `context`.
        params, state: its parameters and running statistics.
        prompt: tokens (N, S), S >= 1, integers; to generate from nothing begin with a token such as a newline.
        count: number of positions after the prompt.
        key: typed random key; None only for a temperature of 0.
        lengths: (N,) integers in [1, S]: the number of tokens of each prompt, the rest of its row being padding, which
            generated tokens replace; None for S.
        temperature, top_k, top_p: as for `sample`.
        stop: a token after which a row is finished, and filled with `stop`; the loop ends when all rows are. A
            network's padding token (`Padding`) is never drawn.
        context: source sequences of an encoder-decoder network, which are encoded once.

    Returns:
        (N, S + count) int32: prompts and what follows them.

    Raises:
        ValueError: an empty prompt, or one that ends with the network's padding token, without `lengths`; more
            positions than a layer was made for; lengths or `stop` out of range; or a layer that cannot decode (its
            outputs depend on later positions).
        TypeError: tokens that are not integers, or a context that is not `Sequences`.

    Example:
        >>> from jaxnn.models import transformer
        >>> net = transformer(10, width=8, depth=1, heads=2)
        >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), jnp.int32))
        >>> generate(net, params, state, jnp.array([[1, 2]]), 5, temperature=0.0).shape
        (1, 7)
    """
    require_net("generate", net)
    start = as_array("generate", "prompt", prompt)
    require_integer("generate", "prompt", start.dtype, "Encode text first, e.g. data.text.characters(text).encode.")
    if start.ndim != 2 or not start.shape[1]:
        raise ValueError(
            f"generate: prompt must be tokens (N, S) with S >= 1, got shape {start.shape}. An empty prompt predicts "
            "nothing: begin with a token such as a newline."
        )
    require_sampling(temperature, top_k, top_p)
    if concrete_number(temperature) != 0:
        require_key("generate", key)
    if stop is not None:
        stop = require_positive_int("generate", "stop", stop, minimum=0)
    if context is not None and not isinstance(context, Sequences):
        raise TypeError(f"generate: context must be Sequences(source), got {type(context).__name__}.")
    _require_tokens(net, start, lengths)
    total = start.shape[1] + require_positive_int("generate", "count", count, minimum=0)
    known = _lengths(lengths, *start.shape)
    first = start.shape[1] if lengths is None else _least(lengths)
    run = functools.partial(_generated, net, total=total, first=first, top_k=top_k, stop=stop)
    # On Explicit axes caches and tokens would need the sharding of every update.
    return compiler_sharded(run, rows_spec(start), params, state, start, known, key, temperature, top_p, context)


def _generated(
    net: Layer,
    params: Params,
    state: State,
    prompt: Array,
    known: Array,
    key: Key | None,
    temperature: Scalar,
    top_p: Scalar | None,
    context: Sequences | None,
    *,
    total: int,
    first: int,
    top_k: int | None,
    stop: int | None,
) -> Array:
    """The tokens of `generate`, (N, total): the first `first` positions are read at once, prompts are `known` long."""
    net, params, state, wrap = _decoder(net, params, state, context)
    for layer in _inside(net):
        if layer.kind in MIXING:
            raise ValueError(
                f"generate: {layer.kind.name} cannot decode: its outputs depend on later positions, or are not one for "
                "each."
            )
    n, given = prompt.shape
    tokens = jnp.pad(prompt.astype(jnp.int32), ((0, 0), (0, total - given)))

    def read(some: Array, cache: State) -> tuple[Array, State]:
        y, cache = net.apply(params, cache, wrap(some))
        logits = y[:, -1]
        if stop is not None and stop >= logits.shape[1]:
            raise ValueError(f"generate: stop must be a token, below {logits.shape[1]}, got {stop}.")
        never = [token for token in _padding_tokens(net) if 0 <= token < logits.shape[1]]
        return logits.at[:, jnp.array(never)].set(-jnp.inf) if never else logits, cache

    def unfinished(carry: tuple[Any, ...]) -> Array:
        at, _, _, _, done = carry
        return (at < total) & ~jnp.all(done)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        at, tokens, logits, cache, done = carry
        now = None if key is None else jax.random.fold_in(key, at)
        drawn = sample(now, logits, temperature=temperature, top_k=top_k, top_p=top_p)
        if stop is not None:
            drawn = jnp.where(done, jnp.int32(stop), drawn)
        prompted = at < known
        token = jnp.where(prompted, lax.dynamic_index_in_dim(tokens, at, 1, keepdims=False), drawn)
        if stop is not None:
            done = done | (~prompted & (token == stop))
        tokens = lax.dynamic_update_index_in_dim(tokens, token, at, 1)
        logits, cache = read(token[:, None], cache)
        return at + 1, tokens, logits, cache, done

    logits, cache = read(tokens[:, :first], begin(net, params, state, n, total))
    # Inside `shard_map` a device's own rows make all that the loop carries its own.
    carry = vary((jnp.int32(first), tokens, logits, cache, jnp.zeros(n, bool)), varying_axes(params, prompt, known))
    at, tokens, _, _, done = lax.while_loop(unfinished, step, carry)
    if stop is None:
        return tokens
    unread = lax.broadcasted_iota(jnp.int32, tokens.shape, 1) >= at
    return jnp.where(unread & done[:, None], jnp.int32(stop), tokens)


def begin(net: Layer, params: Params, state: State, n: int, length: int | None = None) -> State:
    """The state with which `net.apply` reads n sequences piece by piece.

    In it, attention has empty caches, recurrent layers zero carries, position encodings a count; running statistics are
    those of `state`. `net.apply(params, state, tokens)` returns the outputs and the state after these tokens: for
    decoding, and for training recurrent networks on consecutive pieces of a long text (truncated backpropagation
    through time: no gradient flows into the state that is passed). With the state of `init` each call starts anew.

    Args:
        net, params, state: a network, its parameters and running statistics.
        n: number of sequences.
        length: the most positions in all, the size of the caches; None for networks without attention or learned
            positions. `Reversed` layers read each piece from its own end.

    Raises:
        ValueError: a layer needs the length, or was made for fewer positions.

    Reference: Williams, R. J. & Peng, J. (1990). An efficient gradient-based algorithm for on-line training of
        recurrent network trajectories.

    Example:
        >>> from jaxnn.models import transformer
        >>> net = transformer(10, width=8, depth=1, heads=2)
        >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), jnp.int32))
        >>> cache = begin(net, params, state, 1, 5)
        >>> y, cache = net.apply(params, cache, jnp.array([[1, 2]]))
        >>> z, cache = net.apply(params, cache, jnp.array([[3]]))
        >>> y.shape, z.shape
        ((1, 2, 10), (1, 1, 10))
    """
    n = require_positive_int("begin", "n", n)
    return _begin(net, params, state, Extent(n, length, any(part.kind is padding.PADDING for part in _inside(net))))


class Extent(NamedTuple):
    """What is read: n sequences of up to `length` positions, some of which may be `masked`."""

    n: int
    length: int | None
    masked: bool

    def known_length(self, what: str) -> int:
        """The length; ValueError if there is none."""
        if self.length is None:
            raise ValueError(
                f"begin: {what} needs the length, the most positions in all: begin(net, params, state, n, L)."
            )
        return self.length


def _begin(net: Layer, params: Params, state: State, extent: Extent) -> State:
    if isinstance(net.kind, recurrence.RecurrentKind):
        return recurrence.start(net, extent.n, jax.tree.leaves(params)[0].dtype)
    if net.kind in STARTS:
        return STARTS[net.kind](net, params, extent)
    if net.kind is tying.TIED:
        return _begin(net.options["of"], params, state, extent)
    if net.kind is STACK:
        return jax.vmap(lambda p, s: _begin(net.parts[0], p, s, extent), axis_size=net.options["n"])(params, state)
    if not net.parts or net.kind is recurrence.REVERSED:
        return state
    of_parts = zip(net.parts, filled(net, params), spread(state, net.parts), strict=True)
    return join([_begin(part, p, s, extent) for part, p, s in of_parts])


def _inside(net: Layer) -> Iterator[Layer]:
    """The network and all layers in it."""
    yield net
    for part in net.parts:
        yield from _inside(part)


def _padding_tokens(net: Layer) -> list[int]:
    """The tokens that a network masks."""
    return sorted({layer.options["token"] for layer in _inside(net) if layer.kind is padding.PADDING})


def _require_tokens(net: Layer, prompt: Array, lengths: Any) -> None:
    """Raise ValueError if a prompt, if concrete, ends with padding: that position predicts nothing."""
    decoder = net.parts[1] if net.kind is ENCODER_DECODER else net
    ends = _padding_tokens(decoder)
    known = not isinstance(prompt, jax.core.Tracer) and prompt.is_fully_addressable
    if lengths is None and ends and known and np.isin(prompt[:, -1], ends).any():
        raise ValueError(
            f"generate: a prompt ends with the padding token {ends}, which the network does not see. Pass lengths, the "
            "number of tokens of each prompt."
        )


def _attention(layer: Layer, params: Params, extent: Extent) -> State:
    length = extent.known_length("attention")
    return attention_layers.start(params, layer.options["settings"], extent.n, length, extent.masked)


def _learned(layer: Layer, params: Params, extent: Extent) -> State:
    length = extent.known_length("learned_positions")
    if length > layer.options["length"]:
        raise ValueError(
            f"generate: {length} positions in all, but LearnedPositions was made for {layer.options['length']}. "
            "Generate fewer tokens, or cut the prompt."
        )
    return position.start()


def _counted(layer: Layer, params: Params, extent: Extent) -> State:
    return position.start()


STARTS: dict[Kind, Callable[[Layer, Params, Extent], State]] = {
    attention.KIND: _attention,
    position.LEARNED: _learned,
    position.SINUSOIDAL: _counted,
}
"""(layer, params, extent) -> the state of a layer before the first position, by kind."""

MIXING = (
    conv.KIND, conv_transpose.KIND, flatten.KIND, group_norm.KIND, padding.LAST, padding.MEAN, pooling.MAX_POOL,
    pooling.AVERAGE_POOL, pooling.GLOBAL_AVERAGE_POOL, pooling.GLOBAL_MAX_POOL, recurrence.REVERSED, reshape.RESHAPE,
    reshape.UPSAMPLE,
)  # fmt: skip
"""Kinds of layers that have no outputs position by position."""


def _decoder(
    net: Layer, params: Params, state: State, context: Sequences | None
) -> tuple[Layer, Params, State, Callable[[Array], Any]]:
    """The part that decodes, its parameters and state, and how it takes tokens."""
    if (context is None) is (net.kind is ENCODER_DECODER):
        raise ValueError(
            "generate: an encoder-decoder network needs context=Sequences(source), and no other network takes one."
        )
    if context is None:
        return net, params, state, lambda tokens: tokens
    (encoder, decoder), (p, q), (s, t) = net.parts, filled(net, params), spread(state, net.parts)
    memory = encoder.predict(p, s, context)
    seen = memory if isinstance(memory, Sequences) else Sequences(memory)
    return decoder, q, t, lambda tokens: Sequences(tokens, context=seen)


def _lengths(lengths: Any, n: int, given: int) -> Array:
    """The lengths as an array, checked if concrete."""
    if lengths is None:
        return jnp.full(n, given, jnp.int32)
    found = as_array("generate", "lengths", lengths)
    require_integer("generate", "lengths", found.dtype)
    if found.shape != (n,):
        raise ValueError(f"generate: lengths must have shape ({n},), one for each prompt, got {found.shape}.")
    if not isinstance(found, jax.core.Tracer) and not (np.min(found) >= 1 and np.max(found) <= given):
        raise ValueError(f"generate: lengths must lie in [1, {given}], got {np.min(found)} to {np.max(found)}.")
    return found.astype(jnp.int32)


def _least(lengths: Any) -> int:
    """The number of positions that belong to every prompt: those are read at once."""
    return 1 if isinstance(lengths, jax.core.Tracer) else int(np.min(np.asarray(lengths)))

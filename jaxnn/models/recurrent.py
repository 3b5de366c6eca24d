"""Recurrent networks on tokens: language models, taggers, classifiers of sequences."""

from __future__ import annotations

from collections.abc import Callable

from jaxnn.checks import require_positive_int
from jaxnn.layers import LSTM, Dense, Dropout, Embedding, Layer, Padding, Reversed, Values
from jaxnn.layers import tied as tied_to
from jaxnn.models.combinators import parallel, serial


def bidirectional(layer: Layer, other: Layer | None = None) -> Layer:
    """A recurrent layer that reads forwards, and one that reads backwards; their outputs are concatenated.

    At position t the outputs depend on x_1, ..., x_t and on x_T, ..., x_t. Padding is not read in either direction.

    Args:
        layer: such as `LSTM(128)`, (N, T, D) -> (N, T, H).
        other: the one that reads backwards, with parameters of its own; None for the same as `layer`.

    Returns:
        A Layer (N, T, D) -> (N, T, 2H); params are the pair (forwards, (backwards,)).

    References:
        Schuster, M. & Paliwal, K. K. (1997). Bidirectional recurrent neural networks.
        Graves, A. & Schmidhuber, J. (2005). Framewise phoneme classification with bidirectional LSTM and other neural
        network architectures.

    Example:
        >>> import jax
        >>> net = bidirectional(LSTM(4))
        >>> params, state = net.init(jax.random.key(0), (5, 3))
        >>> net.predict(params, state, jax.numpy.ones((2, 5, 3))).shape
        (2, 5, 8)
    """
    return parallel(layer, Reversed(layer if other is None else other))


def recurrent(
    vocabulary: int,
    hidden: int = 256,
    depth: int = 1,
    cell: Callable[[int], Layer] = LSTM,
    *,
    features: int | None = None,
    dropout: float = 0.0,
    bidirectional: bool = False,
    tied: bool = False,
    pad: int | None = None,
    pool: Layer | None = None,
    outputs: int | None = None,
) -> Layer:
    """A recurrent network on tokens: embedding, recurrent layers, and a linear layer at each position.

    A language model by default: logits of the next token at each position (N, T) -> (N, T, V). `begin` makes the
    state with which it generates token by token, or goes on through a long text.

    Args:
        vocabulary: V, tokens are in [0, V).
        hidden, depth: units of each recurrent layer, and the number of layers.
        cell: factory of these layers: `LSTM`, `GRU`, `RNN`, `LinearRecurrence`, or a function of `hidden`.
        features: of the embedding; None for what the last recurrent layer returns if tied, else for `hidden`.
        dropout: fraction of the inputs of each layer but the embedding dropped in training; recurrent connections are
            kept whole (Zaremba et al. 2014).
        bidirectional: whether each recurrent layer is one in each direction: for tagging and classification.
        tied: whether the output matrix is the embedding's table.
        pad: token of padded positions, which are not read, and where the outputs are 0; None for none.
        pool: a layer from positions to one vector, such as `LastPosition`, before the output layer; None for outputs at
            every position.
        outputs: their number; None for V.

    Raises:
        ValueError: tied, and `features` is not what the last recurrent layer returns, or `outputs` is set.

    References:
        Mikolov, T., Karafiat, M., Burget, L., Cernocky, J. & Khudanpur, S. (2010). Recurrent neural network based
        language model.
        Zaremba, W., Sutskever, I. & Vinyals, O. (2014). Recurrent neural network regularization.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> net = recurrent(65, 8, depth=2)
        >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((5,), jnp.int32))
        >>> net.predict(params, state, jnp.zeros((2, 5), jnp.int32)).shape
        (2, 5, 65)
    """
    require_positive_int("recurrent", "hidden", hidden)
    if isinstance(cell, Layer) or not callable(cell):
        raise TypeError(f"recurrent: cell must be a factory of layers, such as layers.LSTM, got {cell!r}.")
    width = 2 * hidden if bidirectional else hidden
    if features is None:
        features = width if tied else hidden
    if tied and (features != width or outputs is not None):
        raise ValueError(
            f"recurrent: a tied output matrix maps {width} features to the vocabulary: features must be {width} and "
            f"outputs None, got features={features}, outputs={outputs}."
        )
    embed = Embedding(vocabulary, features)
    parts = [embed] if pad is None else [Padding(pad), embed]
    between = [Dropout(dropout)] if dropout else []
    for _ in range(require_positive_int("recurrent", "depth", depth)):
        parts += [*between, parallel(cell(hidden), Reversed(cell(hidden))) if bidirectional else cell(hidden)]
    parts += between if pool is None else [pool, *between]
    head = tied_to(embed) if tied else Dense(vocabulary if outputs is None else outputs)
    return serial(*parts, head, Values)

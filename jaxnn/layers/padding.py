"""Padding: the mask of padded tokens, and the way back from masked sequences to an array."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_floating, require_integer
from jaxnn.layers.base import Kind, Layer
from jaxnn.layers.sequences import Sequences, mask_of, only, values_of
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array, Key, Params, State

PADDING, VALUES = Kind("padding"), Kind("values")
LAST, MEAN = Kind("last_position"), Kind("mean_position")


def Padding(token: int) -> Layer:
    """Tokens (N, T) as `Sequences` whose mask excludes one token; masked positions become token 0, of any vocabulary.

    Args:
        token: the padding token; any int, also one outside the vocabulary such as -1.

    Raises:
        TypeError: `token` is not an int, or the tokens are not integers.

    Example:
        >>> Padding(-1).predict((), (), jnp.array([[5, 6, -1]]))
        Sequences(values=Array([[5, 6, 0]], dtype=int32), mask=Array([[ True,  True, False]], dtype=bool), context=None)
    """
    if isinstance(token, bool) or not hasattr(token, "__index__"):
        raise TypeError(f"Padding: token must be an int, got {token!r} ({type(token).__name__}).")

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        tokens, before = values_of(x), mask_of(x)
        require_integer("Padding", "x", tokens.dtype, "Padding is told by a token: x.astype(jnp.int32).")
        if tokens.ndim != 2:
            raise ValueError(f"Padding: tokens must have shape (N, T), got {tokens.shape}.")
        there = tokens != token
        mask = there if before is None else there & before
        context = x.context if isinstance(x, Sequences) else None
        return Sequences(only(mask, tokens), mask, context), state

    return Layer(_no_params, apply, PADDING, MappingProxyType({"token": token}), sequences=True)


def _no_params(key: Key, example: Any) -> tuple[Params, State]:
    return (), ()


def _values(
    params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
) -> tuple[Array, State]:
    return only(mask_of(x), values_of(x)), state


Values = Layer(_no_params, _values, VALUES, sequences=True)
"""The values of `Sequences`, without mask and context; the identity on arrays.

The last part of networks on padded sequences: losses take arrays. Values at masked positions are 0.

Example:
    >>> Values.predict((), (), Sequences(jnp.ones((1, 2))))
    Array([[1., 1.]], dtype=float32)
"""


def _last(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> tuple[Array, State]:
    return last_position(values_of(x), mask_of(x)), state


def last_position(values: Array, mask: Array | None = None) -> Array:
    """values (N, T, D) at the last position that counts, (N, D); zeros for an example that is all padding.

    Example:
        >>> last_position(jnp.array([[[1.0], [2.0], [9.0]]]), jnp.array([[True, True, False]]))
        Array([[2.]], dtype=float32)
    """
    if values.ndim < 3 or not values.shape[1]:
        raise ValueError(f"LastPosition: x must have shape (N, T, D) with T >= 1, got {values.shape}.")
    if mask is None:
        return values[:, -1]
    chosen = is_last(mask)
    picked = jnp.where(chosen[..., None], values, jnp.zeros((), values.dtype))
    return jnp.sum(picked, axis=1, dtype=values.dtype)


def is_last(mask: Array) -> Array:
    """True at the last True of each row of a mask (N, T)."""
    places = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    last = jnp.max(jnp.where(mask, places, -1), axis=1, keepdims=True)
    return places == last


LastPosition = Layer(_no_params, _last, LAST, sequences=True)
"""The vector at the last position that counts, (N, T, D) -> (N, D): what a recurrent network has read in the end.

Example:
    >>> LastPosition.predict((), (), jnp.array([[[1.0], [2.0]]]))
    Array([[2.]], dtype=float32)
"""


def mean_position(values: Array, mask: Array | None = None) -> Array:
    """The mean of values (N, T, D) over the positions that count, (N, D); zeros for an example that is all padding.

    Example:
        >>> mean_position(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]]))
        Array([[2.]], dtype=float32)
    """
    require_floating("MeanPosition", "x", values.dtype, "Put Embedding in front for tokens.")
    if values.ndim < 3 or not values.shape[1]:
        raise ValueError(f"MeanPosition: x must have shape (N, T, D) with T >= 1, got {values.shape}.")
    shares = position_shares(values, mask)
    total = jnp.sum(accumulate(only(mask, values)) * shares.reshape(*shares.shape, *(1,) * (values.ndim - 2)), axis=1)
    return total.astype(values.dtype)


def position_shares(values: Array, mask: Array | None) -> Array:
    """The weight of each position in the mean of an example, (N, T): 1 / count, 0 where masked."""
    dtype = accumulation_dtype(values.dtype)
    counts = (jnp.ones(values.shape[:2], bool) if mask is None else mask).astype(dtype)
    return counts / jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), jnp.ones((), dtype))


def _mean(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> tuple[Array, State]:
    return mean_position(values_of(x), mask_of(x)), state


MeanPosition = Layer(_no_params, _mean, MEAN, sequences=True)
"""The mean vector over the positions that count, (N, T, D) -> (N, D): `GlobalAveragePool` of padded sequences.

Example:
    >>> MeanPosition.predict((), (), jnp.array([[[1.0], [2.0]]]))
    Array([[1.5]], dtype=float32)
"""

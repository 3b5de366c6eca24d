"""Attention as layers, and with a cache of keys and values for decoding."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_number, require_positive, require_positive_int
from jaxnn.initializers import Initializer, lecun_normal
from jaxnn.layers.attention import (
    CROSS,
    KIND,
    Settings,
    apply,
    head_size,
    init,
    output,
    project,
    require_fit,
    visible,
)
from jaxnn.layers.base import Layer, param_dtype
from jaxnn.layers.moments import require_eps
from jaxnn.layers.sequences import Sequences, mask_of, only, values_of, with_values
from jaxnn.ops.attention import attend
from jaxnn.placement import beside
from jaxnn.types import Array, Key, Params, Scalar, State


def Attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    causal: bool = False,
    rotary: Scalar | None = None,
    alibi: bool = False,
    qk_norm: bool = False,
    scale: Scalar | None = None,
    w_init: Initializer = lecun_normal,
    out_init: Initializer = lecun_normal,
    b_init: Initializer | None = None,
    eps: Scalar = 1e-6,
) -> Layer:
    """Multi-head self-attention on inputs (N, T, D), or on `Sequences`, whose masked positions no one sees.

    With a cache as its state (`start`), the layer decodes: see `models.generate`.

    Args:
        heads: H, the number of query heads.
        kv_heads: K, that of key and value heads, which divides H: grouped-query attention, multi-query for 1; None for
            H.
        head_features: of each head; None for D / H, which must be whole.
        causal: whether position t sees the positions s <= t only.
        rotary: base of the rotary position encoding of queries and keys, e.g. 10,000; None for none.
        alibi: whether scores get the ALiBi bias slope_h (s - t).
        qk_norm: whether queries and keys of each head are RMS-normalized, with scales of their own.
        scale: of the scores; None for 1 / sqrt(head_features).
        w_init, out_init: initializers of the matrices of queries, keys and values, and of the outputs; by default
            w ~ N(0, 1 / D_in).
        b_init: of the four biases; None for none.
        eps: of the RMS norm of queries and keys, added to the mean square, inside the root.

    Example:
        >>> import jax
        >>> layer = Attention(4, causal=True, rotary=10_000.0, qk_norm=True)
        >>> params, state = layer.init(jax.random.key(0), (10, 32))
        >>> layer.predict(params, state, jnp.ones((2, 7, 32))).shape
        (2, 7, 32)
    """
    settings = _settings(heads, causal, rotary, alibi, scale, eps)
    made: dict[str, Any] = {"kv_heads": kv_heads, "head_features": head_features, "qk_norm": qk_norm}
    made |= {"w_init": w_init, "out_init": out_init, "b_init": b_init}

    def layer_init(key: Key, example: Any) -> tuple[Params, State]:
        one = _example(values_of(example))
        return init(key, one.shape[-1], heads, dtype=param_dtype(one), **made), ()

    def layer_apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        values, mask = values_of(x), mask_of(x)
        if state:
            y, state = apply_cached(params, state, only(mask, values), settings, mask)
            return with_values(x, y), state
        y = apply(params, only(mask, values), mask=mask, **_keywords(settings))
        return with_values(x, y), state

    return Layer(layer_init, layer_apply, KIND, _options(settings, made), sequences=True)


def CrossAttention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    qk_norm: bool = False,
    scale: Scalar | None = None,
    w_init: Initializer = lecun_normal,
    out_init: Initializer = lecun_normal,
    b_init: Initializer | None = None,
    eps: Scalar = 1e-6,
) -> Layer:
    """Multi-head attention of the values of `Sequences` on their context, (N, T, D) on (N, S, C).

    Arguments as for `Attention`.

    Raises:
        ValueError: when initialised or applied: the input is no `Sequences` with a context.

    Example:
        >>> import jax
        >>> x = Sequences(jnp.ones((2, 3, 8)), context=Sequences(jnp.ones((2, 5, 4))))
        >>> layer = CrossAttention(2)
        >>> params, state = layer.init(jax.random.key(0), jax.tree.map(lambda v: v[0], x))
        >>> params["wk"].shape, layer.predict(params, state, x).values.shape
        ((4, 8), (2, 3, 8))
    """
    settings = _settings(heads, False, None, False, scale, eps)
    made: dict[str, Any] = {"kv_heads": kv_heads, "head_features": head_features, "qk_norm": qk_norm}
    made |= {"w_init": w_init, "out_init": out_init, "b_init": b_init}

    def layer_init(key: Key, example: Any) -> tuple[Params, State]:
        one, context = _example(values_of(example)), _example(context_of(example).values)
        sizes: dict[str, Any] = {"context_features": context.shape[-1], "dtype": param_dtype(one)}
        return init(key, one.shape[-1], heads, **sizes, **made), ()

    def layer_apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        context = context_of(x)
        y = apply(params, only(x.mask, x.values), context.values, mask=context.mask, **_keywords(settings))
        return x.with_values(y), state

    return Layer(layer_init, layer_apply, CROSS, _options(settings, made), sequences=True)


def context_of(x: Any) -> Sequences:
    """What cross-attention reads."""
    if not isinstance(x, Sequences) or x.context is None:
        got = "Sequences without a context" if isinstance(x, Sequences) else type(x).__name__
        raise ValueError(
            f"cross_attention: x must be Sequences(values, context=Sequences(...)), got {got}. "
            "models.encoder_decoder makes it; for self-attention use Attention."
        )
    return x.context


def _settings(
    heads: int, causal: bool, rotary: Scalar | None, alibi: bool, scale: Scalar | None, eps: Scalar
) -> Settings:
    require_positive_int("attention", "heads", heads)
    if rotary is not None:
        require_positive("attention", "rotary", rotary)
    if scale is not None:
        require_number("attention", "scale", scale)
    require_eps("attention", eps)
    return Settings(heads, causal, rotary, alibi, scale, eps)


def _example(one: Any) -> Any:
    if len(one.shape) != 2:
        raise ValueError(f"attention: an example must have shape (T, D), got {one.shape}.")
    return one


def _keywords(settings: Settings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _options(settings: Settings, made: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType({"settings": settings} | made)


def start(params: Params, settings: Settings, n: int, length: int, masked: bool = False) -> State:
    """The empty cache of keys and values of n sequences of up to `length` positions, for `apply_cached`.

    Args:
        params, settings: of the layer.
        n, length: N and L.
        masked: whether positions may be masked; then the cache has a mask.

    Example:
        >>> import jax
        >>> cache = start(init(jax.random.key(0), 8, 4, kv_heads=2), Settings(4, causal=True), 3, 10)
        >>> jax.tree.map(jnp.shape, cache)
        {'k': (3, 10, 2, 2), 'length': (), 'v': (3, 10, 2, 2)}
    """
    size, w = head_size(params, settings), params["wk"]
    zeros = jnp.zeros((n, length, w.shape[1] // size, size), w.dtype)
    cache = {"k": zeros, "v": zeros, "length": jnp.zeros((), jnp.int32)}
    return cache | {"mask": jnp.zeros((n, length), bool)} if masked else cache


def apply_cached(
    params: Params, cache: State, x: Array, settings: Settings, mask: Array | None = None
) -> tuple[Array, State]:
    """Causal self-attention of T new positions on themselves and the cached ones before: (y (N, T, D), the cache).

    The cost of a new position is that of the cache's whole length, wherever it stands. Positions beyond the length
    overwrite the last ones: the caller bounds them.

    Args:
        params, settings: of the layer.
        cache: from `start`, or from the call before.
        x: (N, T, D), the new positions.
        mask: (N, T) bools, True where a new position counts; with a cache that has a mask.

    Raises:
        ValueError: attention that is not causal: earlier outputs would depend on later positions; or a mask without a
            cache for it.

    Example:
        >>> import jax
        >>> params, settings = init(jax.random.key(0), 8, 2), Settings(2, causal=True)
        >>> y, cache = apply_cached(params, start(params, settings, 1, 5), jnp.ones((1, 2, 8)), settings)
        >>> y.shape, int(cache["length"])
        ((1, 2, 8), 2)
    """
    if not settings.causal:
        raise ValueError("attention: decoding with a cache needs causal attention, got causal=False.")
    if (mask is None) is ("mask" in cache):
        raise ValueError("attention: a mask needs a cache made with masked=True, and such a cache a mask.")
    require_fit(params, x, x, mask, settings)
    first, zero = cache["length"], jnp.zeros((), jnp.int32)
    q, k, v = project(params, x, x, settings, first=first)[1]
    new = {"k": k, "v": v} | ({} if mask is None else {"mask": mask})

    def written(name: str) -> Array:
        at = (zero, first, *(zero,) * (new[name].ndim - 2))
        # A new cache lies on no mesh, or replicated; it must be sharded as what is written into it.
        return lax.dynamic_update_slice(beside(cache[name], new[name]), new[name].astype(cache[name].dtype), at)

    cache = {name: written(name) for name in new} | {"length": first + x.shape[1]}
    seen = visible(cache.get("mask"), settings, first)
    o, _ = attend(q, cache["k"].astype(q.dtype), cache["v"].astype(q.dtype), seen, scale=settings.scale)
    return output(params, o), cache

"""Multi-head attention: each position reads from the positions that it attends to, by a weighted mean per head.

Per head h, with q_t = x_t wq_h, k_s = c_s wk_h, v_s = c_s wv_h, from x itself (self-attention, c = x) or from another
sequence c (cross-attention):

    o_t = sum_s p_ts v_s,   p_ts = softmax_s(scale q_t . k_s + bias_ts),   y_t = concat_h(o_t) wo

A position sees the keys that the mask counts and, if causal, no later one. A position that sees nothing has o = 0.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.initializers import Initializer, lecun_normal
from jaxnn.layers import rms_norm
from jaxnn.layers.base import Kind, param
from jaxnn.layers.sequences import only
from jaxnn.numerics import accumulation_dtype
from jaxnn.ops.attention import Visible, alibi_slopes, attend
from jaxnn.ops.attention import probabilities as ops_probabilities
from jaxnn.ops.matmul import linear
from jaxnn.ops.rotary import angles, rotate
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND, CROSS = Kind("attention"), Kind("cross_attention")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The static settings of an attention layer.

    Attributes:
        heads: H, the number of query heads; that of key and value heads, K, follows from the parameters.
        causal: whether position t sees the positions s <= t only.
        rotary: base of the rotary position encoding of queries and keys, e.g. 10,000; None for none.
        alibi: whether scores get the ALiBi bias slope_h (s - t).
        scale: of the scores; None for 1 / sqrt(D_h).
        eps: of the RMS norm of queries and keys, added to the mean square, inside the root; used with "q_scale".
    """

    heads: int
    causal: bool = False
    rotary: Scalar | None = None
    alibi: bool = False
    scale: Scalar | None = None
    eps: Scalar = 1e-6


def init(
    key: Key,
    features: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    context_features: int | None = None,
    qk_norm: bool = False,
    w_init: Initializer = lecun_normal,
    out_init: Initializer = lecun_normal,
    b_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"wq": (D, H D_h), "wk": (C, K D_h), "wv": (C, K D_h), "wo": (H D_h, D)}, and more by choice.

    The columns of head h are h D_h, ..., (h + 1) D_h - 1.

    Args:
        features, heads: D and H.
        kv_heads: K, which divides H: grouped-query attention, multi-query for 1; None for H.
        head_features: D_h; None for D / H, which must be whole.
        context_features: C, the features of what cross-attention reads; None for D.
        qk_norm: whether queries and keys of each head are RMS-normalized, with "q_scale", "k_scale" (D_h,).
        w_init, out_init: initializers of wq, wk, wv, and of wo; by default w ~ N(0, 1 / D_in).
        b_init: of biases "bq", "bk", "bv", "bo"; None for none.
        dtype: of all parameters.

    Raises:
        ValueError: sizes that do not divide each other.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), 8, 4, kv_heads=2))
        {'wk': (8, 4), 'wo': (8, 8), 'wq': (8, 8), 'wv': (8, 4)}
    """
    d, h = require_positive_int("attention", "features", features), require_positive_int("attention", "heads", heads)
    k = h if kv_heads is None else require_positive_int("attention", "kv_heads", kv_heads)
    if h % k:
        raise ValueError(f"attention: kv_heads must divide heads, got {k} and {h}.")
    if head_features is None and d % h:
        raise ValueError(f"attention: heads must divide the features, got {h} and {d}. Or pass head_features.")
    each = d // h if head_features is None else require_positive_int("attention", "head_features", head_features)
    c = d if context_features is None else require_positive_int("attention", "context_features", context_features)
    keys = jax.random.split(key, 8)
    shapes = {"q": (d, h * each), "k": (c, k * each), "v": (c, k * each), "o": (h * each, d)}
    params = {}
    for i, (name, shape) in enumerate(shapes.items()):
        params[f"w{name}"] = (out_init if name == "o" else w_init)(keys[i], shape, dtype)
        if b_init is not None:
            params[f"b{name}"] = b_init(keys[4 + i], shape[1:], dtype)
    if qk_norm:
        params |= {name: rms_norm.init(each, dtype=dtype)["scale"] for name in ("q_scale", "k_scale")}
    return params


def apply(
    params: Params,
    x: Array,
    context: Array | None = None,
    *,
    heads: int,
    causal: bool = False,
    mask: Array | None = None,
    rotary: Scalar | None = None,
    alibi: bool = False,
    scale: Scalar | None = None,
    eps: Scalar = 1e-6,
) -> Array:
    """Multi-head attention of x on itself, or on `context`.

    Memory is linear in T (`jaxnn.ops.attention`), in the derivative by `jax.grad` too.

    Args:
        params: as made by `init`.
        x: (N, T, D), floating.
        context: (N, S, C), what keys and values are made of; None for x.
        heads, causal, rotary, alibi, scale, eps: as in `Settings`.
        mask: bools (N, S), True where a key counts, e.g. not at padding; or (N, T, S) for each query.

    Returns:
        (N, T, D) in the promoted dtype of x and the parameters. In a context, what a mask (N, S) excludes may be NaN; x
        itself is also made into queries, which may not. The layer `Attention` sets masked positions to 0.

    Raises:
        TypeError: x is not floating, or the mask not bool.
        ValueError: shapes do not fit each other or the parameters, or `causal` with a context of another length.

    Example:
        >>> params = init(jax.random.key(0), 8, 2)
        >>> apply(params, jnp.ones((1, 3, 8)), heads=2, causal=True).shape
        (1, 3, 8)

    References:
        Vaswani, A. et al. (2017). Attention is all you need, section 3.2.
        Shazeer, N. (2019). Fast transformer decoding: one write-head is all you need (K = 1).
        Ainslie, J. et al. (2023). GQA: training generalized multi-query transformer models (1 < K < H).
        Henry, A., Dachapally, P. R., Pawar, S. & Chen, Y. (2020). Query-key normalization for transformers (there L2).
    """
    settings = Settings(heads, causal, rotary, alibi, scale, eps)
    require_fit(params, x, x if context is None else context, mask, settings)
    if mask is not None and mask.ndim == 2:  # 0 before the products too: the gradient of wk has 0 times NaN
        context = only(mask, x if context is None else context)
    q, k, v = project(params, x, x if context is None else context, settings)[1]
    o, _ = attend(q, k, v, visible(mask, settings), scale=scale)
    return output(params, o)


def probabilities(
    params: Params,
    x: Array,
    context: Array | None = None,
    *,
    heads: int,
    causal: bool = False,
    mask: Array | None = None,
    rotary: Scalar | None = None,
    alibi: bool = False,
    scale: Scalar | None = None,
    eps: Scalar = 1e-6,
) -> Array:
    """The probabilities p_ts with which `apply` weighs the values: which positions each head attends to.

    For study and plots: unlike `apply` it takes memory quadratic in T.

    Args:
        params, x, context, heads, causal, mask, rotary, alibi, scale, eps: as for `apply`.

    Returns:
        (N, H, T, S), float32 (float64 for float64): at [n, h, t, s] the weight of key s in the output of query t; each
        row sums to 1, or is 0 if the query sees no key.

    Raises:
        TypeError, ValueError: as `apply`.

    Example:
        >>> params = init(jax.random.key(0), 8, 2)
        >>> probabilities(params, jnp.ones((1, 2, 8)), heads=2, causal=True)[0, 0]
        Array([[1. , 0. ],
               [0.5, 0.5]], dtype=float32)
    """
    settings = Settings(heads, causal, rotary, alibi, scale, eps)
    context = x if context is None else context
    require_fit(params, x, context, mask, settings)
    q, k, _ = project(params, x, context, settings)[1]
    return ops_probabilities(q, k, visible(mask, settings), scale=scale)


def project(
    params: Params, x: Array, context: Array, settings: Settings, *, first: Scalar = 0
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    """((q, k) before normalization and rotation, (q, k, v) as attention takes them), heads apart: (N, T, H, D_h).

    Example:
        >>> x = jnp.ones((1, 3, 8))
        >>> [y.shape for y in project(init(jax.random.key(0), 8, 4, kv_heads=2), x, x, Settings(4))[1]]
        [(1, 3, 4, 2), (1, 3, 2, 2), (1, 3, 2, 2)]
    """
    size = head_size(params, settings)
    q0, k0, v = (
        linear(y, params[f"w{name}"], params.get(f"b{name}")).reshape(*y.shape[:-1], -1, size)
        for name, y in (("q", x), ("k", context), ("v", context))
    )
    q, k = q0, k0
    if "q_scale" in params:
        q, k = (rms_norm.apply({"scale": params[f"{n}_scale"]}, y, eps=settings.eps) for n, y in (("q", q), ("k", k)))
    if settings.rotary is not None:
        q, k = (rotate(y, turns(y, settings, first)) for y in (q, k))
    return (q0, k0), (q, k, v)


def turns(x: Array, settings: Settings, first: Scalar = 0) -> Array:
    """The angles of the rotary encoding of queries or keys (N, T, H, D_h)."""
    base: Any = settings.rotary
    return angles(x.shape[1], x.shape[3], base, first, dtype=accumulation_dtype(x.dtype))


def output(params: Params, o: Array) -> Array:
    """The heads' outputs o (N, T, H, D_h) concatenated, times wo: (N, T, D)."""
    return linear(o.reshape(*o.shape[:2], -1), params["wo"], params.get("bo"))


def visible(mask: Array | None, settings: Settings, first: Scalar = 0) -> Visible:
    """What each query sees."""
    return Visible(mask, settings.causal, first, alibi_slopes(settings.heads) if settings.alibi else None)


def head_size(params: Params, settings: Settings) -> int:
    """D_h."""
    return param("attention", params, "wq").shape[1] // settings.heads


def require_fit(params: Params, x: Array, context: Array, mask: Array | None, settings: Settings) -> None:
    """Raise unless x, the context and the mask fit each other and the parameters.

    Example:
        >>> x = jnp.ones((1, 3, 8))
        >>> require_fit(init(jax.random.key(0), 8, 4), x, x, None, Settings(4))
    """
    wq, wk = param("attention", params, "wq"), param("attention", params, "wk")
    for name, value, w in (("x", x, wq), ("context", context, wk)):
        require_floating("attention", name, value.dtype, "Put Embedding in front of attention for tokens.")
        if value.ndim != 3 or value.shape[-1] != w.shape[0]:
            raise ValueError(
                f"attention: {name} must have shape (N, T, {w.shape[0]}) to match its weights {w.shape}, got "
                f"{value.shape}."
            )
    if wq.shape[1] % settings.heads:
        raise ValueError(f"attention: heads must divide the {wq.shape[1]} columns of wq, got {settings.heads}.")
    if x.shape[0] != context.shape[0]:
        raise ValueError(f"attention: x and context must have one N, got {x.shape} and {context.shape}.")
    if settings.causal and x.shape[1] != context.shape[1]:
        raise ValueError(
            f"attention: causal attention needs as many queries as keys, got {x.shape[1]} and {context.shape[1]}. "
            "Cross-attention is not causal."
        )
    if mask is None:
        return
    if mask.dtype != bool:
        raise TypeError(f"attention: mask must be bool, True where a key counts, got {mask.dtype}.")
    fits = (context.shape[:2], (*x.shape[:2], context.shape[1]))
    if mask.shape not in fits:
        raise ValueError(
            f"attention: mask must have shape (N, S) = {fits[0]} or (N, T, S) = {fits[1]}, got {mask.shape}."
        )

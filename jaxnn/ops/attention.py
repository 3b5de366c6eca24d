"""Scaled dot-product attention in memory linear in the number of positions, and its derivative.

Of queries q_t, keys k_s and values v_s, per head,

    z_ts = scale q_t . k_s + bias_ts,  p_ts = e^(z_ts - l_t),  l_t = log sum_s e^(z_ts),  o_t = sum_s p_ts v_s.

Only the log-sum-exp l (N, T, H) is kept for the derivative. Probabilities are computed for a block of queries at a
time, and again in the backward pass, from l, for a block of keys at a time. With dp_ts = do_t . v_s:

    dv_s = sum_t p_ts do_t
    dz_ts = p_ts (dp_ts - sum_r p_tr dp_tr) = p_ts (dp_ts - do_t . o_t)
    dq_t = scale sum_s dz_ts k_s,   dk_s = scale sum_t dz_ts q_t

The sum in the second line, over all keys, is do_t . o_t: one number per query, known before any block.

Scores, probabilities and sums are float32 (float64 for float64). In half precision p and dz are rounded to the dtype of
the operands for the products, which accumulate in float32.

References:
    Vaswani, A. et al. (2017). Attention is all you need, section 3.2.
    Rabe, M. N. & Staats, C. (2021). Self-attention does not need O(n^2) memory.
    Dao, T., Fu, D. Y., Ermon, S., Rudra, A. & Re, C. (2022). FlashAttention, algorithms 1 and 4.
    Press, O., Smith, N. & Lewis, M. (2022). Train short, test long: attention with linear biases (ALiBi), section 3.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.numerics import OF_HALF, accumulate, multiplied, multiplied_in_half, sum_of_products
from jaxnn.ops.blockwise import BLOCK, SCORE_BYTES, TPU_BYTES, Blocks, by_keys, by_platform, by_queries
from jaxnn.types import Array, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visible:
    """Which keys a query sees, and with which bias.

    Attributes:
        mask: bools (N, S), True where a key counts, or (N, T, S) for each query; None if all do.
        causal: whether query t sees only the keys s <= first + t.
        first: the position of query 0 among the keys; may be traced, for decoding with a cache.
        slopes: (H,), for the ALiBi bias slopes_h (s - first - t); None for none.

    Example:
        >>> Visible(causal=True).hidden(2, 3)
        Array([[False,  True,  True],
               [False, False,  True]], dtype=bool)
    """

    mask: Array | None = None
    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    first: Scalar = 0
    slopes: Array | None = None

    def distance(self, queries: int, keys: int) -> Array:
        """s - first - t, (T, S) int32: how far key s is ahead of query t."""
        t, s = (lax.broadcasted_iota(jnp.int32, (queries, keys), axis) for axis in (0, 1))
        return s - t - jnp.asarray(self.first, jnp.int32)

    def hidden(self, queries: int, keys: int) -> Array:
        """(T, S) bools, True where causality hides key s from query t."""
        return self.distance(queries, keys) > 0 if self.causal else jnp.zeros((queries, keys), bool)

    def biased(self, z: Array) -> Array:
        """Scores (N, K, G, T, S) with the bias, -inf where a key is hidden."""
        _, k, g, t, s = z.shape
        if self.slopes is not None:
            slopes = self.slopes.astype(z.dtype).reshape(1, k, g, 1, 1)
            z = z + slopes * self.distance(t, s).astype(z.dtype)[None, None, None]
        if self.causal:
            z = jnp.where(self.hidden(t, s)[None, None, None], -jnp.inf, z)
        if self.mask is None:
            return z
        mask = self.mask if self.mask.ndim == 3 else self.mask[:, None]
        return jnp.where(mask[:, None, None], z, -jnp.inf)


def attend(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible = Visible(),
    *,
    scale: Scalar | None = None,
    block: int | None = None,
) -> tuple[Array, Array]:
    """Attention, o_t = sum_s softmax_s(scale q_t . k_s + bias_ts) v_s, and the log-sum-exp of the scores.

    Args:
        q: queries (N, T, H, D), floating.
        k, v: keys and values (N, S, K, D), where K divides H: query head h reads key head floor(h K / H) (grouped-query
            attention; K = 1 is multi-query).
        visible: mask and bias.
        scale: of the scores; None for 1 / sqrt(D).
        block: queries at a time; with T <= block all probabilities (N, H, T, S) are computed at once. None for the
            platform's: BLOCK, on GPU more where their scores fit GPU_BYTES, on TPU so many that they fit TPU_BYTES.

    Returns:
        o (N, T, H, D) in the dtype of q, and l (N, T, H) in its accumulation dtype. A query that sees no key has o = 0,
        l = 0 and derivatives 0. Keys and values that a mask (N, S) excludes may be NaN.

    Raises:
        TypeError: q, k or v is not floating.
        ValueError: shapes that do not fit each other, or block < 1.

    Example:
        >>> x = jnp.ones((1, 3, 2, 4))
        >>> attend(x, x, x, Visible(causal=True))[0].shape
        (1, 3, 2, 4)
    """
    _require_fit("attend", q, k, v, block)
    if block is None:
        each = q.shape[0] * q.shape[2] * k.shape[1] * SCORE_BYTES
        return by_platform(functools.partial(attend, scale=scale), Blocks.of(each), q.shape[1], q, k, v, visible)
    k, v = _seen(k, visible), _seen(v, visible)

    def of_block(arrays: tuple[Array, ...], visible: Visible) -> tuple[tuple[Array, Array], tuple[()]]:
        z = _scores(arrays[0], k, visible, scale)
        highest = lax.stop_gradient(jnp.max(z, -1, keepdims=True, initial=-jnp.inf))
        highest = jnp.where(highest == -jnp.inf, jnp.zeros_like(highest), highest)
        p = jnp.exp(z - highest)
        total = jnp.sum(p, -1, keepdims=True)
        total = jnp.where(total == 0, jnp.ones_like(total), total)
        # Divided after the product: T D divisions, not T S.
        o = _product("nkgts,nskd->ntkgd", p.astype(v.dtype), v) / _rows(total)
        return (o.astype(q.dtype), _rows(highest + jnp.log(total))[..., 0]), ()

    if q.shape[1] > min(block, BLOCK):
        # Differentiated by JAX, each block computes its probabilities again, as the derivative below does.
        of_block = jax.checkpoint(of_block)
    (o, lse), _ = by_queries(of_block, (_grouped(q, k),), visible, block)
    return o.reshape(q.shape), lse.reshape(q.shape[:3])


def probabilities(q: Array, k: Array, visible: Visible = Visible(), *, scale: Scalar | None = None) -> Array:
    """The probabilities of attention themselves, softmax_s(scale q_t . k_s + bias_ts), in memory quadratic in T.

    For study and plots: `attend` computes its outputs without keeping them.

    Args:
        q, k, visible, scale: as for `attend`.

    Returns:
        p (N, H, T, S) in the accumulation dtype of q; a query that sees no key has the row 0.

    Example:
        >>> x = jnp.ones((1, 2, 1, 4))
        >>> probabilities(x, x, Visible(causal=True))
        Array([[[[1. , 0. ],
                 [0.5, 0.5]]]], dtype=float32)
    """
    z = _scores(_grouped(q, k), _seen(k, visible), visible, scale)
    highest = jnp.max(z, -1, keepdims=True)
    p = jnp.exp(z - jnp.where(highest == -jnp.inf, jnp.zeros_like(highest), highest))
    total = jnp.sum(p, -1, keepdims=True)
    p = p / jnp.where(total == 0, jnp.ones_like(total), total)
    return p.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])


def attend_grads(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    do: Array,
    visible: Visible = Visible(),
    *,
    scale: Scalar | None = None,
    block: int | None = None,
) -> tuple[Array, Array, Array]:
    """The derivative of `attend`: (dq, dk, dv), from the cotangent `do` of o.

    Args:
        q, k, v, visible, scale: the arguments of `attend`.
        o, lse: its results.
        do: (N, T, H, D).
        block: keys at a time; None for the platform's.

    Returns:
        dq, dk, dv of the shapes and dtypes of q, k, v; 0 at keys that a mask excludes.

    Example:
        >>> x = jnp.ones((1, 3, 2, 4))
        >>> o, lse = attend(x, x, x)
        >>> [dx.shape for dx in attend_grads(x, x, x, o, lse, x)]
        [(1, 3, 2, 4), (1, 3, 2, 4), (1, 3, 2, 4)]
    """
    _require_fit("attend_grads", q, k, v, block)
    if block is None:
        each = q.shape[0] * q.shape[2] * q.shape[1] * SCORE_BYTES
        grads = functools.partial(attend_grads, scale=scale)
        return by_platform(grads, Blocks.of(each, on_chip=2 * TPU_BYTES), k.shape[1], q, k, v, o, lse, do, visible)
    if k.shape[1] > BLOCK:
        # Or XLA, which finds the same product in the forward pass, would keep its scores (in loops it does not).
        q, k, v, do = lax.optimization_barrier((q, k, v, do))
    along_o = sum_of_products(accumulate(do), accumulate(o), (3,))
    q_heads, lse, do, along_o = (_grouped(x, k) for x in (q, lse[..., None], do, along_o))
    factor = _scale(q, scale)

    def of_block(arrays: tuple[Array, ...], visible: Visible) -> tuple[tuple[Array, Array], Array]:
        k, v = arrays
        p = jnp.exp(_scores(q_heads, k, visible, scale) - _columns(lse))
        dz = p * (_product("ntkgd,nskd->nkgts", do, v) - _columns(along_o)) * factor
        dz = dz.astype(q.dtype)
        dk = _product("nkgts,ntkgd->nskd", dz, q_heads).astype(k.dtype)
        dv = _product("nkgts,ntkgd->nskd", p.astype(do.dtype), do).astype(v.dtype)
        return (dk, dv), _product("nkgts,nskd->ntkgd", dz, k)

    # By blocks of keys: one sum over the blocks, dq, where blocks of queries have two, dk and dv.
    (dk, dv), dq = by_keys(of_block, (_seen(k, visible), _seen(v, visible)), visible, block)
    return dq.reshape(q.shape).astype(q.dtype), dk, dv


def alibi_slopes(heads: int) -> Array:
    """The slopes of ALiBi, (H,): 2^(-8 h / H) for h = 1, ..., H if H is a power of two.

    For another H, those of the next smaller power of two, followed by every second of twice as many.

    Example:
        >>> alibi_slopes(4)
        Array([0.25      , 0.0625    , 0.015625  , 0.00390625], dtype=float32)

    Reference: Press, O., Smith, N. & Lewis, M. (2022). Train short, test long: attention with linear biases enables
        input length extrapolation, section 3, and its code for other numbers of heads.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    more = [2 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return jnp.asarray([*slopes, *more][:heads], jnp.float32)


def _require_fit(where: str, q: Array, k: Array, v: Array, block: int | None) -> None:
    """Raise unless these are queries with keys and values of theirs."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        require_floating(where, name, x.dtype)
    if block is not None:
        require_positive_int(where, "block", block)
    fit = q.ndim == k.ndim == 4 and k.shape == v.shape and (q.shape[0], q.shape[3]) == (k.shape[0], k.shape[3])
    if not fit or q.shape[2] % k.shape[2]:
        raise ValueError(
            f"{where}: q must have shape (N, T, H, D), k and v (N, S, K, D) where K divides H, got {q.shape}, "
            f"{k.shape} and {v.shape}."
        )


def _seen(x: Array, visible: Visible) -> Array:
    """Keys or values with 0 where no query sees them: 0 times NaN is NaN."""
    if visible.mask is None or visible.mask.ndim != 2:
        return x
    return jnp.where(visible.mask[..., None, None], x, jnp.zeros((), x.dtype))


def _grouped(x: Array, k: Array) -> Array:
    """(N, T, H, D) as (N, T, K, H / K, D)."""
    return x.reshape(*x.shape[:2], k.shape[2], x.shape[2] // k.shape[2], x.shape[3])


def _scale(q: Array, scale: Scalar | None) -> Array:
    """The scale of the scores."""
    return jnp.asarray(1 / math.sqrt(q.shape[-1]) if scale is None else scale, accumulate(q).dtype)


def _scores(q: Array, k: Array, visible: Visible, scale: Scalar | None) -> Array:
    """(N, K, G, T, S), -inf where hidden."""
    return visible.biased(_product("ntkgd,nskd->nkgts", q, k) * _scale(q, scale))


def _product(subscripts: str, x: Array, y: Array) -> Array:
    """A product in the accumulation dtype, at the ambient precision; of half precision in its derivatives too."""

    def einsum(x: Array, y: Array, **how: Any) -> Array:
        return jnp.einsum(subscripts, x, y, **how)

    return (multiplied_in_half if x.dtype == y.dtype and x.dtype in OF_HALF else multiplied)(einsum, x, y)


def _rows(x: Array) -> Array:
    """(N, K, G, T, 1) as (N, T, K, G, 1)."""
    return jnp.moveaxis(x, 3, 1)


def _columns(x: Array) -> Array:
    """(N, T, K, G, 1) as (N, K, G, T, 1)."""
    return jnp.moveaxis(x, 1, 3)

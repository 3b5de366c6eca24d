"""Queries, keys, values and what sees what; and attention from its definition, with all scores at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jaxnn.ops.attention import Visible
from tests.helpers import random


class Case(NamedTuple):
    """Sizes and settings: H = K G heads; `mask` None, "keys" (N, S) or "pairs" (N, T, S)."""

    n: int = 2
    t: int = 5
    s: int = 5
    k: int = 2
    g: int = 2
    d: int = 3
    block: int = 256
    mask: str | None = None
    causal: bool = False
    first: int = 0
    alibi: bool = False
    scale: float | None = None
    seed: int = 0

    def arrays(self) -> tuple[Any, ...]:
        """q, k, v, the cotangents of o and of the log-sum-exp, the mask and the slopes."""
        n, t, s, k, d, heads = self.n, self.t, self.s, self.k, self.d, self.k * self.g
        shapes = [(n, t, heads, d), (n, s, k, d), (n, s, k, d), (n, t, heads, d), (n, t, heads)]
        rng = np.random.default_rng(self.seed)
        masks = {None: None, "keys": rng.random((n, s)) < 0.6, "pairs": rng.random((n, t, s)) < 0.5}
        slopes = 0.3 + np.abs(random(9, heads)) if self.alibi else None
        return *(random(self.seed + i, *shape) for i, shape in enumerate(shapes)), masks[self.mask], slopes

    def visible(self, mask: Any, slopes: Any) -> Visible:
        return Visible(mask, self.causal, self.first, slopes)


KINDS = {
    "plain": Case(),
    "longer context": Case(t=3, s=7),
    "shorter context": Case(t=7, s=2, mask="keys"),
    "causal": Case(causal=True),
    "causal, blocks": Case(t=7, s=7, causal=True, block=3),
    "mask of keys": Case(mask="keys"),
    "mask of pairs, blocks": Case(t=7, s=4, mask="pairs", block=2),
    "mask of keys, causal, blocks": Case(t=6, s=6, mask="keys", causal=True, block=4),
    "alibi": Case(alibi=True, causal=True),
    "alibi, both sides, blocks": Case(alibi=True, t=5, block=2),
    "scale": Case(scale=0.7, mask="pairs"),
    "first, blocks": Case(t=3, s=6, causal=True, first=3, alibi=True, block=2),
    "nothing seen": Case(t=4, s=4, causal=True, first=-2, block=3),
    "multi-query": Case(k=1, g=4, causal=True),
    "one head": Case(k=1, g=1),
    "each its own keys": Case(k=4, g=1, block=2),
    "block 1": Case(t=3, s=3, block=1, causal=True, mask="keys", seed=3),
    "one of each": Case(1, 1, 1, 1, 1, 1),
}


@st.composite
def drawn(draw: Any) -> Case:
    alibi = draw(st.booleans())
    return Case(
        *(draw(st.integers(1, most)) for most in (2, 7, 7, 2, 3, 4)),
        draw(st.sampled_from([1, 2, 3, 256])),
        draw(st.sampled_from([None, "keys", "pairs"])),
        draw(st.booleans()),
        draw(st.integers(-2, 3)),
        alibi,
        draw(st.sampled_from([None, 0.3, 2.0])),
        draw(st.integers(0, 99)),
    )


def dense(q: Any, k: Any, v: Any, mask: Any, slopes: Any, case: Case) -> tuple[Any, Any]:
    """o and the log-sum-exp, from all scores: one einsum per formula, keys repeated for the heads that share them."""
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    z = jnp.einsum("nthd,nshd->nhts", q, k) * (1 / math.sqrt(q.shape[-1]) if case.scale is None else case.scale)
    ahead = jnp.arange(k.shape[1])[None, :] - jnp.arange(q.shape[1])[:, None] - case.first
    if slopes is not None:
        z = z + slopes[None, :, None, None] * ahead.astype(z.dtype)[None, None]
    seen = jnp.ones(z.shape, bool)
    if case.causal:
        seen = seen & (ahead <= 0)[None, None]
    if mask is not None:
        seen = seen & (mask[:, None, None, :] if mask.ndim == 2 else mask[:, None])
    some = seen.any(-1, keepdims=True)
    z = jnp.where(seen, z, jnp.where(some, -jnp.inf, 0.0))
    p = jax.nn.softmax(z, -1) * some.astype(z.dtype)
    lse = jax.nn.logsumexp(z, -1) * some[..., 0].astype(z.dtype)
    lse = jnp.where(some[..., 0], lse, jnp.zeros_like(lse))
    return jnp.einsum("nhts,nshd->nthd", p, v), jnp.moveaxis(lse, 1, 2)


def by_loops(q: Any, k: Any, v: Any, mask: Any, slopes: Any, case: Case) -> np.ndarray:
    """o in NumPy, one query of one head at a time."""
    n, t, heads, d = q.shape
    o = np.zeros(q.shape)
    for i in range(n):
        for j in range(t):
            for h in range(heads):
                kind = h // (heads // k.shape[2])
                z = {}
                for s in range(k.shape[1]):
                    ahead = s - j - case.first
                    if case.causal and ahead > 0:
                        continue
                    if mask is not None and not (mask[i, s] if mask.ndim == 2 else mask[i, j, s]):
                        continue
                    z[s] = (case.scale or d**-0.5) * float(q[i, j, h] @ k[i, s, kind])
                    z[s] += 0.0 if slopes is None else slopes[h] * ahead
                if z:
                    weights = np.exp(np.array(list(z.values())) - max(z.values()))
                    o[i, j, h] = weights @ v[i, list(z), kind] / weights.sum()
    return o

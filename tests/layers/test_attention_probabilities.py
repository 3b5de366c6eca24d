"""The probabilities of attention: the outputs of `apply` are their products with the values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.layers import attention
from jaxnn.ops.attention import attend
from tests.helpers import float64, random, strict

N, T, S, D, H = 2, 6, 4, 8, 4
KEYS = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]], bool)
EACH = np.tril(np.ones((N, T, T), bool), -1)  # query 0 sees no key
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "causal, rotary, normalized": ({"qk_norm": True}, {"causal": True, "rotary": 100.0}),
    "grouped, ALiBi": ({"kv_heads": 2}, {"causal": True, "alibi": True}),
    "padded": ({}, {"mask": KEYS, "scale": 0.3}),
    "masked by query": ({}, {"mask": EACH}),
    "cross": ({"context_features": 3}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_probabilities_times_values(case: str) -> None:
    made, how = CASES[case]
    with float64(), strict():
        params = attention.init(jax.random.key(0), D, H, dtype=jnp.float64, **made)
        x = jnp.asarray(random(0, N, T, D))
        context = jnp.asarray(random(1, N, S, 3)) if case == "cross" else None
        how = how | ({"mask": jnp.asarray(how["mask"])} if "mask" in how else {})

        @jax.jit
        def both(params: Any) -> tuple[Any, ...]:
            p = attention.probabilities(params, x, context, heads=H, **how)
            y = attention.apply(params, x, context, heads=H, **how)
            settings = attention.Settings(H, **{name: value for name, value in how.items() if name != "mask"})
            q, k, v = attention.project(params, x, x if context is None else context, settings)[1]
            seen = attention.visible(how.get("mask"), settings)
            return p, y, v, attend(q, k, v, seen, scale=settings.scale)[0]

        p, y, v, o = (np.asarray(value) for value in both(params))
        wo = np.asarray(params["wo"])
    v = np.repeat(v, H // v.shape[2], axis=2)
    assert p.shape == (N, H, T, v.shape[1])
    np.testing.assert_allclose(np.einsum("nhts,nshd->nthd", p, v), o, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.einsum("nhts,nshd->nthd", p, v).reshape(N, T, -1) @ wo, y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(p.sum(axis=3), np.ones((N, H, T)) * (np.arange(T) > 0) ** (case == "masked by query"))
    assert not np.allclose(np.einsum("nhts,nshd->nthd", p[:, ::-1], v), o), "another order of the heads"
    if how.get("causal"):
        assert (p[..., ~np.tril(np.ones((T, T), bool))] == 0).all()
    if case == "padded":
        assert (np.moveaxis(p, 3, 1)[~KEYS] == 0).all()


@pytest.mark.slow
def test_half_precision_and_padding_of_nan() -> None:
    params = attention.init(jax.random.key(0), D, H, dtype=jnp.bfloat16)
    x = jnp.asarray(random(0, N, T, D), jnp.bfloat16)
    nan = jnp.where(jnp.asarray(KEYS)[..., None], x, jnp.nan)
    p, q = (attention.probabilities(params, each, heads=H, mask=jnp.asarray(KEYS)) for each in (x, nan))
    assert p.dtype == jnp.float32
    rows = np.broadcast_to(KEYS[:, None], (N, H, T))
    np.testing.assert_array_equal(p[rows], q[rows])
    with pytest.raises(ValueError, match="heads must divide the 8 columns of wq, got 3"):
        attention.probabilities(params, x, heads=3)

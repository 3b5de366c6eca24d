"""Rules under `jax.vmap` over many cotangents of one forward pass, as curvature uses them: compiled as not compiled.

Some compilers for CPUs fuse a sum of products with what reads it, wrongly at these sizes (`numerics.sum_of_products`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, layers, losses, models, per_example
from jaxnn.activations import log_softmax_jvp, softmax_vjp
from jaxnn.backprop.combinators import backward, forward
from jaxnn.backprop.rule import USES
from tests.helpers import slow, strict

MANY = 64
NETS: dict[str, layers.Layer] = {
    "RMS norm": layers.RMSNorm(),
    "layer norm": layers.LayerNorm(),
    "group norm": layers.GroupNorm(2),
    "batch norm": layers.BatchNorm(),
    "softmax": layers.Softmax,
    "attention": layers.Attention(2, causal=True, qk_norm=True, rotary=1e4),
    "gated": layers.GatedDense(8),
    "GRU": layers.GRU(8),
}


@pytest.mark.parametrize("name", ["RMS norm", "softmax", *slow("layer norm", "group norm", "batch norm", "attention")])
def test_many_cotangents_at_once(name: str) -> None:
    net, numbers = NETS[name], np.random.default_rng(0)
    x = jnp.asarray(numbers.standard_normal((MANY, 16, 16)), jnp.float32)
    params, state = net.init(jax.random.key(0), (16, 16))
    params = jax.tree.map(lambda p: p + jnp.asarray(0.1 * numbers.standard_normal(p.shape), p.dtype), params)
    dy = jnp.asarray(numbers.standard_normal((MANY, *x.shape)), jnp.float32)

    def back(params: Any, x: Any, dy: Any) -> Any:
        cache = forward(net, params, state, x, train=True)[2]
        return jax.vmap(lambda dy: backward(net, params, cache, dy, USES)[0])(dy)

    with strict():
        found, expected = jax.jit(back)(params, x, dy), back(params, x, dy)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("f", [softmax_vjp, log_softmax_jvp])
def test_many_tangents_at_once(f: Any) -> None:
    numbers = np.random.default_rng(1)
    z, v = (
        jnp.asarray(numbers.standard_normal(shape), jnp.float32) for shape in ((MANY, 16, 16), (MANY, MANY, 16, 16))
    )
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected = v - (p * v).sum(-1, keepdims=True)
    found = jax.jit(jax.vmap(f, (None, 0)))(z, v)
    np.testing.assert_allclose(found, p * expected if f is softmax_vjp else expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_the_trace_of_a_transformers_ggn(stacked: bool) -> None:
    """372 columns, compiled and not: every column is a cotangent of the same forward pass."""
    net = models.transformer(62, width=16, depth=2, heads=2, stacked=stacked)
    tokens = np.random.default_rng(0).integers(0, 62, (3, 6))
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((6,), jnp.int32))
    moved = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + jnp.asarray(0.05 * moved.standard_normal(p.shape), p.dtype), params)
    recorded = backprop.ggn_record(net, losses.softmax_cross_entropy)
    compiled = per_example.trace(jax.jit(recorded)(params, state, tokens, tokens))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        exact = per_example.trace(jax.jit(recorded)(wide, state, tokens, tokens))
    np.testing.assert_allclose(compiled, exact, rtol=1e-4)

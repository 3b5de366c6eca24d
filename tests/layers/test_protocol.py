"""What every layer keeps: dtypes, strict promotion, jit, vmap, finite gradients, modes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import layers
from jaxnn.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    Relu,
    RMSNorm,
)
from jaxnn.layers.base import Layer, as_example, output_example
from tests.helpers import assert_close, float64, random, strict

pytestmark = pytest.mark.sampled

IMAGE = (6, 6, 4)
CASES = {
    "dense": (Dense(3), (4,), (3,)),
    "dense without bias": (Dense(3, b_init=None), (5, 4), (5, 3)),
    "conv 1-D": (Conv(3, 2, stride=2), (6, 4), (3, 3)),
    "conv 2-D": (Conv(4, (3, 2), padding="SAME", groups=2), IMAGE, (6, 6, 4)),
    "conv 3-D": (Conv(2, 2, b_init=None), (3, 3, 3, 2), (2, 2, 2, 2)),
    "depthwise": (DepthwiseConv(3, multiplier=2, dilation=2), IMAGE, (2, 2, 8)),
    "max pool": (MaxPool(3, stride=2), IMAGE, (2, 2, 4)),
    "average pool": (AveragePool(2), IMAGE, (3, 3, 4)),
    "global average": (GlobalAveragePool, IMAGE, (4,)),
    "global max": (GlobalMaxPool, IMAGE, (4,)),
    "flatten": (Flatten, IMAGE, (144,)),
    "relu": (Relu, IMAGE, IMAGE),
    "batch norm": (BatchNorm(), IMAGE, IMAGE),
    "layer norm": (LayerNorm(), IMAGE, IMAGE),
    "group norm": (GroupNorm(2), IMAGE, IMAGE),
    "rms norm": (RMSNorm(), IMAGE, IMAGE),
    "dropout": (Dropout(0.5), IMAGE, IMAGE),
    "embedding": (Embedding(7, 3), jax.ShapeDtypeStruct((5,), jnp.int32), (5, 3)),
}
EACH = pytest.mark.parametrize(("layer", "example", "output"), CASES.values(), ids=CASES)


def batch_of(example, n: int = 3) -> jax.Array:
    one = as_example(example)
    if jnp.issubdtype(one.dtype, jnp.integer):
        return jnp.asarray(np.random.default_rng(0).integers(0, 7, (n, *one.shape)), one.dtype)
    return jnp.asarray(random(0, n, *one.shape), one.dtype)


@EACH
def test_strict_jit_vmap_and_finite_gradients(layer: Layer, example, output):
    """Under strict promotion: eager is jitted, vmap over stacked batches is one after another, gradients are finite."""
    x = batch_of(example)

    inputs = jnp.issubdtype(x.dtype, jnp.floating)

    def loss(params, state, x, key):
        y, state = layer.apply(params, state, x, key=key, train=True)
        return jnp.sum(jnp.square(y)), state

    @jax.jit
    def everything(params, state, x, key):
        stacked = jax.vmap(layer.predict, (None, None, 0))(params, state, jnp.stack([x, x[::-1]]))
        (_, new), grads = jax.value_and_grad(loss, (0, 2) if inputs else 0, has_aux=True)(params, state, x, key)
        return stacked, new, grads

    with strict():
        key = jax.random.key(0)
        params, state = jax.jit(lambda key: layer.init(key, example))(key)
        assert output_example(layer, params, state, example).shape == output
        y = layer.predict(params, state, x)
        stacked, new, grads = everything(params, state, x, key)
    assert y.shape == (3, *output)
    assert_close(stacked, np.stack([y, y[::-1]]), rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert any(np.any(g) for g in jax.tree.leaves(grads))


@EACH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtypes_follow_the_example(layer: Layer, example, output, dtype):
    """Parameters and outputs have the dtype of the example, running statistics the accumulation dtype, and keep it."""
    with float64(), strict():
        one = as_example(example)
        integers = jnp.issubdtype(one.dtype, jnp.integer)
        one = one if integers else jax.ShapeDtypeStruct(one.shape, dtype)
        x = jax.ShapeDtypeStruct((3, *one.shape), one.dtype)
        key = jax.random.key(0)
        params, state = jax.eval_shape(lambda key: layer.init(key, one), key)
        assert {p.dtype for p in jax.tree.leaves(params)} <= {jnp.dtype(jnp.float32 if integers else dtype)}
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
        assert {s.dtype for s in jax.tree.leaves(state)} <= {jnp.dtype(wide)}
        for train in (False, True):
            y, new = jax.eval_shape(
                lambda p, s, x, k, train=train: layer.apply(p, s, x, key=k, train=train), params, state, x, key
            )
            assert y.dtype == (jnp.float32 if integers else dtype)
            assert new == state


def test_two_keys_drop_differently():
    x = jnp.ones(100)
    first, second = (Dropout(0.5).apply((), (), x, key=jax.random.key(s), train=True)[0] for s in (0, 1))
    assert np.any(first != second)


def test_parameters_by_name_and_initial_value():
    params, state = BatchNorm().init(jax.random.key(0), IMAGE)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    assert_close(params, {"scale": ones, "shift": zeros}, rtol=0)
    assert_close(state, {"mean": zeros, "var": ones}, rtol=0)
    w = jax.jit(lambda key: layers.dense.init(key, 50, 300))(jax.random.key(0))["w"]
    np.testing.assert_allclose(np.var(w), 2 / 50, rtol=0.05)
    w = jax.jit(lambda key: layers.conv.init(key, 3, 4, 400))(jax.random.key(0))["w"]
    np.testing.assert_allclose(np.var(w), 2 / 36, rtol=0.05)
    w = jax.jit(lambda key: layers.embedding.init(key, 300, 40))(jax.random.key(0))["w"]
    np.testing.assert_allclose(np.var(w), 1, rtol=0.05)


def test_modules_and_factories_are_one_function():
    x = batch_of(IMAGE)
    layer = Conv(2, 3, padding="SAME", stride=2)
    params, state = layer.init(jax.random.key(0), IMAGE)
    assert_close(layers.conv.init(jax.random.key(0), 3, 4, 2), params, rtol=0)
    assert_close(layers.conv.apply(params, x, padding="SAME", stride=2), layer.predict(params, state, x), rtol=0)
    params, state = Dense(2).init(jax.random.key(0), (4,))
    assert_close(layers.dense.init(jax.random.key(0), 4, 2), params, rtol=0)
    assert_close(layers.dense.apply(params, x), Dense(2).predict(params, (), x), rtol=0)


def test_kinds_are_distinct_and_settings_kept():
    kinds = [layer.kind for layer, _, _ in CASES.values()]
    assert len({kind.name for kind in kinds}) == len(set(kinds)) == 14
    assert dict(MaxPool(3, stride=2).options) == {"window": 3, "stride": 2, "padding": "VALID"}
    assert dict(Dropout(0.25).options) == {"rate": 0.25}
    assert all(hasattr(layers, name) for name in layers.__all__)

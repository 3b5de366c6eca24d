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
from tests.helpers import assert_close, float64, random, slow, strict

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
    "prelu": (layers.PRelu(), IMAGE, IMAGE),
    "swish": (layers.Swish(shared=True), IMAGE, IMAGE),
    "batch norm": (BatchNorm(), IMAGE, IMAGE),
    "layer norm": (LayerNorm(), IMAGE, IMAGE),
    "group norm": (GroupNorm(2), IMAGE, IMAGE),
    "rms norm": (RMSNorm(), IMAGE, IMAGE),
    "rnn": (layers.RNN(3), (5, 4), (5, 3)),
    "lstm": (layers.LSTM(3), (5, 4), (5, 3)),
    "gru": (layers.GRU(3), (5, 4), (5, 3)),
    "linear recurrence": (layers.LinearRecurrence(3), (5, 4), (5, 3)),
    "reversed": (layers.Reversed(layers.GRU(3, reset_after=False)), (5, 4), (5, 3)),
    "dropout": (Dropout(0.5), IMAGE, IMAGE),
    "attention": (layers.Attention(2, kv_heads=1, causal=True, rotary=100.0, qk_norm=True), (5, 4), (5, 4)),
    "gated": (layers.GatedDense(3), (5, 4), (5, 3)),
    "learned positions": (layers.LearnedPositions(7), (5, 4), (5, 4)),
    "sinusoidal positions": (layers.SinusoidalPositions(), (5, 4), (5, 4)),
    "last position": (layers.LastPosition, (5, 4), (4,)),
    "mean position": (layers.MeanPosition, (5, 4), (4,)),
    "embedding": (Embedding(7, 3), jax.ShapeDtypeStruct((5,), jnp.int32), (5, 3)),
}
QUICK = ("dense", "conv 2-D", "max pool", "batch norm", "dropout", "attention", "embedding")
"""One layer of each kind; the norms, poolings and convolutions have tests of their own."""

EACH = pytest.mark.parametrize(
    ("layer", "example", "output"),
    [pytest.param(*case, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, case in CASES.items()],
)


def batch_of(example, n: int = 3) -> np.ndarray:
    one = as_example(example)
    if jnp.issubdtype(one.dtype, jnp.integer):
        return np.random.default_rng(0).integers(0, 7, (n, *one.shape)).astype(one.dtype)
    return random(0, n, *one.shape, dtype=one.dtype)


@EACH
def test_strict_jit_vmap_and_finite_gradients(layer: Layer, example, output):
    """Under strict promotion: vmap over stacked batches is one after another, gradients are finite."""
    x = batch_of(example)
    inputs = jnp.issubdtype(x.dtype, jnp.floating)

    def loss(params, state, x, key):
        y, state = layer.apply(params, state, x, key=key, train=True)
        return jnp.sum(jnp.square(y)), state

    @jax.jit
    def everything(x, key):
        params, state = layer.init(key, example)
        y = layer.predict(params, state, x)
        stacked = jax.vmap(layer.predict, (None, None, 0))(params, state, jnp.stack([x, x[::-1]]))
        (_, new), grads = jax.value_and_grad(loss, (0, 2) if inputs else 0, has_aux=True)(params, state, x, key)
        return params, state, y, stacked, new, grads

    with strict():
        params, state, y, stacked, new, grads = everything(x, jax.random.key(0))
        assert output_example(layer, params, state, example).shape == output
    assert y.shape == (3, *output)
    assert_close(stacked, np.stack([y, y[::-1]]), rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert any(np.any(g) for g in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "example", "output"), CASES.values(), ids=CASES)
def test_operations_one_by_one_are_the_compiled_layer(layer: Layer, example, output):
    x = batch_of(example)
    with strict():
        params, state = jax.jit(lambda key: layer.init(key, example))(jax.random.key(0))
        assert_close(layer.predict(params, state, x), jax.jit(layer.predict)(params, state, x), rtol=1e-5, atol=1e-5)


@EACH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64, *slow(jnp.float16, jnp.float32)])
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
    x, layer = np.ones(100, np.float32), Dropout(0.5)
    dropped = jax.jit(lambda key: layer.apply((), (), x, key=key, train=True)[0])
    assert np.any(dropped(jax.random.key(0)) != dropped(jax.random.key(1)))


def test_parameters_by_name_and_initial_value():
    @jax.jit
    def drawn(key):
        weights = layers.dense.init(key, 50, 300), layers.conv.init(key, 3, 4, 400), layers.embedding.init(key, 300, 40)
        return BatchNorm().init(key, IMAGE), [params["w"] for params in weights]

    (params, state), weights = drawn(jax.random.key(0))
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    assert_close(params, {"scale": ones, "shift": zeros}, rtol=0)
    assert_close(state, {"mean": zeros, "var": ones}, rtol=0)
    for w, variance in zip(weights, (2 / 50, 2 / 36, 1), strict=True):
        np.testing.assert_allclose(np.var(w), variance, rtol=0.05)


def test_modules_and_factories_are_one_function():
    x, conv, dense = batch_of(IMAGE), Conv(2, 3, padding="SAME", stride=2), Dense(2)

    @jax.jit
    def both(key):
        of_conv, state = conv.init(key, IMAGE)
        of_dense, _ = dense.init(key, (4,))
        modules = (
            layers.conv.init(key, 3, 4, 2),
            layers.conv.apply(of_conv, x, padding="SAME", stride=2),
            layers.dense.init(key, 4, 2),
            layers.dense.apply(of_dense, x),
        )
        return modules, (of_conv, conv.predict(of_conv, state, x), of_dense, dense.predict(of_dense, (), x))

    assert_close(*both(jax.random.key(0)), rtol=0)


def test_kinds_are_distinct_and_settings_kept():
    kinds = [layer.kind for layer, _, _ in CASES.values()]
    assert len({kind.name for kind in kinds}) == len(set(kinds)) == 26
    assert dict(MaxPool(3, stride=2).options) == {"window": 3, "stride": 2, "padding": "VALID"}
    assert dict(Dropout(0.25).options) == {"rate": 0.25}
    assert all(hasattr(layers, name) for name in layers.__all__)

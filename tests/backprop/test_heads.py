"""A dense layer and softmax cross-entropy in chunks of classes: the results of the layer and the loss apart."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, layers, losses, models, per_example
from jaxnn.backprop import heads
from jaxnn.layers import Dense, Dropout, Embedding, LayerNorm, Softmax, Tanh, tied
from jaxnn.losses import logits as arithmetic
from tests.helpers import assert_close, float64, random, slow, strict

N, T, D, V = 4, 3, 5, 11
CHUNK = 4  # V is no multiple of it
SMOOTHED = functools.partial(losses.softmax_cross_entropy, ignore_index=2, label_smoothing=0.1)
TABLE = Embedding(V, D, dtype=jnp.float64)
NETS = {
    "serial": models.serial(Dense(6), Tanh, Dropout(0.3), Dense(V)),
    "nested": models.serial(models.serial(Dense(6), LayerNorm()), models.serial(Tanh, Dense(V, b_init=None))),
    "one layer": Dense(V),
    "tied": models.serial(models.serial(TABLE, Dense(D)), Tanh, models.serial(tied(TABLE))),
}
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5], np.float32)


def made(name: str, shape: tuple[int, ...]) -> Any:
    net = NETS[name]
    tokens = np.random.default_rng(2).integers(0, V, (N, *shape))
    if name == "tied":
        params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.int32))
        return net, jax.tree.map(lambda p: p + 0.3 * random(p.size, *p.shape), params), state, tokens, tokens[..., ::-1]
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float64))
    params = jax.tree.map(lambda p: p + 0.3 * random(p.size, *p.shape), params)
    return net, params, state, random(1, N, *shape), np.random.default_rng(2).integers(0, V, (N, *shape[:-1]))


CASES = [
    ("serial", (T, D), SMOOTHED, 2),
    ("tied", (T,), SMOOTHED, 1),
    *slow(
        ("nested", (D,), losses.softmax_cross_entropy, None),
        ("nested", (2, T, D), SMOOTHED, 1),
        ("one layer", (T, D), losses.softmax_cross_entropy, None),
        ("one layer", (D,), SMOOTHED, None),
    ),
]


@pytest.mark.parametrize(("name", "shape", "loss", "remat"), CASES)
def test_values_and_gradients(name: str, shape: tuple[int, ...], loss: Any, remat: int | None) -> None:
    with float64(), strict():
        net, params, state, x, y = made(name, shape)

        def run(**options: Any) -> Any:
            vg = backprop.value_and_grad(net, loss, losses.l2(0.1), remat_every=remat, **options)
            return jax.jit(vg)(params, state, x, y, key=jax.random.key(1), weights=WEIGHTS)

        assert_close(run(class_chunk=CHUNK), run(), rtol=1e-12, atol=1e-13)


SMALL: dict[str, Any] = {"width": 4, "depth": 2, "heads": 1}
PADDED: dict[str, Any] = {
    "decoder": (models.transformer(V, pad=0, **SMALL), 1),
    "decoder, dense": (models.transformer(V, pad=0, stacked=True, head=Dense(V, b_init=None), **SMALL), None),
    "one vocabulary": (models.encoder_decoder(V, pad=0, **SMALL), None),
    "two vocabularies": (models.encoder_decoder(V + 1, V, stacked=True, pad=0, **SMALL), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PADDED)
def test_padded_sequences_and_encoder_decoders(name: str) -> None:
    """`Values` after the last layer: logits and cotangents at padding are 0."""
    net, remat = PADDED[name]
    x = np.random.default_rng(1).integers(1, V, (N, 5))
    x[0, 3:] = x[1, 4:] = 0
    inputs: Any = x if "vocab" not in name else layers.Sequences(x, None, layers.Sequences(x[::-1, :4]))
    with float64(), strict():
        shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], jnp.int32), inputs)
        params, state = net.init(jax.random.key(0), shapes)
        params = jax.tree.map(lambda p: 0.3 * random(p.size, *p.shape), params)

        def run(**options: Any) -> Any:
            vg = backprop.value_and_grad(net, SMOOTHED, remat_every=remat, **options)
            norms = per_example.norms(backprop.record(net, SMOOTHED, **options)(params, state, inputs, x[:, ::-1]))
            return vg(params, state, inputs, x[:, ::-1]), norms

        assert_close(*jax.jit(lambda: (run(class_chunk=CHUNK), run()))(), rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_a_bias_would_be_added_at_padding() -> None:
    net = models.transformer(V, pad=0, head=Dense(V), **SMALL)
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((T,), jnp.int32))
    tokens = np.ones((N, T), np.int32)
    with pytest.raises(ValueError, match=r"has a bias.*b_init=None"):
        backprop.value_and_grad(net, SMOOTHED, class_chunk=CHUNK)(params, state, tokens, tokens)


@pytest.mark.parametrize(("name", "shape", "loss", "remat"), CASES)
def test_statistics_of_the_tape(name: str, shape: tuple[int, ...], loss: Any, remat: int | None) -> None:
    def statistics(tape: Any) -> Any:
        found = [f(tape) for f in (per_example.sq_norms, per_example.variance, per_example.gram, per_example.mean_grad)]
        return tape.losses, per_example.materialize(tape), per_example.clipped_grad(tape, 0.1), found

    with float64(), strict():
        net, params, state, x, y = made(name, shape)

        def run(**options: Any) -> Any:
            record = backprop.record(net, loss, **options)
            return jax.jit(lambda *args: statistics(record(*args)))(params, state, x, y)

        assert_close(run(class_chunk=CHUNK), run(), rtol=1e-11, atol=1e-13)


def broken_share(head: Any) -> Any:
    return jnp.ones(head.labels.shape, head.logits.dtype)


@pytest.mark.slow
def test_broken_variants_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "position_shares", broken_share)
    with pytest.raises(AssertionError):
        test_statistics_of_the_tape(*CASES[0])
    right = arithmetic.weight_grad
    monkeypatch.setattr(arithmetic, "weight_grad", lambda logits, delta: 0 * right(logits, delta))
    with pytest.raises(AssertionError):
        test_values_and_gradients(*CASES[0])


def test_another_kind_of_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of rows, such as an embedding's: one entry in `MATRICES`."""
    kind = layers.Kind("rows")

    def init(key: Any, example: Any) -> Any:
        return {"w": jnp.asarray(random(3, V, example.shape[-1]))}

    rows = layers.stateless(kind, lambda params, x: x @ params["w"].T, init)
    net = models.serial(Dense(D), Tanh, rows)
    with float64():
        params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((T, D), jnp.float64))
        args = params, state, random(1, N, T, D), np.random.default_rng(2).integers(0, V, (N, T))
        with pytest.raises(ValueError, match="last layer is dense or unembedding, got rows"):
            backprop.value_and_grad(net, SMOOTHED, class_chunk=CHUNK)
        monkeypatch.setitem(heads.MATRICES, kind, heads.Matrix(0))
        found = jax.jit(backprop.value_and_grad(net, SMOOTHED, class_chunk=CHUNK))(*args)
        assert_close(found, jax.jit(backprop.value_and_grad(net, SMOOTHED))(*args), rtol=1e-12, atol=1e-13)


def test_memory_and_dtypes() -> None:
    net, v = models.serial(Dense(64), Tanh, Dense(4096)), 4096
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jax.ShapeDtypeStruct((64, 64), jnp.bfloat16)))
    x, y = jax.ShapeDtypeStruct((8, 64, 64), jnp.bfloat16), jax.ShapeDtypeStruct((8, 64), jnp.int32)

    def temporaries(f: Any) -> int:
        return jax.jit(f).lower(*shapes, x, y).compile().memory_analysis().temp_size_in_bytes

    vg = backprop.value_and_grad(net, losses.softmax_cross_entropy, class_chunk=512)
    record = backprop.record(net, losses.softmax_cross_entropy, class_chunk=512)
    logits = 8 * 64 * v * 4
    assert temporaries(vg) < logits
    assert temporaries(lambda *args: per_example.clipped_grad(record(*args), 1.0)) < logits
    assert temporaries(backprop.value_and_grad(net, losses.softmax_cross_entropy)) > logits
    (value, _), grads = jax.eval_shape(vg, *shapes, x, y)
    assert value.dtype == jnp.float32
    assert {str(g.dtype) for g in jax.tree.leaves(grads)} == {"bfloat16"}
    tape = jax.eval_shape(record, *shapes, x, y)
    assert tape.outputs.shape == (8,)


LAST = models.serial(Dense(V), Softmax)
BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "class_chunk must be at least 1, got 0",
     lambda f: f(NETS["serial"], losses.softmax_cross_entropy, class_chunk=0)),
    (TypeError, "class_chunk must be an int, got 2.0",
     lambda f: f(NETS["serial"], losses.softmax_cross_entropy, class_chunk=2.0)),
    (ValueError, "class_chunk needs losses.softmax_cross_entropy, with settings bound by functools.partial, got",
     lambda f: f(NETS["serial"], losses.mse, class_chunk=2)),
    (ValueError, "class_chunk needs a network whose last layer is dense or unembedding, got",
     lambda f: f(LAST, losses.softmax_cross_entropy, class_chunk=2)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), BAD, ids=[message[:40] for _, message, _ in BAD])
@pytest.mark.parametrize("function", [backprop.value_and_grad, backprop.record], ids=["value_and_grad", "record"])
def test_bad_arguments(function: Any, kind: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(kind, match=re.escape(f"{function.__name__}: {message}")):
        call(function)


def test_distributions_are_refused() -> None:
    net = NETS["one layer"]
    params, state = net.init(jax.random.key(0), (D,))
    vg = backprop.value_and_grad(net, losses.softmax_cross_entropy, class_chunk=CHUNK)
    with pytest.raises(TypeError, match="class_chunk: labels must have an integer dtype, got float32"):
        vg(params, state, np.ones((N, D), np.float32), np.ones((N, V), np.float32))

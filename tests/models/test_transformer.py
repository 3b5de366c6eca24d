"""Transformers: parameters, what a position sees, dtypes under JAX's transformations, errors, and that they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, layers, losses, models, optim, train, tree
from jaxnn.layers import (
    Attention,
    CrossAttention,
    Dense,
    Embedding,
    LearnedPositions,
    Relu,
    Sequences,
    Tanh,
    Values,
    tied,
)
from jaxnn.models import encoded, encoder_decoder, residual, serial, stack, transformer
from tests.helpers import assert_close, random, slow, strict

KEY = jax.random.key(0)
CE = losses.softmax_cross_entropy
WORDS = jax.ShapeDtypeStruct((6,), jnp.int32)
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 6)).astype(np.int32)
SMALL: dict[str, Any] = {"width": 8, "depth": 2, "heads": 2}
PAIR = Sequences(TOKENS, None, Sequences(np.random.default_rng(1).integers(0, 5, (3, 4)).astype(np.int32)))


def shapes(net: layers.Layer, example: Any = WORDS) -> Any:
    params, state = jax.eval_shape(lambda: net.init(KEY, example))
    assert state == ()
    return params


def one_of(x: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def drawn(net: layers.Layer, x: Any, seed: int = 3) -> Any:
    """Parameters in which nothing is 0, as the output projections are at first."""
    leaves, structure = jax.tree.flatten(shapes(net, one_of(x)))
    return jax.tree.unflatten(
        structure, [0.5 * random(seed + i, *p.shape, dtype=np.float32) for i, p in enumerate(leaves)]
    )


# --- parameters


def test_parameters_and_where_they_are() -> None:
    d, v, depth = 8, 11, 2
    block = 4 * d * d + 2 * (d // 2) + 2 * d * 4 * d + 2 * d  # attention, its scales, MLP, two norms
    for stacked in (False, True):
        params = shapes(transformer(v, **SMALL, stacked=stacked))
        assert tree.size(params) == v * d + depth * block + d
        assert params[0]["w"].shape == (v, d)
        assert params[-1] == ()  # the head is the embedding's table
        wq = params[1][0][0][1]["wq"]
        assert wq.shape == ((depth, d, d) if stacked else (d, d))
    untied = shapes(transformer(v, **SMALL, head=Dense(v), positions=LearnedPositions(6)))
    assert (untied[1]["w"].shape, untied[-1]["w"].shape) == ((6, d), (d, v))
    assert {p.dtype for p in jax.tree.leaves(untied)} == {jnp.dtype(jnp.float32)}


def test_a_stacked_transformer_is_the_serial_one() -> None:
    one, other = transformer(11, **SMALL, stacked=True), transformer(11, **SMALL)
    params = drawn(one, TOKENS)
    blocks = [jax.tree.map(lambda p, i=i: p[i], params[1]) for i in range(2)]
    apart = (params[0], *blocks, *params[2:])
    assert jax.tree.structure(apart) == jax.tree.structure(shapes(other))
    y, z = jax.jit(one.predict)(params, (), TOKENS), jax.jit(other.predict)(apart, (), TOKENS)
    assert_close(y, z, rtol=1e-5, atol=1e-5)


def test_at_first_each_token_predicts_by_its_own_vector() -> None:
    """Output projections are 0, so that a block passes its input on: logits = norm(w[token]) w'; a loss of log V."""
    net = transformer(11, **SMALL)
    params, _ = jax.jit(lambda key: net.init(key, WORDS))(KEY)
    w = np.asarray(params[0]["w"], np.float64)
    np.testing.assert_allclose(w.std(), 0.02, rtol=0.2)
    eps = layers.RMSNorm().options["eps"]
    rows = w[TOKENS] / np.sqrt((w[TOKENS] ** 2).mean(-1, keepdims=True) + eps)
    logits = jax.jit(net.predict)(params, (), TOKENS)
    np.testing.assert_allclose(logits, rows @ w.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.mean(CE(logits, TOKENS[::-1])), math.log(11), atol=0.1)


# --- what a position sees


NETS: dict[str, Callable[[bool], layers.Layer]] = {
    "rotary": lambda causal: transformer(11, **SMALL, causal=causal),
    "stacked": lambda causal: transformer(11, **SMALL, causal=causal, stacked=True),
    "alibi": lambda causal: transformer(11, **SMALL, attention=Attention(2, causal=causal, alibi=True)),
    "post-norm": lambda causal: transformer(
        11, **SMALL, causal=causal, pre_norm=False, positions=LearnedPositions(6), attention=Attention(2, causal=causal)
    ),
}


@pytest.mark.parametrize("name", ["rotary", *slow(*list(NETS)[1:])])
def test_a_decoder_sees_nothing_ahead_and_an_encoder_everything(name: str) -> None:
    """By the derivative of logits in embeddings: none from a later position, some from every other one."""
    for causal in (True, False):
        net = NETS[name](causal)
        params = drawn(net, TOKENS)

        @jax.jit
        def reach(params: Any, net: layers.Layer = net) -> Any:
            def logits(moved: Any) -> Any:
                x, _ = net.parts[0].apply(params[0], (), TOKENS[:1])
                return serial(*net.parts[1:-1]).predict(params[1:-1], (), x + moved).sum(-1)[0]

            return jnp.abs(jax.jacrev(logits)(jnp.zeros((1, 6, 8)))[:, 0]).sum(-1) > 0

        np.testing.assert_array_equal(reach(params), np.tri(6, dtype=bool) if causal else np.ones((6, 6), bool))


def test_a_translation_reads_all_of_the_source_and_the_target_before() -> None:
    net = encoder_decoder(5, 11, **SMALL)
    params = drawn(net, PAIR)
    run = jax.jit(net.predict)
    before = run(params, (), PAIR)
    assert before.shape == (3, 6, 11)
    later, source = PAIR.values.copy(), PAIR.context.values.copy()
    later[:, 4], source[:, 3] = (later[:, 4] + 1) % 11, (source[:, 3] + 1) % 5
    moved = np.abs(run(params, (), Sequences(later, None, PAIR.context)) - before).max((0, 2))
    assert not np.any(moved[:4])
    assert np.all(moved[4:] > 1e-4)
    assert np.all(np.abs(run(params, (), Sequences(PAIR.values, None, Sequences(source))) - before).max((0, 2)) > 1e-5)


def test_no_positions_at_all_without_an_encoding() -> None:
    """An encoder without rotary encoding: permuted tokens have permuted logits; with it, others."""
    order = [3, 1, 5, 0, 2, 4]
    for attention, same in ((Attention(2), True), (Attention(2, rotary=100.0), False)):
        net = transformer(11, **SMALL, attention=attention)
        params = drawn(net, TOKENS)
        run = jax.jit(net.predict)
        gap = np.abs(run(params, (), TOKENS[:, order]) - run(params, (), TOKENS)[:, order]).max()
        assert (gap < 1e-4) == same


# --- dtypes under transformations


HALF = {
    "decoder": (transformer(11, **SMALL), TOKENS),
    "encoder": (
        transformer(11, **SMALL, causal=False, pad=0, stacked=True, norm=layers.LayerNorm(), mlp=serial(
            layers.GatedDense(8), Dense(8)), attention=Attention(2, kv_heads=1, alibi=True)),
        TOKENS,
    ),
    "translation": (encoder_decoder(5, 11, **SMALL, stacked=True, pad=0), PAIR),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
@pytest.mark.parametrize("name", ["decoder", *slow("translation", "encoder")])
def test_half_precision_stays_half_precision(name: str, dtype: Any) -> None:
    """Outputs and gradients, by hand and by JAX, in jit, vmap, scan and checkpoint; the loss is float32."""
    net, x = HALF[name]
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), shapes(net, one_of(x)))
    by_hand = backprop.value_and_grad(net, CE)
    by_jax = jax.value_and_grad(train.mean_loss(net, CE), has_aux=True)
    remat = jax.value_and_grad(jax.checkpoint(train.mean_loss(net, CE)), has_aux=True)

    def trained(vg: Any, params: Any, x: Any) -> Any:
        def step(params: Any, _: Any) -> Any:
            (value, _), grads = vg(params, (), x, TOKENS)
            return jax.tree.map(lambda p, g: p - g, params, grads), value

        return jax.lax.scan(step, params, None, length=2)

    def everything(params: Any, x: Any) -> Any:
        some = jax.tree.map(lambda a: jnp.stack([a, a]), x)
        each = [vg(params, (), x, TOKENS) for vg in (by_hand, by_jax, remat)]
        mapped = jax.vmap(lambda x: by_hand(params, (), x, TOKENS))(some)
        return net.predict(params, (), x), each, mapped, trained(by_hand, params, x), trained(by_jax, params, x)

    with strict():
        y, each, mapped, *runs = jax.eval_shape(everything, params, x)
    assert y.dtype == dtype
    for (value, _), grads in [*each, mapped]:
        assert value.dtype == jnp.float32
        assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
    for last, values in runs:
        assert {p.dtype for p in jax.tree.leaves(last)} == {jnp.dtype(dtype)}
        assert values.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "most"), [(jnp.bfloat16, 0.05), (jnp.float16, 0.01)])
def test_half_precision_is_near_float32(dtype: Any, most: float) -> None:
    """The loss, and the gradient of all parameters by hand, in norm; as near as that by JAX."""
    net = transformer(11, **SMALL)
    params = jax.tree.map(lambda p: 0.3 * p, drawn(net, TOKENS))
    half = jax.tree.map(lambda p: p.astype(dtype), params)
    by_hand = jax.jit(backprop.value_and_grad(net, CE))
    by_jax = jax.jit(jax.value_and_grad(train.mean_loss(net, CE), has_aux=True))
    (value, _), grads = by_hand(params, (), TOKENS, TOKENS)
    for vg in (by_hand, by_jax):
        (other, _), rounded = vg(half, (), TOKENS, TOKENS)
        np.testing.assert_allclose(other, value, rtol=most)
        gap = jax.tree.map(lambda a, b: a.astype(jnp.float32) - b, rounded, grads)
        assert float(tree.norm(gap)) <= most * float(tree.norm(grads))


# --- training


def test_dropout_needs_a_key_in_training_only() -> None:
    net = transformer(11, **SMALL, dropout=0.5)
    params = drawn(net, TOKENS)
    with pytest.raises(ValueError, match="dropout: needs a random key, got None"):
        jax.eval_shape(backprop.value_and_grad(net, CE), params, (), TOKENS, TOKENS)
    jax.eval_shape(net.predict, params, (), TOKENS)
    assert layers.dropout.KIND in {part.kind for part in net.parts}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reversal", "translation", "classes of padded sequences"])
def test_they_learn(name: str) -> None:
    """What needs attention: the reversed sequence, from the source, and whether the last word is the first one."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 6, (64, 5)).astype(np.int32)
    if name == "translation":
        shifted = np.concatenate([np.zeros((64, 1), np.int32), words[:, :0:-1]], 1)
        net, x, y = (
            encoder_decoder(6, 6, width=16, depth=1, heads=2, positions=LearnedPositions(5)),
            Sequences(shifted, None, Sequences(words)),
            words[:, ::-1],
        )
    elif name == "reversal":
        net = transformer(6, width=16, depth=2, heads=2, causal=False, positions=LearnedPositions(5))
        x, y = words, words[:, ::-1]
    else:
        lengths = rng.integers(2, 6, 64)
        x = np.where(np.arange(5)[None] < lengths[:, None], words, 0)
        y = (words[:, 0] == x[np.arange(64), lengths - 1]).astype(np.int32)
        net = transformer(
            6, width=16, depth=2, heads=2, causal=False, pad=0, head=serial(layers.LastPosition, Dense(2))
        )
    result = train.fit(
        net, CE, optim.adam(1e-2), (x, y), key=KEY, epochs=60, batch_size=64, progress=False,
        value_and_grad=backprop.value_and_grad(net, CE),
    )  # fmt: skip
    means = [record["loss"] for record in result.history]
    assert means[-1] < 0.3 * means[0], (means[0], means[-1])


# --- errors


EMBED = Embedding(11, 4)
V, T = ValueError, TypeError
MESSAGES: list[tuple[Callable[[], Any], Any, str]] = [
    (lambda: serial(tied(EMBED), EMBED), V, r"tied: the layer at \[0\] is tied to the embedding layer at \[1\], which"),
    (lambda: serial(residual(tied(EMBED)), EMBED), V, r"the layer at \[0, 0, 0\] is tied .* Swap them: tie the later"),
    (lambda: stack(Dense(4), 0), V, "stack: n must be at least 1, got 0"),
    (lambda: stack(Dense(4), 2.0), T, "stack: n must be an int, got 2.0"),
    (lambda: stack("block", 2), T, "stack: net must be a Layer"),
    (
        lambda: shapes(stack(Dense(4), 2), jax.ShapeDtypeStruct((3,), jnp.float32)),
        V,
        r"stack: a block must keep the shape and dtype of its input, got \['float32\[3\]'\] -> \['float32\[4\]'\]",
    ),
    (
        lambda: shapes(stack(Values, 2), Sequences(jnp.zeros((3, 4)), jnp.ones(3, bool))),
        V,
        r"a block must keep the shape and dtype of its input, got .*mask bool\[3\]'\] -> \['float32\[3, 4\]'\]",
    ),
    (
        lambda: shapes(stack(serial(tied(EMBED)), 2), jax.ShapeDtypeStruct((3, 4), jnp.float32)),
        V,
        "tied: no network around",
    ),
    (
        lambda: shapes(encoder_decoder(5, 11, **SMALL)),
        V,
        r"x must be Sequences\(target, context=Sequences\(source\)\), got",
    ),
    (lambda: shapes(encoder_decoder(5, 11, **SMALL), one_of(Sequences(TOKENS))), V, "source.., got no context"),
    (lambda: transformer(11, **SMALL | {"depth": 0}), V, "transformer: depth must be at least 1, got 0"),
    (lambda: transformer(11, **SMALL | {"width": 0}), V, "embedding: features must be at least 1, got 0"),
    (lambda: transformer(0, **SMALL), V, "embedding: vocabulary must be at least 1, got 0"),
    (
        lambda: shapes(transformer(11, **SMALL | {"heads": 3})),
        V,
        "attention: heads must divide the features, got 3 and 8",
    ),
    (lambda: shapes(transformer(11, width=6, heads=2)), V, "the features of a head must be even, got 3"),
    (
        lambda: shapes(transformer(11, **SMALL), (6,)),
        T,
        "embedding: an example must have an integer dtype, got float32",
    ),
    (lambda: transformer(11, **SMALL, pad=0.5), T, "Padding: token must be an int, got 0.5"),
    (
        lambda: shapes(transformer(11, **SMALL, positions=LearnedPositions(5))),
        V,
        "x has 6 positions, but the layer was made for 5",
    ),
    (
        lambda: shapes(serial(models.parallel(Values, Relu)), one_of(Sequences(random(0, 2, 3, 4, dtype=np.float32)))),
        V,
        "some branches return Sequences, others arrays. Take LastPosition, Values or MeanPosition in all of them or",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), MESSAGES, ids=[text[:40] for _, _, text in MESSAGES])
def test_message(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_errors_name_the_part() -> None:
    net = transformer(11, **SMALL, positions=LearnedPositions(6))
    params = drawn(net, TOKENS)
    longer = np.zeros((2, 9), np.int32)
    for f in (net.predict, lambda *a: backprop.value_and_grad(net, CE)(*a, longer)):
        with pytest.raises(ValueError, match="x has 9 positions, but the layer was made for 6") as caught:
            jax.eval_shape(f, params, (), longer)
        assert any("in part 1 of serial (learned_positions)" in note for note in caught.value.__notes__)


def test_a_network_that_returns_sequences_has_no_loss() -> None:
    """The remedy is `Values`."""
    net = transformer(11, **SMALL)
    x = Sequences(TOKENS, TOKENS > 2)
    for f in (backprop.value_and_grad, backprop.record, train.mean_loss):
        with pytest.raises(
            TypeError, match=r"outputs of the network must be an array, got Sequences\. End it with Values"
        ):
            jax.eval_shape(f(net, CE), drawn(net, TOKENS), (), x, TOKENS)


def test_encoded_towers_of_ones_own() -> None:
    """An encoder that returns an array, and one that returns `Sequences`, with what is tied between them."""
    dense = Dense(4)
    net = encoded(serial(dense, Tanh), serial(tied(dense), residual(CrossAttention(2)), Values))
    x = Sequences(random(0, 2, 3, 6, dtype=np.float32), None, Sequences(random(1, 2, 5, 6, dtype=np.float32)))
    params = drawn(net, x)
    assert params[1][0] == ()
    y = jax.jit(net.predict)(params, (), x)
    context, target = (np.asarray(a) @ params[0][0]["w"] + params[0][0]["b"] for a in (x.context.values, x.values))
    cross = layers.attention.apply(params[1][1][0][0], target, np.tanh(context), heads=2)
    np.testing.assert_allclose(y, target + cross, rtol=1e-5, atol=1e-5)

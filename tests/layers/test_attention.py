"""Attention layers against those of flax and torch; decoding with a cache; gated layers and position encodings."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxnn import activations, initializers, layers
from jaxnn.layers import (
    Attention,
    CrossAttention,
    GatedDense,
    LearnedPositions,
    Sequences,
    SinusoidalPositions,
    attention,
    attention_layers,
    gated,
    position,
)
from jaxnn.layers.attention import Settings
from tests.helpers import assert_close, float64, random, slow, strict

D, C, H, SIZE = 6, 5, 2, 3
X, CONTEXT = random(0, 2, 4, D), random(1, 2, 5, C)
MASK = np.array([[True, True, False, True], [True, False, True, True]])
CONTEXT_MASK = np.array([[True, True, False, True, True], [False, True, True, True, False]])


def drawn(layer: layers.Layer, x: Any) -> Any:
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    params, _ = jax.eval_shape(lambda: layer.init(jax.random.key(0), one))
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [random(10 + i, *p.shape) for i, p in enumerate(leaves)])


def case(name: str) -> tuple[layers.Layer, Any, Any]:
    """(layer, inputs, parameters), all with biases."""
    bias = initializers.zeros
    made: dict[str, tuple[layers.Layer, Any]] = {
        "plain": (Attention(H, b_init=bias), X),
        "causal": (Attention(H, b_init=bias, causal=True), X),
        "masked": (Attention(H, b_init=bias), Sequences(X, MASK)),
        "cross": (CrossAttention(H, b_init=bias), Sequences(X, None, Sequences(CONTEXT))),
        "cross, masked": (CrossAttention(H, b_init=bias), Sequences(X, None, Sequences(CONTEXT, CONTEXT_MASK))),
    }
    layer, x = made[name]
    with float64():
        return layer, x, drawn(layer, x)


def parts(x: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """(x, what it reads, the mask of that)."""
    if not isinstance(x, Sequences):
        return x, x, None
    return (x.values, x.values, x.mask) if x.context is None else (x.values, x.context.values, x.context.mask)


NAMES = ["cross, masked", *slow("plain", "causal", "masked", "cross")]


def outputs(name: str) -> np.ndarray:
    """At the positions that count."""
    layer, x, params = case(name)
    with float64(), strict():
        y = jax.jit(layer.predict)(params, (), x)
    return counted(x, np.asarray(layers.sequences.values_of(y)))


def counted(x: Any, y: np.ndarray) -> np.ndarray:
    return y if not isinstance(x, Sequences) or x.mask is None else y[x.mask]


@pytest.mark.parametrize("name", NAMES)
def test_equals_flax(name: str) -> None:
    linen = pytest.importorskip("flax.linen")
    _, x, params = case(name)
    values, read, mask = parts(x)
    theirs = linen.MultiHeadDotProductAttention(H, qkv_features=H * SIZE, out_features=D, dtype=np.float64)
    with float64():
        of = {
            full: {
                "kernel": params[f"w{letter}"].reshape(-1, H, SIZE),
                "bias": params[f"b{letter}"].reshape(H, SIZE),
            }
            for letter, full in (("q", "query"), ("k", "key"), ("v", "value"))
        }
        of["out"] = {"kernel": params["wo"].reshape(H, SIZE, D), "bias": params["bo"]}
        seen = np.ones((4, read.shape[1]), bool) if name != "causal" else np.tril(np.ones((4, 4), bool))
        seen = seen[None, None] & (True if mask is None else mask[:, None, None])
        expected = theirs.apply({"params": of}, values, read, mask=jnp.asarray(seen))
    np.testing.assert_allclose(outputs(name), counted(x, np.asarray(expected)), rtol=1e-6, atol=1e-7)  # float32 inside


@pytest.mark.parametrize("name", NAMES)
def test_equals_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    _, x, params = case(name)
    values, read, mask = parts(x)
    theirs = torch.nn.MultiheadAttention(D, H, kdim=read.shape[2], vdim=read.shape[2], batch_first=True)
    theirs = theirs.double()
    same = read.shape[2] == D
    weights = {n: torch.tensor(params[f"w{n}"].T.copy()) for n in "qkvo"}
    with torch.no_grad():
        if same:
            theirs.in_proj_weight.copy_(torch.cat([weights[n] for n in "qkv"]))
        else:
            for n in "qkv":
                getattr(theirs, f"{n}_proj_weight").copy_(weights[n])
        theirs.in_proj_bias.copy_(torch.tensor(np.concatenate([params[f"b{n}"] for n in "qkv"])))
        theirs.out_proj.weight.copy_(weights["o"])
        theirs.out_proj.bias.copy_(torch.tensor(params["bo"]))
        how: dict[str, Any] = {"need_weights": False}
        if mask is not None:
            how["key_padding_mask"] = torch.tensor(~mask)
        if name == "causal":
            how["attn_mask"] = torch.tensor(np.triu(np.ones((4, 4), bool), 1))
        expected = theirs(*(torch.tensor(a) for a in (values, read, read)), **how)[0].numpy()
    np.testing.assert_allclose(outputs(name), counted(x, expected), rtol=1e-12, atol=1e-12)


def test_a_mask_for_each_query() -> None:
    """(N, T, S), of the function: row t of a lower triangle is causality."""
    params = case("plain")[2]
    with float64(), strict():
        by_mask = jax.jit(functools.partial(attention.apply, heads=H))(
            params, X, mask=np.tril(np.ones((2, 4, 4), bool))
        )
        assert_close(by_mask, jax.jit(functools.partial(attention.apply, heads=H, causal=True))(params, X), rtol=1e-12)


def test_heads_read_their_columns_and_groups_share_keys() -> None:
    """The columns of head h are h D_h, ...; with K < H the keys of a group are those of repeated key heads."""
    params = attention.init(jax.random.key(0), 8, 4, kv_heads=2)
    whole = dict(params)
    for name in ("wk", "wv"):
        whole[name] = np.repeat(np.asarray(params[name]).reshape(8, 2, 2), 2, axis=1).reshape(8, 8)
    x = random(0, 1, 3, 8, dtype=np.float32)
    run = jax.jit(functools.partial(attention.apply, heads=4))
    assert_close(run(params, x), run(whole, x), rtol=1e-5, atol=1e-6)
    silent = dict(whole, wo=np.asarray(whole["wo"]) * (np.arange(8) // 2 == 1)[:, None].astype(np.float32))
    only_second = {n: np.asarray(w)[:, 2:4] for n, w in whole.items() if n != "wo"} | {
        "wo": np.asarray(whole["wo"])[2:4]
    }
    one = jax.jit(functools.partial(attention.apply, heads=1))
    assert_close(run(silent, x), one(only_second, x), rtol=1e-5, atol=1e-6)


def test_attention_does_not_depend_on_the_order_of_keys_but_by_positions() -> None:
    params, order = case("plain")[2], [2, 0, 3, 1]
    with float64():
        run = jax.jit(lambda x: (attention.apply(params, x, heads=H), attention.apply(params, x, heads=H, alibi=True)))
        (plain, ordered), (moved, reordered) = run(X), run(X[:, order])
    np.testing.assert_allclose(moved, plain[:, order], rtol=1e-12, atol=1e-13)
    assert np.abs(reordered - ordered[:, order]).max() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        Settings(4, causal=True, rotary=10.0),
        *slow(Settings(4, causal=True, alibi=True), Settings(4, causal=True, scale=0.3)),
    ],
)
def test_decoding_with_a_cache_is_attention_on_all_positions(settings: Settings) -> None:
    """Positions one by one, and several at once after others; the caches' length is more than they need."""
    x = random(0, 2, 5, 8)
    with float64(), strict():
        params = attention.init(jax.random.key(0), 8, 4, kv_heads=2, qk_norm=True, dtype=np.float64)

        @jax.jit
        def decoded(params: Any, x: Any) -> Any:
            whole = attention.apply(params, x, **{n: getattr(settings, n) for n in Settings.__dataclass_fields__})
            found = []
            for sizes in ([1] * 5, [2, 3], [3, 1, 1]):
                cache, rows, t = attention_layers.start(params, settings, 2, 7), [], 0
                for size in sizes:
                    y, cache = attention_layers.apply_cached(params, cache, x[:, t : t + size], settings)
                    rows.append(y)
                    t += size
                found.append((jnp.concatenate(rows, 1), cache["length"]))
            return whole, found

        whole, found = decoded(params, x)
    for y, length in found:
        np.testing.assert_allclose(y, whole, rtol=1e-11, atol=1e-12)
        assert length == 5


@pytest.mark.slow
def test_a_layer_with_a_cache_decodes() -> None:
    layer = Attention(2, causal=True)
    params, _ = layer.init(jax.random.key(0), (3, 4))
    cache = attention_layers.start(params, layer.options["settings"], 1, 3)
    x = random(0, 1, 3, 4, dtype=np.float32)
    y, cache = layer.apply(params, cache, x[:, :2])
    last, cache = layer.apply(params, cache, x[:, 2:])
    np.testing.assert_allclose(np.concatenate([y, last], 1), layer.predict(params, (), x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="a mask needs a cache made with masked=True"):
        layer.apply(params, cache, Sequences(x, np.ones((1, 3), bool)))
    with pytest.raises(ValueError, match="decoding with a cache needs causal attention, got causal=False"):
        attention_layers.apply_cached(params, cache, x, Settings(2))


def test_parameters_and_their_initial_values() -> None:
    """w ~ N(0, 1 / D_in) by default; wo by `out_init`; scales 1; the dtype of the example."""
    layer = Attention(4, kv_heads=2, qk_norm=True, out_init=initializers.zeros, b_init=initializers.zeros)
    params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((7, 64), jnp.bfloat16))
    shapes = {"wq": (64, 64), "wk": (64, 32), "wv": (64, 32), "wo": (64, 64)}
    shapes |= {"bq": (64,), "bk": (32,), "bv": (32,), "bo": (64,), "q_scale": (16,), "k_scale": (16,)}
    assert {name: p.shape for name, p in params.items()} == shapes
    assert {p.dtype for p in params.values()} == {jnp.dtype(jnp.bfloat16)}
    assert state == ()
    for name in ("wq", "wk", "wv"):
        np.testing.assert_allclose(np.var(np.asarray(params[name], np.float32)), 1 / 64, rtol=0.1)
    assert not np.any(params["wo"])
    assert np.all(params["q_scale"] == 1)
    cross, _ = CrossAttention(2, head_features=3).init(
        jax.random.key(0), Sequences(jnp.zeros((4, 8)), context=Sequences(jnp.zeros((5, 6))))
    )
    assert {name: p.shape for name, p in cross.items()} == {"wq": (8, 6), "wk": (6, 6), "wv": (6, 6), "wo": (6, 8)}
    different = jax.random.normal(jax.random.key(1), (3,))
    assert not np.allclose(params["wq"][:3, 0], different)
    assert not np.allclose(params["wq"][:, :32], params["wk"])


# --- gated layers


@pytest.mark.parametrize(
    ("function", "gate"),
    [
        (activations.silu, lambda z: z * scipy.special.expit(z)),
        *slow(
            (activations.gelu, lambda z: z * scipy.special.ndtr(z)),
            (activations.sigmoid, scipy.special.expit),
            (activations.relu, lambda z: np.maximum(z, 0)),
        ),
    ],
)
def test_gated_layers_are_their_formula(function: Any, gate: Any) -> None:
    params = {"w": random(0, 6, 3), "v": random(1, 6, 3), "b": random(2, 3), "c": random(3, 3)}
    with float64(), strict():
        y = jax.jit(functools.partial(gated.apply, function=function))(params, X)
    np.testing.assert_allclose(y, gate(X @ params["w"] + params["b"]) * (X @ params["v"] + params["c"]), rtol=1e-12)
    assert repr(GatedDense(3)).startswith("gated_dense(")
    assert layers.base.name_of(GatedDense(3)) == "gated_dense"


# --- positions


def test_sinusoids_are_those_of_the_paper() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i + 1) = cos of the same, one number at a time."""
    expected = np.zeros((5, 6))
    for t in range(5):
        for i in range(3):
            expected[t, 2 * i] = math.sin((t + 2) / 10_000 ** (2 * i / 6))
            expected[t, 2 * i + 1] = math.cos((t + 2) / 10_000 ** (2 * i / 6))
    with float64(), strict():
        y = jax.jit(lambda x, first: position.add_sinusoidal(x, first))(random(0, 2, 5, 6), 2)
    np.testing.assert_allclose(y, random(0, 2, 5, 6) + expected, rtol=1e-12)


@pytest.mark.slow
def test_positions_after_others_are_those_of_the_whole_sequence() -> None:
    """A concrete or traced first position, and the count in a layer's state."""
    x, w = random(0, 2, 5, 6), random(1, 9, 6)
    with float64(), strict():

        @jax.jit
        def run(x: Any, first: Any) -> Any:
            at = [position.add_learned({"w": w}, x[:, 2:], f) for f in (2, first)]
            return position.add_learned({"w": w}, x), at

        whole, at = run(x, 2)
        np.testing.assert_allclose(whole, x + w[:5], rtol=1e-15)
        for y in at:
            np.testing.assert_allclose(y, whole[:, 2:], rtol=1e-15)
        for layer, params in ((LearnedPositions(9), {"w": w}), (SinusoidalPositions(), ())):
            together = layer.predict(params, (), x)
            first, state = layer.apply(params, position.start(), x[:, :2])
            rest, state = layer.apply(params, state, x[:, 2:])
            np.testing.assert_allclose(np.concatenate([first, rest], 1), together, rtol=1e-12)
            assert state["length"] == 5


def test_learned_positions_begin_small() -> None:
    params, _ = LearnedPositions(200).init(jax.random.key(0), (5, 64))
    np.testing.assert_allclose(np.std(params["w"]), 0.02, rtol=0.05)

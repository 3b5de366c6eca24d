"""Decoding token by token: equal to the network without a cache, and draws from the distribution that is asked for."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import layers, models
from jaxnn.layers import Attention, Dense, Embedding, LayerNorm, LearnedPositions, Sequences, SinusoidalPositions, tied
from jaxnn.models import decoding
from tests.helpers import random, strict

V, WIDTH = 11, 16
KEY = jax.random.key(0)


def decoder(**settings: Any) -> layers.Layer:
    return models.transformer(V, width=WIDTH, depth=2, heads=4, **settings)


NETS = {
    "default": decoder(),
    "stacked": decoder(stacked=True),
    "grouped, ALiBi, learned positions": decoder(
        attention=Attention(4, kv_heads=2, causal=True, alibi=True), positions=LearnedPositions(40)
    ),
    "multi-query, sines, post-norm": decoder(
        attention=Attention(4, kv_heads=1, causal=True),
        positions=SinusoidalPositions(),
        pre_norm=False,
        norm=LayerNorm(),
    ),
    "padding token": decoder(pad=0),
}


EXAMPLE = jax.ShapeDtypeStruct((4,), jnp.int32)


def drawn(net: layers.Layer, example: Any = EXAMPLE) -> tuple[Any, Any]:
    """Random parameters, so that no output projection is 0."""
    params, state = jax.eval_shape(lambda: net.init(KEY, example))
    leaves, structure = jax.tree.flatten(params)
    made = [jnp.asarray(0.3 * random(i, *p.shape), p.dtype) for i, p in enumerate(leaves)]
    return jax.tree.unflatten(structure, made), state


def tokens(*shape: int, seed: int = 1, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, V, shape).astype(np.int32)


def by_hand(predict: Any, prompt: Any, count: int, never: Any = ()) -> np.ndarray:
    """Greedy decoding without a cache: the whole sequence again for each token, but some tokens. What comes later is a
    token 1, which no earlier position sees."""
    n, given = prompt.shape
    known = np.ones((n, given + count), np.int32)
    known[:, :given] = prompt
    compiled = jax.jit(predict)
    for at in range(given, given + count):
        logits = np.array(compiled(known)[:, at - 1])
        logits[:, list(never)] = -np.inf
        known[:, at] = np.argmax(logits, -1)
    return known


@pytest.mark.parametrize("name", NETS)
def test_pieces_give_what_the_whole_gives(name: str) -> None:
    net, x = NETS[name], tokens(3, 16, low=1)
    params, state = drawn(net)

    def both(params: Any, x: Any) -> tuple[Any, Any]:
        cache, found = models.begin(net, params, state, 3, 16), []
        for start, stop in ((0, 5), (5, 6), (6, 7), (7, 16)):
            y, cache = net.apply(params, cache, x[:, start:stop])
            found.append(y)
        return jnp.concatenate(found, axis=1), net.predict(params, state, x)

    with strict():
        got, expected = jax.jit(both)(params, x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("name", NETS)
def test_greedy_decoding_is_that_without_a_cache(name: str) -> None:
    net, prompt = NETS[name], tokens(3, 4, low=1)
    params, state = drawn(net)
    predict = functools.partial(net.predict, params, state)
    with strict():
        found = jax.jit(functools.partial(models.generate, net, count=8, temperature=0.0))(params, state, prompt)
    assert found.dtype == jnp.int32
    never = [0] if name == "padding token" else []
    np.testing.assert_array_equal(found, by_hand(predict, prompt, 8, never))


@pytest.mark.slow
def test_the_padding_token_ends_no_prompt_and_is_never_drawn() -> None:
    net = NETS["padding token"]
    params, state = drawn(net)
    params = jax.tree.map(np.array, params)
    params[1]["w"][0] = 9 * np.abs(params[1]["w"]).max()  # the tied table: a logit of token 0 far from the others
    run = functools.partial(models.generate, net, params, state, count=40, key=KEY)
    assert not np.any(np.asarray(jax.jit(run)(tokens(4, 2, low=1)))[:, 2:] == 0)
    ended = np.array([[3, 2, 0, 0]])
    with pytest.raises(ValueError, match=r"ends with the padding token \[0\].*Pass lengths"):
        run(ended)
    np.testing.assert_array_equal(run(ended, lengths=np.array([2]))[:, :6], run(ended[:, :2])[:, :6])


@pytest.mark.slow
def test_prompts_of_different_lengths_do_not_see_their_padding() -> None:
    net, prompt, lengths = NETS["default"], tokens(3, 5), np.array([2, 5, 3])
    params, state = drawn(net)
    run = jax.jit(functools.partial(models.generate, net, count=6, temperature=0.0))
    found = run(params, state, prompt, lengths=lengths)
    other = run(params, state, np.where(np.arange(5)[None] < lengths[:, None], prompt, 7), lengths=lengths)
    np.testing.assert_array_equal(found, other)
    for row, n in enumerate(lengths):
        alone = run(params, state, prompt[row : row + 1, :n])[0]
        np.testing.assert_array_equal(found[row, : len(alone)], alone)


def test_traced_lengths_are_those_of_concrete_ones() -> None:
    net, prompt, lengths = NETS["default"], tokens(2, 4), np.array([2, 3])
    params, state = drawn(net)
    run = functools.partial(models.generate, net, params, state, prompt, 3, temperature=0.0)
    concrete = jax.jit(lambda: run(lengths=lengths))()
    np.testing.assert_array_equal(jax.jit(lambda n: run(lengths=n))(lengths), concrete)


def test_a_stop_token_ends_a_row_and_the_loop() -> None:
    net, prompt = NETS["default"], tokens(4, 3)
    params, state = drawn(net)
    run = functools.partial(models.generate, net, params, state, prompt, 10, temperature=0.0)
    free = np.asarray(jax.jit(run)())
    stop = int(free[0, 5])
    found = np.asarray(jax.jit(functools.partial(run, stop=stop))())
    for row, expected in zip(found, free, strict=True):
        ends = np.flatnonzero(expected[3:] == stop)
        end = 3 + ends[0] + 1 if ends.size else len(row)
        np.testing.assert_array_equal(row[:end], expected[:end])
        assert (row[end:] == stop).all()


def test_encoder_decoder_reads_its_source() -> None:
    net = models.encoder_decoder(V, width=8, depth=1, heads=2, pad=0)
    source = Sequences(padded(tokens(2, 5, low=1)))
    x = Sequences(tokens(2, 3, low=1), context=source)
    params, state = drawn(net, jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), x))
    run = jax.jit(functools.partial(models.generate, net, params, state, x.values, 5, temperature=0.0))
    found = run(context=source)
    expected = by_hand(lambda known: net.predict(params, state, Sequences(known, context=source)), x.values, 5)
    np.testing.assert_array_equal(found, expected)
    assert (np.asarray(found) != np.asarray(run(context=Sequences(source.values[::-1])))).any()


def padded(x: np.ndarray) -> np.ndarray:
    """The last two tokens of the first row are padding."""
    x[0, 3:] = 0
    return x


@pytest.mark.slow
def test_the_cost_of_a_token_does_not_depend_on_its_place() -> None:
    net = NETS["default"]
    params, state = drawn(net)
    cache = models.begin(net, params, state, 1, 64)
    step = jax.make_jaxpr(lambda cache, x: net.apply(params, cache, x))(cache, tokens(1, 1))
    later = jax.make_jaxpr(lambda cache, x: net.apply(params, cache, x))(
        net.apply(params, cache, tokens(1, 40))[1], tokens(1, 1)
    )
    assert str(step) == str(later)  # one program for every position


@pytest.mark.slow
@pytest.mark.parametrize("net", [decoder(stacked=True), models.recurrent(V, 6)], ids=["stacked", "lstm"])
def test_half_precision_keeps_its_types_in_the_loop(net: layers.Layer) -> None:
    """The caches are bfloat16 as the parameters, carries float32, and decoding is that without a cache."""
    params, state = drawn(net)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    prompt = tokens(3, 4)
    with strict():
        found = jax.jit(functools.partial(models.generate, net, count=4, temperature=0.0))(params, state, prompt)
        cache = models.begin(net, params, state, 3, 8)
    kinds = {x.dtype.name for x in jax.tree.leaves(cache)}
    assert kinds == ({"float32"} if net.parts[1].kind is layers.lstm.KIND else {"bfloat16", "int32"})
    predict = functools.partial(net.predict, params, state)
    np.testing.assert_array_equal(found, by_hand(predict, prompt, 4))


def test_a_cache_needs_its_length() -> None:
    net = NETS["default"]
    params, state = drawn(net)
    with pytest.raises(ValueError, match="attention needs the length"):
        models.begin(net, params, state, 2)


def frequencies(logits: Any, **settings: Any) -> np.ndarray:
    """How often each token is drawn, of 20,000 draws."""
    many = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (20_000, len(logits)))
    found = jax.jit(lambda z: models.sample(KEY, z, **settings))(many)
    return np.bincount(np.asarray(found), minlength=len(logits)) / 20_000


P = np.array([0.05, 0.4, 0.25, 0.3])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, P),
        ({"temperature": 0.5}, P**2 / np.sum(P**2)),
        ({"top_k": 2}, np.array([0, 4, 0, 3]) / 7),
        ({"top_p": 0.65}, np.array([0, 4, 0, 3]) / 7),
        ({"top_p": 0.71}, np.array([0, 0.4, 0.25, 0.3]) / 0.95),
        ({"top_p": 0.1}, np.array([0, 1, 0, 0])),
        ({"top_k": 3, "top_p": 0.7}, np.array([0, 4, 0, 3]) / 7),
        ({"top_k": 9, "top_p": 1.0}, P),
        ({"temperature": 0.0}, np.array([0, 1, 0, 0])),
    ],
)
def test_draws_follow_the_distribution(settings: dict[str, Any], expected: np.ndarray) -> None:
    found = frequencies(np.log(P), **settings)
    assert ((found == 0) == (expected == 0)).all()
    assert np.abs(found - expected).max() <= 0.015  # four standard deviations


@pytest.mark.parametrize("temperature", [1e-37, 1e-45, 1e-3])
def test_no_temperature_is_too_low(temperature: float) -> None:
    z = jnp.array([[30.0, 60.0, 150.0, 90.0]])
    for how in ({}, {"top_p": 0.9}, {"top_k": 2}):
        assert models.sample(KEY, z, temperature=temperature, **how) == 2


def test_settings_may_be_traced() -> None:
    z = jnp.log(jnp.asarray(P, jnp.float32))[None]
    run = jax.jit(lambda t, p: models.sample(KEY, z, temperature=t, top_p=p))
    assert run(0.0, 1.0) == 1
    assert run(1.0, 0.3) == 1


CASES = [
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 0), 3, key=KEY), ValueError, "S >= 1, got shape"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2) * 1.0, 3, key=KEY), TypeError, "integer"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3), ValueError, "needs a random key"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, top_p=0.0), ValueError, "top_p must lie"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, temperature=-1.0), ValueError, ">= 0"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, top_k=0), ValueError, "top_k must be at"),
    (lambda *_: models.sample(KEY, jnp.zeros((1, 2)), temperature=np.nan), ValueError, "must be >= 0"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, stop=V), ValueError, "must be a token"),
    (lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, stop=1.5), TypeError, "must be an int"),
    (
        lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, lengths=np.array([0, 2])),
        ValueError, r"lengths must lie in \[1, 2\], got 0",
    ),
    (
        lambda net, p, s: models.generate(net, p, s, tokens(2, 2), 3, key=KEY, context=Sequences(tokens(2, 2))),
        ValueError, "no other network takes one",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), CASES)
def test_wrong_arguments_raise(call: Any, kind: type[Exception], message: str) -> None:
    net = NETS["default"]
    with pytest.raises(kind, match=message):
        call(net, *drawn(net))


def test_networks_that_cannot_decode_raise() -> None:
    embed = Embedding(V, WIDTH)
    for net, message in (
        (decoder(causal=False), "needs causal attention"),
        (models.serial(embed, layers.MeanPosition, Dense(V)), "mean_position cannot decode"),
        (models.serial(embed, layers.Conv(V, 3, padding="SAME")), "conv cannot decode"),
        (models.serial(embed, layers.GroupNorm(2), Dense(V)), "group_norm cannot decode"),
        (decoder(attention=Attention(4, causal=True), positions=LearnedPositions(4)), "was made for 4"),
    ):
        params, state = drawn(net)
        with pytest.raises(ValueError, match=message):
            models.generate(net, params, state, tokens(1, 2), 3, temperature=0.0)


def test_a_tied_layer_has_a_cache_of_its_own() -> None:
    embed, attention = Embedding(V, WIDTH), Attention(2, causal=True)
    net = models.serial(embed, models.residual(attention), models.residual(tied(attention)), tied(embed))
    params, state = drawn(net)
    predict = functools.partial(net.predict, params, state)
    found = jax.jit(functools.partial(models.generate, net, count=5, temperature=0.0))(params, state, tokens(2, 3))
    np.testing.assert_array_equal(found, by_hand(predict, tokens(2, 3), 5))


def test_a_cache_that_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above sees a cache that starts anew at every piece."""
    net, prompt = NETS["default"], tokens(3, 4)
    params, state = drawn(net)
    predict = functools.partial(net.predict, params, state)
    right = decoding.STARTS[layers.attention.KIND]

    def forgetful(layer: Any, params: Any, extent: Any) -> Any:
        return right(layer, params, extent) | {"length": jnp.int32(1)}

    monkeypatch.setitem(decoding.STARTS, layers.attention.KIND, forgetful)
    found = jax.jit(functools.partial(models.generate, net, count=8, temperature=0.0))(params, state, prompt)
    assert (np.asarray(found) != np.asarray(by_hand(predict, prompt, 8))).any()

"""The rules of layers on sequences against `jax.vjp` of their forward functions, float64, with masks and contexts."""

from __future__ import annotations

import functools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnn import activations, backprop, layers, losses
from jaxnn.initializers import zeros
from jaxnn.layers import (
    Attention,
    CrossAttention,
    Dense,
    Dropout,
    Embedding,
    GatedDense,
    Kind,
    Layer,
    LayerNorm,
    LearnedPositions,
    Padding,
    RMSNorm,
    Sequences,
    SinusoidalPositions,
    Tanh,
    Values,
    tied,
)
from jaxnn.models import encoded, encoder_decoder, parallel, residual, serial, stack, transformer
from tests.backprop.checking import EXACT, assert_all_exact, gradient_error, relative
from tests.helpers import float64, random, slow, strict

KEY = jax.random.key(1)


def masked(seed: int = 0, n: int = 3, t: int = 4, d: int = 6, context: Any = None) -> Sequences:
    """Padded on the right, the left and inside; the last example is all padding."""
    mask = np.random.default_rng(seed).random((n, t)) < 0.7
    mask[0], mask[-1] = np.arange(t) < t - 1, False
    return Sequences(random(seed, n, t, d), mask, context)


X = random(0, 3, 4, 6)
MASKED = masked()
READING = Sequences(X, None, Sequences(random(1, 3, 5, 8)))
BOTH_MASKED = masked(context=masked(2, t=5, d=8))
WORDS = np.random.default_rng(0).integers(0, 7, (3, 4))
BIASED: dict[str, Any] = {"b_init": zeros}


@st.composite
def attention_cases(draw: Any) -> tuple[Layer, Any]:
    """Self- and cross-attention with drawn heads, settings and masks."""
    heads, group, size = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.sampled_from([2, 4]))
    how: dict[str, Any] = {"kv_heads": heads, "head_features": size, "qk_norm": draw(st.booleans())}
    how |= {"scale": draw(st.sampled_from([None, 0.7])), "eps": draw(st.sampled_from([1e-6, 0.1]))}
    how |= draw(st.sampled_from([{}, BIASED]))
    seed, t = draw(st.integers(0, 99)), draw(st.integers(1, 5))
    x = draw(st.sampled_from([Sequences(random(seed, 3, t, 6)), masked(seed, t=t)]))
    if draw(st.booleans()):
        context = draw(st.sampled_from([Sequences(random(seed + 1, 3, 5, 8)), masked(seed + 1, t=5, d=8)]))
        return CrossAttention(heads * group, **how), Sequences(x.values, x.mask, context)
    how |= {"causal": draw(st.booleans()), "alibi": draw(st.booleans())}
    how |= {"rotary": draw(st.sampled_from([None, 100.0]))}
    return Attention(heads * group, **how), draw(st.sampled_from([x, x.values]))


@hypothesis.settings(max_examples=3)
@hypothesis.given(attention_cases())
def test_attention(case: Any) -> None:
    assert_all_exact({"": case})


@pytest.mark.slow
@hypothesis.settings(max_examples=60)
@hypothesis.given(attention_cases())
def test_attention_in_many_settings(case: Any) -> None:
    assert_all_exact({"": case})


def test_attention_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default block, 256 queries, in the layer and in its rule."""
    x = Sequences(random(0, 2, 300, 4), np.random.default_rng(0).random((2, 300)) < 0.8)
    assert_all_exact({"": (Attention(2, causal=True, rotary=100.0, qk_norm=True), x)})


def double(outputs: Any) -> Any:
    return outputs[0] * outputs[1]


def own_apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    """A layer on `Sequences` without a rule: adds the mean of the context that counts."""
    added = layers.padding.mean_position(x.context.values, x.context.mask)
    y = jnp.sin(x.values) + jax.lax.broadcast_in_dim(added @ params["w"], x.values.shape, (0, 2))
    return x.with_values(y), state


OWN = Layer(
    lambda key, example: ({"w": jnp.ones((8, 6), example.values.dtype)}, ()), own_apply, Kind("own"), sequences=True
)
BEND = layers.stateless(Kind("bend"), lambda params, x: jnp.sin(x))
EMBED, DENSE = Embedding(7, 6), Dense(6)
BLOCK = residual(RMSNorm(), Attention(2, causal=True))

POINTWISE: dict[str, tuple[Layer, Any]] = {
    "gated": (GatedDense(5), X),
    "gated, biases": (GatedDense(5, activations.gelu, **BIASED), random(0, 3, 6)),
    "gated, masked": (serial(GatedDense(5, activations.sigmoid)), MASKED),
    "gated, own function": (GatedDense(5, jnp.sin), X),
    "learned positions": (LearnedPositions(9), X),
    "learned positions, masked": (serial(LearnedPositions(4)), MASKED),
    "sinusoidal positions": (SinusoidalPositions(), X),
    "sinusoidal positions, masked": (serial(SinusoidalPositions(base=100.0)), MASKED),
    "values": (Values, MASKED),
    "values of an array": (Values, X),
    "last": (layers.LastPosition, MASKED),
    "last of an array": (layers.LastPosition, X),
    "mean": (layers.MeanPosition, MASKED),
    "mean of an array": (layers.MeanPosition, X),
    "mean, with a context": (layers.MeanPosition, BOTH_MASKED),
    "relu squared": (layers.ReluSquared, np.concatenate([[[0.0, -1.0, 1.0, 2.0]], random(0, 2, 4)])),
    "dense, dropout, norm": (serial(Dense(5), Dropout(0.3), LayerNorm()), MASKED),
    "no rule": (serial(DENSE, BEND), MASKED),
    "no rule, context": (OWN, BOTH_MASKED),
}
ATTENTION: dict[str, tuple[Layer, Any]] = {
    "plain": (Attention(3), X),
    "causal": (Attention(3, causal=True), X),
    "masked": (Attention(3), MASKED),
    "everything": (
        Attention(3, kv_heads=1, causal=True, rotary=10.0, alibi=True, qk_norm=True, scale=0.9, **BIASED),
        MASKED,
    ),
    "wide heads": (Attention(2, head_features=4, rotary=10.0), X),
    "cross": (CrossAttention(3), READING),
    "cross, masked": (CrossAttention(2, kv_heads=1, qk_norm=True, **BIASED), BOTH_MASKED),
    "bare context": (Attention(2), READING),
}
COMBINED: dict[str, tuple[Layer, Any]] = {
    "residual, masked": (residual(RMSNorm(), Attention(2)), MASKED),
    "context twice": (serial(residual(CrossAttention(2)), Dense(6), residual(CrossAttention(2))), BOTH_MASKED),
    "context in both branches": (parallel(CrossAttention(2), CrossAttention(3), OWN), BOTH_MASKED),
    "context in the shortcut": (residual(Dense(6), shortcut=CrossAttention(2)), READING),
    "own combine": (parallel(CrossAttention(2), Dense(6), combine=double), BOTH_MASKED),
    "pooled branches": (parallel(layers.LastPosition, layers.MeanPosition), MASKED),
    "padding": (serial(Padding(3), Embedding(7, 6), Attention(2, causal=True), Values), WORDS),
    "padding, pooled": (serial(Padding(3), Embedding(7, 6), layers.MeanPosition, Dense(3)), WORDS),
    "padding in a branch": (serial(Embedding(7, 6), parallel(Dense(2), serial())), Sequences(WORDS, WORDS > 2)),
}
TIED: dict[str, tuple[Layer, Any]] = {
    "embedding": (serial(EMBED, Tanh, tied(EMBED)), WORDS),
    "embedding, padded": (serial(Padding(3), EMBED, Attention(2), tied(EMBED), Values), WORDS),
    "dense": (serial(DENSE, Tanh, tied(DENSE)), X),
    "dense twice": (serial(DENSE, tied(DENSE), Tanh, tied(DENSE)), MASKED),
    "in a nested serial": (serial(serial(EMBED, Tanh), residual(Dense(6)), serial(Dense(6), tied(EMBED))), WORDS),
    "in branches": (serial(DENSE, parallel(tied(DENSE), serial(Tanh, tied(DENSE)))), X),
    "within a branch": (residual(serial(DENSE, Tanh, tied(DENSE))), X),
    "a block": (serial(BLOCK, Dense(6), tied(BLOCK)), MASKED),
    "of a tied one's inner layer": (serial(serial(DENSE, Tanh), serial(tied(DENSE), Tanh), tied(DENSE)), X),
    "no rule": (serial(BEND, DENSE, tied(BEND), tied(DENSE)), X),
    "positions": (serial(POSITIONS := LearnedPositions(6), DENSE, tied(POSITIONS)), X),
    "cross-attention": (serial(residual(CROSS := CrossAttention(2)), residual(tied(CROSS))), BOTH_MASKED),
    "same layer twice": (serial(DENSE, DENSE, tied(DENSE)), X),
    "encoder and decoder": (
        encoded(
            serial(EMBED, DENSE, Attention(2)),
            serial(Embedding(7, 6), tied(DENSE), residual(CrossAttention(2)), tied(EMBED), Values),
        ),
        Sequences(WORDS, None, Sequences(np.random.default_rng(1).integers(0, 7, (3, 5)))),
    ),
}
NOISY = serial(residual(Dense(6), Dropout(0.4)), residual(BEND))
NORMED = serial(Dense(6), layers.BatchNorm(), Tanh)


def stacks(remat: bool) -> dict[str, tuple[Layer, Any]]:
    def made(block: Layer, n: int = 3) -> Layer:
        return stack(block, n, remat=remat)

    return {
        "dense": (made(Dense(6)), X),
        "block, masked": (made(BLOCK), MASKED),
        "inside": (serial(Dense(6), made(residual(Dense(6), Tanh)), Dense(2)), X),
        "dropout, no rule": (made(NOISY), MASKED),
        "batch norm": (made(NORMED, 2), X),
        "context": (made(residual(CrossAttention(2)), 2), BOTH_MASKED),
        "in a stack": (made(stack(residual(Dense(6)), 2), 2), X),
        "tied inside": (made(serial(DENSE, Tanh, tied(DENSE)), 2), X),
        "tied around": (serial(EMBED, made(BLOCK, 2), tied(EMBED)), WORDS),
        "tied to a stack": (serial(deep := made(residual(Dense(6)), 2), Tanh, tied(deep)), X),
        "gated, positions, PReLU": (made(serial(LearnedPositions(5), residual(GatedDense(6)), layers.PRelu()), 2), X),
        "one": (made(residual(Dense(6)), 1), X),
    }


CASES = {
    "pointwise": POINTWISE, "attention": ATTENTION, "combined": COMBINED, "tied": TIED,
    "stack": stacks(False), "remat": stacks(True),
}  # fmt: skip
QUICK = {
    "pointwise": ["gated", "gated, masked", "learned positions", "last", "mean, with a context", "no rule, context"],
    "attention": ["everything", "cross, masked"],
    "combined": ["context twice", "context in both branches", "padding"],
    "tied": ["embedding, padded", "dense twice", "encoder and decoder"],
    "stack": ["block, masked", "dropout, no rule", "tied around"],
    "remat": ["batch norm", "context"],
}


@pytest.mark.parametrize("kind", CASES)
def test_rules(kind: str) -> None:
    assert_all_exact({name: CASES[kind][name] for name in QUICK[kind]}, key=KEY)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", CASES)
def test_all_rules(kind: str, train: bool) -> None:
    assert_all_exact(CASES[kind], key=KEY, train=train)


# --- a stack is a serial


def each_of(tree: Any, n: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(lambda x, i=i: x[i], tree) for i in range(n))


@pytest.mark.parametrize("remat", [False, *slow(True)])
@pytest.mark.parametrize("name", ["noisy", *slow("normed", "attention")])
def test_a_stack_is_the_serial_of_its_blocks(name: str, remat: bool) -> None:
    """Initial parameters and state, values, new state, and gradients, with the same keys; to rounding."""
    block, x = {"noisy": (NOISY, X), "normed": (NORMED, X), "attention": (BLOCK, MASKED)}[name]
    one, other = stack(block, 3, remat=remat), serial(*[block] * 3)

    def outputs(net: Layer, apart: bool) -> Any:
        example = jax.tree.map(lambda leaf: leaf[0], x)
        params, state = net.init(jax.random.key(4), example)

        def loss(params: Any) -> Any:
            y, new = net.apply(params, state, x, key=KEY, train=True)
            return jnp.sum(jnp.sin(layers.sequences.values_of(y))), (y, new)

        (_, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        if apart:
            params, grads = (each_of(tree, 3) for tree in (params, grads))
            state, new = (each_of(tree, 3) if jax.tree.leaves(tree) else () for tree in (state, new))
        return params, state, y, new, grads

    with float64(), strict():
        found = jax.jit(lambda: (outputs(one, True), outputs(other, False)))()
    assert relative(*found) <= EXACT


def test_a_stack_draws_other_numbers_in_each_block() -> None:
    net = stack(Dropout(0.5), 2)
    y = jax.jit(lambda key: net.apply((), (), jnp.ones((4, 50)), key=key, train=True)[0])(KEY)
    kept = {0.0, 4.0}
    assert set(np.unique(y)) == kept
    assert 0.15 < np.mean(np.asarray(y) > 0) < 0.35  # both kept it: a quarter


# --- training losses of whole networks

LM = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)
TOKENS = np.random.default_rng(0).integers(0, 9, (3, 6))
TARGETS = np.where(np.random.default_rng(1).random((3, 6)) < 0.2, -1, np.random.default_rng(2).integers(0, 9, (3, 6)))
PAIRS = Sequences(TOKENS, None, Sequences(np.random.default_rng(3).integers(0, 5, (3, 4))))
SMALL: dict[str, Any] = {"width": 8, "depth": 2, "heads": 2}
NETS: dict[str, tuple[Layer, Any, dict[str, Any]]] = {
    "small": (transformer(9, width=4, depth=1, heads=1, pad=0, dropout=0.2), TOKENS, {"remat_every": 3}),
    "decoder": (transformer(9, **SMALL), TOKENS, {}),
    "decoder, remat 1": (transformer(9, **SMALL, dropout=0.2), TOKENS, {"remat_every": 1}),
    "decoder, remat 3": (transformer(9, **SMALL, dropout=0.2, pad=0), TOKENS, {"remat_every": 3}),
    "decoder, stacked": (transformer(9, **SMALL, stacked=True, dropout=0.2), TOKENS, {}),
    "encoder": (transformer(9, **SMALL, causal=False, pad=0, positions=POSITIONS, pre_norm=False), TOKENS, {}),
    "alibi, gated": (
        transformer(
            9, **SMALL, attention=Attention(2, kv_heads=1, causal=True, alibi=True), norm=LayerNorm(),
            mlp=serial(GatedDense(12), Dense(8)), positions=SinusoidalPositions(), head=Dense(9),
        ),
        TOKENS,
        {},
    ),
    "encoder-decoder": (encoder_decoder(5, 9, **SMALL), PAIRS, {}),
    "encoder-decoder, one vocabulary": (encoder_decoder(9, **SMALL), PAIRS, {}),
    "encoder-decoder, stacked, padded": (encoder_decoder(5, 9, **SMALL, stacked=True, pad=0, dropout=0.1), PAIRS, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", [next(iter(NETS)), *slow(*list(NETS)[1:])])
def test_transformers_have_the_gradient_of_automatic_differentiation(name: str) -> None:
    net, x, how = NETS[name]
    weights = np.float32([1.0, 0.5, 2.0])
    assert gradient_error(net, LM, x, TARGETS, **how, call={"key": KEY, "weights": weights}) <= EXACT


@pytest.mark.slow
def test_a_classifier_of_padded_sequences() -> None:
    head = serial(layers.MeanPosition, Dense(3))
    net = transformer(9, **SMALL, causal=False, pad=0, head=head)
    assert gradient_error(net, losses.softmax_cross_entropy, TOKENS, np.array([0, 2, 1])) <= EXACT


@pytest.mark.parametrize("name", NETS)
def test_transformers_are_differentiated_by_hand(name: str) -> None:
    table = backprop.coverage(NETS[name][0], LM)
    assert table.complete
    assert {row.place for row in table.rows} >= {"loss"}


def test_places_of_a_stack_are_the_paths_of_its_parameters() -> None:
    net = serial(Dense(3), stack(serial(Dense(3), layers.BatchNorm()), 2))
    assert [row.place for row in backprop.coverage(net).rows] == ["[0]", "[1][0]", "[1][1]"]
    assert backprop.coupled_layers(net, train=True) == ("batch_norm at [1][1]",)
    params, _ = jax.eval_shape(lambda: net.init(KEY, (3,)))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert any(path.startswith("[1][1]") for path in paths)


# --- finite differences

DIFFERENCES: list[tuple[Layer, Any]] = [
    (Attention(2, kv_heads=1, causal=True, rotary=10.0, alibi=True, qk_norm=True, b_init=zeros), random(0, 2, 3, 4)),
    (serial(GatedDense(3), LearnedPositions(4), layers.LastPosition), random(0, 2, 3, 4)),
    (stack(residual(Attention(2)), 2, remat=True), random(0, 2, 3, 4)),
    (serial(SinusoidalPositions(), DENSE4 := Dense(4), layers.MeanPosition, tied(DENSE4)), random(0, 2, 3, 4)),
    (
        serial(Padding(1), EMBED4 := Embedding(3, 4), Attention(2), tied(EMBED4), Values),
        np.array([[0, 1, 2], [2, 0, 1]]),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", DIFFERENCES, ids=lambda case: case[0].kind.name)
def test_finite_differences(case: tuple[Layer, Any]) -> None:
    with float64():
        check = jax.jit(lambda x: backprop.check_rule(case[0], x, key=KEY))(case[1])
    assert check.passed, check

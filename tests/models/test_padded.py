"""Padding is never seen: whatever stands at masked positions, no bit of an output, a loss or a gradient changes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses
from jaxnn.initializers import zeros
from jaxnn.layers import (
    Attention,
    CrossAttention,
    Dense,
    GatedDense,
    LastPosition,
    Layer,
    LayerNorm,
    LearnedPositions,
    MeanPosition,
    PRelu,
    Sequences,
    SinusoidalPositions,
    Tanh,
    Values,
    tied,
)
from jaxnn.models import encoder_decoder, parallel, residual, serial, stack, transformer
from jaxnn.train import mean_loss
from tests.backprop.checking import relative, spread_out
from tests.helpers import float64, random, slow, strict

MASKS = {
    "right": np.arange(5)[None] < np.array([[5], [3], [1], [0]]),
    "left": np.arange(5)[None] >= np.array([[0], [2], [4], [5]]),
    "inside": np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool),
}
"""The last example is all padding."""

CONTEXT = np.arange(3)[None] < np.array([[2], [3], [0], [1]])
X, C = random(0, 4, 5, 4, dtype=np.float32), random(1, 4, 3, 6, dtype=np.float32)
TOKENS, SOURCE = (np.random.default_rng(i).integers(1, 7, (4, t)).astype(np.int32) for i, t in ((0, 5), (1, 3)))

MIXED = serial(residual(LayerNorm(), Attention(2, causal=True, qk_norm=True, b_init=zeros)), residual(GatedDense(4)))
FLOATING: dict[str, Layer] = {
    "each position": serial(LearnedPositions(5), Dense(4), LayerNorm(), PRelu(), GatedDense(4), Values),
    "attention": serial(Attention(2, rotary=10.0, b_init=zeros), SinusoidalPositions(), residual(Attention(2)), Values),
    "stack": serial(stack(MIXED, 2), Values),
    "remat": serial(stack(MIXED, 2, remat=True), Values),
    "mean": serial(MIXED, parallel(MeanPosition, LastPosition), Dense(2)),
    "context": serial(
        residual(CrossAttention(2, b_init=zeros)), Tanh, residual(CrossAttention(1, qk_norm=True)), Values
    ),
    "tied": serial(dense := Dense(4), Tanh, tied(dense), Values),
    "pooled at once": serial(parallel(MeanPosition, LastPosition), Dense(2)),
}
OF_TOKENS: dict[str, Layer] = {
    "encoder": transformer(7, width=4, depth=2, heads=2, causal=False, pad=0),
    "decoder, stacked": transformer(7, width=4, depth=2, heads=2, pad=0, stacked=True),
    "post-norm": transformer(7, width=4, depth=1, heads=1, pad=0, pre_norm=False, positions=LearnedPositions(5)),
    "translation": encoder_decoder(7, width=4, depth=1, heads=2, pad=0),
}
NETS = FLOATING | OF_TOKENS


def batch(name: str, mask: np.ndarray, junk: Any) -> Sequences:
    """Sequences with `junk` at all masked positions, of the context too."""
    if name in OF_TOKENS:
        x, c = (np.where(m, a, np.int32(junk)) for m, a in ((mask, TOKENS), (CONTEXT, SOURCE)))
    else:
        x, c = (np.where(m[..., None], a, np.float32(junk)) for m, a in ((mask, X), (CONTEXT, C)))
    return Sequences(x, mask, Sequences(c, CONTEXT) if name in ("context", "translation") else None)


def squared(y: Any, d: Any) -> Any:
    return jnp.sum(jnp.square(y).reshape(y.shape[0], -1), 1)


def loss_and_targets(name: str, mask: np.ndarray) -> tuple[Any, np.ndarray]:
    if name in OF_TOKENS:
        return functools.partial(losses.softmax_cross_entropy, ignore_index=-1), np.where(mask, TOKENS, -1)
    return squared, np.zeros(4, np.float32)


@functools.cache
def program(name: str) -> Any:
    """(params, batch, targets) -> outputs, and value and gradient by the rules and by JAX."""
    net, (loss, _) = NETS[name], loss_and_targets(name, MASKS["right"])
    by_hand = backprop.value_and_grad(net, loss)
    by_jax = jax.value_and_grad(mean_loss(net, loss), has_aux=True)

    @jax.jit
    def run(params: Any, x: Any, y: Any) -> Any:
        return net.predict(params, (), x), by_hand(params, (), x, y), by_jax(params, (), x, y)

    return run


def parameters(name: str, dtype: Any = np.float32) -> Any:
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), batch(name, MASKS["right"], 0))
    params, _ = jax.eval_shape(lambda: NETS[name].init(jax.random.key(0), example))
    return jax.tree.map(lambda p: p.astype(dtype), spread_out(params, 5))


def found(name: str, side: str, junk: Any) -> Any:
    with strict():
        y = loss_and_targets(name, MASKS[side])[1]
        return jax.tree.map(np.asarray, program(name)(parameters(name), batch(name, MASKS[side], junk), y))


QUICK = ("each position", "context", "decoder, stacked")


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in NETS if name not in QUICK))])
def test_no_bit_depends_on_padding(name: str) -> None:
    for side in MASKS:
        expected = jax.tree.leaves(found(name, side, 0))
        assert all(np.isfinite(leaf).all() for leaf in expected)
        for junk in (5, 99, -3) if name in OF_TOKENS else (np.nan, np.inf, 7.0):
            for a, b in zip(jax.tree.leaves(found(name, side, junk)), expected, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{name}, {side}, {junk}")


@pytest.mark.parametrize("name", ["context", *slow(*(name for name in NETS if name != "context"))])
def test_the_gradient_by_hand_is_that_of_jax_also_with_nan(name: str) -> None:
    _, by_hand, by_jax = found(name, "inside", 99 if name in OF_TOKENS else np.nan)
    assert relative(by_hand, by_jax) <= 1e-4


@pytest.mark.parametrize("name", ["encoder", *slow("decoder, stacked", "post-norm", "attention", "stack")])
def test_outputs_are_those_of_each_sequence_alone(name: str) -> None:
    """On the right: cut to its length, without a mask. 0 at padding, and for an example that is all padding."""
    with float64(), strict():
        net, mask = NETS[name], MASKS["right"]
        x = batch(name, mask, 5)
        if name not in OF_TOKENS:
            x = Sequences(x.values.astype(np.float64), mask)
        params = parameters(name, np.float64)
        together = np.asarray(jax.jit(net.predict)(params, (), x))
        for i, length in enumerate(mask.sum(1)):
            assert not np.any(together[i, length:])
            if length:
                alone = jax.jit(net.predict)(params, (), x.values[i : i + 1, :length])
                np.testing.assert_allclose(together[i, :length], alone[0], rtol=1e-10, atol=1e-12)


def test_the_padding_token_makes_the_mask() -> None:
    """In place of a mask; a mask that came with the tokens holds too."""
    net, params = OF_TOKENS["encoder"], parameters("encoder")
    mask = MASKS["right"]
    tokens = np.where(mask, TOKENS, 0)
    given = tokens.copy()
    given[0, 0] = 3
    fewer = mask.copy()
    fewer[0, 0] = False
    run = jax.jit(net.predict)
    np.testing.assert_array_equal(run(params, (), tokens), run(params, (), Sequences(TOKENS, mask)))
    without_first = tokens.copy()
    without_first[0, 0] = 0
    np.testing.assert_array_equal(run(params, (), Sequences(given, fewer)), run(params, (), without_first))


def test_masks_that_leak_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the zeros before a layer its weights' gradient has 0 times NaN."""
    monkeypatch.setattr(Sequences, "counted", property(lambda self: self.values))
    net = serial(Dense(4), Values)
    params = parameters("each position")[1]
    grads = backprop.value_and_grad(net, squared)(
        (params, ()), (), batch("each position", MASKS["right"], np.nan), np.zeros(4)
    )
    assert np.isnan(grads[1][0]["w"]).any()

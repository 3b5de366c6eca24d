"""Networks, batches and tapes, with the gradients of single examples by jax.vmap(jax.grad)."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import backprop, layers, losses, models
from jaxnn.layers import (
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Kind,
    LayerNorm,
    MaxPool,
    Relu,
    RMSNorm,
    Softmax,
    Tanh,
    stateless,
)
from jaxnn.tape import Scaling, Tape, positions

N = 6


class Case(NamedTuple):
    """A network on examples of one shape; `words` > 0 for integer inputs below it; the loss takes labels 0, 1, 2, or
    one-hot rows."""

    net: Any
    shape: tuple[int, ...]
    words: int = 0
    labels: tuple[int, ...] = ()
    loss: Any = losses.softmax_cross_entropy
    one_hot: bool = False


def _conv(**settings: Any) -> Any:
    return models.serial(Conv(4, 3, **settings), Tanh, GlobalAveragePool, Dense(3))


def _scale_init(key: Any, example: Any) -> Any:
    return {"s": jnp.ones(example.shape[-1], example.dtype)}


def _scaled(params: Any, x: Any) -> Any:
    return x * lax.broadcast_in_dim(params["s"], x.shape, (x.ndim - 1,))


BEND = stateless(Kind("bend"), lambda params, x: jnp.sin(_scaled(params, x)), _scale_init)
"""A layer of a user's own, without a rule."""

GAIN = stateless(Kind("gain"), _scaled, _scale_init)
"""One with a rule."""

backprop.register(
    GAIN.kind,
    backprop.Rule(
        backprop.keep_input,
        lambda layer, params, x, dy: _scaled(params, dy),
        lambda layer, params, x, dy: {"s": (Scaling(positions(x), positions(dy)),)},
    ),
)

IGNORING = functools.partial(losses.softmax_cross_entropy, ignore_index=2)

SMALL: dict[str, Any] = {"width": 4, "depth": 2, "heads": 2}
GATED = models.serial(layers.GatedDense(5), Dense(4))
ENCODER = models.transformer(
    5, **SMALL, pad=0, attention=layers.Attention(2, kv_heads=1, qk_norm=True), mlp=GATED,
    positions=layers.LearnedPositions(6), head=models.serial(layers.MeanPosition, Dense(3)),
)  # fmt: skip

CASES = {
    "mlp": Case(models.mlp([5, 7, 3], activation=Tanh), (5,)),
    "linear_no_bias": Case(models.serial(Dense(3, b_init=None)), (5,)),
    "cnn": Case(models.serial(Conv(4, 3), MaxPool(2), Relu, Conv(6, 2), Relu, Flatten, Dense(3)), (9, 9, 2)),
    "conv_stride": Case(_conv(stride=2, padding="SAME"), (7, 6, 2)),
    "conv_groups": Case(_conv(groups=2, padding="SAME"), (5, 5, 4)),
    "conv_depthwise": Case(models.serial(DepthwiseConv(3, multiplier=2), Tanh, GlobalAveragePool, Dense(3)), (5, 5, 2)),
    "conv_dilation": Case(_conv(dilation=(2, 1)), (8, 6, 2)),
    "conv_padding": Case(_conv(padding=[(2, 0), (1, 3)], stride=[2, 1]), (6, 5, 1)),
    "conv_one_position": Case(models.serial(Conv(8, 5), Flatten, Dense(3)), (5, 5, 2)),
    "conv_gram": Case(models.serial(Conv(30, 3), Relu, Flatten, Dense(3)), (4, 4, 8)),
    "embedding": Case(models.serial(Embedding(11, 4), Flatten, Dense(3)), (5,), words=11),
    "sequence": Case(models.serial(Dense(6), Tanh, Dense(3)), (4, 5), labels=(4,)),
    "sequence_gram": Case(models.serial(Dense(40), Tanh, Dense(3)), (2, 30), labels=(2,)),
    "layer_norm": Case(models.serial(Dense(6), LayerNorm(), Tanh, Dense(3)), (5,)),
    "group_norm": Case(models.serial(Conv(4, 3), GroupNorm(2), Relu, Flatten, Dense(3)), (5, 5, 2)),
    "prelu": Case(models.serial(Conv(4, 3), layers.PRelu(), Flatten, Dense(3)), (5, 5, 2)),
    "swish": Case(models.serial(Dense(6), layers.Swish(shared=True), Dense(3)), (4, 5), labels=(4,)),
    "rms_norm": Case(models.serial(Dense(6), RMSNorm(), Tanh, Dense(3)), (4, 5), labels=(4,)),
    "batch_norm": Case(models.serial(Conv(4, 3), BatchNorm(), Relu, Flatten, Dense(3)), (5, 5, 2)),
    "residual": Case(models.serial(Dense(5), models.residual(Dense(5), Tanh), Dense(3)), (5,)),
    "parallel": Case(models.serial(models.parallel(Dense(4), Dense(2)), Tanh, Dense(3)), (5,)),
    "rnn": Case(models.serial(layers.RNN(4), Dense(3)), (4, 5), labels=(4,)),
    "lstm_padded": Case(
        models.serial(layers.Padding(0), Embedding(11, 4), layers.LSTM(4), Dense(3), layers.Values),
        (5,),
        words=11,
        labels=(5,),
    ),
    "gru": Case(models.serial(layers.GRU(4), layers.GRU(4, reset_after=False), layers.LastPosition, Dense(3)), (4, 5)),
    "both_directions": Case(
        models.serial(models.parallel(layers.LSTM(3), layers.Reversed(layers.LinearRecurrence(2))), Dense(3)),
        (4, 5),
        labels=(4,),
    ),
    "own_layers": Case(models.serial(Dense(6), BEND, GAIN, Dense(3)), (4, 5), labels=(4,)),
    "ignored_labels": Case(models.serial(Dense(6), Tanh, Dense(3)), (4, 5), labels=(4,), loss=IGNORING),
    "transformer": Case(models.transformer(5, **SMALL), (4,), words=5, labels=(4,)),
    "transformer_stacked": Case(models.transformer(5, **SMALL, stacked=True), (4,), words=5, labels=(4,)),
    "encoder": Case(ENCODER, (4,), words=5, labels=()),
    "encoder_stacked": Case(
        models.transformer(5, **SMALL, causal=False, pad=0, stacked=True), (4,), words=5, labels=(4,)
    ),
    "fused": Case(models.serial(Dense(4), Tanh, Dense(3), Softmax), (5,), loss=losses.cross_entropy, one_hot=True),
}


class Made(NamedTuple):
    name: str
    params: Any
    state: Any
    x: Any
    y: Any

    @property
    def record(self) -> Any:
        return _record(self.name)

    @property
    def tape(self) -> Tape:
        return self.record(self.params, self.state, self.x, self.y)

    @property
    def abstract(self) -> Tape:
        """The tape's shapes, without a number."""
        return jax.eval_shape(self.record, *self[1:])

    def grads(self) -> Any:
        """The oracle: a tree like params, (N, ...)."""
        return _explicit(self.name)(*self[1:])


def make(name: str, dtype: Any = np.float64, n: int = N, seed: int = 0) -> Made:
    """Parameters (biases too) and state away from 0 and 1, drawn by NumPy.

    Weights are small enough that no softmax is certain: in float32 the small number 1 - p would have lost its digits.
    """
    case, rng = CASES[name], np.random.default_rng(seed)
    shape = jax.ShapeDtypeStruct(case.shape, jnp.int32) if case.words else case.shape
    params, state = jax.eval_shape(lambda: case.net.init(jax.random.key(0), shape))

    def drawn(p: Any) -> np.ndarray:
        return rng.standard_normal(p.shape) / max(2.0, math.prod(p.shape[:-1]) ** 0.5)

    def arrays(tree: Any) -> Any:
        return jax.tree.map(lambda v: np.asarray(v, dtype), tree)

    params = arrays(jax.tree.map(drawn, params))
    state = arrays(jax.tree.map(lambda s: np.abs(drawn(s)) + 0.5, state))
    x = rng.integers(0, case.words, (n, *case.shape)) if case.words else rng.standard_normal((n, *case.shape))
    x = x.astype(np.int32 if case.words else dtype)
    y = rng.integers(0, 3, (n, *case.labels))
    return Made(name, params, state, x, np.eye(3)[y].astype(dtype) if case.one_hot else y.astype(np.int32))


@functools.cache
def _record(name: str) -> Any:
    return jax.jit(backprop.record(CASES[name].net, CASES[name].loss))


@functools.cache
def _explicit(name: str) -> Any:
    def of_one(p: Any, state: Any, x: Any, y: Any) -> Any:
        return CASES[name].loss(CASES[name].net.predict(p, state, x[None]), y[None])[0]

    return jax.jit(jax.vmap(jax.grad(of_one), (None, None, 0, 0)))


def flat(tree: Any) -> np.ndarray:
    """(N, P) of a tree with leading N, in float64."""
    return np.concatenate([np.asarray(g, np.float64).reshape(g.shape[0], -1) for g in jax.tree.leaves(tree)], axis=1)


def vector(tree: Any) -> np.ndarray:
    """All entries of a tree, in float64."""
    return np.concatenate([np.asarray(g, np.float64).ravel() for g in jax.tree.leaves(tree)])


def gap(got: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected entry (absolute where all are 0)."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"{got.shape} and {expected.shape}"
    return float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))


def tape_of(losses: Any, outputs: Any, params: dict[str, Any], uses: dict[str, tuple[Any, ...]]) -> Tape:
    """A tape built by hand, of a dict of parameters."""
    names = sorted(params)
    leaves = tuple(jax.ShapeDtypeStruct(params[k].shape, params[k].dtype) for k in names)
    paths = tuple(f"[{k!r}]" for k in names)
    return Tape(losses, outputs, tuple(uses[k] for k in names), paths, jax.tree.structure(dict(params)), leaves)

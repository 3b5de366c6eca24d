"""Networks, batches and tapes, with the gradients of single examples by jax.vmap(jax.grad)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, losses, models
from jaxnn.layers import (
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    Relu,
    RMSNorm,
    Tanh,
)
from jaxnn.tape import Tape

N = 6


class Case(NamedTuple):
    """A network on examples of one shape; `words` > 0 for integer inputs below it; the loss takes labels 0, 1, 2."""

    net: Any
    shape: tuple[int, ...]
    words: int = 0
    labels: tuple[int, ...] = ()


def _conv(**settings: Any) -> Any:
    return models.serial(Conv(4, 3, **settings), Tanh, GlobalAveragePool, Dense(3))


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
    "rms_norm": Case(models.serial(Dense(6), RMSNorm(), Tanh, Dense(3)), (4, 5), labels=(4,)),
    "batch_norm": Case(models.serial(Conv(4, 3), BatchNorm(), Relu, Flatten, Dense(3)), (5, 5, 2)),
    "residual": Case(models.serial(Dense(5), models.residual(Dense(5), Tanh), Dense(3)), (5,)),
    "parallel": Case(models.serial(models.parallel(Dense(4), Dense(2)), Tanh, Dense(3)), (5,)),
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

    def grads(self) -> Any:
        """The oracle: a tree like params, (N, ...)."""
        return _explicit(self.name)(*self[1:])


def make(name: str, dtype: Any = np.float64, n: int = N, seed: int = 0) -> Made:
    """Parameters (biases too) and state away from 0 and 1, drawn by NumPy."""
    case, rng = CASES[name], np.random.default_rng(seed)
    shape = jax.ShapeDtypeStruct(case.shape, jnp.int32) if case.words else case.shape
    params, state = case.net.init(jax.random.key(seed), shape)

    def drawn(p: Any) -> Any:
        return jnp.asarray(rng.standard_normal(p.shape) * 0.5, dtype)

    params = jax.tree.map(drawn, params)
    state = jax.tree.map(lambda s: jnp.abs(drawn(s)) + jnp.asarray(0.5, dtype), state)
    x = rng.integers(0, case.words, (n, *case.shape)) if case.words else rng.standard_normal((n, *case.shape))
    x = jnp.asarray(x, jnp.int32 if case.words else dtype)
    y = jnp.asarray(rng.integers(0, 3, (n, *case.labels)), jnp.int32)
    return Made(name, params, state, x, y)


@functools.cache
def _record(name: str) -> Any:
    return jax.jit(backprop.record(CASES[name].net, losses.softmax_cross_entropy))


@functools.cache
def _explicit(name: str) -> Any:
    def of_one(p: Any, state: Any, x: Any, y: Any) -> Any:
        return losses.softmax_cross_entropy(CASES[name].net.predict(p, state, x[None]), y[None])[0]

    return jax.jit(jax.vmap(jax.grad(of_one), (None, None, 0, 0)))


def flat(tree: Any) -> np.ndarray:
    """(N, P) of a tree with leading N, in float64."""
    return np.concatenate([np.asarray(g, np.float64).reshape(g.shape[0], -1) for g in jax.tree.leaves(tree)], axis=1)


def vector(tree: Any) -> np.ndarray:
    """All entries of a tree, in float64."""
    return np.concatenate([np.asarray(g, np.float64).ravel() for g in jax.tree.leaves(tree)])


def gap(got: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected entry."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"{got.shape} and {expected.shape}"
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def tape_of(losses: Any, outputs: Any, params: dict[str, Any], uses: dict[str, tuple[Any, ...]]) -> Tape:
    """A tape built by hand, of a dict of parameters."""
    names = sorted(params)
    leaves = tuple(jax.ShapeDtypeStruct(params[k].shape, params[k].dtype) for k in names)
    paths = tuple(f"[{k!r}]" for k in names)
    return Tape(losses, outputs, tuple(uses[k] for k in names), paths, jax.tree.structure(dict(params)), leaves)

"""The models of benchmarks/per_example_any.py in plain flax linen, without changes for the tape."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

TRANSFORMER = {"vocabulary": 96, "length": 128, "width": 256, "heads": 4, "hidden": 1024, "layers": 4}
"""The sizes of the transformer, for torch too."""
STACKED = "stacked"
"""The name of the parameters whose first axis is that of scanned blocks."""


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for width in (512, 512):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for channels in (32, 64):
            x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x)))


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        mask = nn.make_causal_mask(jnp.ones(x.shape[:-1]))
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Causal and pre-norm; the output layer shares the matrix of the embedding."""

    vocabulary: int
    length: int
    width: int
    heads: int
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(self.vocabulary, self.width)
        x = embed(tokens) + self.param("positions", nn.initializers.normal(0.02), (self.length, self.width))
        for _ in range(self.layers):
            x = Block(self.heads, self.hidden)(x)
        return embed.attend(nn.LayerNorm()(x))


class Step(nn.Module):
    """A block as `nn.scan` wants it: (x, ())."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any, _: Any) -> tuple[Any, tuple[()]]:
        return Block(self.heads, self.hidden)(x), ()


class Scanned(nn.Module):
    """Blocks of one stack of parameters, scanned, each rematerialized in the backward pass; logits of the positions."""

    heads: int
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        blocks = nn.scan(
            nn.remat(Step, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        x, _ = blocks(self.heads, self.hidden, name=STACKED)(x, None)
        return nn.Dense(10)(nn.LayerNorm()(x))


class Gru(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(10)(nn.RNN(nn.GRUCell(128))(x)[:, -1])


class Case(NamedTuple):
    """A model, the shapes of one example and of its labels, and the numbers of classes and tokens."""

    model: nn.Module
    batch: int
    example: tuple[int, ...]
    labels: tuple[int, ...] = ()
    classes: int = 10
    tokens: int | None = None


CASES = {
    "mlp": Case(Mlp(), 128, (784,)),
    "cnn": Case(Cnn(), 128, (28, 28, 1)),
    "transformer": Case(Transformer(**TRANSFORMER), 16, (128,), (128,), 96, 96),
    "gru": Case(Gru(), 32, (50, 64)),
    "scan8": Case(Scanned(4, 256, 8), 16, (128, 64), (128,)),
}


def arguments(case: Case) -> tuple[Any, Any, Any]:
    """Parameters and a random batch (params, x, y); the values do not affect the time."""
    rng = np.random.default_rng(0)
    shape = (case.batch, *case.example)
    x = rng.integers(0, case.tokens, shape) if case.tokens else rng.standard_normal(shape, np.float32)
    y = rng.integers(0, case.classes, (case.batch, *case.labels))
    params = jax.jit(case.model.init)(jax.random.key(0), x[:1])
    return params, jnp.asarray(x), jnp.asarray(y)

"""A decoder like GPT-2 in plain flax linen, as people train it: float32 parameters, bfloat16 arithmetic.

Scanned blocks, each rematerialized in the backward pass, or written out one by one; the output layer with a matrix of
its own, or sharing the embedding's.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

BF16 = jnp.bfloat16


class Block(nn.Module):
    """Causal attention and a GELU layer, each after a layer norm and beside a residual; (x, ()) as `nn.scan` wants."""

    heads: int

    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> tuple[Any, Any]:
        width = x.shape[-1]
        mask = nn.make_causal_mask(jnp.ones(x.shape[:-1]))
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=BF16)
        x = x + attention(nn.LayerNorm(dtype=BF16)(x), mask=mask)
        hidden = nn.gelu(nn.Dense(4 * width, dtype=BF16)(nn.LayerNorm(dtype=BF16)(x)))
        return x + nn.Dense(width, dtype=BF16)(hidden), ()


class Gpt(nn.Module):
    """Tokens (N, T) -> logits (N, T, vocabulary) in float32."""

    vocabulary: int = 32_768
    length: int = 1024
    width: int = 768
    heads: int = 12
    layers: int = 12
    tied: bool = False
    scanned: bool = True

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(self.vocabulary, self.width, dtype=BF16)
        positions = self.param("positions", nn.initializers.normal(0.02), (self.length, self.width))
        x = embed(tokens) + positions.astype(BF16)
        if self.scanned:
            blocks = nn.scan(
                nn.remat(Block, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.layers,
            )
            x, _ = blocks(self.heads)(x, None)
        else:
            for _ in range(self.layers):
                x, _ = Block(self.heads)(x)
        x = nn.LayerNorm(dtype=BF16)(x)
        logits = embed.attend(x) if self.tied else nn.Dense(self.vocabulary, use_bias=False, dtype=BF16)(x)
        return logits.astype(jnp.float32)


def shapes(model: Gpt, batch: int) -> tuple[Any, Any, Any]:
    """(params, x, y) of a batch, without values."""
    tokens = jax.ShapeDtypeStruct((batch, model.length), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, model.length), jnp.int32))
    return params, tokens, tokens

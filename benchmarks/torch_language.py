"""Language models in torch, as peers: nanoGPT's CPU configuration, the transformer of this library, an LSTM."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class NanoBlock(nn.Module):
    """Causal attention and a GELU layer, each after a layer norm and beside a residual, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Any) -> Any:
        n, t, width = x.shape
        q, k, v = (
            y.view(n, t, self.heads, width // self.heads).transpose(1, 2)
            for y in self.qkv(self.norms[0](x)).split(width, 2)
        )
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class NanoGpt(nn.Module):
    """nanoGPT's network at its CPU configuration: 4 blocks of width 128 with 4 heads, windows of 64, a tied head."""

    def __init__(
        self, vocabulary: int = 65, width: int = 128, depth: int = 4, heads: int = 4, length: int = 64
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(NanoBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, x: Any) -> Any:
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.tokens.weight)


class Block(nn.Module):
    """The block of `models.transformer` by default, with the parameters of one of ours."""

    def __init__(self, attention: dict[str, Any], mlp: tuple[Any, Any], norms: tuple[Any, Any], heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name, value in attention.items():
            setattr(self, name, nn.Parameter(value.T.contiguous() if value.ndim == 2 else value))
        self.up, self.down = (nn.Parameter(w.T.contiguous()) for w in mlp)
        self.norm_1, self.norm_2 = (nn.Parameter(scale) for scale in norms)

    def forward(self, x: Any, cos: Any, sin: Any) -> Any:
        n, t, width = x.shape
        h, d = F.rms_norm(x, (width,), self.norm_1, 1e-5), width // self.heads
        q, k, v = (F.linear(h, w).view(n, t, self.heads, d) for w in (self.wq, self.wk, self.wv))
        q, k = F.rms_norm(q, (d,), self.q_scale, 1e-6), F.rms_norm(k, (d,), self.k_scale, 1e-6)
        q, k = (self.rotated(y, cos, sin).transpose(1, 2) for y in (q, k))
        o = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + F.linear(o.transpose(1, 2).reshape(n, t, width), self.wo)
        return x + F.linear(F.relu(F.linear(F.rms_norm(x, (width,), self.norm_2, 1e-5), self.up)).square(), self.down)

    def rotated(self, x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Transformer(nn.Module):
    """`models.transformer(...)` in torch, from its parameters (as NumPy arrays): the same function."""

    def __init__(self, params: Any, heads: int, base: float, length: int) -> None:
        super().__init__()
        embedding, *blocks, norm, _ = params
        self.table, self.norm = (nn.Parameter(_tensor(w)) for w in (embedding["w"], norm["scale"]))
        self.blocks = nn.ModuleList()
        for ((norm_1, attention), _), ((norm_2, (up, _, down)), _) in blocks:
            scales = tuple(_tensor(each["scale"]) for each in (norm_1, norm_2))
            mlp = (_tensor(up["w"]), _tensor(down["w"]))
            self.blocks.append(Block({name: _tensor(w) for name, w in attention.items()}, mlp, scales, heads))
        size = embedding["w"].shape[1] // heads
        turns = np.arange(length)[:, None] * float(base) ** -(np.arange(0, size, 2) / size)[None]
        self.register_buffer("cos", torch.tensor(np.cos(turns)[None, :, None], dtype=torch.float32))
        self.register_buffer("sin", torch.tensor(np.sin(turns)[None, :, None], dtype=torch.float32))

    def forward(self, x: Any) -> Any:
        h = F.embedding(x, self.table)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        return F.linear(F.rms_norm(h, (h.shape[-1],), self.norm, 1e-5), self.table)


def loss_of(net: Any, x: Any, y: Any) -> Any:
    """The mean cross-entropy of the next tokens."""
    logits = net(x)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def trainer(net: Any, optimizer: Any, x: Any, y: Any, *, clip: float | None = None) -> Any:
    """A function that makes one optimizer step and returns the loss."""

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(net, x, y)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        return float(loss.detach())

    return step


def _tensor(x: Any) -> Any:
    return torch.tensor(np.asarray(x))

"""The torch rival of benchmarks/per_example_any.py, in a process of its own: the transformer under Opacus.

    python benchmarks/per_example_any_torch.py SIZES 16     # the sizes as JSON, and the batch

Prints one line of JSON: median seconds of torch's plain gradient and of Opacus' ghost clipping, alternating run by run;
the difference of Opacus' norms from those of single backward passes; versions. Needs torch and Opacus.

The model is that of `benchmarks/flax_models.py`, except where Opacus' ghost clipping has no rule: the output has a
matrix of its own (shared parameters raise), and positions are an `nn.Embedding`, looked up for every example, instead
of a parameter. Attention is `nn.Linear` and `scaled_dot_product_attention`, so that each matrix has a rule.
"""

from __future__ import annotations

import importlib.metadata
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from per_example_torch import DEVICE, ghost, ghost_step, plain_step
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Any) -> Any:
        n, length, width = x.shape

        def by_head(linear: nn.Module) -> Any:
            return linear(seen).view(n, length, self.heads, -1).transpose(1, 2)

        seen = self.before_attention(x)
        mixed = F.scaled_dot_product_attention(by_head(self.q), by_head(self.k), by_head(self.v), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.before_mlp(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, vocabulary: int, length: int, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width, 1e-6), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Any) -> Any:
        places = torch.arange(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1)
        x = self.tokens(tokens) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


def fresh(sizes: dict[str, int]) -> nn.Module:
    torch.manual_seed(0)
    return Transformer(**sizes).to(DEVICE)


def losses(logits: Any, y: Any) -> Any:
    """The loss of each example: the mean over its tokens."""
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1)


def mean_loss(logits: Any, y: Any) -> Any:
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def norm_of_one(net: nn.Module, x: Any, y: Any) -> float:
    net.zero_grad(set_to_none=True)
    mean_loss(net(x[None]), y[None]).backward()
    return float(torch.stack([p.grad.norm() for p in net.parameters()]).norm())


def in_turns(runs: dict[str, Callable[[], Any]], budget: float = 2.0) -> dict[str, float]:
    """Median seconds of alternating runs, in a new random order each time, after a warm-up."""

    def once(run: Callable[[], Any]) -> float:
        began = time.perf_counter()
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for run in runs.values():
        once(run)
    turns = min(50, max(3, int(budget / sum(once(run) for run in runs.values()))))
    times: dict[str, list[float]] = {name: [] for name in runs}
    rng = random.Random(0)
    for _ in range(turns):
        for name in rng.sample(list(runs), len(runs)):
            times[name].append(once(runs[name]))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    warnings.simplefilter("ignore")
    sizes, batch = json.loads(sys.argv[1]), int(sys.argv[2])
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randint(sizes["vocabulary"], (batch, sizes["length"]), generator=g).to(DEVICE) for _ in range(2))
    net, clipping = fresh(sizes), ghost(fresh(sizes))
    clipped = ghost_step(clipping, losses, x, y)
    clipped()
    found = clipping.get_norm_sample()
    errors = [abs(float(norm) / norm_of_one(net, *one) - 1) for norm, *one in zip(found, x, y, strict=True)]
    seconds = in_turns({"plain": plain_step(net, mean_loss, x, y), "ghost": clipped})
    versions = {name: importlib.metadata.version(name) for name in ("torch", "opacus")}
    print(json.dumps(seconds | {"error of norms": max(errors), "versions": versions}))


if __name__ == "__main__":
    main()

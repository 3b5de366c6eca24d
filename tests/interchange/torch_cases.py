"""Networks of ours beside modules of PyTorch that compute the same, and their outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch
from torch import nn

from jaxnn import interchange, models
from jaxnn.initializers import zeros
from jaxnn.layers import (
    GRU,
    LSTM,
    RNN,
    Attention,
    BatchNorm,
    Conv,
    ConvTranspose,
    CrossAttention,
    Dense,
    DepthwiseConv,
    Dropout,
    Embedding,
    Flatten,
    GatedDense,
    Gelu,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    LayerNorm,
    LearnedPositions,
    MeanPosition,
    PRelu,
    Relu,
    Reshape,
    RMSNorm,
    Sequences,
    Tanh,
    tied,
)
from jaxnn.layers.sequences import values_of
from tests.helpers import random

TOKENS = 11


class Case(NamedTuple):
    """Our network, the module, one example, names where needed; whether arrays of several axes have channels first."""

    ours: Layer
    theirs: Callable[[], nn.Module]
    example: Any
    names: Mapping[str, Any] | None = None
    channels_first: bool = False


class First(nn.Module):
    """The first output of a module that returns several."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)[0]


class SelfAttention(nn.Module):
    def __init__(self, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.inner, self.causal = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True), causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype) if self.causal else None
        return self.inner(x, x, x, attn_mask=mask)[0]


class Cross(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, kdim=context, vdim=context, batch_first=True)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.inner(x, context, context)[0]


class Separate(nn.Module):
    """Attention of four linear modules, with fewer heads of keys and values and normalized queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.o_proj, self.v_proj = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False)
        self.k_proj, self.q_proj = nn.Linear(8, 4, bias=False), nn.Linear(8, 8, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(2, eps=1e-6), nn.RMSNorm(2, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (proj(x).unflatten(-1, (-1, 2)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.q_norm(q), self.k_norm(k)
        o = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o_proj(o.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(5, 6, bias=False), nn.Linear(5, 6, bias=False), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 2), nn.Linear(30, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.a(x).flatten(1), self.b(x).flatten(1)], 1))


class Residual(nn.Module):
    """A block as in torchvision: the shortcut is made last, the convolutions have no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.relu(y + self.downsample(x)).mean((2, 3)))


class Encoder(nn.Module):
    """Tokens to classes, by `nn.TransformerEncoder`."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(TOKENS, 8), nn.Embedding(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=norm_first)
        last = nn.LayerNorm(8) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 2, norm=last, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.head(self.encoder(x).mean(1))


def encoder(pre_norm: bool, stacked: bool = False) -> Layer:
    return models.transformer(
        TOKENS,
        width=8,
        depth=2,
        attention=Attention(2, b_init=zeros),
        mlp=models.serial(Dense(16), Gelu, Dense(8)),
        norm=LayerNorm(),
        pre_norm=pre_norm,
        positions=LearnedPositions(6),
        head=models.serial(MeanPosition, Dense(3)),
        stacked=stacked,
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(TOKENS, 8), nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, TOKENS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


def tied_net() -> Layer:
    embed = Embedding(TOKENS, 8)
    return models.serial(embed, LSTM(8), LSTM(8), tied(embed))


def pair(*shapes: tuple[int, ...]) -> Sequences:
    """One example of features, with a context."""
    x, context = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return Sequences(x, context=Sequences(context))


tokens = jax.ShapeDtypeStruct((6,), jnp.int32)
sequential = nn.Sequential
image = functools.partial(Case, channels_first=True)
no_bias: dict[str, Any] = {"b_init": None}
pads = ((1, 1), (2, 2))

CASES: dict[str, Case] = {
    "dense": Case(Dense(4), lambda: nn.Linear(3, 4), (3,)),
    "dense without bias": Case(Dense(4, **no_bias), lambda: nn.Linear(3, 4, bias=False), (3,)),
    "conv 1-D": image(Conv(4, 3, stride=2), lambda: nn.Conv1d(3, 4, 3, stride=2), (9, 3)),
    "conv 2-D": image(
        Conv(6, (3, 2), stride=(2, 1), padding=pads, dilation=(1, 2), groups=2),
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (7, 6, 4),
    ),
    "conv 3-D": image(Conv(4, 2, **no_bias), lambda: nn.Conv3d(3, 4, 2, bias=False), (4, 3, 5, 3)),
    "depthwise": image(DepthwiseConv(3, multiplier=2), lambda: nn.Conv2d(3, 6, 3, groups=3), (5, 5, 3)),
    "transposed 1-D": image(ConvTranspose(4, 3, stride=2), lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), (5, 3)),
    "transposed 2-D": image(
        ConvTranspose(4, (3, 2), stride=(2, 1), padding=((1, 1), (0, 0)), dilation=(1, 2)),
        lambda: nn.ConvTranspose2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        (4, 5, 3),
    ),
    "transposed 3-D": image(ConvTranspose(2, 2), lambda: nn.ConvTranspose3d(3, 2, 2), (2, 3, 4, 3)),
    "batch norm": image(BatchNorm(), lambda: nn.BatchNorm2d(3), (4, 5, 3)),
    "layer norm": Case(LayerNorm(), lambda: nn.LayerNorm(5), (5,)),
    "group norm": image(GroupNorm(2), lambda: nn.GroupNorm(2, 4), (3, 5, 4)),
    "RMS norm": Case(RMSNorm(eps=1e-3), lambda: nn.RMSNorm(5, eps=1e-3), (5,)),
    "PReLU": image(PRelu(), lambda: nn.PReLU(3), (4, 5, 3)),
    "PReLU, one": Case(PRelu(shared=True), lambda: nn.PReLU(), (4,)),
    "embedding": Case(Embedding(TOKENS, 4), lambda: nn.Embedding(TOKENS, 4), tokens),
    "RNN": Case(RNN(4), lambda: First(nn.RNN(3, 4, batch_first=True)), (5, 3)),
    "LSTM without bias": Case(LSTM(4, **no_bias), lambda: First(nn.LSTM(3, 4, bias=False, batch_first=True)), (5, 3)),
    "GRU": Case(GRU(4), lambda: First(nn.GRU(3, 4, batch_first=True)), (5, 3)),
    "bidirectional LSTM of two layers": Case(
        models.serial(models.bidirectional(LSTM(4)), models.bidirectional(LSTM(4))),
        lambda: First(nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)),
        (5, 3),
    ),
    "attention": Case(Attention(2, b_init=zeros), SelfAttention, (5, 8)),
    "attention, causal": Case(Attention(2, causal=True), lambda: SelfAttention(True, False), (5, 8)),
    "cross-attention": Case(
        CrossAttention(2, b_init=zeros), lambda: Cross(6), pair((5, 8), (4, 6))
    ),
    "cross-attention, packed": Case(
        CrossAttention(2, b_init=zeros), lambda: Cross(8), pair((5, 8), (4, 8))
    ),
    "separate projections": Case(
        Attention(4, kv_heads=2, qk_norm=True),
        Separate,
        (5, 8),
        {"": ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
    ),
    "gated": Case(models.serial(GatedDense(6), Dense(5)), Gated, (5,), {"0": ("gate", "up")}),
    "MLP": image(
        models.mlp([12, 7, 5], activation=Tanh),
        lambda: sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5)),
        (2, 2, 3),
    ),
    "CNN": image(
        models.cnn([4, 5], [8], 5, batch_norm=True, padding="SAME"),
        lambda: sequential(
            nn.Identity(),
            *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(5), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 5)),
        ),
        (8, 12, 3),
    ),
    "normalized features": image(
        models.serial(Conv(3, 2), Flatten, BatchNorm(), PRelu(), LayerNorm(), Dropout(0.5), Dense(4)),
        lambda: sequential(
            *(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.BatchNorm1d(18), nn.PReLU(18), nn.LayerNorm(18)),
            *(nn.Dropout(), nn.Linear(18, 4)),
        ),
        (3, 4, 2),
    ),
    "flattened signals": image(
        models.serial(Conv(3, 2), Relu, Flatten, Dense(4)),
        lambda: sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)),
        (5, 2),
    ),
    "flattened sequences": Case(
        models.serial(Embedding(TOKENS, 3), LayerNorm(), Flatten, Dense(4)),
        lambda: sequential(nn.Embedding(TOKENS, 3), nn.LayerNorm(3), nn.Flatten(), nn.Linear(18, 4)),
        tokens,
    ),
    "images of vectors": image(
        models.serial(Dense(12), BatchNorm(), Relu, Reshape(2, 2, 3), ConvTranspose(2, 2, stride=2)),
        lambda: sequential(
            *(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Unflatten(1, (3, 2, 2))),
            nn.ConvTranspose2d(3, 2, 2, stride=2),
        ),
        (5,),
    ),
    "branches": image(
        models.serial(
            models.parallel(models.serial(Conv(2, 1), Flatten), models.serial(Conv(3, 2), Flatten)), Dense(4)
        ),
        Branches,
        (3, 3, 2),
    ),
    "residual": image(
        models.serial(
            models.residual(
                *(Conv(4, 3, stride=2, padding=((1, 1), (1, 1)), **no_bias), BatchNorm(), Relu),
                *(Conv(4, 3, padding="SAME", **no_bias), BatchNorm()),
                shortcut=models.serial(Conv(4, 1, stride=2, **no_bias), BatchNorm()),
            ),
            *(Relu, GlobalAveragePool, Dense(5)),
        ),
        Residual,
        (6, 6, 3),
    ),
    "tied": Case(tied_net(), Tied, tokens),
    "encoder, norm first": Case(encoder(True), lambda: Encoder(True), tokens),
    "encoder, norm after": Case(encoder(False), lambda: Encoder(False), tokens),
    "encoder, stacked": Case(encoder(True, stacked=True), lambda: Encoder(True), tokens),
}  # fmt: skip


@functools.cache
def module_of(name: str) -> nn.Module:
    """The module with random numbers in all its arrays, in float64 and evaluation mode."""
    torch.manual_seed(0)
    module = CASES[name].theirs().double().eval()
    with torch.no_grad():
        for i, (key, x) in enumerate(module.state_dict().items()):
            if x.is_floating_point():
                values = random(i, *x.shape) * 0.5
                x.copy_(torch.from_numpy(np.abs(values) + 0.5 if key.endswith("running_var") else values))
    return module


def inputs(name: str, dtype: Any = np.float64) -> Any:
    """Three examples for our network."""
    example = CASES[name].example
    if isinstance(example, Sequences):
        context = Sequences(random(1, 3, *example.context.values.shape, dtype=dtype))
        return Sequences(random(0, 3, *example.values.shape, dtype=dtype), context=context)
    if hasattr(example, "dtype"):
        return np.random.default_rng(0).integers(0, TOKENS, (3, *example.shape))
    return random(0, 3, *example, dtype=dtype)


def outputs(name: str, module: nn.Module, x: Any) -> np.ndarray:
    """The module's outputs, with channels last, in the dtype of its parameters."""
    first = CASES[name].channels_first
    if isinstance(x, Sequences):
        arrays = [x.values, x.context.values]
    else:
        arrays = [np.moveaxis(x, -1, 1) if first and x.ndim > 2 else x]
    with torch.no_grad():
        y = module(*(torch.from_numpy(np.ascontiguousarray(each)) for each in arrays)).numpy()
    return np.moveaxis(y, 1, -1) if first and y.ndim > 2 else y


def predicted(name: str, params: Any, state: Any, x: Any) -> np.ndarray:
    """Our network's outputs."""
    return np.asarray(values_of(jax.jit(CASES[name].ours.predict)(params, state, x)))


def converted(name: str, module: nn.Module) -> tuple[Any, Any]:
    """(params, state) of our network."""
    case = CASES[name]
    return interchange.from_torch(case.ours, module.state_dict(), case.example, names=case.names)

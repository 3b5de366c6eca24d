"""What gradients and statistics of single examples cost: jaxnn against what else there is, as multiples of a gradient.

    python benchmarks/per_example.py                                # all networks, about 15 minutes on 2 cores
    python benchmarks/per_example.py --only mlp --rounds 3
    python benchmarks/per_example.py --torch-python PATH            # an interpreter that has torch, Opacus, BackPACK
    python benchmarks/per_example.py --write                        # and keep them in benchmarks/results/

Networks: `mlp` 784-512-512-10, batches of 128 and 512; `cnn` conv 3x3x32 - pool - conv 3x3x64 - pool - 128 - 10 on
28x28x1, batch 128; `2c2d` conv 5x5x32 - pool - conv 5x5x64 - pool - 1024 - 10 (DeepOBS' fmnist_2c2d), batch 128;
`allcnn` nine convolutions in the manner of All-CNN-C, a third of its channels, on 32x32x3, batch 32.

Quantities, each from parameters and a batch, forward and backward pass included: the mean gradient; per-example norms
with the mean gradient; the clipped sum; second moment; variance; the Gram matrix (batch 256; for allcnn 32); and all of
norms, clipped sum, second moment, Gram matrix and noise scale from one tape.

The unit is the plain mean gradient by `jax.grad` of the same network, in the same process. The JAX rivals run in one
process and take turns; so do the torch rivals in a process of their own, whose unit is the plain forward and backward
pass in torch. A round's figure is the median of repeats, each blocked until its results are there, after a warm-up;
ratios are formed within a round and their median is printed with the range over rounds. Temporary memory is what XLA's
memory analysis names for the compiled program. Rivals that are not installed are left out with a line that says so.
XLA on CPU treats `vmap(grad)` of weights badly (as batched products with a batch of one row, as grouped convolutions),
and jax_privacy rests upon it: their figures are as measured, and say little about an accelerator.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training import environment  # noqa: E402
from jaxnn import backprop, losses, models, per_example, train  # noqa: E402
from jaxnn.layers import Conv, Dense, Flatten, GlobalAveragePool, MaxPool, Relu  # noqa: E402

BOUND = 1.0
"""The clipping bound."""
LOSS = losses.softmax_cross_entropy


class Net(NamedTuple):
    """A network, the shape of one example, and the batches to measure."""

    layer: Any
    example: tuple[int, ...]
    batches: tuple[int, ...]
    gram_batch: int


def all_cnn() -> Any:
    """All-CNN-C (Springenberg et al. 2015, table 1) with a third of its channels."""
    parts: list[Any] = []
    for channels, window, stride in [(32, 3, 1), (32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 1), (64, 3, 2)]:
        parts += [Conv(channels, window, stride=stride, padding="SAME"), Relu]
    for channels, window in [(64, 3), (64, 1), (10, 1)]:
        parts += [Conv(channels, window), Relu]
    return models.serial(*parts[:-1], GlobalAveragePool)


def two_conv_two_dense() -> Any:
    """DeepOBS' fmnist_2c2d (Schneider, Balles & Hennig 2019), the pool before the ReLU."""
    stages = [part for c in (32, 64) for part in (Conv(c, 5, padding="SAME"), MaxPool(2), Relu)]
    return models.serial(*stages, Flatten, Dense(1024), Relu, Dense(10))


NETS = {
    "mlp": Net(models.mlp([784, 512, 512, 10]), (784,), (128, 512), 256),
    "cnn": Net(models.cnn(), (28, 28, 1), (128,), 256),
    "2c2d": Net(two_conv_two_dense(), (28, 28, 1), (128,), 256),
    "allcnn": Net(all_cnn(), (32, 32, 3), (32,), 32),
}


def flax_like(layer: Any) -> Callable[[Any, Any], Any]:
    """(params, x) -> outputs with XLA's own convolution and `reduce_window` for the maximum, as flax has them."""

    def apply(params: Any, x: Any) -> Any:
        for part, p in zip(layer.parts, params, strict=True):
            if part.kind.name == "conv":
                strides = (part.options["stride"],) * 2
                numbers = ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(
                    x, p["w"], strides, part.options["padding"], dimension_numbers=numbers
                ) + p["b"]
            elif part.kind.name == "max_pool":
                window = (1, 2, 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            else:
                x = part.predict(p, (), x)
        return x

    return apply


def programs(net: Any) -> dict[str, dict[str, Callable[..., Any]]]:
    """For each quantity and rival a function of (params, state, x, y), y of integer labels."""
    plain = jax.grad(train.mean_loss(net, LOSS), has_aux=True)
    record = backprop.record(net, LOSS)
    ours = backprop.value_and_grad(net, LOSS)
    like_flax = flax_like(net)

    def by_reduce_window(params: Any, state: Any, x: Any, y: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(LOSS(like_flax(p, x), y)))(params)

    def of_one(params: Any, state: Any, x: Any, y: Any) -> Any:
        return LOSS(net.predict(params, state, x[None]), y[None])[0]

    each = jax.vmap(jax.grad(of_one), (None, None, 0, 0))

    def on_tape(*statistics: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda *batch: [f(record(*batch)) for f in statistics] if len(statistics) == 1 else (
            lambda tape: [f(tape) for f in statistics]
        )(record(*batch))

    def on_grads(f: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda *batch: f(each(*batch))

    clip = functools.partial(per_example.clipped_grad, clip=BOUND)
    everything = on_tape(
        per_example.norms, clip, per_example.second_moment, per_example.gram, per_example.noise_scale
    )
    convolutional = any(part.kind.name == "conv" for part in net.parts)
    found: dict[str, dict[str, Callable[..., Any]]] = {
        "gradient": {"jax.grad": plain, "jaxnn": ours},
        "norms and mean": {
            "jaxnn": on_tape(per_example.norms, per_example.mean_grad),
            "vmap(grad)": on_grads(lambda g: (norms_of(g), mean_of(g))),
        },
        "clipped sum": {"jaxnn": on_tape(clip), "vmap(grad)": on_grads(clipped_of)},
        "second moment": {
            "jaxnn": on_tape(per_example.second_moment),
            "vmap(grad)": on_grads(lambda g: jax.tree.map(lambda a: jnp.mean(a**2, 0), g)),
        },
        "variance": {
            "jaxnn": on_tape(per_example.variance),
            "vmap(grad)": on_grads(lambda g: jax.tree.map(lambda a: jnp.var(a, 0), g)),
        },
        "gram": {
            "jaxnn": on_tape(per_example.gram),
            "jaxnn.materialize": lambda *batch: gram_of(per_example.materialize(record(*batch))),
            "vmap(grad)": on_grads(gram_of),
        },
        "everything": {"jaxnn": everything},
    }
    if convolutional:
        found["gradient"]["jax.grad, reduce_window"] = by_reduce_window
    else:
        found["variance"]["jaxnn centred"] = on_tape(per_example.variance_centred)
    return found


def sq_norms_of(grads: Any) -> Any:
    """|g_i|^2 of a tree of gradients with a leading axis N."""
    return sum(jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(grads))


def norms_of(grads: Any) -> Any:
    return jnp.sqrt(sq_norms_of(grads))


def mean_of(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.mean(g, 0), grads)


def clipped_of(grads: Any) -> Any:
    """(sum_i min(1, C / |g_i|) g_i, norms)."""
    norms = norms_of(grads)
    factors = jnp.minimum(1.0, BOUND / norms)
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), grads), norms


def gram_of(grads: Any) -> Any:
    """<g_i, g_j> of gradients that are written out."""
    flat = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(grads)]
    return sum(jnp.einsum("ip,jp->ij", g, g, precision="highest") for g in flat)


class Runner:
    """A compiled program with its batch; `seconds()` runs it once and says how long it took."""

    def __init__(self, program: Callable[..., Any], batch: tuple[Any, ...]) -> None:
        began = time.perf_counter()
        self.compiled = jax.jit(program).lower(*batch).compile()
        self.compile_s = time.perf_counter() - began
        analysis = self.compiled.memory_analysis()
        self.temp_bytes = None if analysis is None else analysis.temp_size_in_bytes
        self.batch = batch

    def seconds(self) -> float:
        began = time.perf_counter()
        jax.block_until_ready(self.compiled(*self.batch))
        return time.perf_counter() - began

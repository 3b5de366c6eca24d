"""What users compile: the gradient of the training loss, and statistics from the tape of one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import Conv, Dense, Embedding, Flatten, GroupNorm, MaxPool, Relu

LOSS = losses.softmax_cross_entropy
NETS = {
    "mlp": (models.mlp([12, 16, 10]), (12,)),
    "cnn": (models.serial(Conv(4, 3), MaxPool(2), Relu, Conv(6, 3), GroupNorm(2), Relu, Flatten, Dense(10)), (8, 8, 2)),
    "words": (models.serial(Embedding(20, 6), Flatten, Dense(10)), (5,)),
}
FROM_A_TAPE: dict[str, Callable[[Any], Any]] = {
    "norms": per_example.norms,
    "clipped_grad": lambda tape: per_example.clipped_grad(tape, 1.0),
    "clipped_grad_by_layer": lambda tape: per_example.clipped_grad_by_layer(tape, 1.0),
    "mean_grad": per_example.mean_grad,
    "second_moment": per_example.second_moment,
    "variance": per_example.variance,
    "gram": per_example.gram,
    "noise_scale": per_example.noise_scale,
    "materialize": per_example.materialize,
}


def program(net: str, name: str) -> Callable[..., Any]:
    """(params, state, x, y) -> one of these statistics, or "value_and_grad", or "diag_ggn"."""
    layer = NETS[net][0]
    if name == "value_and_grad":
        return backprop.value_and_grad(layer, LOSS)
    if name == "diag_ggn":
        columns = backprop.ggn_record(layer, LOSS)
        return lambda *arguments: per_example.diag_ggn(columns(*arguments))
    record = backprop.record(layer, LOSS)
    return lambda *arguments: FROM_A_TAPE[name](record(*arguments))


PROGRAMS = ["value_and_grad", *FROM_A_TAPE, "diag_ggn"]


def shapes(net: str, n: int) -> tuple[Any, ...]:
    """Parameters, state, n inputs and labels, without numbers."""
    layer, shape = NETS[net]
    dtype = jnp.int32 if net == "words" else jnp.float32
    x, y = jax.ShapeDtypeStruct((n, *shape), dtype), jax.ShapeDtypeStruct((n,), jnp.int32)
    params, state = jax.eval_shape(lambda: layer.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype)))
    return params, state, x, y

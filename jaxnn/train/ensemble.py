"""Many seeds of one training run as one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.placement import compiler_sharded
from jaxnn.train.arguments import as_training, require_net, require_optimizer
from jaxnn.train.batches import example_of
from jaxnn.train.keys import run_keys
from jaxnn.train.loss import mean_loss
from jaxnn.train.pieces import scan_epoch
from jaxnn.train.step import Augment, TrainState, ValueAndGrad, init
from jaxnn.types import Array, Key, Loss, Params, PyTree


def ensemble(
    net: Layer,
    loss: Loss,
    opt: Transformation,
    train: Any,
    *,
    keys: Key,
    epochs: int,
    batch_size: int = 128,
    regularizer: Callable[[Params], Array] | None = None,
    value_and_grad: ValueAndGrad | None = None,
    augment: Augment | None = None,
    partial: Partial = Partial.DROP,
) -> tuple[TrainState, dict[str, Array]]:
    """Train one network from S seeds at once: `vmap` over the scanned epochs, on the same data.

    Member s equals the run of `fit` with `key=keys[s]`, up to the rounding of batched kernels.

    Args:
        keys: S typed keys, shape (S,): `jax.random.split(key, S)`.
        net, loss, opt, train, epochs, batch_size, regularizer, value_and_grad, augment, partial: as for `fit`.

    Returns:
        (ts, report): every leaf of `ts` has a leading axis S (`jax.vmap(net.predict, (0, 0, None))` predicts with all);
        each array in `report` ("loss", "examples") is (S, epochs, steps). A member that diverged holds NaN or
        infinities and does not affect the others.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> ts, report = ensemble(models.linear(2), losses.softmax_cross_entropy, optim.sgd(0.1),
        ...                       (jnp.ones((8, 3)), jnp.zeros(8, jnp.int32)),
        ...                       keys=jax.random.split(jax.random.key(0), 5), epochs=2, batch_size=4)
        >>> ts.params[1]["w"].shape, report["loss"].shape
        ((5, 3, 2), (5, 2, 2))
    """
    epochs = require_positive_int("ensemble", "epochs", epochs)
    if jnp.ndim(keys) != 1:
        raise ValueError(
            f"ensemble: keys must have shape (S,), one per member, got {jnp.shape(keys)}. Use jax.random.split(key, S)."
        )
    require_net("ensemble", net)
    require_optimizer("ensemble", opt)
    x, y = as_training("ensemble", train)
    vg = value_and_grad or jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)
    epoch = scan_epoch(vg, opt, batch_size=batch_size, partial=partial, augment=augment)

    def run(key: Key, x: PyTree, y: PyTree) -> tuple[TrainState, dict[str, Array]]:
        init_key, epochs_key = run_keys(key)
        ts = init(net, opt, init_key, example_of(x, batch_size))
        return jax.lax.scan(
            lambda ts, e: epoch(ts, x, y, jax.random.fold_in(epochs_key, e)), ts, jnp.arange(1, epochs + 1)
        )

    return jax.jit(functools.partial(compiler_sharded, jax.vmap(run, in_axes=(0, None, None)), None))(keys, x, y)

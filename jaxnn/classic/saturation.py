"""A saturated sigmoid unit: the gradient of the squared error vanishes, that of cross-entropy does not."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import losses, models, optim
from jaxnn.activations import sigmoid
from jaxnn.checks import as_array
from jaxnn.layers import Dense
from jaxnn.train import mean_loss
from jaxnn.types import Array, ArrayLike, Loss, Params, Scalar


def squared_error_of_sigmoid(logits: ArrayLike, targets: ArrayLike) -> Array:
    """C = 1/2 sum (y - d)^2 per example, y = sigmoid(z); derivative (y - d) y (1 - y), which vanishes as |z| grows.

    Args:
        logits: z (N, ...), floating.
        targets: d of the same shape, in [0, 1].

    Returns:
        (N,), summed over all axes but the first.

    Example:
        >>> squared_error_of_sigmoid(jnp.array([0.0]), jnp.array([0.0]))
        Array([0.125], dtype=float32)
    """
    return losses.half_squared_error(sigmoid(as_array("squared_error_of_sigmoid", "logits", logits)), targets)


LOSSES: dict[str, Loss] = {
    "squared error": squared_error_of_sigmoid,
    "cross-entropy": losses.sigmoid_binary_cross_entropy,
}
"""The two losses, functions of (logits, targets)."""


def slopes(loss: Loss, z: Array, target: Scalar = 0.0) -> Array:
    """dC/dz of a sigmoid unit: (y - d) y (1 - y) for the squared error, y - d for cross-entropy.

    Args:
        loss: one of `LOSSES`.
        z: logits (N,), floating.
        target: d in [0, 1].

    Returns:
        (N,).

    Reference: Solla, S. A., Levin, E. & Fleisher, M. (1988). Accelerated learning in layered neural networks.

    Example:
        >>> slopes(LOSSES["cross-entropy"], jnp.array([0.0, 100.0]))
        Array([0.5, 1. ], dtype=float32)
    """
    return jax.grad(lambda z: loss(z, jnp.full_like(z, target)).sum())(z)


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def descend(loss: Loss, start: Scalar, *, learning_rate: Scalar = 0.5, steps: int = 300) -> Array:
    """The output of one sigmoid unit during gradient descent on the target d = 0 at x = 1.

    w <- w - eta dC/dz, b <- b - eta dC/dz, from w = b = start / 2, so that z = start at first.

    Args:
        loss: one of `LOSSES`; static.
        start: the initial logit; 4 means y = 0.98.
        learning_rate: eta.
        steps: number of steps; static.

    Returns:
        (steps + 1,), y before each step and after the last.

    Example:
        >>> [descend(loss, 4.0, steps=10)[-1].item() for loss in LOSSES.values()]
        [0.97..., 0.1...]
    """
    net, opt = models.serial(Dense(1)), optim.sgd(learning_rate)
    half = jnp.asarray(start) / 2
    params: Params = ({"w": half.reshape(1, 1), "b": half.reshape(1)},)
    x = jnp.ones((1, 1), half.dtype)
    slope = jax.grad(mean_loss(net, loss), has_aux=True)

    def step(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], Array]:
        params, state = carry
        grads, _ = slope(params, (), x, jnp.zeros_like(x))
        updates, state = opt.update(grads, state, params)
        params = optim.apply_updates(params, updates)
        return (params, state), net.predict(params, (), x)[0, 0]

    _, later = jax.lax.scan(step, (params, opt.init(params)), None, length=steps)
    return sigmoid(jnp.append(half * 2, later))


def steps_until(outputs: Array, error: Scalar = 0.1) -> Array:
    """The number of steps until the output is below `error`; `steps` if it never is.

    Args:
        outputs: (..., steps + 1), from `descend`.
        error: in (0, 1).

    Returns:
        (...), int32.

    Example:
        >>> steps_until(jnp.array([0.9, 0.5, 0.05, 0.01]))
        Array(2, dtype=int32)
    """
    below = outputs < error
    return jnp.where(below.any(-1), jnp.argmax(below, -1), outputs.shape[-1] - 1).astype(jnp.int32)

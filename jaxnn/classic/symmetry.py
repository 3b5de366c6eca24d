"""Symmetry of hidden units: units with equal initial weights stay equal, and count as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn import losses, models, optim, train
from jaxnn.data import toy
from jaxnn.initializers import Initializer, zeros
from jaxnn.layers import Dense, Layer, Tanh
from jaxnn.train import FitResult
from jaxnn.types import Array, Key, Params

POINTS = 200
"""Training points of `run`, from the exclusive or."""


def network(w_init: Initializer, *, hidden: int = 4) -> Layer:
    """Two inputs, `hidden` tanh units, one logit; every weight from `w_init`, every bias 0."""
    return models.serial(Dense(hidden, w_init=w_init, b_init=zeros), Tanh, Dense(1, w_init=w_init, b_init=zeros))


def spread(params: Params) -> Array:
    """The largest difference between two hidden units in corresponding incoming weights, biases or outgoing weights.

    If units j and k have equal incoming weights, biases and outgoing weights, they have equal outputs and equal
    cotangents, hence equal gradients: dC/dw_j = dC/dw_k. By induction they stay equal.

    Args:
        params: of `network`.

    Returns:
        A scalar >= 0.

    Reference: Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning internal representations by error
        propagation, section "Breaking symmetry".

    Example:
        >>> from jaxnn.initializers import normal
        >>> spread(network(normal(1.0)).init(jax.random.key(0), (2,))[0]) > 0.5
        Array(True, dtype=bool)
    """
    incoming, _, outgoing = params
    by_unit = jnp.concatenate([incoming["w"], incoming["b"][None], outgoing["w"].T])
    return jnp.max(jnp.ptp(by_unit, axis=1))


def run(w_init: Initializer, *, key: Key, hidden: int = 4, epochs: int = 100) -> FitResult:
    """Train the network on the exclusive or, from weights initialized by `w_init`.

    Args:
        w_init: `initializers.constant(0.5)` for equal units, `initializers.normal(1.0)` for different ones.
        key: of the random weights and the order.
        hidden: number of units.
        epochs: of 200 points in batches of 20, by SGD with learning rate 0.5.

    Returns:
        FitResult; its history has the loss, "spread", and each unit's first incoming weight, "unit_0", "unit_1", ..,
        averaged over the steps of each epoch.

    Example:
        >>> from jaxnn.initializers import constant
        >>> run(constant(0.5), key=jax.random.key(0), epochs=1).history[0]["spread"] < 1e-6
        True
    """
    points = toy.xor(jax.random.key(0), POINTS, noise=0.2)

    def measure(params: Params, grads: Params, updates: Params) -> dict[str, Array]:
        first = params[0]["w"][0]
        return {"spread": spread(params)} | {f"unit_{j}": first[j] for j in range(hidden)}

    return train.fit(
        network(w_init, hidden=hidden),
        losses.sigmoid_binary_cross_entropy,
        optim.sgd(0.5),
        (points.x, points.y[:, None].astype(points.x.dtype)),
        key=key,
        epochs=epochs,
        batch_size=20,
        measure=measure,
        progress=False,
    )

"""Symmetry of hidden units: units with equal initial weights stay equal, and count as one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

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


def separation(params: Params) -> Array:
    """The difference between the two most similar hidden units: 0 if two of them count as one.

    min_(j < k) min(|u_j - u_k|, |u_j + u_k|) with |.| the largest entry, u_j the incoming weights, bias and outgoing
    weights of unit j. Units of opposite sign are similar too: v tanh(z) = (-v) tanh(-z).

    Args:
        params: of `network`, with at least two hidden units.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: there is only one hidden unit.

    Reference: Sussmann, H. J. (1992). Uniqueness of the weights for minimal feedforward nets with a given input-output
        map (the sign symmetry of tanh).

    Example:
        >>> twins = ({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}, (), {"w": jnp.array([[1.0], [3.0]])})
        >>> separation(twins)
        Array(2., dtype=float32)
    """
    incoming, _, outgoing = params
    units = jnp.concatenate([incoming["w"], incoming["b"][None], outgoing["w"].T]).T
    if len(units) < 2:
        raise ValueError("separation: expected at least two hidden units, got 1.")
    first, second = np.triu_indices(len(units), k=1)
    each = [jnp.max(jnp.abs(units[first] - sign * units[second]), axis=1) for sign in (1.0, -1.0)]
    return jnp.min(jnp.minimum(*each))


def most_separate(runs: Sequence[FitResult]) -> int:
    """The index of the run with the largest `separation` of its final hidden units.

    Args:
        runs: results of `run`, at least one, such as those of several keys.

    Raises:
        ValueError: there is no run.

    Example:
        >>> from jaxnn.initializers import constant, normal
        >>> most_separate([run(w_init, key=jax.random.key(0), epochs=1) for w_init in (constant(0.5), normal(0.5))])
        1
    """
    if not len(runs):
        raise ValueError("most_separate: expected at least one run, got none.")
    return int(np.argmax([float(separation(found.params)) for found in runs]))


def run(w_init: Initializer, *, key: Key, hidden: int = 4, epochs: int = 100) -> FitResult:
    """Train the network on the exclusive or, from weights initialized by `w_init`.

    Args:
        w_init: `initializers.constant(0.5)` for equal units, `initializers.normal(1.0)` for different ones.
        key: of the random weights and the order.
        hidden: number of units.
        epochs: of 200 points in batches of 20, by SGD with learning rate 0.5.

    Returns:
        FitResult; its history has the loss, "spread", and the two incoming weights of each unit, "unit_0_1",
        "unit_0_2", "unit_1_1", .., averaged over the steps of each epoch. Runs with the same `w_init` share their
        compiled programs.

    Example:
        >>> from jaxnn.initializers import constant
        >>> run(constant(0.5), key=jax.random.key(0), epochs=1).history[0]["spread"] < 1e-6
        True
    """
    points = toy.xor(jax.random.key(0), POINTS, noise=0.2)
    net, opt, measure = _setup(w_init, hidden)  # type: ignore[arg-type]  # functions can be hashed
    return train.fit(
        net,
        losses.sigmoid_binary_cross_entropy,
        opt,
        (points.x, points.y[:, None].astype(points.x.dtype)),
        key=key,
        epochs=epochs,
        batch_size=20,
        measure=measure,
        progress=False,
    )


@functools.lru_cache(maxsize=8)
def _setup(w_init: Initializer, hidden: int) -> tuple[Layer, optim.Optimizer, Callable[..., dict[str, Array]]]:
    """Network, optimizer and measure, the same objects each time: `fit` compiles anew for others."""

    def measure(params: Params, grads: Params, updates: Params) -> dict[str, Array]:
        w = params[0]["w"]
        weights = {f"unit_{j}_{i + 1}": w[i, j] for j in range(hidden) for i in range(2)}
        return {"spread": spread(params)} | weights

    return network(w_init, hidden=hidden), optim.sgd(0.5), measure

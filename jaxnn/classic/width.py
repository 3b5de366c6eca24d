"""Universal approximation by training: the error of networks of one hidden layer against their width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, models, optim, train
from jaxnn.checks import require_positive_int
from jaxnn.initializers import lecun_normal, uniform
from jaxnn.layers import Activation, Dense, Layer
from jaxnn.types import Array, Scalar

WIDTHS = (1, 2, 4, 8, 16, 32)

POINTS = 128
"""Number of training points, evenly spaced on [-1, 1]."""

BATCH = 32


class Approximations(NamedTuple):
    """The fits of `approximate` for W widths and R seeds.

    Attributes:
        widths: (W,).
        x, y: (T,), the points and the function at them.
        outputs: (W, R, T), the networks' outputs at the points.
    """

    widths: np.ndarray
    x: np.ndarray
    y: np.ndarray
    outputs: np.ndarray

    @property
    def rms(self) -> np.ndarray:
        """(W, R), the root mean squared error over the points."""
        return np.asarray(np.sqrt(((self.outputs - self.y) ** 2).mean(axis=-1)))

    @property
    def largest(self) -> np.ndarray:
        """(W, R), the largest |error| over the points; the theorem is about its supremum over the interval."""
        return np.asarray(np.abs(self.outputs - self.y).max(axis=-1))


def wavy(x: Array) -> Array:
    """sin(3 pi x) + x / 2: three waves on a slope, x in [-1, 1].

    Example:
        >>> wavy(jnp.array([0.0]))
        Array([0.], dtype=float32)
    """
    return jnp.sin(3 * jnp.pi * x) + x / 2


def network(width: int, on: Scalar | None = None) -> Layer:
    """y = sum_j v_j tanh(w_j x + b_j) + c: `width` tanh units with inflection points -b_j / w_j.

    The inflection points are random, on average two thirds of them in [-1, 1].

    Args:
        width: number of units.
        on: the units after the first `on` are masked: their outputs and gradients are 0. None: no mask. May be traced.

    Example:
        >>> from jaxnn import tree
        >>> tree.size(network(8).init(jax.random.key(0), (1,))[0])
        25
    """

    def switched(z: Array) -> Array:
        return jnp.tanh(z) if on is None else jnp.where(jnp.arange(width) < on, jnp.tanh(z), 0)

    hidden = Dense(width, w_init=uniform(-6.0, 6.0), b_init=uniform(-4.0, 4.0))
    return models.serial(hidden, Activation(switched), Dense(1, w_init=lecun_normal))


def approximate(
    function: Callable[[Array], Array] = wavy, *, widths: Sequence[int] = WIDTHS, seeds: int = 8, epochs: int = 750
) -> Approximations:
    """Fit a function on [-1, 1] by networks of each width, all widths and seeds in one vmapped program.

    Adam with a cosine schedule from 0.03 to 0, on 128 points in batches of 32.

    Args:
        function: x (T,) -> y (T,), continuous.
        widths: hidden units, one or more numbers, each at least 1.
        seeds: R, for initial weights and order.
        epochs: of 4 steps each.

    Raises:
        TypeError: widths is not a sequence, or a width or seeds is not an integer.
        ValueError: widths is empty, or a width or seeds is less than 1.

    Reference: Cybenko, G. (1989). Approximation by superpositions of a sigmoidal function. Hornik, K. (1991).
        Approximation capabilities of multilayer feedforward networks.

    Example:
        >>> approximate(widths=(2,), seeds=3, epochs=1).rms.shape
        (1, 3)
    """
    if np.ndim(widths) != 1:
        raise TypeError(f"approximate: widths must be a sequence of ints, such as (8,), got {widths!r}.")
    if not len(widths):
        raise ValueError("approximate: widths must hold at least one number of hidden units, such as (8,), got none.")
    widths = [require_positive_int("approximate", "each of widths", width) for width in widths]
    x = jnp.linspace(-1, 1, POINTS)
    y = function(x)
    keys = jax.random.split(jax.random.key(0), require_positive_int("approximate", "seeds", seeds))
    opt = optim.adam(optim.cosine_decay_schedule(0.03, epochs * (POINTS // BATCH)))
    points = (x[:, None], y[:, None])

    def fitted(size: Array) -> Array:
        net = network(max(widths), size)
        ts, _ = train.ensemble(net, losses.half_squared_error, opt, points, keys=keys, epochs=epochs, batch_size=BATCH)
        return jax.vmap(net.predict, (0, 0, None))(ts.params, ts.state, points[0])[..., 0]

    outputs = jax.jit(jax.vmap(fitted))(jnp.asarray(widths))
    return Approximations(*map(np.asarray, (widths, x, y, outputs)))

"""Shift invariance: a multi-layer perceptron and convolutional networks on shifted digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, losses, metrics, models, optim, train
from jaxnn.checks import require_positive_int
from jaxnn.data import Splits
from jaxnn.layers import Conv, Dense, Flatten, GlobalMaxPool, Layer, MaxPool, Relu
from jaxnn.types import Array, Params, State

BORDER = 4
"""Border of zeros around each digit, in pixels: no shift by at most `BORDER` loses a pixel of the digit."""

NETWORKS: Mapping[str, Layer] = {
    "MLP": models.serial(Flatten, Dense(64), Relu, Dense(10)),
    "CNN": models.serial(
        Conv(8, 3, padding="SAME"), MaxPool(2), Relu, Conv(16, 3, padding="SAME"), MaxPool(2), Relu, Flatten, Dense(10)
    ),
    "CNN, global max-pool": models.serial(
        Conv(12, 3, padding="SAME"), Relu, Conv(24, 3, padding="SAME"), Relu, GlobalMaxPool, Dense(10)
    ),
}
"""An MLP; a CNN whose last layer sees the positions of features; a CNN with global max-pooling, which does not.

The last is invariant under shifts by up to BORDER - 3 pixels, since convolutions commute with a shift and the maximum
is over all positions. The limit: the two convolutions reach 2 pixels beyond the digit, and the padding of the second
affects the outermost pixel (unless its inputs are 0 there, as without positive biases: then BORDER - 2).
"""


class ErrorMap(NamedTuple):
    """Error rates (2 r + 1, 2 r + 1) for shifts by -r .. r, down (rows) and right (columns); the trained network."""

    errors: np.ndarray
    params: Params
    state: State

    def by_distance(self) -> np.ndarray:
        """(r + 1,), the mean over all displacements of each distance max(|down|, |right|)."""
        reach = len(self.errors) // 2
        steps = np.abs(np.arange(-reach, reach + 1))
        distance = np.maximum(steps[:, None], steps)
        return np.array([self.errors[distance == d].mean() for d in range(reach + 1)])


def on_paper(images: Any, border: int = BORDER) -> Array:
    """Images (N, H, W, C) with a border of `border` zeros on each side."""
    border = require_positive_int("on_paper", "border", border, 0)
    return jnp.pad(jnp.asarray(images), ((0, 0), (border, border), (border, border), (0, 0)))


def shifted(images: Array, down: Any, right: Any) -> Array:
    """Images (N, H, W, C) shifted cyclically by whole pixels.

    Args:
        images: with a border wide enough that only zeros wrap around.
        down, right: integers, negative for up and left; may be traced.

    Example:
        >>> shifted(jnp.eye(2)[None, :, :, None], 1, 0)[0, :, :, 0]
        Array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    return jnp.roll(images, (down, right), axis=(1, 2))


def run(
    name: str, *, examples: Splits | None = None, reach: int = BORDER, epochs: int = 10, augmented: bool = False
) -> ErrorMap:
    """Train one of `NETWORKS` on centred digits; its validation error for every shift.

    Args:
        name: a key of `NETWORKS`.
        examples: 8 x 8 images with labels 0 .. 9, the test set unused; None for `data.load("digits")`.
        reach: r, the largest shift in pixels, at most `BORDER`.
        epochs: of Adam with learning rate 0.005 in batches of 50.
        augmented: whether training digits are shifted at random by up to r pixels.

    Raises:
        ValueError: an unknown name, a reach beyond the border, or fewer than 50 training examples.

    Reference: Fukushima, K. (1980). Neocognitron: a self-organizing neural network model for a mechanism of pattern
        recognition unaffected by shift in position. LeCun, Y. et al. (1989). Backpropagation applied to handwritten zip
        code recognition.

    Example:
        >>> few = data.Splits(*(data.select(part, slice(0, 50)) for part in data.load("digits")))
        >>> run("MLP", examples=few, reach=1, epochs=1).errors.shape
        (3, 3)
    """
    if name not in NETWORKS:
        raise ValueError(f"shifts: name must be one of {', '.join(NETWORKS)}, got {name!r}.")
    if require_positive_int("shifts", "reach", reach, 0) > BORDER:
        raise ValueError(f"shifts: reach must be at most the border of {BORDER} pixels, got {reach}.")
    examples = data.load("digits") if examples is None else examples
    net = NETWORKS[name]
    result = train.fit(
        net,
        losses.softmax_cross_entropy,
        optim.adam(5e-3),
        (on_paper(examples.train.x), examples.train.y),
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=50,
        augment=data.augment.shift(reach) if augmented else None,
        progress=False,
    )
    held_out = on_paper(examples.validation.x), jnp.asarray(examples.validation.y)
    return ErrorMap(error_map(net, result.params, result.state, *held_out, reach=reach), result.params, result.state)


def error_map(net: Layer, params: Params, state: State, x: Array, y: Array, *, reach: int) -> np.ndarray:
    """Error rates by displacement.

    Args:
        net, params, state: a classifier of images, in evaluation mode.
        x: (N, H, W, C) with a border of at least `reach`.
        y: (N,), labels.
        reach: r.

    Returns:
        (2 r + 1, 2 r + 1): entry (i, j) for a shift down by i - r and right by j - r.

    Example:
        >>> net = models.linear(2)
        >>> params, state = net.init(jax.random.key(0), (4, 4, 1))
        >>> error_map(net, params, state, jnp.zeros((3, 4, 4, 1)), jnp.zeros(3, jnp.int32), reach=1).shape
        (3, 3)
    """
    steps = jnp.arange(-reach, reach + 1)
    displacements = jnp.stack(jnp.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)

    @jax.jit
    def errors(params: Params, state: State, x: Array, y: Array) -> Array:
        def at(displacement: Array) -> Array:
            outputs = net.predict(params, state, shifted(x, displacement[0], displacement[1]))
            return metrics.error_rate(outputs, y).mean()

        return jax.lax.map(at, displacements)

    return np.asarray(errors(params, state, x, y)).reshape(len(steps), len(steps))

"""Heat maps of the units of a network over the plane, at some epochs of a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.layers import Layer
from jaxnn.models.combinators import spread
from jaxnn.playground.features import featurize
from jaxnn.playground.training import Run, compiler_options
from jaxnn.types import Array, Params

REACH = 6.0
"""The maps cover -6 to 6 in both coordinates."""

FRAMES = 30
"""The largest number of epochs shown."""

UNIT_SIZE, OUTPUT_SIZE = 28, 80
"""Pixels along the side of a unit's heat map, and of the output's."""


class Views(NamedTuple):
    """Heat maps, rows from the top (y = 6) down, columns from the left (x = -6).

    Attributes:
        epochs: (frames,), the epochs shown, the first 0.
        inputs: (features, S, S), S = 28, the features themselves.
        hidden: per hidden layer (frames, units, S, S), the outputs of its units.
        output: (frames, R, R), R = 80, the network's output.
    """

    epochs: np.ndarray
    inputs: np.ndarray
    hidden: tuple[np.ndarray, ...]
    output: np.ndarray


def shown_epochs(epochs: int, frames: int = FRAMES) -> np.ndarray:
    """The epochs shown out of 0 .. `epochs`: the first, the last, and increasingly sparse ones between.

    round(epochs (i / (frames - 1))^2), i = 0 .. frames - 1, without duplicates.

    Args:
        epochs: of training.
        frames: the largest number, >= 2.

    Returns:
        (frames,) or fewer ints, ascending.
    """
    return np.unique(np.rint(epochs * np.linspace(0, 1, frames) ** 2).astype(int))


def pixels(size: int) -> Array:
    """The centres of size x size pixels over [-6, 6]^2, row by row from the top left: (size^2, 2)."""
    along = REACH * ((2 * jnp.arange(size) + 1) / size - 1)
    x, y = jnp.meshgrid(along, -along)
    return jnp.stack([x.ravel(), y.ravel()], axis=1)


def unit_outputs(net: Layer, params: Params, x: Array) -> tuple[Array, ...]:
    """The outputs of every layer of units, (N, units) each, the network's own last.

    Args:
        net: from `network`: dense layers and activations alternating.
        params: its parameters.
        x: (N, F), its inputs.
    """
    outputs = []
    for part, own, state in zip(net.parts, params, spread((), net.parts), strict=True):
        x = part.predict(own, state, x)
        outputs.append(x)
    return tuple(outputs[1::2])


def make_views(run: Run) -> Views:
    """The heat maps of a run, computed by one compiled program.

    Example:
        >>> from jaxnn.playground.training import Settings, run
        >>> views = make_views(run(Settings(data="gauss", hidden=(3,), epochs=2)))
        >>> views.epochs, views.hidden[0].shape, views.output.shape
        (array([0, 1, 2]), (3, 3, 28, 28), (3, 80, 80))
    """
    names, epochs = run.settings.features, shown_epochs(len(run.train_loss) - 1)

    def found(params: Params) -> tuple[Any, ...]:
        small, large = (featurize(names, pixels(size)) for size in (UNIT_SIZE, OUTPUT_SIZE))
        *hidden, _ = jax.vmap(lambda p: unit_outputs(run.net, p, small))(params)
        output = jax.vmap(lambda p: unit_outputs(run.net, p, large)[-1])(params)
        return _images(small), tuple(map(_images, hidden)), _images(output)[:, 0]

    compiled = jax.jit(found, compiler_options=compiler_options())
    inputs, hidden, output = jax.tree.map(np.asarray, compiled(run.at(epochs)))
    return Views(epochs, inputs, hidden, output)


def _images(values: Array) -> Array:
    """(..., size^2 pixels, units) -> (..., units, size, size)."""
    size = round(values.shape[-2] ** 0.5)
    return jnp.swapaxes(values, -1, -2).reshape(*values.shape[:-2], values.shape[-1], size, size)

"""Depth: networks of 1 to 8 hidden layers, with and without batch normalization and residual connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import models, optim, train, tree
from jaxnn.checks import require_between, require_positive_int
from jaxnn.classic.trials import LOSS, as_counts, as_splits, few_digits, learning_curves, over_seeds
from jaxnn.data import Splits
from jaxnn.layers import BatchNorm, Dense, Flatten, Kind, Layer, Sigmoid
from jaxnn.train import TrainState
from jaxnn.types import Array, Key, Params, Scalar, State

OPT = optim.sgd(0.3)
DEPTHS = (1, 2, 3, 4, 6, 8)
UNITS = 32

KINDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"plain": (0, 0), "batch normalization": (1, 0), "residual": (0, 1), "both": (1, 1)}
)
"""The kinds of hidden layers, by `norm` and `skip` of `network`."""


class Depths(NamedTuple):
    """Results for K kinds of layers, D depths and R seeds.

    Attributes:
        kinds: names, K of them.
        depths: (D,), numbers of hidden layers.
        first_gradient: (K, D, R), the norm of the gradient of the first layer's weights before training, over all
            training examples in training mode.
        training, validation: (K, D, R), error rates in [0, 1] after training.
    """

    kinds: tuple[str, ...]
    depths: np.ndarray
    first_gradient: np.ndarray
    training: np.ndarray
    validation: np.ndarray


def switched_norm(on: Scalar) -> Layer:
    """Batch normalization if `on`, else the identity; `on` is 0 or 1 and may be traced.

    Example:
        >>> layer = switched_norm(0)
        >>> layer.predict(*layer.init(jax.random.key(0), (2,)), jnp.ones((1, 2)))
        Array([[1., 1.]], dtype=float32)
    """
    norm = BatchNorm()

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        y, state = norm.apply(params, state, x, train=train)
        return jnp.where(jnp.asarray(on, bool), y, x), state

    return Layer(norm.init, apply, Kind("switched_norm"), {}, (norm,))


def gated(layer: Layer, *, skip: Scalar = 0, on: Scalar = True) -> Layer:
    """y = layer(x) + skip x if `on`, else x; `skip` is 0 or 1, and both may be traced.

    Args:
        layer: with outputs of the shape of its inputs.

    Example:
        >>> from jaxnn.layers import Relu
        >>> [gated(Relu, skip=1, on=on).predict((), (), jnp.ones((1, 1))).item() for on in (True, False)]
        [2.0, 1.0]
    """

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        y, state = layer.apply(params, state, x, key=key, train=train)
        return jnp.where(jnp.asarray(on, bool), y + jnp.asarray(skip, x.dtype) * x, x), state

    return Layer(layer.init, apply, Kind("gated"), {}, (layer,))


def network(depth: Scalar, *, norm: Scalar = 0, skip: Scalar = 0, most: int = max(DEPTHS), classes: int = 10) -> Layer:
    """Hidden layers s(x w + b) of 32 sigmoid units and a linear output, as one program for all kinds and depths.

    With `norm`, x w + b is batch-normalized; with `skip`, every hidden layer but the first adds x to its output.

    Args:
        depth: number of hidden layers, 1 .. most; those after it are the identity. May be traced, as norm and skip.
        norm, skip: 0 or 1.
        most: layers that the parameters are for.
        classes: number of outputs.

    Raises:
        ValueError: a concrete depth is not in 1 .. most.

    Example:
        >>> net = network(2, norm=1)
        >>> net.predict(*net.init(jax.random.key(0), (8, 8, 1)), jnp.ones((5, 8, 8, 1))).shape
        (5, 10)
    """

    most = require_positive_int("depth.network", "most", most)
    require_between("depth.network", "depth", depth, 1, most)

    def hidden() -> tuple[Layer, ...]:
        return Dense(UNITS), switched_norm(norm), Sigmoid

    more = (gated(models.serial(*hidden()), skip=skip, on=jnp.less(i, depth)) for i in range(1, most))
    return models.serial(Flatten, *hidden(), *more, Dense(classes))


def by_depth(
    depths: Sequence[int] = DEPTHS, *, examples: Splits | None = None, seeds: int = 2, epochs: int = 20
) -> Depths:
    """Train every kind of `KINDS` at every depth; all kinds, depths and seeds are one compiled program.

    A sigmoid's derivative is at most 1/4, so that each plain layer shrinks the gradient of those before it.

    Args:
        depths: numbers of hidden layers, each at least 1.
        examples: training and validation sets, see `trials.as_splits`; None for `trials.few_digits(600, wrong=0)`.
        seeds: R runs of each.
        epochs: of gradient descent with learning rate 0.3 in batches of 50.

    Returns:
        Depths.

    Raises:
        TypeError, ValueError: depths out of range, or examples that `trials.as_splits` rejects.

    Reference: Glorot, X. & Bengio, Y. (2010). Understanding the difficulty of training deep feedforward neural
        networks. Ioffe, S. & Szegedy, C. (2015). Batch normalization: accelerating deep network training by reducing
        internal covariate shift. He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep residual learning for image
        recognition.

    Example:
        >>> by_depth((1, 2), examples=few_digits(50), seeds=2, epochs=1).validation.shape
        (4, 2, 2)
    """
    examples, classes = as_splits("depth", few_digits(600, wrong=0) if examples is None else examples)
    depths = as_counts("depth", "depths", depths)
    most = max(depths)

    def run(kind: Array, depth: Array, start: TrainState, key: Key, examples: Splits) -> tuple[Array, ...]:
        net = network(depth, norm=kind[0], skip=kind[1], most=most, classes=classes)
        x, y = jnp.asarray(examples.train.x), jnp.asarray(examples.train.y)
        loss = train.mean_loss(net, LOSS)
        grads = jax.grad(lambda params: loss(params, start.state, x, y)[0])(start.params)
        _, curves = learning_curves(net, OPT, examples, start, key, epochs=epochs)
        return tree.norm(grads[1]["w"]), curves.training_error[-1], curves.validation_error[-1]

    def over_settings(start: TrainState, key: Key, examples: Splits) -> tuple[Array, ...]:
        over_depths = jax.vmap(run, (None, 0, None, None, None))
        over_kinds = jax.vmap(over_depths, (0, None, None, None, None))
        return over_kinds(jnp.asarray(list(KINDS.values())), jnp.asarray(depths), start, key, examples)

    widest = network(most, most=most, classes=classes)
    found = over_seeds("depth", over_settings, widest, OPT, examples, seeds)
    return Depths(tuple(KINDS), np.array(depths), *(np.moveaxis(np.asarray(values), 0, -1) for values in found))

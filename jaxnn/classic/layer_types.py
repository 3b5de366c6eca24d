"""Layer types: the same small network with a layer of another type in the middle, its size, cost and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import models, optim, tree
from jaxnn.checks import nearest_name
from jaxnn.classic.products import count
from jaxnn.classic.trials import Curves, as_splits, few_digits, learning_curves, over_seeds
from jaxnn.data import Splits
from jaxnn.layers import Conv, Dense, Flatten, Layer, MaxPool, Relu
from jaxnn.train import TrainState
from jaxnn.types import Key

OPT = optim.adam(3e-3)

TYPES: Mapping[str, tuple[Layer, ...]] = MappingProxyType(
    {
        "none: linear": (Flatten,),
        "dense": (Flatten, Dense(64), Relu),
        "1 x 1 convolution": (Conv(16, 1), Relu, Flatten),
        "3 x 3 convolution": (Conv(16, 3, padding="SAME"), Relu, Flatten),
        "3 x 3, max-pool": (Conv(16, 3, padding="SAME"), Relu, MaxPool(2), Flatten),
    }
)
"""The layers before the linear output, by name; the examples are images (H, W, C)."""


class Types(NamedTuple):
    """Results for T types of layers and R seeds.

    Attributes:
        names: T of them.
        parameters: (T,), weights, biases, scales and shifts of the network, its linear output included.
        multiplications: (T,), for one example.
        training, validation: (T, R), error rates in [0, 1] after training.
    """

    names: tuple[str, ...]
    parameters: np.ndarray
    multiplications: np.ndarray
    training: np.ndarray
    validation: np.ndarray


def network(name: str, classes: int = 10) -> Layer:
    """The layers of a type and a linear output.

    Raises:
        ValueError: not a key of `TYPES`.

    Example:
        >>> params, state = network("3 x 3, max-pool").init(jax.random.key(0), (8, 8, 1))
        >>> tree.size(params)
        2730
    """
    if not isinstance(name, str) or name not in TYPES:
        raise ValueError(
            f"layer_types: no type {name!r}{nearest_name(str(name), TYPES)}; there are: {'; '.join(TYPES)}."
        )
    return models.serial(*TYPES[name], Dense(classes))


def by_type(
    names: Sequence[str] = tuple(TYPES), *, examples: Splits | None = None, seeds: int = 3, epochs: int = 20
) -> Types:
    """Train a network of each type, its seeds as one compiled program.

    Args:
        names: keys of `TYPES`.
        examples: images for training and validation, see `trials.as_splits`; None for `trials.few_digits(600,
            wrong=0)`.
        seeds: R runs of each.
        epochs: in batches of 50, by Adam with learning rate 0.003.

    Raises:
        TypeError, ValueError: an unknown name, or examples that are not images or that `trials.as_splits` rejects.

    Reference: LeCun, Y. (1989). Generalization and network design strategies.

    Example:
        >>> found = by_type(["none: linear"], examples=few_digits(50), seeds=2, epochs=1)
        >>> found.parameters.item(), found.multiplications.item(), found.validation.shape
        (650, 640, (1, 2))
    """
    examples, classes = as_splits("layer_types", few_digits(600, wrong=0) if examples is None else examples)
    shape = np.shape(examples.train.x)[1:]
    if len(shape) != 3:
        raise ValueError(f"layer_types: examples must be images (N, H, W, C), got {np.shape(examples.train.x)}.")
    if isinstance(names, str) or not len(names):
        raise ValueError(f"layer_types: names must be a sequence of at least one type, got {names!r}.")
    nets = [network(name, classes) for name in names]
    sizes, products, errors = [], [], []
    for net in nets:
        params, state = jax.eval_shape(lambda key, net=net: net.init(key, shape), jax.random.key(0))
        sizes.append(tree.size(params))
        one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        products.append(count(net.predict, params, state, one).multiplications)
        curves = over_seeds("layer_types", _run(net, epochs), net, OPT, examples, seeds)
        errors.append([np.asarray(curves.training_error[:, -1]), np.asarray(curves.validation_error[:, -1])])
    training, validation = np.stack(errors, axis=1)
    return Types(tuple(names), np.array(sizes), np.array(products), training, validation)


def _run(net: Layer, epochs: int) -> Callable[[TrainState, Key, Splits], Curves]:
    """The learning curves of one run."""

    def run(start: TrainState, key: Key, examples: Splits) -> Curves:
        return learning_curves(net, OPT, examples, start, key, epochs=epochs)[1]

    return run

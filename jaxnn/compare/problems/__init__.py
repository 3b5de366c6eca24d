"""Benchmark problems by name: `load("digits-mlp")`.

| name | problem |
|---|---|
| `quadratic` | DeepOBS' noisy quadratic in 100 dimensions |
| `rosenbrock` | Rosenbrock's valley in two dimensions, without noise |
| `digits-logistic`, `digits-mlp`, `digits-cnn`, `digits-autoencoder` | the embedded digits; no download |
| `char-transformer` | a small transformer on the characters of the embedded text; no download |
| `mnist-mlp`, `mnist-cnn`, `fmnist-mlp` | MNIST and Fashion-MNIST |
| `fmnist-2c2d` | DeepOBS' convolutional network on Fashion-MNIST |

`from_function(name, init, loss, data)` makes one of your own; a `Problem` of a network takes net, loss and Datasets.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from jaxnn.checks import nearest_name
from jaxnn.compare.problems.analytic import of_landscape, quadratic, rosenbrock
from jaxnn.compare.problems.base import Problem, from_function, values
from jaxnn.compare.problems.networks import (
    char_transformer,
    classification,
    digits_autoencoder,
    digits_cnn,
    digits_logistic,
    digits_mlp,
    fmnist_2c2d,
    fmnist_mlp,
    mnist_cnn,
    mnist_mlp,
)

__all__ = ["PROBLEMS", "Problem", "classification", "from_function", "load", "of_landscape", "values"]

PROBLEMS: MappingProxyType[str, Callable[[], Problem]] = MappingProxyType(
    {
        "quadratic": quadratic,
        "rosenbrock": rosenbrock,
        "digits-logistic": digits_logistic,
        "digits-mlp": digits_mlp,
        "digits-cnn": digits_cnn,
        "digits-autoencoder": digits_autoencoder,
        "char-transformer": char_transformer,
        "mnist-mlp": mnist_mlp,
        "mnist-cnn": mnist_cnn,
        "fmnist-mlp": fmnist_mlp,
        "fmnist-2c2d": fmnist_2c2d,
    }
)
"""Factories of the problems by their names on the command line."""


def load(name: str) -> Problem:
    """A problem by its name.

    Raises:
        ValueError: no such problem; the nearest names are suggested.

    Example:
        >>> load("digits-mpl")
        Traceback (most recent call last):
        ValueError: no problem 'digits-mpl' (did you mean 'digits-mlp'?); there are: quadratic, rosenbrock, ...
    """
    if name not in PROBLEMS:
        raise ValueError(f"no problem {name!r}{nearest_name(name, PROBLEMS)}; there are: {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]()

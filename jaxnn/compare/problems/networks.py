"""Networks on real data: logistic regression, perceptrons, convolutional networks, an autoencoder, a transformer."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxnn import data, losses, metrics, models
from jaxnn.compare.problems.base import Problem
from jaxnn.data import Dataset
from jaxnn.initializers import constant, truncated_normal
from jaxnn.initializers.distributions import TRUNCATED_STDDEV
from jaxnn.layers import Conv, Dense, Flatten, Layer, MaxPool, Relu, Sigmoid

DEEPOBS = "Schneider, Balles & Hennig (2019), DeepOBS: a deep learning optimizer benchmark suite"

W, B = truncated_normal(0.05 * TRUNCATED_STDDEV), constant(0.05)
"""DeepOBS' initializers for convolutional networks: its 0.05 is the deviation before truncation."""


def classification(
    name: str,
    net: Layer,
    source: str,
    *,
    epochs: int,
    batch_size: int = 128,
    target: float | None = None,
    **attributes: Any,
) -> Problem:
    """A network on one of the sets of `data.load`, judged by its error on the validation split; with its test set.

    Args:
        name: of the problem.
        net: with one output per class.
        source: "digits", "mnist" or "fashion-mnist".
        epochs, batch_size, target, attributes: as the attributes of `Problem`.
    """
    parts = data.load(source)
    return Problem(
        name, net, losses.softmax_cross_entropy, parts.train, parts.validation, batch_size, epochs, parts.test,
        metrics={"error": metrics.error_rate}, figure="validation_error", target=target, **attributes,
    )  # fmt: skip


def digits_logistic() -> Problem:
    """Multinomial logistic regression on the embedded digits: convex."""
    return classification("digits-logistic", models.linear(10), "digits", epochs=20, batch_size=32, target=0.03)


def digits_mlp() -> Problem:
    """An MLP 64-32-10 on the embedded digits."""
    return classification("digits-mlp", models.mlp([64, 32, 10]), "digits", epochs=30, batch_size=32, target=0.0225)


def digits_cnn() -> Problem:
    """A small convolutional network on the embedded digits."""
    net = models.serial(Conv(16, 3, padding="SAME"), MaxPool(2), Relu, Flatten, Dense(32), Relu, Dense(10))
    return classification("digits-cnn", net, "digits", epochs=20, batch_size=32, target=0.015)


def mnist_mlp() -> Problem:
    """An MLP 784-100-10 on MNIST."""
    return classification("mnist-mlp", models.mlp([784, 100, 10]), "mnist", epochs=5, target=0.035)


def mnist_cnn() -> Problem:
    """conv 16 - pool - conv 32 - pool - 10 on MNIST."""
    return classification("mnist-cnn", models.cnn([16, 32], [], 10), "mnist", epochs=3, target=0.02)


def fmnist_mlp() -> Problem:
    """An MLP 784-100-10 on Fashion-MNIST."""
    return classification("fmnist-mlp", models.mlp([784, 100, 10]), "fashion-mnist", epochs=5, target=0.14)


def fmnist_2c2d() -> Problem:
    """DeepOBS' fmnist_2c2d: conv 5x5x32, pool, conv 5x5x64, pool, 1024, 10, on Fashion-MNIST.

    Weights from a normal of deviation 0.05 truncated at -0.1 and 0.1, biases 0.05; batches of 128; 100 epochs.
    """
    net = models.serial(
        Conv(32, 5, padding="SAME", w_init=W, b_init=B), Relu, MaxPool(2),
        Conv(64, 5, padding="SAME", w_init=W, b_init=B), Relu, MaxPool(2),
        Flatten, Dense(1024, w_init=W, b_init=B), Relu, Dense(10, w_init=W, b_init=B),
    )  # fmt: skip
    return classification(
        "fmnist-2c2d", net, "fashion-mnist", epochs=100, target=0.09, reference=f"{DEEPOBS}, problem fmnist_2c2d",
        published={
            "adam": "92.28% (lr 2.5e-4)", "sgd": "92.28% (lr 0.158)", "momentum": "92.12% (lr 2.5e-3, momentum 0.99)",
        },
    )  # fmt: skip


def digits_autoencoder() -> Problem:
    """A small autoencoder 64-32-8-32-64 on the embedded digits; the loss is the sum of the pixels' cross-entropies."""
    parts = data.load("digits")

    def images(part: Dataset) -> Dataset:
        flat = np.asarray(part.x).reshape(len(part), -1)
        return Dataset(part.x, flat, part.name)

    net = models.serial(
        Flatten, Dense(32), Relu, Dense(8), Sigmoid, Dense(32), Relu, Dense(64),
    )  # fmt: skip
    return Problem(
        "digits-autoencoder", net, losses.sigmoid_binary_cross_entropy, images(parts.train), images(parts.validation),
        batch_size=32, epochs=30, test=images(parts.test), target=19.0,
    )  # fmt: skip


def char_transformer() -> Problem:
    """A transformer of 2 blocks of width 64 that predicts the next character of the text in the package.

    Windows of 32 characters, one after the other, are the examples; the last tenth of the text is for validation.
    """
    whole = data.text.embedded()
    symbols = data.text.characters(whole)
    train, validation = (Dataset(*data.text.all_windows(symbols.encode(part), 32)) for part in data.text.split(whole))
    net = models.transformer(symbols.size, width=64, depth=2, heads=2)
    return Problem(
        "char-transformer", net, losses.softmax_cross_entropy, train, validation, batch_size=16, epochs=5, target=2.1,
    )  # fmt: skip

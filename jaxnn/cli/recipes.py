"""Configurations by name: `jaxnn train --recipe NAME`. They were chosen on the validation split."""

from __future__ import annotations

from jaxnn.cli.config import TrainConfig

RECIPES: dict[str, TrainConfig] = {
    "mnist-linear": TrainConfig(data="mnist", model="linear", learning_rate=3e-3, batch_size=128, epochs=20),
    "mnist-mlp": TrainConfig(
        data="mnist", hidden=(1024, 1024), dropout=0.4, input_dropout=0.2, learning_rate=2e-3,
        schedule="onecycle", batch_size=256, epochs=30,
    ),
    "mnist-mlp-augmented": TrainConfig(
        data="mnist", hidden=(1024, 512), augment="distort", learning_rate=2e-3, schedule="onecycle", batch_size=256,
        epochs=40,
    ),
    "mnist-cnn": TrainConfig(
        data="mnist", model="cnn", dropout=0.4, augment="affine", learning_rate=2e-3, schedule="onecycle",
        batch_size=128, epochs=16,
    ),
    "mnist-cnn-fast": TrainConfig(
        data="mnist", model="cnn", channels=(16, 32), learning_rate=4e-3, schedule="onecycle", batch_size=128, epochs=3
    ),
    "fashion-mlp": TrainConfig(
        data="fashion-mnist", hidden=(1024, 512), dropout=0.3, augment="flip-shift", learning_rate=2e-3,
        schedule="onecycle", batch_size=256, epochs=40,
    ),
    "fashion-cnn": TrainConfig(
        data="fashion-mnist", model="cnn", dropout=0.4, augment="flip-shift", learning_rate=2e-3, schedule="onecycle",
        batch_size=128, epochs=16,
    ),
}  # fmt: skip

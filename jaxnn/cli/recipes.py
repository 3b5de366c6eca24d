"""Configurations by name: `jaxnn train --recipe NAME`. All choices were made on the validation split.

Those of images are final: they train on the training and validation splits together (`--no-final` holds the validation
split out). Those of texts hold the last tenth of the text out: tiny-shakespeare where it is found, else the text in the
package. Small batches win there: at equal time 12 windows of 64 characters, or 6 of 128, learn more than twice as many.
"""

from __future__ import annotations

from jaxnn.cli.config import TrainConfig
from jaxnn.cli.text.config import TextConfig

RECIPES: dict[str, TrainConfig | TextConfig] = {
    "mnist-linear": TrainConfig(data="mnist", model="linear", batch_size=128, epochs=15, final=True),
    "mnist-mlp": TrainConfig(
        data="mnist", hidden=(512, 512), dropout=0.3, input_dropout=0.2, schedule="onecycle", batch_size=256, epochs=32,
        final=True,
    ),
    "mnist-mlp-augmented": TrainConfig(
        data="mnist", hidden=(800, 800), augment="affine", learning_rate=2e-3, schedule="onecycle", batch_size=256,
        epochs=30, final=True,
    ),
    "mnist-cnn": TrainConfig(
        data="mnist", model="cnn", channels=(32, 64, 128), hidden=(), padding="SAME", batch_norm=True, dropout=0.3,
        augment="affine", schedule="onecycle", batch_size=128, epochs=16, final=True,
    ),
    "mnist-cnn-fast": TrainConfig(
        data="mnist", model="cnn", channels=(16, 32), hidden=(128,), batch_norm=True, dropout=0.2, schedule="onecycle",
        batch_size=128, epochs=6, final=True,
    ),
    "fashion-mlp": TrainConfig(
        data="fashion-mnist", hidden=(512, 512, 512), dropout=0.2, learning_rate=2e-3, schedule="onecycle",
        batch_size=256, epochs=35, final=True,
    ),
    "fashion-cnn": TrainConfig(
        data="fashion-mnist", model="cnn", channels=(32, 64, 128), hidden=(), padding="SAME", batch_norm=True,
        dropout=0.3, augment="flip", schedule="onecycle", batch_size=128, epochs=16, final=True,
    ),
    "chars": TextConfig(steps=200, epochs=8),
    "chars-long": TextConfig(length=128, batch_size=6, steps=400, epochs=10),
    "chars-best": TextConfig(length=128, batch_size=6, steps=800, epochs=10),
    "chars-lstm": TextConfig(model="lstm", width=256, depth=1, batch_size=16, steps=200, epochs=8),
}  # fmt: skip

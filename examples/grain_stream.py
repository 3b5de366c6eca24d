"""Training on batches that grain reads: its place in the data is saved with the run, which goes on there.

    pip install 'jaxnn[grain]' && python examples/grain_stream.py

The examples are read one by one, shuffled and batched on the host while the device trains. The run is stopped half-way,
as by a preemption; the same call goes on, and ends at the same parameters as a run that nobody stopped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import grain
import jax
import numpy as np

from jaxnn import data, losses, metrics, models, optim, train

digits = data.load("digits")
EXAMPLES = list(zip(digits.train.x.reshape(len(digits.train), -1), digits.train.y, strict=True))
NET, OPT = models.mlp([64, 64, 10]), optim.adam(3e-3)


def fitted(epochs: int, folder: Path) -> train.FitResult:
    """Train for so many epochs of 20 batches, from where the folder is."""
    batches = grain.MapDataset.source(EXAMPLES).seed(0).shuffle().repeat().batch(64, drop_remainder=True)
    return train.fit(
        NET, losses.softmax_cross_entropy, OPT, batches.to_iter_dataset(), key=jax.random.key(0), epochs=epochs,
        steps_per_epoch=20, folder=folder, save_every=10, progress=False,
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = fitted(6, Path(folder, "whole"))
        fitted(3, Path(folder, "stopped"))
        resumed = fitted(6, Path(folder, "stopped"))
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (whole.params, resumed.params)), strict=True))
    logits = NET.predict(resumed.params, resumed.state, digits.test.x.reshape(len(digits.test), -1))
    print(f"stopped after 3 of 6 epochs and resumed: parameters {'equal' if same else 'NOT equal'} to the bit")
    print(f"test error {float(metrics.error_rate(logits, digits.test.y).mean()):.1%}")


if __name__ == "__main__":
    main()

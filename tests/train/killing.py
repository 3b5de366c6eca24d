"""A run that can be killed: `python -m tests.train.killing PROBLEM FOLDER RESULT` trains to the end, or goes on there.

It writes the digests of parameters, optimizer state and history into RESULT when it has ended; a SIGTERM makes it exit
with 143 after a save.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnn import data, losses, models, optim, schedules, train
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu

TIMES = ("seconds", "examples_per_second")
KEY = jax.random.key(0)
LOSS = losses.softmax_cross_entropy


def images(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, n).astype(np.int32)


def fitted(net: Any, opt: Any, source: Any, folder: Path, **how: Any) -> Any:
    settings: dict[str, Any] = {"key": KEY, "folder": folder, "save_every": 7, "progress": False} | how
    result = train.fit(net, LOSS, opt, source, **settings)
    if result.stopped.startswith("SIG"):
        sys.exit(143)
    history = [{name: value for name, value in r.items() if name not in TIMES} for r in result.history]
    return result[:3], result.epoch, result.stopped, history


def mlp(folder: Path) -> Any:
    """Dropout, a schedule, and the choice of the best epoch."""
    net = models.serial(Flatten, Dense(256), Relu, Dropout(0.3), Dense(10))
    opt = optim.adamw(schedules.cosine_decay_schedule(1e-3, 24 * 20))
    x, y = images()
    return fitted(net, opt, (x, y), folder, epochs=24, batch_size=30, validation=(x, y), select="validation_loss")


def cnn(folder: Path) -> Any:
    """Batch normalization and augmentation."""
    net = models.serial(Conv(8, 3, b_init=None), BatchNorm(), Relu, Flatten, Dropout(0.2), Dense(10))
    how = {"epochs": 8, "batch_size": 30, "augment": data.augment.shift(1), "stopping": [train.EarlyStopping("loss")]}
    return fitted(net, optim.sgd(0.05, momentum=0.9), images(), folder, **how)


def windows(position: train.Position) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((position.seed, position.epoch, position.step))
    tokens = rng.integers(0, 32, (8, 17)).astype(np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def transformer(folder: Path) -> Any:
    """From a stream."""
    net = models.transformer(32, width=32, depth=2, heads=2, dropout=0.1)
    return fitted(net, optim.adam(1e-3), windows, folder, epochs=12, steps_per_epoch=25)


def sweep(folder: Path) -> Any:
    """Inside a chunk."""
    net = models.serial(Flatten, Dense(64), Relu, Dropout(0.3), Dense(10))
    how: dict[str, Any] = {"keys": jax.random.split(KEY, 2), "epochs": 60, "batch_size": 30, "progress": False}
    try:
        found = train.sweep(
            lambda s: optim.adam(s["rate"]), {"rate": np.logspace(-4, -2, 3)}, net, LOSS, images(), **how,
            chunk=3, folder=folder, save_every=4,
        )  # fmt: skip
    except train.Stopped:
        sys.exit(143)
    return found.curves, found.diverged


PROBLEMS: dict[str, Callable[[Path], Any]] = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "sweep": sweep}


def digest(tree: Any) -> str:
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(f"{jax.tree_util.keystr(path)} {np.asarray(leaf).dtype}".encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    name, folder, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if pause := float(os.environ.get("SLOW_SAVE", "0")):
        flush = os.fsync

        def slow_flush(file: int) -> None:
            """Time for a kill between the writing of a file and its renaming."""
            time.sleep(pause)
            flush(file)

        os.fsync = slow_flush  # type: ignore[assignment]
    found = PROBLEMS[name](folder)
    result.write_text(json.dumps([digest(part) for part in found]))

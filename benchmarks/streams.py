"""What a batch from a stream costs: `train.fit` on streams against the same steps on examples in memory.

    python -m benchmarks.streams                     # about 2 minutes on 2 cores
    python -m benchmarks.streams --sizes small --rounds 3
    python -m benchmarks.streams --write             # and save the figures in benchmarks/results/streams-cpu.json

Two sizes: "small", an MLP 64-64-10 on batches of 32; "medium", an MLP 784-512-512-10 on batches of 128. The sources:

- memory: examples on the device, an epoch is one compiled scan: what the others are compared with;
- function: of a `train.Position`, a slice of an array;
- rows: of .npy files, by `data.memmap`, permuted;
- grain: a `grain.MapDataset` of the examples, shuffled and batched in this process (omitted without grain).

The fits alternate in one process, after one of each that compiles. Milliseconds are of a step, by the `seconds` of the
history, the median over rounds; the difference to memory is taken within each round.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, files, losses, models, optim, train

SIZES = {"small": ([64, 64, 10], 32, 2000), "medium": ([784, 512, 512, 10], 128, 400)}
"""Widths, batch size, steps."""


def sources(x: np.ndarray, y: np.ndarray, batch: int, folder: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Training data, and the settings of a fit with them."""
    steps = len(x) // batch

    def function(position: train.Position) -> Any:
        first = position.step * batch
        return x[first : first + batch], y[first : first + batch]

    for name, array in (("x", x), ("y", y)):
        files.write_with(f"{folder}/{name}.npy", lambda file, array=array: np.lib.format.write_array(file, array))
    made: dict[str, tuple[Any, dict[str, Any]]] = {
        "memory": ((jnp.asarray(x), jnp.asarray(y)), {}),
        "function": (function, {"steps_per_epoch": steps}),
        "rows": (data.memmap(folder), {}),
    }
    if importlib.util.find_spec("grain"):
        import grain

        pairs = grain.MapDataset.source(list(zip(x, y, strict=True))).seed(0).shuffle().repeat()
        loader = pairs.batch(batch, drop_remainder=True).to_iter_dataset()
        made["grain"] = (loader, {"steps_per_epoch": steps})
    return made


def compare(size: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step, of each round, by source."""
    widths, batch, steps = SIZES[size]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * steps, widths[0]), np.float32)
    y = rng.integers(0, widths[-1], batch * steps).astype(np.int32)
    net, opt = models.mlp(widths), optim.adam(1e-3)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = sources(x, y, batch, folder)
        for turn in range(-1, rounds):  # the first compiles
            for name, (source, settings) in made.items():
                result = train.fit(net, losses.softmax_cross_entropy, opt, source, key=jax.random.key(0), epochs=1,
                                   batch_size=batch, progress=False, **settings)  # fmt: skip
                if turn >= 0:
                    found.setdefault(name, []).append(1e3 * result.history[-1]["seconds"] / steps)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    tables = {}
    for size in words.sizes:
        taken = compare(size, words.rounds)
        memory = np.array(taken["memory"])
        print(f"\n{size:<12}{'ms a step':>10}   more than memory, ms (quartiles)")
        tables[size] = {}
        for name, each in taken.items():
            low, middle, high = np.quantile(np.array(each) - memory, [0.25, 0.5, 0.75]).tolist()
            tables[size][name] = {"ms": statistics.median(each), "more_ms": [low, middle, high]}
            print(f"{name:<12}{statistics.median(each):10.3f}   {middle:.3f} ({low:.3f}-{high:.3f})")
    if words.write:
        environment = {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "jax": jax.__version__,
        }
        path = Path(__file__).parent / "results" / "streams-cpu.json"
        files.write_json(path, {"environment": environment, "rounds": words.rounds, "tables": tables}, indent=1)
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

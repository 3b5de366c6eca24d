"""What saving costs: the loop of `train.fit` with a folder against the same without one, and the parts of one save.

    python -m benchmarks.saving                      # about 4 minutes on 2 cores
    python -m benchmarks.saving --rounds 5
    python -m benchmarks.saving --write              # and save the figures in benchmarks/results/saving-cpu.json

An MLP 784-2048-2048-1024-10 with Adam has 95 MB of parameters and moments; its batch is such that a step takes about
50 ms on 2 cores. Two runs of `train.epochs`, the loop that `fit` is, alternate in one process, epoch by epoch of 100
steps, after one of each that compiles; the one with a folder saves after each, and its file is written while it trains
on. The ratio of their times is taken within each pair. A save copies the state to the host, while training waits
(foreground), and a thread writes the file (background). The ratio of processor time, of all threads, is that of the
work; it does not see what other programs do.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import files, losses, models, optim, train
from jaxnn.train.checkpoints import Checkpoints
from jaxnn.train.epochs import Epochs

WIDTHS = [784, 2048, 2048, 1024, 10]
SAVE_EVERY = 100


def problem(batch: int) -> Callable[..., Epochs]:
    """The run, in epochs of 100 steps, but for where it is saved."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch * SAVE_EVERY, WIDTHS[0]), np.float32))
    y = jnp.asarray(rng.integers(0, WIDTHS[-1], batch * SAVE_EVERY), jnp.int32)
    net, opt, key = models.mlp(WIDTHS), optim.adam(1e-4), jax.random.key(0)

    def run(folder: str | None) -> Epochs:
        return train.epochs(net, losses.softmax_cross_entropy, opt, (x, y), key=key, epochs=1000, batch_size=batch,
                            folder=folder, save_every=SAVE_EVERY, say=lambda line: None)  # fmt: skip

    return run


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def compare(batch: int, rounds: int, place: str | None) -> dict[str, list[tuple[float, float]]]:
    """(seconds, processor seconds) of the epochs of both runs, and of a resumption."""
    run = problem(batch)
    found: dict[str, list[tuple[float, float]]] = {"without": [], "with": [], "resume": []}
    with tempfile.TemporaryDirectory(dir=place) as folder:
        runs = {"without": run(None), "with": run(folder)}
        for turn in range(-1, rounds):  # the first compiles
            for name in sorted(runs, reverse=turn % 2 == 0):
                taken = timed(lambda name=name: next(runs[name]))
                if turn >= 0:
                    found[name].append(taken)
        runs["with"].close()
        for _ in range(5):
            found["resume"].append(timed(lambda: run(folder).close()))
    return found


def one_save(batch: int, saves: int, place: str | None) -> dict[str, Any]:
    """Megabytes of the state, and median milliseconds of the parts of a save while nothing is computed."""
    state = problem(batch)(None).ts
    parts: dict[str, list[float]] = {"foreground": [], "background": [], "restore": []}
    with tempfile.TemporaryDirectory(dir=place) as folder, Checkpoints(folder) as checkpoints:
        for step in range(saves):
            parts["foreground"].append(timed(lambda step=step: checkpoints.save(step, state))[0])
            parts["background"].append(timed(checkpoints.wait)[0])
        for _ in range(saves):
            parts["restore"].append(timed(lambda: jax.block_until_ready(checkpoints.restore(state)[0]))[0])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return {"state_mb": size / 1e6} | {f"{name}_ms": 1e3 * statistics.median(taken) for name, taken in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--place", help="where the folders of checkpoints are made")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    parts = one_save(words.batch, 7, words.place)
    print("one save: " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items()))
    taken = compare(words.batch, words.rounds, words.place)
    without, saved, resumed = (np.array(each) for each in taken.values())
    ratios = saved / without
    step_ms, (wall, work) = 1e3 * np.median(without[:, 0]) / SAVE_EVERY, np.median(ratios, axis=0)
    low, high = np.quantile(ratios[:, 0], [0.25, 0.75])
    print(
        f"steps of {step_ms:.1f} ms, a save every {SAVE_EVERY}, over the same without a folder: time "
        f"{wall:.3f} ({low:.3f}-{high:.3f}), processor time {work:.3f}; to go on takes {np.median(resumed[:, 0]):.2f} s"
    )
    if words.write:
        path = Path(__file__).parent / "results" / "saving-cpu.json"
        found = {
            "environment": {
                "device": jax.devices()[0].device_kind,
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "jax": jax.__version__,
            },
            "batch": words.batch,
            "save_every": SAVE_EVERY,
            "one_save": parts,
            "seconds": taken,
            "step_ms": step_ms,
            "time_over_without": wall,
            "ratio_quartiles": [low, high],
            "processor_time_over_without": work,
        }
        files.write_json(path, found, indent=1)
        print(f"written: {path}")


if __name__ == "__main__":
    main()

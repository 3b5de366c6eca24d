"""Large vocabularies: cross-entropy of an output layer with and without its logits in memory.

    python -m benchmarks.chunked                          # about 2 minutes on 2 cores
    python -m benchmarks.chunked --vocabulary 131072 --rounds 3
    python -m benchmarks.chunked --write                  # and save them in benchmarks/results/chunked-<device>.json

One hidden layer of D features, tanh, and an output layer of V classes, on N examples of T positions, float32; tied: the
inputs are rows of the output layer's table. Gradients are those of the mean loss in all parameters:

- logits: `jax.value_and_grad` of `softmax_cross_entropy` of all logits;
- chunked: of `chunked_softmax_cross_entropy`, of a batch, of a table (V, D), and of a vmapped loss of one example;
- by hand: `backprop.value_and_grad`, with `class_chunk` and without;
- norms: the norm of every example's gradient and the mean gradient, by `per_example.value_and_grad` and by a tape, of
  the loss of logits and of the chunked one; clipped sums by the tape and in two passes.

All programs are compiled first, run once, and alternate. Ratios to the chunked gradient are formed within a round;
their median is printed with the range over rounds, of wall-clock and of processor times, which are more reliable on a
shared machine. Each run ends with `block_until_ready`. Memory is that of temporaries by XLA's memory analysis: without
arguments and results, so without the gradients themselves.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.training import environment
from jaxnn import backprop, files, losses, models, per_example
from jaxnn.layers import Dense, Tanh

UNIT = "chunked"


class Size(NamedTuple):
    """V, D, T and N."""

    vocabulary: int
    features: int
    positions: int
    examples: int


Program = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments."""


def programs(size: Size) -> dict[str, Program]:
    """All programs, by name."""
    v, d, t, n = size
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (n, t, d))
    y = jax.random.randint(keys[1], (n, t), 0, v)
    hidden, w = jax.random.normal(keys[2], (d, d)) / d**0.5, jax.random.normal(keys[3], (d, v)) / d**0.5
    matrix, table = {"in": hidden, "w": w}, {"in": hidden, "w": jnp.array(w.T)}
    net = models.serial(Dense(d, b_init=None), Tanh, Dense(v, b_init=None))
    weights, of_net = ({"w": hidden}, (), {"w": w}), losses.softmax_cross_entropy

    def full(p: Any, x: Any, y: Any) -> Any:
        return losses.softmax_cross_entropy(jnp.tanh(x @ p["in"]) @ p["w"], y)

    def chunked(p: Any, x: Any, y: Any, class_axis: int = 1) -> Any:
        return losses.chunked_softmax_cross_entropy(jnp.tanh(x @ p["in"]), p["w"], y, class_axis=class_axis)

    def tied(p: Any, x: Any, y: Any) -> Any:
        return chunked(p, p["w"][y], (y + 1) % v, class_axis=0)

    def one(loss: Any) -> Any:  # of one example
        return lambda p, x, y: loss(p, x[None], y[None])[0]

    def mean(loss: Any) -> Any:
        return jax.value_and_grad(lambda p, x, y: jnp.mean(loss(p, x, y)))

    def by_tape(record: Any) -> Any:
        def run(*args: Any) -> Any:
            tape = record(*args)
            return per_example.norms(tape), per_example.mean_grad(tape)

        return run

    def clipped(record: Any) -> Any:
        return lambda *args: per_example.clipped_grad(record(*args), 1.0)

    of_table, batch = functools.partial(chunked, class_axis=0), (matrix, x, y)
    each, in_net = per_example.record(one(chunked)), backprop.record(net, of_net, class_chunk=2048)
    return {
        "logits": (mean(full), batch),
        UNIT: (mean(chunked), batch),
        "chunked, table": (mean(of_table), (table, x, y)),
        "chunked, tied": (mean(tied), (table, x, y)),
        "chunked, vmapped": (mean(jax.vmap(one(chunked), (None, 0, 0))), batch),
        "by hand, logits": (backprop.value_and_grad(net, of_net), (weights, (), x, y)),
        "by hand, chunked": (backprop.value_and_grad(net, of_net, class_chunk=2048), (weights, (), x, y)),
        "norms, logits": (per_example.value_and_grad(one(full)), batch),
        "norms, chunked": (per_example.value_and_grad(one(chunked)), batch),
        "norms, table": (per_example.value_and_grad(one(of_table)), (table, x, y)),
        "norms, tied": (per_example.value_and_grad(one(tied)), (table, x, y)),
        "norms by a tape": (by_tape(each), batch),
        "norms by hand": (by_tape(in_net), (weights, (), x, y)),
        "clipped by a tape": (clipped(each), batch),
        "clipped in two passes": (per_example.clipped_value_and_grad(one(chunked), 1.0), batch),
    }


def now() -> np.ndarray:
    """Wall-clock and processor time, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def measured(size: Size, rounds: int) -> dict[str, Any]:
    """Times, ratios and temporaries of all programs."""
    compiled = {name: (jax.jit(f).lower(*args).compile(), args) for name, (f, args) in programs(size).items()}
    taken: dict[str, list[np.ndarray]] = {name: [] for name in compiled}
    for turn in range(rounds + 1):
        for name, (run, args) in compiled.items():
            began = now()
            jax.block_until_ready(run(*args))
            if turn:  # the first one warms up
                taken[name].append(now() - began)
    rows = {}
    for name, (run, _) in compiled.items():
        ratios = [its / unit for its, unit in zip(taken[name], taken[UNIT], strict=True)]
        wall, processor = ([ratio[i] for ratio in ratios] for i in range(2))
        rows[name] = {
            "ms": 1e3 * statistics.median(float(both[0]) for both in taken[name]),
            "over_chunked": middle(wall),
            "over_chunked_processor_time": middle(processor),
            "temporaries_bytes": run.memory_analysis().temp_size_in_bytes,
        }
    return {"size": size._asdict(), "rounds": rounds, "rows": rows, "load_average": os.getloadavg()[0]}


def middle(values: list[float]) -> list[float]:
    """[median, smallest, largest]."""
    return [float(f(values)) for f in (statistics.median, min, max)]


def shown(table: dict[str, Any]) -> None:
    size, rows = table["size"], table["rows"]
    print(", ".join(f"{name} {number:,}" for name, number in size.items()), end="; ")
    print(f"median of {table['rounds']} rounds (range); load average {table['load_average']:.1f}")
    print(f"{'':24}{'ms':>8}{'over chunked':>24}{'processor time':>20}{'MiB':>8}")
    for name, row in rows.items():
        ratio, low, high = row["over_chunked"]
        print(
            f"{name:24}{row['ms']:8.0f}{ratio:10.2f} ({low:4.2f}-{high:5.2f})"
            f"{row['over_chunked_processor_time'][0]:20.2f}{row['temporaries_bytes'] / 2**20:8.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--positions", type=int, default=128)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}", flush=True)
    table = measured(Size(words.vocabulary, words.features, words.positions, words.examples), words.rounds)
    shown(table)
    if words.write:
        path = Path(__file__).parent / "results" / f"chunked-{found['device'].lower().replace(' ', '-')}.json"
        files.write_json(path, {"environment": found, "table": table}, indent=1)
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

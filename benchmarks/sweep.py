"""Training many networks in one program: `train.sweep` against the same runs one after another.

    python -m benchmarks.sweep                       # all tables, about 5 minutes on 2 cores
    python -m benchmarks.sweep --only mnist --rounds 3
    python -m benchmarks.sweep --devices 2           # the two cores as two devices; runs are sharded
    python -m benchmarks.sweep --write               # and save them in benchmarks/results/sweep-<device>.json

- mnist: 64 runs (8 seeds x 8 learning rates of Adam) of an MLP 784-32-10, one epoch of 60,000 images, batch 128;
- digits: 64 such runs of an MLP 64-32-10, ten epochs of the embedded digits, batch 32;
- thousand: 1,000 runs (100 seeds x 10 learning rates) of the latter with validation errors, in one call: wall-clock
  seconds with compilation.

The 64 runs are computed by `train.sweep`, in chunks, and by 64 calls of one jitted function of rate and key, whose
steps are scans. The rate is traced there too, so that one compilation serves all 64. Compiled per setting, as if the
rate were a Python number, each rate costs a compilation of its own: the median of eight is measured, and 8 or 64 times
that is stated as a multiple of the sweep's one compilation.

Images are MNIST's if found ($JAXNN_DATA), else random ones of that size, and the table says which. Run times are
without compilation and end with `block_until_ready`; the rivals alternate, ratios are formed within a round, and their
median is printed with the range over rounds. On a shared machine the ratio of processor times beside it is more
reliable. The losses of both are compared. Memory is arguments (with the data), outputs and temporaries by XLA's memory
analysis. Compile times, with tracing, are processor times; none is cached.

Experiments on 2 cores, by processor time. With minibatches of its own for each run, a `vmap` over runs of 784-32-10
costs as much as the runs one after another, since the matrix products are the whole cost, and of 64-32-10 a quarter
less. With shared minibatches for runs that differ in the rate only, as `train.sweep` does, half to two thirds for both.
Of chunks of 16, 32 or 64 the smallest is best for the larger network (caches), the largest for the smaller one. The
cores as two devices: no clear gain beyond the spread, on a shared machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # compile times are those of a first call

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.training import environment
from jaxnn import data, files, losses, metrics, models, optim, train
from jaxnn.train.keys import run_keys
from jaxnn.train.pieces import scan_epoch
from jaxnn.train.sweeps import runs

LOSS = losses.softmax_cross_entropy
RATES = np.logspace(-4, -2.5, 8).astype(np.float32)
SEEDS = 8
CHUNKS = (64, 32, 16)


class Size(NamedTuple):
    """A network, its data, batch size and epochs."""

    net: Any
    source: str
    x: Any
    y: Any
    batch: int
    epochs: int


def mnist() -> Size:
    """60,000 images of MNIST as vectors with their labels, or random ones."""
    try:
        parts = data.load("mnist")
    except FileNotFoundError:
        rng = np.random.default_rng(0)
        x, y = rng.random((60_000, 784), np.float32), rng.integers(0, 10, 60_000).astype(np.int32)
        source = "random images of MNIST's size (MNIST was not found)"
    else:
        x, y = (np.concatenate([getattr(p, leaf) for p in (parts.train, parts.validation)]) for leaf in ("x", "y"))
        source = "MNIST"
    return Size(models.mlp([784, 32, 10]), source, jnp.asarray(x.reshape(len(x), -1)), jnp.asarray(y), 128, 1)


def digits() -> Size:
    """The training split of the digits as vectors."""
    part = data.load("digits").train
    return Size(
        models.mlp([64, 32, 10]), "digits", jnp.asarray(part.x.reshape(len(part), -1)), jnp.asarray(part.y), 32, 10
    )


class Timed(runs.Program):
    """The program of a sweep, with its compile time, run time and memory."""

    compile_s, need = 0.0, 0
    run = np.zeros(2)

    def __init__(self, *given: Any) -> None:
        began = time.process_time()
        super().__init__(*given)  # traces
        Timed.compile_s += time.process_time() - began

    def fitting(self, size: int, budget: int, step: int) -> tuple[Any, int]:
        known, began = set(self._compiled), time.process_time()
        found = super().fitting(size, budget, step)
        if set(self._compiled) != known:
            Timed.compile_s += time.process_time() - began
        Timed.need = runs._bytes(found[0])
        return found

    def call(self, compiled: Any, start: int, stop: int, size: int) -> Any:
        began = now()
        found = super().call(compiled, start, stop, size)
        Timed.run = Timed.run + now() - began
        return found


def now() -> np.ndarray:
    """Wall-clock and processor time, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def by_sweep(size: Size, chunk: int) -> dict[str, Any]:
    """The 64 runs by `train.sweep`."""
    Timed.compile_s, Timed.run = 0.0, np.zeros(2)
    found = train.sweep(
        optim.adam, RATES, size.net, LOSS, (size.x, size.y), keys=jax.random.split(jax.random.key(0), SEEDS),
        epochs=size.epochs, batch_size=size.batch, chunk=chunk, progress=False,
    )  # fmt: skip
    return {"compile_s": Timed.compile_s, "run": Timed.run, "bytes": Timed.need, "loss": found.curves["loss"][:, -1]}


def one_run(size: Size) -> Callable[..., Any]:
    """(rate, key, x, y) -> the mean training loss of the last epoch."""

    def run(rate: Any, key: Any, x: Any, y: Any) -> Any:
        opt = optim.adam(rate)
        vg = jax.value_and_grad(train.mean_loss(size.net, LOSS), has_aux=True)
        epoch = scan_epoch(vg, opt, batch_size=size.batch)
        init_key, epochs_key = run_keys(key)

        def body(ts: Any, e: Any) -> Any:
            ts, report = epoch(ts, x, y, jax.random.fold_in(epochs_key, e))
            return ts, jnp.mean(report["loss"])

        start = train.init(size.net, opt, init_key, x.shape[1:])
        return jax.lax.scan(body, start, jnp.arange(1, size.epochs + 1))[1][-1]

    return run


class InTurn:
    """The 64 runs one after another, by one compiled program."""

    def __init__(self, size: Size) -> None:
        keys = jax.random.split(jax.random.key(0), SEEDS)
        self.given = [(jnp.asarray(rate), key, size.x, size.y) for rate in RATES for key in keys]
        self.compiled, self.compile_s = compiled(one_run(size), *self.given[0])
        jax.block_until_ready(self.compiled(*self.given[0]))

    def __call__(self) -> dict[str, Any]:
        began = now()
        found = [float(self.compiled(*given)) for given in self.given]
        return {"run": now() - began, "loss": np.array(found)}


def compiled(function: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """A compiled function, and the processor seconds to trace and compile it."""
    began = time.process_time()
    found = jax.jit(function).lower(*given).compile()
    return found, time.process_time() - began


def per_setting(size: Size) -> list[float]:
    """Processor seconds to compile the run of each rate, the rate a constant of the program."""
    run, key = one_run(size), jax.random.key(0)
    return [compiled(functools.partial(run, float(rate)), key, size.x, size.y)[1] for rate in RATES]


def middle(values: list[float]) -> list[float]:
    """[median, smallest, largest]."""
    return [float(f(values)) for f in (statistics.median, min, max)]


def compare(size: Size, rounds: int) -> dict[str, Any]:
    """The results of both methods, alternating, over the rounds."""
    in_turn = InTurn(size)
    taken: list[dict[Any, Any]] = [
        {"in turn": in_turn()} | {chunk: by_sweep(size, chunk) for chunk in CHUNKS} for _ in range(rounds)
    ]
    rows = {}
    for name in taken[0]:
        over = [turn["in turn"]["run"] / turn[name]["run"] for turn in taken]
        rows["one after another" if name == "in turn" else f"sweep, {name} at a time"] = {
            "run_s": middle([turn[name]["run"][0] for turn in taken]),
            "in_turn_over_it": middle([ratio[0] for ratio in over]),
            "in_turn_over_it_processor_time": middle([ratio[1] for ratio in over]),
            "compile_s": middle([turn[name].get("compile_s", in_turn.compile_s) for turn in taken]),
            "bytes": taken[0][name].get("bytes", runs._bytes(in_turn.compiled)),
        }
    apart = np.abs(np.concatenate([turn[c]["loss"] - turn["in turn"]["loss"] for turn in taken for c in CHUNKS]))
    alone, once = (
        statistics.median(per_setting(size)),
        rows[f"sweep, {min(runs.default_chunk(), 64)} at a time"]["compile_s"][0],
    )
    return {
        "data": size.source,
        "rounds": rounds,
        "rows": rows,
        "difference_of_losses": {"largest": float(apart.max()), "median": float(np.median(apart))},
        "compile_s_per_setting": alone,
        "compile_multiple": {str(n): n * alone / once for n in (len(RATES), len(RATES) * SEEDS)},
        "load_average": os.getloadavg()[0],
    }


def thousand() -> dict[str, Any]:
    """1,000 networks on the digits in one call."""
    parts = data.load("digits")
    rates, seeds = np.logspace(-3.5, -1.25, 10).astype(np.float32), 100
    Timed.compile_s, Timed.run = 0.0, np.zeros(2)
    began = time.perf_counter()
    found = train.sweep(
        optim.adam, rates, models.mlp([64, 32, 10]), LOSS, parts.train, keys=jax.random.split(jax.random.key(0), seeds),
        epochs=10, batch_size=32, validation=parts.validation, metrics={"error": metrics.error_rate},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    errors = found.curves["validation_error"][:, -1].reshape(len(rates), seeds).mean(axis=1)
    return {
        "runs": len(rates) * seeds,
        "seconds": seconds,
        "compile_s": Timed.compile_s,
        "chunk": runs.default_chunk(),
        "chunk_bytes": Timed.need,
        "memory_budget_bytes": runs._memory_of(jax.local_devices()[0]),
        "diverged": int(np.count_nonzero(found.diverged)),
        "mean_validation_error_by_rate": {f"{rate:.2g}": float(e) for rate, e in zip(rates, errors, strict=True)},
        "load_average": os.getloadavg()[0],
    }


def print_compared(size: Size, table: dict[str, Any]) -> None:
    print(f"\n64 runs of {size.epochs} epochs of {len(size.x):,} examples, batch {size.batch}; {table['data']}")
    print(f"   (median of {table['rounds']} rounds; range over rounds; load average {table['load_average']:.1f})")
    print(f"{'':26}{'run s':>9}{'in turn / it':>22}{'by processor time':>20}{'compile CPU s':>15}{'MiB':>8}")
    for name, row in table["rows"].items():
        ratio, low, high = row["in_turn_over_it"]
        print(
            f"{name:26}{row['run_s'][0]:9.2f}{ratio:9.2f} ({low:4.2f}-{high:5.2f})"
            f"{row['in_turn_over_it_processor_time'][0]:20.2f}{row['compile_s'][0]:15.2f}{row['bytes'] / 2**20:8.0f}"
        )
    apart = table["difference_of_losses"]
    print(f"difference of the last losses: largest {apart['largest']:.1e}, median {apart['median']:.1e}")
    multiples = ", ".join(f"{m:.1f} for {n}" for n, m in table["compile_multiple"].items())
    print(f"compiled per setting: {table['compile_s_per_setting']:.2f} CPU s each; times the sweep's one: {multiples}")


def print_thousand(table: dict[str, Any]) -> None:
    print(f"\n{table['runs']:,} runs of an MLP 64-32-10, 10 epochs of the digits, batch 32: {table['seconds']:.1f} s,")
    print(f"{table['compile_s']:.1f} CPU s of it compiling; load average {table['load_average']:.1f};", end=" ")
    need, budget = (table[name] / 2**20 for name in ("chunk_bytes", "memory_budget_bytes"))
    print(f"at most {table['chunk']} at a time: {need:,.0f} MiB of {budget:,.0f}; {table['diverged']} diverged")
    errors = "  ".join(f"{rate}: {error:.1%}" for rate, error in table["mean_validation_error_by_rate"].items())
    print(f"mean validation error by rate: {errors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("digits", "mnist", "thousand"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, help="as how many devices a CPU is used")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    if words.devices:
        jax.config.update("jax_num_cpu_devices", words.devices)
    found = environment()
    print(
        f"{found['device']}, {found['cores']} cores, {jax.local_device_count()} devices; {found['versions']}",
        flush=True,
    )
    runs.Program = Timed
    path = Path(__file__).parent / "results" / f"sweep-{found['device'].lower().replace(' ', '-')}.json"
    kept = json.loads(path.read_text())["tables"] if path.exists() else {}
    for name, make in (("mnist", mnist), ("digits", digits), ("thousand", None)):
        if words.only not in (None, name):
            continue
        label = f"{name}, {words.devices} devices" if words.devices else name
        if make is None:
            kept[label] = thousand()
            print_thousand(kept[label])
        else:
            size = make()
            kept[label] = compare(size, words.rounds)
            print_compared(size, kept[label])
        if words.write:
            files.write_json(path, {"environment": found, "tables": kept}, indent=1)
    if words.write:
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

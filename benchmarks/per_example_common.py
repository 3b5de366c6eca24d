"""Common parts of the per-example benchmarks: rivals that materialize all gradients, timing, ratios."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import files

jax.config.update("jax_enable_compilation_cache", False)  # compile times are those of a first call

BOUND = 1.0
"""The clipping norm."""
UNIT = ("gradient", "jax.grad")
MICROBATCHES = (8, 32, None)
"""Microbatch sizes of jax_privacy; None is the whole batch."""
MOST_BYTES = 6 * 2**30
"""Programs that need more temporary memory are omitted."""


def norms_of(grads: Any) -> Any:
    """|g_i| of a pytree of gradients with a leading axis N."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(grads)))


def mean_of(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.mean(g, 0), grads)


def clipped_of(grads: Any) -> Any:
    """(sum_i min(1, C / |g_i|) g_i, norms)."""
    norms = norms_of(grads)
    factors = jnp.minimum(1.0, BOUND / norms)
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), grads), norms


def jax_privacy_clipped(
    mean_loss: Callable[..., Any], batch: int | None = None
) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """The clipped sum and the norms by jax_privacy, of a loss (params, x, y) of a batch: a program for each microbatch
    smaller than the batch, and for the whole batch; {} if it is not installed."""
    if not importlib.util.find_spec("jax_privacy"):
        return {}
    from jax_privacy import clipping

    found = {}
    for size in MICROBATCHES:
        if size is None or batch is None or size < batch:
            found[f"jax_privacy {size or 'whole batch'}"] = clipping.clipped_grad(
                mean_loss, l2_clip_norm=BOUND, batch_argnums=(1, 2), return_grad_norms=True, microbatch_size=size
            )
    return found


class Runner:
    """A compiled program with its batch; `seconds()` is the median time of a few runs."""

    def __init__(self, program: Callable[..., Any], batch: tuple[Any, ...]) -> None:
        began = time.perf_counter()
        self.compiled = jax.jit(program).lower(*batch).compile()
        self.compile_s = time.perf_counter() - began
        analysis = self.compiled.memory_analysis()
        self.temp_bytes = 0 if analysis is None else analysis.temp_size_in_bytes
        self.batch = batch

    def result(self) -> Any:
        return jax.block_until_ready(self.compiled(*self.batch))

    def once(self) -> float:
        began = time.perf_counter()
        self.result()
        return time.perf_counter() - began

    def seconds(self, budget: float = 0.6) -> float:
        """The median of 3 to 50 runs, as many as fit into the budget in seconds."""
        return statistics.median(self.once() for _ in range(self.repeats(budget)))

    def repeats(self, budget: float) -> int:
        return min(50, max(3, int(budget / self.once())))


def in_other_process(python: str, script: str, *words: str) -> Any:
    """The last line, parsed as JSON, of a script of this folder run by another interpreter; a str is its error.

    The script is run by its path, since Opacus installs a package `benchmarks`, which shadows this folder."""
    path = Path(__file__).with_name(script)
    done = subprocess.run([python, str(path), *words], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


Times = dict[tuple[str, str], list[float]]
"""(quantity, rival) -> the seconds of each round."""


def over(times: Times, which: tuple[str, str], other: tuple[str, str]) -> list[float] | None:
    """[median, smallest, largest] of the rounds' ratios; None if the other was not measured."""
    pairs = [a / b for a, b in zip(times[which], times.get(other, []), strict=False)]
    return [statistics.median(pairs), min(pairs), max(pairs)] if pairs else None


def rows_of(times: Times, runners: dict[tuple[str, str], Runner]) -> list[dict[str, Any]]:
    """One row per quantity and rival; of jax_privacy's microbatches, the fastest."""
    privacy = [which for which in times if which[1].startswith("jax_privacy")]
    slower = sorted(privacy, key=lambda w: statistics.median(times[w]))[1:]
    rows = []
    for which in times:
        if which in slower:
            continue
        quantity, rival = which
        here = (quantity, "jax.grad, this batch")
        row: dict[str, Any] = {
            "quantity": quantity,
            "rival": rival,
            "ms": 1e3 * statistics.median(times[which]),
            "over jax.grad": over(times, which, here if here in times else UNIT),
            "over jaxnn": over(times, which, (quantity, "jaxnn")),
        }
        if which in runners:
            runner = runners[which]
            row |= {"temporary MiB": runner.temp_bytes / 2**20, "compile s": runner.compile_s}
        rows.append(row)
    return rows


def write(name: str, environment: dict[str, Any], tables: dict[str, Any]) -> None:
    """Write the tables into their file in benchmarks/results/, which keeps those of other networks."""
    path = Path(__file__).parent / "results" / f"{name}-{environment['device'].lower().replace(' ', '-')}.json"
    kept = json.loads(path.read_text())["tables"] if path.exists() else {}
    files.write_json(path, {"environment": environment, "tables": kept | tables}, indent=1)
    print(f"\nwritten: {path}")

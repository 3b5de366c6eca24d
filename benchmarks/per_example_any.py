"""The cost of per-example statistics of any JAX loss: flax models, as multiples of the plain gradient.

    python -m benchmarks.per_example_any                            # all models, 15 minutes on 2 idle cores
    python -m benchmarks.per_example_any --only mlp --rounds 1
    python -m benchmarks.per_example_any --torch-python PATH        # an interpreter with torch and Opacus
    python -m benchmarks.per_example_any --write                    # and save them in benchmarks/results/

Models, all flax linen with flax's defaults (benchmarks/flax_models.py), random data: `mlp` 784-512-512-10, batch 128;
`cnn` conv 3x3x32 - pool - conv 3x3x64 - pool - 128 - 10 on 28x28x1, batch 128; `transformer`, causal, pre-norm,
4 layers of width 256, 4 heads, inner width 1024, 128 tokens of a vocabulary of 96, learned positions, the
output sharing the embedding's matrix, batch 16; `gru`, 128 units over 50 steps of 64 inputs, batch 32; `scan8`, 8
such blocks of width 64, inner width 256, scanned over one stack of parameters and rematerialized, 128 positions, batch
16.

Quantities, each from parameters and a batch, with forward and backward pass. By the tape, `per_example.record` of the
loss of one example: per-example norms with the mean gradient; the clipped sum with the norms. Inside the backward pass,
nothing stored: norms and gradient, second moment and gradient (`per_example.value_and_grad`); the clipped sum in two
passes, and with each parameter clipped by its own norms in one (`per_example.clipped_value_and_grad`). These return the
losses too. Rivals of the first two: `vmap(grad)` of that loss, and jax_privacy's `clipped_grad` at its best microbatch
(of 8, 32 and the whole batch; chosen before the rounds). The unit is the mean gradient by `jax.grad` of the batched
model, in the same process. XLA on CPU is slow at `vmap(grad)` of weights, on which jax_privacy is based: their results
do not carry over to an accelerator. flax's max-pool is `reduce_window`, whose gradient is slow on CPU, in the unit too,
which makes the multiples of `cnn` smaller.

First, the results of all programs are compared with what `vmap(grad)` gives. In a round the programs alternate, run
by run, in a new random order each time; each run ends with `block_until_ready`, and the time of a program is the median
of its runs. Ratios are formed within a round; their median is printed with the range over rounds and the target.
Temporary memory is by XLA's memory analysis. Compile time is the time to trace, lower and compile a new function with
empty caches, the median of 3.

For the transformer, torch's plain gradient and Opacus' ghost clipping alternate in a process of their own, once per
round: Opacus' time is a multiple of torch's plain gradient, ours of `jax.grad`. Torch's model differs: ghost clipping
has no rule for parameters that are shared or used without a layer, so its output has a matrix of its own, and positions
are an `nn.Embedding`. Rivals that are not installed are omitted and listed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.flax_models import CASES, STACKED, TRANSFORMER, Case, arguments
from benchmarks.per_example_common import (
    BOUND,
    MOST_BYTES,
    UNIT,
    Runner,
    Times,
    clipped_of,
    in_other_process,
    jax_privacy_clipped,
    mean_of,
    norms_of,
    over,
    rows_of,
    write,
)
from benchmarks.training import environment
from jaxnn import per_example

NORMS, CLIPPED = "norms and mean", "clipped sum"
STREAMED, TWICE = "norms and gradient, streamed", "clipped sum, two passes"
GROUPS, MOMENT = "clipped sum by parameter, one pass", "second moment and gradient, streamed"
TARGETS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "mlp": {NORMS: (1.15, 1.5), CLIPPED: (1.3, 1.5), GROUPS: (1.1, 1.05), MOMENT: (1.35, 1.3)},
    "cnn": {NORMS: (1.5, None), CLIPPED: (1.5, None)},
    "transformer": {
        NORMS: (1.2, 1.5),
        CLIPPED: (1.25, 1.5),
        STREAMED: (1.1, 1.05),
        TWICE: (1.7, 1.05),
        GROUPS: (1.1, 1.05),
        MOMENT: (1.1, 1.1),
    },
    "gru": {},
    "scan8": {STREAMED: (1.1, 1.05), GROUPS: (1.1, 1.05)},
}
"""The targets: the largest multiples of the plain gradient's time and temporary memory."""
MOST_COMPILE = 2.0
"""The target: the largest multiple of the plain gradient's compile time, of clipped sums by the tape and of norms."""
TOLERANCE = 1e-3
"""The relative difference (float32) below which two results count as the same quantity."""
PLAIN, GHOST = ("gradient", "torch"), (CLIPPED, "Opacus ghost")

Key = tuple[str, str]


def losses_of(case: Case) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The mean loss of a batch, and the loss of one example."""

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(case.model.apply(params, x), y))

    def of_one(params: Any, x: Any, y: Any) -> Any:
        return mean_loss(params, x[None], y[None])

    return mean_loss, of_one


def programs(case: Case) -> dict[Key, Callable[[Any, Any, Any], Any]]:
    """For each quantity and rival a function of (params, x, y)."""

    mean_loss, of_one = losses_of(case)
    record, each = per_example.record(of_one), jax.vmap(jax.grad(of_one), (None, 0, 0))

    def norms_and_mean(*batch: Any) -> Any:
        tape = record(*batch)
        return per_example.mean_grad(tape), per_example.norms(tape)

    def norms_and_mean_by_vmap(*batch: Any) -> Any:
        grads = each(*batch)
        return mean_of(grads), norms_of(grads)

    found: dict[Key, Callable[..., Any]] = {
        UNIT: jax.grad(mean_loss),
        **{(quantity, "jaxnn"): program for quantity, program in streamed(of_one).items()},
        (NORMS, "jaxnn"): norms_and_mean,
        (NORMS, "vmap(grad)"): norms_and_mean_by_vmap,
        (CLIPPED, "jaxnn"): lambda *batch: per_example.clipped_grad(record(*batch), BOUND),
        (CLIPPED, "vmap(grad)"): lambda *batch: clipped_of(each(*batch)),
    }
    for rival, clipped in jax_privacy_clipped(mean_loss, case.batch).items():

        def in_pair(*batch: Any, clipped: Callable[..., Any] = clipped) -> Any:
            grads, aux = clipped(*batch)
            return grads, aux.grad_norms

        found[CLIPPED, rival] = in_pair
    return found


def streamed(of_one: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Statistics inside the backward pass: functions of (params, x, y) to ((losses, statistic), sum)."""
    return {
        STREAMED: per_example.value_and_grad(of_one),
        TWICE: per_example.clipped_value_and_grad(of_one, BOUND),
        GROUPS: per_example.clipped_value_and_grad(of_one, BOUND, groups="parameter"),
        MOMENT: per_example.value_and_grad(of_one, per_example.SecondMoment()),
    }


def clipped_by_parameter(grads: Any) -> Any:
    """sum_i of all g_i with each parameter, of scanned blocks each slice, clipped to norm C / sqrt(their number)."""
    axes = jax.tree_util.tree_map_with_path(lambda path, g: 1 + any(p.key == STACKED for p in path), grads)
    pieces = jax.tree.map(lambda g, first: g.shape[1] if first == 2 else 1, grads, axes)
    bound = BOUND / sum(jax.tree.leaves(pieces)) ** 0.5

    def clipped(g: Any, first: int) -> Any:
        norms = jnp.sqrt(jnp.sum(jnp.square(g), axis=tuple(range(first, g.ndim)), keepdims=True))
        return jnp.sum(jnp.minimum(1.0, bound / norms) * g, axis=0)

    return jax.tree.map(clipped, grads, axes)


def compile_seconds(of: dict[Key, Callable[..., Any]], batch: tuple[Any, ...], repeats: int = 3) -> dict[Key, float]:
    """The median time to trace, lower and compile each with empty caches, alternating."""
    times: dict[Key, list[float]] = {which: [] for which in of}
    for _ in range(repeats):
        for which, program in of.items():
            jax.clear_caches()
            times[which].append(Runner(lambda *batch, program=program: program(*batch), batch).compile_s)
    return {which: statistics.median(found) for which, found in times.items()}


def best_microbatch(runners: dict[Key, Runner]) -> dict[Key, Runner]:
    """The runners with jax_privacy's fastest microbatch only; the others would take most of the time."""
    privacy = [which for which in runners if which[1].startswith("jax_privacy")]
    slower = sorted(privacy, key=lambda which: runners[which].seconds(budget=0))[1:]
    return {which: runner for which, runner in runners.items() if which not in slower}


def in_turns(runners: dict[Key, Runner], repeats: dict[Key, int], seed: int) -> dict[Key, float]:
    """Median seconds of alternating programs, each with its number of repeats."""
    times: dict[Key, list[float]] = {which: [] for which in runners}
    rng = random.Random(seed)
    for turn in range(max(repeats.values())):
        still = [which for which in runners if turn < repeats[which]]
        for which in rng.sample(still, len(still)):  # a new order, so that none always follows the same one
            times[which].append(runners[which].once())
    return {which: statistics.median(found) for which, found in times.items()}


def relative(found: Any, expected: Any) -> float:
    """|found - expected| / |expected| over all entries of a pytree."""
    return float(optax.global_norm(jax.tree.map(jnp.subtract, found, expected)) / optax.global_norm(expected))


def largest(found: Any, expected: Any) -> float:
    """The largest |found - expected| / |expected| of an entry."""
    return float(jnp.max(jnp.abs(found / expected - 1)))


def references(each: Callable[..., Any], batch: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """(a sum or mean, what there is beside it) of each quantity, from the gradients of all examples."""

    def of_all(*batch: Any) -> dict[str, tuple[Any, Any]]:
        grads = each(*batch)
        total, norms = jax.tree.map(lambda g: jnp.sum(g, 0), grads), norms_of(grads)
        return {
            NORMS: (mean_of(grads), norms),
            CLIPPED: clipped_of(grads),
            TWICE: clipped_of(grads),
            STREAMED: (total, jnp.square(norms)),
            GROUPS: (clipped_by_parameter(grads), ()),
            MOMENT: (total, jax.tree.map(lambda g: jnp.mean(jnp.square(g), 0), grads)),
        }

    return jax.jit(of_all)(*batch)


def errors_of(runners: dict[Key, Runner], expected: dict[str, tuple[Any, Any]]) -> dict[str, float]:
    """The relative difference of each program's results from `references`; RuntimeError if one reaches `TOLERANCE`."""
    found = {"gradient by jax.grad": relative(runners[UNIT].result(), expected[NORMS][0])}
    for (quantity, rival), runner in runners.items():
        if quantity not in expected:
            continue
        result, name = runner.result(), f"{quantity} by {rival}"
        grads, beside = result if quantity in (NORMS, CLIPPED) else (result[1], result[0][1])
        found[name] = relative(grads, expected[quantity][0])
        if quantity == MOMENT:
            found[f"second moment of {name}"] = relative(beside, expected[quantity][1])
        elif quantity != GROUPS:  # whose factors are seen in the sum
            found[f"norms of {name}"] = largest(beside, expected[quantity][1])
    if not max(found.values()) < TOLERANCE:  # nor NaN
        raise RuntimeError(f"per_example_any: results differ from those of vmap(grad), relatively: {found}.")
    return found


def measure(name: str, rounds: int, torch_python: str) -> dict[str, Any]:
    """Medians over the rounds of all rivals, alternating, and ratios formed within each round."""
    case = CASES[name]
    batch, of = arguments(case), programs(case)
    runners, left_out = {}, []
    for which, program in of.items():
        runner = Runner(program, batch)
        if runner.temp_bytes > MOST_BYTES:
            left_out.append(f"{' by '.join(which)} ({runner.temp_bytes / 2**30:.1f} GiB of temporary memory)")
        else:
            runners[which] = runner
    if not importlib.util.find_spec("jax_privacy"):
        left_out.append("jax_privacy (not installed)")
    each = jax.vmap(jax.grad(losses_of(case)[1]), (None, 0, 0))
    errors = errors_of(runners, references(each, batch))
    table: dict[str, Any] = {"batch": case.batch, "rounds": rounds, "errors": errors}
    runners = best_microbatch(runners)
    for which, seconds in compile_seconds({which: of[which] for which in runners}, batch).items():
        runners[which].compile_s = seconds
    repeats = {which: runner.repeats(budget=1.0) for which, runner in runners.items()}
    times: Times = {}
    for turn in range(rounds):
        for which, seconds in in_turns(runners, repeats, turn).items():
            times.setdefault(which, []).append(seconds)
        if name == "transformer":
            words = (json.dumps(TRANSFORMER), str(case.batch))
            found = in_other_process(torch_python, "per_example_any_torch.py", *words)
            if isinstance(found, str):
                left_out.append(f"torch and Opacus: {found}")
                continue
            table["torch"] = {key: found[key] for key in ("versions", "error of norms")}
            times.setdefault(PLAIN, []).append(found["plain"])
            times.setdefault(GHOST, []).append(found["ghost"])
    return table | {"rows": rows_with_targets(name, times, runners), "left_out": sorted(set(left_out))}


def rows_with_targets(name: str, times: Times, runners: dict[Key, Runner]) -> list[dict[str, Any]]:
    rows = rows_of(times, runners)
    unit = next(row for row in rows if (row["quantity"], row["rival"]) == UNIT)
    for row in rows:
        which = row["quantity"], row["rival"]
        if which not in runners:
            row["over torch"] = over(times, which, PLAIN)
            continue
        for key in ("temporary MiB", "compile s"):
            row[f"{key} over jax.grad"] = row[key] / unit[key]
        if row["rival"] == "jaxnn":
            targets = TARGETS[name].get(row["quantity"], (None, None))
            compile_target = MOST_COMPILE if row["quantity"] in (NORMS, CLIPPED, STREAMED) else None
            row["targets"] = dict(zip(("time", "memory", "compile"), (*targets, compile_target), strict=True))
    return rows


def print_table(name: str, table: dict[str, Any]) -> None:
    print(f"\n{name}, batch {table['batch']}   (median of {table['rounds']} rounds; range over rounds)")
    print(f"{'':38}{'':24}{'ms':>9}{'over plain gradient':>24}{'temp MiB':>10}{'over':>7}{'compile s':>11}{'over':>7}")
    missed = []
    for row in sorted(table["rows"], key=lambda row: row["quantity"]):
        label = f"{row['quantity']:38}{row['rival']:24}{row['ms']:9.2f}"
        middle, low, high = row.get("over torch") or row["over jax.grad"]
        line = f"{label}{middle:9.2f} ({low:5.2f}-{high:6.2f})"
        if "compile s" in row:
            ratios = middle, row["temporary MiB over jax.grad"], row["compile s over jax.grad"]
            line += f"{row['temporary MiB']:10.1f}{ratios[1]:7.2f}{row['compile s']:11.2f}{ratios[2]:7.2f}"
        print(line)
        if "targets" in row:
            marks = []
            for ratio, (what, target) in zip(ratios, row["targets"].items(), strict=True):
                if target:
                    missed += [f"{row['quantity']}: {what}"] if ratio > target else []
                    marks.append(f"{what} {ratio:.2f} of at most {target:g}{'' if ratio <= target else ', MISSED'}")
            if marks:
                print(f"{'':62}targets: {'; '.join(marks)}")
    print(f"targets missed: {'; '.join(missed) or 'none'}")
    ours = {key: error for key, error in table["errors"].items() if key.endswith("by jaxnn")}
    print("relative errors to vmap(grad): " + ", ".join(f"{key} {error:.0e}" for key, error in ours.items()), end="; ")
    print(f"the largest of all rivals {max(table['errors'].values()):.0e}")
    if "torch" in table:
        print_claim(table)
    for line in table["left_out"]:
        print(f"left out: {line}")


def print_claim(table: dict[str, Any]) -> None:
    by = {(row["quantity"], row["rival"]): row for row in table["rows"]}
    ours, theirs = by[CLIPPED, "jaxnn"]["over jax.grad"], by[GHOST]["over torch"]
    print(
        f"clipped sum over the plain gradient of the same library: jaxnn {ours[0]:.2f} ({ours[1]:.2f}-{ours[2]:.2f}), "
        f"Opacus' ghost clipping {theirs[0]:.2f} ({theirs[1]:.2f}-{theirs[2]:.2f}), target: less than Opacus', "
        f"{'met' if ours[0] < theirs[0] else 'MISSED'}; in torch the output's matrix is not shared with the embedding, "
        f"and positions are an nn.Embedding; Opacus' norms are off by {table['torch']['error of norms']:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with torch and Opacus")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    if importlib.util.find_spec("jax_privacy"):
        found["versions"]["jax_privacy"] = importlib.metadata.version("jax_privacy")
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    tables = {}
    for name in [words.only] if words.only else CASES:
        began = time.perf_counter()
        label = f"{name} {CASES[name].batch}"
        tables[label] = measure(name, words.rounds, words.torch_python)
        print_table(name, tables[label])
        print(f"measured in {time.perf_counter() - began:.0f} s", flush=True)
    if words.write:
        write("per_example_any", found, tables)


if __name__ == "__main__":
    main()

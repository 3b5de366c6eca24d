"""The cost of an optimizer step: jaxnn against optax, for every rule that both have, on five pytrees of parameters.

    python -m benchmarks.optimizers                                   # every table, an hour or more on 2 cores
    python -m benchmarks.optimizers --only leaves --rules adam lion --rounds 3
    python -m benchmarks.optimizers --write                           # benchmarks/results/optimizers-<device>.json

Tables of one compiled, donated update and `apply_updates`, with fixed gradients:

- mlp: an MLP 784-512-512-10;
- leaves: 2,000 leaves of 64 entries (`--leaves`);
- packed: the same in one vector, by `jaxnn.tree.pack`, for both libraries;
- large: 4 leaves of 2048 x 2048 (`--side`);
- blocks: 24 transformer-shaped blocks of width 256 (`--blocks`, `--width`), for Muon too;

- end-to-end: the gradient of a network of 20, 200 and 2,000 layers (`--depths`) with 8 x 8 weights, and Adam's step,
  with the parameters as leaves and packed.

For each rule: milliseconds per step, seconds to trace and compile, bytes of state, and bytes of temporaries by XLA's
memory analysis. Both libraries run in one process and alternate; the time of a round is the median of its repeats, each
with `block_until_ready`, after a warm-up. Ratios of time (optax / jaxnn: above 1 jaxnn is faster) are formed within a
round; their median is printed with the range over rounds. Rules that one library lacks are omitted and listed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # first calls must compile

import jax
import jax.numpy as jnp
import optax

from benchmarks.training import environment
from jaxnn import files, optim, tree

RATE = {"learning_rate": 1e-3}
DECAYING = RATE | {"weight_decay": 1e-2}
RULES: dict[str, dict[str, Any]] = {
    "sgd": RATE,
    "momentum": RATE | {"momentum": 0.9},
    "nesterov": RATE | {"momentum": 0.9, "nesterov": True},
    "adam": RATE,
    "adamw": DECAYING,
    "nadam": RATE,
    "nadamw": DECAYING,
    "adamax": RATE,
    "adamaxw": DECAYING,
    "amsgrad": RATE,
    "adabelief": RATE,
    "yogi": RATE,
    "radam": RATE,
    "adan": DECAYING,
    "novograd": DECAYING,
    "acprop": RATE,
    "adopt": RATE,
    "ademamix": DECAYING,
    "simplified_ademamix": DECAYING,
    "adagrad": RATE,
    "adadelta": DECAYING,
    "rmsprop": RATE,
    "rmsprop centered": RATE | {"centered": True, "momentum": 0.9},
    "lion": DECAYING,
    "signum": RATE,
    "sign_sgd": RATE,
    "rprop": RATE,
    "lamb": DECAYING,
    "lars": DECAYING | {"momentum": 0.9},
    "fromage": RATE,
    "madgrad": RATE,
    "cocob": {},
    "optimistic_gradient_descent": RATE,
    "optimistic_adam_v2": RATE,
    "sm3": RATE,
    "adafactor": RATE,
    "noisy_sgd": RATE | {"key": 0},
    "dog": {},
    "dowg": {},
    "dadapt_adamw": {},
    "prodigy": {},
    "polyak_sgd": {},
    "momo": RATE,
    "momo_adam": RATE,
    "schedule_free_sgd": RATE,
    "schedule_free_adamw": DECAYING,
    "muon": RATE,
}
"""Rules with typical arguments; a name of two words is a variant of the rule of its first word, or an alias."""
FACTORY = {"momentum": "sgd", "nesterov": "sgd", "rmsprop centered": "rmsprop"}
ONLY_ON = {"muon": ("blocks",)}
"""The tables of a rule that is not in all."""
TABLES = ("mlp", "leaves", "packed", "large", "blocks", "end-to-end")
LIBRARIES = ("jaxnn", "optax")


def rule(library: str, name: str) -> Any | None:
    """An optimizer of one library with the table's arguments, or None if the library has no such rule."""
    rooms = (optim,) if library == "jaxnn" else (optax, optax.contrib)
    factory = next(
        (getattr(room, FACTORY.get(name, name)) for room in rooms if hasattr(room, FACTORY.get(name, name))), None
    )
    if factory is None:
        return None
    opt = factory(**RULES[name])
    return opt if library == "jaxnn" else optax.with_extra_args_support(opt)


def random_like(shapes: Any, seed: int = 0) -> Any:
    """A pytree of random arrays of the given shapes, of the size of weights."""
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple) and all(map(is_int, x)))
    key = jax.random.key(seed)
    made = jax.jit(lambda: [0.1 * jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate(leaves)])
    draws = made() if len(leaves) < 100 else [0.1 * jax.random.normal(key, s) for s in leaves]
    return jax.tree.unflatten(structure, draws)


def is_int(x: Any) -> bool:
    return isinstance(x, int)


def parameters(table: str, words: argparse.Namespace) -> Any:
    """The parameters of a table."""
    if table == "mlp":
        sizes = (784, 512, 512, 10)
        return random_like([{"w": (n, m), "b": (m,)} for n, m in itertools.pairwise(sizes)])
    if table in ("leaves", "packed"):
        leaves = random_like([(64,)] * words.leaves)
        return tree.pack(leaves)[0] if table == "packed" else leaves
    if table == "large":
        return random_like([(words.side, words.side)] * 4)
    d = words.width
    block = {
        "attention": {"qkv": (d, 3 * d), "out": (d, d)},
        "mlp": {"up": (d, 4 * d), "down": (4 * d, d)},
        "norms": [(d,), (d,)],
    }
    return random_like([block] * words.blocks)


def bytes_of(state: Any) -> int:
    """The bytes of a state's arrays without random keys."""
    return sum(x.nbytes for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


class Runner:
    """One compiled, donated step and its carry; `seconds()` takes one step and returns its time."""

    def __init__(self, step: Callable[..., Any], carry: Any, *fixed: Any) -> None:
        began = time.perf_counter()
        self.compiled = jax.jit(step, donate_argnums=0).lower(carry, *fixed).compile()
        self.compile_s = time.perf_counter() - began
        analysis = self.compiled.memory_analysis()
        self.temp_bytes = None if analysis is None else analysis.temp_size_in_bytes
        self.state_bytes = bytes_of(carry[1])
        self.carry, self.fixed = jax.tree.map(jnp.copy, carry), fixed  # donated: each runner needs its own

    def seconds(self) -> float:
        began = time.perf_counter()
        self.carry = self.compiled(self.carry, *self.fixed)
        jax.block_until_ready(self.carry)
        return time.perf_counter() - began


def update_runner(opt: Any, params: Any, grads: Any) -> Runner:
    """An update and its application; the loss is passed as 1."""

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = opt.update(grads, state, params, value=jnp.ones(()), grad=grads)
        return optim.apply_updates(params, updates), state

    return Runner(step, (params, opt.init(params)), grads)


def training_runner(opt: Any, params: Any, *, packed: bool) -> Runner:
    """The gradient of a deep, narrow network and the step on it."""
    x = random_like((32, 8), seed=1)
    params, unpack = tree.pack(params) if packed else (params, list)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for w in unpack(params):
            x = x + jnp.tanh(x @ w)
        return jnp.mean(x**2)

    def step(carry: Any, x: jax.Array) -> Any:
        params, state = carry
        updates, state = opt.update(jax.grad(loss)(params, x), state, params)
        return optim.apply_updates(params, updates), state

    return Runner(step, (params, opt.init(params)), x)


def compare(runners: dict[str, Runner], words: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, the runners alternating; ratios to the first runner within each round."""
    for runner in runners.values():
        runner.seconds()
    rounds = []
    for _ in range(words.rounds):
        taken: dict[str, list[float]] = {name: [] for name in runners}
        for i in range(words.repeats):
            turns = list(runners.items())
            for name, runner in turns if i % 2 else reversed(turns):
                taken[name].append(runner.seconds())
        rounds.append({name: statistics.median(times) for name, times in taken.items()})
    first, *_ = runners
    found: dict[str, Any] = {}
    for name, runner in runners.items():
        ratios = [turn[name] / turn[first] for turn in rounds]
        found[name] = {
            "step_ms": 1e3 * statistics.median(turn[name] for turn in rounds),
            "compile_s": runner.compile_s,
            "state_bytes": runner.state_bytes,
            "temp_bytes": runner.temp_bytes,
            "time_ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return found


def rules_table(table: str, words: argparse.Namespace) -> dict[str, Any]:
    """Every rule on the parameters of one table, printed row by row."""
    params = parameters(table, words)
    grads = jax.tree.map(lambda p: 0.01 * jnp.cos(100 * p), params)
    print(f"\n{table}: {len(jax.tree.leaves(params)):,} leaves, {tree.size(params):,} entries")
    print(f"{'':28}{'ms a step':^18}  {'compile s':^16}  {'state MB':^16}  {'temporary MB':^18}  optax / jaxnn")
    rows, left_out = {}, []
    for name in words.rules or RULES:
        if table not in ONLY_ON.get(name, TABLES):
            continue
        opts = {library: rule(library, name) for library in LIBRARIES}
        if None in opts.values():
            left_out.append(name)
            continue
        rows[name] = compare({k: update_runner(opt, params, grads) for k, opt in opts.items()}, words)
        print_row(name, rows[name])
        jax.clear_caches()
    if left_out:
        print(f"not in both libraries, left out: {', '.join(left_out)}")
    return {"rows": rows, "left_out": left_out, "rounds": words.rounds, "repeats": words.repeats}


def end_to_end(words: argparse.Namespace) -> dict[str, Any]:
    """Gradient and Adam's step of deep, narrow networks, from leaves and packed."""
    print("\nend-to-end: gradient and Adam's step of a network with 8 x 8 weights")
    rows = {}
    for depth in words.depths:
        params = random_like([(8, 8)] * depth)
        runners = {
            "jaxnn": training_runner(rule("jaxnn", "adam"), params, packed=False),
            "jaxnn packed": training_runner(rule("jaxnn", "adam"), params, packed=True),
            "optax": training_runner(rule("optax", "adam"), params, packed=False),
            "optax packed": training_runner(rule("optax", "adam"), params, packed=True),
        }
        rows[f"{depth} layers"] = compare(runners, words)
        for name, row in rows[f"{depth} layers"].items():
            low, high = row["ratio_range"]
            print(
                f"{depth:6,} layers, {name:14}{row['step_ms']:9.3f} ms a step {row['compile_s']:8.2f} s to compile   "
                f"time / jaxnn {row['time_ratio']:.2f} ({low:.2f}-{high:.2f})"
            )
    return {"rows": rows, "rounds": words.rounds, "repeats": words.repeats}


def print_row(name: str, row: dict[str, Any]) -> None:
    ours, theirs = row["jaxnn"], row["optax"]
    low, high = theirs["ratio_range"]

    def pair(field: str, unit: float, width: int, digits: int) -> str:
        return " /".join("   -" if r[field] is None else f"{r[field] / unit:{width}.{digits}f}" for r in (ours, theirs))

    print(
        f"{name:28}{pair('step_ms', 1, 8, 3)}  {pair('compile_s', 1, 7, 2)}  {pair('state_bytes', 1e6, 7, 2)}  "
        f"{pair('temp_bytes', 1e6, 8, 3)}  {theirs['time_ratio']:.2f} ({low:.2f}-{high:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, nargs="+")
    parser.add_argument("--rules", choices=sorted(RULES), nargs="+", metavar="RULE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--leaves", type=int, default=2000)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(3)))  # the first compilation of a process is the slowest
    sizes = {name: getattr(words, name) for name in ("leaves", "side", "blocks", "width", "depths")}
    tables = {}
    for table in words.only or TABLES:
        tables[table] = (end_to_end(words) if table == "end-to-end" else rules_table(table, words)) | {"sizes": sizes}
    if words.write:
        path = Path(__file__).parent / "results" / f"optimizers-{found['device'].lower().replace(' ', '-')}.json"
        path.parent.mkdir(exist_ok=True)
        kept = json.loads(path.read_text())["tables"] if path.exists() else {}
        for name, table in tables.items():
            table["rows"] = kept.get(name, {}).get("rows", {}) | table["rows"] if words.rules else table["rows"]
        files.write_json(path, {"environment": found, "tables": kept | tables}, indent=1)
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

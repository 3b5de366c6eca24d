"""Language models: step time against torch, and validation loss within time budgets.

    python -m benchmarks.language                       # both tables: 25 minutes on 2 cores
    python -m benchmarks.language --only step           # 2 minutes
    python -m benchmarks.language --only budget chars --seeds 1
    python -m benchmarks.language --write               # and save them in benchmarks/results/language-<device>.json

Two tables:

- step: the time of one step (loss, gradient, AdamW) of the transformer of the recipe `chars` in torch, over that of
  ours, with the hand-written backward pass and with `jax.grad`; one thread each, in one process, in turn. Before that,
  the losses of two steps are compared: it is the same function and gradient.
- budget: the validation loss (all windows) of the recipes on tiny-shakespeare, mean over seeds, and the time of their
  training as a multiple of the time that nanoGPT's CPU configuration takes for its 2,000 iterations in torch on the
  same cores (median step times 2,000; nanoGPT: https://github.com/karpathy/nanoGPT, config/train_shakespeare_char.py
  with the options of its README for a CPU). Training time is that of the epochs without compilation; validation and
  samples are not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, STEPS = 7, 10
NANO = {"batch": 12, "length": 64, "iterations": 2000}
RECIPES = ("chars", "chars-lstm", "chars-long", "chars-best")


def one_core() -> None:
    """Bind the process to one core; call it before jax starts its threads."""
    os.environ["NPROC"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def in_turn(programs: dict[str, Callable[[], Any]], rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, float]:
    """Median seconds of one call, the programs in turn for some rounds of several calls, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for run in programs.values():
        run()
    for _ in range(rounds):
        for name, run in programs.items():
            began = time.perf_counter()
            for _ in range(steps):
                run()
            times[name].append((time.perf_counter() - began) / steps)
    return {name: statistics.median(each) for name, each in times.items()}


def step_table() -> dict[str, Any]:
    """Milliseconds of a step, and the ratio of torch's to ours."""
    one_core()
    import jax
    import jax.numpy as jnp
    import torch

    from benchmarks import torch_language as peer
    from jaxnn import backprop, losses, optim, train
    from jaxnn.cli.recipes import RECIPES as CONFIGS
    from jaxnn.cli.text.config import ROTARY, build_network

    torch.set_num_threads(1)
    config: Any = CONFIGS["chars"]
    net, vocabulary = build_network(config, 65), 65
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, vocabulary, (config.batch_size, config.length), dtype=np.int32) for _ in range(2))
    example = jax.ShapeDtypeStruct(x.shape[1:], jnp.int32)
    opt, loss = optim.adamw(1e-3, weight_decay=0.1), losses.softmax_cross_entropy
    rules = {
        "by hand": backprop.value_and_grad(net, loss),
        "jax.grad": jax.value_and_grad(train.mean_loss(net, loss), has_aux=True),
    }
    programs: dict[str, Callable[[], Any]] = {}
    first: dict[str, float] = {}
    for name, vg in rules.items():
        step, state = train.make_step(vg, opt), [train.init(net, opt, jax.random.key(0), example)]
        params = jax.tree.map(lambda p: np.asarray(p) + 0.02, state[0].params)
        state[0] = state[0]._replace(params=jax.tree.map(jnp.asarray, params))
        on_device = jnp.asarray(x), jnp.asarray(y)

        def run(step: Any = step, state: Any = state, batch: Any = on_device) -> float:
            state[0], report = step(state[0], *batch)
            return float(report["loss"])

        first[name] = run()
        programs[name] = run
    model = peer.Transformer(params, config.heads, ROTARY, config.length)
    adam = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1, fused=True)
    programs["torch"] = peer.trainer(model, adam, torch.tensor(x).long(), torch.tensor(y).long())
    first["torch"] = programs["torch"]()
    second = {name: run() for name, run in programs.items()}
    for name in rules:
        for ours, theirs in ((first[name], first["torch"]), (second[name], second["torch"])):
            if not abs(ours - theirs) <= 2e-4 * theirs:
                raise SystemExit(f"not the same function: loss {ours} {name}, {theirs} in torch")
    found = in_turn(programs)
    ratios = {f"torch / {name}": found["torch"] / found[name] for name in rules}
    for name, seconds in found.items():
        print(f"{name:10} {1e3 * seconds:7.2f} ms a step")
    for name, ratio in ratios.items():
        print(f"{name:20} {ratio:5.2f}")
    return {"ms": {name: 1e3 * s for name, s in found.items()}, "ratios": ratios}


def nano_seconds() -> float:
    """Seconds of nanoGPT's CPU configuration in torch: 2,000 times the median step."""
    import torch

    from benchmarks import torch_language as peer

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    net = peer.NanoGpt()
    adam = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    x, y = (torch.randint(0, 65, (NANO["batch"], NANO["length"])) for _ in range(2))
    return NANO["iterations"] * in_turn({"nanoGPT": peer.trainer(net, adam, x, y, clip=1.0)}, 7, 20)["nanoGPT"]


def budget_table(names: list[str], seeds: int) -> dict[str, Any]:
    """Validation losses of recipes, and their training times over nanoGPT's."""
    from jaxnn.cli.recipes import RECIPES as CONFIGS
    from jaxnn.cli.text.train import train_text, training_seconds

    before, found = nano_seconds(), {}
    print(f"nanoGPT's CPU configuration in torch: {before:.1f} s for {NANO['iterations']:,} iterations")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            config: Any = dataclasses.replace(CONFIGS[name], seeds=seeds, out=Path(folder) / "run")  # type: ignore[type-var]
            _, outcomes = train_text(config, progress=False)
        losses = [o.validation_loss for o in outcomes]
        seconds = [training_seconds(o) for o in outcomes]
        found[name] = {
            "validation_loss": losses,
            "seconds": seconds,
            "nanogpt_seconds": before,
            "of_nanogpt": statistics.fmean(seconds) / before,
        }
        spread = f" ± {statistics.stdev(losses):.4f}" if seeds > 1 else ""
        print(
            f"{name:12} validation loss {statistics.fmean(losses):.4f}{spread}  "
            f"training {statistics.fmean(seconds):.1f} s, {found[name]['of_nanogpt']:.2f} of nanoGPT's"
        )
    return found


def keep(write: bool, name: str, table: dict[str, Any]) -> None:
    """Save the rows of a table, if asked to; rows of other recipes stay."""
    from jaxnn import files

    if write:
        path = Path(__file__).parent / "results" / "language-cpu.json"
        saved = files.read_json(path) if path.exists() else {}
        files.write_json(path, saved | {name: saved.get(name, {}) | table})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["step", "budget", *RECIPES], metavar="WORD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="save the tables in benchmarks/results/")
    options = parser.parse_args()
    if "budget" in options.only:
        names = [name for name in options.only if name not in ("step", "budget")] or list(RECIPES)
        keep(options.write, "recipes", budget_table(names, options.seeds))
    if "step" in options.only:
        if "budget" in options.only:  # threads of this process have started: bind another
            write = ["--write"] if options.write else []
            subprocess.run([sys.executable, "-m", "benchmarks.language", "--only", "step", *write], check=True)
        else:
            keep(options.write, "step", step_table())


if __name__ == "__main__":
    main()

"""The speed of recurrent networks on one CPU thread: rules by hand against `jax.grad`, flax and torch.

    python benchmarks/recurrent.py                          # about 3 minutes
    python benchmarks/recurrent.py --cells LSTM --batch 64 --hidden 512
    python benchmarks/recurrent.py --write                  # and save it in benchmarks/results/recurrent-cpu.json

One step: loss and gradient of a character language model, embedding - recurrent layers - output layer, vocabulary 65,
without an optimizer. All run in one process, in turn, blocked until ready, on one thread (a set of one core, XLA's and
torch's pools of one thread). The time is the processor time of the process: what other processes take does not count.
Each ratio is that of two times of one turn; printed are its median and its quartiles over the turns.

torch has a fused LSTM for training (oneDNN), but no fused GRU or simple RNN; "torch, own LSTM" is without oneDNN. torch
and flax have no linear recurrence.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1".strip()
)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, layers, losses, models, train

VOCABULARY = 65
CELLS = ("LSTM", "GRU", "RNN", "LinearRecurrence")
Step = Callable[[], Any]


def ours(net: Any, params: Any, x: Any, y: Any) -> dict[str, Step]:
    """The same network by the rules, and by `jax.grad` of its forward pass."""
    loss = losses.softmax_cross_entropy
    made = {
        "jaxnn": backprop.value_and_grad(net, loss),
        "jax.grad": jax.value_and_grad(train.mean_loss(net, loss), has_aux=True),
    }
    return {name: functools.partial(blocked, jax.jit(vg), params, (), x, y) for name, vg in made.items()}


def blocked(step: Callable[..., Any], *arguments: Any) -> Any:
    """The result, once it is there."""
    return jax.block_until_ready(step(*arguments))


def of_flax(cell: str, hidden: int, depth: int, x: Any, y: Any) -> dict[str, Step]:
    """flax.linen's recurrent layers, as scans of its cells."""
    if cell == "LinearRecurrence" or not importlib.util.find_spec("flax"):
        return {}
    import flax.linen as nn

    made = {"LSTM": nn.OptimizedLSTMCell, "GRU": nn.GRUCell, "RNN": nn.SimpleCell}[cell]
    net = nn.Sequential(
        [nn.Embed(VOCABULARY, hidden), *(nn.RNN(made(hidden)) for _ in range(depth)), nn.Dense(VOCABULARY)]
    )
    params = jax.jit(net.init)(jax.random.key(0), x)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(losses.softmax_cross_entropy(net.apply(params, x), y))

    return {"flax": functools.partial(blocked, jax.jit(jax.value_and_grad(loss)), params, x, y)}


def of_torch(cell: str, hidden: int, depth: int, x: Any, y: Any) -> dict[str, Step]:
    """torch's recurrent layers, with and without oneDNN."""
    if cell == "LinearRecurrence" or not importlib.util.find_spec("torch"):
        return {}
    import torch
    from torch import nn

    torch.set_num_threads(1)
    embed, head = nn.Embedding(VOCABULARY, hidden), nn.Linear(hidden, VOCABULARY)
    recurrent = getattr(nn, cell)(hidden, hidden, depth, batch_first=True)
    net = nn.ModuleList([embed, recurrent, head])
    tokens, labels = (torch.tensor(np.asarray(a)).long() for a in (x, y))

    def step() -> None:
        net.zero_grad(set_to_none=True)
        logits = head(recurrent(embed(tokens))[0])
        nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), labels.reshape(-1)).backward()

    def without() -> None:
        with torch.backends.mkldnn.flags(enabled=False):
            step()

    return {"torch": step} | ({"torch, own LSTM": without} if cell == "LSTM" else {})


def compare(cell: str, turns: int, *, batch: int, positions: int, hidden: int, depth: int) -> dict[str, Any]:
    """Median milliseconds of each, and quartiles of its time over ours."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.integers(0, VOCABULARY, (batch, positions)), jnp.int32) for _ in range(2))
    net = models.recurrent(VOCABULARY, hidden, depth, getattr(layers, cell))
    params, _ = net.init(jax.random.key(0), jax.ShapeDtypeStruct((positions,), jnp.int32))
    steps = ours(net, params, x, y) | of_flax(cell, hidden, depth, x, y) | of_torch(cell, hidden, depth, x, y)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-2, turns):  # the first two compile and warm up
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn >= 0:
                times[name].append(time.process_time() - began)
    base = np.array(times["jaxnn"])
    return {
        name: {
            "ms": 1e3 * float(np.median(taken)),
            "time_over_jaxnn": np.quantile(np.array(taken) / base, [0.25, 0.5, 0.75]).tolist(),
        }
        for name, taken in times.items()
    }


def environment() -> dict[str, Any]:
    """The versions, and the kind of device."""
    versions = {}
    for name in ("jax", "flax", "torch"):
        if importlib.util.find_spec(name):
            versions[name] = importlib.import_module(name).__version__
    return {"device": jax.devices()[0].device_kind, "threads": 1, "python": platform.python_version()} | versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--positions", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    sizes = {name: getattr(words, name) for name in ("batch", "positions", "hidden", "depth")}
    found = environment()
    print(", ".join(f"{name} {value}" for name, value in (found | sizes).items()))
    tables = {}
    for cell in words.cells:
        tables[cell] = compare(cell, words.turns, **sizes)
        print(f"\n{cell:<18}{'ms':>8}   time / jaxnn (quartiles)")
        for name, row in tables[cell].items():
            low, middle, high = row["time_over_jaxnn"]
            print(f"{name:<18}{row['ms']:8.1f}   {middle:.2f} ({low:.2f}-{high:.2f})")
    if words.write:
        from jaxnn import files

        path = Path(__file__).parent / "results" / "recurrent-cpu.json"
        files.write_json(path, {"environment": found, "sizes": sizes, "tables": tables}, indent=1)
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

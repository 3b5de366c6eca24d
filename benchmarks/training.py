"""The speed of training: jaxnn against flax with optax and against torch, on the same data and hardware.

    python benchmarks/training.py                    # both tables, about 5 minutes on 2 cores
    python benchmarks/training.py --only mlp --rounds 3
    python benchmarks/training.py --write            # and save them in benchmarks/results/training-<device>.json

Two tables:

- mlp: examples/s of one epoch of an MLP 784-512-512-10, batch 128, Adam, on 60,000 random images of MNIST's size;
- cnn: milliseconds of one step of conv 3x3x32 - pool - conv 3x3x64 - pool - 128 - 10, batch 128, Adam.

Each rival runs in a process of its own, so that thread pools do not interfere; the processes alternate for several
rounds, and the time of a round is the median of repeats, each with `block_until_ready`, after a warm-up that compiles.
Ratios are formed within a round, and their median is printed with the range over rounds. Rivals that are not installed
are omitted and listed. jaxnn's epoch is always its scan; flax's convolutional network runs in a Python loop only, since
XLA's gradient of a convolution inside a scan is many times slower on CPU (jax issue 12868).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N, BATCH, HIDDEN = 60_000, 128, (512, 512)
CNN_BATCHES = 30
RIVALS = {
    "mlp": ("jaxnn", "flax loop", "flax scan", "torch"),
    "cnn": ("jaxnn", "flax loop", "torch"),
}
NEEDS = {"jaxnn": "jaxnn", "flax loop": "flax", "flax scan": "flax", "torch": "torch"}


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of MNIST's size; the values do not affect the time."""
    rng = np.random.default_rng(0)
    return rng.random((n, 28, 28, 1), np.float32), rng.integers(0, 10, n).astype(np.int32)


def median_seconds(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(seconds of the first call, with compilation; median seconds of the later ones)."""
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return first, statistics.median(times)


def jaxnn_epoch(model: str, repeats: int) -> tuple[float, float]:
    """One scanned epoch by `train.make_epoch`."""
    import jax
    import jax.numpy as jnp

    from jaxnn import losses, models, optim, train

    n = N if model == "mlp" else CNN_BATCHES * BATCH
    x, y = (jnp.asarray(a) for a in data(n))
    net = models.mlp([784, *HIDDEN, 10]) if model == "mlp" else models.cnn()
    opt = optim.adam(1e-3)
    vg = jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
    epoch = train.make_epoch(vg, opt, batch_size=BATCH)
    carried = [train.init(net, opt, jax.random.key(0), (28, 28, 1))]

    def run() -> None:
        carried[0], report = epoch(carried[0], x, y, jax.random.key(1))
        jax.block_until_ready(report)

    return median_seconds(run, repeats)


def flax_epoch(model: str, repeats: int, *, scanned: bool) -> tuple[float, float]:
    """The same network in flax.linen with optax, in the usual Python loop over batches or under the same scan."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = x.reshape(x.shape[0], -1)
            for features in HIDDEN:
                x = nn.relu(nn.Dense(features)(x))
            return nn.Dense(10)(x)

    class Cnn(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for features in (32, 64):
                x = nn.relu(nn.Conv(features, (3, 3), padding="VALID")(x))
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
            return nn.Dense(10)(x)

    net = Mlp() if model == "mlp" else Cnn()
    n = N if model == "mlp" else CNN_BATCHES * BATCH
    images, labels = data(n)
    params = net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    opt = optax.adam(1e-3)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), y).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = opt.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    carried = [params, opt.init(params)]
    steps = n // BATCH
    if scanned:
        x, y = jnp.asarray(images), jnp.asarray(labels)

        def epoch(params: Any, opt_state: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, n)[: steps * BATCH].reshape(steps, BATCH)

            def body(carry: Any, index: jax.Array) -> Any:
                *carry, value = step(*carry, x[index], y[index])
                return tuple(carry), value

            return jax.lax.scan(body, (params, opt_state), order)

        compiled = jax.jit(epoch, donate_argnums=(0, 1))

        def run() -> None:
            (carried[0], carried[1]), values = compiled(*carried, jax.random.key(1))
            jax.block_until_ready(values)

    else:
        jitted = jax.jit(step, donate_argnums=(0, 1))
        rng = np.random.default_rng(0)

        def run() -> None:
            order = rng.permutation(n)[: steps * BATCH].reshape(steps, BATCH)
            for index in order:
                carried[0], carried[1], value = jitted(*carried, images[index], labels[index])
            jax.block_until_ready(value)

    return median_seconds(run, repeats)


def torch_epoch(model: str, repeats: int) -> tuple[float, float]:
    """The same network in eager torch, with the data on the device, in the usual loop."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = N if model == "mlp" else CNN_BATCHES * BATCH
    images, labels = data(n)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    if model == "mlp":
        layers: list[Any] = [nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(512, 10))
    else:
        stages = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
        net = nn.Sequential(*stages, nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10))
    net.to(device)
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss = nn.CrossEntropyLoss()

    def run() -> None:
        order = torch.randperm(n, device=device)
        for i in range(0, n - BATCH + 1, BATCH):
            index = order[i : i + BATCH]
            opt.zero_grad(set_to_none=True)
            loss(net(x[index]), y[index]).backward()
            opt.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return median_seconds(run, repeats)


def measure(model: str, rival: str, repeats: int) -> dict[str, float]:
    """The times of one rival, in this process."""
    if rival == "jaxnn":
        first, seconds = jaxnn_epoch(model, repeats)
    elif rival == "torch":
        first, seconds = torch_epoch(model, repeats)
    else:
        first, seconds = flax_epoch(model, repeats, scanned=rival != "flax loop")
    steps = (N if model == "mlp" else CNN_BATCHES * BATCH) // BATCH
    return {
        "first_seconds": first,
        "seconds": seconds,
        "step_ms": 1e3 * seconds / steps,
        "examples_per_s": steps * BATCH / seconds,
    }


def measure_in_process(model: str, rival: str, repeats: int) -> dict[str, float]:
    """The same in a fresh process, without the compilation cache, so that first calls compile."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    words = [sys.executable, __file__, "--measure", model, rival, "--repeats", str(repeats)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{rival} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(model: str, rounds: int, repeats: int) -> dict[str, Any]:
    """Medians over the rounds, the rivals alternating; ratios of time to jaxnn's within each round."""
    present = [r for r in RIVALS[model] if importlib.util.find_spec(NEEDS[r])]
    absent = [r for r in RIVALS[model] if r not in present]
    taken = [{rival: measure_in_process(model, rival, repeats) for rival in present} for _ in range(rounds)]
    rows = {}
    for rival in present:
        ratios = [turn[rival]["seconds"] / turn["jaxnn"]["seconds"] for turn in taken]
        rows[rival] = {name: statistics.median(turn[rival][name] for turn in taken) for name in taken[0][rival]} | {
            "time_over_jaxnn": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return {"rows": rows, "left_out": absent, "rounds": rounds, "repeats": repeats}


def environment() -> dict[str, Any]:
    """The device, the number of cores and the versions."""
    import jax

    versions = {}
    for name in ("jax", "flax", "optax", "torch"):
        if importlib.util.find_spec(name):
            versions[name] = importlib.import_module(name).__version__
    device = jax.devices()[0].device_kind
    return {"device": device, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def print_table(model: str, result: dict[str, Any]) -> None:
    heading = {
        "mlp": f"one epoch: MLP 784-512-512-10, batch {BATCH}, Adam, {N:,} examples",
        "cnn": f"one step: conv32-pool-conv64-pool-128-10, batch {BATCH}, Adam",
    }[model]
    print(f"\n{heading}   (median of {result['rounds']} rounds of {result['repeats']}; range over rounds)")
    print(f"{'':12}{'epoch s':>9}{'step ms':>9}{'examples/s':>12}{'first call s':>14}   time / jaxnn")
    for rival, row in result["rows"].items():
        low, high = row["ratio_range"]
        print(
            f"{rival:12}{row['seconds']:9.2f}{row['step_ms']:9.2f}{row['examples_per_s']:12,.0f}"
            f"{row['first_seconds']:14.2f}   {row['time_over_jaxnn']:.2f} ({low:.2f}-{high:.2f})"
        )
    if result["left_out"]:
        print(f"not installed, left out: {', '.join(result['left_out'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(RIVALS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "RIVAL"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.measure:
        print(json.dumps(measure(*words.measure, words.repeats)))
        return
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    tables = {}
    for model in [words.only] if words.only else RIVALS:
        tables[model] = compare(model, words.rounds, words.repeats)
        print_table(model, tables[model])
    if words.write:
        from jaxnn import files

        path = Path(__file__).parent / "results" / f"training-{found['device'].lower().replace(' ', '-')}.json"
        path.parent.mkdir(exist_ok=True)
        kept = json.loads(path.read_text())["tables"] if path.exists() else {}
        tables = kept | tables
        files.write_json(path, {"environment": found, "tables": tables}, indent=1)
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

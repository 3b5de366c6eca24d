"""The cost of per-example statistics: jaxnn against vmap(grad), jax_privacy, Opacus and BackPACK, in mean gradients.

    python -m benchmarks.per_example                                # all networks, about 25 minutes on 2 cores
    python -m benchmarks.per_example --only mlp --rounds 3
    python -m benchmarks.per_example --torch-python PATH            # an interpreter with torch, Opacus and BackPACK
    python -m benchmarks.per_example --write                        # and save them in benchmarks/results/

Networks: `mlp` 784-512-512-10, batches of 128 and 512; `cnn` conv 3x3x32 - pool - conv 3x3x64 - pool - 128 - 10 on
28x28x1, batch 128; `2c2d` conv 5x5x32 - pool - conv 5x5x64 - pool - 1024 - 10 (DeepOBS' fmnist_2c2d), batch 128;
`allcnn` nine convolutions in the manner of All-CNN-C, a third of its channels, on 32x32x3, batch 32. Relu follows each
layer but the last; where there is a pool, it comes before.

Quantities, each from parameters and a batch, with forward and backward pass: the mean gradient; per-example norms with
the mean gradient; the clipped sum; second moment; variance (and its one-product form); the Gram matrix of 256 examples
(allcnn: 32); and all of norms, clipped sum, second moment, Gram matrix and noise scale, which for jaxnn come from one
tape.

The unit is the plain mean gradient by `jax.grad` of the same network and batch, in the same process, for torch's rivals
too. The JAX rivals run one after the other in one process; the torch rivals in a process of their own, in each round.
The time of a round is the median of repeats, each with `block_until_ready`, after a warm-up; ratios are formed within a
round, and their median is printed with the range over rounds. Temporary memory is by XLA's memory analysis. Rivals that
are not installed or need too much memory are omitted and listed. XLA on CPU is slow at `vmap(grad)` of weights (batched
products with a batch of one row, grouped convolutions), on which jax_privacy, at its best microbatch, is based: their
results do not carry over to an accelerator.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.per_example_common import (
    BOUND,
    MOST_BYTES,
    Runner,
    Times,
    clipped_of,
    in_other_process,
    jax_privacy_clipped,
    mean_of,
    norms_of,
    rows_of,
    write,
)
from benchmarks.training import environment
from jaxnn import backprop, losses, models, per_example, train
from jaxnn.layers import Conv, Dense, Flatten, GlobalAveragePool, MaxPool, Relu

LOSS = losses.softmax_cross_entropy


class Net(NamedTuple):
    """A network, the shape of one example, and the batches to measure."""

    layer: Any
    example: tuple[int, ...]
    batches: tuple[int, ...]
    gram_batch: int


def all_cnn() -> Any:
    """All-CNN-C (Springenberg et al. 2015, table 1) with a third of its channels."""
    parts: list[Any] = []
    for channels, stride in [(32, 1), (32, 1), (32, 2), (64, 1), (64, 1), (64, 2)]:
        parts += [Conv(channels, 3, stride=stride, padding="SAME"), Relu]
    for channels, window in [(64, 3), (64, 1), (10, 1)]:
        parts += [Conv(channels, window), Relu]
    return models.serial(*parts[:-1], GlobalAveragePool)


def two_conv_two_dense() -> Any:
    """DeepOBS' fmnist_2c2d (Schneider, Balles & Hennig 2019), the pool before the ReLU."""
    stages = [part for c in (32, 64) for part in (Conv(c, 5, padding="SAME"), MaxPool(2), Relu)]
    return models.serial(*stages, Flatten, Dense(1024), Relu, Dense(10))


NETS = {
    "mlp": Net(models.mlp([784, 512, 512, 10]), (784,), (128, 512), 256),
    "cnn": Net(models.cnn(), (28, 28, 1), (128,), 256),
    "2c2d": Net(two_conv_two_dense(), (28, 28, 1), (128,), 256),
    "allcnn": Net(all_cnn(), (32, 32, 3), (32,), 32),
}


def by_reduce_window(layer: Any) -> Callable[..., Any]:
    """The mean gradient by `jax.grad` with XLA's convolution and `reduce_window`, as in flax."""

    def apply(params: Any, x: Any) -> Any:
        for part, p in zip(layer.parts, params, strict=True):
            if part.kind.name == "conv":
                strides, numbers = (part.options["stride"],) * 2, ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(x, p["w"], strides, part.options["padding"], dimension_numbers=numbers)
                x = x + p["b"]
            elif part.kind.name == "max_pool":
                window = (1, 2, 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            else:
                x = part.predict(p, (), x)
        return x

    def gradient(params: Any, state: Any, x: Any, y: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(LOSS(apply(p, x), y)))(params)

    return gradient


def programs(net: Any) -> dict[str, dict[str, Callable[..., Any]]]:
    """For each quantity and rival a function of (params, state, x, y), y of integer labels."""
    record = backprop.record(net, LOSS)

    def of_one(params: Any, state: Any, x: Any, y: Any) -> Any:
        return LOSS(net.predict(params, state, x[None]), y[None])[0]

    each = jax.vmap(jax.grad(of_one), (None, None, 0, 0))

    def mean_of_batch(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(LOSS(net.predict(params, (), x), y))

    def stateless(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, state, x, y: f(params, x, y)

    def on_tape(*asked: Callable[[Any], Any]) -> Callable[..., Any]:
        def found(*batch: Any) -> Any:
            tape = record(*batch)
            return [f(tape) for f in asked]

        return found

    def on_grads(f: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda *batch: f(each(*batch))

    clip = functools.partial(per_example.clipped_grad, clip=BOUND)
    five = (per_example.norms, clip, per_example.second_moment, per_example.gram, per_example.noise_scale)
    found: dict[str, dict[str, Callable[..., Any]]] = {
        "gradient": {
            "jax.grad": jax.grad(train.mean_loss(net, LOSS), has_aux=True),
            "jaxnn": backprop.value_and_grad(net, LOSS),
        },
        "norms and mean": {
            "jaxnn": on_tape(per_example.norms, per_example.mean_grad),
            "vmap(grad)": on_grads(lambda g: (norms_of(g), mean_of(g))),
        },
        "clipped sum": {"jaxnn": on_tape(clip), "vmap(grad)": on_grads(clipped_of)},
        "second moment": {
            "jaxnn": on_tape(per_example.second_moment),
            "vmap(grad)": on_grads(lambda g: jax.tree.map(lambda a: jnp.mean(a**2, 0), g)),
        },
        "variance": {
            "jaxnn": on_tape(per_example.variance),
            "vmap(grad)": on_grads(lambda g: jax.tree.map(lambda a: jnp.var(a, 0), g)),
        },
        "gram": {
            "jaxnn": on_tape(per_example.gram),
            "jaxnn, explicit": lambda *batch: gram_of(per_example.materialize(record(*batch))),
            "vmap(grad)": on_grads(gram_of),
        },
        "everything": {"jaxnn": on_tape(*five)},
    }
    if any(part.kind.name == "conv" for part in net.parts):
        found["gradient"]["jax.grad, reduce_window"] = by_reduce_window(net)
    else:
        found["variance"]["jaxnn, centred"] = on_tape(per_example.variance_centred)
    for rival, clipped in jax_privacy_clipped(mean_of_batch).items():
        found["clipped sum"][rival] = stateless(clipped)
    return found


def gram_of(grads: Any) -> Any:
    """<g_i, g_j> of materialized gradients."""
    flat = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(grads)]
    return sum(jnp.einsum("ip,jp->ij", g, g, precision="highest") for g in flat)


def random_batch(net: Net, n: int) -> tuple[Any, ...]:
    """Parameters and random data; the values do not affect the time."""
    params, state = net.layer.init(jax.random.key(0), net.example)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, *net.example), np.float32)
    return params, state, jnp.asarray(x), jnp.asarray(rng.integers(0, 10, n))


def runners(net: Net, batch: int) -> tuple[dict[tuple[str, str], Runner], list[str]]:
    """The compiled programs of one batch size, and the rivals that are omitted."""
    found, left_out = {}, []
    wanted = programs(net.layer)
    for quantity, rivals in wanted.items():
        n = net.gram_batch if quantity == "gram" else batch
        arguments = random_batch(net, n)
        unit = {"jax.grad, this batch": wanted["gradient"]["jax.grad"]} if n != batch else {}
        for rival, program in (rivals | unit).items():
            runner = Runner(program, arguments)
            if runner.temp_bytes > MOST_BYTES:
                left_out.append(f"{quantity} by {rival} ({runner.temp_bytes / 2**30:.1f} GiB of temporary memory)")
            else:
                found[quantity, rival] = runner
                runner.once()
    if not importlib.util.find_spec("jax_privacy"):
        left_out.append("jax_privacy (not installed)")
    return found, left_out


def measure(name: str, batch: int, rounds: int, torch_python: str) -> dict[str, Any]:
    """Medians over the rounds of all rivals, and ratios formed within each round."""
    net = NETS[name]
    jax_runners, left_out = runners(net, batch)
    times: Times = {}
    for _ in range(rounds):
        for which, runner in jax_runners.items():
            times.setdefault(which, []).append(runner.seconds())
        found = in_other_process(torch_python, "per_example_torch.py", name, str(batch), str(net.gram_batch))
        if isinstance(found, str):
            left_out.append(f"torch: {found}")
            continue
        for quantity, rivals in found.items():
            for rival, seconds in rivals.items():
                times.setdefault((quantity, rival), []).append(seconds)
    return {"batch": batch, "rounds": rounds, "rows": rows_of(times, jax_runners), "left_out": sorted(set(left_out))}


def print_table(name: str, table: dict[str, Any]) -> None:
    print(f"\n{name}, batch {table['batch']}   (median of {table['rounds']} rounds; range over rounds)")
    print(f"{'':16}{'':26}{'ms':>9}{'over jax.grad':>24}{'over jaxnn':>12}{'temp MiB':>10}{'compile s':>11}")
    for row in sorted(table["rows"], key=lambda row: row["quantity"]):
        middle, low, high = row["over jax.grad"]
        memory = f"{row['temporary MiB']:10.1f}{row['compile s']:11.1f}" if "compile s" in row else ""
        print(
            f"{row['quantity']:16}{row['rival']:26}{row['ms']:9.2f}{middle:9.2f} ({low:5.2f}-{high:6.2f})"
            f"{row['over jaxnn'][0]:12.2f}{memory}"
        )
    for line in table["left_out"]:
        print(f"left out: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(NETS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with torch, Opacus and BackPACK")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    tables = {}
    for name in [words.only] if words.only else NETS:
        for batch in NETS[name].batches:
            label = f"{name} {batch}"
            tables[label] = measure(name, batch, words.rounds, words.torch_python)
            print_table(name, tables[label])
    if words.write:
        write("per_example", found, tables)


if __name__ == "__main__":
    main()

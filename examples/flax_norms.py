"""Per-example gradient norms of a flax model as it stands: record its loss, ask for norms; beside vmap(grad).

python examples/flax_norms.py
"""

import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn import data, losses, per_example, tree

REPEATS = 20


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        x = nn.relu(nn.Dense(256)(nn.LayerNorm()(x.reshape(len(x), -1))))
        return nn.Dense(10)(x)


def main() -> None:
    digits = jax.device_put(data.load("digits").train)
    x, y, model = digits.x[:128], digits.y[:128], CNN()
    params = model.init(jax.random.key(0), x[:1])

    def loss(params, x, y):  # of ONE example: flax wants a batch, so it gets a batch of one
        return losses.softmax_cross_entropy(model.apply(params, x[None]), y[None])[0]

    record = per_example.record(loss)
    norms = jax.jit(lambda params, x, y: per_example.norms(record(params, x, y)))
    print("norms of the first examples:", *(f"{norm:.2f}" for norm in norms(params, x, y)[:8]))
    print(per_example.plan(jax.eval_shape(record, params, x, y)))

    oracle = jax.jit(jax.vmap(lambda params, x, y: tree.norm(jax.grad(loss)(params, x, y)), (None, 0, 0)))
    difference = jnp.max(jnp.abs(norms(params, x, y) / oracle(params, x, y) - 1))
    print(f"largest relative difference from vmap(grad): {float(difference):.1e}")
    mean = jax.jit(jax.grad(lambda params, x, y: losses.softmax_cross_entropy(model.apply(params, x), y).mean()))
    names, functions = ("an ordinary mean gradient", "norms", "vmap(grad)"), (mean, norms, oracle)
    times = milliseconds(functions, params, x, y)
    for name, each in zip(names, times, strict=True):
        print(f"{name:25} {each:6.1f} ms, {each / times[0]:5.2f} times the first")


def milliseconds(functions, *args):
    """Median times, the functions in turns, so that whatever slows the machine meets all of them."""
    jax.block_until_ready([f(*args) for f in functions])  # compiled
    times = [[] for _ in functions]
    for _ in range(REPEATS):
        for f, each in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(f(*args))
            each.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(each) for each in times]


if __name__ == "__main__":
    main()

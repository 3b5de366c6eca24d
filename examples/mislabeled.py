"""Detection of wrong labels: change 5% of the digits' labels, train on them, rank examples by their gradient norms.

python examples/mislabeled.py
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, data, losses, models, optim, per_example, plots, train


def main() -> None:
    digits = data.load("digits").train
    x, truth = jnp.asarray(digits.x), np.asarray(digits.y)
    generator = np.random.default_rng(0)
    spoilt = generator.choice(len(truth), len(truth) // 20, replace=False)
    labels = truth.copy()
    labels[spoilt] = (labels[spoilt] + generator.integers(1, 10, len(spoilt))) % 10

    net, opt = models.mlp([64, 128, 10]), optim.adam(3e-3)
    epoch = train.make_epoch(backprop.value_and_grad(net, losses.softmax_cross_entropy), opt, batch_size=64)
    record = backprop.record(net, losses.softmax_cross_entropy)
    norms = jax.jit(lambda ts, y: per_example.norms(record(ts.params, ts.state, x, y)))  # one pass for all examples

    ts, y, suspicion = train.init(net, opt, jax.random.key(0), (8, 8, 1)), jnp.asarray(labels), 0.0
    for key in jax.random.split(jax.random.key(1), 15):
        ts, _ = epoch(ts, x, y, key)
        suspicion += norms(ts, y)

    suspects = np.argsort(-np.asarray(suspicion))[: len(spoilt)]
    found = np.isin(suspects, spoilt)
    print(f"of the {len(suspects)} largest gradient norms {found.mean():.0%} are of wrong labels, by chance 5%")
    shown = suspects[:24]
    captions = [f"label {labels[i]}\n" + (f"truth {truth[i]}" if i in spoilt else "(right)") for i in shown]
    fig = plots.pictures(digits.x[shown], captions, title="The largest gradient norms")
    print("written:", plots.save(fig, "mislabeled.png"))


if __name__ == "__main__":
    main()

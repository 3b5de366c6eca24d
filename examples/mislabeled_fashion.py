"""Detection of wrong labels in Fashion-MNIST: change 5%, train an equinox network, rank images by gradient norm.

python examples/mislabeled_fashion.py [suspects.png doubtful.png]
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, losses, optim, per_example, plots, train
from jaxnn.studies.mislabeled import precision_at, with_wrong_labels

IMAGES, WRONG, EPOCHS, BATCH, MICROBATCH, SHOWN = 15_000, 0.05, 6, 64, 250, 24


class CNN(eqx.Module):
    layers: tuple

    def __init__(self, shape, classes, key):
        keys = jax.random.split(key, 4)
        size = 32 * -(-shape[0] // 4) * -(-shape[1] // 4)
        self.layers = (
            eqx.nn.Conv2d(1, 16, 5, stride=2, padding=2, key=keys[0]),
            eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=keys[1]),
            eqx.nn.Linear(size, 64, key=keys[2]),
            eqx.nn.Linear(64, classes, key=keys[3]),
        )

    def __call__(self, x):  # one image (H, W, 1); equinox has the channels first
        first, second, dense, last = self.layers
        x = jax.nn.relu(second(jax.nn.relu(first(jnp.moveaxis(x, -1, 0)))))
        return last(jax.nn.relu(dense(x.ravel())))


def examples():
    try:
        found = data.load("fashion-mnist").train
    except FileNotFoundError as error:
        print(f"{error}\nTHE EMBEDDED DIGITS TAKE THEIR PLACE.")
        found = data.load("digits").train
    return data.select(found, slice(0, IMAGES))


def main() -> None:
    published = examples()
    spoilt = with_wrong_labels(published, WRONG, seed=0)
    model = CNN(published.x.shape[1:3], len(published.classes), jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, x, y):  # of ONE image, and the predicted probabilities
        logits = eqx.combine(params, static)(x)
        return losses.softmax_cross_entropy(logits[None], y[None])[0], jax.nn.softmax(logits)

    def mean_loss(params, state, x, y, *, key=None, weights=None):
        return jax.vmap(loss, (None, 0, 0))(params, x, y)[0].mean(), state

    record = per_example.record(loss, has_aux=True)

    @jax.jit
    def measure(params, x, y):
        def part(x, y):
            tape, guesses = record(params, x, y)
            return (), {
                "gradient norm": per_example.norms(tape),
                "gradient of the last biases": per_example.norms(per_example.select(tape, ".layers[3].bias")),
                "loss": tape.losses,
                "guess": guesses,
            }

        return per_example.over_microbatches(part, (x, y), MICROBATCH)[1]

    opt = optim.adam(1e-3)
    # One call per step: in a scan, convolutions with channels first are several times slower by XLA on CPU.
    step = train.make_step(jax.value_and_grad(mean_loss, has_aux=True), opt)
    ts, x, y = train.TrainState(params, (), opt.init(params)), jnp.asarray(spoilt.x), jnp.asarray(spoilt.y)
    sums = None  # over the epochs: the gradient of a memorized image is small, but it was large before
    for epoch, key in enumerate(jax.random.split(jax.random.key(1), EPOCHS), 1):
        batches, _ = data.batch_indices(key, len(y), BATCH, partial=data.Partial.DROP)
        for rows in batches:
            ts, _ = step(ts, x[rows], y[rows])
        found = measure(ts.params, x, y)
        sums = found if sums is None else jax.tree.map(jnp.add, sums, found)
        print(f"after epoch {epoch} of {EPOCHS}: mean loss {float(found['loss'].mean()):.3f}", flush=True)
    report(published, spoilt, jax.tree.map(np.asarray, sums))


def report(published, spoilt, sums) -> None:
    wrong = spoilt.y != published.y
    count, guesses = wrong.sum(), sums.pop("guess").argmax(axis=1)
    print(f"{published.name}: {count} of {len(wrong):,} labels were made wrong; a random choice has {wrong.mean():.1%}")
    for name, scores in sums.items():
        precision = precision_at(scores, wrong)
        told = ", ".join(f"{precision[k - 1]:.1%} of the first {k}" for k in (count // 10, count, 2 * count))
        print(f"wrong labels, ranked by {name}: {told}")

    names, order = published.classes, np.argsort(-sums["gradient norm"], kind="stable")
    suspects, doubtful = order[:SHOWN], order[~wrong[order]][:SHOWN]
    truths = [f"truth {names[published.y[i]]}" if wrong[i] else "(as published)" for i in suspects]
    captions = [f"label {names[spoilt.y[i]]}\n{truth}" for i, truth in zip(suspects, truths, strict=True)]
    title = f"The {SHOWN} largest gradient norms: {wrong[suspects].sum()} of these labels were changed"
    paths = sys.argv[1:] or ["suspects.png", "doubtful.png"]
    print("written:", plots.save(plots.pictures(published.x[suspects], captions, title=title), paths[0]))

    print("the largest norms of labels as published: the label may be wrong, or the network, or the image unclear")
    for i in doubtful[:8]:
        print(f"  image {i} of the training split: label {names[published.y[i]]}, the network says {names[guesses[i]]}")
    captions = [f"label {names[published.y[i]]}\nnetwork {names[guesses[i]]}" for i in doubtful]
    title = f"The {SHOWN} largest gradient norms of labels as published: doubtful, or only hard for this network"
    print("written:", plots.save(plots.pictures(published.x[doubtful], captions, title=title), paths[1]))


if __name__ == "__main__":
    main()

"""Training on clipped and noisy gradients, as in DP-SGD, WITHOUT a privacy guarantee.

python examples/clipped_training.py
"""

import jax

from jaxnn import backprop, data, losses, metrics, models, optim, per_example, train

BOUND, NOISE, BATCH, EPOCHS = 1.0, 0.5, 64, 20


def main() -> None:
    digits = jax.device_put(data.load("digits"))
    net, opt = models.mlp([64, 128, 10]), optim.sgd(0.1, momentum=0.9)
    record = backprop.record(net, losses.softmax_cross_entropy)

    def clipped(params, state, x, y, *, key, weights=None):
        """Replaces backprop.value_and_grad(..): grads = (sum_i min(1, C / |g_i|) g_i + noise) / N, from one tape."""
        tape = record(params, state, x, y)
        total, norms = per_example.clipped_grad(tape, BOUND)
        leaves, structure = jax.tree.flatten(total)
        keys = jax.random.split(key, len(leaves))
        noisy = [g + NOISE * BOUND * jax.random.normal(k, g.shape) for g, k in zip(leaves, keys, strict=True)]
        return (tape.losses.mean(), state), jax.tree.unflatten(structure, [g / len(norms) for g in noisy])

    evaluate = train.make_evaluate(net, {"error": metrics.error_rate})
    plain = backprop.value_and_grad(net, losses.softmax_cross_entropy)
    for name, vg in {"plain": plain, "clipped and noisy": clipped}.items():
        epoch = train.make_epoch(vg, opt, batch_size=BATCH)
        ts = train.init(net, opt, jax.random.key(0), (8, 8, 1))
        for key in jax.random.split(jax.random.key(1), EPOCHS):
            ts, report = epoch(ts, digits.train.x, digits.train.y, key)
        error = evaluate(ts.params, ts.state, digits.validation.x, digits.validation.y)["error"]
        print(f"{name}: training loss {float(report['loss'].mean()):.3f}, validation error {float(error):.1%}")


if __name__ == "__main__":
    main()

"""Ten optimizers of jaxnn and of optax, side by side on the embedded digits: equal up to rounding.

python examples/compare_optimizers.py [picture.png]
"""

import sys

import jax
import jax.numpy as jnp
import optax

from jaxnn import data, losses, models, optim, plots, train, tree

RULES = {
    "sgd": {"learning_rate": 0.1},
    "sgd, Nesterov": {"learning_rate": 0.03, "momentum": 0.9, "nesterov": True},
    "adagrad": {"learning_rate": 0.03},
    "rmsprop": {"learning_rate": 1e-3},
    "adam": {"learning_rate": 2e-3},
    "adamw": {"learning_rate": 2e-3, "weight_decay": 1e-2},
    "nadam": {"learning_rate": 2e-3},
    "radam": {"learning_rate": 5e-3},
    "lion": {"learning_rate": 3e-4},
    "yogi": {"learning_rate": 5e-3},
}
STEPS, BATCH = 300, 64


def race(name, settings, net, digits):
    """(our losses, optax's losses, norm of the difference of the parameters relative to their norm), each (STEPS,)."""
    factory = name.split(",")[0]
    rules = getattr(optim, factory)(**settings), getattr(optax, factory)(**settings)
    vg = jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
    x, y = jnp.asarray(digits.train.x, jnp.float64), jnp.asarray(digits.train.y)
    params, _ = net.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))

    def step(runs, key):
        batch = jax.random.choice(key, x.shape[0], (BATCH,), replace=False)
        after, values = [], []
        for opt, (params, opt_state) in zip(rules, runs, strict=True):
            (value, _), grads = vg(params, ((),) * len(params), x[batch], y[batch])
            updates, opt_state = opt.update(grads, opt_state, params)
            after.append((optax.apply_updates(params, updates), opt_state))
            values.append(value)
        ours, theirs = after[0][0], after[1][0]
        return tuple(after), (*values, tree.norm(tree.subtract(ours, theirs)) / tree.norm(theirs))

    start = tuple((params, opt.init(params)) for opt in rules)
    return jax.jit(lambda: jax.lax.scan(step, start, jax.random.split(jax.random.key(1), STEPS))[1])()


def main() -> None:
    digits = data.load("digits")
    net = models.mlp([64, 32, 10])
    fig, (left, right) = plots.figure(1, 2, width=6.5, height=4.5)
    with jax.enable_x64(True):
        for i, (name, settings) in enumerate(RULES.items()):
            ours, theirs, difference = race(name, settings, net, digits)
            colour, dashes = plots.COLOURS[i % 8], ("--", ":")[i // 8]
            smooth = jnp.convolve(ours, jnp.ones(10) / 10, "valid"), jnp.convolve(theirs, jnp.ones(10) / 10, "valid")
            left.plot(smooth[0], color=colour, linewidth=3.5, alpha=0.35)
            left.plot(smooth[1], color=colour, linestyle=dashes, linewidth=1.2)
            right.plot(jnp.maximum(difference, 1e-17), color=colour, linestyle=("-", ":")[i // 8], label=name)
            print(f"{name:15} loss {float(ours[-1]):.4f}, parameters differ by {float(difference[-1]):.1e}")
    left.plot([], [], color="grey", linewidth=3.5, alpha=0.35, label="jaxnn")
    left.plot([], [], color="grey", linestyle="--", linewidth=1.2, label="optax")
    left.set(title="Training loss on the digits", ylabel="loss (mean of 10 batches)", yscale="log")
    right.set(
        title="How far the two runs are apart (1e-17: identical)",
        ylabel="|ours - optax| / |optax|, all parameters",
        yscale="log",
    )
    right.set_ylim(1e-17, 1e-13)
    for ax in (left, right):
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9, ncols=2)
    fig.suptitle("Ten optimizer rules, jaxnn and optax, float64")
    print("written:", plots.save(fig, *(sys.argv[1:] or ["compare_optimizers.png"])))


if __name__ == "__main__":
    main()

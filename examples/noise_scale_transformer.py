"""The gradient noise scale of a small character transformer during training, from the tape of the gradient.

python examples/noise_scale_transformer.py [picture.png]
"""

import pydoc_data.topics  # the Python language reference as plain text, in every standard library: 465,000 characters
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, optim, per_example, plots

LAYERS, WIDTH, HEADS, CONTEXT = 2, 64, 4, 64
BATCH, STEPS, EVERY, RATE, WINDOW = 32, 2000, 40, 1e-3, 5


def init(key, letters):
    def matrix(*shape):
        nonlocal key
        key, now = jax.random.split(key)
        return jax.random.normal(now, shape) / np.sqrt(shape[0])

    def layer():
        return {
            "qkv": matrix(WIDTH, 3 * WIDTH), "mix": matrix(WIDTH, WIDTH) / np.sqrt(2 * LAYERS),
            "up": matrix(WIDTH, 4 * WIDTH), "down": matrix(4 * WIDTH, WIDTH) / np.sqrt(2 * LAYERS),
            "before mix": jnp.ones(WIDTH), "before up": jnp.ones(WIDTH), "bias": jnp.zeros(4 * WIDTH),
        }  # fmt: skip

    table = {"letter": 0.02 * jax.random.normal(key, (letters, WIDTH)), "place": 0.02 * matrix(CONTEXT, WIDTH)}
    return table | {"layers": [layer() for _ in range(LAYERS)], "norm": jnp.ones(WIDTH), "out": matrix(WIDTH, letters)}


def normalized(x, scale):
    return scale * (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attention(layer, x):
    q, k, v = jnp.moveaxis((x @ layer["qkv"]).reshape(CONTEXT, 3, HEADS, -1), 1, 0)
    scores = jnp.einsum("ihd,jhd->hij", q, k) / np.sqrt(WIDTH / HEADS)
    past = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))
    shares = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
    return jnp.einsum("hij,jhd->ihd", shares, v).reshape(CONTEXT, WIDTH) @ layer["mix"]


def loss(params, text):
    """Of ONE example, 65 characters: the mean cross-entropy (nats) of the last 64, each predicted from those before."""
    x = params["letter"][text[:-1]] + params["place"]
    for layer in params["layers"]:
        x = x + attention(layer, normalized(x, layer["before mix"]))
        x = x + jax.nn.gelu(normalized(x, layer["before up"]) @ layer["up"] + layer["bias"]) @ layer["down"]
    return losses.softmax_cross_entropy(normalized(x, params["norm"]) @ params["out"], text[1:]).mean()


def main() -> None:
    text = "\n\n".join(pydoc_data.topics.topics.values())
    letters, codes = np.unique(list(text), return_inverse=True)
    codes = jnp.asarray(codes, jnp.int32)
    params, opt, record = init(jax.random.key(0), len(letters)), optim.adam(RATE), per_example.record(loss)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(
        f"{len(text):,} characters, {len(letters)} different ones; {count:,} parameters; batches of {BATCH} sequences"
    )

    def step(carry, key):
        params, opt_state, noise = carry
        starts = jax.random.randint(key, (BATCH, 1), 0, len(codes) - CONTEXT)
        tape = record(params, codes[starts + jnp.arange(CONTEXT + 1)])
        updates, opt_state = opt.update(per_example.mean_grad(tape), opt_state, params)
        return (
            optim.apply_updates(params, updates),
            opt_state,
            per_example.noise_scale(tape, noise),
        ), tape.losses.mean()

    @jax.jit
    def stretch(params, opt_state, keys):
        """One step per key, and the sums of the noise over them: the |G|^2 of one batch is too noisy."""
        (*state, noise), values = jax.lax.scan(step, (params, opt_state, per_example.NoiseScale.zero()), keys)
        return state, (values.mean(), *noise.means)

    state, found = (params, opt.init(params)), []
    for keys in jax.random.split(jax.random.key(1), (STEPS // EVERY, EVERY)):
        state, figures = stretch(*state, keys)
        found.append(np.array(figures))
    report(*np.array(found).T)


def smooth(values):
    """The moving average over WINDOW stretches, fewer at both ends."""
    ones = np.ones(WINDOW)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def report(loss_, trace, sq_norm) -> None:
    steps = EVERY * (np.arange(len(loss_)) + 0.5)  # the middle of each stretch
    scale = smooth(trace) / smooth(sq_norm)  # a ratio of means: the mean of ratios is biased
    print(f"all but the loss averaged over {WINDOW * EVERY} steps around:")
    print("  steps        loss   tr(Sigma)     |G|^2   noise scale in sequences   in characters")
    for i in range(0, len(steps), max(len(steps) // 10, 1)):
        first = i * EVERY
        print(
            f"{first:5}-{first + EVERY:<5}{loss_[i]:8.3f}{smooth(trace)[i]:12.3g}{smooth(sq_norm)[i]:10.3g}"
            f"{scale[i]:16,.0f}{CONTEXT * scale[i]:26,.0f}"
        )
    tenth = max(len(steps) // 10, 1)
    late = trace[-tenth:].sum() / sq_norm[-tenth:].sum()
    early, fall = trace[0] / sq_norm[0], np.max(np.maximum.accumulate(scale) / scale)
    print("McCandlish et al. (2018) found that the noise scale grows as the loss falls in a run of training.")
    print(
        f"Here it is {early:.0f} sequences in the first {EVERY} steps and {late:.0f} in the last {tenth * EVERY}, "
        f"{late / early:.1f} times as many; in between its smoothed curve falls by a factor of up to {fall:.1f}."
    )

    fig, (left, right) = plots.figure(1, 2, width=5.2, height=4.2)
    left.plot(steps, loss_, color=plots.COLOURS[0], linewidth=2, label=f"mean of {EVERY} steps")
    left.set(yscale="log", ylabel="loss (nats per character)", title="Training loss")
    left.set_yticks([1.2, 1.5, 2, 2.5, 3], ["1.2", "1.5", "2", "2.5", "3"])
    raw = np.where(sq_norm > 0, trace / sq_norm, np.nan)
    right.plot(steps, raw, "o", color=plots.COLOURS[5], markersize=4, label=f"{EVERY} steps")
    right.plot(steps, scale, color=plots.COLOURS[1], linewidth=2, label=f"{WINDOW * EVERY} steps")
    right.axhline(BATCH, color="grey", linestyle="--", label=f"the batch size, {BATCH}")
    right.set(
        yscale="log",
        ylabel=f"noise scale (sequences of {CONTEXT} characters)",
        title="Gradient noise scale tr(Σ) / |G|²",
    )
    right.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    for ax in (left, right):
        ax.minorticks_off()
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9)
    fig.suptitle(f"A character transformer of {LAYERS} layers, Adam, batches of {BATCH} sequences", fontsize=12)
    print("written:", plots.save(fig, *(sys.argv[1:] or ["noise_scale_transformer.png"])))


if __name__ == "__main__":
    main()

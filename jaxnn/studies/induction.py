"""Induction heads: how two layers of attention learn to look up what followed a token before."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import data, initializers, layers, models, plots
from jaxnn.checks import require_positive_int
from jaxnn.layers import Layer
from jaxnn.studies.base import rounded, within
from jaxnn.studies.sequences import ACCURACY, NEXT_TOKEN, course, table
from jaxnn.types import Array, Params

HELD_OUT = 256
"""Examples of which the loss is measured."""

MEASURED = 64
"""Examples of which the heads are measured."""

DASHES = ("-", "--", ":", "-.")


class Induction(NamedTuple):
    """The result of `run`.

    Attributes:
        tokens: (T,), one example.
        maps: (2, H, T, T), the attention of each layer and head on it after training.
        matching: (epochs + 1, 2, H), the prefix-matching score of each head, before training and after each epoch.
        previous: (epochs + 1, 2, H), the mean attention to the previous token.
        losses: (2, epochs), of the network of one layer and of two after each epoch, in nats per target.
        accuracies: (2, epochs).
        steps: of one epoch.
    """

    tokens: np.ndarray
    maps: np.ndarray
    matching: np.ndarray
    previous: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray
    steps: int

    def numbers(self) -> dict[str, Any]:
        """For JSON: losses and accuracies of both networks, the scores of each head of the one with two layers."""
        return {
            "one_layer": {"losses": rounded(self.losses[0]), "accuracies": rounded(self.accuracies[0])},
            "two_layers": {"losses": rounded(self.losses[1]), "accuracies": rounded(self.accuracies[1])},
            "prefix_matching": rounded(self.matching),
            "previous_token": rounded(self.previous),
            "steps_of_an_epoch": self.steps,
        }

    def describe(self) -> str:
        """The result as a table."""
        both = (self.previous, self.matching)
        rows = [
            [f"layer {i + 1}, head {h + 1}", *(f"{score[e, i, h]:.2f}" for score in both for e in (0, -1))]
            for i in range(2)
            for h in range(self.maps.shape[1])
        ]
        head = ["", "previous token: before", "after training", "prefix matching: before", "after training"]
        one, two = (
            f"{accuracy[-1]:.1%} (loss {loss[-1]:.3f})"
            for accuracy, loss in zip(self.accuracies, self.losses, strict=True)
        )
        return (
            f"repeated tokens predicted after {self.losses.shape[1] * self.steps:,} steps: {one} by one layer of "
            f"attention, {two} by two\n{table(head, rows)}"
        )


def run(
    *,
    symbols: int = 32,
    length: int = 16,
    width: int = 64,
    heads: int = 4,
    learning_rate: float = 3e-3,
    seed: int = 0,
    epochs: int = 30,
    steps: int = 10,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Induction:
    """Train networks of one and of two layers of attention on `data.tasks.induction`; follow each head of the second.

    The networks have no MLP: embedding, x + attention(norm(x)) in each layer, norm, a linear layer. Of a head with
    attention p_ts, averaged over examples and the positions t of the second half:

    - prefix matching: the sum of p_ts over the positions s that follow an earlier occurrence of the token at t. An
      induction head has 1.
    - previous token: p_ts at s = t - 1. What the induction heads of the next layer read from: a key that tells which
      token stood before.

    Args:
        symbols, length: of the task: vocabulary, and longest period of the repeated sequence, T = 2 length.
        width: features of a position.
        heads: of each layer.
        learning_rate: of Adam on gradients clipped to norm 1.
        seed: of parameters and examples.
        epochs, steps: of training; each epoch has `steps` batches.
        batch_size: examples per step.
        folder: where training is saved after each epoch: called again with the same arguments, the study goes on there.
            None saves nothing.

    References:
        Elhage, N. et al. (2021). A mathematical framework for transformer circuits.
        Olsson, C. et al. (2022). In-context learning and induction heads (prefix matching; the loss falls as the heads
        form).

    Example:
        >>> run(symbols=6, length=4, width=8, heads=2, epochs=1, steps=2, batch_size=2).matching.shape
        (2, 2, 2)
    """
    task = data.tasks.induction(symbols, length, steps=require_positive_int("induction", "steps", steps))
    require_positive_int("induction", "epochs", epochs)
    x = task.batch(jax.random.fold_in(jax.random.key(seed), 0), MEASURED)[0]
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed, "epochs": epochs, "batch_size": batch_size}
    how |= {"held_out": HELD_OUT, "metrics": {"accuracy": ACCURACY}}
    one, two = (network(symbols, width, heads, depth) for depth in (1, 2))
    attended = jax.jit(lambda params: scores(attention_maps(two, params, x), x))

    def measured(params: Params) -> list[Any]:  # (2, depth, H)
        return np.asarray(attended(params)).tolist()

    with course(one, task, NEXT_TOKEN, folder=within(folder, "one"), **how) as first:
        collections.deque(first, maxlen=0)
    with course(two, task, NEXT_TOKEN, folder=within(folder, "two"), **how) as second:
        found = second.extra.setdefault("scores", [])  # saved with the epochs
        if len(found) == len(second.history):  # before training, or where an interruption came before the measure
            found.append(measured(second.ts.params))
        for _, ts in second:
            found.append(measured(ts.params))
    matching, previous = np.moveaxis(np.asarray(found, np.float32), 1, 0)
    losses, accuracies = (
        np.array([[record[name] for record in run.history] for run in (first, second)])
        for name in ("validation_loss", "validation_accuracy")
    )
    maps = np.asarray(jax.jit(lambda params: attention_maps(two, params, x[:1]))(second.ts.params))[:, 0]
    return Induction(np.asarray(x[0]), maps, matching, previous, losses, accuracies, steps)


def network(symbols: int, width: int, heads: int, depth: int) -> Layer:
    """A transformer without MLPs, (N, T) tokens -> (N, T, V) logits.

    Example:
        >>> [part.kind.name for part in network(8, 16, 2, 1).parts]
        ['embedding', 'residual', 'rms_norm', 'dense']
    """
    norm = layers.RMSNorm()
    attention = layers.Attention(heads, causal=True, rotary=10_000.0, qk_norm=True)
    # The plateau before heads form is shorter if tokens differ from the start: embeddings of norm sqrt(D).
    embed = layers.Embedding(symbols, width, w_init=initializers.normal(1.0))
    return models.serial(embed, *[models.residual(norm, attention)] * depth, norm, layers.Dense(symbols))


def attention_maps(net: Layer, params: Params, tokens: Array) -> Array:
    """(depth, N, H, T, T), the attention probabilities of each layer of a `network`.

    Example:
        >>> net = network(5, 8, 2, depth=1)
        >>> params, _ = net.init(jax.random.key(0), jax.ShapeDtypeStruct((3,), jnp.int32))
        >>> attention_maps(net, params, jnp.zeros((1, 3), jnp.int32)).shape
        (1, 1, 2, 3, 3)
    """
    found, x = [], tokens
    for part, p in zip(net.parts[:-2], params[:-2], strict=True):
        if part.kind.name == "residual":
            (norm, attention), (of_norm, of_attention) = part.parts[0].parts, p[0]
            settings = dataclasses.asdict(attention.options["settings"])
            found.append(layers.attention.probabilities(of_attention, norm.predict(of_norm, (), x), **settings))
        x = part.predict(p, (), x)
    return jnp.stack(found)


def prefixes(tokens: Array) -> Array:
    """(N, T, T) bools: at [n, t, s] whether position s follows an earlier occurrence of the token at t, x_(s-1) = x_t.

    Example:
        >>> prefixes(jnp.array([[7, 5, 7]])).astype(int)
        Array([[[0, 0, 0],
                [0, 0, 0],
                [0, 1, 0]]], dtype=int32)
    """
    t, s = (jax.lax.broadcasted_iota(jnp.int32, (tokens.shape[1],) * 2, axis) for axis in (0, 1))
    same = tokens[:, :, None] == jnp.roll(tokens, 1, axis=1)[:, None]
    return same & ((s >= 1) & (s <= t))[None]


def scores(maps: Array, tokens: Array) -> tuple[Array, Array]:
    """Prefix matching and attention to the previous token, each (depth, H), in the second half.

    Args:
        maps: (depth, N, H, T, T).
        tokens: (N, T).

    Example:
        >>> tokens = jnp.array([[0, 1, 0, 1]])
        >>> [found.item() for found in scores(jnp.full((1, 1, 1, 4, 4), 0.25), tokens)]
        [0.25, 0.25]
    """
    length = tokens.shape[1]
    before = jnp.broadcast_to(jnp.eye(length, k=-1, dtype=bool)[None], (len(tokens), length, length))

    def mean(chosen: Array) -> Array:
        late, where = maps[:, :, :, length // 2 :], chosen[None, :, None, length // 2 :]
        return jnp.mean(jnp.sum(jnp.where(where, late, jnp.zeros((), late.dtype)), axis=4), axis=(1, 3))

    return mean(prefixes(tokens)), mean(before)


def draw(found: Induction) -> dict[str, Figure]:
    """The losses and the scores of the heads during training; the attention of the trained heads on one example.

    Example:
        >>> once = np.ones((2, 2, 1))
        >>> sorted(draw(Induction(np.arange(4), np.ones((2, 1, 4, 4)), once, once, once[0], once[0], 10)))
        ['induction', 'induction-heads']
    """
    return {"induction": _curves(found), "induction-heads": _heads(found)}


def _curves(found: Induction) -> Figure:
    fig, (left, middle, right) = plots.figure(1, 3, width=4.6, height=4.2)
    after = found.steps * np.arange(1, found.losses.shape[1] + 1)
    for values, name, colour, line in zip(found.losses, ("one layer", "two layers"), "kk", DASHES, strict=False):
        left.plot(after, values, color=colour, linestyle=line, linewidth=2, label=name)
    left.set_ylabel("loss (nats per repeated token, held-out)", fontsize=11)
    left.set_title("predicting the repetition", fontsize=11)
    left.set_ylim(bottom=0)
    steps = found.steps * np.arange(len(found.matching))
    for ax, values, title in (
        (middle, found.previous, "attention to the previous token"),
        (right, found.matching, "prefix matching"),
    ):
        for i in range(2):
            for h in range(values.shape[2]):
                look = {"color": plots.COLOURS[i], "linestyle": DASHES[h % len(DASHES)], "linewidth": 1.8}
                ax.plot(steps, values[:, i, h], label=f"layer {i + 1}, head {h + 1}", **look)
        ax.set_ylim(0, 1)
        ax.set_ylabel("attention probability (mean)", fontsize=11)
        ax.set_title(title, fontsize=11)
    for ax in (left, middle, right):
        ax.set_xlabel("optimizer steps", fontsize=11)
        ax.grid(alpha=0.3)
    left.legend(fontsize=9)
    handles, names = right.get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(names) // 2, fontsize=9, frameon=False)
    fig.suptitle(
        "Attention alone on a random sequence that repeats: the loss, and what the heads of two layers attend to",
        fontsize=12,
    )
    return fig


def _heads(found: Induction) -> Figure:
    depth, heads, length, _ = found.maps.shape
    fig, axes = plots.figure(depth, heads, width=3.0, height=3.1, squeeze=False)
    t, s = np.nonzero(np.asarray(prefixes(jnp.asarray(found.tokens)[None]))[0])
    t, s = t[t >= length // 2], s[t >= length // 2]
    for i in range(depth):
        for h in range(heads):
            ax = axes[i, h]
            image = ax.imshow(found.maps[i, h], cmap="gray_r", vmin=0, vmax=1)
            ax.scatter(s, t, s=26, marker="s", facecolors="none", edgecolors=plots.COLOURS[1], linewidths=0.8)
            told = f"previous {found.previous[-1, i, h]:.2f}, prefix {found.matching[-1, i, h]:.2f}"
            ax.set_title(f"layer {i + 1}, head {h + 1}: {told}", fontsize=8)
            if i == depth - 1:
                ax.set_xlabel("key position s", fontsize=10)
            if h == 0:
                ax.set_ylabel("query position t", fontsize=10)
    fig.colorbar(image, ax=axes, label="attention probability", shrink=0.7)
    fig.suptitle(
        "Attention of the trained heads on one example; squares: after an earlier occurrence of the token",
        fontsize=12,
    )
    return fig

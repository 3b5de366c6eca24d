"""Alignment of per-example gradients: their cosines, by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxnn import backprop, optim, per_example, plots
from jaxnn.checks import require_positive_int
from jaxnn.data import Dataset, Splits, select
from jaxnn.layers import Layer
from jaxnn.studies.base import LOSS, network, rounded, states, training_set


class Gram(NamedTuple):
    """The result of `run`.

    Attributes:
        classes: the K names.
        labels: (n,), the classes of the n examples, sorted.
        gram: (n, n), <g_i, g_j>, g_i the gradient of example i's loss.
        cosines: (n, n), <g_i, g_j> / (|g_i| |g_j|), 0 where a gradient is 0.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    gram: np.ndarray
    cosines: np.ndarray

    @property
    def by_class(self) -> np.ndarray:
        """(K, K), [a, b] the mean cosine over pairs i != j of examples, i of class a, j of class b; 0 without pairs."""
        member = (self.labels[:, None] == np.arange(len(self.classes))).astype(np.float64)
        others = ~np.eye(len(self.labels), dtype=bool)
        pairs = member.T @ others.astype(np.float64) @ member
        return member.T @ np.where(others, self.cosines, 0.0) @ member / np.maximum(pairs, 1)

    def numbers(self) -> dict[str, Any]:
        """For JSON: `by_class`, and its mean on and off the diagonal (a class without pairs counts as 0)."""
        between = self.by_class[~np.eye(len(self.classes), dtype=bool)]
        return {
            "classes": list(self.classes),
            "mean_cosine": rounded(self.by_class),
            "within_a_class": rounded(np.diag(self.by_class).mean()),
            "between_classes": rounded(between.mean()),
        }

    def describe(self) -> str:
        """The result in words."""
        means, k = self.by_class, len(self.classes)
        off = np.where(np.eye(k, dtype=bool), np.nan, means)
        a, b = (self.classes[i] for i in np.unravel_index(np.nanargmin(off), off.shape))
        c, d = (self.classes[i] for i in np.unravel_index(np.nanargmax(off), off.shape))
        return (
            f"mean cosine of the gradients of two examples: {np.diag(means).mean():+.3f} within a class, "
            f"{np.nanmean(off):+.3f} between classes\n"
            f"lowest: {a} and {b} ({np.nanmin(off):+.3f}); highest: {c} and {d} ({np.nanmax(off):+.3f})"
        )


def run(
    data: str | Splits | Dataset = "digits",
    *,
    per_class: int = 20,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 2,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Gram:
    """The Gram matrix and the cosines of the gradients of some examples of each class, after some training.

    Args:
        data: a name for `data.load`, `Splits` (the training split is used), or a Dataset with examples of every class.
        net, opt, seed, epochs, batch_size: as for `norms.run`.
        per_class: examples per class; fewer where a class has fewer.
        folder: as for `norms.run`.

    Reference: Fort, S., Nowak, P. K., Jastrzebski, S. & Narayanan, S. (2019). Stiffness: a new perspective on
        generalization in neural networks, section 2 (the cosine between two examples' gradients).

    Example:
        >>> from jaxnn import data, models
        >>> few = data.select(data.load("digits").train, slice(0, 64))
        >>> run(few, per_class=2, net=models.linear(10), epochs=0).gram.shape
        (20, 20)
    """
    examples = training_set("gram", data)
    require_positive_int("gram", "per_class", per_class)
    labels = np.asarray(examples.y)
    rows = np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in range(len(examples.classes))])
    few = select(examples, rows)
    net = network(net, examples)
    *_, ts = states(
        net, examples, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder
    )
    tape = jax.jit(backprop.record(net, LOSS))(ts.params, ts.state, few.x, few.y)
    products, cosines = jax.jit(lambda t: (per_example.gram(t), per_example.cosine(t)))(tape)
    return Gram(examples.classes, labels[rows], np.asarray(products), np.asarray(cosines))


def draw(found: Gram) -> dict[str, Figure]:
    """The cosines of all pairs, sorted by class, and their means.

    Example:
        >>> sorted(draw(Gram(("a", "b"), np.array([0, 0, 1]), np.eye(3), np.eye(3))))
        ['gram']
    """
    names, k = found.classes, len(found.classes)
    fig, (left, right) = plots.figure(1, 2, width=5.8, height=5.2)
    left.imshow(found.cosines, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    edges = np.searchsorted(found.labels, np.arange(k + 1)) - 0.5
    for edge in edges[1:-1]:
        left.axhline(edge, color="grey", linewidth=0.5)
        left.axvline(edge, color="grey", linewidth=0.5)
    middles = (edges[1:] + edges[:-1]) / 2
    left.set_title(f"{len(found.labels)} examples, sorted by class", fontsize=11)
    means = found.by_class
    image = right.imshow(means, cmap="PuOr_r", vmin=-1, vmax=1)
    for i in range(k):
        for j in range(k):
            colour = "white" if abs(means[i, j]) > 0.6 else "black"
            right.text(j, i, f"{round(means[i, j], 2) + 0.0:.2f}", ha="center", va="center", fontsize=8, color=colour)
    right.set_title("mean over pairs of different examples", fontsize=11)
    slanted = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}
    for ax, ticks in ((left, middles), (right, np.arange(k))):
        ax.set_xticks(ticks, names, **slanted)
        ax.set_yticks(ticks, names)
        ax.set_xlabel("class", fontsize=11)
        ax.set_ylabel("class", fontsize=11)
    fig.colorbar(image, ax=[left, right], label="cosine of two examples' gradients", shrink=0.8)
    fig.suptitle("Alignment of per-example gradients", fontsize=12)
    return {"gram": fig}

"""The examples with the largest gradient norms after some training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxnn import optim, plots
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Layer
from jaxnn.studies.base import make_measure, network, rank_correlation, ranked, rounded, states, training_set

WRITTEN = 40
"""Number of hardest examples in the figure and in JSON."""


class Hardest(NamedTuple):
    """The result of `run`.

    Attributes:
        examples: the N training examples.
        order: (N,), their indices by descending gradient norm.
        norms, losses: (N,), |g_i| and loss of example i, in the order of `examples`.
        guesses: (N,), the predicted classes, in the same order.
    """

    examples: Dataset
    order: np.ndarray
    norms: np.ndarray
    losses: np.ndarray
    guesses: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(N,), whether the prediction differs from the label."""
        return self.guesses != np.asarray(self.examples.y)

    def numbers(self) -> dict[str, Any]:
        """For JSON: the hardest examples, and the relation of the ranking to mistakes and losses."""
        top = self.order[:WRITTEN]
        return {
            "hardest": top.tolist(),
            "norms": rounded(self.norms[top]),
            "losses": rounded(self.losses[top]),
            "labels": np.asarray(self.examples.y)[top].tolist(),
            "guesses": self.guesses[top].tolist(),
            "median_norm": rounded(np.median(self.norms)),
            "training_errors": int(self.wrong.sum()),
            "errors_among_hardest": int(self.wrong[top].sum()),
            "rank_correlation_with_loss": rounded(self.rank_correlation()),
        }

    def rank_correlation(self) -> float:
        """Spearman's rank correlation of norm and loss, in [-1, 1]; ties are ranked in the order of the examples."""
        return rank_correlation(self.norms, self.losses)

    def describe(self) -> str:
        """The result in words."""
        top = self.order[:WRITTEN]
        return (
            f"gradient norms: median {np.median(self.norms):.3g}, of the {len(top)} hardest "
            f"{self.norms[top].min():.3g} to {self.norms[top].max():.3g}\n"
            f"the network misclassifies {self.wrong[top].sum()} of these {len(top)}, "
            f"and {self.wrong.sum()} of all {len(self.norms):,}\n"
            f"rank correlation of gradient norm and loss: {self.rank_correlation():.3f}"
        )


def run(
    data: str | Splits | Dataset = "digits",
    *,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 10,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Hardest:
    """The training examples ranked by |g_i|, the gradient norm of example i's loss, after some epochs of training.

    Args:
        data, net, opt, seed: as for `norms.run`.
        epochs, batch_size: of training.
        folder: as for `norms.run`.

    Reference: Paul, M., Ganguli, S. & Dziugaite, G. K. (2021). Deep learning on a data diet: finding important examples
        early in training, section 2 (the GraNd score).

    Example:
        >>> from jaxnn import data, models
        >>> few = data.select(data.load("digits").train, slice(0, 64))
        >>> found = run(few, net=models.linear(10), epochs=1)
        >>> bool(found.norms[found.order[0]] == found.norms.max())
        True
    """
    examples = training_set("hardest", data)
    net = network(net, examples)
    measure = make_measure(net)
    *_, last = states(
        net, examples, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder
    )
    found = measure(last, examples)
    return Hardest(examples, ranked(found.norms), found.norms, found.losses, found.outputs.argmax(axis=1))


def draw(found: Hardest) -> dict[str, Figure]:
    """The images of the hardest examples with label, prediction and gradient norm.

    Example:
        >>> from jaxnn import data
        >>> few = data.select(data.load("digits").train, slice(0, 2))
        >>> ones = np.ones(2)
        >>> sorted(draw(Hardest(few, np.arange(2), ones, ones, few.y)))
        ['hardest']
    """
    examples = found.examples
    names, labels = examples.classes, np.asarray(examples.y)
    top = found.order[:WRITTEN]
    captions = [f"label {names[labels[i]]}\nguess {names[found.guesses[i]]}\nnorm {found.norms[i]:#.3g}" for i in top]
    title = f"The {len(top)} hardest of {len(labels):,} training examples, by gradient norm"
    title += f" (the median is {np.median(found.norms):.2g})"
    return {"hardest": plots.pictures([examples.x[i] for i in top], captions, title=title)}

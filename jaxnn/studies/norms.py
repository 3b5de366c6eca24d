"""Per-example gradient norms during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnn import optim, plots
from jaxnn.checks import count_of
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Layer
from jaxnn.studies.base import make_measure, network, rounded, states, training_set

QUANTILES = (0.1, 0.5, 0.9, 0.99)
"""Quantiles of the norms in the figure and in JSON."""


LEAST = 1e-8
"""The lower limit of the figure: |p - 1|, the gradient in the label's logit, is at least 6e-8 in float32, or 0."""


class Norms(NamedTuple):
    """The result of `run`.

    Attributes:
        norms, losses: (epochs + 1, N), |g_i| and loss of each example before training and after each epoch.
    """

    norms: np.ndarray
    losses: np.ndarray

    def share(self, fraction: float) -> np.ndarray:
        """(epochs + 1,), the part of sum_i |g_i| due to the largest round(fraction N) norms (at least one)."""
        ordered = -np.sort(-self.norms, axis=1)
        most = max(round(fraction * ordered.shape[1]), 1)
        return ordered[:, :most].sum(axis=1) / ordered.sum(axis=1)

    def numbers(self) -> dict[str, Any]:
        """For JSON: by epoch the quantiles, the mean loss, the share of the largest tenth."""
        quantiles = np.quantile(self.norms, QUANTILES, axis=1)
        return {
            "quantiles": {f"{q:g}": rounded(values) for q, values in zip(QUANTILES, quantiles, strict=True)},
            "mean_loss": rounded(self.losses.mean(axis=1)),
            "share_of_longest_tenth": rounded(self.share(0.1)),
        }

    def describe(self) -> str:
        """The result in words."""
        median = np.median(self.norms, axis=1)
        share = self.share(0.1)
        return (
            f"median gradient norm: {median[0]:.3g} before training, {median[-1]:.3g} after "
            f"{count_of(len(median) - 1, 'epoch')}\n"
            f"the largest tenth of the norms makes up {share[0]:.0%} of their sum before training, "
            f"{share[-1]:.0%} after"
        )


def run(
    data: str | Splits | Dataset = "digits",
    *,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 30,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Norms:
    """|g_i|, g_i the gradient of example i's softmax cross-entropy, before training and after each epoch.

    Tapes have at most 2000 examples, which bounds the memory.

    Args:
        data: a name for `data.load`, `Splits` (the training split is used), or a Dataset, with class names.
        net: a classifier that outputs logits (N, K); None for an MLP with 128 hidden units.
        opt: None for `optim.adam(3e-3)`.
        seed: of initial parameters, order and dropout.
        epochs: of training, >= 0.
        batch_size: 1 .. N; each epoch omits N % batch_size examples, chosen at random.
        folder: where training is saved after each epoch: called again with the same arguments, the study goes on there.
            None saves nothing.

    Raises:
        ValueError: training examples without class names, a batch size above N, or training diverged.

    Reference: Katharopoulos, A. & Fleuret, F. (2018). Not all samples are created equal: deep learning with importance
        sampling (most of the computation is spent on examples that could be ignored).

    Example:
        >>> from jaxnn import data, models
        >>> few = data.select(data.load("digits").train, slice(0, 64))
        >>> run(few, net=models.linear(10), epochs=1).norms.shape
        (2, 64)
    """
    examples = training_set("norms", data)
    net = network(net, examples)
    measure = make_measure(net)
    run_ = states(
        net, examples, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder
    )
    found = [measure(ts, examples) for ts in run_]
    return Norms(np.stack([m.norms for m in found]), np.stack([m.losses for m in found]))


def draw(found: Norms) -> dict[str, Figure]:
    """Histograms of the norms at some epochs, and their quantiles at all.

    Example:
        >>> sorted(draw(Norms(np.ones((3, 10)), np.ones((3, 10)))))
        ['norms']
    """
    fig, (left, right) = plots.figure(1, 2, width=5.6, height=4.2)
    last = len(found.norms) - 1
    shown = sorted({round(last ** (i / 4)) for i in range(1, 5)} | {0, min(1, last)})
    floor = max(float(np.quantile(found.norms, 0.001)), LEAST)
    top = max(float(found.norms.max()), 2 * floor)
    bins = np.geomspace(floor, top, 50)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(shown)))
    for epoch, colour in zip(shown, colours, strict=True):
        values = np.clip(found.norms[epoch], floor, top)
        share = np.full(len(values), 100 / len(values))
        label = f"after {epoch} epoch{'s' * (epoch != 1)}" if epoch else "before training"
        left.hist(values, bins, weights=share, histtype="stepfilled", color=colour, alpha=0.15)
        left.hist(values, bins, weights=share, histtype="step", color=colour, linewidth=1.8, label=label)
    left.set_xscale("log")
    shorter = f" (below {floor:.1g}: in the first bin)" if found.norms.min() < floor else ""
    left.set_xlabel(f"gradient norm of an example{shorter}", fontsize=11)
    left.set_ylabel("training examples (% per bin)", fontsize=11)
    left.legend(fontsize=9, loc="upper left")
    quantiles = np.quantile(found.norms, QUANTILES, axis=1)
    for q, values, colour in reversed(list(zip(QUANTILES, quantiles, plots.COLOURS, strict=False))):
        right.plot(values, color=colour, linewidth=2, label="median" if q == 0.5 else f"{100 * q:g}% are below")
    right.set_yscale("log")
    right.set_ylim(bottom=max(float(quantiles.min()) / 1.3, LEAST))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("epoch", fontsize=11)
    right.set_ylabel("gradient norm of an example", fontsize=11)
    right.legend(fontsize=9)
    for ax in (left, right):
        ax.grid(alpha=0.3)
    fig.suptitle(f"Per-example gradient norms of {found.norms.shape[1]:,} examples during training", fontsize=12)
    return {"norms": fig}

"""Detection of wrong labels by per-example gradient norms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxnn import optim, plots
from jaxnn.checks import count_of, require_between
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Layer
from jaxnn.studies.base import make_measure, network, ranked, rounded, states, training_set

SHOWN = 24
"""Number of suspects in the figure."""


class Mislabeled(NamedTuple):
    """The result of `run`.

    Attributes:
        examples: the N training examples with the labels used in training, some of them wrong.
        truth: (N,), the correct labels.
        norms, losses: (epochs + 1, N), |g_i| and loss of each example before training and after each epoch.
    """

    examples: Dataset
    truth: np.ndarray
    norms: np.ndarray
    losses: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(N,), whether the label is wrong."""
        return np.asarray(self.examples.y) != self.truth

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores (N,) by norm and by loss, averaged over all epochs, without the initial state."""
        return {"gradient norm": self.norms[1:].mean(axis=0), "loss": self.losses[1:].mean(axis=0)}

    def precision(self, scores: np.ndarray) -> float:
        """The fraction of wrong labels among the W highest scores, W the number of wrong labels; equals the recall."""
        return float(precision_at(scores, self.wrong)[self.wrong.sum() - 1])

    def by_epoch(self) -> dict[str, list[float]]:
        """The precision by the norms and by the losses before training and after each single epoch."""
        each = {"gradient norm": self.norms, "loss": self.losses}
        return {name: [self.precision(scores) for scores in values] for name, values in each.items()}

    def numbers(self) -> dict[str, Any]:
        """For JSON: the precisions, at the number of wrong labels and at other k, and by epoch."""
        count = int(self.wrong.sum())
        depths = [max(count // 4, 1), max(count // 2, 1), count, min(2 * count, len(self.wrong))]
        return {
            "examples": len(self.wrong),
            "wrong": count,
            "base_rate": rounded(count / len(self.wrong)),
            "precision": {name: rounded(self.precision(scores)) for name, scores in self.scores.items()},
            "precision_at": {
                name: {str(k): rounded(precision_at(scores, self.wrong)[k - 1]) for k in depths}
                for name, scores in self.scores.items()
            },
            "precision_by_epoch": {name: rounded(values) for name, values in self.by_epoch().items()},
        }

    def describe(self) -> str:
        """The result in words."""
        count = int(self.wrong.sum())
        made = f"{count_of(len(self.wrong), 'label')} {'was' if count == 1 else 'were'} made wrong"
        lines = [f"{count} of {made} ({count / len(self.wrong):.1%})"]
        by_epoch = self.by_epoch()
        for name, scores in self.scores.items():
            each = by_epoch[name]
            best = int(np.argmax(each))
            lines.append(
                f"precision of the top {count} by {name}: {self.precision(scores):.1%} (mean over epochs); "
                f"by a single epoch {each[best]:.1%} at best (epoch {best}), {each[-1]:.1%} after the last"
            )
        return "\n".join(lines)


def run(
    data: str | Splits | Dataset = "digits",
    *,
    fraction: float = 0.05,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 15,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Mislabeled:
    """Make some labels wrong, train on them, and detect them by their gradient norms.

    A network first learns what many examples have in common. Meanwhile the gradient of a wrong label opposes the others
    and stays large, until the network memorizes the label; so the scores are averages over the epochs.

    Args:
        data, net, opt, batch_size: as for `norms.run`.
        fraction: of wrong labels, in (0, 1); each becomes one of the other classes at random.
        seed: of the wrong labels, of initial parameters and order.
        epochs: of training, at least 1.
        folder: as for `norms.run`.

    Raises:
        ValueError: the fraction is outside (0, 1) or makes no label wrong, or epochs is below 1.

    Reference: Paul, M., Ganguli, S. & Dziugaite, G. K. (2021). Deep learning on a data diet: finding important examples
        early in training, section 2 (the GraNd score is the expected gradient norm). Arpit, D. et al. (2017). A closer
        look at memorization in deep networks (simple patterns are learned first).

    Example:
        >>> from jaxnn import data, models
        >>> few = data.select(data.load("digits").train, slice(0, 64))
        >>> run(few, net=models.linear(10), epochs=1).wrong.sum()
        np.int64(3)
    """
    examples = training_set("mislabeled", data)
    if epochs < 1:
        raise ValueError(f"mislabeled: epochs must be at least 1, got {epochs}.")
    spoilt = with_wrong_labels(examples, fraction, seed)
    net = network(net, examples)
    measure = make_measure(net)
    run_ = states(net, spoilt, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder)
    found = [measure(ts, spoilt) for ts in run_]
    truth = np.asarray(examples.y)
    return Mislabeled(spoilt, truth, np.stack([m.norms for m in found]), np.stack([m.losses for m in found]))


def with_wrong_labels(examples: Dataset, fraction: float, seed: int) -> Dataset:
    """The N examples with round(fraction N) labels, drawn at random, each replaced by a random other class.

    Raises:
        ValueError: fraction is outside (0, 1), or too small for one wrong label.

    Example:
        >>> from jaxnn import data
        >>> digits = data.load("digits").train
        >>> int((with_wrong_labels(digits, 0.05, seed=0).y != digits.y).sum())
        63
    """
    require_between("mislabeled", "fraction", fraction, 0, 1, open_high=True)
    labels = np.array(examples.y)
    count = round(fraction * len(labels))
    if count == 0:
        raise ValueError(
            f"mislabeled: a fraction {fraction:g} of {len(labels)} labels rounds to none. Use a larger one."
        )
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), count, replace=False)
    classes = len(examples.classes)
    labels[chosen] = (labels[chosen] + generator.integers(1, classes, count)) % classes
    return dataclasses.replace(examples, y=labels)


def precision_at(scores: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(N,), the fraction of wrong labels among the k highest scores, for k = 1 .. N."""
    return np.cumsum(wrong[ranked(scores)]) / np.arange(1, len(wrong) + 1)


def draw(found: Mislabeled) -> dict[str, Figure]:
    """The precision against k and against the epoch; the images of the suspects.

    Example:
        >>> from jaxnn import data
        >>> few = data.select(data.load("digits").train, slice(0, 10))
        >>> sorted(draw(Mislabeled(with_wrong_labels(few, 0.2, 0), few.y, np.ones((2, 10)), np.ones((2, 10)))))
        ['mislabeled', 'suspects']
    """
    return {"mislabeled": _precisions(found), "suspects": _suspects(found)}


def _precisions(found: Mislabeled) -> Figure:
    fig, (left, right) = plots.figure(1, 2, width=5.6, height=4.2)
    count, n = int(found.wrong.sum()), len(found.wrong)
    most = min(4 * count, n)
    k = np.arange(1, most + 1)
    for (name, scores), colour in zip(found.scores.items(), plots.COLOURS, strict=False):
        curve = 100 * precision_at(scores, found.wrong)[:most]
        left.plot(k, curve, color=colour, linewidth=2, label=f"ranked by {name}")
        right.plot(
            [100 * p for p in found.by_epoch()[name]], color=colour, linewidth=2, marker="o", markersize=4,
            label=f"{name}, single epoch",
        )  # fmt: skip
        right.axhline(100 * found.precision(scores), color=colour, linestyle="--", label=f"{name}, mean over epochs")
    left.plot(k, 100 * np.minimum(1, count / k), color="grey", linestyle=":", label="perfect ranking")
    left.axvline(count, color="grey", linewidth=0.8)
    left.text(count, 12, f"  k = {count}, number of wrong labels", fontsize=9, color="dimgrey")
    left.set_title("Ranked by the mean over the epochs", fontsize=11)
    left.set_xlabel("k, the highest-ranked examples", fontsize=11)
    left.set_ylabel("wrong labels among them (%)", fontsize=11)
    right.set_title(f"Among the {count} most suspect", fontsize=11)
    right.set_xlabel("epoch", fontsize=11)
    right.set_ylabel("wrong labels among them (%)", fontsize=11)
    for ax in (left, right):
        ax.axhline(100 * count / n, color="black", linewidth=1, linestyle="-.", label=f"by chance: {count / n:.1%}")
        ax.set_ylim(0, 104)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9)
    fig.suptitle(f"Finding {count} wrong labels among {n:,} ({found.examples.name})", fontsize=12)
    return fig


def _suspects(found: Mislabeled) -> Figure:
    names, labels = found.examples.classes, np.asarray(found.examples.y)
    top = ranked(found.scores["gradient norm"])[:SHOWN]
    captions = [
        f"label {names[labels[i]]}\n" + (f"truth {names[found.truth[i]]}" if found.wrong[i] else "(as it was)")
        for i in top
    ]
    hits = int(found.wrong[top].sum())
    title = f"The {len(top)} largest scores by gradient norm: {hits} with a wrong label"
    return plots.pictures([found.examples.x[i] for i in top], captions, title=title)

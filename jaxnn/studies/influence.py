"""The influence of training examples on the losses of test examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import backprop, optim, per_example, plots, train, tree
from jaxnn.checks import count_of, require_between, require_positive_int
from jaxnn.data import Dataset, Partial, Splits, batch_indices, select
from jaxnn.layers import Layer
from jaxnn.studies.base import LOSS, followed, make_measure, network, ranked, rounded, splits, within
from jaxnn.train import TrainState
from jaxnn.train.saving.identity import fingerprint, identity
from jaxnn.types import Array, Key, Params

SHOWN = 5
"""Number of helpful, and of harmful, training examples per test example in the figure and in JSON."""


class Influence(NamedTuple):
    """The result of `run`.

    Attributes:
        examples: the N training examples.
        tests: the M test examples.
        guesses: (M,), the classes that the trained network predicts for them.
        drops: (M,), the decrease of their losses in training.
        scores: (N, M), [i, j] the part of drops[j] due to training example i, to first order; negative where it harmed.
    """

    examples: Dataset
    tests: Dataset
    guesses: np.ndarray
    drops: np.ndarray
    scores: np.ndarray

    def helpful(self, test: int) -> np.ndarray:
        """(N,), the indices of the training examples, the most helpful to test example number `test` first."""
        return ranked(self.scores[:, test])

    def same_label(self, most: int = SHOWN) -> tuple[float, float]:
        """(helpful, harmful): how often the most influential training examples share a label with a test example.

        Of the `most` most helpful ones, the fraction with the test example's label, averaged over the test examples. Of
        the `most` most harmful, the fraction with its predicted class, averaged over misclassified ones, NaN if none.
        """
        labels, truths = np.asarray(self.examples.y), np.asarray(self.tests.y)
        helps = [(labels[self.helpful(j)[:most]] == truths[j]).mean() for j in range(len(truths))]
        missed = np.flatnonzero(self.guesses != truths)
        harms = [(labels[self.helpful(j)[::-1][:most]] == self.guesses[j]).mean() for j in missed.tolist()]
        return float(np.mean(helps)), float(np.mean(harms)) if harms else float("nan")

    def numbers(self) -> dict[str, Any]:
        """For JSON: the `SHOWN` most helpful and most harmful training examples of each test example."""
        labels, truths = np.asarray(self.examples.y), np.asarray(self.tests.y)
        rows = []
        for j in range(len(truths)):
            order = self.helpful(j)
            ends = {"helpful": order[:SHOWN], "harmful": order[::-1][:SHOWN]}
            rows.append(
                {"label": int(truths[j]), "guess": int(self.guesses[j]), "fall_of_loss": rounded(self.drops[j]),
                 "sum_of_scores": rounded(self.scores[:, j].sum())}
                | {name: {"examples": i.tolist(), "labels": labels[i].tolist(), "scores": rounded(self.scores[i, j])}
                   for name, i in ends.items()}
            )  # fmt: skip
        return {"tests": rows}

    def describe(self) -> str:
        """The result in words."""
        helps, harms = self.same_label()
        missed = int((self.guesses != np.asarray(self.tests.y)).sum())
        lines = [
            f"{count_of(len(self.drops), 'test example')} of the largest loss, {missed} misclassified",
            f"of the {SHOWN} most helpful training examples of each, {helps:.0%} have the label of the test example",
        ]
        if missed:
            lines.append(f"of the {SHOWN} most harmful to each misclassified one, {harms:.0%} have the predicted label")
        lines.append(
            f"the losses of the {len(self.drops)} fell by {self.drops.sum():.3g} in all; to first order, summed over "
            f"all training examples, by {self.scores.sum():.3g} (they converge for small learning rates)"
        )
        return "\n".join(lines)


def run(
    data: str | Splits = "digits",
    *,
    tests: int = 6,
    net: Layer | None = None,
    learning_rate: float = 0.02,
    seed: int = 0,
    epochs: int = 30,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Influence:
    """The influence of every training example on the test examples with the largest losses after training.

    A step of plain gradient descent on a batch of n examples lowers the loss of test example j, to first order, by

        eta / n sum_{i in batch} <g_i, h_j>,   g_i, h_j gradients of the softmax cross-entropy before the step,

    and the score of a training example is the sum of its terms over all steps. The tape of the batch also yields the
    mean gradient, so that training and influence share its pass; the test examples take another.

    Args:
        data: a name for `data.load`, or splits; the validation set is unused.
        tests: number of test examples, those of the largest loss after training; all if there are fewer.
        net: a classifier that outputs logits (N, K), trained in evaluation mode (dropout is off, running statistics
            are fixed); None for an MLP with 128 hidden units.
        learning_rate: eta of plain stochastic gradient descent; the first-order error shrinks with it.
        seed: of initial parameters and order.
        epochs: at least 1.
        batch_size: n; each epoch omits the remainder, chosen at random.
        folder: as for `norms.run`.

    Raises:
        ValueError: `tests` or `epochs` is below 1, n above the number of examples, the learning rate negative or
            infinite, or training diverged.

    Reference: Pruthi, G., Liu, F., Kale, S. & Sundararajan, M. (2020). Estimating training data influence by tracing
        gradient descent, section 3.

    Example:
        >>> from jaxnn import data, models
        >>> few = data.Splits(*(data.select(part, slice(0, 64)) for part in data.load("digits")))
        >>> run(few, tests=2, net=models.linear(10), epochs=1).scores.shape
        (64, 2)
    """
    parts = splits("influence", data)
    require_positive_int("influence", "tests", tests)
    require_positive_int("influence", "epochs", epochs)
    require_between("influence", "learning_rate", learning_rate, 0, float("inf"), open_high=True)
    net = network(net, parts.train)
    epoch, measure = _make_epoch(net, learning_rate, batch_size), make_measure(net)
    x, y = jnp.asarray(parts.train.x), jnp.asarray(parts.train.y)
    key = jax.random.key(seed)
    start = train.init(net, optim.sgd(learning_rate), jax.random.fold_in(key, 0), x.shape[1:])

    def follow(chosen: Dataset, name: str) -> tuple[TrainState, Array]:
        def advance(at: tuple[TrainState, Array], i: int) -> tuple[TrainState, Array]:
            return epoch(*at, x, y, chosen.x, chosen.y, jax.random.fold_in(key, i))

        others = {"learning rate": learning_rate, "tests": fingerprint((chosen.x, chosen.y))}
        known = identity(net, LOSS, None, (x, y), key, batch_size=batch_size, partial=Partial.DROP, others=others)
        zero = jnp.zeros((len(x), len(chosen)))
        *_, last = followed(advance, (start, zero), epochs, within(folder, name), known)
        return last

    # The worst test examples are known only after training; the second run repeats the first exactly.
    trained, _ = follow(select(parts.test, slice(0, tests)), "training")
    before, after = measure(start, parts.test), measure(trained, parts.test)
    if not np.isfinite(after.losses).all():
        raise ValueError("influence: training diverged. Use a smaller learning rate.")
    worst = ranked(after.losses)[:tests]
    chosen = select(parts.test, worst)
    scores = np.asarray(follow(chosen, "scores")[1])
    drops = (before.losses - after.losses)[worst]
    return Influence(parts.train, chosen, after.outputs[worst].argmax(axis=1), drops, scores)


def _make_epoch(net: Layer, learning_rate: float, batch_size: int) -> Callable[..., tuple[TrainState, Array]]:
    """One compiled epoch of gradient descent that also accumulates the scores of the training examples."""
    record = backprop.record(net, LOSS)

    @jax.jit
    def epoch(
        ts: TrainState, scores: Array, x: Array, y: Array, test_x: Array, test_y: Array, key: Key
    ) -> tuple[TrainState, Array]:
        def step(carry: tuple[Params, Array], rows: Array) -> tuple[tuple[Params, Array], None]:
            params, scores = carry
            tape = record(params, ts.state, x[rows], y[rows])
            tests = record(params, ts.state, test_x, test_y)
            credit = learning_rate / batch_size * per_example.gram(tape, tests)
            updates = tree.scale(-learning_rate, per_example.mean_grad(tape))
            return (optim.apply_updates(params, updates), scores.at[rows].add(credit)), None

        rows, _ = batch_indices(key, len(x), batch_size, partial=Partial.DROP)
        (params, scores), _ = jax.lax.scan(step, (ts.params, scores), rows)
        return ts._replace(params=params), scores

    return epoch


def draw(found: Influence) -> dict[str, Figure]:
    """Each test example with its most helpful and its most harmful training examples.

    Example:
        >>> from jaxnn import data
        >>> few = data.select(data.load("digits").train, slice(0, 2))
        >>> sorted(draw(Influence(few, few, few.y, np.ones(2), np.eye(2))))
        ['influence']
    """
    names, labels = found.examples.classes, np.asarray(found.examples.y)
    shown = min(SHOWN, len(labels))
    rows = len(found.drops)
    fig, axes = plots.figure(rows, 2 * shown + 1, width=1.15, height=1.7, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for j, row in enumerate(axes):
        plots.show(row[0], found.tests.x[j])
        truth, guess = names[int(found.tests.y[j])], names[found.guesses[j]]
        row[0].set_title(f"test: {truth}\nguess {guess}", fontsize=9, fontweight="bold")
        order = found.helpful(j)
        sides = ((order[:shown], plots.COLOURS[0]), (order[::-1][:shown], plots.COLOURS[1]))
        for start, (indices, colour) in zip((1, 1 + shown), sides, strict=True):
            for ax, i in zip(row[start:], indices, strict=False):
                plots.show(ax, found.examples.x[i])
                ax.set_title(f"label {names[labels[i]]}\n{found.scores[i, j]:+#.2g}", fontsize=9, color=colour)
    fig.suptitle(
        f"Test examples of the largest loss, with the {shown} most helpful (blue) and the {shown} most harmful "
        "(orange) training examples\nnumbers: decrease of the test loss due to the example, to first order",
        fontsize=12,
    )
    return {"influence": fig}

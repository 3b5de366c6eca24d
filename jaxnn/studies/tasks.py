"""Which architecture learns which task: small transformers and recurrent networks on six synthetic tasks."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxnn import data, initializers, layers, losses, models, plots
from jaxnn.checks import count_of, nearest_name, require_positive_int
from jaxnn.data import Draws
from jaxnn.layers import Layer
from jaxnn.plots.bench import line_style
from jaxnn.studies.base import rounded, within
from jaxnn.studies.sequences import ACCURACY, NEXT_TOKEN, course, table

HELD_OUT = 512
"""Examples of which the accuracy is measured."""

VARIANCE = 1 / 6
"""Of the sums of `adding`: the mean squared error of the constant 1."""

TASKS: dict[str, Callable[[int], Draws]] = {
    "copying": lambda steps: data.tasks.copying(8, 5, 10, steps=steps),
    "adding": lambda steps: data.tasks.adding(24, steps=steps),
    "parity": lambda steps: data.tasks.parity(16, steps=steps),
    "induction": lambda steps: data.tasks.induction(16, 8, steps=steps),
    "sorting": lambda steps: data.tasks.sorting(16, 8, steps=steps),
    "dyck": lambda steps: data.tasks.dyck(4, 4, 24, steps=steps),
}
"""The tasks at the sizes of the study, functions of the steps of an epoch."""


def _transformer(width: int) -> list[Layer]:
    norm = layers.RMSNorm()
    attention = layers.Attention(2, causal=True, rotary=10_000.0, qk_norm=True)
    return [*[models.block(attention, models.mlp_of(width), norm=norm)] * 2, norm]


NETWORKS: dict[str, Callable[[int], list[Layer]]] = {
    "transformer": _transformer,
    "LSTM": lambda width: [layers.LSTM(width)] * 2,
    "GRU": lambda width: [layers.GRU(width)] * 2,
    "RNN": lambda width: [layers.RNN(width)] * 2,
    "LinearRecurrence": lambda width: [layers.LinearRecurrence(width)] * 2,
}
"""Two layers each, (N, T, width) -> (N, T, width)."""


class Tasks(NamedTuple):
    """The result of `run`.

    Attributes:
        tasks, networks: K and A names.
        scores: (A, K, epochs), after each epoch the accuracy at the positions with a target; of `adding` the explained
            variance 1 - (mean squared error) / (1/6), which may be negative.
        guesses: (K,), the score of the most frequent label, or of the constant 1.
        parameters: (A, K), their number.
        steps: of one epoch.
    """

    tasks: tuple[str, ...]
    networks: tuple[str, ...]
    scores: np.ndarray
    guesses: np.ndarray
    parameters: np.ndarray
    steps: int

    def numbers(self) -> dict[str, Any]:
        """For JSON: by task the score of a guess, and by network the scores after each epoch."""
        return {
            task: {"guess": rounded(guess)} | dict(zip(self.networks, rounded(of_task), strict=True))
            for task, guess, of_task in zip(self.tasks, self.guesses, self.scores.swapaxes(0, 1), strict=True)
        }

    def describe(self) -> str:
        """The result as a table."""
        rows = [
            [name, *(f"{score:.1%}" for score in scores[:, -1]), f"{min(sizes):,}-{max(sizes):,}"]
            for name, scores, sizes in zip(self.networks, self.scores, self.parameters, strict=True)
        ]
        guess = ["a guess", *(f"{score:.1%}" for score in self.guesses), ""]
        return (
            f"accuracy on held-out examples after {count_of(self.scores.shape[2] * self.steps, 'step')} (adding: "
            f"explained variance)\n{table(['', *self.tasks, 'parameters'], [*rows, guess])}"
        )


def run(
    *,
    tasks: Sequence[str] = tuple(TASKS),
    networks: Sequence[str] = tuple(NETWORKS),
    width: int = 32,
    learning_rate: float = 5e-3,
    seed: int = 0,
    epochs: int = 6,
    steps: int = 100,
    batch_size: int = 32,
    folder: str | Path | None = None,
) -> Tasks:
    """Train each network on each of the tasks of `data.tasks`, all by the same recipe and for as many steps.

    Each network has two layers of one width between an embedding (for numbers, a dense layer) and a dense layer on each
    position (of `adding`, on the last). One run of each pair, short: a low score says that the network did not learn
    the task by this recipe in these steps, not that it cannot.

    Args:
        tasks, networks: names among `TASKS` and `NETWORKS`.
        width: features of a position and units of a layer.
        learning_rate: of Adam on gradients clipped to norm 1.
        seed: of parameters and examples.
        epochs, steps: of training; each epoch has `steps` batches.
        batch_size: examples per step.
        folder: where the runs are saved: called again with the same arguments, the study goes on there. None saves
            nothing.

    Raises:
        ValueError: an unknown name, or none.

    Example:
        >>> run(tasks=["parity"], networks=["RNN"], width=4, epochs=2, steps=1, batch_size=2).scores.shape
        (1, 1, 2)
    """
    _require_names("tasks", tasks, TASKS)
    _require_names("networks", networks, NETWORKS)
    require_positive_int("tasks", "epochs", epochs)
    require_positive_int("tasks", "steps", steps)
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed, "epochs": epochs, "batch_size": batch_size}
    how["held_out"] = HELD_OUT
    scores, sizes = np.zeros((len(networks), len(tasks), epochs)), np.zeros((len(networks), len(tasks)), int)
    for k, task in enumerate(tasks):
        stream = TASKS[task](steps)
        for a, name in enumerate(networks):
            net = network(name, stream, width)
            how["folder"] = within(folder, f"{task}-{name}")
            adding = task == "adding"
            loss = losses.mse if adding else NEXT_TOKEN
            with course(net, stream, loss, metrics=None if adding else {"accuracy": ACCURACY}, **how) as run:
                collections.deque(run, maxlen=0)
            for e, record in enumerate(run.history):
                scores[a, k, e] = 1 - record["validation_loss"] / VARIANCE if adding else record["validation_accuracy"]
            sizes[a, k] = sum(leaf.size for leaf in jax.tree.leaves(run.ts.params))
    guesses = np.array([guess(TASKS[task](1)) for task in tasks])
    return Tasks(tuple(tasks), tuple(networks), scores, guesses, sizes, steps)


def network(name: str, task: Draws, width: int) -> Layer:
    """The network of a name for a task: logits (N, T, V) of tokens; of `adding` one number, (N, 1).

    Example:
        >>> network("GRU", data.tasks.adding(steps=1), 4).init(jax.random.key(0), (5, 2))[0][0]["w"].shape
        (2, 4)
    """
    inner = NETWORKS[name](width)
    if isinstance(task.draw, data.tasks.Adding):
        return models.serial(layers.Dense(width), *inner, layers.LastPosition, layers.Dense(1))
    size = data.tasks.vocabulary(task)
    embed = layers.Embedding(size, width, w_init=initializers.normal(1.0))
    return models.serial(embed, *inner, layers.Dense(size))


def guess(task: Draws) -> float:
    """The accuracy of the most frequent label, over many examples; 0 for `adding`.

    Example:
        >>> round(guess(data.tasks.parity(steps=1)), 1)
        0.5
    """
    labels = np.asarray(task.batch(jax.random.key(0), HELD_OUT)[1])
    if labels.dtype.kind == "f":
        return 0.0
    counts = np.bincount(labels[labels >= 0])
    return float(counts.max() / counts.sum())


def draw(found: Tasks) -> dict[str, Figure]:
    """The scores as a table in colours, and the learning curves of each task.

    Example:
        >>> once = np.ones((1, 1, 1))
        >>> sorted(draw(Tasks(("parity",), ("RNN",), once, once[0, 0], once[0], 10)))
        ['tasks', 'tasks-curves']
    """
    return {"tasks": _table(found), "tasks-curves": _curves(found)}


def _table(found: Tasks) -> Figure:
    values = 100 * np.concatenate([found.scores[:, :, -1], found.guesses[None]])
    rows, columns = values.shape
    fig, ax = plots.figure(width=3.0 + 1.05 * columns, height=1.7 + 0.55 * rows)
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(rows, columns):
        ax.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", color="black" if values[i, j] > 55 else "white")
    ax.axhline(rows - 1.5, color="white", linewidth=3)
    named = [f"{name}\n(variance)" if name == "adding" else name for name in found.tasks]
    ax.set_xticks(range(columns), named, fontsize=10)
    ax.set_yticks(range(rows), [*found.networks, "a guess"], fontsize=10)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("task", fontsize=11)
    ax.set_ylabel("network (two layers)", fontsize=11)
    fig.colorbar(image, ax=ax, label="accuracy, explained variance (%)")
    steps = found.scores.shape[2] * found.steps
    fig.suptitle(f"Held-out accuracy after {count_of(steps, 'step')} (one run each)", fontsize=12)
    return fig


def _curves(found: Tasks) -> Figure:
    columns = min(len(found.tasks), 3)
    rows = -(-len(found.tasks) // columns)
    fig, axes = plots.figure(rows, columns, width=4.2, height=3.1, squeeze=False)
    steps = found.steps * np.arange(1, found.scores.shape[2] + 1)
    for ax in axes.flat[len(found.tasks) :]:
        ax.set_visible(False)
    for k, (ax, task) in enumerate(zip(axes.flat, found.tasks, strict=False)):
        for a, name in enumerate(found.networks):
            ax.plot(steps, 100 * found.scores[a, k], label=name, linewidth=1.8, markersize=5, **line_style(a))
        ax.axhline(100 * found.guesses[k], color="0.5", linewidth=1)
        ax.set_title(task, fontsize=11)
        ax.set_ylim(min(-3, 100 * max(found.scores[:, k].min(), -0.5)), 103)
        ax.set_xlabel("optimizer steps", fontsize=10)
        ax.set_ylabel("explained variance (%)" if task == "adding" else "accuracy (%)", fontsize=10)
        ax.grid(alpha=0.3)
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=10, frameon=False)
    fig.suptitle("Learning curves on held-out examples; grey: a guess", fontsize=12)
    return fig


def _require_names(what: str, names: Sequence[str], known: dict[str, Any]) -> None:
    if not names:
        raise ValueError(f"tasks: expected at least one name in {what}, got none; there are: {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise ValueError(
                f"tasks: {what} has no {name!r}{nearest_name(name, known)}; there are: {', '.join(known)}."
            )

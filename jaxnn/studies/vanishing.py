"""Gradients through time: how much the last output depends on the state some positions before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from jaxnn import layers, losses, models, plots, tree
from jaxnn.checks import count_of, require_positive_int
from jaxnn.data import tasks
from jaxnn.layers import Layer, recurrence
from jaxnn.studies.base import rounded, within
from jaxnn.studies.sequences import course, table
from jaxnn.types import Array, Params

CELLS: dict[str, Callable[[int], Layer]] = {
    "RNN (tanh)": layers.RNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "LinearRecurrence": layers.LinearRecurrence,
}
"""The recurrent layers by the names of the figure."""

HELD_OUT = 512
"""Examples of which the loss is measured."""

MEASURED = 128
"""Examples of which the gradients are measured."""

GUESS = 1 / 6
"""The mean squared error of the constant 1."""

LEAST = 1e-12
"""The lower limit of the figure at most; smaller gradients are drawn there."""

LINES = ("-", "--", "-.", ":")


class Vanishing(NamedTuple):
    """The result of `run`.

    Attributes:
        cells: C names.
        gradients: (2, C, T), before training and after the epoch of the least error: at [.., k] the median over
            examples of |d y / d s_(T-k)| relative to that of k = 0, y the output and s_t the state after t positions
            (h, of the LSTM h and c).
        errors: (C, epochs), the mean squared error after each epoch.
        steps: of one epoch.
    """

    cells: tuple[str, ...]
    gradients: np.ndarray
    errors: np.ndarray
    steps: int

    def numbers(self) -> dict[str, Any]:
        """For JSON: by layer the gradients before and after training, and the errors."""
        return {
            name: {"before": rounded(before), "after": rounded(after), "mean_squared_errors": rounded(errors)}
            for name, before, after, errors in zip(self.cells, *self.gradients, self.errors, strict=True)
        }

    def describe(self) -> str:
        """The result as a table."""
        last = self.gradients.shape[2] - 1
        half = last // 2
        head = ["", f"k={half} before", "after training", f"k={last} before", "after training", "least error"]
        rows = [
            [name, *(f"{g[i, k]:.2g}" for k in (half, last) for i in (0, 1)), f"{error:.4f}"]
            for name, g, error in zip(self.cells, self.gradients.swapaxes(0, 1), self.errors.min(axis=1), strict=True)
        ]
        return (
            f"gradient of the output in the state k positions before the end, relative to k=0; least mean squared "
            f"error on adding in {count_of(self.errors.shape[1] * self.steps, 'step')} (the constant 1: {GUESS:.4f})\n"
            f"{table(head, rows)}"
        )


def run(
    *,
    length: int = 50,
    hidden: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    epochs: int = 10,
    steps: int = 100,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Vanishing:
    """The derivative of the last output in earlier states, of four recurrent layers, before and after training.

    Each network reads the sequences of `data.tasks.adding` by one recurrent layer and outputs a number from its last
    position: y = w . h_T + b. The gradient of any loss of y in a state s_(T-k) is dloss/dy times the derivative

    d y / d s_(T-k) = w' (d h_T / d s_(T-1)) .. (d s_(T-k+1) / d s_(T-k)),

    a product of k matrices, which shrinks or grows exponentially in k (Bengio et al.) unless their norms are near 1.
    The gates of LSTM, GRU and linear recurrence set these norms: at f = 1 the cell state passes unchanged. After
    training the parameters of the epoch of the least held-out error are measured.

    Args:
        length: T.
        hidden: units of each layer.
        learning_rate: of Adam on gradients clipped to norm 1.
        seed: of parameters and examples.
        epochs, steps: of training; each epoch has `steps` batches.
        batch_size: examples per step.
        folder: where training is saved after each epoch: called again with the same arguments, the study goes on there.
            None saves nothing.

    References:
        Hochreiter, S. (1991). Untersuchungen zu dynamischen neuronalen Netzen.
        Bengio, Y., Simard, P. & Frasconi, P. (1994). Learning long-term dependencies with gradient descent is
        difficult.
        Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory.
        Pascanu, R., Mikolov, T. & Bengio, Y. (2013). On the difficulty of training recurrent neural networks.

    Example:
        >>> run(length=6, hidden=4, epochs=1, steps=2, batch_size=2).gradients.shape
        (2, 4, 6)
    """
    task = tasks.adding(length, steps=require_positive_int("vanishing", "steps", steps))
    require_positive_int("vanishing", "epochs", epochs)
    x = task.batch(jax.random.fold_in(jax.random.key(seed), 0), MEASURED)[0]
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed, "epochs": epochs, "batch_size": batch_size}
    gradients, errors = [], []
    for name, cell in CELLS.items():
        layer = cell(hidden)
        net = models.serial(layer, layers.LastPosition, layers.Dense(1))
        how["folder"] = within(folder, name)
        # The same program at all times: parameters are its argument.
        each = jax.jit(lambda params, layer=layer: relative(layer, params, x))
        with course(net, task, losses.mse, held_out=HELD_OUT, **how) as run:
            for ts in itertools.chain([run.ts], (ts for _, ts in run)):  # where it begins or goes on, and each epoch
                so_far = [record["validation_loss"] for record in run.history]
                if not so_far or np.argmin(so_far) == len(so_far) - 1:  # a tanh RNN may lose what it had learned
                    run.extra["best" if so_far else "before"] = np.median(each(ts.params), axis=0).tolist()
        gradients.append([run.extra["before"], run.extra["best"]])  # saved with the epochs
        errors.append([record["validation_loss"] for record in run.history])
    return Vanishing(tuple(CELLS), np.asarray(gradients, np.float32).swapaxes(0, 1), np.asarray(errors), steps)


def relative(layer: Layer, params: Params, x: Array) -> Array:
    """(N, T): at [:, k] |d y / d s_(T-k)| / |d y / d s_T|, for y = w . h_T + b.

    Args:
        layer: a recurrent layer.
        params: its parameters, (), and those of the dense layer, {"w": (H, 1), ..}.
        x: (N, T, D).

    Example:
        >>> params = ({"w": jnp.zeros((1, 2))}, (), {"w": jnp.ones((1, 1))})  # gates of 1/2
        >>> relative(layers.LinearRecurrence(1, b_init=None), params, jnp.ones((1, 3, 1)))
        Array([[1.  , 0.5 , 0.25]], dtype=float32)
    """
    w = params[2]["w"][:, 0]

    first = recurrence.start(layer, len(x), x.dtype)

    def total(added: Any) -> Array:
        """The sum of y over examples, with something added to the states s_0 .. s_T."""
        among = jax.tree.map(lambda e: e[:-1], added)

        def step(carry: Any, now: tuple[Array, Any]) -> tuple[Any, None]:
            z, e = now
            return layer.apply(params[0], tree.add(carry, e), z[:, None])[1], None

        last, _ = lax.scan(step, first, (jnp.swapaxes(x, 0, 1), among))
        return jnp.sum((last["h"] + added["h"][-1]) @ w)

    zeros = jax.tree.map(lambda s: jnp.zeros((x.shape[1] + 1, *s.shape), s.dtype), first)
    grads = jax.grad(total)(zeros)
    norms = jnp.sqrt(sum(jnp.sum(g**2, axis=-1) for g in jax.tree.leaves(grads)))
    return (norms / norms[-1:])[:0:-1].T


def draw(found: Vanishing) -> dict[str, Figure]:
    """The derivatives before and after training, and the learning curves.

    Example:
        >>> sorted(draw(Vanishing(("a", "b"), np.ones((2, 2, 9)), np.ones((2, 3)), 10)))
        ['vanishing']
    """
    fig, (before, after, right) = plots.figure(1, 3, width=4.6, height=4.2)
    smallest = max(float(found.gradients[found.gradients > 0].min(initial=1.0)) / 2, LEAST)
    steps = found.steps * np.arange(1, found.errors.shape[1] + 1)
    for i, (name, colour, line) in enumerate(zip(found.cells, plots.COLOURS, LINES, strict=False)):
        look: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 2, "label": name}
        for ax, values in ((before, found.gradients[0, i]), (after, found.gradients[1, i])):
            ax.plot(np.clip(values, smallest, None), **look)
        right.plot(steps, found.errors[i], marker="o", markersize=3, **look)
    top = max(float(found.gradients.max()) * 2, 2.0)
    for ax, when in ((before, "before training"), (after, "after training (epoch of the least error)")):
        ax.set_yscale("log")
        ax.set_ylim(smallest, top)
        ax.set_title(when, fontsize=11)
        ax.set_xlabel("k (positions before the end)", fontsize=11)
        ax.set_ylabel("gradient norm in the state, relative to k = 0", fontsize=11)
    right.axhline(GUESS, color="0.5", linewidth=1, label="the constant 1")
    right.set_yscale("log")
    right.set_title("learning to add", fontsize=11)
    right.set_xlabel("optimizer steps", fontsize=11)
    right.set_ylabel("mean squared error (held-out examples)", fontsize=11)
    for ax in (before, after, right):
        ax.grid(alpha=0.3)
    handles, names = right.get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=10, frameon=False)
    fig.suptitle(
        f"Gradients through time: the last output against the state k positions before (adding, T = "
        f"{found.gradients.shape[2]}; median over examples)",
        fontsize=12,
    )
    return {"vanishing": fig}

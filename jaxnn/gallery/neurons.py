"""Single neurons and their learning rules: the perceptron and its bound, XOR, Adaline, logistic regression."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from jaxnn import plots
from jaxnn.classic import adaline, logistic, perceptron, separability
from jaxnn.classic.neurons import with_bias
from jaxnn.data import toy
from jaxnn.gallery.base import Picture, legend_below, shared_legend
from jaxnn.types import Array, Key

NEGATIVE, POSITIVE = plots.COLOURS[:2]
"""The colours of the two classes."""

MARKERS = {-1: ("s", NEGATIVE, "class -1"), 1: ("o", POSITIVE, "class +1")}


class Problem(NamedTuple):
    """Separable examples x (N, D) with the constant feature, labels y (N,), and separating weights w (D,)."""

    x: Array
    y: Array
    w: Array


def separable_problem(key: Key, n: int, d: int, gap: Any) -> Problem:
    """Standard normal examples on both sides of a random hyperplane, then moved away from it by `gap`.

    Args:
        n: number of examples.
        d: number of features without the constant one.
        gap: >= 0, added to the distance of every example from the hyperplane; may be traced.
    """
    key_x, key_w, key_b = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (n, d))
    direction = jax.random.normal(key_w, (d,))
    direction /= jnp.linalg.norm(direction)
    bias = jax.random.uniform(key_b, (), minval=-0.5, maxval=0.5)
    y = jnp.where(x @ direction + bias >= 0, 1.0, -1.0)
    moved = x + gap * y[:, None] * direction[None, :]
    return Problem(with_bias(moved), y, jnp.concatenate([bias[None], direction]))


def _draw_learning() -> Figure:
    """The decision line after each mistake, and the mistakes against Novikoff's bound."""
    x, y, true = separable_problem(jax.random.key(27), 40, 2, 0.06)
    found = perceptron.fit(x, y)
    weights, mistakes = (np.asarray(a) for a in perceptron.trace(x, y, passes=int(found.passes)))
    fig, (plane, count) = plots.figure(1, 2, width=5.6, height=4.6)
    changes = np.flatnonzero(mistakes)
    for shade, t in zip(np.linspace(0.15, 0.75, len(changes)), changes, strict=True):
        _line(plane, weights[t + 1], color="grey", alpha=float(shade), linewidth=0.8)
    plane.plot([], [], color="grey", linewidth=0.8, label=f"after each of {len(changes)} mistakes, later ones darker")
    _line(plane, weights[-1], color="black", linewidth=2.2, label="the final one: no mistakes")
    _points(plane, np.asarray(x[:, 1:]), np.asarray(y))
    plane.set(xlim=(-3.2, 3.2), ylim=(-3.2, 4.6), xlabel="$x_1$", ylabel="$x_2$")
    plane.set_title("The decision line after each mistake", fontsize=11)
    plane.legend(fontsize=9, loc="upper left", framealpha=0.9)
    bound = float(perceptron.mistake_bound(true, x, y))
    count.step(np.arange(len(mistakes) + 1), np.append(0, np.cumsum(mistakes)), where="post", color=NEGATIVE,
               linewidth=2, label="mistakes made")  # fmt: skip
    count.axhline(bound, color=POSITIVE, linestyle="--", label=f"$(R/\\gamma)^2$ = {bound:.0f}")
    count.axvline(len(mistakes) - len(y), color="grey", linestyle=":", label="last pass begins")
    count.set(xlabel="examples met", ylabel="mistakes so far", yscale="symlog", ylim=(0, 3 * bound))
    count.set_title(f"{len(changes)} mistakes in {int(found.passes)} passes over {len(y)} examples", fontsize=11)
    count.legend(fontsize=9, loc=(0.03, 0.6))
    fig.suptitle("Rosenblatt's perceptron is updated only on mistakes", fontsize=12)
    return fig


def _draw_bound() -> Figure:
    """Mistakes on 1,000 random separable problems, trained in one vmapped call, against Novikoff's bound."""
    bounds, mistakes, converged = map(np.asarray, _bound_of_many(jax.random.key(0), 1000))
    fig, (scatter, share) = plots.figure(1, 2, width=5.6, height=4.4)
    ends = np.array([1.0, 1.5 * bounds.max()])
    scatter.plot(ends, ends, color=POSITIVE, linestyle="--", label="mistakes = $(R/\\gamma)^2$")
    scatter.fill_between(ends, ends, 2 * ends.max(), color=POSITIVE, alpha=0.12, label="forbidden")
    scatter.scatter(
        bounds, np.maximum(mistakes, 0.7), s=9, color=NEGATIVE, alpha=0.5, linewidths=0, label="one problem"
    )
    scatter.set(xscale="log", yscale="log", xlim=(bounds.min() / 1.5, ends[1]), ylim=(0.6, 2 * ends[1]))
    scatter.set(xlabel="bound $(R/\\gamma)^2$", ylabel="mistakes until convergence")
    scatter.set_title(
        f"{converged.sum():,} of {len(bounds):,} converged, {(mistakes > bounds).sum()} over the bound", fontsize=11
    )
    scatter.legend(fontsize=9, loc="upper left")
    share.hist(100 * mistakes / bounds, bins=40, color=NEGATIVE)
    share.set(xlabel="mistakes relative to the bound (%)", ylabel="problems")
    share.set_title(
        f"median {100 * np.median(mistakes / bounds):.1f}%, greatest {100 * np.max(mistakes / bounds):.0f}%",
        fontsize=11,
    )
    fig.suptitle("For any separable examples the margin bounds the number of mistakes", fontsize=12)
    return fig


def _bound_of_many(key: Key, problems: int) -> tuple[Array, Array, Array]:
    """Rosenblatt's rule on many random separable problems of 50 examples in 5 dimensions, in one vmapped call.

    The gaps of `separable_problem` are log-spaced from 0.03 to 3. Returns (Novikoff's bounds (P,), mistakes (P,) int32,
    converged (P,) bool).
    """

    @jax.jit
    @jax.vmap
    def one(key: Key, gap: Array) -> tuple[Array, Array, Array]:
        x, y, w = separable_problem(key, 50, 5, gap)
        found = perceptron.fit(x, y, passes=20_000)
        return perceptron.mistake_bound(w, x, y), found.mistakes, found.converged

    return one(jax.random.split(key, problems), jnp.geomspace(0.03, 3.0, problems))


def _draw_xor() -> Figure:
    """The weights of Rosenblatt's rule on XOR, which cycle forever, and the plane that shows why."""
    corners, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([-1, 1, 1, -1])
    x = with_bias(corners)
    cycle = separability.repeated_weights(x, y)
    proof = separability.separate(x, y)
    if cycle is None or proof.certificate is None:
        raise RuntimeError("XOR was separated, which is impossible.")
    length = cycle.again - cycle.first
    end = cycle.first + 3 * length
    weights, _ = perceptron.trace(x, y, passes=-(-end // len(y)))
    fig, (time, plane) = plots.figure(1, 2, width=5.6, height=4.4)
    for j, name in enumerate(("bias $w_0$", "$w_1$", "$w_2$")):
        values = np.asarray(weights[: end + 1, j]) + 0.06 * (j - 1)  # offset, so that the lines do not overlap
        time.step(np.arange(len(values)), values, where="post", color=plots.COLOURS[j], linewidth=2, label=name)
    for i in range(3):
        start = cycle.first + i * length
        time.axvspan(start, start + length, color=plots.COLOURS[4], alpha=(0.35, 0.12)[i % 2], linewidth=0)
    w = ", ".join(f"{v:g}" for v in cycle.w)
    again = Patch(color=plots.COLOURS[4], alpha=0.35, label=f"a round of {length} steps, from ({w}) to ({w})")
    time.set(xlabel="examples met", ylabel="weight (lines drawn slightly apart)", ylim=(-2.6, 3.2))
    time.set_title(f"after {cycle.again} steps the weights equal those of step {cycle.first}", fontsize=11)
    time.xaxis.set_major_locator(MultipleLocator(4))
    time.yaxis.set_major_locator(MultipleLocator(1))
    time.legend(handles=[*time.lines[:3], again], fontsize=9, loc="upper right", ncols=2)
    for i, w in enumerate(np.unique(cycle.weights[cycle.first :], axis=0)):
        _line(plane, w, color="grey", linewidth=1.2, label="the cycle's lines" if i == 0 else None)
    for label, (_, colour, _) in MARKERS.items():
        hull = corners[y == label]
        plane.plot(hull[:, 0], hull[:, 1], color=colour, linewidth=4, alpha=0.4, solid_capstyle="round")
    _points(plane, corners, y, size=110)
    shared = 2 * (proof.certificate * (y == 1)) @ corners
    plane.plot(*shared, marker="X", markersize=12, color="black", linestyle="none", label="in both convex hulls")
    plane.set(xlim=(-1.5, 1.9), ylim=(-1.5, 2.3), xlabel="$x_1$", ylabel="$x_2$")
    plane.set_title("the linear program is infeasible: the hulls intersect", fontsize=11)
    plane.legend(fontsize=9, loc="upper center", ncols=2)
    fig.suptitle("A unit without hidden layer fails XOR: Rosenblatt's rule cycles forever", fontsize=12)
    return fig


def _draw_linear_units() -> Figure:
    """The lines of perceptron, Adaline and logistic regression, without and with easy examples."""
    blobs = toy.blobs(jax.random.key(3), 150, centers=[[-1.1, 0.0], [1.1, 0.0]], deviation=0.75)
    easy = toy.blobs(jax.random.key(4), 30, centers=[[6.0, 6.0]], deviation=0.5)
    x, y = np.asarray(blobs.x), 2 * np.asarray(blobs.y) - 1
    other = np.concatenate([x[:120], np.asarray(easy.x)]), np.concatenate([y[:120], np.ones(30, int)])
    fig, axes = plots.figure(1, 2, width=5.9, height=5.2, sharey=True)
    titles = ("two overlapping classes", "30 of them replaced by easy ones of class +1, top right")
    for ax, (points, labels), title in zip(axes, ((x, y), other), titles, strict=True):
        weights = _linear_units(with_bias(points), labels)
        side = np.linspace(-3.5, 8, 200, dtype=np.float32)
        grid = np.stack(np.meshgrid(side, side), axis=-1)
        chance = np.asarray(logistic.probability(weights["logistic regression"], with_bias(grid)))
        shades = ax.contourf(side, side, chance, levels=np.linspace(0, 1, 11), cmap="PuOr_r", alpha=0.35)
        for (name, w), colour, style in zip(
            weights.items(), ("black", plots.COLOURS[2], plots.COLOURS[3]), ("-", "--", "-."), strict=True
        ):
            wrong = int((np.asarray(perceptron.predict(w, with_bias(points))) != labels).sum())
            _line(ax, w, color=colour, linestyle=style, linewidth=2, label=f"{name}: {wrong} wrong")
        _points(ax, points, labels, size=18)
        ax.set(xlim=(-3.5, 8), ylim=(-3.5, 8), xlabel="$x_1$")
        ax.set_title(title, fontsize=11)
        legend_below(ax, columns=2, fontsize=10)
    axes[0].set_ylabel("$x_2$")
    fig.colorbar(shades, ax=list(axes), label="P(+1 | x) of logistic regression", shrink=0.8)
    fig.suptitle("Adaline's squared error penalizes large margins; logistic regression does not", fontsize=12)
    return fig


RATES = np.geomspace(3e-4, 0.1, 12, dtype=np.float32)
"""Candidate learning rates of each kind of ascent."""

RUNS = 16
"""Number of random orders of the examples per learning rate."""


def _draw_ascent() -> Figure:
    """The log-likelihood of logistic regression under batch, stochastic and mini-batch ascent."""
    n, epochs = 400, 30
    blobs = toy.blobs(jax.random.key(1), n, centers=[[-0.7, 0.0, 1.0], [0.7, 1.0, 0.0]], deviation=1.0)
    x = with_bias(blobs.x * jnp.array([1.0, 2.0, 0.3]) + jnp.array([0.0, 2.0, 0.0]))
    y = 2 * blobs.y - 1
    best = _greatest_log_likelihood(x, y)
    fig, (by_epoch, by_update) = plots.figure(1, 2, width=5.6, height=4.6, sharey=True)
    for (name, size), colour in zip((("batch", n), ("mini-batch", 20), ("stochastic", 1)), plots.COLOURS, strict=False):
        rate = _best_rate(x, y, size, epochs)
        gaps = (best - _every_update(x, y, rate, size, epochs)) / n
        per_epoch = gaps.shape[1] // epochs
        shown = np.unique(np.geomspace(1, gaps.shape[1] - 1, 400).astype(int))
        for ax, steps, values in (
            (by_epoch, np.arange(epochs + 1), gaps[:, ::per_epoch]),
            (by_update, shown, gaps[:, shown]),
        ):
            low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
            ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            mark = "o" if size == n and ax is by_update else None
            ax.plot(steps, middle, color=colour, linewidth=2, marker=mark, markersize=4,
                    label=f"{name}: {size} at a time, $\\eta$ = {rate:.2g}")  # fmt: skip
    by_update.axhline(float(gaps[0, 0]), color="black", linestyle=":", linewidth=1, label="before the first update")
    by_epoch.set(
        xlabel="epochs (examples / 400)", yscale="log", ylabel="gap to the maximum log-likelihood\n(nats per example)"
    )
    by_update.set(xlabel="updates", xscale="log")
    by_epoch.set_title("for the same number of examples", fontsize=11)
    by_update.set_title("after each update", fontsize=11)
    shared_legend(fig, (by_update,), columns=2)
    fig.suptitle(
        "Logistic regression by gradient ascent: small batches rise sooner, then fluctuate below the maximum",
        fontsize=12,
    )
    return fig


def _linear_units(x: Array, y: np.ndarray) -> dict[str, np.ndarray]:
    """The weights (D,) of three units fitted to the same examples, by name."""
    ascent = logistic.fit(x, y, key=jax.random.key(0), learning_rate=0.05, epochs=400, batch_size=len(y))
    return {
        "perceptron, averaged": np.asarray(perceptron.averaged(x, y, passes=20)),
        "Adaline": np.asarray(adaline.fit(x, y, learning_rate=0.001, passes=200).w),
        "logistic regression": np.asarray(ascent.w),
    }


def _best_rate(x: Array, y: Array, batch_size: int, epochs: int) -> float:
    """The learning rate of the largest log-likelihood, averaged over runs and epochs."""

    def run(key: Key, rate: Array) -> Array:
        found = logistic.fit(x, y, key=key, learning_rate=rate, epochs=epochs, batch_size=batch_size)
        return found.log_likelihood

    every = jax.jit(jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None)))
    values = np.asarray(every(jax.random.split(jax.random.key(0), RUNS), RATES))
    return float(RATES[np.argmax(np.nan_to_num(values.mean(axis=(0, 2)), nan=-np.inf))])


def _every_update(x: Array, y: Array, rate: float, batch_size: int, epochs: int) -> np.ndarray:
    """The log-likelihood at the start and after each update, of each run: (RUNS, updates + 1)."""

    def run(key: Key) -> Array:
        return logistic.trace(
            x, y, key=key, learning_rate=rate, epochs=epochs, batch_size=batch_size
        ).log_likelihood  # fmt: skip

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), RUNS)))


def _greatest_log_likelihood(x: Array, y: Array) -> float:
    """The maximum of the log-likelihood, by Newton's method in float64."""
    features, signs = np.asarray(x, np.float64), np.asarray(y, np.float64)
    w = np.zeros(features.shape[1])
    for _ in range(20):
        wrong = 1 / (1 + np.exp(signs * (features @ w)))
        hessian = features.T @ (features * (wrong * (1 - wrong))[:, None])
        w += np.linalg.solve(hessian, features.T @ (wrong * signs))
    return float(-np.log1p(np.exp(-signs * (features @ w))).sum())


def _points(ax: Any, x: np.ndarray, y: np.ndarray, *, size: float = 28) -> None:
    """Both classes, distinguished by colour and shape."""
    for label, (marker, colour, name) in MARKERS.items():
        ax.scatter(
            *x[y == label].T,
            s=size,
            marker=marker,
            color=colour,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
            label=name,
        )


def _line(ax: Any, w: np.ndarray, **style: Any) -> None:
    """The line w_0 + w_1 x_1 + w_2 x_2 = 0, if it exists."""
    bias, *normal = np.asarray(w, np.float64)
    square = np.square(normal).sum()
    if square > 0:
        foot = -bias * np.array(normal) / square
        ax.axline(foot, foot + np.array([-normal[1], normal[0]]), **style)


PICTURES = (
    Picture(
        "perceptron-learning",
        "The perceptron learns from its mistakes",
        "Starting from weights 0, the examples are processed in turn; only a mistake changes the line, by adding or "
        "subtracting that example. The grey lines are those after each mistake, the black one makes none. Right: the "
        "number of mistakes stays below Novikoff's bound, given by the largest example norm and the margin.",
        r"w \leftarrow w + y\,x \;\; \mathrm{if} \;\; \mathrm{sign}(w \cdot x) \neq y",
        "Rosenblatt (1958), The perceptron: a probabilistic model for information storage and organization in the "
        "brain",
        _draw_learning,
    ),
    Picture(
        "perceptron-bound",
        "Mistakes against Novikoff's bound on 1,000 problems",
        "Each point is a random separable problem of 50 examples in 5 dimensions, all trained at once by vmap. The "
        "bound is computed from the separator that generated the problem; no point lies above the dashed line. Most "
        "problems need far fewer mistakes than the bound, the more so the smaller the margin.",
        r"\mathrm{mistakes} \leq (R / \gamma)^2, \quad R = \max_i |x_i|, \quad \gamma = \min_i y_i\, w \cdot x_i / |w|",
        "Novikoff (1962), On convergence proofs on perceptrons",
        _draw_bound,
    ),
    Picture(
        "xor-cycle",
        "Why one unit fails XOR",
        "Left: on XOR the weights of Rosenblatt's rule return to an earlier value before the same example, so they "
        "cycle forever. Right: no line separates the classes. The segments between the corners of each class cross; a "
        "separating line would have the crossing on both sides.",
        r"\sum_i \lambda_i y_i x_i = 0, \; \lambda \geq 0, \; \lambda \neq 0 \;\; \mathrm{forbids} \;\; "
        r"y_i\, w \cdot x_i > 0 \; \forall i",
        "Minsky & Papert (1969), Perceptrons",
        _draw_xor,
    ),
    Picture(
        "linear-units",
        "Perceptron, Adaline and logistic regression",
        "Three units on the same examples. Adaline fits every output to -1 or +1, so examples far on the correct side "
        "have gradients as large as misclassified ones: thirty easy examples turn its line. On logistic regression "
        "they have hardly any effect, since their gradients vanish; the shades are its probabilities.",
        r"w \leftarrow w + \eta\,(d - w \cdot x)\,x \quad \mathrm{and} \quad "
        r"w \leftarrow w + \eta\,\sigma(-y\, w \cdot x)\, y\, x",
        "Widrow & Hoff (1960), Adaptive switching circuits; Cox (1958), The regression analysis of binary sequences",
        _draw_linear_units,
    ),
    Picture(
        "logistic-ascent",
        "Batch, mini-batch and stochastic ascent",
        "The gap between the log-likelihood of logistic regression and its maximum, each kind of ascent with its best "
        "of 12 constant learning rates; medians over 16 orders of the examples, bands contain 80%. For the same number "
        "of examples (left) small batches rise sooner, then fluctuate below the maximum. Per update (right, every dot "
        "or point of a line is one) the whole batch rises most, and steadily.",
        r"w \leftarrow w + \eta \sum_{i \in B} \nabla_w \log P(y_i \mid x_i; w)",
        "Robbins & Monro (1951), A stochastic approximation method",
        _draw_ascent,
    ),
)

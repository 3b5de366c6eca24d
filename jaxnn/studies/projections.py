"""The nearest training examples of test examples by random projections of gradients, beside the exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import backprop, optim, per_example, plots
from jaxnn.checks import require_positive_int
from jaxnn.data import Dataset, Splits, select
from jaxnn.layers import Layer
from jaxnn.studies.base import LOSS, MICROBATCH, network, rank_correlation, ranked, rounded, splits, states
from jaxnn.train import TrainState
from jaxnn.types import Array, Key, Params

SIZES = (4, 16, 64, 256, 1024)
"""The default numbers k of projections."""

NEAREST = 5
"""Number of nearest training examples that are compared, shown and written."""

COMPARED = 100
"""The largest number of test examples over which the agreement is averaged."""

DRAWS = 4
"""Number of random matrices P of each size, over which it is averaged too."""


class Projections(NamedTuple):
    """The result of `run`.

    Attributes:
        examples: the N training examples.
        tests: the M test examples.
        shown: (n,), the indices of those in the picture.
        parameters: P, the number of entries of a gradient.
        sizes: (S,), the numbers k of projections.
        exact: (N, M), <g_i, h_j>, g_i and h_j the gradients of the losses of training and test examples.
        projected: (S, N, M), <P'g_i, P'h_j>, its estimates from k numbers of each gradient, of the first P.
        rank_correlations: (S, draws, M), Spearman's, of exact and projected products over the training examples.
        overlaps: (S, draws, M), the fraction of the exactly `NEAREST` among the `NEAREST` by projections.
    """

    examples: Dataset
    tests: Dataset
    shown: np.ndarray
    parameters: int
    sizes: np.ndarray
    exact: np.ndarray
    projected: np.ndarray
    rank_correlations: np.ndarray
    overlaps: np.ndarray

    def numbers(self) -> dict[str, Any]:
        """For JSON: the agreement by k, means over the test examples; the nearest of those in the picture."""
        labels, truths = np.asarray(self.examples.y), np.asarray(self.tests.y)
        rows = []
        for j in self.shown.tolist():
            by = {"exact": nearest(self.exact[:, j]), "projected": nearest(self.projected[-1][:, j])}
            lists = {name: {"examples": i, "labels": labels[i].tolist()} for name, i in by.items()}
            rows.append({"test": j, "label": int(truths[j])} | lists)
        return {
            "parameters": self.parameters,
            "sizes": self.sizes.tolist(),
            "rank_correlation": rounded(self.rank_correlations.mean(axis=(1, 2))),
            f"overlap_of_nearest_{NEAREST}": rounded(self.overlaps.mean(axis=(1, 2))),
            "nearest": rows,
        }

    def describe(self) -> str:
        """The result in words."""
        ranks, overlaps = self.rank_correlations.mean(axis=(1, 2)), self.overlaps.mean(axis=(1, 2))
        lines = [
            f"agreement of projected with exact inner products of gradients of {self.parameters:,} entries, means over "
            f"{self.exact.shape[1]} test examples:"
        ]
        for k, rank, overlap in zip(self.sizes, ranks, overlaps, strict=True):
            lines.append(f"k = {k:<5}: rank correlation {rank:.3f}, {overlap:.0%} of the {NEAREST} nearest in common")
        return "\n".join(lines)


def nearest(products: np.ndarray) -> list[int]:
    """The indices of the `NEAREST` training examples with the largest inner products (N,), the largest first."""
    return ranked(products)[:NEAREST].tolist()


def run(
    data: str | Splits = "digits",
    *,
    tests: int = 6,
    sizes: Sequence[int] = SIZES,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 2,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Projections:
    """Inner products of gradients of training and test examples: exact, and estimated from k numbers of each.

    <g_i, h_j> is, to first order and up to the learning rate, the decrease of the loss of test example j in a step of
    gradient descent on training example i. P'g_i has k entries, P a random matrix that is a Kronecker product for each
    parameter, and E <P'g_i, P'h_j> = <g_i, h_j>. For g_i = a_i' delta_i the two factors, of sqrt(k) columns each, bring
    a relative error of order k^(-1/4), where a dense P would bring k^(-1/2) at the price of forming g_i; a factor with
    no more than sqrt(k) entries, as of the outputs, brings none. The projections of all sizes come from one backward
    pass that forms no g_i (`per_example.Projection`).

    Args:
        data: a name for `data.load`, or splits; the validation set is unused.
        tests: number of test examples in the picture, of different classes as far as there are.
        sizes: the numbers k, each with `DRAWS` matrices P; those above the number of parameters are left out.
        net, opt, seed, epochs, batch_size: as for `norms.run`; the gradients are those after training.
        folder: as for `norms.run`.

    Raises:
        ValueError: `tests` or a size is below 1, or no size is at most the number of parameters.

    Reference: Choe, S. K., Ahn, H., Bae, J., et al. (2024). What is your data worth to GPT? LLM-scale data valuation
        with influence functions, section 3.1. Pruthi, G., Liu, F., Kale, S. & Sundararajan, M. (2020). Estimating
        training data influence by tracing gradient descent, section 3.

    Example:
        >>> from jaxnn import data, models
        >>> few = data.Splits(*(data.select(part, slice(0, 32)) for part in data.load("digits")))
        >>> run(few, tests=2, sizes=(4, 8), net=models.linear(10), epochs=0).projected.shape
        (2, 32, 32)
    """
    parts = splits("projections", data)
    require_positive_int("projections", "tests", tests)
    for size in sizes:
        require_positive_int("projections", "each of sizes", size)
    net = network(net, parts.train)
    *_, ts = states(
        net, parts.train, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder
    )
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(ts.params))
    kept = sorted({size for size in sizes if size <= count})
    if not kept:
        raise ValueError(f"projections: expected a size of at most the {count:,} parameters, got {tuple(sizes)}.")
    compared = select(parts.test, slice(0, COMPARED))
    shown = _of_different_classes(np.asarray(compared.y), tests)
    products = _make_products(net, ts, parts.train, compared, kept)
    key = jax.random.fold_in(jax.random.key(seed), 10**6)
    (exact, *_), *_ = found = [products(jax.random.fold_in(key, i)) for i in range(DRAWS)]
    draws = [projected for _, projected in found]
    return Projections(parts.train, compared, shown, count, np.asarray(kept), exact, draws[0], *agreement(exact, draws))


def _make_products(
    net: Layer, ts: TrainState, examples: Dataset, tests: Dataset, sizes: list[int]
) -> Callable[[Key], tuple[np.ndarray, np.ndarray]]:
    """A function that returns inner products of gradients: (exact (N, M), projected (S, N, M) by matrices of a key)."""
    record = backprop.record(net, LOSS)

    def loss(params: Params, x: Array, y: Array) -> Array:
        return LOSS(net.predict(params, ts.state, x[None]), y[None])[0]

    @jax.jit
    def found(params: Params, key: Key, x: Array, y: Array, test_x: Array, test_y: Array) -> tuple[Array, Array]:
        vg = per_example.value_and_grad(loss, [per_example.Projection(jax.random.fold_in(key, k), k) for k in sizes])
        of_tests, (_, theirs) = record(params, ts.state, test_x, test_y), vg(params, test_x, test_y)[0]

        def part(x: Array, y: Array) -> tuple[tuple[()], tuple[Array, Array]]:
            _, mine = vg(params, x, y)[0]
            estimates = [a @ b.T for a, b in zip(mine, theirs, strict=True)]
            return (), (per_example.gram(record(params, ts.state, x, y), of_tests), jnp.stack(estimates, axis=1))

        exact, projected = per_example.over_microbatches(part, (x, y), MICROBATCH)[1]
        return exact, jnp.moveaxis(projected, 1, 0)

    batches = [jnp.asarray(a) for a in (examples.x, examples.y, tests.x, tests.y)]
    return lambda key: jax.device_get(found(ts.params, key, *batches))


def agreement(exact: np.ndarray, projected: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(rank correlations, overlaps), each (S, draws, M), of products (N, M) and of several estimates (S, N, M).

    Example:
        >>> exact = np.arange(10.0)[:, None]
        >>> agreement(exact, [np.stack([exact, -exact])])
        (array([[[ 1.]],
        <BLANKLINE>
               [[-1.]]]), array([[[1.]],
        <BLANKLINE>
               [[0.]]]))
    """
    first = [set(nearest(column)) for column in exact.T]
    ranks, overlaps = [], []
    for draw_ in projected:
        pairs = [list(zip(exact.T, first, products.T, strict=True)) for products in draw_]
        ranks.append([[rank_correlation(a, b) for a, _, b in row] for row in pairs])
        overlaps.append([[len(near & set(nearest(b))) / len(near) for _, near, b in row] for row in pairs])
    return np.swapaxes(ranks, 0, 1), np.swapaxes(overlaps, 0, 1)


def _of_different_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of the first example of each class, then the second of each, and so on: `count` in all."""
    seen: dict[int, int] = {}
    rounds = []
    for label in labels.tolist():
        rounds.append((seen.get(label, 0), label))
        seen[label] = seen.get(label, 0) + 1
    return np.array(sorted(range(len(labels)), key=rounds.__getitem__)[:count])


def draw(found: Projections) -> dict[str, Figure]:
    """Test examples with their nearest training examples by both products, and the agreement by k.

    Example:
        >>> from jaxnn import data
        >>> few = data.select(data.load("digits").train, slice(0, 2))
        >>> exact, one = np.eye(2), np.ones((1, 1, 2))
        >>> sorted(draw(Projections(few, few, np.arange(2), 9, np.array([4]), exact, exact[None], one, one)))
        ['agreement', 'projections']
    """
    return {"projections": _pictures(found), "agreement": _agreement(found)}


def _pictures(found: Projections) -> Figure:
    names, labels, size = found.examples.classes, np.asarray(found.examples.y), found.sizes[-1]
    columns = min(NEAREST, len(labels))
    fig, axes = plots.figure(len(found.shown), 2 * columns + 1, width=1.15, height=1.65, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for j, row in zip(found.shown, axes, strict=True):
        plots.show(row[0], found.tests.x[j])
        row[0].set_title(f"test: {names[int(found.tests.y[j])]}", fontsize=10, fontweight="bold")
        exact, estimated = nearest(found.exact[:, j]), nearest(found.projected[-1][:, j])
        sides = ((exact, estimated, plots.COLOURS[0]), (estimated, exact, plots.COLOURS[1]))
        for start, (indices, others, colour) in zip((1, 1 + columns), sides, strict=True):
            for ax, i in zip(row[start:], indices, strict=False):
                plots.show(ax, found.examples.x[i])
                both = {"fontweight": "bold"} if i in others else {}
                ax.set_title(f"{names[labels[i]]}{' =' if both else ''}", fontsize=10, color=colour, **both)
    fig.suptitle(
        f"Test examples with their {columns} nearest training examples by inner products of gradients\n"
        f"blue, left: exact, of {found.parameters:,} entries each; orange, right: of {size:,} random projections\n"
        "bold and '=': nearest by both",
        fontsize=12,
    )
    return fig


def _agreement(found: Projections) -> Figure:
    fig, ax = plots.figure(1, 1, width=6.5, height=4.4)
    curves = (
        (found.rank_correlations, "o-", "rank correlation over all training examples"),
        (found.overlaps, "s--", f"fraction of the {NEAREST} nearest in common"),
    )
    for (values, style, label), colour in zip(curves, plots.COLOURS, strict=False):
        low, high = np.quantile(values, [0.1, 0.9], axis=(1, 2))
        ax.plot(found.sizes, values.mean(axis=(1, 2)), style, color=colour, label=label)
        ax.fill_between(found.sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.fill_between([], [], [], color="grey", alpha=0.3, label="10% to 90% of the test examples")
    chance = min(NEAREST / len(found.exact), 1.0)
    ax.axhline(chance, color="black", linestyle=":", linewidth=1, label=f"in common by chance: {chance:.1%}")
    ax.set_xscale("log")
    ax.set_xticks(found.sizes, [f"{k:,}" for k in found.sizes])
    ax.minorticks_off()
    ax.set_ylim(-0.05, 1.05)
    ax.set_xlabel(f"k, projections of a gradient of {found.parameters:,} entries", fontsize=11)
    ax.set_ylabel(f"agreement, mean over {found.exact.shape[1]} test examples", fontsize=11)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="best")
    fig.suptitle("Projected beside exact inner products of gradients", fontsize=12)
    return fig

"""Figures of studies of training: number of examples, depth, layer types, transfer, matrix products."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import plots
from jaxnn.classic import depth, examples_needed, layer_types, products, transfer
from jaxnn.gallery.base import Picture
from jaxnn.plots import COLOURS

MARKERS = ("o", "s", "^", "D")
QUOTED = (50, 200, 800)
"""The numbers of examples whose errors stand in a title."""

INPUTS, OUTPUTS = 784, 128
"""The layer of the figure of matrix products."""


def _examples_needed() -> Figure:
    fig, axes = plots.figure(1, 2, width=5.0, height=3.8, sharey=True)
    for ax, wrong, name in zip(axes, (0.0, 0.2), ("correct labels", "one label in five wrong"), strict=True):
        found = examples_needed.by_size(examples=examples_needed.digits(wrong=wrong))
        _band(ax, found.sizes, found.training, COLOURS[0], "o", "training")
        _band(ax, found.sizes, found.test, COLOURS[1], "s", "test")
        if not wrong:
            _power_law(ax, found)
        quoted = [f"{100 * found.test[list(found.sizes).index(n)].mean():.1f}" for n in QUOTED]
        ax.set_title(f"{name}: test error\n{', '.join(quoted)}% at {', '.join(map(str, QUOTED))}", fontsize=12)
        _sizes(ax, found.sizes, "training examples")
        ax.legend(fontsize=10, loc="upper right")
    axes[0].set_ylabel("error (%)", fontsize=11)
    axes[0].set_ylim(-1, 60)
    return fig


def _power_law(ax: Any, found: examples_needed.Errors) -> None:
    """The power law of the fitted exponent through the mean of the logarithms."""
    n, b = np.geomspace(found.sizes[0], found.sizes[-1], 50), found.exponent
    factor = np.exp(np.mean(np.log(found.test.mean(axis=1)) + b * np.log(found.sizes)))
    ax.plot(n, 100 * factor * n**-b, ":", color="black", linewidth=1.5, label=f"$a\\, n^{{-{b:.2f}}}$")


def _depth() -> Figure:
    found = depth.by_depth()
    fig, (left, right) = plots.figure(1, 2, width=5.0, height=3.8)
    for i, name in enumerate(found.kinds):
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "linewidth": 2, "label": name}
        left.plot(found.depths, found.first_gradient[i].mean(axis=1), **style)
        right.plot(found.depths, 100 * found.validation[i].mean(axis=1), **style)
    left.set_yscale("log")
    left.set_ylabel("norm of the gradient", fontsize=11)
    left.set_title("first layer's weights, before training", fontsize=12)
    right.axhline(90, color="black", linestyle=":", linewidth=1)
    right.text(found.depths[0], 88, "guessing", fontsize=10, va="top")
    right.set_ylim(0, 95)
    right.set_ylabel("validation error (%)", fontsize=11)
    right.set_title("after 20 epochs of plain descent", fontsize=12)
    for ax in (left, right):
        ax.set_xticks(found.depths)
        ax.set_xlabel("hidden layers", fontsize=11)
        ax.grid(alpha=0.3)
    left.legend(fontsize=10, loc="lower left")
    return fig


def _layer_types() -> Figure:
    found = layer_types.by_type()
    fig, axes = plots.figure(1, 3, width=3.5, height=3.4, sharey=True)
    rows = np.arange(len(found.names))[::-1]
    error = 100 * found.validation
    for ax, values, label, form in (
        (axes[0], found.parameters, "parameters", "{:,.0f}"),
        (axes[1], found.multiplications, "multiplications per image", "{:,.0f}"),
        (axes[2], error.mean(axis=1), "validation error (%)", "{:.1f}"),
    ):
        ax.barh(rows, values, color=COLOURS[1] if ax is axes[2] else COLOURS[0], height=0.65)
        ends = error.max(axis=1) if ax is axes[2] else values
        for row, value, end in zip(rows, values, ends, strict=True):
            text = form.format(value)
            ax.annotate(text, (end, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10)
        ax.set_xlabel(label, fontsize=11)
    for ax in axes[:2]:
        ax.set_xscale("log")
        ax.set_xlim(100, 200_000)
    axes[2].plot(error, np.repeat(rows[:, None], error.shape[1], axis=1), ".", color="black", markersize=4)
    axes[2].set_xlim(0, 1.2 * error.max())
    axes[0].set_yticks(rows, found.names, fontsize=11)
    axes[0].set_ylabel("hidden layer", fontsize=11)
    return fig


def _transfer() -> Figure:
    tasks = (("clean digits to noisy digits", transfer.noisy_digits()), ("digits 0-4 to 5-9", transfer.other_digits()))
    fig, axes = plots.figure(1, 2, width=5.0, height=3.9)
    for ax, (name, task) in zip(axes, tasks, strict=True):
        found = transfer.by_size(task)
        for i, way in enumerate(found.ways):
            _band(ax, found.sizes, found.test[i], COLOURS[i], MARKERS[i], way, "--" if "frozen" in way else "-")
        ax.set_title(name, fontsize=12)
        _sizes(ax, found.sizes, "training examples of the target")
        ax.set_ylim(0, None)
    axes[0].set_ylabel("test error on the target (%)", fontsize=11)
    axes[1].legend(fontsize=10)
    return fig


def _products() -> Figure:
    batches = 2 ** np.arange(11)
    fig, (left, right) = plots.figure(1, 2, width=5.0, height=3.8)
    w = jax.ShapeDtypeStruct((INPUTS, OUTPUTS), jnp.float32)
    for i, (name, way) in enumerate(products.WAYS.items()):
        counts = [products.count(way, jax.ShapeDtypeStruct((int(n), INPUTS), jnp.float32), w) for n in batches]
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "linewidth": 2, "label": name}
        left.plot(batches, [found.per_multiplication for found in counts], **style)
        right.plot(batches, [found.operations for found in counts], **style)
    for ax, label in ((left, "numbers read per multiplication"), (right, "operations, one after another")):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("examples in the batch", fontsize=11)
        ax.set_ylabel(label, fontsize=11)
        ax.grid(alpha=0.3)
    left.legend(fontsize=10, loc="lower left")
    each = f"{INPUTS * OUTPUTS:,} multiplications per example"
    fig.suptitle(f"A layer of {INPUTS} inputs and {OUTPUTS} outputs: {each}", fontsize=12)
    return fig


def _band(ax: Any, x: Any, errors: np.ndarray, colour: str, marker: str, name: str, dash: str = "-") -> None:
    """The mean of errors (S, R) in percent, and their range over seeds."""
    percent = 100 * errors
    ax.fill_between(x, percent.min(axis=1), percent.max(axis=1), color=colour, alpha=0.2, linewidth=0)
    ax.plot(x, percent.mean(axis=1), dash, color=colour, marker=marker, linewidth=2, label=name)


def _sizes(ax: Any, sizes: Any, label: str) -> None:
    """A logarithmic axis of numbers of examples."""
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel(label, fontsize=11)
    ax.grid(alpha=0.3)


PICTURES = (
    Picture(
        "examples-needed",
        "The number of training examples",
        "A network of 100 hidden units on 25 to 800 digits. It learns nearly all of them, and each doubling of their "
        "number removes about the same fraction of the test error (dotted: a power law). With wrong labels it "
        "memorizes a hundred examples, wrong labels and all; of 800 it no longer can, and its test error is far below "
        "the share of wrong labels. Lines are means over four seeds, bands their range.",
        r"\mathrm{error}(n) \approx a\, n^{-b}",
        "Cortes, C., Jackel, L. D., Solla, S. A., Vapnik, V. & Denker, J. S. (1994). Learning curves: asymptotic values"
        " and rate of convergence.",
        _examples_needed,
    ),
    Picture(
        "depth",
        "Depth, batch normalization and residual connections",
        "Networks of 1 to 8 hidden layers of 32 sigmoid units under plain gradient descent. Each plain layer shrinks "
        "the gradient of those before it, since a sigmoid's derivative is at most 1/4 (left), and from three layers on "
        "the network learns next to nothing (right). With batch normalization, or with each layer's input added to its "
        "output, the gradient does not shrink, and eight layers learn. Means over two seeds.",
        r"\delta^l = s'(z^l) \odot \left(W^{l+1}\right)^T \delta^{l+1} \qquad y = x + s(W x + b)",
        "Glorot, X. & Bengio, Y. (2010). Understanding the difficulty of training deep feedforward neural networks. "
        "Ioffe, S. & Szegedy, C. (2015). Batch normalization. He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep "
        "residual learning for image recognition.",
        _depth,
    ),
    Picture(
        "layer-types",
        "Types of layers",
        "One hidden layer of each type on 600 digits of 8 x 8 pixels, then a linear output. Each about halves the "
        "error of the linear network. A 3 x 3 convolution beats one of 1 x 1, which sees no neighbours, at the same "
        "number of outputs; max-pooling keeps a quarter of these, and an error like the dense layer's with fewer "
        "parameters. Bars are means over three seeds (dots).",
        r"(w * x)_{ij} = \sum_{uv} w_{uv}\, x_{i+u,\, j+v}",
        "LeCun, Y. (1989). Generalization and network design strategies.",
        _layer_types,
    ),
    Picture(
        "transfer",
        "Pre-training and freezing on a related task",
        "A network is trained on 800 examples of a source task, then on a few of a target task; its output layer "
        "starts anew. From clean digits to noisy ones the hidden layer transfers, frozen or not: with 50 examples it "
        "does better than 100 do from scratch. From the digits 0-4 to 5-9 it does not help, and frozen it is no better "
        "than a random layer. Lines are means over three seeds, bands their range.",
        "",
        "Caruana, R. (1997). Multitask learning. Yosinski, J., Clune, J., Bengio, Y. & Lipson, H. (2014). How "
        "transferable are features in deep neural networks?",
        _transfer,
    ),
    Picture(
        "matrix-products",
        "Matrix products against loops",
        "One dense layer on a batch, computed in three ways with the same multiplications; counts are read from the "
        "programs. A loop over examples reads the weights anew for each. One product of matrices is a single operation "
        "that reads them once for the whole batch, so that arithmetic, not memory, limits its speed.",
        r"\frac{\mathrm{numbers\ read}}{\mathrm{multiplications}} = \frac{N D + D P}{N D P} "
        r"= \frac{1}{P} + \frac{1}{N}",
        "Dongarra, J. J., Du Croz, J., Hammarling, S. & Duff, I. S. (1990). A set of level 3 basic linear algebra "
        "subprograms.",
        _products,
    ),
)

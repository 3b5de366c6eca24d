"""Figures of batch sizes: progress of batch, mini-batch and stochastic descent, and the noise of small batches."""

from __future__ import annotations

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxnn import data, losses, models, plots
from jaxnn.classic import batch_noise, batching
from jaxnn.gallery.base import Picture, shared_legend
from jaxnn.plots import COLOURS

METHODS = (("batch (GD)", None, 0.2, 80), ("mini-batch", 32, 0.3, 40), ("stochastic (SGD)", 1, 0.02, 8))
"""Name, batch size (None: all examples), learning rate and epochs of each method."""

SIZES = (1, 8, 64, 512)
"""Batch sizes at which the variance of an update is measured."""

BATCHES = 200
"""Random batches of each size."""

UPDATES = 150
"""Updates at which the loss of each batch is shown."""


def _batches() -> Figure:
    """Loss against updates and examples; the loss of every batch; the variance of an update."""
    digits = data.load("digits").train
    net, n, loss = models.mlp([64, 256, 256, 10]), len(digits), losses.softmax_cross_entropy
    fig, axes = plots.figure(2, 2, width=5.4, height=3.9)
    (by_update, by_example), (every_step, noise) = axes
    for (name, given, rate, epochs), colour in zip(METHODS, COLOURS, strict=False):
        size = given or n
        run = batching.course(
            net, loss, digits, batch_size=size, learning_rate=rate, epochs=epochs, key=jax.random.key(0)
        )
        label = f"{name}: B = {size:,}, η = {rate:g}"
        for ax, each in ((by_update, 1), (by_example, size)):
            ax.plot(each * run.updates[1:], run.loss[1:], color=colour, linewidth=2, label=label)
    for (_, given, rate, _), colour in zip(METHODS[1:], COLOURS[1:], strict=False):
        found = batch_noise.steps(
            net, loss, digits, batch_size=given or n, learning_rate=rate, updates=UPDATES, key=jax.random.key(0)
        )
        t = np.arange(1, UPDATES + 1)
        every_step.plot(t, found.batch_loss, color=colour, linewidth=0.9, alpha=0.6)
        every_step.plot(t, found.loss, color=colour, linewidth=2.5)
    every_step.plot([], [], color="0.4", linewidth=0.9, alpha=0.6, label="of the batch of each update (bottom left)")
    every_step.plot([], [], color="0.4", linewidth=2.5, label=f"of all {n:,} examples (bottom left)")
    params, state = net.init(jax.random.key(0), digits.x.shape[1:])
    spread = batch_noise.variances(
        net, loss, digits, params, state, sizes=SIZES, batches=BATCHES, key=jax.random.key(1)
    )
    dense = np.unique(np.geomspace(1, SIZES[-1], 60).astype(int))
    noise.plot(
        dense, batch_noise.of_batch(spread.trace, dense, n), color="black", label="predicted from one backward pass"
    )
    noise.plot(spread.sizes, spread.measured, "o", color=COLOURS[3], markersize=8,
               label=f"measured on {BATCHES} batches of each size")  # fmt: skip
    for ax, x, title in (
        (by_update, "updates", "the loss after each epoch, by updates"),
        (by_example, "examples processed", "the same losses, by examples"),
        (every_step, "update", "the loss before each update"),
        (noise, "batch size B", "the variance of a batch's gradient"),
    ):
        ax.set_yscale("log")
        ax.set_title(title, fontsize=12)
        ax.set_xlabel(x, fontsize=11)
        ax.set_ylabel("$E\\,|g_B - g|^2$" if ax is noise else "loss (nats per example)", fontsize=11)
        ax.grid(alpha=0.3)
        if ax is not every_step:
            ax.set_xscale("log")
    noise.legend(fontsize=10, loc="lower left")
    shared_legend(fig, (by_update, every_step), columns=3, fontsize=10)
    return fig


PICTURES = (
    Picture(
        "batches",
        "Batch, mini-batch, stochastic",
        "The same network on the same 1,257 digits, each method with a suitable learning rate. Per update (top left) "
        "the exact gradient of the whole batch is best, per example (top right) it is worst. By the clock, not drawn, "
        "mini-batches win: an update of 32 examples takes far less than 32 times as long as one of a single example. "
        "Small batches fluctuate (bottom left): the variance of an update falls with B as predicted from one backward "
        "pass (bottom right).",
        r"\theta \leftarrow \theta - \eta\, g_B, \;\; g_B = \frac{1}{B} \sum_{i \in \mathrm{batch}} \nabla "
        r"\ell_i(\theta), \quad \mathbb{E}\, |g_B - g|^2 = \frac{\mathrm{tr}\, \Sigma}{B} (1 - \frac{B}{N})",
        "Robbins & Monro 1951, A stochastic approximation method; Bottou & Bousquet 2008, The tradeoffs of large scale "
        "learning",
        _batches,
    ),
)

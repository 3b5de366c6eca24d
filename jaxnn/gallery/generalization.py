"""Figures of learning and generalization: regularization, and obstacles to training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxnn import plots
from jaxnn.classic import generalization, shifts, symmetry, width
from jaxnn.classic.generalization import Errors
from jaxnn.gallery.base import Picture, shared_legend
from jaxnn.initializers import constant, normal
from jaxnn.plots import COLOURS

TRAINING, VALIDATION = COLOURS[0], COLOURS[1]


def _regularizers() -> Figure:
    fig, axes = plots.figure(2, 2, width=4.6, height=3.3, sharey=True)
    decay = generalization.weight_decay(seeds=3)
    panels = (
        ("Weight decay", "penalty $\\lambda$", [f"{s:g}" for s in decay.settings], decay),
        *(
            (title, label, [f"{s:g}" for s in errors.settings], errors)
            for title, label, errors in (
                ("Dropout", "fraction of hidden units dropped", generalization.dropout(seeds=3)),
                ("Augmentation", "largest random shift (pixels)", generalization.augmentation(seeds=3)),
                ("Ensemble", "networks", generalization.ensembles()),
            )
        ),
    )
    for ax, (title, label, names, errors) in zip(axes.flat, panels, strict=True):
        _bands(ax, np.arange(len(names)), errors)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel(label, fontsize=11)
        ax.set_title(title, fontsize=12)
    for ax in axes[:, 0]:
        ax.set_ylabel("error (%)", fontsize=11)
    axes[0, 0].legend(fontsize=10)
    axes[0, 0].set_ylim(0, 40)
    return fig


def _early_stopping() -> Figure:
    found = generalization.early_stopping()
    fig, axes = plots.figure(1, 2, width=4.8, height=3.6)
    names = ("loss (nats)", "error (%)")
    values = (
        (found.curves.training_loss, found.curves.validation_loss),
        (100 * found.curves.training_error, 100 * found.curves.validation_error),
    )
    best = found.best_epoch
    for ax, name, (training, validation) in zip(axes, names, values, strict=True):
        _runs(ax, training, TRAINING, "training")
        _runs(ax, validation, VALIDATION, "validation")
        at_best = np.asarray(validation)[np.arange(len(best)), best - 1]
        ax.plot(best, at_best, "o", color="black", markersize=7, zorder=5, label="epoch returned by early stopping")
        ax.axvspan(best.min(), best.max(), color="black", alpha=0.07)
        ax.set_xlabel("epoch", fontsize=11)
        ax.set_ylabel(name, fontsize=11)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 50)
    axes[1].legend(fontsize=10)
    return fig


def _batch_norm() -> Figure:
    runs = generalization.batch_norm()
    fig, axes = plots.figure(1, 2, width=4.8, height=3.6)
    for curves, colour, name in zip(runs, COLOURS, ("without", "with batch normalization"), strict=False):
        for ax, training, validation in (
            (axes[0], curves.training_loss, curves.validation_loss),
            (axes[1], 100 * curves.training_error, 100 * curves.validation_error),
        ):
            epochs = range(1, training.shape[1] + 1)
            ax.plot(epochs, np.mean(training, axis=0), color=colour, linewidth=2, label=f"{name}, training")
            ax.plot(epochs, np.mean(validation, axis=0), "--", color=colour, linewidth=2, label=f"{name}, validation")
    for ax, label in zip(axes, ("loss (nats)", "error (%)"), strict=True):
        ax.set_xticks(range(0, 21, 5))
        ax.set_xlabel("epoch", fontsize=11)
        ax.set_ylabel(label, fontsize=11)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, None)
    axes[1].legend(fontsize=10)
    return fig


def _hidden_units() -> Figure:
    found = generalization.hidden_units()
    errors, best = found.errors, found.errors.best
    fig, ax = plots.figure(width=6.4, height=4.0)
    _bands(ax, errors.settings, errors)
    chosen, test = int(errors.settings[best]), 100 * found.test.mean()
    ax.axvline(chosen, color="black", linewidth=1, linestyle=":")
    label = f"test error of {chosen} units, evaluated once: {test:.1f}%"
    ax.plot(chosen, test, "*", color="black", markersize=13, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(errors.settings, [str(size) for size in errors.settings])
    ax.minorticks_off()
    ax.set_xlabel("hidden units", fontsize=11)
    ax.set_ylabel("error (%)", fontsize=11)
    ax.set_ylim(0, 100)
    ax.legend(fontsize=10)
    return fig


SYMMETRY_STARTS = 8
"""Number of random starts of the symmetry figure, of which one is drawn."""


def _symmetry() -> Figure:
    """The incoming weights of four units from equal and from random starts, and the losses."""
    keys = jax.random.split(jax.random.key(0), SYMMETRY_STARTS)
    w_init = normal(0.5)
    every = [symmetry.run(w_init, key=key) for key in keys]
    chosen = every[symmetry.most_separate(every)]
    runs = {"equal": symmetry.run(constant(0.5), key=keys[0]), "random": chosen}
    fig, axes = plots.figure(1, 3, width=3.7, height=3.9)
    for name, ax in zip(runs, axes, strict=False):
        history = runs[name].history
        for j, (colour, dash) in enumerate(zip(COLOURS[:4], ("-", "--", "-.", ":"), strict=True)):
            w1, w2 = ([record[f"unit_{j}_{i}"] for record in history] for i in (1, 2))
            ax.plot(w1, w2, dash, color=colour, linewidth=5 - j, label=f"unit {j + 1}")
            ax.plot(w1[-1], w2[-1], "o", color=colour, markersize=11 - 2 * j)
        ax.set_xlabel("weight for the first input", fontsize=11)
        ax.set_ylabel("weight for the second input", fontsize=11)
        ax.axhline(0, color="black", linewidth=0.5)
        ax.axvline(0, color="black", linewidth=0.5)
        ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        axes[2].plot([record["epoch"] for record in history], [record["loss"] for record in history], linewidth=2,
                     color=COLOURS[4 if name == "equal" else 2], label=f"{name} initial weights")  # fmt: skip
    axes[0].set_title("equal initial weights", fontsize=12)
    apart = float(symmetry.separation(chosen.params))
    axes[1].set_title(f"random: no two closer than {apart:.1f}", fontsize=12)
    axes[2].set_title("training loss", fontsize=12)
    axes[2].set_xlabel("epoch", fontsize=11)
    axes[2].set_ylabel("cross-entropy (nats)", fontsize=11)
    axes[2].axhline(np.log(2), color="black", linewidth=1, linestyle=":", label="a coin's, log 2")
    axes[2].set_ylim(0, None)
    for ax in axes:
        ax.grid(alpha=0.3)
    shared_legend(fig, axes[1:], columns=7, fontsize=10)
    return fig


def _width() -> Figure:
    found = width.approximate()
    fig, (left, right) = plots.figure(1, 2, width=5.0, height=3.8)
    left.plot(found.x, found.y, color="0.75", linewidth=6, label="function")
    for size, colour, dash in zip((1, 4, 16), COLOURS, (":", "--", "-"), strict=False):
        i = found.widths.tolist().index(size)
        best = found.rms[i].argmin()
        left.plot(found.x, found.outputs[i, best], dash, color=colour, linewidth=2, label=f"width {size}")
    left.set_xlabel("x", fontsize=11)
    left.set_ylabel("y", fontsize=11)
    left.set_title("the best of 8 seeds", fontsize=12)
    left.set_ylim(-1.7, 2.5)
    left.legend(fontsize=10, ncols=2, loc="upper left")
    for values, colour, name in ((found.largest, COLOURS[1], "largest error"), (found.rms, COLOURS[0], "rms error")):
        right.plot(found.widths, values, ".", color=colour, alpha=0.5)
        right.plot(found.widths, np.median(values, axis=1), color=colour, linewidth=2, label=f"{name}, median")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xticks(found.widths, [str(size) for size in found.widths])
    right.set_xlabel("hidden units", fontsize=11)
    right.set_ylabel("error", fontsize=11)
    right.set_title("error against width, 8 seeds", fontsize=12)
    right.grid(alpha=0.3)
    right.legend(fontsize=10)
    return fig


def _shifts() -> Figure:
    found = {name: shifts.run(name).errors for name in shifts.NETWORKS}
    found["MLP, trained on shifted digits"] = shifts.run("MLP", augmented=True, epochs=60).errors
    reach = shifts.BORDER
    fig, axes = plots.figure(1, len(found), width=3.0, height=3.5, sharey=True)
    fig.set_layout_engine("compressed")
    for ax, (name, errors) in zip(axes, found.items(), strict=True):
        edge = reach + 0.5
        image = ax.imshow(100 * errors, cmap="cividis", vmin=0, vmax=100, extent=(-edge, edge, edge, -edge))
        centred, most = 100 * errors[reach, reach], 100 * errors.max()
        ax.set_title(f"{name}\ncentred {centred:.1f}%, at most {most:.1f}%", fontsize=11)
        ax.set_xlabel("right (pixels)", fontsize=11)
        ax.set_xticks(range(-reach, reach + 1, 2))
    axes[0].set_ylabel("down (pixels)", fontsize=11)
    fig.colorbar(image, ax=axes.tolist(), label="validation error (%)", aspect=15, pad=0.02)
    return fig


def _bands(ax: Any, x: Any, errors: Errors) -> None:
    """Mean training and validation errors in percent, and the range over seeds."""
    for values, colour, marker, name in (
        (errors.training, TRAINING, "o", "training"),
        (errors.validation, VALIDATION, "s", "validation"),
    ):
        percent = 100 * values
        ax.fill_between(x, percent.min(axis=1), percent.max(axis=1), color=colour, alpha=0.2, linewidth=0)
        ax.plot(x, percent.mean(axis=1), color=colour, marker=marker, linewidth=2, label=name)
    ax.grid(alpha=0.3)


def _runs(ax: Any, values: Any, colour: str, name: str) -> None:
    """A faint line per run (R, E), a bold one for their mean."""
    epochs = np.arange(1, values.shape[1] + 1)
    for run in values:
        ax.plot(epochs, run, color=colour, linewidth=0.8, alpha=0.4)
    ax.plot(epochs, np.mean(values, axis=0), color=colour, linewidth=2, label=name)


PICTURES = (
    Picture(
        "regularizers",
        "Four regularizers",
        "Two hundred digits, one in five with a wrong label: a network of 100 hidden units memorizes nearly all of "
        "them, and misclassifies a fifth of unseen digits. Weight decay, dropout and random shifts prevent that: the "
        "training error rises and the validation error falls, until too strong a setting raises both. An ensemble of "
        "such networks gains a little, without a hyperparameter. Lines are means over three seeds (bottom right: 16), "
        "bands their range.",
        r"C(\theta) = \frac{1}{N} \sum_i C_i(\theta) + \lambda\, w^T w",
        "Krogh, A. & Hertz, J. A. (1992). A simple weight decay can improve generalization. Srivastava, N. et al. "
        "(2014). Dropout. Simard, P. Y. et al. (2003). Best practices for convolutional neural networks. Hansen, L. "
        "K. & Salamon, P. (1990). Neural network ensembles.",
        _regularizers,
    ),
    Picture(
        "early-stopping",
        "Early stopping",
        "The training loss keeps falling. The validation error turns upward as soon as the network begins to memorize "
        "the wrong labels (one in five of 200), the validation loss a little later. Early stopping ends a run at T, "
        "ten epochs after the validation loss was lowest so far, and returns that epoch: dots, one per seed (grey: "
        "their range). Thin lines are single seeds, bold ones their means.",
        r"t^* = \arg\min_{t \leq T} \; C_{\mathrm{validation}}(\theta_t)",
        "Prechelt, L. (1998). Early stopping - but when?",
        _early_stopping,
    ),
    Picture(
        "batch-norm",
        "Batch normalization",
        "Three hidden layers of sigmoid units under plain gradient descent with one learning rate. Without "
        "normalization each layer shrinks the gradient on its way back, and in 20 epochs the loss hardly falls; with "
        "batch-normalized inputs of each layer it falls at once. Lines are means over four seeds.",
        r"y = \gamma \, \frac{z - \mu_B}{\sqrt{\sigma_B^2 + \epsilon}} + \beta",
        "Ioffe, S. & Szegedy, C. (2015). Batch normalization: accelerating deep network training by reducing internal"
        " covariate shift.",
        _batch_norm,
    ),
    Picture(
        "hidden-units",
        "The number of hidden units, chosen on a validation split",
        "Each size is trained from four seeds, on 200 digits of which one in five has a wrong label. With few units "
        "training and validation errors are both high: the network under-fits. With many the training error keeps "
        "falling while the validation error rises: it over-fits. The size with the lowest mean validation error is "
        "chosen, and only its test error is looked at.",
        "",
        "Stone, M. (1974). Cross-validatory choice and assessment of statistical predictions.",
        _hidden_units,
    ),
    Picture(
        "symmetry",
        "Equal initial weights stay equal",
        "Four hidden units are trained on the exclusive or; lines are their incoming weights, dots the last ones. "
        "Units with equal initial weights get equal gradients and stay equal (left, four lines in one), so that the "
        "network is equivalent to a single unit and its loss stays high. From random weights the units part (middle: "
        "of eight starts, the one whose two most similar units end farthest apart) and the loss falls (right).",
        r"w_j = w_k,\; b_j = b_k,\; v_j = v_k \;\Rightarrow\; \partial C / \partial w_j = \partial C / \partial w_k",
        "Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning internal representations by error "
        "propagation.",
        _symmetry,
    ),
    Picture(
        "width",
        "Universal approximation by training",
        "Networks with one hidden layer of tanh units are trained on a wavy function. The error falls with the number "
        "of units, steeply once there are enough for every bend. Dots are single seeds, lines medians; the error after "
        "training is an upper bound on the best error of that width.",
        r"y(x) = \sum_{j=1}^{n} v_j \tanh(w_j x + b_j) + c",
        "Cybenko, G. (1989). Approximation by superpositions of a sigmoidal function. Hornik, K. (1991). "
        "Approximation capabilities of multilayer feedforward networks.",
        _width,
    ),
    Picture(
        "shifts",
        "Shift invariance",
        "Validation error on digits shifted by up to four pixels, after training on centred digits only. An MLP errs "
        "on half or more of those shifted by one pixel, and fails beyond; convolution and pooling help little while "
        "the last layer depends on positions. A maximum over all positions makes the network invariant to shifts, "
        "except near the image's border. An MLP can be trained on shifted digits, at the cost of a larger error on "
        "centred ones.",
        r"\max_{ij}\, (w * T_{uv}\, x)_{ij} = \max_{ij}\, (w * x)_{ij}",
        "Fukushima, K. (1980). Neocognitron: a self-organizing neural network model for a mechanism of pattern "
        "recognition unaffected by shift in position. LeCun, Y. et al. (1989). Backpropagation applied to handwritten"
        " zip code recognition.",
        _shifts,
    ),
)

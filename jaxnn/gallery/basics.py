"""Figures of the building blocks: activations, losses, the weights of a linear classifier."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import activations, data, losses, metrics, models, optim, plots, train
from jaxnn.gallery.base import Picture, legend_below, shared_legend
from jaxnn.plots import COLOURS
from jaxnn.types import Array

ACTIVATIONS = (
    activations.sign, activations.heaviside, activations.linear, activations.piecewise_linear,
    activations.sigmoid, activations.tanh, activations.relu, activations.leaky_relu,
    activations.softplus, activations.elu, activations.gelu, activations.silu,
)  # fmt: skip


def _activations() -> Figure:
    """Twelve activations, each with its derivative and its properties."""
    z = jnp.linspace(-4, 4, 401)
    fig, axes = plots.figure(3, 4, width=2.9, height=2.7, sharex=True, sharey=True)
    for ax, function in zip(axes.flat, ACTIVATIONS, strict=True):
        ax.axhline(0, color="black", linewidth=0.6, alpha=0.5)
        ax.axvline(0, color="black", linewidth=0.6, alpha=0.5)
        ax.plot(z, _broken(function(z)), color=COLOURS[0], linewidth=2, label="s(z)")
        ax.plot(z, _broken(activations.derivative_of(function)(z)), color=COLOURS[1], linestyle="--", label="s'(z)")
        name, found = function.__name__.replace("_", " "), activations.properties(function)
        if found.shape == "steps":
            ax.plot(0, function(jnp.zeros(())), "o", color=COLOURS[0], markersize=4)
        ax.set_title(f"{name}\n{_told(found, name)}", fontsize=11)
        ax.set_ylim(-1.2, 2.2)
    for ax in axes[-1]:
        ax.set_xlabel("z", fontsize=11)
    for ax in axes[:, 0]:
        ax.set_ylabel("output, slope", fontsize=11)
    shared_legend(fig, [axes[0, 0]], columns=2)
    return fig


def _told(found: activations.Properties, name: str) -> str:
    """Shape, unless the name says it, range and slope at 0."""
    low, high = (f"{limit:.2g}".replace("inf", "∞").replace("-", "\N{MINUS SIGN}") for limit in (found.low, found.high))
    shape = "" if found.shape == name else f"{found.shape}{'' if found.monotone else ', not monotone'}\n"
    return f"{shape}{low} to {high}, s'(0) = {found.slope:.2g}"


def _losses() -> Figure:
    """Losses of a residual, and losses of a margin."""
    fig, (left, right) = plots.figure(1, 2, width=5.2, height=4.4)
    residual = jnp.linspace(-3, 3, 301)
    of_residual: dict[str, Callable[[Array, Array], Array]] = {
        "half squared error": losses.half_squared_error,
        "absolute error": losses.absolute_error,
        "Huber": losses.huber,
        "log cosh": losses.log_cosh,
    }
    margin = jnp.linspace(-2.5, 3, 301)
    of_margin: dict[str, Callable[[Array, Array], Array]] = {
        "square": losses.square_loss,
        "logistic": losses.logistic,
        "hinge": losses.hinge,
        "perceptron": losses.perceptron_loss,
    }
    for ax, x, named, target in ((left, residual, of_residual, 0.0), (right, margin, of_margin, 1.0)):
        for (name, loss), colour, dash in zip(named.items(), COLOURS, ("-", "--", "-.", ":"), strict=False):
            ax.plot(x, loss(x, jnp.full_like(x, target)), dash, color=colour, linewidth=2.2, label=name)
        ax.set_ylim(-0.1, 6)
        ax.set_ylabel("loss", fontsize=11)
        ax.grid(alpha=0.3)
    right.step([-2.5, 0, 3], [1, 0, 0], where="post", color="black", linewidth=1.2, label="mistake, 0 or 1")
    legend_below(left, columns=2)
    legend_below(right, columns=3)
    left.set_xlabel("residual y - d", fontsize=11)
    right.set_xlabel("margin d f", fontsize=11)
    left.set_title("Regression", fontsize=12)
    right.set_title("Classification, d = -1 or +1", fontsize=12)
    return fig


def _templates() -> Figure:
    """The weights of multinomial logistic regression on digits, class by class."""
    digits = data.load("digits")
    result = train.fit(
        models.linear(10),
        losses.softmax_cross_entropy,
        optim.adam(1e-2),
        digits.train,
        key=jax.random.key(0),
        epochs=20,
        validation=digits.validation,
        metrics={"error": metrics.error_rate},
        regularizer=losses.l2(1e-3),
        progress=False,
    )
    weights = np.asarray(result.params[1]["w"]).reshape(8, 8, 10)
    limit = np.abs(weights).max()
    fig, axes = plots.figure(2, 10, width=1.1, height=1.35)
    for k in range(10):
        plots.show(axes[0, k], digits.train.x[digits.train.y == k].mean(axis=0))
        image = axes[1, k].imshow(weights[..., k], cmap="PuOr", vmin=-limit, vmax=limit)
        axes[0, k].set_title(digits.train.classes[k], fontsize=12)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("mean digit", fontsize=11)
    axes[1, 0].set_ylabel("weights", fontsize=11)
    fig.colorbar(image, ax=axes[1].tolist(), label="weight", shrink=0.9)
    error = result.history[-1]["validation_error"]
    fig.suptitle(f"Multinomial logistic regression, validation error {error:.1%}", fontsize=12)
    return fig


def _broken(values: Array) -> np.ndarray:
    """The values with NaN at jumps, so that no line connects them."""
    broken = np.array(values, np.float64)
    broken[1:][np.abs(np.diff(broken)) > 0.5] = np.nan
    return broken


PICTURES = (
    Picture(
        "activations",
        "Activation functions and their derivatives",
        "The output of a unit, and the derivative by which backpropagation multiplies the cotangent. Above each: its "
        "shape, its range and its derivative at 0 (a dot marks the value of a step there). The derivative of a step is "
        "0 wherever it exists, so that no gradient passes; sigmoid and tanh pass gradients near 0 only; ReLU and its "
        "smooth variants pass them for every positive z. Layers of linear units are one linear map.",
        r"\delta^{l} = (\delta^{l+1} (w^{l+1})^T) \cdot s'(z^{l}), \quad z^{l+1} = a^{l} w^{l+1} + b^{l+1}, \quad "
        r"w \; (\mathrm{in}, \mathrm{out})",
        "Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating "
        "errors.",
        _activations,
    ),
    Picture(
        "losses",
        "Loss functions",
        "Left, losses of a residual: the squared error weights one large error more than many small ones, the others "
        "grow only linearly. Right, losses of a margin: each of the four is convex, and all but the perceptron's bound "
        "the 0-1 loss from above (logistic after division by log 2); only the squared loss penalizes large margins.",
        r"\frac{1}{2}(y-d)^2 \qquad |y-d| \qquad \max(0,\,1-d f) \qquad \log(1+e^{-d f})",
        "Cox, D. R. (1958). The regression analysis of binary sequences. Huber, P. J. (1964). Robust estimation of a "
        "location parameter. Cortes, C. & Vapnik, V. (1995). Support-vector networks.",
        _losses,
    ),
    Picture(
        "templates",
        "The weights of a linear classifier of digits",
        "Above, the mean image of each class. Below, the learned weights of its output (purple: evidence for the "
        "class, orange: against it). They show not the digit itself but what distinguishes it from the nine others, "
        "e.g. the empty centre of a zero.",
        r"P(k\,|\,x) = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad z_k = w_k^T x + b_k",
        "Bridle, J. S. (1990). Probabilistic interpretation of feedforward classification network outputs, with "
        "relationships to statistical pattern recognition.",
        _templates,
    ),
)

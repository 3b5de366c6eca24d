"""Pictures of what networks are built of: activations, losses, the weights that a linear classifier learns."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import activations, data, losses, metrics, models, optim, plots, train
from jaxnn.gallery.base import Picture
from jaxnn.plots import COLOURS
from jaxnn.types import Array

ACTIVATIONS = (
    activations.heaviside, activations.piecewise_linear, activations.sigmoid, activations.tanh,
    activations.relu, activations.softplus, activations.gelu, activations.silu,
)  # fmt: skip


def _activations() -> Figure:
    """Eight activations, each with its derivative."""
    z = jnp.linspace(-4, 4, 401)
    fig, axes = plots.figure(2, 4, width=2.9, height=2.5, sharex=True, sharey=True)
    for ax, function in zip(axes.flat, ACTIVATIONS, strict=True):
        ax.axhline(0, color="black", linewidth=0.6, alpha=0.5)
        ax.axvline(0, color="black", linewidth=0.6, alpha=0.5)
        ax.plot(z, _broken(function(z)), color=COLOURS[0], linewidth=2, label="s(z)")
        ax.plot(z, _broken(activations.derivative_of(function)(z)), color=COLOURS[1], linestyle="--", label="s'(z)")
        ax.set_title(function.__name__.replace("_", " "), fontsize=12)
        ax.set_ylim(-1.2, 2.2)
    for ax in axes[1]:
        ax.set_xlabel("z", fontsize=11)
    for ax in axes[:, 0]:
        ax.set_ylabel("output, slope", fontsize=11)
    axes[0, 0].legend(fontsize=10, loc="upper left")
    return fig


def _losses() -> Figure:
    """Losses of a residual, and losses of a margin."""
    fig, (left, right) = plots.figure(1, 2, width=4.8, height=3.8)
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
        ax.legend(fontsize=10)
    right.step([-2.5, 0, 3], [1, 0, 0], where="post", color="black", linewidth=1.2, label="mistake, 0 or 1")
    right.legend(fontsize=10, loc="upper right")
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
    """The values with a gap where they jump, so that no line is drawn along the jump."""
    broken = np.array(values, np.float64)
    broken[1:][np.abs(np.diff(broken)) > 0.5] = np.nan
    return broken


PICTURES = (
    Picture(
        "activations",
        "Activation functions and their derivatives",
        "What a unit puts out, and the slope that backpropagation multiplies an error by. A threshold has slope 0 "
        "wherever it has one, so that nothing can be learned through it; sigmoid and tanh pass errors near 0 only. "
        "ReLU and its smooth relatives pass them for every positive z.",
        r"\delta^{l} = ((W^{l+1})^T \delta^{l+1}) \cdot s'(z^{l})",
        "Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating "
        "errors.",
        _activations,
    ),
    Picture(
        "losses",
        "Loss functions",
        "Left, what a residual costs: squares weigh one large error more than many small ones, the others grow only "
        "linearly. Right, what a margin costs: each of the four is convex, and all but the perceptron's lie above the"
        " count of mistakes (logistic once it is divided by log 2); only the square loss punishes being too right.",
        r"\frac{1}{2}(y-d)^2 \qquad |y-d| \qquad \max(0,\,1-d f) \qquad \log(1+e^{-d f})",
        "Cox, D. R. (1958). The regression analysis of binary sequences. Huber, P. J. (1964). Robust estimation of a "
        "location parameter. Cortes, C. & Vapnik, V. (1995). Support-vector networks.",
        _losses,
    ),
    Picture(
        "templates",
        "What a linear classifier of digits looks for",
        "Above, the mean image of each class. Below, the learned weights of its output (purple speaks for the class, "
        "orange against it): not the digit itself, but what tells it from the nine others, such as the empty middle "
        "of a zero.",
        r"P(k\,|\,x) = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad z_k = w_k^T x + b_k",
        "Bridle, J. S. (1990). Probabilistic interpretation of feedforward classification network outputs, with "
        "relationships to statistical pattern recognition.",
        _templates,
    ),
)

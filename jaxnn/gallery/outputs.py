"""Figures of outputs and their losses: saturation under two losses, and a mixture density where least squares fails."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import plots
from jaxnn.classic import mixture, saturation
from jaxnn.data import Dataset
from jaxnn.gallery.base import Picture, shared_legend
from jaxnn.plots import COLOURS


def _saturation() -> Figure:
    """The derivative in the logit, learning curves, and the steps lost, for two losses of one sigmoid unit."""
    fig, (slopes, curves, steps) = plots.figure(1, 3, width=3.8, height=3.8)
    z = jnp.linspace(-8, 8, 201)
    starts = jnp.linspace(-2, 8, 41)
    for (name, loss), colour in zip(saturation.LOSSES.items(), (COLOURS[1], COLOURS[0]), strict=True):
        slopes.plot(z, saturation.slopes(loss, z), color=colour, linewidth=2, label=name)
        for start, dash in ((1.0, "--"), (5.0, "-")):
            curves.plot(saturation.descend(loss, start), dash, color=colour, linewidth=2)
        needed = jax.vmap(lambda start, loss=loss: saturation.steps_until(_long_descent(loss, start)))(starts)
        steps.plot(starts, jnp.maximum(needed, 1), color=colour, linewidth=2, label=name)
    slopes.set(xlabel="z", ylabel="dC/dz, target 0", title="derivative in the logit")
    curves.set(xlabel="step", ylabel="output y, target 0", title="learning curves")
    steps.set(xlabel="z at the start", ylabel="steps until y < 0.1", title="steps lost to saturation", yscale="log")
    begins = [float(line.get_ydata()[0]) for line in curves.lines[:2]]
    for y, dash in zip(begins, ("--", "-"), strict=True):
        curves.plot([], [], dash, color="0.4", linewidth=2, label=f"from y = {y:.2f} (middle)")
    for ax in (slopes, curves, steps):
        ax.grid(alpha=0.3)
    shared_legend(fig, (slopes, curves), columns=4)
    return fig


def _long_descent(loss: Any, start: Any) -> Any:
    return saturation.descend(loss, start, steps=10_000)


NOISE = 0.05
"""Half the width of the noise on x of the inverse problem."""

EDGES = np.linspace(0.0, 1.0, 41)
"""Bins of x in which the mean of y is taken."""


LEVELS = (0.5, 1, 2, 4, 8)
"""Densities at which contours are drawn."""


def _mixture() -> Figure:
    """Least squares, a mixture of three Gaussians, and its weights, on Bishop's inverse problem."""
    points = mixture.inverse_problem(jax.random.key(0), 4000, noise=NOISE)
    means = mixture.mean_by_bin(mixture.inverse_problem(jax.random.key(2), 200_000, noise=NOISE), EDGES)
    x, y = jnp.linspace(-NOISE, 1 + NOISE, 221)[:, None], jnp.linspace(-0.1, 1.1, 241)
    mean_net, mean = mixture.fit_mean(points, key=jax.random.key(1))
    net, found = mixture.fit_mixture(points, key=jax.random.key(1))
    predicted = mixture.mixture_at(net, found.params, found.state, x)
    fig, (left, middle, right) = plots.figure(1, 3, width=3.8, height=4.0)
    for ax in (left, middle):
        label = "1,000 of the 4,000 examples" if ax is left else None
        ax.plot(points.x[:1000], points.y[:1000], ".", color="0.6", markersize=2.5, label=label)
        ax.set(xlabel="x", ylabel="y", xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    left.plot(x, mean_net.predict(mean.params, mean.state, x), color=COLOURS[2], linewidth=2.5, label="least squares")
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    left.plot(middles, means, "o", color="black", markersize=3.5, label="mean of y in 200,000 draws")
    fitted = np.asarray(mean_net.predict(mean.params, mean.state, jnp.asarray(middles[:, None], jnp.float32)))[:, 0]
    left.set_title(f"squared error: the mean, to {np.sqrt(np.mean((fitted - means) ** 2)):.2f} (rms)")
    p = mixture.density(predicted, y)
    middle.contour(x[:, 0], y, p.T, levels=LEVELS, colors="0.35", linewidths=0.8, zorder=3)
    for m, colour in enumerate((COLOURS[0], COLOURS[1], COLOURS[3])):
        drawn = np.asarray(predicted.weights[:, m] > 0.1) & _near(points, np.asarray(x[:, 0]), predicted.means[:, m])
        centre = np.where(drawn, predicted.means[:, m], np.nan)
        middle.plot(x, centre, color=colour, linewidth=2.5, zorder=4, label=f"component {m + 1}")
        right.plot(x, predicted.weights[:, m], color=colour, linewidth=2, label=f"component {m + 1}")
    middle.set_title("mixture: density and means")
    right.set(xlabel="x", ylabel="mixing weight", title="mixing weights", xlim=(-0.1, 1.1), ylim=(-0.02, 1.02))
    shared_legend(fig, (left, middle), columns=3)
    return fig


def _near(points: Dataset, x: np.ndarray, y: Any, distance: float = 0.02) -> np.ndarray:
    """Whether an example lies within `distance` of each point (x_i, y_i)."""
    places = np.stack([x, np.asarray(y, np.float64)], axis=1)
    examples = np.concatenate([points.x, points.y], axis=1)
    return np.asarray([np.min(np.linalg.norm(examples - place, axis=1)) < distance for place in places])


PICTURES = (
    Picture(
        "saturation",
        "Cross-entropy and squared error on a saturated sigmoid",
        "A sigmoid unit is trained to output 0. The derivative of the squared error vanishes where the unit is most "
        "wrong (left), so that a start at y = 0.99 hardly moves for 100 steps (middle), and the number of steps grows "
        "exponentially with z (right). The derivative of cross-entropy is y - d, and the number of steps grows "
        "linearly.",
        r"\frac{\partial}{\partial z} \frac{1}{2}(y-d)^2 = (y-d)\, y\, (1-y) \qquad "
        r"\frac{\partial}{\partial z} \left[-d \log y - (1-d) \log(1-y)\right] = y - d",
        "Solla, S. A., Levin, E. & Fleisher, M. (1988). Accelerated learning in layered neural networks.",
        _saturation,
    ),
    Picture(
        "mixture-density",
        "Mixture-density regression on an inverse problem",
        "For some x three values of y are valid. Least squares learns their mean, which need not be one of them (left; "
        "black: the mean of y in bins of 200,000 draws). A network that outputs a mixture of three Gaussians follows "
        "all branches and predicts their probabilities (middle: contours of p(y|x) at 0.5, 1, 2, 4, 8, and the mean of "
        "each component where its weight is above 0.1 and examples lie; right: the weights).",
        r"x = y + 0.3 \sin 2 \pi y + \mathrm{noise} \qquad "
        r"p(y|x) = \sum_m a_m(x)\, N(y;\, \mu_m(x),\, \sigma_m(x)^2)",
        "Bishop, C. M. (1994). Mixture density networks.",
        _mixture,
    ),
)

"""Figures of Gaussian units about centres, and of kernel machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from jaxnn import plots
from jaxnn.classic import kernel, radial
from jaxnn.data import Dataset, toy
from jaxnn.gallery.base import Picture, legend_below
from jaxnn.plots import COLOURS
from jaxnn.types import Array

UNITS = (4, 8, 12, 20, 40)
"""Numbers of Gaussian units whose errors are compared; the last is that of the examples."""

WIDTH = 0.5
"""Of the kernel."""


def wave(x: Array) -> Array:
    """sin(3 pi x) + x / 2, element-wise."""
    return jnp.sin(3 * jnp.pi * x) + x / 2


def _draw_radial() -> Figure:
    fig, (curve, errors, plane) = plots.figure(1, 3, width=4.6, height=3.9)
    x, fine = jnp.linspace(-1, 1, UNITS[-1])[:, None], jnp.linspace(-1, 1, 400)[:, None]
    noisy = wave(x) + 0.25 * jax.random.normal(jax.random.key(0), x.shape)
    found = {units: _evenly(x, noisy, units) for units in UNITS}
    for units, colour, dash in ((8, COLOURS[0], "-"), (40, COLOURS[1], "--")):
        curve.plot(fine, radial.predict(found[units], fine), dash, color=colour, linewidth=2, label=f"{units} units")
    bumps = radial.features(fine, found[8].centres, width=found[8].width)[:, 1:]
    curve.plot(fine, bumps / 2 - 2.4, color="0.6", linewidth=1)
    curve.plot(x, noisy, ".", color="black", markersize=5, label="40 examples")
    curve.set(xlabel="x", ylabel="y", ylim=(-2.5, 3.0), xticks=[-1, -0.5, 0, 0.5, 1])
    curve.set_title("sums of Gaussians (grey: 8, not to scale)", fontsize=12)
    curve.legend(fontsize=10, loc="upper left", ncols=2)
    for name, inputs, targets, colour in (
        ("at the examples", x, noisy, COLOURS[0]),
        ("against the function", fine, wave(fine), COLOURS[1]),
    ):
        differences = [np.asarray(radial.predict(net, inputs) - targets) for net in found.values()]
        rms = [np.sqrt(np.mean(each**2)) for each in differences]
        errors.plot(UNITS, rms, "o-", color=colour, linewidth=2, label=name)
    errors.set(yscale="log", xlabel="Gaussian units", ylabel="rms error")
    errors.set_title("a unit at every example interpolates", fontsize=12)
    errors.legend(fontsize=10, loc="lower left")
    points = moons(200)
    centres = radial.kmeans(points.x, jax.random.choice(jax.random.key(1), points.x, (12,), replace=False))
    net = radial.fit(points.x, points.y, centres=centres, width=radial.spacing(centres), penalty=1e-3)
    wrong = _regions(plane, points, lambda grid: radial.predict(net, grid))
    for centre in np.asarray(centres):
        plane.add_patch(Circle(centre, float(net.width), fill=False, color="black", linewidth=0.8))
    plane.plot(centres[:, 0], centres[:, 1], "x", color="black", markersize=7, markeredgewidth=2)
    plane.set_aspect("equal")  # circles are round
    plane.set_title(f"12 units, centres by k-means: {wrong} of 200 wrong", fontsize=12)
    legend_below(plane, columns=2)
    return fig


def _evenly(x: Array, y: Array, units: int) -> radial.Network:
    """Centres evenly spaced on [-1, 1], as wide as their distance; the penalty only keeps the system well-posed."""
    centres = jnp.linspace(-1, 1, units)[:, None]
    return radial.fit(x, y, centres=centres, width=2 / (units - 1), penalty=1e-6)


def moons(n: int) -> Dataset:
    """Two moons that overlap a little, with labels -1 and +1."""
    points = toy.two_moons(jax.random.key(0), n, noise=0.22)
    return Dataset(points.x, 2 * points.y - 1, points.name)


def _draw_kernels() -> Figure:
    fig, axes = plots.figure(1, 3, width=4.6, height=4.2)
    points = moons(120)
    gram = kernel.gaussian(points.x, points.x, width=WIDTH)
    online = kernel.perceptron(gram, points.y)
    machine = kernel.support(gram, points.y, c=1.0)
    machines = (
        (f"perceptron, {int(online.mistakes)} mistakes", online.w, 0.0),
        ("ridge regression", kernel.ridge(gram, points.y, penalty=0.1), 0.0),
        ("support vector machine", jnp.asarray(machine.a, jnp.float32), machine.bias),
    )
    for ax, (name, a, bias) in zip(axes, machines, strict=True):

        def f(grid: Array, a: Array = a, bias: float = bias) -> Array:
            return kernel.gaussian(grid, points.x, width=WIDTH) @ a + bias

        wrong = _regions(ax, points, f)
        used = np.asarray(points.x)[np.asarray(a) != 0]
        ax.scatter(used[:, 0], used[:, 1], s=70, facecolors="none", edgecolors="black", linewidths=0.9,
                   label="example that is used")  # fmt: skip
        ax.set_title(f"{name}:\n{len(used)} of 120 examples used, {wrong} wrong", fontsize=12)
    points_of, names = axes[0].get_legend_handles_labels()
    lines = [Line2D([], [], color="black", linewidth=2), Line2D([], [], color="black", linewidth=1, linestyle="--")]
    fig.legend(
        [*points_of, *lines], [*names, "f = 0", "f = -1 and 1"], loc="outside lower center", ncols=5, fontsize=11
    )
    return fig


def _regions(ax: Any, points: Dataset, f: Callable[[Array], Array]) -> int:
    """The plane by the sign of f, lines at -1, 0 and 1, and the points by class; returns how many are misclassified."""
    low, high = np.asarray(points.x).min(0) - 0.5, np.asarray(points.x).max(0) + 0.5
    xs, ys = (np.linspace(a, b, 120, dtype=np.float32) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    values = np.asarray(f(jnp.asarray(grid))).reshape(120, 120)
    ax.contourf(xs, ys, values, [-99, 0, 99], colors=COLOURS[:2], alpha=0.2)
    ax.contour(xs, ys, values, [-1, 0, 1], colors="black", linewidths=[1, 2, 1], linestyles=["--", "-", "--"])
    y = np.asarray(points.y)
    for label, marker, colour in ((-1, "s", COLOURS[0]), (1, "o", COLOURS[1])):
        mine = np.asarray(points.x)[y == label]
        ax.plot(mine[:, 0], mine[:, 1], marker, color=colour, markersize=4, linestyle="none", label=f"y = {label:+d}")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return int((np.sign(np.asarray(f(points.x))) != y).sum())


PICTURES = (
    Picture(
        "radial-basis",
        "Radial basis networks",
        "The outputs of Gaussian units about fixed centres are added up, with weights found by least squares. Eight of "
        "them follow the function through 40 noisy examples; one at every example reproduces the noise, and the error "
        "against the function is twice as large (left, middle). Where the data fill parts of a plane, k-means places "
        "the centres (right: crosses; the circles have the radius of the width, the lines are at y = -1, 0 and 1).",
        r"y(x) = b + \sum_m w_m\, e^{-|x - c_m|^2 / 2 \sigma^2}",
        "Broomhead, D. S. & Lowe, D. (1988). Multivariable functional interpolation and adaptive networks. Moody, J. & "
        "Darken, C. J. (1989). Fast learning in networks of locally-tuned processing units.",
        _draw_radial,
    ),
    Picture(
        "kernel-machines",
        "Kernel machines",
        "Three machines with the same Gaussian kernel on 120 points of two moons; the examples that they use, with a "
        "coefficient other than 0, are ringed. The perceptron stops when all are classified correctly, and bends "
        "around single points; ridge regression uses every example. The support vector machine tolerates violations of "
        "its margin at a price, and uses only examples on the margin (dashed) or on the wrong side of it.",
        r"f(x) = \sum_i a_i\, K(x_i, x) + b, \qquad K(x, z) = e^{-|x - z|^2 / 2 \sigma^2}",
        "Aizerman, M. A., Braverman, E. M. & Rozonoer, L. I. (1964). Theoretical foundations of the potential function "
        "method in pattern recognition learning. Saunders, C., Gammerman, A. & Vovk, V. (1998). Ridge regression "
        "learning algorithm in dual variables. Cortes, C. & Vapnik, V. (1995). Support-vector networks.",
        _draw_kernels,
    ),
)

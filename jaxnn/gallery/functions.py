"""Figures of functions of one and of two variables: their stationary points, descent, differences, enumeration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import layers, optim, plots, train
from jaxnn.backprop import differences, rule_of
from jaxnn.classic import boolean, brute_force, stationary
from jaxnn.classic.threshold import THRESHOLD
from jaxnn.gallery import surfaces
from jaxnn.gallery.base import Picture
from jaxnn.models import serial
from jaxnn.plots import COLOURS
from jaxnn.types import Array

CURVES: dict[str, tuple[Callable[[Array], Array], tuple[float, float]]] = {
    "$x^5/5 - 4x^3/3$": (lambda x: x**5 / 5 - 4 * x**3 / 3, (-2.7, 2.7)),
    "$x^4 e^{-x}$": (lambda x: x**4 * jnp.exp(-x), (-0.9, 9.0)),
    "$\\max(|x| - 1, 0)^2$": (lambda x: jnp.maximum(jnp.abs(x) - 1, 0) ** 2, (-2.5, 2.5)),
}
"""Functions of one variable, and the intervals of their plots."""

PARABOLA = (2.5, 15)
"""Start and number of steps of descent on x^2."""

REGIMES: dict[str, optim.Optimizer] = {
    "too small: η = 0.02": optim.sgd(0.02),
    "good: η = 0.3": optim.sgd(0.3),
    "oscillating: η = 0.95": optim.sgd(0.95),
    "diverging: η = 1.03": optim.sgd(1.03),
    "sign rule: step 0.4": optim.sign_sgd(0.4),
}
"""Rules of descent on x^2."""

BALL_START, BALL_RATE, BALL_STEPS = -1.8, 0.02, 200
BALLS = (0.0, 0.8, 0.9)
"""Momenta of the ball."""

STEPS = np.geomspace(1.0, 1e-20, 81)
"""Step sizes of differences, from large to small."""

VALUES = (-1.0, 0.0, 1.0)
"""Of every weight and bias of the enumerated networks."""

XOR_NET = serial(layers.Dense(2), THRESHOLD, layers.Dense(1), THRESHOLD)
"""Two hidden threshold units and one output: nine weights and biases."""


def basin(x: Array) -> Array:
    """x^4/4 - x^3/3 - x^2: a shallow minimum at -1, a deep one at 2, between them a maximum at 0."""
    return x**4 / 4 - x**3 / 3 - x**2


def smooth(x: Array) -> Array:
    """e^x / (sin^3 x + cos^3 x), analytic, the example of Squire and Trapp at x = 1.5."""
    return jnp.exp(x) / (jnp.sin(x) ** 3 + jnp.cos(x) ** 3)


def _turning_points() -> Figure:
    """Three functions above their derivatives, with their stationary points."""
    fig, axes = plots.figure(2, len(CURVES), width=4.3, height=2.9, sharex="col")
    for (above, below), (name, (f, (low, high))) in zip(axes.T, CURVES.items(), strict=True):
        x = jnp.linspace(low, high, 601)
        above.plot(x, f(x), color="black", linewidth=1.8)
        below.plot(x, jax.vmap(jax.grad(f))(x), color=COLOURS[0], linewidth=1.8)
        below.axhline(0, color="grey", linewidth=0.8)
        for point in stationary.in_interval(f, low, high):
            surfaces.mark(above, point.x, point.value, point.kind)
            surfaces.mark(below, point.x, 0.0, point.kind)
            for ax in (above, below):
                ax.axvline(float(point.x), color="grey", linestyle=":", linewidth=0.9, zorder=0)
        above.set_title(f"f(x) = {name}", fontsize=12)
        below.set_xlabel("x", fontsize=11)
        above.set_ylabel("f(x)", fontsize=11)
        below.set_ylabel("f'(x)", fontsize=11)
    surfaces.legend_of_kinds(fig, ("minimum", "maximum", "inflection", "degenerate"))
    return fig


def _descent() -> Figure:
    """Descent on x^2 by four rates and the sign rule: the points on the curve, and |x| at each step."""
    start, steps = PARABOLA
    fig, axes = plots.figure(2, 3, width=4.1, height=3.0)
    x = np.linspace(-3.3, 3.3, 201)
    last = axes.flat[-1]
    for ax, (name, opt), colour in zip(axes.flat, REGIMES.items(), COLOURS, strict=False):
        way = np.asarray(train.trajectory(lambda x: x**2, opt, start, steps=steps).x)
        ax.plot(x, x**2, color="black", linewidth=1)
        ax.plot(way, way**2, "-o", color=colour, markersize=4.5, linewidth=1, label=name)
        ax.plot(way[0], way[0] ** 2, "o", markerfacecolor="white", markeredgecolor="black", markersize=8)
        ax.set(xlim=(-4, 4), ylim=(-0.6, 11.5))
        ax.set_title(f"{name}\nafter {steps} steps x = {way[-1]:.2g}", fontsize=11)
        ax.set_xlabel("x", fontsize=11)
        ax.set_ylabel("$f(x) = x^2$", fontsize=11)
        last.plot(np.abs(way), "-o", color=colour, markersize=3, linewidth=1.5, label=name)
    last.set(yscale="log", ylim=(1e-7, 1e2), xticks=range(0, steps + 1, 3))
    last.set_xlabel("step", fontsize=11)
    last.set_ylabel("distance from the minimum, |x|", fontsize=11)
    last.grid(alpha=0.3)
    last.legend(fontsize=8, loc="lower left")
    last.set_title("All five", fontsize=11)
    return fig


def _ball() -> Figure:
    """A ball with three momenta on a curve with a shallow and a deep basin."""
    fig, axes = plots.figure(2, len(BALLS), width=4.2, height=2.8)
    x = np.linspace(-2.05, 2.9, 301)
    points = stationary.in_interval(basin, -2, 3)
    for i, (momentum, way) in enumerate(balls().items()):
        above, below = axes[:, i]
        above.plot(x, np.asarray(basin(jnp.asarray(x))), color="black", linewidth=1.2)
        heights = np.asarray(basin(jnp.asarray(way)))
        above.plot(way, heights, "-o", color=COLOURS[i], markersize=4, linewidth=0.8, alpha=0.8)
        above.plot(way[0], heights[0], "o", markerfacecolor="white", markeredgecolor="black", markersize=9)
        end = min(points, key=lambda p: abs(float(p.x) - way[-1]))
        above.set_title(f"$\\gamma$ = {momentum:g}: ends at the minimum x = {float(end.x):.0f}", fontsize=11)
        below.plot(way, color=COLOURS[i], linewidth=1.5)
        for point in points:
            surfaces.mark(above, point.x, point.value, point.kind)
            below.axhline(float(point.x), color="grey", linestyle=":", linewidth=0.9)
            below.annotate(point.kind, (BALL_STEPS, float(point.x)), ha="right", va="bottom", fontsize=9)
        above.set(xlim=(-2.1, 3), ylim=(-3.2, 3.6))
        below.set(ylim=(-2.1, 3))
        above.set_xlabel("x", fontsize=11)
        below.set_xlabel("step", fontsize=11)
    axes[0, 0].set_ylabel("f(x)", fontsize=11)
    axes[1, 0].set_ylabel("x", fontsize=11)
    return fig


@functools.cache
def balls() -> dict[float, np.ndarray]:
    """The points of the ball for each momentum, (BALL_STEPS + 1,) each."""
    runs = {g: optim.sgd(BALL_RATE, momentum=g or None) for g in BALLS}
    made = {g: train.trajectory(basin, opt, BALL_START, steps=BALL_STEPS).x for g, opt in runs.items()}
    return {g: np.asarray(way) for g, way in made.items()}


def _differences() -> Figure:
    """Errors of three quotients against the step, in two precisions; and a check of a right and of a wrong rule."""
    fig, axes = plots.figure(1, 3, width=4.5, height=4.0, sharey=True)
    for ax, precision in zip(axes, ("float64", "float32"), strict=False):
        eps = float(np.finfo(precision).eps)
        lines = zip(quotient_errors(precision).items(), COLOURS, ("-", "--", "-."), strict=False)
        for (name, errors), colour, dash in lines:
            # Errors of rounding jump between 0 and eps; on log axes 0 has no place.
            ax.plot(STEPS, np.maximum(errors, eps / 4), dash, color=colour, linewidth=1.8, label=name)
        ax.axhline(eps, color="grey", linestyle=":", linewidth=1)
        ax.set_title(f"{precision}, ε = {eps:.1e}", fontsize=12)
    for (name, errors), colour in zip(rule_errors().items(), (COLOURS[2], COLOURS[1]), strict=True):
        axes[2].plot(STEPS, errors, color=colour, linewidth=1.8, label=name)
    axes[2].set_title("A layer's rule against central differences", fontsize=12)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlim=(1, 1e-20), ylim=(1e-17, 1e7))
        ax.set_xlabel("step h", fontsize=11)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9, loc="upper left")
    axes[0].set_ylabel("relative error", fontsize=11)
    return fig


@functools.cache
def quotient_errors(precision: str) -> dict[str, np.ndarray]:
    """The relative error of each quotient of `smooth` at 1.5 for each of `STEPS`."""
    methods: dict[str, Callable[..., Any]] = {
        "one-sided": differences.one_sided, "central": differences.central, "complex step": differences.complex_step,
    }  # fmt: skip
    with jax.enable_x64(True):
        x, steps = jnp.asarray(1.5, precision), jnp.asarray(STEPS, precision)
        made = {name: jax.jit(functools.partial(differences.errors_by_step, m, smooth))(x, steps) for name, m in
                methods.items()}  # fmt: skip
        return {name: np.asarray(errors, np.float64) for name, errors in made.items()}


@functools.cache
def rule_errors() -> dict[str, np.ndarray]:
    """How far central differences with each of `STEPS` are from layer normalization's rule, and from a wrong one."""
    layer = layers.LayerNorm()
    with jax.enable_x64(True):
        draws = (jax.random.normal(key, (2, 5), jnp.float64) for key in jax.random.split(jax.random.key(0), 2))
        (x, dy), rule = draws, rule_of(layer)
        params = {"scale": jnp.linspace(0.5, 1.5, 5), "shift": jnp.zeros(5)}
        _, _, cache = rule.forward(layer, params, (), x, key=None, train=True)
        right = rule.input_grad(layer, params, cache, dy)
        scaled = dy * params["scale"] * cache.inverse
        wrong = right + jnp.mean(scaled, -1, keepdims=True)  # the mean's term left out

        def by_differences(step: Array) -> Array:
            def along(v: Array) -> Array:
                return jnp.sum(dy * differences.central(lambda x: layer.apply(params, (), x)[0], x, v, step=step))

            return jax.vmap(along)(jnp.eye(x.size).reshape(x.size, *x.shape)).reshape(x.shape)

        found = jax.jit(jax.vmap(by_differences))(jnp.asarray(STEPS))
        size = jnp.max(jnp.abs(right))
        return {
            name: np.asarray(jnp.max(jnp.abs(found - claimed), axis=(1, 2)) / size)
            for name, claimed in (("right rule", right), ("wrong: without the mean's term", wrong))
        }


class Enumerated(NamedTuple):
    """All settings of the 2-2-1 network for XOR: how many have each number of mistakes, and the best one."""

    mistakes: np.ndarray
    found: brute_force.Search


@functools.cache
def enumerated() -> Enumerated:
    """The search for XOR over `VALUES`."""
    x, y = jnp.asarray(boolean.inputs(2), jnp.float32), jnp.array([0.0, 1.0, 1.0, 0.0])
    params = jax.eval_shape(lambda: XOR_NET.init(jax.random.key(0), (2,))[0])
    like = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
    found = brute_force.search(lambda p: jnp.sum(jnp.abs(XOR_NET.predict(p, (), x)[:, 0] - y)), like, VALUES)
    return Enumerated(np.bincount(found.costs.astype(int), minlength=5), found)


def _brute_force() -> Figure:
    """Mistakes of every setting of a tiny network, the best one, and the number of settings of larger networks."""
    mistakes, found = enumerated()
    fig, (left, middle, right) = plots.figure(1, 3, width=4.5, height=4.0)
    bars = left.bar(range(5), mistakes, color=[COLOURS[2], *["#999999"] * 4])
    left.bar_label(bars, [f"{n:,}" for n in mistakes], fontsize=10)
    left.set(yscale="log", ylim=(1, 1e5))
    left.set_xlabel("mistakes on the 4 rows of XOR", fontsize=11)
    left.set_ylabel("settings of the 9 weights and biases", fontsize=11)
    left.set_title(f"{found.settings:,} settings, {found.ties} right", fontsize=12)
    grid = np.linspace(-0.503, 1.503, 201)  # no point on an edge, where rounding decides
    plane = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2).astype(np.float32)
    shade = np.asarray(XOR_NET.predict(found.theta, (), jnp.asarray(plane))).reshape(201, 201)
    middle.contourf(grid, grid, shade, [-0.5, 0.5, 1.5], colors=["#DDDDDD", COLOURS[5]], alpha=0.6)
    for (a, b), label in zip(boolean.inputs(2), (0, 1, 1, 0), strict=True):
        middle.plot(a, b, "o", markersize=15, markerfacecolor="white", markeredgecolor="black")
        middle.annotate(str(label), (a, b), ha="center", va="center", fontsize=10)
    middle.set(aspect="equal")
    middle.set_xlabel("$x_1$", fontsize=11)
    middle.set_ylabel("$x_2$", fontsize=11)
    middle.set_title("The first of them: output 1 in blue, edges too", fontsize=12)
    weights = np.arange(1, 1001)
    for values, colour in zip((2, 3, 10), COLOURS, strict=False):
        right.plot(weights, weights * np.log10(values), color=colour, linewidth=2, label=f"{values} values each")
    for name, size in SIZES.items():
        right.plot(size, size * np.log10(3), "o", color=COLOURS[1], markersize=7)
        right.annotate(f"{name}: {size}", (size, size * np.log10(3)), xytext=(12, -18) if size < 100 else (8, -100),
                       textcoords="offset points", ha="left" if size < 100 else "right", fontsize=9,
                       arrowprops=None if size < 100 else {"arrowstyle": "-", "color": "grey"})  # fmt: skip
    right.axhline(17, color="black", linestyle=":", linewidth=1.2, label="$10^{17}$: 3 years at a billion per second")
    right.set(xscale="log", yscale="log", ylim=(0.3, 1e5))
    right.set_xlabel("weights and biases P", fontsize=11)
    right.set_ylabel("digits of the number of settings, $\\log_{10} K^P$", fontsize=11)
    right.set_title("Settings of larger networks", fontsize=12)
    right.grid(alpha=0.3)
    right.legend(fontsize=9, loc="upper left")
    return fig


SIZES = {"2-2-1": 9, "4-4-1": 25, "digits, 64-10": 650}
"""Weights and biases of fully connected networks."""


PICTURES = (
    Picture(
        "turning-points",
        "Where the derivative is 0",
        "Each function above its derivative, with the points where the derivative is 0. Its sign before and after "
        "tells the kind: from - to + a minimum, from + to - a maximum, the same on both sides an inflection. At 0 the "
        "second derivative of the function in the middle is 0 too, and yet it is a minimum; on the right f' is 0 along "
        "a stretch, each point of which is degenerate (its middle is marked).",
        r"f'(x) = 0, \qquad f''(x) > 0 \Rightarrow \mathrm{minimum}, \qquad f''(x) < 0 \Rightarrow \mathrm{maximum}",
        "Fermat, P. de (1679). Methodus ad disquirendam maximam et minimam (written 1636).",
        _turning_points,
    ),
    Picture(
        "descent-one-variable",
        "Descent in one variable",
        "A step on the parabola multiplies x by 1 - 2 η. A small rate creeps, 0.3 leaves 0.4 of the distance at each "
        "step, 0.95 jumps to the other side and comes only slowly nearer, and above 1 every step leads farther away. "
        "The sign rule moves by 0.4 whatever the slope, and ends up jumping between the same two points.",
        r"x \leftarrow x - \eta\,f'(x), \qquad x \leftarrow x - s\,\mathrm{sign}(f'(x))",
        "Cauchy, A. (1847). Méthode générale pour la résolution des systèmes d'équations simultanées.",
        _descent,
    ),
    Picture(
        "ball-momentum",
        "A ball with momentum leaves a shallow basin",
        "Three balls start at -1.8 and roll down. Without momentum the ball stops in the first basin; with 0.8 it runs "
        "up the far side and rolls back; with 0.9 it runs over the maximum at 0 and ends in the deep basin. Momentum "
        "is a chance of a better minimum, not a promise.",
        r"v \leftarrow \gamma v + f'(x), \qquad x \leftarrow x - \eta v",
        "Polyak, B. T. (1964). Some methods of speeding up the convergence of iteration methods.",
        _ball,
    ),
    surfaces.STEEPEST,
    surfaces.KINDS,
    surfaces.SADDLES,
    surfaces.EXAMPLES,
    Picture(
        "finite-differences",
        "Finite differences: the error against the step",
        "The error of a one-sided quotient falls with h, that of a central one with its square, until rounding, which "
        "grows as 1/h, takes over; a complex step subtracts nothing and stays exact. Differences therefore check a "
        "hand-derived rule: on the right the rule of layer normalization agrees to 10 digits, and one with a term left "
        "out at no step.",
        r"\frac{f(x+h)-f(x)}{h}, \qquad \frac{f(x+h)-f(x-h)}{2h}, \qquad \frac{\mathrm{Im}\,f(x+ih)}{h}",
        "Squire, W. & Trapp, G. (1998). Using complex variables to estimate derivatives of real functions.",
        _differences,
    ),
    Picture(
        "brute-force",
        "Learning by trying every setting of the weights",
        "Each of the nine weights and biases of a 2-2-1 threshold network is -1, 0 or 1: of the 19,683 settings ten "
        "compute XOR, and trying all of them finds every one. The number of settings gains about a digit with every "
        "two weights, so that a linear classifier of digits is out of reach.",
        r"\theta^* = \mathrm{argmin}_\theta \; C(\theta), \qquad K^P \; \mathrm{settings}",
        "Minsky, M. & Papert, S. (1969). Perceptrons.",
        _brute_force,
    ),
)

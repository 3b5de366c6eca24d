"""Drawings of functions of two variables: gradients, kinds of stationary points, saddles, gradients of examples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import backprop, landscapes, losses, models, optim, per_example, plots, train
from jaxnn.classic import stationary
from jaxnn.gallery.base import Picture, legend_below
from jaxnn.landscapes import Landscape
from jaxnn.plots import COLOURS
from jaxnn.plots import landscape as view
from jaxnn.types import Array

MARKS = {
    "minimum": ("v", COLOURS[2]),
    "maximum": ("^", COLOURS[1]),
    "inflection": ("s", COLOURS[4]),
    "saddle": ("X", COLOURS[3]),
    "degenerate": ("D", COLOURS[5]),
}
"""Marker and colour of each kind of stationary point."""

POINT = (1.0, -2.0)
"""Where directions are compared."""

SURFACES: dict[str, Callable[[Array], Array]] = {
    "$x_1^2 + 3 x_2^2$": lambda x: x[0] ** 2 + 3 * x[1] ** 2,
    "$-3 x_1^2 - x_2^2$": lambda x: -3 * x[0] ** 2 - x[1] ** 2,
    "$x_1^2 - x_2^2$": lambda x: x[0] ** 2 - x[1] ** 2,
    "$x_1^3 - 3 x_1 x_2^2$": lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
}
"""One stationary point each, at the origin."""

OFFSETS = (0.0, 1e-8, 1e-4, 1e-1)
"""Distances of the starts from the ridge of the saddle."""

SADDLE_RATE, SADDLE_STEPS = 0.05, 250

LINE_N, LINE_RATE, LINE_EPOCHS = 20, 0.15, 2
LINE_START = (-1.2, 1.6)
"""Examples, learning rate, epochs and start (w, b) of the regression line."""


def mark(ax: Any, x: Any, y: Any, kind: str) -> None:
    """The marker of a stationary point of this kind."""
    shape, colour = MARKS[kind]
    ax.plot(float(x), float(y), shape, color=colour, markeredgecolor="black", markersize=9, zorder=6)


def legend_of_kinds(fig: Figure, kinds: Sequence[str]) -> None:
    """One legend for all axes, below them."""
    handles = [
        fig.axes[0].plot([], [], MARKS[k][0], color=MARKS[k][1], markeredgecolor="black", markersize=9)[0]
        for k in kinds
    ]
    fig.legend(handles, list(kinds), loc="outside lower center", ncols=len(kinds), fontsize=10, frameon=False)


def _arrows(ax: Any, f: Callable[[Array], Array], low: float, high: float, n: int = 13) -> None:
    """Unit arrows along the gradient, on a lattice."""
    side = np.linspace(low, high, n + 2)[1:-1]
    points = np.stack(np.meshgrid(side, side), -1)
    slopes = np.asarray(jax.vmap(jax.vmap(jax.grad(f)))(jnp.asarray(points)))
    slopes = slopes / np.maximum(np.linalg.norm(slopes, axis=-1, keepdims=True), 1e-12)
    ax.quiver(points[..., 0], points[..., 1], slopes[..., 0], slopes[..., 1], color=COLOURS[0], angles="xy", scale=22,
              width=0.006, zorder=3)  # fmt: skip


def _steepest() -> Figure:
    """Gradients on contours, and the change of f in 360 directions from one point."""
    place = landscapes.himmelblau()
    found, gradient = stationary.around(place, POINT), np.asarray(jax.grad(place)(jnp.array(POINT)))
    rise, angle = found.changes / 1e-4, np.degrees(np.arctan2(gradient[1], gradient[0])) % 360
    fig, (left, middle, right) = plots.figure(1, 3, width=4.4, height=4.2)
    for ax, bounds in ((left, ((-5, 5), (-5, 5))), (middle, ((0.0, 2.0), (-3.0, -1.0)))):
        view.contours(ax, place, bounds=bounds)
        ax.set_aspect("equal")
    _arrows(left, place, -5, 5)
    left.plot(*POINT, "o", markersize=9, markerfacecolor="white", markeredgecolor="black", zorder=5)
    left.set_title("The gradient at each point, as a unit arrow", fontsize=11)
    ring = np.array(POINT) + 0.62 * found.directions
    image = middle.scatter(*ring.T, c=rise, cmap="PuOr_r", s=26, zorder=4)
    fig.colorbar(image, ax=middle, label="change of f per distance", location="bottom", shrink=0.8)
    best = int(np.argmax(rise))
    middle.quiver(*POINT, *(0.55 * gradient / np.linalg.norm(gradient)), color=COLOURS[0], angles="xy",
                  scale_units="xy", scale=1, width=0.015, zorder=5)  # fmt: skip
    middle.set_title(f"360 directions from ({POINT[0]:g}, {POINT[1]:g})", fontsize=11)
    degrees = np.degrees(found.angles)
    right.plot(degrees, rise, color="black", linewidth=2, label="change per distance")
    right.plot(degrees, np.linalg.norm(gradient) * np.cos(np.radians(degrees - angle)), "--", color=COLOURS[4],
               linewidth=2, label="$|\\nabla f| \\cos(a - a_0)$")  # fmt: skip
    right.plot(degrees[best], rise[best], "o", color=COLOURS[1], markersize=9, label=f"best of 360: {best}°")
    right.axvline(angle, color=COLOURS[0], linestyle=":", linewidth=2, label=f"gradient: $a_0$ = {angle:.1f}°")
    right.axhline(0, color="grey", linewidth=0.8)
    right.set(xlim=(0, 360), xticks=range(0, 361, 90), ylim=(-75, 75))
    right.set_xlabel("angle a of the direction (degrees)", fontsize=11)
    right.set_ylabel("change of f per distance", fontsize=11)
    right.set_title("No direction rises more than the gradient", fontsize=11)
    legend_below(right, columns=2, fontsize=9)
    return fig


def _kinds() -> Figure:
    """Four surfaces, and below each its contours, gradients and the eigenvectors of the Hessian."""
    fig = plots.figure(1, 1, width=15.8, height=7.4)[0]
    fig.clear()
    side = np.linspace(-1, 1, 61)
    plane = np.stack(np.meshgrid(side, side), -1)
    for i, (name, f) in enumerate(SURFACES.items()):
        heights = np.asarray(jax.vmap(jax.vmap(f))(jnp.asarray(plane)))
        (point,) = stationary.in_box(f, [(-1, 1), (-1, 1)], starts=5)
        above = fig.add_subplot(2, 4, i + 1, projection="3d")
        above.plot_surface(plane[..., 0], plane[..., 1], heights, cmap="viridis", alpha=0.9, linewidth=0)
        above.set_xlabel("$x_1$", fontsize=10)
        above.set_ylabel("$x_2$", fontsize=10)
        above.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        above.set_title(f"f = {name}", fontsize=12)
        below = fig.add_subplot(2, 4, i + 5)
        below.contourf(side, side, heights, 12, cmap="Greys_r", alpha=0.35)
        below.contour(side, side, heights, 12, colors="#888888", linewidths=0.5, linestyles="solid")
        for direction in point.directions.T if point.kind != "degenerate" else ():
            below.plot(*np.outer(direction, (-0.95, 0.95)), color=COLOURS[4], linewidth=1.5)
        _arrows(below, f, -1, 1, 9)
        mark(below, point.x[0], point.x[1], point.kind)
        values = ", ".join(f"{v:g}" for v in np.round(point.curvatures, 6) + 0.0)
        below.set_title(f"{point.kind}: eigenvalues {values}", fontsize=12)
        below.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        below.set_xlabel("$x_1$", fontsize=11)
        below.set_ylabel("$x_2$", fontsize=11)
    return fig


def _saddles() -> Figure:
    """All stationary points of Himmelblau's function, and descent beside the ridge of a saddle."""
    place, saddle = landscapes.himmelblau(), landscapes.saddle()
    fig, (left, middle, right) = plots.figure(1, 3, width=4.6, height=4.3)
    view.contours(left, _without_minima(place))
    found = stationary.in_box(place, [place.bounds] * 2)
    for point in found:
        mark(left, point.x[0], point.x[1], point.kind)
    counts = {kind: sum(p.kind == kind for p in found) for kind in ("minimum", "maximum", "saddle")}
    left.set_title(f"{place.name}: {counts['minimum']} minima, {counts['saddle']} saddles, {counts['maximum']} maximum",
                   fontsize=11)  # fmt: skip
    view.contours(middle, saddle)
    mark(middle, 0, 0, "saddle")
    for (offset, way), colour in zip(escapes().items(), COLOURS, strict=False):
        right.plot(np.linalg.norm(way, axis=1), color=colour, linewidth=2, label=f"$x_2$ = {offset:g}")
    view.paths(middle, {f"{offset:g}": way for offset, way in escapes().items()}, marked=1)
    middle.set_title("$x_1^2 - x_2^2$: descent from $x_1$ = 1;\n$x_2$ = 0.1, and the other three in one", fontsize=11)
    right.set(yscale="log", ylim=(1e-9, 1e1), xlim=(0, SADDLE_STEPS))
    right.set_xlabel("step", fontsize=11)
    right.set_ylabel("distance from the saddle", fontsize=11)
    right.set_title("Away from the ridge every run leaves", fontsize=11)
    right.grid(alpha=0.3)
    right.legend(fontsize=9, title="start", loc="lower left")
    legend_of_kinds(fig, tuple(counts))
    return fig


@functools.cache
def escapes() -> dict[float, np.ndarray]:
    """Descent on x_1^2 - x_2^2 from (1, offset): points (SADDLE_STEPS + 1, 2) for each offset."""
    run = jax.vmap(lambda x: train.trajectory(landscapes.saddle(), optim.sgd(SADDLE_RATE), x, steps=SADDLE_STEPS).x)
    starts = jnp.stack([jnp.ones(len(OFFSETS)), jnp.asarray(OFFSETS)], axis=1)
    return dict(zip(OFFSETS, np.asarray(jax.jit(run)(starts)), strict=True))


def _without_minima(place: Landscape) -> Landscape:
    """The landscape without the stars that `contours` draws at its minima."""
    return Landscape(place.name, place.function, place.start, place.bounds, np.zeros((0, 2)), 0.0, np.zeros((0, 2)))


class Line(NamedTuple):
    """Regression of a line y = w x + b on 20 examples, points in (w, b).

    Attributes:
        place: the mean squared error, halved, as a landscape in (w, b).
        batch, stochastic: (updates + 1, 2), the points of gradient descent, one update for each pass, and of
            stochastic descent, one for each example.
        values: J at the points of both.
        gradients: (N, 2), of each example at the start.
        mean: (2,), the gradient of J at the start, by `jax.grad`.
    """

    place: Landscape
    batch: np.ndarray
    stochastic: np.ndarray
    values: tuple[np.ndarray, np.ndarray]
    gradients: np.ndarray
    mean: np.ndarray


@functools.cache
def line() -> Line:
    """Both descents, and the gradient of each example from one recorded backward pass."""
    x = jax.random.uniform(jax.random.key(1), (LINE_N,), minval=-1.5, maxval=1.5)
    y = 0.8 * x - 0.3 + 0.5 * jax.random.normal(jax.random.key(2), (LINE_N,))

    def cost(theta: Array) -> Array:
        return jnp.mean((theta[0] * x.astype(theta.dtype) + theta[1] - y.astype(theta.dtype)) ** 2) / 2

    best = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    place = Landscape("cost", cost, np.array(LINE_START), (-2.0, 2.4), best[None], float(cost(jnp.asarray(best))),
                      np.zeros((0, 2)))  # fmt: skip
    start, n = jnp.array(LINE_START), LINE_EPOCHS * LINE_N

    def one(theta: Array, i: Array) -> tuple[Array, Array]:
        theta = theta - LINE_RATE * (theta[0] * x[i] + theta[1] - y[i]) * jnp.stack([x[i], jnp.ones(())])
        return theta, theta

    keys = jax.random.split(jax.random.key(3), LINE_EPOCHS)
    order = jnp.concatenate([jax.random.permutation(key, LINE_N) for key in keys])
    stochastic = np.vstack([start, jax.lax.scan(one, start, order)[1]])
    batch = np.asarray(train.trajectory(cost, optim.sgd(LINE_RATE), start, steps=n).x)
    net = models.linear(1)
    params = ((), {"w": start[:1, None], "b": start[1:]})
    tape = backprop.record(net, losses.half_squared_error)(params, (), x[:, None], y[:, None])
    each = per_example.materialize(tape)[1]
    gradients = np.stack([np.asarray(each["w"])[:, 0, 0], np.asarray(each["b"])[:, 0]], axis=1)
    values = tuple(np.asarray(jax.vmap(cost)(jnp.asarray(way))) for way in (batch, stochastic))
    return Line(place, batch, stochastic, (values[0], values[1]), gradients, np.asarray(jax.grad(cost)(start)))


def _examples() -> Figure:
    """Batch and stochastic descent on one contour, the gradient of each example as an arrow, and cost against work."""
    found = line()
    fig, (left, middle, right) = plots.figure(1, 3, width=4.6, height=4.4)
    view.contours(left, found.place, bounds=((-2.0, 2.4), (-1.6, 2.2)))
    view.paths(left, {"stochastic": found.stochastic, "batch": found.batch[: LINE_N + 1]}, marked=LINE_N + 1)
    view.contours(middle, found.place, bounds=((-2.4, 1.6), (-1.4, 2.6)))
    ends = -0.3 * np.vstack([found.gradients, found.mean])
    middle.quiver(*np.tile(LINE_START, (LINE_N, 1)).T, *ends[:-1].T, color=COLOURS[0], angles="xy", scale_units="xy",
                  scale=1, width=0.005, alpha=0.8, label="of an example")  # fmt: skip
    middle.quiver(*LINE_START, *ends[-1], color=COLOURS[1], angles="xy", scale_units="xy", scale=1, width=0.014,
                  zorder=5, label="their mean: of the cost")  # fmt: skip
    for ax, title in (
        (left, f"{len(found.stochastic) - 1} stochastic and {LINE_N} batch updates"),
        (middle, "At the start: 0.3 of each negative gradient"),
    ):
        ax.set_xlabel("weight w", fontsize=11)
        ax.set_ylabel("bias b", fontsize=11)
        ax.set_title(title, fontsize=11)
        ax.legend(fontsize=9, loc="lower left")
    excess = [values - found.place.minimum_value for values in found.values]
    work = np.arange(LINE_EPOCHS * LINE_N + 1)
    right.plot(work, excess[1], "-o", color=COLOURS[0], markersize=3, label="stochastic")
    right.plot(work[::LINE_N], excess[0][: LINE_EPOCHS + 1], "-o", color=COLOURS[1], markersize=6, label="batch")
    right.set(yscale="log")
    right.set_xlabel("examples used", fontsize=11)
    right.set_ylabel("cost above the minimum, $J - J^*$", fontsize=11)
    right.set_title(f"Cost against work, η = {LINE_RATE:g}", fontsize=11)
    right.grid(alpha=0.3)
    right.legend(fontsize=9)
    return fig


STEEPEST = Picture(
    "steepest-ascent",
    "The gradient is the direction of steepest ascent",
    "The arrows are perpendicular to the contours and point uphill. From one point the change of f was measured in 360 "
    "directions: it follows the cosine of the angle to the gradient. No direction rises more than the gradient, none "
    "falls more than its opposite, and across it f hardly changes. Stars are minima, the ring is that point.",
    r"f(x + r u) - f(x) \approx r\, |\nabla f(x)| \cos(a - a_0)",
    "Cauchy, A. (1847). Méthode générale pour la résolution des systèmes d'équations simultanées.",
    _steepest,
)
KINDS = Picture(
    "stationary-kinds",
    "Stationary points of two variables",
    "The eigenvalues of the Hessian tell what surrounds a point of zero gradient: both positive a minimum, both "
    "negative a maximum, one of each a saddle. The orange lines are its eigenvectors. The last surface, a monkey "
    "saddle with three valleys, has the eigenvalues 0 and 0, which decide nothing.",
    r"\nabla f(x) = 0, \qquad H v_i = \lambda_i v_i",
    "Morse, M. (1925). Relations between the critical points of a real function of n independent variables.",
    _kinds,
)
SADDLES = Picture(
    "saddle-points",
    "Saddles, and how descent leaves them",
    "Between the four minima of Himmelblau's function lie four saddles, around its one maximum. Descent that starts "
    "exactly on the ridge of a saddle ends in it. From a distance of 0.00000001 it first comes near and then leaves, "
    "since every step multiplies that distance by 1.1: an offset 10,000 times smaller costs about 97 steps more.",
    r"x_1 \leftarrow (1 - 2\eta)\,x_1, \qquad x_2 \leftarrow (1 + 2\eta)\,x_2",
    "Himmelblau, D. M. (1972). Applied nonlinear programming.",
    _saddles,
)
EXAMPLES = Picture(
    "examples-gradients",
    "Batch and stochastic descent on one contour",
    "A line is fitted to 20 examples. The gradient of each example points its own way, and their mean is the gradient "
    "of the cost: batch descent follows it smoothly, stochastic descent wanders along single arrows. It makes 20 "
    "updates where the batch makes one, and is far nearer to the minimum (star) after the first pass.",
    r"\nabla J = \frac{1}{N} \sum_i \nabla J_i, \qquad E_i[\nabla J_i] = \nabla J",
    "Robbins, H. & Monro, S. (1951). A stochastic approximation method.",
    _examples,
)

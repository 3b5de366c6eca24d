"""The vectors of one update: of a perceptron, and of descent with momentum; Adagrad's learning rate over many."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import landscapes, optim, plots
from jaxnn.classic import perceptron
from jaxnn.gallery.base import Picture
from jaxnn.plots import COLOURS
from jaxnn.plots import landscape as view
from jaxnn.types import Array

BLUE, ORANGE, GREEN, PURPLE = COLOURS[:4]


class Meeting(NamedTuple):
    """A perceptron without bias and an example: weights, features, label."""

    w: tuple[float, float]
    x: tuple[float, float]
    y: float


MEETINGS = (
    Meeting((2.0, 1.0), (0.5, -2.0), 1.0),
    Meeting((2.0, 1.5), (1.0, -0.3), -1.0),
    Meeting((2.0, 1.0), (1.2, -0.8), 1.0),
)
"""A mistake that one update corrects, one that it does not, and no mistake."""


def _perceptron_update() -> Figure:
    """The vectors of one update of a perceptron, and the boundaries before and after it."""
    fig, axes = plots.figure(1, 3, width=3.8, height=4.6)
    handles: dict[str, Any] = {}
    for ax, met in zip(axes, MEETINGS, strict=True):
        w, x = np.array(met.w), np.array(met.x)
        after, mistake = map(np.asarray, perceptron.update(*map(jnp.asarray, met)))
        ax.set(xlim=(-2.4, 3.4), ylim=(-3.0, 3.4), aspect="equal", xlabel="$w_1$, $x_1$")
        ends = 9 * np.array([-after[1], after[0]]) / np.hypot(*after)
        ax.fill(*np.array([ends, -ends, -ends + 9 * after, ends + 9 * after]).T, color=BLUE, alpha=0.12, linewidth=0,
                label="output +1 afterwards")  # fmt: skip
        ax.axline((0, 0), tuple(ends), color="black", label="boundary afterwards")
        if mistake:
            ax.axline((0, 0), (-w[1], w[0]), color="grey", linestyle="--", label="boundary before")
            plots.arrow(ax, w, met.y * x, "$y x$", colour=PURPLE, side=1.2)
            plots.arrow(
                ax, (0, 0), after, "$w + y x$", colour="black", side=2 * met.y * np.sign(w[0] * x[1]), along=0.65
            )
        plots.arrow(ax, (0, 0), w, "$w$", colour="grey" if mistake else "black", side=-np.sign(met.y * w[0] * x[1]))
        marker, colour = ("o", ORANGE) if met.y > 0 else ("s", GREEN)
        ax.plot(*x, marker, color=colour, markersize=9, zorder=6, label=f"x of class y = {met.y:+.0f}")
        before, now = float(w @ x), float(after @ x)
        told = f"then {now:.2f}: {'corrected' if met.y * now > 0 else 'still a mistake'}" if mistake else "as before"
        ax.set_title(f"y = {met.y:+.0f}: {'a mistake, so update' if mistake else 'no mistake, no update'}\n"
                     f"$w \\cdot x$ = {before:.2f}, {told}", fontsize=11)  # fmt: skip
        handles |= {str(each.get_label()): each for each in (*ax.patches, *ax.lines)}
    axes[0].set_ylabel("$w_2$, $x_2$")
    fig.legend(handles=list(handles.values()), fontsize=9, ncols=5, loc="outside lower center")
    fig.suptitle("One update of a perceptron without bias, whose output is the sign of $w \\cdot x$", fontsize=12)
    return fig


class Momentum(NamedTuple):
    """A point of descent with momentum: the condition number of the quadratic, the point, v, the rate, v's decay."""

    condition: float = 6.0
    theta: tuple[float, float] = (-1.6, 0.6)
    v: tuple[float, float] = (-1.0, 1.0)
    rate: float = 0.12
    decay: float = 0.9


def _momentum_vectors() -> Figure:
    """One step of momentum and one of Nesterov's, from the same point with the same v."""
    at = Momentum()
    place, theta, kept = landscapes.quadratic(at.condition), np.array(at.theta), -at.decay * np.array(at.v)
    value = jax.jit(jax.value_and_grad(place))
    fig, axes = plots.figure(1, 2, width=5.4, height=4.6, sharey=True)
    names = (("Momentum", r"\theta", theta), ("Nesterov", r"\theta - \gamma v", theta + kept))
    for ax, (name, symbol, point) in zip(axes, names, strict=True):
        step = -at.rate * np.asarray(value(jnp.asarray(point, jnp.float32))[1], np.float64)
        view.contours(ax, place, bounds=((-2.1, 0.5), (-1.1, 1.1)))
        left = float(np.sign(kept[0] * step[1] - kept[1] * step[0]))  # of -gamma v, the step turns left (1) or right
        plots.arrow(ax, theta, kept, r"$-\gamma v$", colour=BLUE, side=-1.4 * left)
        plots.arrow(ax, theta + kept, step, rf"$-\eta\,\nabla J({symbol})$", colour=ORANGE,
                    side=-float(np.sign(step[1])) * (3.2 if name == "Momentum" else 4.3))  # fmt: skip
        plots.arrow(ax, theta, kept + step, "step", colour="black", side=1.4 * left)
        ax.plot(*theta, "o", color="black", markersize=7, zorder=6)
        ax.plot(*point, "D", color=ORANGE, markersize=6, zorder=7, label="where the gradient is taken")
        before, after = (float(value(jnp.asarray(p, jnp.float32))[0]) for p in (theta, theta + kept + step))
        ax.set_title(f"{name}: J = {before:.2f}, then {after:.2f}", fontsize=12)
        ax.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$" if name == "Momentum" else "")
        ax.legend(fontsize=9, loc="upper right")
    return fig


STEPS, PERIOD, RUNS = 4000, 500, 64
"""Steps of descent towards a moving minimum, the period of its motion, and the number of runs."""

RATES = {"Adagrad": 0.5, "RMSprop": 0.05}
"""Learning rates of the two rules that follow a moving minimum."""


def following(opt: optim.Optimizer) -> tuple[np.ndarray, Any]:
    """The iterates (STEPS, RUNS) and the states of an optimizer that follows a moving minimum.

    The gradient is theta - sin(2 pi t / PERIOD) plus noise of variance 1; theta starts at 0.
    """

    def step(carry: tuple[Array, Any], t: Array) -> tuple[tuple[Array, Any], tuple[Array, Any]]:
        theta, state = carry
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), t), theta.shape)
        updates, state = opt.update(theta - jnp.sin(2 * jnp.pi * t / PERIOD) + noise, state, theta)
        theta = optim.apply_updates(theta, updates)
        return (theta, state), (theta, state)

    start = jnp.zeros(RUNS)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(STEPS))[1])
    return jax.device_get(run((start, opt.init(start))))


def _adagrad_rate() -> Figure:
    """The learning rates of Adagrad and RMSprop at each step, and how both follow a moving minimum."""
    t = np.arange(STEPS)
    fig, (left, right) = plots.figure(1, 2, width=5.6, height=4.4)
    found = {
        "Adagrad": following(optim.adagrad_as_published(RATES["Adagrad"])),
        "RMSprop": following(optim.rmsprop(RATES["RMSprop"], decay=0.99)),
    }
    ends = []
    for (name, (theta, state)), colour, formula in zip(
        found.items(), COLOURS, (r"\eta / \sqrt{\sum g^2}", r"\eta / \sqrt{\mathrm{mean}\ g^2}"), strict=False
    ):
        squares = state.sum_of_squares if name == "Adagrad" else state.nu
        rates = np.median(RATES[name] / np.sqrt(squares), axis=1)
        left.loglog(t + 1, rates, color=colour, linewidth=2, label=f"{name}: ${formula}$")
        right.plot(t, theta.mean(axis=1), color=colour, linewidth=2, label=f"{name}, $\\eta$ = {RATES[name]:g}")
        ends.append(f"{name} {np.abs(theta.mean(axis=1)[-PERIOD:]).max():.2f}")
    left.loglog(t + 1, RATES["Adagrad"] / np.sqrt(t + 1), ":", color="black", label=r"$\eta / \sqrt{t}$")
    right.plot(t, np.sin(2 * np.pi * t / PERIOD), ":", color="black", label="the minimum")
    left.set(xlabel="step t", ylabel=f"learning rate of a parameter, median of {RUNS}")
    right.set(xlabel="step t", ylabel=f"parameter, mean of {RUNS}", ylim=(-1.15, 1.75))
    left.set_title(r"Adagrad's rate falls like $1 / \sqrt{t}$", fontsize=12)
    right.set_title(f"last amplitude: {', '.join(ends)}", fontsize=12)
    left.legend(fontsize=9, loc="lower left")
    right.legend(fontsize=9, loc="upper center", ncols=3)
    for ax in (left, right):
        ax.grid(alpha=0.3)
    return fig


PICTURES = (
    Picture(
        "perceptron-update",
        "One update of a perceptron",
        "On a mistake y x is added to the weights. The boundary, perpendicular to w, turns towards the example's "
        "correct side, and y w . x grows by the squared norm of x. One update may suffice, left, or not, centre; "
        "without a mistake nothing changes, right.",
        r"w \leftarrow w + y\,x \;\; \mathrm{if} \;\; \mathrm{sign}(w \cdot x) \neq y, \quad "
        r"y\,(w + y\,x) \cdot x = y\,w \cdot x + |x|^2",
        "Rosenblatt (1958), The perceptron: a probabilistic model for information storage and organization in the "
        "brain",
        _perceptron_update,
    ),
    Picture(
        "momentum-vectors",
        "Momentum and Nesterov's momentum, one step",
        "Both rules add a gradient step to the decayed velocity. Momentum takes the gradient at the current point, "
        "where descent still points down to the valley, and overshoots it. Nesterov's rule takes it at the point to "
        "which the velocity leads, already beyond the valley; there descent points back, and the step ends at a lower "
        "value. The star is the minimum.",
        r"v \leftarrow \gamma v + \eta\, \nabla J(\theta) \;\; \mathrm{or} \;\; "
        r"\gamma v + \eta\, \nabla J(\theta - \gamma v), \quad \theta \leftarrow \theta - v",
        "Polyak (1964), Some methods of speeding up the convergence of iteration methods; Nesterov (1983), A method "
        "for solving the convex programming problem with convergence rate O(1/k^2)",
        _momentum_vectors,
    ),
    Picture(
        "adagrad-rate",
        "Adagrad's falling learning rate",
        "Two rules follow a minimum that moves to and fro, by noisy gradients. Adagrad divides its learning rate by "
        "the root of the sum of all squared gradients, which only grows, so that it follows less with every period. "
        "RMSprop divides by the root of their mean over about the last 100 steps: its rate settles, and it keeps "
        "following.",
        r"\mathrm{Adagrad:}\ \eta / \sqrt{\sum_t g_t^2}, \quad \mathrm{RMSprop:}\ \eta / \sqrt{\nu}, \;\; "
        r"\nu \leftarrow 0.99\, \nu + 0.01\, g^2",
        "Duchi, Hazan & Singer (2011), Adaptive subgradient methods for online learning and stochastic optimization; "
        "Zeiler (2012), ADADELTA: an adaptive learning rate method; Tieleman & Hinton (2012), RMSprop",
        _adagrad_rate,
    ),
)

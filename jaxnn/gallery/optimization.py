"""Figures of gradient descent, step sizes, local minima, games, and a GAN during training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import data, landscapes, optim, plots, train
from jaxnn.classic import gan
from jaxnn.gallery.base import Picture, shared_legend
from jaxnn.landscapes import Landscape
from jaxnn.plots import landscape as view
from jaxnn.train import minmax
from jaxnn.types import Key, Params

VALLEY = ((-1.6, 1.4), (-0.6, 1.8))
"""The plotted part of Rosenbrock's valley."""

KAPPA = 10.0
"""Condition number of the quadratic for the comparison of step sizes."""

RATE = 0.2
"""Learning rate of all players of the bilinear game."""

SEEDS = 5
"""Number of GANs per rule in the coverage figure."""

RING_STEPS, RING_LOOKS = 125, 16
"""Steps of a GAN of the ring between two snapshots of its samples, and the number of snapshots."""

DIGIT_STEPS, DIGIT_LOOKS = 300, 10
"""The same two numbers for the GAN of the digits."""

_RING_GAN = gan.make(2)

DIGIT_RULE = gan.Rule(minmax.alternating, optim.adam(1e-3, b1=0.5))
"""The rule of the GAN of the digits."""


def _rules() -> Figure:
    """Rules of `optim` in a narrow valley and on a plateau: their trajectories and values."""
    chosen = {
        "gradient descent": (optim.sgd(1.5e-3), optim.sgd(1.0)),
        "momentum 0.9": (optim.sgd(1e-3, momentum=0.9), optim.sgd(1.0, momentum=0.9)),
        "RMSprop": (optim.rmsprop(0.02), optim.rmsprop(0.1)),
        "Adam": (optim.adam(0.1), optim.adam(0.1)),
        "sign step": (optim.sign_sgd(0.02), optim.sign_sgd(0.07)),
    }
    fig, axes = plots.figure(3, len(chosen), width=2.4, height=2.7, gridspec_kw={"height_ratios": (1, 1, 1.5)})
    below = axes[2, 0].get_gridspec()[2, :].subgridspec(1, 2)
    for ax in axes[2]:
        ax.remove()
    places = ((landscapes.rosenbrock(), VALLEY, 300, (1e-2, 40)), (landscapes.plateau(), None, 100, (1e-5, 2)))
    for i, (place, bounds, steps, limits) in enumerate(places):
        values = fig.add_subplot(below[i])
        for j, (name, pair) in enumerate(chosen.items()):
            run = _way(place, pair[i], steps)
            view.contours(axes[i, j], place, bounds=bounds)
            view.paths(axes[i, j], {name: run.x}, marked=steps, colours=plots.COLOURS[j:])
            axes[i, j].set_title(f"{name}\n{place.name}: f = {_short(float(run.values[-1]))}", fontsize=11)
            if j:
                axes[i, j].set_ylabel("")
                axes[i, j].set_yticklabels([])
            dash = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))[j]
            values.plot(run.values, linestyle=dash, color=plots.COLOURS[j], linewidth=2, label=name)
        values.set_ylim(limits)
        _finish(values, "step", "f", title=f"{place.name}: f at each step", legend=False)
    shared_legend(fig, [values], columns=len(chosen))
    return fig


def _short(value: float) -> str:
    """Three significant digits; 1 - f where f is nearly 1."""
    return f"1 - {1 - value:.0e}".replace("e-0", "e-") if 0.999 < value < 1 else f"{value:.2g}"


def _way(place: Landscape, opt: optim.Optimizer, steps: int, value_tolerance: float = 0.0) -> train.Trajectory:
    """The trajectory from the landscape's own start, as host arrays."""
    run = jax.jit(
        lambda x: train.trajectory(place, opt, x, steps=steps, value_tolerance=value_tolerance, classify=False)
    )
    return jax.device_get(run(jnp.asarray(place.start, jnp.float32)))


def _step_sizes() -> Figure:
    """Gradient descent on a quadratic with a small, a good, an oscillating and a diverging rate."""
    place, steps = landscapes.quadratic(KAPPA), 60
    regimes = {"too small": 0.01, "good": 2 / (1 + KAPPA), "oscillating": 0.195, "diverging": 0.204}
    fig, axes = plots.figure(2, 3, width=4.0, height=3.3)
    right = fig.add_subplot(axes[0, 2].get_gridspec()[:, 2])
    axes[0, 2].remove(), axes[1, 2].remove()
    for i, (ax, (name, rate)) in enumerate(zip(axes[:, :2].flat, regimes.items(), strict=True)):
        run = _way(place, optim.sgd(rate), steps, value_tolerance=1e-5)
        taken = int(run.last.steps)
        view.contours(ax, place)
        view.paths(ax, {name: run.x}, marked=steps, colours=plots.COLOURS[i:])
        ax.set_title(f"{name}: η = {rate:.3g}", fontsize=12)
        right.plot(run.values[: taken + 1], color=plots.COLOURS[i], linewidth=2, label=f"{name}, η = {rate:.3g}")
        if run.last.converged:
            right.plot(taken, run.values[taken], "o", markersize=9, markerfacecolor="white",
                       markeredgecolor=plots.COLOURS[i], markeredgewidth=2)  # fmt: skip
    right.plot([], [], "o", color="grey", markerfacecolor="white", label="converged: |Δf| < $10^{-5}$")
    right.set_ylim(bottom=1e-8)  # room for the legend
    _finish(right, "step", "f", title="f at each step")
    return fig


def _finish(ax: Any, x: str, y: str, *, title: str = "", log: bool = True, legend: bool = True) -> None:
    """Labels, grid and legend of ordinary axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_yscale("log" if log else "linear")
    ax.set_xlabel(x, fontsize=11)
    ax.set_ylabel(y, fontsize=11)
    ax.set_title(title, fontsize=12)
    ax.grid(alpha=0.3)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=9)


def _basins() -> Figure:
    """Basins of attraction: four equal minima without and with momentum, and a lattice of unequal ones."""
    himmelblau, schwefel = landscapes.himmelblau(), landscapes.schwefel()
    fig, (left, middle, right) = plots.figure(1, 3, width=4.4, height=4.0)
    for ax, name, opt in (
        (left, "gradient descent", optim.sgd(0.01)),
        (middle, "momentum 0.9", optim.sgd(0.01, momentum=0.9)),
    ):
        ends = _ends(himmelblau, opt)
        view.basins(ax, himmelblau, train.nearest(ends.x, himmelblau.minima, tolerance=0.1))
        ax.set_title(f"{himmelblau.name}: {name}", fontsize=12)
    ends = _ends(schwefel, optim.sgd(1.0))
    outside = np.abs(ends.x).max(axis=-1) > schwefel.bounds[1]
    image = view.depths(right, schwefel, np.where(outside, np.nan, ends.value))
    fig.colorbar(image, ax=right, label="value at the end of the run")
    share = np.mean(train.nearest(ends.x, schwefel.minima, tolerance=1.0) == 0)
    right.set_title(f"{schwefel.name}: the best from {share:.1%} of starts", fontsize=12)
    return fig


def _ends(place: Landscape, opt: optim.Optimizer, n: int = 140) -> train.Iterate:
    """The final iterates of runs from an (n, n) lattice of starts, all at once."""
    run = jax.vmap(jax.vmap(lambda x: train.minimize(place, opt, x, steps=1000, grad_tolerance=1e-2, classify=False)))
    return jax.device_get(jax.jit(run)(jnp.asarray(view.lattice(place, n))))


def _bilinear() -> Figure:
    """Four rules on J = x y: diverging, bounded, and converging."""
    game, steps = minmax.zero_sum(lambda x, y: x * y), 120
    plain, optimistic = optim.sgd(RATE), optim.optimistic_gradient_descent(RATE)
    players: dict[str, tuple[Callable[..., minmax.Step], optim.Optimizer]] = {
        "simultaneous": (minmax.simultaneous, plain),
        "alternating": (minmax.alternating, plain),
        "optimistic": (minmax.simultaneous, optimistic),
        "extragradient": (minmax.extragradient, plain),
    }
    fig, (left, right) = plots.figure(1, 2, width=5.4, height=4.6)
    for (name, (make, opt)), colour in zip(players.items(), plots.COLOURS, strict=False):
        state = minmax.init(1.0, 1.0, opt, opt)
        x, y = jax.device_get(jax.jit(functools.partial(minmax.play, make(game, opt, opt), steps=steps))(state))
        left.plot(x, y, color=colour, linewidth=1.2, marker="o", markersize=2)
        right.plot(np.hypot(x, y), color=colour, linewidth=2, label=name)
    t = np.arange(steps + 1)
    right.plot(t, np.sqrt(2) * (1 + RATE**2) ** (t / 2), ":", color="black", label="√2 (1 + η²)$^{t/2}$")
    left.plot(1, 1, "o", markerfacecolor="white", markeredgecolor="black", markersize=8)
    left.plot(0, 0, "*", markerfacecolor="white", markeredgecolor="black", markersize=14)
    left.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    _finish(left, "x (minimizes)", "y (maximizes)", title=f"J = x y, η = {RATE:g}", log=False)
    _finish(right, "step t", "distance from the saddle", title="Diverging, bounded, converging")
    return fig


def _gan_samples() -> Figure:
    """A GAN of the ring and one of the digits during training."""
    ring, images = ring_runs("alternating")[0], _digit_samples()
    shown, digit_shown = (0, 2, 4, 8, 16), (0, 1, 2, 5, 10)
    fig, axes = plots.figure(2, 5, width=2.5, height=2.7)
    real = np.asarray(gan.ring(jax.random.key(1), 512))
    for ax, i in zip(axes[0], shown, strict=True):
        ax.plot(*real.T, ".", color="#BBBBBB", markersize=2, label="data")
        ax.plot(*ring[i].T, ".", color=plots.COLOURS[0], markersize=2.5, label="generated")
        ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        found = gan.coverage(ring[i], gan.ring_centres())
        ax.set_title(f"step {i * RING_STEPS:,}: {found.found} of 8 modes", fontsize=11)
        ax.set_xlabel("$x_1$", fontsize=11)
    axes[0, 0].set_ylabel("$x_2$", fontsize=11)
    for ax in axes[0, 1:]:
        ax.set_yticklabels([])
    for ax, i in zip(axes[1], digit_shown, strict=True):
        framed = np.pad(images[i, :25].reshape(5, 5, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        plots.show(ax, framed.transpose(0, 2, 1, 3).reshape(50, 50))
        ax.set_axis_off()
        ax.set_title(f"step {i * DIGIT_STEPS:,}: {_digits_found(images[i])} of 10 digits", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=11, markerscale=5, frameon=False)
    return fig


@functools.cache
def ring_runs(name: str, seeds: int = SEEDS, steps: int = RING_STEPS, looks: int = RING_LOOKS) -> np.ndarray:
    """Samples of GANs of the ring during training, (seeds, looks + 1, 512, 2), by one of `gan.RULES`."""
    keys = jax.random.split(jax.random.key(0), seeds)
    run = functools.partial(gan.run, _RING_GAN, gan.RULES[name], gan.ring, steps=steps, looks=looks)
    return np.asarray(jax.jit(jax.vmap(run))(_start(keys), keys)[1])


@jax.jit
def _start(keys: Key) -> tuple[Params, Params]:
    """The initial players of the ring, one pair per key; compiled once for all rules."""
    return jax.vmap(lambda key: gan.start(_RING_GAN, key, 2))(keys)


def _digit_samples() -> np.ndarray:
    """Samples of a GAN of the digits during training, (DIGIT_LOOKS + 1, 512, 64)."""
    network, draw = gan.make(64, latent=16, hidden=(128,), unit=True), gan.from_examples(data.load("digits").train.x)
    run = functools.partial(gan.run, network, DIGIT_RULE, draw, steps=DIGIT_STEPS, looks=DIGIT_LOOKS)
    key = jax.random.key(0)
    return np.asarray(jax.jit(run)(gan.start(network, key, 64), key)[1])


def _digits_found(samples: np.ndarray, least: float = 0.01) -> int:
    """The number of digits that are nearest to at least a fraction `least` of the samples."""
    digits = data.load("digits").train
    labels = np.asarray(gan.nearest_labels(samples, digits.x, digits.y))
    return int(np.sum(np.bincount(labels, minlength=10) >= least * len(labels)))


def _gan_coverage() -> Figure:
    """Modes of the ring found by each rule during training, over seeds."""
    fig, (left, right) = plots.figure(1, 2, width=5.4, height=4.2)
    steps = np.arange(RING_LOOKS + 1) * RING_STEPS
    for i, (name, colour) in enumerate(zip(gan.RULES, plots.COLOURS, strict=False)):
        found = gan.coverage(ring_runs(name, SEEDS), gan.ring_centres())
        for ax, values in ((left, found.found), (right, 100 * found.quality)):
            mean, last = np.mean(values, axis=0), np.asarray(values)[:, -1]
            ax.plot(steps, mean, color=colour, linewidth=2, label=f"{name}: {last.mean():.1f}")
            ax.plot(np.full(SEEDS, steps[-1] * (1.03 + 0.025 * i)), last, "o", color=colour, markersize=4, alpha=0.7)
    left.axhline(8, color="black", linestyle=":", linewidth=1)
    for ax, label in ((left, "modes found of 8"), (right, "samples at any mode (%)")):
        _finish(
            ax,
            "step",
            label,
            title=f"mean of {SEEDS} seeds, at the end in the legend;\ndots: each seed at the end",
            log=False,
        )
        ax.set_ylim(bottom=0)
    return fig


PICTURES = (
    Picture(
        "optimizers",
        "Trajectories of five rules",
        "In Rosenbrock's valley gradient descent moves slowly along the floor; momentum overshoots, accelerates and "
        "reaches the lowest value; steps of a fixed size jump from wall to wall. On the plateau, where the gradient is "
        "0.00002 at the start, gradient descent does not move; rules that use its sign or relative size come close to "
        "the minimum. Rings are starts, stars minima.",
        r"\theta \leftarrow \theta - \eta \, \nabla f(\theta), \quad v \leftarrow \gamma v + \nabla f(\theta), \quad "
        r"\theta \leftarrow \theta - \eta \, v",
        "Rosenbrock 1960, An automatic method for finding the greatest or least value of a function; Polyak 1964, Some "
        "methods of speeding up the convergence of iteration methods; Kingma & Ba 2015, Adam",
        _rules,
    ),
    Picture(
        "step-sizes",
        "Step size: too small, good, oscillating, diverging",
        "Gradient descent on a quadratic of condition number 10: a step multiplies the coordinate along the steep axis "
        "by 1 - 10 η. A small rate is slow; 2 / 11 is the best constant one; just below 2 / 10 the iterate jumps from "
        "wall to wall and descends more slowly; above it diverges. Left, a ring is the start, the star the minimum; "
        "right, a ring marks where the convergence test ends the run.",
        r"\theta_{k+1} = \theta_k - \eta \, \nabla f(\theta_k) \quad \mathrm{while} \quad "
        r"|f(\theta_{k+1}) - f(\theta_k)| \geq \epsilon_1",
        "Cauchy 1847, Méthode générale pour la résolution des systèmes d'équations simultanées",
        _step_sizes,
    ),
    Picture(
        "basins",
        "Different starts, different minima",
        "Every pixel is a start, coloured by the minimum that its run reaches: 19,600 runs at once per panel. "
        "Momentum overshoots the nearest minimum, its basins have irregular borders, and from grey starts it "
        "diverges. On Schwefel's lattice of local minima descent ends in the cell of its start, and one cell contains "
        "the best; from the grey margin it leaves the plot. Stars are minima.",
        r"f(x) = \sum_i 418.98 - x_i \sin \sqrt{|x_i|}",
        "Himmelblau 1972, Applied Nonlinear Programming; Schwefel 1981, Numerical Optimization of Computer Models",
        _basins,
    ),
    Picture(
        "bilinear",
        "The bilinear game: diverging, bounded, converging",
        "x minimizes and y maximizes J = x y. Simultaneous descent-ascent spirals outward by an exact factor at every "
        "step, and alternating steps stay on an ellipse. Optimistic and extragradient steps spiral into the "
        "saddle (star).",
        r"x \leftarrow x - \eta \, y, \quad y \leftarrow y + \eta \, x: \quad "
        r"|(x, y)| \leftarrow \sqrt{1 + \eta^2} \; |(x, y)|",
        "Korpelevich 1976, The extragradient method for finding saddle points and other problems; Daskalakis, Ilyas, "
        "Syrgkanis & Zeng 2018, Training GANs with optimism",
        _bilinear,
    ),
    Picture(
        "gan-samples",
        "A GAN during training",
        "Generator and discriminator are small MLPs that are updated in turn. Above, the points of the untrained "
        "generator lie about the origin, mostly on three rays; in the end they lie on a ring of 8 Gaussians, and some "
        "between neighbours. Below, 8x8 digits emerge from grey noise. A digit is found if at least 1% of the samples "
        "are nearest to one of its images; even noise finds three.",
        r"\min_G \; -\mathbb{E} \log D(G(z)), \quad \max_D \; \mathbb{E} \log D(x) + \mathbb{E} \log (1 - D(G(z)))",
        "Goodfellow et al. 2014, Generative adversarial nets",
        _gan_samples,
    ),
    Picture(
        "gan-coverage",
        "Mode coverage of a GAN, by training rule",
        "The same networks on the ring of 8 Gaussians, from 5 seeds per rule, all with Adam at one learning rate. A "
        "mode is found if at least 1% of the samples lie within 3 deviations of its centre. Extragradient steps, each "
        "at twice the cost, find modes soonest. Convergence on the bilinear game does not predict the order here, and "
        "in the end the rules differ little more than the seeds do.",
        r"z_{t+1} = z_t - 2 \eta F(z_t) + \eta F(z_{t-1}) \;\; \mathrm{(optimistic)}, \quad "
        r"z_{t+1} = z_t - \eta F(z_t - \eta F(z_t)) \;\; \mathrm{(extragradient)}",
        "Metz et al. 2017, Unrolled generative adversarial networks (the ring); Daskalakis et al. 2018, Training GANs "
        "with optimism; Gidel et al. 2019, A variational inequality perspective on generative adversarial networks",
        _gan_coverage,
    ),
)

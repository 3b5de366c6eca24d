"""Networks built by hand: logic, regions and continuous functions from threshold units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jaxnn.classic import approximation, boolean, gates, minimize, parity, regions
from jaxnn.classic.threshold import Network, soften
from jaxnn.gallery.base import Picture
from jaxnn.models import serial
from jaxnn.plots import COLOURS, figure, karnaugh

BLUE, ORANGE, GREEN, PURPLE, *_ = COLOURS
SHADES = ListedColormap(colormaps["Blues"](np.linspace(0, 0.75, 256)))
"""White to a blue on which black text is legible."""


def _xor_regions() -> Figure:
    """The two hidden units of XOR, its output, and the output with sigmoids."""
    network = gates.xor()
    corners = boolean.inputs(2)
    first = slice(0, 2)
    hidden = Network(serial(*network.net.parts[first]), network.params[first])
    x = _square(-0.5, 1.5, 321)
    maps = [*_outputs(hidden, x).T, _outputs(network, x)[:, 0], _outputs(soften(network, 6.0), x)[:, 0]]
    at_corners = [*np.asarray(hidden(corners)).T, *[np.asarray(network(corners))[:, 0]] * 2]
    titles = ["hidden unit: A AND NOT B", "hidden unit: NOT A AND B", "output: OR of the two", "sigmoid(6 z) instead"]
    fig, axes = figure(1, 4, width=2.9, height=3.5, sharey=True)
    fig.set_layout_engine("compressed")  # square axes: the colour bar beside them, the titles above them
    for ax, values, ones, title in zip(axes, maps, at_corners, titles, strict=True):
        image = _region(ax, values, -0.5, 1.5)
        for (a, b), one in zip(corners, ones, strict=True):
            ax.plot(a, b, "o", markersize=12, markerfacecolor="black" if one else "white", markeredgecolor="black")
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("A", fontsize=11)
        ax.set_xticks([0, 1])
        ax.set_yticks([0, 1])
    axes[0].set_ylabel("B", fontsize=11)
    fig.colorbar(image, ax=axes, label="output of the unit", aspect=15, pad=0.02, ticks=[0, 0.5, 1])
    fig.suptitle("XOR by two hidden units (filled: 1, hollow: 0)", fontsize=12)
    return fig


def _karnaugh() -> Figure:
    """A Karnaugh map with the terms of its minimal form, and the number of terms of random functions."""
    table = _bits([0, 1, 2, 5, 6, 7, 8, 9, 10, 14], 16)
    fig, (left, right) = figure(1, 2, width=5.2, height=4.2)
    terms = minimize.minimize_exactly(table)
    karnaugh(left, table, terms)
    left.set_title(f"{int(table.sum())} true rows, {len(terms)} terms", fontsize=11)
    sizes, trials = range(2, 11), 5
    rng = np.random.default_rng(0)
    tables = [[rng.integers(0, 2, 2**n) for _ in range(trials)] for n in sizes]
    for colour, label, count in (
        (ORANGE, "a unit per true row", np.sum),
        (BLUE, "after minimization", lambda t: len(minimize.minimize(t))),
    ):
        counts = np.maximum([[count(t) for t in ts] for ts in tables], 1)  # the constant 0 takes a unit too
        right.plot(sizes, counts.mean(1), "o-", color=colour, label=label)
        right.fill_between(sizes, counts.min(1), counts.max(1), color=colour, alpha=0.2)
    right.set_yscale("log")
    right.set_yticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    right.minorticks_off()
    right.set_xlabel("inputs of the function", fontsize=11)
    right.set_ylabel("hidden units", fontsize=11)
    right.set_title(f"random functions, mean and range of {trials}", fontsize=11)
    right.grid(alpha=0.3)
    right.legend(fontsize=10)
    fig.suptitle("Boolean functions by one hidden layer: fewer units by minimization", fontsize=12)
    return fig


def _parity_counts() -> Figure:
    """Units, parameters and layers of four networks for parity."""
    sizes = range(2, 17)
    fig, axes = figure(1, 3, width=4.1, height=3.8)
    makers = {
        "an AND per true row": (parity.dnf, "o-", 8, ORANGE),
        "counting units": (parity.counter, "s-", 4, GREEN),
        "chain of XORs": (parity.chain, "^-", 8, PURPLE),
        "tree of XORs": (parity.tree, "v--", 4, BLUE),
    }
    for label, (make, style, size, colour) in makers.items():
        made = [make(n) for n in sizes]
        for ax, counts in zip(
            axes,
            (
                [network.units for network in made],
                [network.parameters for network in made],
                [network.layers for network in made],
            ),
            strict=True,
        ):
            ax.plot(sizes, counts, style, markersize=size, color=colour, label=label)
    for ax, title in zip(axes, ("units", "weights and biases", "layers"), strict=True):
        ax.set_xlabel("inputs N", fontsize=11)
        ax.set_ylabel(f"number of {title}", fontsize=11)
        ax.set_title(title, fontsize=11)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=9)
    fig.suptitle("Parity of N bits: the size of four networks", fontsize=12)
    return fig


def _pentagons() -> Figure:
    """A pentagon, two joined pentagons, and the same region by one hidden layer."""
    low, high, n = -1.6, 1.6, 160
    x = _square(low, high, n)
    one = regions.regular_polygon(5, turn=np.pi / 2)
    net, params = regions.polygon(one)
    count = _outputs(Network(serial(*net.parts[:2]), params[:2]), x).sum(1)
    small = regions.regular_polygon(5, centre=(-0.6, 0), radius=0.75, turn=np.pi)
    pair = [small, regions.mirrored(small, 2)]
    joined = regions.union(pair)
    inside = _outputs(joined, x)[:, 0]
    wide = regions.one_hidden_layer(lambda a, b: _outputs(joined, np.stack([a, b], 1))[:, 0] > 0.5, low, high)
    approximate = _outputs(wide, x)[:, 0]
    wrong = np.mean(approximate != inside)
    fig, axes = figure(1, 4, width=3.3, height=3.6, sharey=True)
    for ax, values in zip(axes, (count / 5, count >= 5, inside, approximate), strict=True):
        _region(ax, values, low, high)
    places = np.concatenate([[[0, 0]], 1.3 * one, 0.6 * (one + np.roll(one, -1, axis=0))])
    for place in places:
        held = round(count[np.linalg.norm(x - place, axis=1).argmin()])
        axes[0].text(*place, str(held), ha="center", va="center", fontsize=11)
    for ax, outlines in zip(axes, ([one], [one], pair, pair), strict=True):
        for outline in outlines:
            ax.plot(*np.concatenate([outline, outline[:1]]).T, color="black", linewidth=1)
    for ax, title in zip(
        axes,
        (
            "number of half-planes (of five)\nthat contain a point",
            f"all five: an AND,\n{len(one) + 1} units",
            f"two joined: an OR of ANDs,\n{joined.units} units",
            f"one hidden layer: {wide.units - 1:,} units,\n{wrong:.1%} of the square wrong",
        ),
        strict=True,
    ):
        ax.set_title(title, fontsize=10.5)
        ax.set_xlabel("$x_1$", fontsize=11)
    axes[0].set_ylabel("$x_2$", fontsize=11)
    fig.suptitle("Regions by threshold units: half-planes, AND, OR", fontsize=12)
    return fig


def _staircase() -> Figure:
    """A function and its staircase, and the error against the number of units."""

    def wavy(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(2 * np.pi * x) + 0.4 * np.sin(6 * np.pi * x))

    fig, (left, right) = figure(1, 2, width=5.2, height=4.0)
    tolerance = 0.15
    found = approximation.staircase(wavy, 0, 1, tolerance)
    x = np.linspace(0, 1, 2001)
    y = _outputs(found.network, x[:, None])[:, 0]
    left.fill_between(x, wavy(x) - tolerance, wavy(x) + tolerance, color=BLUE, alpha=0.2, label=f"± {tolerance}")
    left.plot(x, wavy(x), color=BLUE, label="function")
    left.plot(x, y, color=ORANGE, linewidth=1.5, label=f"network, {found.units} threshold units")
    left.set_xlabel("x", fontsize=11)
    left.set_ylabel("y", fontsize=11)
    left.set_title(f"greatest error {found.error:.3f}", fontsize=11)
    left.legend(fontsize=9)
    tolerances = np.geomspace(0.5, 0.01, 12)
    for label, style, colour, results in (
        ("x² on a line", "o-", GREEN, [approximation.staircase(np.square, 0, 1, t) for t in tolerances]),
        ("the function on the left", "s-", BLUE, [approximation.staircase(wavy, 0, 1, t) for t in tolerances]),
        ("sin πx sin πy in the plane", "^-", PURPLE, [approximation.surface(_hill, 0, 1, t) for t in tolerances[:8]]),
    ):
        right.loglog([r.units for r in results], [r.error for r in results], style, color=colour, label=label)
    right.set_xlabel("threshold units", fontsize=11)
    right.set_ylabel("greatest error", fontsize=11)
    right.set_title("error against units", fontsize=11)
    right.grid(alpha=0.3)
    right.legend(fontsize=9)
    fig.suptitle("Continuous functions by thresholds: accuracy against the number of units", fontsize=12)
    return fig


def _ridge_bump_surface() -> Figure:
    """One ridge, two crossed ridges, the bump at their intersection, and a surface of bumps."""
    cells = 40
    x = _square(-1 + 1 / cells, 1 - 1 / cells, cells)
    across = _outputs(approximation.ridge([1, 0], -0.3, 0.3), x)[:, 0]
    along = _outputs(approximation.ridge([0, 1], -0.3, 0.3), x)[:, 0]
    bump = _outputs(approximation.bump([-0.3, -0.3], [0.3, 0.3]), x)[:, 0]
    found = approximation.surface(_waves, -1, 1, 0.2)
    surface = _outputs(found.network, x)[:, 0]
    fig, axes = figure(1, 4, width=3.6, height=3.7, subplot_kw={"projection": "3d"})
    titles = (
        "a ridge:\n2 thresholds",
        "the sum of two ridges:\n4 thresholds",
        "where the sum is 2:\na bump",
        f"a surface of bumps:\n{found.units} units, error at most {found.error:.2f}",
    )
    walls = np.repeat(np.linspace(-1, 1, cells + 1), 2)[1:-1]  # every grid line twice: cells are flat, walls vertical
    for ax, values, title in zip(axes, (across, across + along, bump, surface), titles, strict=True):
        scale: dict[str, Any] = {} if values is surface else {"vmin": 0, "vmax": 2}  # the first three alike
        heights = _grid(values).repeat(2, axis=0).repeat(2, axis=1)
        ax.plot_surface(
            *np.meshgrid(walls, walls),
            heights,
            cmap="cividis",
            rcount=2 * cells,
            ccount=2 * cells,
            antialiased=False,
            **scale,
        )
        if scale:
            ax.set_zlim(0, 2)
        ax.set_box_aspect((1, 1, 0.8), zoom=0.82)
        ax.locator_params(axis="z", nbins=5)
        ax.set_title(title, fontsize=11, y=0.94)
        ax.set_xlabel("$x_1$", fontsize=10)
        ax.set_ylabel("$x_2$", fontsize=10)
        ax.set_zlabel("y", fontsize=10)
        ax.set_xticks([-1, 0, 1])
        ax.set_yticks([-1, 0, 1])
    fig.suptitle("From thresholds to ridges, bumps and surfaces", fontsize=12)
    return fig


def _hill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(np.pi * x) * np.sin(np.pi * y))


def _waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-2 * (x**2 + y**2)) + 0.5 * np.sin(3 * x) * y)


def _square(low: float, high: float, n: int) -> np.ndarray:
    """n x n points of [low, high]^2, (n^2, 2), row by row from the bottom."""
    ticks = np.linspace(low, high, n)
    return np.stack([axis.ravel() for axis in np.meshgrid(ticks, ticks)], 1)


def _grid(values: Any) -> np.ndarray:
    """Values at the points of `_square` as an image."""
    side = round(np.sqrt(len(values)))
    return np.asarray(values, float).reshape(side, side)


def _outputs(network: Network, x: np.ndarray) -> np.ndarray:
    """The network's outputs (N, K), in batches of rows, because the hidden layers of wide nets are large."""
    net, params = network
    points = jnp.asarray(x, float)
    run = jax.jit(lambda p, rows: jax.lax.map(lambda row: net.predict(p, (), row[None])[0], rows, batch_size=1024))
    return np.asarray(run(params, points))


def _region(ax: Any, values: Any, low: float, high: float) -> Any:
    """Values in [0, 1] at the points of `_square`, as shades."""
    return ax.imshow(_grid(values), origin="lower", extent=(low, high, low, high), cmap=SHADES, vmin=0, vmax=1)


def _bits(rows: Sequence[int], size: int) -> np.ndarray:
    return np.isin(np.arange(size), rows)


PICTURES: tuple[Picture, ...] = (
    Picture(
        "xor-regions",
        "XOR by two hidden units",
        "No line separates the filled corners from the hollow ones, so no single threshold unit computes XOR. Two "
        "hidden units cut off one corner each, and the output is their OR. With steep sigmoids in place of thresholds "
        "the same weights give a smooth function, which gradients can train.",
        r"y = H(h_1 + h_2 - \frac{1}{2}),\ h_1 = H(A - B - \frac{1}{2}),\ h_2 = H(B - A - \frac{1}{2})",
        "Minsky & Papert (1969), Perceptrons: an introduction to computational geometry",
        _xor_regions,
    ),
    Picture(
        "karnaugh",
        "Fewer hidden units by minimization",
        "Left: a Boolean function of four inputs as a Karnaugh map, in which neighbours differ in one input. Each "
        "frame (an open one continues at the opposite border) is a product term, and one hidden unit of the network, "
        "instead of one unit per 1. Right: the "
        "Quine-McCluskey method for random functions of more inputs: it saves about half to two thirds of the units, "
        "but both curves double with each input.",
        r"y = \bigvee_j \bigwedge_i \ell_{ij},\quad xy + xy' = x",
        "Karnaugh (1953), The map method for synthesis of combinational logic circuits; McCluskey (1956), "
        "Minimization of Boolean functions",
        _karnaugh,
    ),
    Picture(
        "parity-wide-and-deep",
        "Parity by wide and by deep networks",
        "No two true rows of parity are neighbours, so that its disjunctive form cannot be minimized: the hidden layer "
        "doubles with each input. A chain or a tree of XORs needs three units per input after the first, the tree in "
        "few layers. One hidden layer of N units that count the ones has even fewer units, but more weights from "
        "N = 6 on than the chain.",
        r"2^{N-1} + 1,\quad N + 1,\quad 3(N-1)\ \mathrm{units}",
        "Minsky & Papert (1969), Perceptrons; Rumelhart, Hinton & Williams (1986), Learning internal "
        "representations by error propagation",
        _parity_counts,
    ),
    Picture(
        "pentagons",
        "Polygons from half-planes",
        "Each hidden unit fires on one side of a line. An AND of five makes a pentagon, an OR of two ANDs two joined "
        "pentagons, which are not convex. One hidden layer without ANDs can approximate this and any other region, but "
        "needs many units: the last network adds staircases of half-planes in 32 directions, a filtered Radon "
        "transform.",
        r"y = H(\sum_p H(\sum_{s \in p} H(n_s \cdot x + c_s) - S_p + \frac{1}{2}) - \frac{1}{2})",
        "Lippmann (1987), An introduction to computing with neural nets; Carroll & Dickinson (1989), Construction "
        "of neural nets using the Radon transform",
        _pentagons,
    ),
    Picture(
        "staircase",
        "Continuous functions by thresholds",
        "A staircase of threshold units approximates a continuous function within a given tolerance. Each step is as "
        "long as possible. On a line the error falls like 1 / units; in the plane, where a grid of bumps is needed, "
        "like 1 / sqrt(units).",
        r"y = v_0 + \sum_j (v_j - v_{j-1}) H(x - e_j)",
        "Cybenko (1989), Approximation by superpositions of a sigmoidal function; Hornik (1991), Approximation "
        "capabilities of multilayer feedforward networks",
        _staircase,
    ),
    Picture(
        "ridge-bump-surface",
        "From thresholds to ridges, bumps and surfaces",
        "Two opposite thresholds make a ridge. Two crossed ridges add up to 2 only where they intersect, and a second "
        "hidden layer of thresholds selects that region: a bump. Adjacent bumps, each with its own height, approximate "
        "any continuous surface.",
        r"r = H(x - a) + H(b - x) - 1,\quad \mathrm{bump} = H(r_1 + r_2 - \frac{3}{2})",
        "Cybenko (1989), Approximation by superpositions of a sigmoidal function",
        _ridge_bump_surface,
    ),
)  # fmt: skip

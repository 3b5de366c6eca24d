"""Decision regions: what one unit, several classes, several layers and several linear layers separate in the plane."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import activations, losses, models, optim, plots, train
from jaxnn.classic import boolean, convex, gates, logistic, multiclass
from jaxnn.classic import regions as shapes
from jaxnn.classic.neurons import with_bias
from jaxnn.classic.threshold import Network, bipolar
from jaxnn.data import toy
from jaxnn.gallery.base import Picture, shared_legend
from jaxnn.layers import Dense, Tanh
from jaxnn.types import Array, Params

CLIFF = {
    "a unit": ([2.0, 0.0], 0.0),
    "moved by its bias": ([2.0, 0.0], -3.0),
    "turned by its weights": ([1.0, 1.7320508], 0.0),
    "steepened by their size": ([6.0, 0.0], 0.0),
}
"""Weights and bias of the sigmoid units of `sigmoid-cliff`."""

SIDES = 4
"""The most half-planes of an AND in `layers-and-regions`."""

Parts = Sequence[tuple[Any, Any]]
"""Convex polyhedra, as pairs of normals and offsets."""


class Problem(NamedTuple):
    """Two classes in the plane: points (N, 2), labels (N,) of 0 and 1, and polyhedra whose union holds those of 1."""

    x: np.ndarray
    y: np.ndarray
    parts: Parts


def _or_and_xor() -> Figure:
    """OR and AND by one unit, and the same OR unit on XOR, with inputs 0 and 1, and with inputs -1 and +1."""
    fig, axes = plots.figure(2, 3, width=3.5, height=3.7)
    units = {"A + B": gates.or_(), "AB": gates.and_(), "A ^ B": gates.or_()}
    for row, code in zip(axes, (bipolar, None), strict=True):
        x = boolean.inputs(2) if code is None else 2 * boolean.inputs(2) - 1
        bounds, threshold = ((-0.5, 1.5), 0.5) if code is None else ((-2.0, 2.0), 0.0)
        for ax, name, (formula, unit) in zip(row, ("OR", "AND", "XOR"), units.items(), strict=True):
            network = unit if code is None else code(unit)
            ones = boolean.parse(formula).table
            plots.regions(ax, network, bounds=(bounds, bounds), threshold=threshold)
            right = (np.asarray(network(x))[:, 0] > threshold) == ones
            corners(ax, x, ones)
            ax.plot(*x[~right].T, "x", markersize=20, markeredgewidth=2.5, color="black")
            if name == "XOR":  # the segments between the corners of each class cross
                ax.plot(*x[ones].T, ":", *x[~ones].T, ":", color="black", linewidth=1.5)
            ax.set_title(f"{name}: {right.sum()} of 4 by {condition(network)}", fontsize=11)
    fig.suptitle("OR and AND by one unit, XOR by none (filled: 1, hollow: 0 or -1, cross: wrong)", fontsize=12)
    return fig


def _cliff() -> Figure:
    """A sigmoid unit over the plane, with another bias, another direction, and larger weights."""
    fig, axes = plots.figure(1, 4, width=3.5, height=3.7, subplot_kw={"projection": "3d"})
    for ax, (title, (w, b)) in zip(axes, CLIFF.items(), strict=True):
        drawn = plots.regions(ax, sigmoid_unit(w, b), bounds=((-3.0, 3.0),) * 2, blend=True, n=61)
        slopes = jax.vmap(jax.grad(sigmoid_unit(w, b)))(jnp.asarray(drawn.points.reshape(-1, 2)))
        steepest = np.linalg.norm(slopes, axis=1).max()
        told = ", ".join(f"{v:.3g}" for v in w)
        ax.set_title(f"{title}\nw = ({told}), b = {b:g}, slope {steepest:.2f}", fontsize=11, y=0.98)
        ax.set_zlabel("y", fontsize=11)
        ax.set_xticks([-2, 0, 2])
        ax.set_yticks([-2, 0, 2])
        ax.set_zticks([0, 0.5, 1])
        ax.view_init(elev=28, azim=-120)
        ax.set_box_aspect((1, 1, 0.9), zoom=0.8)
    fig.suptitle("The cliff of a sigmoid unit, with the line y = 1/2 on the floor", fontsize=12)
    return fig


def _softmax() -> Figure:
    """Softmax regression of three classes: which w_k.x is largest, the probabilities, and the largest one."""
    x, y, w = softmax_problem()
    fig, axes = plots.figure(1, 3, width=4.3, height=4.2)
    axes[2].remove()
    solid = fig.add_subplot(axes[2].get_subplotspec(), projection="3d")
    bounds = ((-4.0, 4.0), (-3.5, 5.5))
    names = [f"class {k}: $w_{k} \\cdot x$ largest in its region" for k in (1, 2, 3)]
    plots.regions(axes[0], lambda p: with_bias(p) @ w, examples=(x, y), names=names, bounds=bounds)
    probability = functools.partial(_softmax_at, w)
    plots.regions(axes[1], probability, blend=True, bounds=bounds)
    plots.regions(solid, probability, blend=True, n=121, bounds=bounds)
    meeting = meeting_point(w)
    share = np.asarray(probability(meeting[None]))[0].max()
    for ax in axes[:2]:
        ax.plot(*meeting, "*", color="white", markeredgecolor="black", markersize=15, zorder=4)
    wrong = np.mean(np.asarray(multiclass.predict(w, with_bias(x))) != y)
    axes[0].set_title(f"regions of the three classes, {wrong:.1%} wrong", fontsize=11)
    shared_legend(fig, [axes[0]], columns=3, fontsize=10)
    axes[1].set_title(f"probabilities as mixed colours\nstar: {share:.3f} each", fontsize=11)
    solid.set_title("the largest probability", fontsize=11)
    solid.set_zlabel("P", fontsize=11)
    solid.view_init(elev=45, azim=-75)
    solid.set_zticks([0.4, 0.6, 0.8, 1.0])
    fig.suptitle("Softmax regression of three classes: straight borders that meet in one point", fontsize=12)
    return fig


def _layers() -> Figure:
    """One, two and three layers of threshold units on XOR, on meshed classes, and their general regions."""
    problems = {"XOR": xor_problem(), "meshed": meshed_problem()}
    fig, axes = plots.figure(3, 3, width=3.5, height=3.4)
    limit = 2.0
    for k, (name, problem) in enumerate(problems.items()):
        classes = problem.y.astype(int)
        for row, (ax, sides) in enumerate(zip(axes[:, k], (1, SIDES, None), strict=True)):
            network, target = (shapes.polyhedra(problem.parts), 1) if sides is None else best_and(problem, sides)
            drawn = functools.partial(_as_classes, network, target)
            plots.regions(ax, drawn, examples=(problem.x, classes), bounds=((-limit, limit),) * 2)
            right = np.mean(np.asarray(drawn(problem.x)) == classes)
            units = network.units if row else 1
            ax.set_title(f"{name}: {right:.1%} right, {units} unit{'s' * (units > 1)}", fontsize=11)
    half, both, ring = general_shapes()
    for ax, predict, title in zip(
        axes[:, 2],
        (half, both, ring),
        ("a half-plane", "convex: open and closed", "any shape, even with holes"),
        strict=True,
    ):
        plots.regions(ax, predict, bounds=((-limit, limit),) * 2)
        ax.set_title(title, fontsize=11)
    for ax, name in zip(axes[:, 0], ("1 layer", "2 layers: an AND", "3 layers: an OR of ANDs"), strict=True):
        ax.set_ylabel(f"{name}\n$x_2$", fontsize=11)
    for ax in axes.flat:
        ax.set_xticks([-2, 0, 2])
        ax.set_yticks([-2, 0, 2])
        if ax not in axes[-1]:
            ax.set_xlabel("")
    fig.suptitle("What one, two and three layers separate: XOR, meshed classes, general shapes", fontsize=12)
    return fig


def _deep_linear() -> Figure:
    """One linear layer, eight linear layers, and eight layers with tanh on the two moons."""
    moons = toy.two_moons(jax.random.key(0), 200, noise=0.1)
    fig, axes = plots.figure(1, 3, width=4.2, height=4.0, sharey=True)
    for ax, (title, net) in zip(axes, deep_nets().items(), strict=True):
        params = trained(net, moons.x, moons.y)
        predict = functools.partial(net.predict, params, ())
        wrong = np.mean(np.asarray(predict(moons.x)).argmax(1) != np.asarray(moons.y))
        names = ("upper moon", "lower moon")
        plots.regions(ax, predict, examples=(moons.x, moons.y), names=names, bounds=((-1.6, 2.6), (-1.2, 1.9)))
        collapsed = "" if "8 linear" not in title else _collapsed_text(params, predict, moons.x)
        ax.set_title(f"{title}: {wrong:.1%} wrong{collapsed}", fontsize=11)
    axes[0].legend(fontsize=9, loc="upper right", framealpha=0.95)
    for ax in axes[1:]:
        ax.set_ylabel("")
    fig.suptitle("Linear layers stay linear, however many: the border is a straight line", fontsize=12)
    return fig


def corners(ax: Any, x: np.ndarray, ones: np.ndarray) -> None:
    """The inputs (4, 2) of a Boolean function of A and B on axes, filled where it is true."""
    for (a, b), one in zip(x, ones, strict=True):
        ax.plot(a, b, "o", markersize=11, markerfacecolor="black" if one else "white", markeredgecolor="black")
    ax.set_xticks(np.unique(x), [f"{value:g}" for value in np.unique(x)])
    ax.set_yticks(np.unique(x), [f"{value:g}" for value in np.unique(x)])
    ax.set_xlabel("A", fontsize=11)
    ax.set_ylabel("B", fontsize=11)


def condition(unit: Network) -> str:
    """Where one unit of two inputs fires, such as A - B + 0.5 ≥ 0."""
    dense = unit.params[0]
    text = ""
    for value, name in zip((*np.asarray(dense["w"])[:, 0], float(dense["b"][0])), ("A", "B", ""), strict=True):
        if value:
            sign = (" + ", " - ")[int(value < 0)] if text else ("", "-")[int(value < 0)]
            text += f"{sign}{'' if name and abs(value) == 1 else f'{abs(value):g}'}{name}"
    return f"{text or '0'} ≥ 0"


def sigmoid_unit(w: Sequence[float], b: float) -> Any:
    """The function x (M, 2) -> sigmoid(w.x + b), (M,)."""
    return lambda x: activations.sigmoid(jnp.asarray(x) @ jnp.asarray(w) + b)


def softmax_problem() -> tuple[Array, Array, Array]:
    """Three blobs in the plane, x (N, 2) and y (N,), and the weights (3, 3) of softmax regression on them."""
    blobs = toy.blobs(jax.random.key(0), 150, centers=[[-1.8, -1.0], [1.8, -1.0], [0.0, 1.8]], deviation=0.8)
    fit = logistic.softmax_fit(
        with_bias(blobs.x), blobs.y, 3, key=jax.random.key(0), learning_rate=0.01, epochs=200, batch_size=150
    )
    return blobs.x, blobs.y, fit.w


def meeting_point(w: Any) -> np.ndarray:
    """The point (2,) at which the three outputs w_k.(1, x) of w (3, 3) are equal."""
    bias, *weights = np.asarray(w, np.float64)
    differences = np.stack(weights)[:, 1:] - np.stack(weights)[:, :1]
    return np.linalg.solve(differences.T, bias[0] - bias[1:])


def _softmax_at(w: Any, points: Any) -> Array:
    return logistic.softmax_probability(w, with_bias(points))


def xor_problem() -> Problem:
    """Discs about the corners of a square: class 1 where the signs of the coordinates differ."""
    x = _lattice(1.875, 26)
    inside = np.hypot(np.abs(x[:, 0]) - 1, np.abs(x[:, 1]) - 1) < 0.6
    x = x[inside]
    diagonal = np.array([[1.0, -1.0]])
    return Problem(x, x[:, 0] * x[:, 1] < 0, [(diagonal, [-1.0]), (-diagonal, [-1.0])])


def meshed_problem() -> Problem:
    """A class in the form of a C, and another that reaches into it."""
    x = _lattice(1.875, 26)
    c = [_rectangle(-1.5, -0.9, -1.5, 1.5), _rectangle(-1.5, 0.9, 0.7, 1.5), _rectangle(-1.5, 0.9, -1.5, -0.7)]
    other = [_rectangle(-0.6, 1.2, -0.4, 0.4), _rectangle(1.2, 1.8, -1.5, 1.5)]
    first, second = (np.any([_inside(x, *part) for part in parts], axis=0) for parts in (c, other))
    return Problem(x[first | second], first[first | second], c)


def best_and(problem: Problem, sides: int) -> tuple[Network, int]:
    """The best AND of half-planes that `convex.fit` finds, and the class for which it fires."""
    found = [(convex.fit(problem.x, problem.y == target, sides), target) for target in (1, 0)]
    best, target = max(found, key=lambda each: each[0].correct)
    return shapes.polyhedron(best.normals, best.offsets), target


def general_shapes() -> tuple[Any, Any, Any]:
    """A half-plane; an open and a closed convex region (classes 1 and 2); a ring about a square."""
    half = shapes.half_plane([1.0, 2.0], 0.4)
    wedge = shapes.polyhedron([[1.0, 0.5], [-0.4, 1.0]], [-0.5, -0.2])
    closed = shapes.polygon(shapes.regular_polygon(5, centre=(-0.7, -0.8), radius=0.9))
    outer, inner = (shapes.regular_polygon(8, radius=r, turn=np.pi / 8) for r in (1.7, 1.1))
    ring = [np.stack([outer[i], outer[(i + 1) % 8], inner[(i + 1) % 8], inner[i]]) for i in range(8)]
    return half, lambda x: _rank(x, wedge, closed), shapes.union([*ring, shapes.regular_polygon(4, radius=0.6)])


def deep_nets() -> dict[str, Any]:
    """The three nets of `linear-layers`, by name: inputs (N, 2), outputs (N, 2)."""
    hidden = [Dense(8) for _ in range(7)]
    with_tanh = [part for layer in hidden for part in (layer, Tanh)]
    return {
        "1 linear layer": models.serial(Dense(2)),
        "8 linear layers": models.serial(*hidden, Dense(2)),
        "8 layers with tanh": models.serial(*with_tanh, Dense(2)),
    }


def trained(net: Any, x: Array, y: Array) -> Params:
    """The parameters after 400 steps of Adam on the cross-entropy of all examples."""
    params, state = net.init(jax.random.key(1), (2,))

    def loss(params: Params) -> Array:
        return jnp.mean(losses.softmax_cross_entropy(net.predict(params, state, x), y))

    run = functools.partial(train.minimize, loss, optim.adam(0.01), steps=400)
    return jax.jit(run)(params).x


def collapsed(params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, K) and biases (K,) of the one linear layer that equals the composition of linear layers."""
    w, b = np.eye(2), np.zeros(2)
    for layer in params:
        own = np.asarray(layer["w"], np.float64)
        w, b = w @ own, b @ own + np.asarray(layer["b"], np.float64)
    return w, b


def _collapsed_text(params: Params, predict: Any, x: Array) -> str:
    """How far the composition is from the one layer that equals it, at all examples."""
    w, b = collapsed(params)
    gap = np.abs(np.asarray(predict(x)) - (np.asarray(x) @ w + b)).max()
    return f"\n(as one matrix: outputs differ by {gap:.0e})"


def _as_classes(network: Network, target: int, points: Any) -> np.ndarray:
    """The class `target` where the network fires, the other one elsewhere, (N,) ints."""
    fires = np.asarray(network(points))[:, 0] > 0.5
    return np.where(fires, target, 1 - target)


def _rank(points: Any, first: Network, second: Network) -> np.ndarray:
    """1 where the first network fires, 2 where the second does, else 0."""
    one, two = (np.asarray(network(points))[:, 0].astype(int) for network in (first, second))
    return np.maximum(one, 2 * two)


def _lattice(reach: float, n: int) -> np.ndarray:
    """n x n points of [-reach, reach]^2, (n^2, 2)."""
    ticks = np.linspace(-reach, reach, n)
    return np.stack([axis.ravel() for axis in np.meshgrid(ticks, ticks)], 1)


def _rectangle(left: float, right: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The four half-planes of a rectangle."""
    return np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.array([-left, right, -low, high])


def _inside(x: np.ndarray, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.asarray((x @ normals.T + offsets >= 0).all(1))


PICTURES = (
    Picture(
        "or-and-xor",
        "OR and AND by one unit, XOR by none",
        "One threshold unit divides the plane by a line; orange is the side on which it fires. A line separates the "
        "filled corners of OR and of AND from the hollow ones. The corners of XOR lie on two crossing segments "
        "(dotted), so that no line does: a unit has at most 3 of 4 right. With inputs -1 and +1 in place of 0 and 1 "
        "only the bias changes.",
        r"y = H(w_1 A + w_2 B + b), \quad b \rightarrow 2 b + w_1 + w_2",
        "McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity; Minsky & Papert "
        "(1969), Perceptrons",
        _or_and_xor,
    ),
    Picture(
        "sigmoid-cliff",
        "The cliff of a sigmoid unit",
        "A sigmoid unit of two inputs is a smooth cliff over the plane. The bias moves it: the line y = 1/2 is "
        "|b| / |w| away from the origin. The direction of the weights turns it, and their size makes it steeper: the "
        "greatest slope is |w| / 4, and grows without bound as the sigmoid approaches a threshold.",
        r"y = \sigma(w \cdot x + b), \quad |\nabla y| = |w| \, y (1 - y) \leq |w| / 4",
        "Cybenko (1989), Approximation by superpositions of a sigmoidal function",
        _cliff,
    ),
    Picture(
        "softmax-regions",
        "Three classes of softmax regression",
        "Each class has its own weights, and a point belongs to the class whose output is largest. Two outputs are "
        "equal on a straight line; the three lines meet in one point, where each probability is 1/3. Away from the "
        "borders one probability is nearly 1.",
        r"P(k\,|\,x) = \frac{e^{w_k \cdot x}}{\sum_j e^{w_j \cdot x}}, \quad "
        r"\mathrm{argmax}_k \, P(k\,|\,x) = \mathrm{argmax}_k \, w_k \cdot x",
        "Nilsson (1965), Learning machines (linear machines); Bridle (1990), Probabilistic interpretation of "
        "feedforward classification network outputs",
        _softmax,
    ),
    Picture(
        "layers-and-regions",
        "What one, two and three layers separate",
        "The border of one unit is a line. The region of an AND of units is convex, open or closed: two half-planes "
        "suffice for XOR, but no convex region separates the meshed classes. An OR of ANDs, a third layer, separates "
        "those too, and any other shape with enough units. The half-planes are the best of a fine set, the ANDs those "
        "that a search found, the third layers constructed.",
        r"H(n \cdot x + c), \quad \bigwedge_s H(n_s \cdot x + c_s), \quad "
        r"\bigvee_p \bigwedge_{s \in p} H(n_s \cdot x + c_s)",
        "Lippmann (1987), An introduction to computing with neural nets, figure 14",
        _layers,
    ),
    Picture(
        "linear-layers",
        "Linear layers stay linear",
        "Eight linear layers have a straight border like one, and separate the moons no better, because the product of "
        "their matrices is one matrix. The same layers with tanh between them separate the moons.",
        r"W_8 (\cdots W_2 (W_1 x + b_1) + b_2 \cdots) + b_8 = W x + b, \quad W = W_8 \cdots W_2 W_1",
        "Minsky & Papert (1969), Perceptrons; Rumelhart, Hinton & Williams (1986), Learning internal representations "
        "by error propagation",
        _deep_linear,
    ),
)

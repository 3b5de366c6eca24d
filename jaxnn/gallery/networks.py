"""Networks as diagrams, with values, deltas and gradients; the vectors of one update are in `updates`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from jaxnn import backprop, data, losses, metrics, models, optim, plots, train
from jaxnn.classic import gates, threshold
from jaxnn.gallery import updates
from jaxnn.gallery.base import Picture
from jaxnn.layers import Dense, Layer, Sigmoid, Softmax, Tanh
from jaxnn.plots import COLOURS, networks
from jaxnn.train import FitResult
from jaxnn.types import Array, Params

BLUE, ORANGE = COLOURS[:2]

NOTATION = "$w_{jk}^{l}$: from unit $k$ of layer $l - 1$ to unit $j$ of layer $l$"

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
"""The inputs of a Boolean function of two inputs."""

XOR = np.array([[0.0], [1.0], [1.0], [0.0]], np.float32)
"""Their targets."""

SENSITIVE, NUDGE = 3, 0.01
"""The seed of the network whose sensitivities are shown, and the change of each weight."""

DIGIT_UNITS, SEVERAL = 16, 3
"""Hidden units of the network of the digits."""


def _notation() -> Figure:
    """The symbols of a network of three layers of units."""
    net = models.mlp([3, 4, 2], activation=Sigmoid)
    params, _ = net.init(jax.random.key(0), (3,))
    return plots.network(net, params, values=False, title=NOTATION)


def _xor_values() -> Figure:
    """Forward and backward pass of one example through a network that computes XOR."""
    network = threshold.soften(gates.xor(), 2.0)
    x, y, loss = CORNERS[1:2], np.ones((1, 1), np.float32), losses.half_squared_error
    fig, (forward, backward) = plots.figure(2, 1)
    names: dict[str, Any] = {"inputs": ["A", "B"], "outputs": ["A xor B"]}
    first = networks.diagram(forward, *network, x=x, y=y, loss=loss, **names)
    second = networks.diagram(backward, *network, x=x, y=y, loss=loss, edges="gradients", **names)
    forward.set_xlim(np.array([-0.5, 0.5]) * second[0] + np.mean(forward.get_xlim()))
    fig.set_size_inches(second[0], first[1] + second[1] + 0.8)
    cost = float(backprop.trace_table(*network, (), jnp.asarray(x), jnp.asarray(y), loss)["C"])
    forward.set_title("Forward: weights, biases, activations for A = 0, B = 1", fontsize=12)
    backward.set_title(f"Backward: gradients and deltas; the target is 1, the cost C = {cost:.3g}", fontsize=12)
    return fig


def chain() -> tuple[Layer, Params, Array, Array]:
    """y = s(w3 s(w2 s(w1 x + b1))) with s the sigmoid: (net, params, x, target)."""
    net = models.serial(Dense(1), Sigmoid, Dense(1, b_init=None), Sigmoid, Dense(1, b_init=None), Sigmoid)
    w1, w2, w3 = (jnp.full((1, 1), w) for w in (2.0, 1.5, -0.5))
    params = ({"w": w1, "b": jnp.array([-1.0])}, (), {"w": w2}, (), {"w": w3}, ())
    return net, params, jnp.full((1, 1), 0.5), jnp.ones((1, 1))


def _graph() -> Figure:
    """The scalar chain as a computational graph."""
    net, params, x, y = chain()
    return plots.computational_graph(net, params, (), x, y, losses.half_squared_error)


def sensitive() -> tuple[Layer, Params]:
    """A network of 2, 3 and 1 units with its initial weights: (net, params)."""
    net = models.mlp([2, 3, 1], activation=Tanh)
    return net, net.init(jax.random.key(SENSITIVE), (2,))[0]


class Change(NamedTuple):
    """A weight or bias: its symbol, dC/dw, and the change of C divided by that of the weight."""

    symbol: str
    gradient: float
    measured: float


def changes(net: Layer, params: Params, x: np.ndarray, y: np.ndarray, *, step: float = NUDGE) -> list[Change]:
    """The gradient of C, the mean of 1/2 (y - d)^2, and its change when one weight at a time is increased by `step`."""
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def cost(flat: Array) -> Array:
        return jnp.mean(losses.half_squared_error(net.predict(unravel(flat), (), jnp.asarray(x)), jnp.asarray(y)))

    each = jax.vmap(cost)(flat[None, :] + step * jnp.eye(len(flat)))
    gradients, measured = unravel(jax.grad(cost)(flat)), unravel((each - cost(flat)) / step)
    found = []
    for number, (own, other) in enumerate(zip(filter(None, gradients), filter(None, measured), strict=True), start=1):
        for k, j in np.ndindex(*own["w"].shape):
            found.append(Change(f"w_{{{j + 1}{k + 1}}}^{{{number}}}", float(own["w"][k, j]), float(other["w"][k, j])))
        for j, (g, m) in enumerate(zip(own["b"], other["b"], strict=True)):
            found.append(Change(f"b_{{{j + 1}}}^{{{number}}}", float(g), float(m)))
    return sorted(found, key=lambda change: abs(change.gradient))


def _sensitivity() -> Figure:
    """The gradient of each weight of a small network, and the change of the cost when it is increased."""
    net, params = sensitive()
    fig, (left, right) = plots.figure(1, 2)
    width, height = networks.diagram(left, net, params, x=CORNERS, y=XOR, loss=losses.half_squared_error,
                                     edges="gradients")  # fmt: skip
    left.get_gridspec().set_width_ratios([width, 4.0])
    fig.set_size_inches(width + 4.4, height + 1.0)
    found = changes(net, params, CORNERS, XOR)
    places = np.arange(len(found))
    right.barh(places, [change.gradient for change in found], height=0.65, label="gradient",
               color=[BLUE if change.gradient > 0 else ORANGE for change in found])  # fmt: skip
    right.plot([change.measured for change in found], places, "D", color="black", markersize=5,
               label=f"change of C / {NUDGE:g}, the weight increased by {NUDGE:g}")  # fmt: skip
    right.set_yticks(places, [f"${change.symbol}$" for change in found])
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel("change of C per unit of the weight", fontsize=11)
    right.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.45, -0.12))
    weights = [change for change in found if change.symbol.startswith("w")]
    most, least = weights[-1], weights[0]
    ratio = abs(most.gradient / least.gradient)
    right.set_title(f"${most.symbol}$ changes C {ratio:.0f} times as much as ${least.symbol}$", fontsize=11)
    left.set_title("Gradients of the mean cost of XOR's four examples", fontsize=11)
    return fig


@functools.cache
def digit_net() -> tuple[Layer, FitResult]:
    """A network of one hidden layer, trained on the digits."""
    digits, net = data.load("digits"), models.mlp([64, DIGIT_UNITS, 10], activation=Tanh)
    result = train.fit(
        net,
        losses.softmax_cross_entropy,
        optim.adam(1e-2),
        digits.train,
        key=jax.random.key(0),
        epochs=30,
        validation=digits.validation,
        metrics={"error": metrics.error_rate},
        regularizer=losses.l2(1e-3),
        progress=False,
    )
    return net, result


def _digit_network() -> Figure:
    """A digit, and the network of the digits with its activations for it."""
    digits, (net, result) = data.load("digits"), digit_net()
    x, y = jnp.asarray(digits.validation.x[:1]), int(digits.validation.y[0])
    fig, (left, right) = plots.figure(1, 2)
    size = networks.diagram(right, models.serial(net, Softmax), (result.params, ()), x=x, most=DIGIT_UNITS,
                            outputs=digits.train.classes)  # fmt: skip
    left.get_gridspec().set_width_ratios([1.9, size[0]])
    fig.set_size_inches(size[0] + 1.9, size[1] + 0.5)
    plots.show(left, x[0])
    left.set_axis_off()
    chance = np.asarray(jax.nn.softmax(net.predict(result.params, (), x)))[0]
    left.set_title(f"a {digits.train.classes[y]} of 8 x 8 pixels", fontsize=11)
    right.set_title(f"answer: {digits.train.classes[chance.argmax()]}, probability {chance.max():.3f}", fontsize=12)
    return fig


def excited(images: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Per hidden unit of the network of the digits the training images of its largest z.

    Returns:
        (their indices (units, images), how many of them are of each class (units, 10)).
    """
    digits, (_, result) = data.load("digits").train, digit_net()
    own = next(filter(None, result.params))
    z = np.asarray(digits.x).reshape(len(digits), -1) @ np.asarray(own["w"]) + np.asarray(own["b"])
    found = np.argsort(-z, axis=0, kind="stable")[:images].T
    return found, np.stack([np.bincount(labels, minlength=10) for labels in np.asarray(digits.y)[found]])


def _templates() -> Figure:
    """The weights of the hidden units of the network of the digits, and the mean of the images that match each best."""
    digits, (_, result) = data.load("digits").train, digit_net()
    found, counts = excited()
    weights = np.asarray(next(filter(None, result.params))["w"])
    limit = float(np.abs(weights).max())
    fig, axes = plots.figure(4, 8, width=1.2, height=1.42)
    for j in range(DIGIT_UNITS):
        above, below = axes[2 * (j // 8), j % 8], axes[2 * (j // 8) + 1, j % 8]
        image = plots.show(above, weights[:, j].reshape(8, 8), limit=limit)
        plots.show(below, np.asarray(digits.x)[found[j]].mean(axis=0))
        above.set_title(f"unit {j + 1}", fontsize=10)
        below.set_title("".join(f"{digits.classes[k]} " for k in np.flatnonzero(counts[j] >= SEVERAL)), fontsize=10)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for row, label in enumerate(("weights", "images", "weights", "images")):
        axes[row, 0].set_ylabel(label, fontsize=11)
    fig.colorbar(image, ax=axes, label="weight", shrink=0.6)
    shared = int(((counts >= SEVERAL).sum(axis=1) > 1).sum())
    error = result.history[-1]["validation_error"]
    fig.suptitle(f"{shared} of {DIGIT_UNITS} units match several digits; validation error {error:.1%}", fontsize=12)
    return fig


BACKPROP = (
    "Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating errors."
)

PICTURES = (
    Picture(
        "network-notation",
        "The notation of a network",
        "Every unit is joined to every unit of the layer before: this network of 3, 4 and 2 units has 20 weights and 6 "
        "biases. The weight w_jk leads from unit k to unit j of the next layer; in code, where examples are rows, it "
        "is the entry [k - 1, j - 1] of w. Each unit adds its bias to the weighted sum and applies its activation.",
        r"z_j^l = \sum_k w_{jk}^l\, a_k^{l-1} + b_j^l, \quad a_j^l = s(z_j^l), \quad a^0 = x",
        BACKPROP,
        _notation,
    ),
    Picture(
        "backpropagation-xor",
        "Forward and backward through XOR",
        "Above, a network that computes XOR, with sigmoids in place of thresholds, and its activations for one "
        "example. Below, the deltas, computed from right to left; the gradient of a weight is the delta at its end "
        "times the activation at its start (nodes: shades of activations above, of deltas below). The weights from A, "
        "which is 0, have gradient 0; all other gradients are negative, so increasing those weights lowers the cost.",
        r"\delta_j^l = s'(z_j^l) \sum_i w_{ij}^{l+1} \delta_i^{l+1}, \quad "
        r"\partial C / \partial w_{jk}^l = \delta_j^l\, a_k^{l-1}",
        BACKPROP,
        _xor_values,
    ),
    Picture(
        "computational-graph",
        "A chain of scalar layers as a computational graph",
        "Three layers of one unit each, taken apart into products, a sum and functions. Forward, each operation "
        "computes a value from those before it. Backward, each derivative of the cost is the next one times a local "
        "derivative, so one sweep finds all of them; a sum passes its derivative on unchanged.",
        r"\frac{\partial C}{\partial w_1} = \frac{\partial C}{\partial u_1}\, x, \quad "
        r"\frac{\partial C}{\partial a_1} = \frac{\partial C}{\partial z_2}\, w_2",
        BACKPROP,
        _graph,
    ),
    Picture(
        "sensitivity",
        "The gradient as sensitivity of the cost",
        "Left, the gradients of a small network with its initial weights, averaged over the four examples of XOR. "
        "Right, each bar is one gradient, and the diamond the change of the cost, divided by that of the weight, when "
        "this weight alone is increased by 0.01: they differ by a second-order term, proportional to the increase. "
        "Gradient descent changes those weights most on which the cost depends most.",
        r"C(w + \epsilon\, e_i) = C(w) + \epsilon\, \partial C / \partial w_i + O(\epsilon^2)",
        BACKPROP,
        _sensitivity,
    ),
    Picture(
        "digit-network",
        "A digit in a network",
        "A network trained on digits, and its activations for an image that was not among them; blue nodes are "
        "positive, orange ones negative. Dots stand for 48 of the 64 pixels. The outputs are probabilities, and the "
        "largest belongs to the correct digit.",
        r"P(k \mid x) = e^{z_k} / \sum_i e^{z_i}",
        "Bridle, J. S. (1990). Probabilistic interpretation of feedforward classification network outputs, with "
        "relationships to statistical pattern recognition.",
        _digit_network,
    ),
    Picture(
        "hidden-templates",
        "The first layer as templates",
        "The weights of each hidden unit as an image: purple pixels count for the unit, orange ones against it. Below, "
        "the mean of the 20 training images with its largest weighted sum, and the digits with at least three of these "
        "images. Most units match several digits, and the output layer tells them apart by combining units.",
        r"z_j = w_j \cdot x + b_j",
        BACKPROP,
        _templates,
    ),
    *updates.PICTURES,
)

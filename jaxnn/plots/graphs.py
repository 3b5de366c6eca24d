"""The computational graph of a chain of scalar layers: values forward, derivatives backward."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from jaxnn.backprop.trace import Trace, trace_table
from jaxnn.checks import as_array
from jaxnn.layers import Layer
from jaxnn.plots.columns import columns
from jaxnn.plots.style import COLOURS, figure
from jaxnn.types import ArrayLike, Loss, Params, State

VALUE, DERIVATIVE = COLOURS[:2]
"""The colours of values and of derivatives."""

GAP, DEPTH, HALF = 0.66, 1.15, 0.28
"""Inches: between two operations, from an operation down to its parameter, and half the height of an operation."""


SIGNS = {"times": r"$\times$", "plus": "$+$"}
"""The operations drawn as circles."""


class Edge(NamedTuple):
    """What flows along an arrow: its symbol in mathtext, its value, and dC/d symbol, None where none is computed."""

    symbol: str
    value: float
    derivative: float | None = None


class Operation(NamedTuple):
    """A node: what it computes, the parameter that enters from below (None for none), and its result."""

    name: str
    parameter: Edge | None
    result: Edge


def computational_graph(
    net: Layer, params: Params, state: State, x: ArrayLike, y: ArrayLike, loss: Loss, *, title: str = ""
) -> Figure:
    """A chain of one-unit layers as a graph: the value of every intermediate result, and the derivative of C by it.

    Forward, left to right:   u_l = w_l a_(l-1),  z_l = u_l + b_l,  a_l = s(z_l),  C = loss(a_L, y)
    Backward, right to left:  each derivative is that of the next result times one local derivative;
        dC/dw_l = dC/du_l a_(l-1),  dC/da_(l-1) = dC/du_l w_l,  dC/db_l = dC/du_l = dC/dz_l

    Args:
        net: a `serial` of `Dense(1)`, with or without bias, and activations.
        params, state: as `net.init` returns them.
        x, y: one example, x (1, 1), and its target.
        loss: per-example loss, as for `backprop.trace_table`, which computes all numbers.
        title: "" for none.

    Returns:
        A matplotlib Figure of one axes.

    Raises:
        ValueError: a layer of several units, several examples, another kind of layer, or parameters of another network.

    Reference: Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating
        errors.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import losses, models
        >>> from jaxnn.layers import Dense, Tanh
        >>> params = ({"w": jnp.array([[2.0]]), "b": jnp.array([0.0])}, ())
        >>> net = models.serial(Dense(1), Tanh)
        >>> fig = computational_graph(net, params, (), [[0.5]], [[0.0]], losses.half_squared_error)
        >>> [patch.get_gid() for patch in fig.axes[0].patches if patch.get_gid()]
        ['times', 'plus', 'tanh', 'half squared error']
    """
    params, inputs, targets = (
        jax.tree.map(functools.partial(as_array, "computational_graph", name), value)
        for name, value in (("params", params), ("x", np.asarray(x)), ("y", np.asarray(y)))
    )
    found = columns("computational_graph", net, params, state, x=inputs, y=targets, loss=loss)
    if any(column.units != 1 for column in found) or len(inputs) != 1 or targets.size != 1:
        raise ValueError(
            "computational_graph: expected layers of one unit and one example, got layers of "
            f"{', '.join(str(column.units) for column in found)} units, {len(inputs)} examples and targets "
            f"{targets.shape}. plots.network draws larger networks."
        )
    trace = trace_table(net, params, state, inputs, targets, loss)
    first, operations = Edge("x", float(inputs.ravel()[0])), _operations(trace, found[1:], float(targets.ravel()[0]))
    fig, ax = figure()
    fig.set_size_inches(_draw(ax, first, operations), DEPTH + 1.85 + 0.3 * bool(title))
    if title:
        ax.set_title(title, fontsize=12)
    return fig


def _operations(trace: Trace, layers: list[Any], target: float) -> list[Operation]:
    """The operations of a trace, those of a dense layer apart: the product, and the sum if there is a bias."""

    def number(name: str) -> float:
        return float(np.asarray(trace[name], np.float64).ravel()[0])

    found = []
    for step in trace.steps[1:]:
        match = re.fullmatch(r"([az])(\d+)('*)", step.name)
        if match is None:
            break
        kind, digits, marks = match.groups()
        name = step.formula.partition("(")[0].replace("_", " ")
        if kind == "z":
            layer, delta, z = layers[int(digits) - 1], number(f"delta{digits}"), number(step.name)
            w = Edge(f"w_{{{digits}}}", float(layer.w.item()), number(f"dC/dw{digits}"))
            result = Edge(f"z_{{{digits}}}", z, delta)
            if layer.b is None:
                found.append(Operation("times", w, result))
                continue
            b = float(layer.b.item())
            found.append(Operation("times", w, Edge(f"u_{{{digits}}}", z - b, delta)))
            found.append(Operation("plus", Edge(f"b_{{{digits}}}", b, number(f"dC/db{digits}")), result))
        elif name not in ("flatten", "dropout"):
            result = Edge(f"a_{{{digits}}}{marks}", number(step.name), number(f"dC/d{step.name}"))
            found.append(Operation(name, None, result))
    loss = next(step.formula for step in trace.steps if step.name == "C_i").partition("(")[0].replace("_", " ")
    return [*found, Operation(loss, Edge("y", target), Edge("C", number("C"), 1.0))]


def _draw(ax: Any, first: Edge, operations: list[Operation]) -> float:
    """The graph on axes whose unit is an inch; returns their width."""
    _write(ax, 0.0, 0.0, first, below=False)
    before, left = first, 0.35
    for i, operation in enumerate(operations):
        half = HALF if operation.name in SIGNS else 1.4 * HALF
        x = left + GAP + half
        _node(ax, x, half, operation.name)
        _flow(ax, (left, 0.0), (x - half, 0.0), backward=before.derivative is not None)
        if i:
            _write(ax, left + GAP / 2, 0.0, before)
        if operation.parameter is not None:
            _flow(ax, (x, -DEPTH + 0.2), (x, -HALF), backward=operation.parameter.derivative is not None)
            _write(ax, x, -DEPTH, operation.parameter, below=False)
        before, left = operation.result, x + half
    _flow(ax, (left, 0.0), (left + GAP, 0.0), backward=True)
    _write(ax, left + GAP + 0.45, 0.0, before, below=False)
    ax.set_xlim(-0.5, left + GAP + 1.0)
    ax.set_ylim(-DEPTH - 0.6, 0.65)
    ax.set_aspect("equal")
    ax.set_axis_off()
    for colour, style, label in ((VALUE, "-", "forward: values"), (DERIVATIVE, "--", "backward: derivatives of C")):
        ax.plot([], [], style, color=colour, label=label)
    ax.legend(fontsize=10, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    return left + GAP + 1.6


def _node(ax: Any, x: float, half: float, name: str) -> None:
    """An operation, `half` of its width to either side of x."""
    style: dict[str, Any] = {"gid": name, "facecolor": "#EEEEEE", "edgecolor": "black", "zorder": 3}
    if name in SIGNS:
        ax.add_patch(Circle((x, 0), half, **style))
        ax.text(x, 0, SIGNS[name], fontsize=16, ha="center", va="center", zorder=4)
        return
    ax.add_patch(
        FancyBboxPatch((x - half, -HALF), 2 * half, 2 * HALF, boxstyle="round,pad=0,rounding_size=0.1", **style)
    )
    ax.text(x, 0, name.replace(" ", "\n"), fontsize=9.5, ha="center", va="center", zorder=4)


def _flow(ax: Any, start: tuple[float, float], end: tuple[float, float], *, backward: bool) -> None:
    """An arrow forward and, beside it, one backward."""
    along = np.subtract(end, start)
    aside = 0.04 * np.array([-along[1], along[0]]) / np.hypot(*along) * backward
    pairs = [(start, end, aside, VALUE, "-")] + [(end, start, -aside, DERIVATIVE, "--")] * backward
    for a, b, shift, colour, style in pairs:
        ax.annotate("", xy=np.add(b, shift), xytext=np.add(a, shift), zorder=2,
                    arrowprops={"arrowstyle": "-|>", "color": colour, "linestyle": style, "linewidth": 1.3,
                                "shrinkA": 0, "shrinkB": 0})  # fmt: skip


def _write(ax: Any, x: float, y: float, edge: Edge, *, below: bool = True) -> None:
    """The value above an arrow and the derivative below it; or, at the end of an arrow, below each other."""
    value, derivative = f"${edge.symbol}$ = {edge.value + 0.0:.3g}", ""
    if edge.derivative is not None:
        derivative = f"$\\partial C/\\partial {edge.symbol}$\n{edge.derivative + 0.0:.3g}"
    if below:
        value = value.replace(" = ", "\n")
    up, down = (0.09, -0.09) if below else (0.0, -0.03)
    ax.text(x, y + up, value, color=VALUE, fontsize=10.5, ha="center", va="bottom" if below or derivative else "center")
    if derivative:
        ax.text(x, y + down, derivative, color=DERIVATIVE, fontsize=10.5, ha="center", va="top")

"""Node-link diagrams of networks of dense layers: weights, biases, activations, deltas and gradients.

w_jk^l is the weight from unit k of layer l - 1 to unit j of layer l, in code `w[k - 1, j - 1]` of the layer's
parameters; b_j^l its bias, z_j^l = sum_k w_jk^l a_k^(l-1) + b_j^l, a_j^l = s(z_j^l), and x = a^0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from jaxnn.checks import require_positive_int
from jaxnn.layers import Layer
from jaxnn.plots.columns import Column, columns
from jaxnn.plots.layout import Layout, layout
from jaxnn.plots.style import COLOURS, figure
from jaxnn.types import ArrayLike, Loss, Params, State

Edges: TypeAlias = Literal["weights", "gradients"]
"""What the edges of a diagram show."""

POSITIVE, NEGATIVE = COLOURS[:2]
"""The colours of positive and negative numbers; negative edges are dashed too."""

MOST_LABELS = 24
"""The largest number of labelled edges between two layers."""

WIDEST = 4.0
"""The width of the line of the largest number, in points."""

DASHED = (0, (4, 1.5))
"""The dashes of negative edges."""

PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}
"""The ground under labels that cross edges."""


class _Look(NamedTuple):
    """What is drawn: the arguments, per column the numbers on the edges into it, and the largest of them."""

    edges: Edges
    values: bool
    drawn: list[np.ndarray | None]
    largest: float


def network(
    net: Layer,
    params: Params,
    state: State = (),
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    loss: Loss | None = None,
    edges: Edges = "weights",
    values: bool = True,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    most: int = 20,
    title: str = "",
) -> Figure:
    """A network of dense layers as a diagram: a node per unit, an edge per weight, with their symbols and numbers.

    z_j^l = sum_k w_jk^l a_k^(l-1) + b_j^l,  a_j^l = s(z_j^l),  a^0 = x
    delta_j^l = dC/dz_j^l = dC/db_j^l,  dC/dw_jk^l = delta_j^l a_k^(l-1)

    The width of an edge is proportional to the absolute value of its weight (or gradient), relative to the largest in
    the network; positive ones are blue, negative ones orange and dashed. Nodes are tinted alike by a_j^l (or
    delta_j^l), relative to the largest of their layer. Labels are written where there is room: on edges between small
    layers, and below the units of layers of up to about eight.

    Args:
        net: a `serial` of dense layers and activations, nested or not; flattening and dropout are not shown.
        params, state: as `net.init` returns them.
        x: inputs (N, ...), concrete. One input (N = 1) shows its activations; several need y and loss, and then only
            the gradients of their mean loss are shown.
        y, loss: targets, and a per-example loss as for `backprop.trace_table`, which computes deltas and gradients.
        edges: "weights", or "gradients" of the mean loss, the sensitivity of the cost to each weight.
        values: False for the symbols alone, with all edges alike.
        inputs, outputs: names beside the first and the last units, one each.
        most: the largest number of units shown per layer, >= 2; dots stand for those in the middle of a larger layer.
        title: "" for none.

    Returns:
        A matplotlib Figure of one axes; its size follows the network's.

    Raises:
        TypeError: net is not a Layer, or loss not a function.
        ValueError: another kind of layer, parameters of another network, an unknown `edges`, gradients without x, y and
            loss, several inputs without y and loss, or names of another number.

    Reference: Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating
        errors.

    Example:
        >>> import jax
        >>> from jaxnn import models
        >>> net = models.mlp([2, 3, 1])
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> fig = network(net, params, x=[[0.0, 1.0]])
        >>> len(fig.axes[0].patches)  # a circle per unit
        6
    """
    found = _checked("network", columns("network", net, params, state, x=x, y=y, loss=loss), edges, inputs, outputs)
    look = _look(found, edges, values)
    plan = _plan(found, look, require_positive_int("network", "most", most, 2))
    fig, ax = figure()
    width, height = _draw(ax, found, look, plan, (inputs, outputs))
    fig.set_size_inches(width, height + 0.35 * bool(title))
    if title:
        ax.set_title(title, fontsize=12)
    return fig


def diagram(
    ax: Any,
    net: Layer,
    params: Params,
    state: State = (),
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    loss: Loss | None = None,
    edges: Edges = "weights",
    values: bool = True,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    most: int = 20,
) -> tuple[float, float]:
    """The diagram of `network` on matplotlib axes, for a figure with more than one.

    Args:
        ax: axes, which lose their frame.
        net, params, state, x, y, loss, edges, values, inputs, outputs, most: as for `network`.

    Returns:
        (width, height) in inches of axes on which letters and units have the proportions of `network`: letters do not
        scale. `fig.set_size_inches` makes a figure fit.

    Example:
        >>> import jax
        >>> from jaxnn import models
        >>> net = models.mlp([2, 3, 1])
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> fig, ax = figure(width=7.0, height=5.0)
        >>> size = diagram(ax, net, params, values=False)
        >>> ax.texts[0].get_text()
        'input\\n2 units'
    """
    found = _checked("diagram", columns("diagram", net, params, state, x=x, y=y, loss=loss), edges, inputs, outputs)
    look = _look(found, edges, values)
    plan = _plan(found, look, require_positive_int("diagram", "most", most, 2))
    return _draw(ax, found, look, plan, (inputs, outputs))


def _checked(
    where: str, found: list[Column], edges: str, inputs: Sequence[str] | None, outputs: Sequence[str] | None
) -> list[Column]:
    """The columns, after a check of the arguments that go with them."""
    if edges not in ("weights", "gradients"):
        raise ValueError(f"{where}: edges must be 'weights' or 'gradients', got {edges!r}.")
    if edges == "gradients" and found[-1].dw is None:
        raise ValueError(f"{where}: gradients need an example and its loss, got none. Pass x, y and loss.")
    for name, given, column in (("inputs", inputs, found[0]), ("outputs", outputs, found[-1])):
        if given is not None and len(given) != column.units:
            raise ValueError(f"{where}: expected {column.units} names of {name}, got {len(given)}.")
    return found


def _look(found: list[Column], edges: Edges, values: bool) -> _Look:
    drawn = [column.w if edges == "weights" else column.dw for column in found]
    largest = max((float(np.abs(w).max()) for w in drawn if w is not None), default=0.0)
    return _Look(edges, values, drawn, largest or 1.0)


def _plan(found: list[Column], look: _Look, most: int) -> Layout:
    """The layout, with room for the labels of edges between small layers."""
    characters = [0] * len(found)
    for i, drawn in enumerate(look.drawn):
        if drawn is not None and drawn.size <= MOST_LABELS and max(drawn.shape) <= most:
            texts = [_edge_text(look, float(drawn[k, j]), i, k, j) for k, j in np.ndindex(*drawn.shape)]
            characters[i] = max(map(_seen, texts))
    below = []
    for i, column in enumerate(found):
        lines = [_unit_texts(column, look, i, j, "{:.3g}")[1] for j in range(min(column.units, most))]
        below.append([max(map(_seen, each)) for each in zip(*lines, strict=True)])
    return layout([column.units for column in found], characters, below, most)


def _seen(text: str) -> int:
    """About the number of characters that are seen of a label."""
    return len(re.sub(r"[${}_^ ]", "", re.sub(r"\\(partial|delta)", "d", text)))


def _draw(
    ax: Any, found: list[Column], look: _Look, plan: Layout, names: Sequence[Sequence[str] | None]
) -> tuple[float, float]:
    """The diagram on axes whose unit is an inch; returns their size."""
    top = plan.size[1] / 2 + plan.radius
    for i, column in enumerate(found):
        ax.text(plan.x[i], top + 0.25, _heading(found, i), ha="center", va="bottom", fontsize=10)
        if (drawn := look.drawn[i]) is not None:
            _draw_edges(ax, drawn, look, plan, i)
        _draw_units(ax, column, look, plan, i)
    for i, given, side in ((0, names[0], "right"), (len(found) - 1, names[1], "left")):
        for n, height in plan.shown(i) if given is not None else ():
            at = plan.x[i] + (plan.radius + 0.08) * (1 if side == "left" else -1)
            ax.text(at, height, (given or ())[n], fontsize=10, ha=side, va="center")
    ax.set_xlim(-1.0, plan.x[-1] + 1.0)
    ax.set_ylim(-top - 0.55, top + 0.7)
    ax.set_aspect("equal")
    ax.set_axis_off()
    if look.values:
        ax.legend(handles=_handles(look), fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    return plan.x[-1] + 2.0, 2 * top + 1.25 + 0.45 * look.values


def _handles(look: _Look) -> list[Line2D]:
    """The legend: both signs, and the width of the largest number."""
    name = "w" if look.edges == "weights" else r"\partial C/\partial w"
    return [
        Line2D([], [], color=POSITIVE, linewidth=2, label=f"${name} > 0$"),
        Line2D([], [], color=NEGATIVE, linewidth=2, linestyle=DASHED, label=f"${name} < 0$"),
        Line2D([], [], color="grey", linewidth=WIDEST, label=f"$|{name}|$ = {_number(look.largest)}, the largest"),
    ]


def _heading(found: list[Column], i: int) -> str:
    column = found[i]
    name = "input" if i == 0 else f"layer {i}, output" if i == len(found) - 1 else f"layer {i}"
    units = f"{column.units} unit" + "s" * (column.units != 1)
    return f"{name}\n{units}" + (f", {column.activation}" if column.activation else "")


def _draw_edges(ax: Any, drawn: np.ndarray, look: _Look, plan: Layout, i: int) -> None:
    """The edges into layer i, wider for larger numbers, and their labels."""
    before, after, places = plan.shown(i - 1), plan.shown(i), plan.labels[i]
    left, gap = plan.x[i - 1], plan.x[i] - plan.x[i - 1]
    faintest = 0.4 if len(before) * len(after) <= 2 * MOST_LABELS else 0.12
    lines: list[tuple[float, Any, dict[str, Any]]] = []
    for (k, low), (j, high) in itertools.product(before, after):
        share = abs(drawn[k, j]) / look.largest if look.values else 0.4
        colour = POSITIVE if drawn[k, j] > 0 else NEGATIVE
        colour = colour if look.values and drawn[k, j] else "#666666"  # 0 is of neither sign
        style = {
            "colors": (*to_rgb(colour), faintest + (0.9 - faintest) * share),
            "linewidths": max(WIDEST * share, 0.4),
            "linestyles": DASHED if look.values and drawn[k, j] < 0 else "-",
        }
        lines.append((share, [(left, low), (left + gap, high)], style))
        if places is not None:
            t, angle = places[k, j], np.degrees(np.arctan2(high - low, gap))
            text = _edge_text(look, drawn[k, j], i, k, j)
            ax.text(left + t * gap, low + t * (high - low), text, fontsize=8, ha="center", va="center",
                    rotation=angle, rotation_mode="anchor", zorder=2.5, bbox=PAPER)  # fmt: skip
    lines.sort(key=lambda line: line[0])  # the strongest on top
    each = {name: [line[2][name] for line in lines] for name in ("colors", "linewidths", "linestyles")}
    ax.add_collection(LineCollection([line[1] for line in lines], zorder=1, **each))


def _edge_text(look: _Look, number: float, i: int, k: int, j: int) -> str:
    """The label of the edge from unit k to unit j of layer i."""
    comma = "," * (max(k, j) >= 9)
    symbol = f"w_{{{j + 1}{comma}{k + 1}}}^{{{i}}}"
    symbol = f"${symbol}$" if look.edges == "weights" else rf"$\partial C/\partial {symbol}$"
    return symbol + (f" = {_number(number)}" if look.values else "")


def _draw_units(ax: Any, column: Column, look: _Look, plan: Layout, i: int) -> None:
    """The nodes of layer i, with symbols, values, biases and deltas."""
    tint = column.a if look.edges == "weights" else column.delta
    tint = None if tint is None or not look.values else tint / (np.abs(tint).max() or 1.0)
    large = plan.radius > 0.25
    room = plan.room(i) if large else 0
    for j, height in plan.shown(i):
        share = 0.0 if tint is None else float(tint[j])
        base = np.array(to_rgb(POSITIVE if share >= 0 else NEGATIVE))
        fill = tuple(1 - 0.45 * abs(share) * (1 - base))
        ax.add_patch(Circle((plan.x[i], height), plan.radius, facecolor=fill, edgecolor="black", zorder=3))
        inside, below = _unit_texts(column, look, i, j, "{:.3g}" if large else "{:.2f}")
        letters = 8.5 if large else max(5.5, 37 * plan.radius)
        size = letters * min(1.0, 6 / len(inside[-1])) if len(inside) > 1 else letters
        ax.text(plan.x[i], height, "\n".join(inside if large else inside[-1:]), ha="center", va="center",
                fontsize=size, zorder=4)  # fmt: skip
        if below[:room]:
            ax.text(plan.x[i], height - plan.radius - 0.03, "\n".join(below[:room]), ha="center", va="top",
                    fontsize=8, zorder=2.6, bbox=PAPER)  # fmt: skip
    for row, height in zip(plan.rows[i], plan.heights[i], strict=True):
        if row is None:
            ax.text(plan.x[i], height, "⋮", ha="center", va="center", fontsize=16)


def _unit_texts(column: Column, look: _Look, i: int, j: int, form: str) -> tuple[list[str], list[str]]:
    """What stands inside of a node and below it, line by line."""

    def line(symbol: str, numbers: np.ndarray | None) -> str:
        return f"${symbol}$" + (f" = {_number(numbers[j])}" if look.values and numbers is not None else "")

    mark = f"_{{{j + 1}}}^{{{i}}}"
    inside = [f"$a{mark}$" if i else f"$x_{{{j + 1}}}$"]
    if look.values and column.a is not None:
        inside.append(_number(column.a[j], form))
    below = []
    if i and look.edges == "gradients" and column.delta is not None:
        below.append(line(rf"\delta{mark}", column.delta))
    elif i and look.edges == "gradients":
        below += [line(rf"\partial C/\partial b{mark}", column.db)] if column.db is not None else []
    elif i:
        below += [line(f"b{mark}", column.b)] if column.b is not None else []
        below += [line(f"z{mark}", column.z)] if look.values and column.z is not None else []
    return inside, below


def _number(value: float, form: str = "{:.3g}") -> str:
    """Three significant digits by default; -0 as 0."""
    return form.format(round(float(value), 12) + 0.0)

"""Backpropagation step by step: every z, a, delta and gradient of a small network, in textbook notation.

Each layer with parameters has the next number l, parameters w_l, b_l and output z_l. The layers without parameters
after it (activation, pooling, ...) have outputs a_l, a_l', a_l''; a_0 is the input, a_0', ... precede z_1. In the
backward pass the cotangents delta_l of z_l and dC/da_l of a_l alternate: row i is that of C_i, the loss of example i.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from jaxnn import losses
from jaxnn.backprop.combinators import forward
from jaxnn.backprop.rule import GRADIENT, Cache, rule_of
from jaxnn.backprop.text import Printable
from jaxnn.checks import require_function
from jaxnn.layers import activation, dense
from jaxnn.layers.base import Layer, name_of, require_net
from jaxnn.models.combinators import SERIAL, require_params, spread
from jaxnn.models.ties import filled
from jaxnn.types import Array, Loss, Params, State

MOST_ENTRIES = 64
"""Larger arrays are shown by their shape."""


class Step(NamedTuple):
    """One row of the table: name, formula, value."""

    name: str
    formula: str
    value: Array


class Trace(Printable):
    """The steps of one forward and backward pass; prints as a table; `trace["delta2"]` is the value of a step."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = tuple(steps)

    def __getitem__(self, name: str) -> Array:
        for step in self.steps:
            if step.name == name:
                return step.value
        raise KeyError(f"trace has no step {name!r}; its steps are {', '.join(step.name for step in self.steps)}")

    def __rich__(self) -> Table:
        table = Table("step", "formula", "value", box=None, pad_edge=False)
        for step in self.steps:
            table.add_row(step.name, step.formula, _shown(step.value))
        return table


class _Place(NamedTuple):
    """A leaf of the serial, its parameters, its number l, and the names of its input and output."""

    layer: Layer
    params: Params
    number: int
    given: str
    made: str


def trace_table(
    net: Layer, params: Params, state: State, x: Array, y: Array | None = None, loss: Loss | None = None
) -> Trace:
    """The textbook view of one step: every z, a, delta and gradient, in the order in which they are computed.

    C is the mean loss over the N examples, in evaluation mode (no dropout). Row i of each delta and dC/da is the
    derivative of C_i, the loss of example i: N times that of C. In formulas a final ' is the transpose. Gradients are
    means over the examples, equal to those of `value_and_grad` for a network that is the same in both modes and a loss
    without `ignore_index`. Rows are examples and w is (in, out): z1 = a0 w1 + b1, where texts with columns write
    z = W a + b, W = w1' (out, in), and (W2)' delta2 for delta2 w2'.

    Args:
        net: a network; nested serials are flattened, other combinators are one step.
        params, state: as `net.init` returns them.
        x, y: inputs (N, ...) and targets; for small N and small networks.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,). Without it and y, the forward pass alone.

    Returns:
        A `Trace`: print it, or index it by the name of a step, `trace["delta1"]`.

    Raises:
        TypeError: net is not a Layer or loss not a function.
        ValueError: parameters of another network, or one of y and loss without the other.

    Reference: Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating
        errors.

    Example:
        >>> from jaxnn.layers import Dense, Tanh
        >>> from jaxnn.models import serial
        >>> net = serial(Dense(1), Tanh)
        >>> params = ({"w": jnp.array([[2.0]]), "b": jnp.array([0.0])}, ())
        >>> print(trace_table(net, params, (), jnp.array([[0.5]]), jnp.array([[0.0]]), losses.half_squared_error))
        step    formula                                  value
        a0      x                                        0.5
        z1      dense(a0)                                1
        a1      tanh(z1)                                 0.761594
        C_i     half_squared_error(a1, y), each example  0.290013
        C       mean of C_i                              0.290013
        dC/da1  derivative of the loss                   0.761594
        delta1  tanh'(z1) . dC/da1                       0.31985
        dC/dw1  a0' delta1, mean over examples           0.159925
        dC/db1  sum of delta1, mean over examples        0.31985
    """
    require_net("trace_table", net)
    require_function("trace_table", "loss", loss, "losses.half_squared_error")
    if (y is None) != (loss is None):
        given, lacking = ("loss", "y") if y is None else ("y", "loss")
        raise ValueError(
            f"trace_table: y and loss go together, got {given} without {lacking}. Pass both, or neither for the "
            "forward pass alone."
        )
    places = _places(net, params, state)
    steps = [Step("a0", "x", x)]
    caches: list[Cache] = []
    for place, own_state in places:
        x, _, cache = forward(place.layer, place.params, own_state, x)
        caches.append(cache)
        steps.append(Step(place.made, f"{name_of(place.layer)}({place.given})", x))
    if loss is None or y is None:
        return Trace(steps)
    last, each = steps[-1].name, loss(x, y)
    steps.append(Step("C_i", f"{getattr(loss, '__name__', 'loss')}({last}, y), each example", each))
    steps.append(Step("C", "mean of C_i", jnp.mean(each)))
    error: Any = losses.derivative_of(loss)(x, y)
    steps.append(Step(_error_of(last), "derivative of the loss", error))
    for (place, _), cache in zip(reversed(places), reversed(caches), strict=True):
        below, grads = rule_of(place.layer).backward(place.layer, place.params, cache, error, GRADIENT)
        steps += _gradient_steps(place, jax.tree.map(lambda g: g / x.shape[0], grads))
        error = below
        if place.given != "a0":
            steps.append(Step(_error_of(place.given), _formula_back(place), error))
    return Trace(steps)


def _places(net: Layer, params: Params, state: State) -> list[tuple[_Place, State]]:
    """The leaves of nested serials, numbered."""
    places: list[tuple[_Place, State]] = []
    number, given, taken = 0, "a0", {"a0"}
    for layer, own, own_state in leaves(net, params, state):
        has_parameters = bool(jax.tree.leaves(own))
        number += has_parameters
        made = f"z{number}" if has_parameters else f"a{number}"
        while made in taken:
            made += "'"
        taken.add(made)
        places.append((_Place(layer, own, number, given, made), own_state))
        given = made
    return places


def leaves(net: Layer, params: Params, state: State) -> list[tuple[Layer, Params, State]]:
    """The layers of nested serials, in order, each with its parameters and its state."""
    if net.kind is not SERIAL:
        return [(net, params, state)]
    require_params("serial", params, net.parts)
    states = spread(state, net.parts)
    return [
        leaf for part, p, s in zip(net.parts, filled(net, params), states, strict=True) for leaf in leaves(part, p, s)
    ]


def _error_of(made: str) -> str:
    return made.replace("z", "delta") if made.startswith("z") else f"dC/d{made}"


def _formula_back(place: _Place) -> str:
    """The formula of the cotangent of a layer's input."""
    after, name = _error_of(place.made), name_of(place.layer)
    if place.layer.kind is dense.KIND:
        return f"{after} w{place.number}'"
    if place.layer.kind is activation.KIND and name not in ("softmax", "log_softmax"):
        return f"{name}'({place.given}) . {after}"
    return f"{after} back through {name}"


def _gradient_steps(place: _Place, grads: Params) -> list[Step]:
    """The gradient of each parameter of a layer, weights before biases."""
    after = _error_of(place.made)
    steps = []
    found = jax.tree.flatten_with_path(grads)[0]
    for path, grad in sorted(found, key=lambda entry: jax.tree_util.keystr(entry[0]), reverse=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        formula = {"w": f"{place.given}' {after}", "b": f"sum of {after}"}.get(name, f"from {place.given}, {after}")
        if place.layer.kind is not dense.KIND:
            formula = f"from {place.given}, {after}"
        steps.append(Step(f"dC/d{name}{place.number}", f"{formula}, mean over examples", grad))
    return steps


def _shown(value: Array) -> str:
    array = np.asarray(value)
    if array.size > MOST_ENTRIES:
        return f"array{array.shape}"
    if array.size == 1:
        return f"{array.item():.6g}"
    return np.array2string(array, precision=6, separator=", ", suppress_small=False, max_line_width=60)

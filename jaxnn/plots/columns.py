"""A serial of dense layers as columns of units: the weights, activations, deltas and gradients that a diagram shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.backprop.trace import Trace, leaves, trace_table
from jaxnn.checks import as_array
from jaxnn.layers import activation, dense, dropout, flatten
from jaxnn.layers.base import Layer, name_of, require_net
from jaxnn.types import Array, ArrayLike, Loss, Params, State


class Column(NamedTuple):
    """The input, column 0, or a dense layer with the activations after it; float64, None where there is no value.

    Attributes:
        activation: the names of the activations, "" for none.
        units: their number.
        w, b: (D_in, units) and (units,).
        z, a: (units,), the weighted sums and the outputs, for one example; a = z without activation.
        delta: (units,), dC/dz, for one example.
        dw, db: the gradients of the mean loss, like w and b.
    """

    activation: str
    units: int
    w: np.ndarray | None = None
    b: np.ndarray | None = None
    z: np.ndarray | None = None
    a: np.ndarray | None = None
    delta: np.ndarray | None = None
    dw: np.ndarray | None = None
    db: np.ndarray | None = None


def columns(
    where: str,
    net: Layer,
    params: Params,
    state: State = (),
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    loss: Loss | None = None,
) -> list[Column]:
    """The columns of a network, the input first.

    Args:
        where: the name of the caller, for messages.
        net: dense layers and activations; flattening and dropout (without effect in evaluation mode) are not shown.
        params, state: as `net.init` returns them.
        x, y, loss: as for `backprop.trace_table`; without x no values, without y and loss no deltas and gradients.

    Raises:
        TypeError: net is not a Layer, or loss not a function.
        ValueError: another kind of layer, no dense layer, weights that do not fit together, y or loss without x, or
            several inputs without y and loss.
    """
    require_net(where, net)
    if x is None and (y is not None or loss is not None):
        raise ValueError(f"{where}: y and loss need an input, got x=None. Pass x (N, ...) as well.")
    inputs = None if x is None else as_array(where, "x", x)
    if inputs is not None and loss is None and (inputs.ndim < 2 or len(inputs) != 1):
        raise ValueError(
            f"{where}: without y and loss expected one input, x (1, ...), got shape {inputs.shape}. Pass x[:1], or "
            "y and loss for the gradients of the mean loss."
        )
    params = jax.tree.map(lambda leaf: as_array(where, "params", leaf), params)
    parts = leaves(net, params, state)
    targets = None if y is None else jax.tree.map(lambda leaf: as_array(where, "y", leaf), y)
    trace = None if inputs is None else trace_table(net, params, state, inputs, targets, loss)
    found = _dense_columns(where, parts)
    if trace is not None and trace["z1"].ndim != 2:
        raise ValueError(
            f"{where}: expected one vector per example at the first dense layer, got outputs {trace['z1'].shape}. Put "
            "Flatten in front."
        )
    return found if trace is None else [_traced(column, i, trace) for i, column in enumerate(found)]


def _dense_columns(where: str, parts: list[tuple[Layer, Params, State]]) -> list[Column]:
    """The columns without values."""
    names, weights = [""], []
    for i, (layer, own, _) in enumerate(parts):
        if layer.kind is dense.KIND:
            weights.append((own, layer.options["features"]))
            names.append("")
        elif layer.kind is activation.KIND:
            names[-1] = ", ".join(filter(None, [names[-1], _name(layer)]))
        elif layer.kind not in (flatten.KIND, dropout.KIND):
            raise ValueError(
                f"{where}: expected a serial of dense layers and activations, got layer {i}, {layer.kind.name}. "
                "models.summary lists the layers of any network."
            )
    if not weights:
        raise ValueError(f"{where}: expected at least one dense layer, got none.")
    found = [Column(names[0], int(weights[0][0]["w"].shape[0]))]
    for (own, features), name in zip(weights, names[1:], strict=True):
        w, b = _numbers(own["w"]), _numbers(own.get("b"))
        expected = (found[-1].units, features)
        if w is None or w.shape != expected:
            raise ValueError(
                f"{where}: expected weights {expected} from {expected[0]} units to {features}, got "
                f"{np.shape(own['w'])}. Pass the params of this network."
            )
        found.append(Column(name, w.shape[1], w, b))
    return found


def _traced(column: Column, number: int, trace: Trace) -> Column:
    """A column with what its trace has."""
    steps: dict[str, Array] = {step.name: step.value for step in trace.steps}
    outputs = [name for name in steps if name.rstrip("'") == f"a{number}"] or [f"z{number}"]
    one = len(steps["a0"]) == 1

    def of_example(name: str) -> np.ndarray | None:
        found = _numbers(steps.get(name)) if one else None
        return None if found is None else found.reshape(-1)

    return column._replace(
        z=of_example(f"z{number}"),
        a=of_example(outputs[-1]),
        delta=of_example(f"delta{number}"),
        dw=_numbers(steps.get(f"dC/dw{number}")),
        db=_numbers(steps.get(f"dC/db{number}")),
    )


def _name(layer: Layer) -> str:
    return name_of(layer).replace("_", " ")


def _numbers(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float64)

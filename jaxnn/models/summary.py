"""A table of a network's layers, output shapes and parameter counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxnn import tree
from jaxnn.layers.base import Example, Layer, as_example, name_of, output_example
from jaxnn.layers.sequences import values_of
from jaxnn.models.combinators import SERIAL
from jaxnn.models.ties import filled
from jaxnn.types import Params, Shape, State


class Row(NamedTuple):
    """One layer in the table: its name, the shape of one output, its number of parameters."""

    name: str
    output: Shape
    parameters: int


def rows(net: Layer, example: Example) -> list[Row]:
    """One row per layer, in order; nested serials are flattened, other composed layers are one row.

    Abstract evaluation only: nothing is computed or allocated, whatever the size of the network.

    Args:
        net, example: as for `summary`.

    Example:
        >>> from jaxnn.models import mlp
        >>> rows(mlp([3, 4, 2]), (3,))[1]
        Row(name='dense', output=(4,), parameters=16)
    """
    shape = as_example(example)
    params, state = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    table: list[Row] = []
    _collect(net, params, params, state, shape, table)
    return table


def _collect(net: Layer, own: Params, params: Params, state: State, shape: Any, table: list[Row]) -> Any:
    """Append the rows of `net`; return the shape of one output. Tied layers use `params` that are not their own."""
    if net.kind is not SERIAL:
        out = output_example(net, params, state, shape)
        table.append(Row(name_of(net), values_of(out).shape, tree.size(own)))
        return out
    states = state or ((),) * len(net.parts)
    for part, counted, p, s in zip(net.parts, own, filled(net, params), states, strict=True):
        shape = _collect(part, counted, p, s, shape, table)
    return shape


def summary(net: Layer, example: Example) -> int:
    """Print the table of layers, output shapes (of one example) and parameter counts; return the total.

    Args:
        net: a network.
        example: the shape of one input, without the batch axis, or an array or ShapeDtypeStruct like it.

    Returns:
        The total number of parameters.

    Example:
        >>> from jaxnn.models import mlp
        >>> total = summary(mlp([3, 4, 2]), (3,))
        layer    output  parameters
        -------  ------  ----------
        (input)  (3,)             0
        flatten  (3,)             0
        dense    (4,)            16
        relu     (4,)             0
        dense    (2,)            10
        -------  ------  ----------
        total                    26
    """
    table = [Row("(input)", values_of(as_example(example)).shape, 0), *rows(net, example)]
    total = sum(row.parameters for row in table)
    cells = [(row.name, str(row.output), f"{row.parameters:,}") for row in table]
    heads, last = ("layer", "output", "parameters"), ("total", "", f"{total:,}")
    widths = [max(len(line[i]) for line in [heads, last, *cells]) for i in range(3)]
    rule = tuple("-" * width for width in widths)
    for line in [heads, rule, *cells, rule, last]:
        number = line[2].ljust(widths[2]) if line is heads else line[2].rjust(widths[2])
        print(f"{line[0]:<{widths[0]}}  {line[1]:<{widths[1]}}  {number}".rstrip())
    return total

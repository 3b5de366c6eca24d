"""A table of a network's layers, output shapes, parameters and operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxnn import tree
from jaxnn.layers.base import Example, Layer, as_example, name_of, output_example
from jaxnn.layers.sequences import values_of
from jaxnn.models.combinators import RESIDUAL, SERIAL
from jaxnn.models.flops import flops
from jaxnn.models.ties import STACK, filled
from jaxnn.models.transformer import ENCODER_DECODER, require_context, with_context
from jaxnn.types import Params, Shape, State


class Row(NamedTuple):
    """One layer in the table: its name, the shape of one output, its number of parameters, and the operations in its
    products (`models.flops`) for one example, forward."""

    name: str
    output: Shape
    parameters: int
    flops: int


def rows(net: Layer, example: Example) -> list[Row]:
    """One row per layer, in order; nested serials are flattened, an encoder-decoder network has the rows of both, other
    composed layers are one row.

    Abstract evaluation only: nothing is computed or allocated, whatever the size of the network.

    Args:
        net, example: as for `summary`.

    Example:
        >>> from jaxnn.models import mlp
        >>> rows(mlp([3, 4, 2]), (3,))[1]
        Row(name='dense', output=(4,), parameters=16, flops=24)
    """
    shape = as_example(example)
    params, state = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    table: list[Row] = []
    _collect(net, params, params, state, shape, table)
    return table


def _collect(net: Layer, params: Params, own: Params, state: State, shape: Any, table: list[Row]) -> Any:
    """Append the rows of `net`; return the shape of one output. `own`: its parameters without those it is tied to."""
    if net.kind is ENCODER_DECODER:
        inputs, (encoder, decoder) = require_context(shape), net.parts
        (p, q), (s, t) = filled(net, params), state or ((), ())
        context = _collect(encoder, p, own[0], s, inputs.context, table)
        return _collect(decoder, q, own[1], t, with_context(inputs, context), table)
    if net.kind is not SERIAL:
        out = output_example(net, params, state, shape)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), shape)
        table.append(Row(_name(net), values_of(out).shape, tree.size(own), flops(net.predict, params, state, batch)))
        return out
    for part, p, o, s in zip(net.parts, filled(net, params), own, state or ((),) * len(net.parts), strict=True):
        shape = _collect(part, p, o, s, shape, table)
    return shape


def _name(net: Layer) -> str:
    """The name of a layer, of a residual block or a stack with those of its parts."""
    if net.kind is SERIAL:
        return ", ".join(map(_name, net.parts))
    if net.kind is RESIDUAL:
        return f"{net.kind.name}({_name(net.parts[0])})"
    return f"{net.options['n']} x ({_name(net.parts[0])})" if net.kind is STACK else name_of(net)


def summary(net: Layer, example: Example) -> int:
    """Print the table of layers, output shapes, parameters and operations; return the number of parameters.

    Operations are those of the forward pass of one example, in matrix products and convolutions, see `models.flops`; a
    training step takes about three times as many for each example. Tied parameters count once.

    Args:
        net: a network.
        example: the shape of one input, without the batch axis, or an array or ShapeDtypeStruct like it.

    Returns:
        The total number of parameters.

    Example:
        >>> from jaxnn.models import mlp
        >>> total = summary(mlp([3, 4, 2]), (3,))
        layer    output  parameters  FLOPs
        -------  ------  ----------  -----
        (input)  (3,)             0      0
        flatten  (3,)             0      0
        dense    (4,)            16     24
        relu     (4,)             0      0
        dense    (2,)            10     16
        -------  ------  ----------  -----
        total                    26     40
    """
    table = [Row("(input)", values_of(as_example(example)).shape, 0, 0), *rows(net, example)]
    total = sum(row.parameters for row in table)
    cells = [(row.name, str(row.output), f"{row.parameters:,}", f"{row.flops:,}") for row in table]
    heads = ("layer", "output", "parameters", "FLOPs")
    last = ("total", "", f"{total:,}", f"{sum(row.flops for row in table):,}")
    widths = [max(len(line[i]) for line in [heads, last, *cells]) for i in range(4)]
    rule = tuple("-" * width for width in widths)
    for line in [heads, rule, *cells, rule, last]:
        left = 4 if line is heads else 2  # words to the left, numbers to the right
        words = [line[i].ljust(widths[i]) if i < left else line[i].rjust(widths[i]) for i in range(4)]
        print("  ".join(words).rstrip())
    return total

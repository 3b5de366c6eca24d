"""Which layers are differentiated by hand, and which by `jax.vjp`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from rich.table import Table

from jaxnn.backprop.combinators import BRANCHES_RULE, place_of
from jaxnn.backprop.fused import is_fused
from jaxnn.backprop.rule import AUTOMATIC, rule_of
from jaxnn.backprop.text import Printable
from jaxnn.layers.base import Layer, require_net
from jaxnn.losses.table import DERIVATIVES
from jaxnn.types import Loss

BY_HAND, BY_VJP = "by hand", "jax.vjp"


class Row(NamedTuple):
    """One layer or the loss: its path among the parameters ("loss"), its name, and how it is differentiated."""

    place: str
    name: str
    rule: str


class Coverage(Printable):
    """The rows of `coverage`; prints as a table.

    Attributes:
        rows: one for each layer without parts, each combinator not differentiated by hand, and the loss, if passed.
        complete: whether nothing is left to `jax.vjp`.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = tuple(rows)

    @property
    def complete(self) -> bool:
        return all(row.rule != BY_VJP for row in self.rows)

    def __rich__(self) -> Table:
        table = Table("place", "layer", "rule", box=None, pad_edge=False)
        for row in self.rows:
            table.add_row(*row)
        return table


def coverage(net: Layer, loss: Loss | None = None) -> Coverage:
    """Lists the layers (and the loss, if passed) with a hand-written rule, and those that fall back to `jax.vjp`.

    A table for `print`; its `rows` are (place, name, rule), `place` the path among the parameters ("net" for a network
    that is one layer, "loss" for the loss).

    Example:
        >>> from jaxnn import losses
        >>> from jaxnn.layers import Dense, Kind, Relu, stateless
        >>> from jaxnn.models import serial
        >>> mine = stateless(Kind("mine"), lambda params, x: 2 * x)
        >>> print(coverage(serial(Dense(4), Relu, mine), losses.mse))
        place layer rule
        [0]   dense by hand
        [1]   relu  by hand
        [2]   mine  jax.vjp
        loss  mse   by hand
    """
    require_net("coverage", net)
    rows = _rows(net, "")
    if loss is not None:
        rows.append(Row("loss", _name_of(loss), _of_loss(net, loss)))
    return Coverage(rows)


def _rows(net: Layer, place: str) -> list[Row]:
    rule = rule_of(net)
    if net.parts and rule is not AUTOMATIC:
        inside = [row for i, part in enumerate(net.parts) for row in _rows(part, place_of(net, place, i))]
        if rule is BRANCHES_RULE and not rule.by_hand(net):
            inside.append(Row(place or "net", f"{net.kind.name}'s combine", BY_VJP))
        return inside
    name = _name_of(net.options.get("function"), net.kind.name)
    return [Row(place or "net", name, BY_HAND if rule.by_hand(net) else BY_VJP)]


def _of_loss(net: Layer, loss: Loss) -> str:
    if is_fused(net, loss):
        return "by hand, fused with the last layer"
    while isinstance(loss, functools.partial) and not loss.args:
        loss = loss.func
    return BY_HAND if loss in DERIVATIVES else BY_VJP


def _name_of(function: Any, default: str = "function") -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", default))

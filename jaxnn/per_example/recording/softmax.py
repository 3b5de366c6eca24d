"""The output layer of `losses.chunked_softmax_cross_entropy`: a product whose cotangents are formed in chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn

from jaxnn.losses.chunked import FUNCTIONS
from jaxnn.per_example.recording.inner import opened
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import Axes, OpRule, placed, shape_of
from jaxnn.tape import SoftmaxProduct, Use
from jaxnn.types import Array

A, W, LABELS, COLUMNS = range(4)
"""The places of the operands; behind them the bias, a vector, and the smoothing, a number, if there are any."""


class Operands(NamedTuple):
    """Those of one example: a (R, D), w, labels (R,), a bias (V,) or None, a smoothing () or None."""

    a: Array
    w: Array
    labels: Array
    b: Array | None
    smoothing: Array | None


def class_axis_of(equation: JaxprEqn) -> int | None:
    """The axis of w that counts classes; None for an equation that is none of `losses.chunked`."""
    if equation.primitive.name != "custom_jvp_call" or equation.params["num_consts"]:
        return None
    name = opened(equation.params["call_jaxpr"])[0].debug_info.func_name
    return FUNCTIONS.index(name) if name in FUNCTIONS else None


def operands_of(equation: JaxprEqn, operands: Sequence[Any]) -> Operands:
    """The operands by name."""
    places = places_in(equation)
    rest = [None if places[name] is None else operands[places[name]] for name in ("b", "smoothing")]
    return Operands(operands[A], operands[W], operands[LABELS], *rest)


def places_in(equation: JaxprEqn) -> dict[str, Any]:
    """The places of the bias and of the smoothing among the operands, or None."""
    by_rank = {len(shape_of(v)): i for i, v in enumerate(equation.invars) if i > COLUMNS}
    return {"b": by_rank.get(1), "smoothing": by_rank.get(0)}


def size_of_chunk(equation: JaxprEqn) -> int:
    """Classes in a chunk."""
    return math.prod(shape_of(equation.invars[COLUMNS]))


def _fits(equation: JaxprEqn, at: int, param: Param) -> bool:
    # Under a `vmap` inside the loss the operands have axes of their own. In a loop a bias or a smoothing may be another
    # one in each iteration.
    ranks = [len(shape_of(v)) for v in equation.invars]
    plain = ranks[:4] == [2, 2, 1, 1] and all(rank <= 1 for rank in ranks[4:])
    alone = not param.stacked or (param.loops == 0 and len(ranks) == 4)
    return at == W and plain and alone and not param.view.repeats


def _seen(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> dict[str, Array | None]:
    given = operands_of(equation, operands)._asdict()
    return {name: x for name, x in given.items() if name != "w"} | {"log_sums": operands[len(equation.invars)]}


def _use(equation: JaxprEqn, at: int, param: Param, seen: Any, delta: Array) -> Use:
    """`seen` is a pair: what `_seen` returned, and w."""
    each, w = seen
    axes, class_axis = Axes(param), class_axis_of(equation)
    a = axes.arranged(each["a"], [0], [], [1])[:, :, 0]
    labels, sums, share = (axes.arranged(x, [0], [])[:, :, 0] for x in (each["labels"], each["log_sums"], delta))
    size = size_of_chunk(equation)
    use = SoftmaxProduct(a, labels, sums, share, w, each["b"], each["smoothing"], class_axis or 0, size)
    return placed(use, param.view)


SOFTMAX_PRODUCT = OpRule(_fits, _seen, _use, takes_value=True)
"""The function of `losses.chunked.rows_of`: losses and log-sum-exps of positions."""

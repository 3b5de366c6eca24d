"""The loss of one example with the streaming rule at each use of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Var

from jaxnn.per_example.recording.inner import Body
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.reading import Reading, known
from jaxnn.per_example.recording.rule import evaluated, interpreted
from jaxnn.per_example.recording.softmax import SOFTMAX_PRODUCT
from jaxnn.per_example.streaming.rule import Asked, Local, Row, at_site
from jaxnn.per_example.streaming.softmax import at_softmax_product
from jaxnn.types import PyTree


def replay(
    reading: Reading, asked: Asked, consts: Sequence[Any], operands: Sequence[Any], locals_: dict[Var, Local], row: Row
) -> list[Any]:
    """Evaluates a jaxpr. `locals_`: what is known of the base of each parameter; for one that is an operand of this
    jaxpr its `base` is that operand."""

    def evaluate(i: int, equation: JaxprEqn, given: list[Any]) -> Sequence[Any]:
        if i in reading.inside:
            body, inside = reading.inside[i]
            params = [known(reading, v) for v in equation.invars]
            return _entered(equation, body, inside, asked, given, params, locals_, row)
        if i in reading.sites:
            site = reading.sites[i]
            mine = tuple(locals_[part.param.base] for part in site.parts)
            if site.rule is SOFTMAX_PRODUCT:
                # Nothing uses the second result, the log-sum-exps.
                return [at_softmax_product(site, asked, given, mine[0], row)] * 2
            return [at_site(site, asked, given, mine, row)]
        return evaluated(equation, given)

    return interpreted(reading.jaxpr, consts, operands, evaluate)


def _entered(
    equation: JaxprEqn,
    body: Body,
    inside: Reading,
    asked: Asked,
    operands: Sequence[Any],
    params: Sequence[Any],
    locals_: dict[Var, Local],
    row: Row,
) -> list[Any]:
    """The results of an equation with a body."""
    sliced = {}
    if body.loop:
        places = enumerate(zip(body.jaxpr.invars, params, strict=True))
        sliced = {i: param for i, (v, param) in places if isinstance(param, Param) and v in inside.known}

    # What follows a parameter into a loop over its slices is sliced with it.
    def run(slices: dict[int, Any], *operands: Any) -> tuple[list[Any], PyTree]:
        here = dict(locals_)
        for i, (sums, like, number) in slices.items():
            outer = locals_[sliced[i].base]
            here[body.jaxpr.invars[i]] = Local(operands[i], sums, like, outer.shared, number, outer.bound)
        return replay(inside, asked, body.consts, operands, here, row), ()

    length = equation.params.get("length", 0)
    slices = {i: _slices(locals_[param.base], param, length) for i, param in sliced.items()}
    return body.around(run, slices, operands)[0]


def _slices(local: Local, param: Param, length: int) -> tuple[Any, ...]:
    """(sums, like, number) of the slices of a view of a parameter, with a leading axis of slices."""
    sums, like = jax.tree.map(param.view, (local.sums, local.like))
    return sums, like, local.number * length + jnp.arange(length, dtype=jnp.int32)

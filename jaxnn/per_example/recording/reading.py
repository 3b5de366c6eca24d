"""Reading a traced loss: where its parameters meet what depends on the example, found without computing anything.

A parameter is followed through views (reshapes, transpositions, slices, ...) into calls, rematerialised regions and
loops, to the operations that use it. An operation with a rule is a `Site`: the parameter's gradient there is a known
function of what the operation's other operands were and of the error at its result. Where an operation has no rule,
the parameter falls back, for all its uses: `Reading.fallen`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxnn.per_example.recording.concatenating import (
    Concatenated,
    ParamPart,
    concatenated,
    leaves_of,
    param_parts,
    viewed_concatenated,
)
from jaxnn.per_example.recording.inner import Body, body_of
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rules import OpRule, has_derivative, op_rule_of
from jaxnn.per_example.recording.viewing import VARYING, viewed


@dataclasses.dataclass(frozen=True)
class Site:
    """An equation that uses a parameter, or several concatenated: its `at`-th operand."""

    equation: JaxprEqn
    at: int
    rule: OpRule
    parts: tuple[ParamPart, ...]


@dataclasses.dataclass
class Reading:
    """What was found in a jaxpr, by the index of its equations.

    Attributes:
        jaxpr: what was read.
        sites: the uses of parameters.
        inside: the bodies of calls, rematerialised regions and loops that parameters enter, and what was found there.
        fallen: for each parameter that met an operation without a rule, the name of the first such operation.
        known: the variables that are views of parameters, or such views concatenated.
        numbers: the variables that are numbers, cast to vary over mesh axes, and those numbers.
    """

    jaxpr: Jaxpr
    sites: dict[int, Site] = dataclasses.field(default_factory=dict)
    inside: dict[int, tuple[Body, Reading]] = dataclasses.field(default_factory=dict)
    fallen: dict[int, str] = dataclasses.field(default_factory=dict)
    known: dict[Var, Param | Concatenated] = dataclasses.field(default_factory=dict)
    numbers: dict[Any, Literal] = dataclasses.field(default_factory=dict)

    def falls(self, reasons: Mapping[int, str]) -> None:
        """Parameters fall back; the first reason stays."""
        self.fallen = {**reasons, **self.fallen}


def read(jaxpr: Jaxpr, params: Mapping[Var, Param | Concatenated], sizes: Sequence[int]) -> Reading:
    """The uses of parameters in a jaxpr.

    Args:
        jaxpr: of the loss of one example, or the body of a call or loop in it.
        params: which of its variables are parameters, or views of them.
        sizes: the number of entries of each parameter: where two meet in one operation, the smaller one falls back.
    """
    found = Reading(jaxpr, known=dict(params))
    for index, equation in enumerate(jaxpr.eqns):
        if equation.primitive.name in VARYING and isinstance(equation.invars[0], Literal):
            found.numbers[equation.outvars[0]] = equation.invars[0]
        places = [i for i, v in enumerate(equation.invars) if known(found, v) is not None]
        if places and has_derivative(equation):
            _read_equation(found, index, equation, places, sizes)
    return found


def known(found: Reading, v: Any) -> Param | Concatenated | None:
    """What a variable is, if it is a parameter, a view of one, or several concatenated."""
    return None if isinstance(v, Literal) else found.known.get(v)


def _read_equation(found: Reading, index: int, equation: JaxprEqn, places: list[int], sizes: Sequence[int]) -> None:
    if (body := body_of(equation)) is not None:
        _read_body(found, index, equation, body, sizes)
        return
    operands = [known(found, v) for v in equation.invars]
    numbered = equation.replace(
        invars=[v if isinstance(v, Literal) else found.numbers.get(v, v) for v in equation.invars]
    )
    if (results := _followed(numbered, operands)) is not None:
        found.known.update(zip(equation.outvars, results, strict=True))
        return
    values = {i: value for i in places if (value := operands[i]) is not None}
    at = max(places, key=lambda i: sum(sizes[leaf] for leaf in leaves_of(values[i])))
    mine = leaves_of(values[at])
    others = {leaf for i, value in values.items() if i != at for leaf in leaves_of(value)}
    rule = op_rule_of(equation)
    parts = None if rule is None or others & set(mine) else param_parts(values[at], rule, equation, at)
    if rule is not None and parts is not None:
        found.sites[index] = Site(equation, at, rule, parts)
    else:
        others |= set(mine)
    found.falls(dict.fromkeys(others, equation.primitive.name))


def _followed(equation: JaxprEqn, operands: list[Param | Concatenated | None]) -> Sequence[Param | Concatenated] | None:
    """What the results are, if parameters were only viewed or concatenated."""
    given = [value for value in operands if value is not None]
    single = [value for value in given if isinstance(value, Param)]
    if len(single) == len(operands) and (together := concatenated(equation, single)) is not None:
        return [together]
    if len(given) > 1:
        return None
    (value,) = given
    if isinstance(value, Param):
        return viewed(equation, value)
    return None if (moved := viewed_concatenated(equation, value)) is None else [moved]


def _read_body(found: Reading, index: int, equation: JaxprEqn, body: Body, sizes: Sequence[int]) -> None:
    """A call's, region's or loop's own jaxpr; what a loop is begun with has no rule."""
    entering: dict[Var, Param | Concatenated] = {}
    name = equation.primitive.name
    for i, (outer, inner) in enumerate(zip(equation.invars, body.jaxpr.invars, strict=True)):
        if (value := known(found, outer)) is None:
            continue
        if (entered := _entered(body, i, value)) is None:
            found.falls(dict.fromkeys(leaves_of(value), name))
        else:
            entering[inner] = entered
    reading = read(body.jaxpr, entering, sizes)
    found.falls(reading.fallen)
    for result, returned in zip(equation.outvars, body.jaxpr.outvars, strict=True):
        if (value := known(reading, returned)) is None:
            continue
        if body.loop:
            found.falls(dict.fromkeys(leaves_of(value), name))
        else:
            found.known[result] = value
    found.inside[index] = (body, reading)


def _entered(body: Body, i: int, value: Param | Concatenated) -> Param | Concatenated | None:
    """What an operand is inside; concatenated parameters are not followed into a loop over their slices."""
    if isinstance(value, Param):
        return body.entered(i, value)
    parts = [found for param in value.parts if (found := body.entered(i, param)) is not None]
    sliced = any(part.loops > param.loops for part, param in zip(parts, value.parts, strict=False))
    return None if sliced or len(parts) < len(value.parts) else Concatenated(tuple(parts), value.axis)

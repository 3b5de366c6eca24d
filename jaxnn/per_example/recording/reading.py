"""The uses of parameters in the jaxpr of a loss, without evaluating it.

A parameter is followed through views (reshapes, transpositions, slices, ...) into calls, rematerialized regions and
loops, to the operations that use it. An operation with a rule is a `Site`: the parameter's gradient there is a known
function of the other operands and of the cotangent of the result. A parameter in an operation without a rule falls back
to per-example differentiation, for all its uses: `Reading.fallen`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

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

Enter: TypeAlias = Callable[[Body, int, Param], Param | None]
"""(body, i, parameter) -> what this parameter is as the i-th operand of the body; None if it falls back there."""


@dataclasses.dataclass(frozen=True)
class Site:
    """An equation with a parameter, or several concatenated, as its `at`-th operand."""

    equation: JaxprEqn
    at: int
    rule: OpRule
    parts: tuple[ParamPart, ...]


@dataclasses.dataclass
class Reading:
    """The uses of parameters in a jaxpr, by the index of the equation.

    Attributes:
        jaxpr: the jaxpr.
        sites: the uses of parameters.
        inside: the bodies of calls, rematerialized regions and loops that parameters enter, and their readings.
        fallen: for each parameter that falls back, the name of the first operation without a rule.
        known: the variables that are views of parameters, or such views concatenated.
        numbers: the variables that are literals cast to vary over mesh axes, and these literals.
    """

    jaxpr: Jaxpr
    sites: dict[int, Site] = dataclasses.field(default_factory=dict)
    inside: dict[int, tuple[Body, Reading]] = dataclasses.field(default_factory=dict)
    fallen: dict[int, str] = dataclasses.field(default_factory=dict)
    known: dict[Var, Param | Concatenated] = dataclasses.field(default_factory=dict)
    numbers: dict[Any, Literal] = dataclasses.field(default_factory=dict)

    def falls(self, reasons: Mapping[int, str]) -> None:
        """Adds parameters that fall back; the first reason stays."""
        self.fallen = {**reasons, **self.fallen}


def as_positions(body: Body, i: int, param: Param) -> Param | None:
    """A parameter as the i-th operand of a body: iterations of a loop are positions, or groups if it is sliced."""
    return body.entered(i, param)


def read(
    jaxpr: Jaxpr, params: Mapping[Var, Param | Concatenated], sizes: Sequence[int], enter: Enter = as_positions
) -> Reading:
    """The uses of `params`, variables that are views of parameters, in a jaxpr.

    `sizes` are the numbers of entries of the parameters: if one operation has two, the smaller one falls back, since it
    costs less to differentiate per example, and the larger one sees it as an operand that depends on the example.
    `enter` says what a parameter is inside the body of a loop, call or region; None where it falls back.
    """
    found = Reading(jaxpr, known=dict(params))
    for index, equation in enumerate(jaxpr.eqns):
        if equation.primitive.name in VARYING and isinstance(equation.invars[0], Literal):
            found.numbers[equation.outvars[0]] = equation.invars[0]
        places = [i for i, v in enumerate(equation.invars) if known(found, v) is not None]
        if places and has_derivative(equation):
            _read_equation(found, index, equation, places, sizes, enter)
    return found


def known(found: Reading, v: Any) -> Param | Concatenated | None:
    """The parameter view, or concatenated ones, that a variable is; else None."""
    return None if isinstance(v, Literal) else found.known.get(v)


def _read_equation(
    found: Reading, index: int, equation: JaxprEqn, places: list[int], sizes: Sequence[int], enter: Enter
) -> None:
    if (body := body_of(equation)) is not None:
        _read_body(found, index, equation, body, sizes, enter)
        return
    operands = [known(found, v) for v in equation.invars]
    # Inside shard_map a literal factor is cast to vary before it is used; it is constant all the same.
    numbered = equation.replace(
        invars=[v if isinstance(v, Literal) else found.numbers.get(v, v) for v in equation.invars]
    )
    if (results := _followed(numbered, operands)) is not None:
        found.known.update(zip(equation.outvars, results, strict=True))
        return
    values = {i: value for i in places if (value := operands[i]) is not None}
    at = max(places, key=lambda i: sum(sizes[leaf] for leaf in leaves_of(values[i])))
    # The operand with most entries is the parameter of this site. The parameters of all others fall back, and so does
    # this one if it is also among them (w @ w: neither factor is constant) or if the rule does not cover the geometry.
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
    """The results of an equation that views or concatenates parameters; None if it uses them otherwise."""
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


def _read_body(found: Reading, index: int, equation: JaxprEqn, body: Body, sizes: Sequence[int], enter: Enter) -> None:
    """Reads the body of a call, region or loop. A loop's initial carry falls back, and so does a parameter that a loop
    returns, since its results are stacked or carried."""
    entering: dict[Var, Param | Concatenated] = {}
    name = equation.primitive.name
    for i, (outer, inner) in enumerate(zip(equation.invars, body.jaxpr.invars, strict=True)):
        if (value := known(found, outer)) is None:
            continue
        if (entered := _entered(enter, body, i, value)) is None:
            found.falls(dict.fromkeys(leaves_of(value), name))
        else:
            entering[inner] = entered
    reading = read(body.jaxpr, entering, sizes, enter)
    found.falls(reading.fallen)
    for result, returned in zip(equation.outvars, body.jaxpr.outvars, strict=True):
        if (value := known(reading, returned)) is None:
            continue
        if body.loop:
            found.falls(dict.fromkeys(leaves_of(value), name))
        else:
            found.known[result] = value
    found.inside[index] = (body, reading)


def _entered(enter: Enter, body: Body, i: int, value: Param | Concatenated) -> Param | Concatenated | None:
    """The operand inside a body; None for concatenated parameters in a loop over slices, which may cut their axis."""
    if isinstance(value, Param):
        return enter(body, i, value)
    parts = [found for param in value.parts if (found := enter(body, i, param)) is not None]
    sliced = any(part.shape != param.shape for part, param in zip(parts, value.parts, strict=False))
    return None if sliced or len(parts) < len(value.parts) else Concatenated(tuple(parts), value.axis)

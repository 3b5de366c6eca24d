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

from jaxnn.per_example.recording.inner import Body, body_of
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rules import Rule, has_derivative, rule_of
from jaxnn.per_example.recording.viewing import viewed


@dataclasses.dataclass(frozen=True)
class Site:
    """An equation that uses a parameter: its `at`-th operand."""

    equation: JaxprEqn
    at: int
    param: Param
    rule: Rule


@dataclasses.dataclass
class Reading:
    """What was found in a jaxpr, by the index of its equations.

    Attributes:
        jaxpr: what was read.
        sites: the uses of parameters.
        inside: the bodies of calls, rematerialised regions and loops that parameters enter, and what was found there.
        fallen: for each parameter that met an operation without a rule, the name of the first such operation.
        known: the variables that are views of parameters.
    """

    jaxpr: Jaxpr
    sites: dict[int, Site] = dataclasses.field(default_factory=dict)
    inside: dict[int, tuple[Body, Reading]] = dataclasses.field(default_factory=dict)
    fallen: dict[int, str] = dataclasses.field(default_factory=dict)
    known: dict[Var, Param] = dataclasses.field(default_factory=dict)

    def falls(self, reasons: Mapping[int, str]) -> None:
        """Parameters fall back; the first reason stays."""
        self.fallen = {**reasons, **self.fallen}


def read(jaxpr: Jaxpr, params: Mapping[Var, Param], sizes: Sequence[int]) -> Reading:
    """The uses of parameters in a jaxpr.

    Args:
        jaxpr: of the loss of one example, or the body of a call or loop in it.
        params: which of its variables are parameters, or views of them.
        sizes: the number of entries of each parameter: where two meet in one operation, the smaller one falls back.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn.ops.views import View
        >>> jaxpr = jax.make_jaxpr(lambda w, x: jnp.sum(jnp.sin(x @ w)))(jnp.ones((2, 3)), jnp.ones(2)).jaxpr
        >>> found = read(jaxpr, {jaxpr.invars[0]: Param(0, View((2, 3)))}, [6])
        >>> [site.equation.primitive.name for site in found.sites.values()]
        ['dot_general']
    """
    found = Reading(jaxpr, known=dict(params))
    for index, equation in enumerate(jaxpr.eqns):
        places = [i for i, v in enumerate(equation.invars) if known(found, v) is not None]
        if places and has_derivative(equation):
            _read_equation(found, index, equation, places, sizes)
    return found


def known(found: Reading, v: Any) -> Param | None:
    """What a variable is, if it is a parameter or a view of one.

    Example:
        >>> import jax
        >>> jaxpr = jax.make_jaxpr(lambda x: x)(1.0).jaxpr
        >>> known(Reading(jaxpr), jaxpr.outvars[0]) is None
        True
    """
    return None if isinstance(v, Literal) else found.known.get(v)


def _read_equation(found: Reading, index: int, equation: JaxprEqn, places: list[int], sizes: Sequence[int]) -> None:
    if (body := body_of(equation)) is not None:
        _read_body(found, index, equation, body, sizes)
        return
    operands: list[Any] = list(equation.invars)
    params = {i: found.known[operands[i]] for i in places}
    if len(places) == 1 and (views := viewed(equation, params[places[0]])) is not None:
        found.known.update(zip(equation.outvars, views, strict=True))
        return
    at = max(places, key=lambda i: sizes[params[i].leaf])
    others = {param.leaf for i, param in params.items() if i != at}
    rule = rule_of(equation)
    name = equation.primitive.name
    if rule is None or params[at].leaf in others or not rule.fits(equation, at, params[at]):
        others |= {params[at].leaf}
    else:
        found.sites[index] = Site(equation, at, params[at], rule)
    found.falls(dict.fromkeys(others, name))


def _read_body(found: Reading, index: int, equation: JaxprEqn, body: Body, sizes: Sequence[int]) -> None:
    """A call's, region's or loop's own jaxpr; what a loop is begun with has no rule."""
    entering: dict[Var, Param] = {}
    for i, (outer, inner) in enumerate(zip(equation.invars, body.jaxpr.invars, strict=True)):
        if (param := known(found, outer)) is None:
            continue
        if (entered := body.entered(i, param)) is None:
            found.falls({param.leaf: equation.primitive.name})
        else:
            entering[inner] = entered
    reading = read(body.jaxpr, entering, sizes)
    found.falls(reading.fallen)
    for result, returned in zip(equation.outvars, body.jaxpr.outvars, strict=True):
        if (param := known(reading, returned)) is None:
            continue
        if body.loop:
            found.falls({param.leaf: equation.primitive.name})
        else:
            found.known[result] = param
    found.inside[index] = (body, reading)

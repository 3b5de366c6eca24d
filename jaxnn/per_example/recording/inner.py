"""Equations whose inner jaxpr the recorder enters: calls, rematerialized regions, loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from jaxnn.per_example.recording.param import Param
from jaxnn.types import Array, PyTree

CALLS = ("jit", "pjit", "closed_call", "core_call")
"""Calls that are equal to their body; custom_jvp and custom_vjp are not, since their derivative is not the body's."""

Run = Callable[..., tuple[list[Array], PyTree]]
"""(taps, *operands) -> (results, the seen arrays of the uses inside)."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The inner jaxpr of an equation.

    Attributes:
        jaxpr, consts: the body and the values of its constants.
        loop: whether it is the body of a `lax.scan`.
        around: evaluates the equation by a function of its body: (run, taps, operands) -> (results, seen).
        entered: (i, parameter) -> this parameter as the i-th operand of the body; None if it falls back there.
    """

    jaxpr: Jaxpr
    consts: Sequence[Any]
    loop: bool
    around: Callable[[Run, PyTree, Sequence[Array]], tuple[list[Array], PyTree]]
    entered: Callable[[int, Param], Param | None]


def body_of(equation: JaxprEqn) -> Body | None:
    """The body of an equation that parameters can be followed into, or None."""
    name = equation.primitive.name
    if name in CALLS:
        return Body(*opened(equation.params["jaxpr"]), False, _call, _same)
    if name in ("checkpoint", "remat", "remat2"):
        return Body(*opened(equation.params["jaxpr"]), False, _rematerialised(equation), _same)
    if name == "scan":
        return Body(*opened(equation.params["jaxpr"]), True, _scanned(equation), _entered_loop(equation))
    return None


def opened(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and its constants, from a closed jaxpr or, in newer versions of JAX, from a jaxpr that holds them."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _same(i: int, param: Param) -> Param:
    return param


def _call(run: Run, taps: PyTree, operands: Sequence[Array]) -> tuple[list[Array], PyTree]:
    return run(taps, *operands)


def _rematerialised(equation: JaxprEqn) -> Callable[..., tuple[list[Array], PyTree]]:
    settings = {name: equation.params[name] for name in ("prevent_cse", "policy")}

    def around(run: Run, taps: PyTree, operands: Sequence[Array]) -> tuple[list[Array], PyTree]:
        return jax.checkpoint(run, **settings)(taps, *operands)

    return around


def _counts(equation: JaxprEqn) -> tuple[int, int]:
    """The numbers of constants and of carried operands of a scan."""
    if "num_consts" in equation.params:
        return equation.params["num_consts"], equation.params["num_carry"]
    consts, carried, _ = equation.params["ft_in"].unpack()  # jax 0.12
    return len(consts), len(carried)


def _entered_loop(equation: JaxprEqn) -> Callable[[int, Param], Param | None]:
    consts, carried = _counts(equation)

    def entered(i: int, param: Param) -> Param | None:
        if consts <= i < consts + carried:
            return None  # a carry is the parameter in the first iteration only
        return param._replace(stacked=(*param.stacked, i >= consts))

    return entered


def _scanned(equation: JaxprEqn) -> Callable[..., tuple[list[Array], PyTree]]:
    consts, carried = _counts(equation)
    settings = {name: equation.params[name] for name in ("length", "reverse", "unroll")}

    def around(run: Run, taps: PyTree, operands: Sequence[Array]) -> tuple[list[Array], PyTree]:
        fixed, begin, xs = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]

        def step(carry: list[Array], slices: tuple[PyTree, list[Array]]) -> tuple[list[Array], Any]:
            own_taps, x = slices
            results, seen = run(own_taps, *fixed, *carry, *x)
            return results[:carried], (results[carried:], seen)

        end, (ys, seen) = lax.scan(step, list(begin), (taps, list(xs)), **settings)
        return [*end, *ys], seen

    return around

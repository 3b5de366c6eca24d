"""Equations with a jaxpr of their own that parameters can be followed into: calls, rematerialised regions, loops."""

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
"""Calls that mean no more than their body. What has a derivative of its own (custom_jvp, custom_vjp) is none."""

Run = Callable[..., tuple[list[Array], PyTree]]
"""(taps, *operands) -> (results, what the uses inside saw)."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The inside of an equation.

    Attributes:
        jaxpr: the body.
        consts: the values of its constants.
        loop: whether it is that of a `lax.scan`.
        around: makes of the body's function the equation's: (run, taps, operands) -> (results, seen).
        entered: what the i-th operand is inside, if it is this parameter outside; None if that cannot be followed.
    """

    jaxpr: Jaxpr
    consts: Sequence[Any]
    loop: bool
    around: Callable[[Run, PyTree, Sequence[Array]], tuple[list[Array], PyTree]]
    entered: Callable[[int, Param], Param | None]


def body_of(equation: JaxprEqn) -> Body | None:
    """The inside of an equation, if parameters can be followed into it."""
    name = equation.primitive.name
    if name in CALLS:
        return Body(*opened(equation.params["jaxpr"]), False, _call, _same)
    if name in ("checkpoint", "remat", "remat2"):
        return Body(*opened(equation.params["jaxpr"]), False, _rematerialised(equation), _same)
    if name == "scan":
        return Body(*opened(equation.params["jaxpr"]), True, _scanned(equation), _entered_loop(equation))
    return None


def opened(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and its constants; newer versions of JAX keep them in one object, older in a closed jaxpr."""
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
    """How many operands of a scan are constants, how many are carried."""
    if "num_consts" in equation.params:
        return equation.params["num_consts"], equation.params["num_carry"]
    consts, carried, _ = equation.params["ft_in"].unpack()  # jax 0.12
    return len(consts), len(carried)


def _entered_loop(equation: JaxprEqn) -> Callable[[int, Param], Param | None]:
    consts, carried = _counts(equation)

    def entered(i: int, param: Param) -> Param | None:
        if consts <= i < consts + carried:
            return None
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

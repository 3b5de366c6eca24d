"""Derivatives that are the user's own: a recorder that looked through them, or counted uses apart, would be caught.

Each loss has a gradient that differs from that of its values; the broken recorders beside them must fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example.recording import inner
from jaxnn.tape import Tape
from tests.helpers import float64
from tests.per_example.cases import flat, gap
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import Drawn


@jax.custom_vjp
def reversal(x: Any) -> Any:
    """Gradient reversal (Ganin & Lempitsky 2015)."""
    return x


reversal.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def clipped(x: Any) -> Any:
    """The error that comes back is cut to length 0.01."""
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.minimum(1, 0.01 / jnp.linalg.norm(g)),))


def straight_through(x: Any) -> Any:
    return x + jax.lax.stop_gradient(jnp.sign(x) - x)


@jax.custom_jvp
def kinked(x: Any) -> Any:
    return jnp.abs(x)


kinked.defjvp(lambda primals, tangents: (jnp.abs(primals[0]), 7 * tangents[0]))

OWN: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "straight through": straight_through,
    "reversal": reversal,
    "clipped error": clipped,
    "custom_jvp": kinked,
    "inside jit": jax.jit(lambda x: jax.jit(reversal)(x)),
    "inside checkpoint": jax.checkpoint(lambda x: jnp.sin(reversal(x))),
}


def loss(f: Callable[[Any], Any]) -> Callable[..., Any]:
    """Hidden units 0 and 1 are exactly 0 for every example: their weights and biases are 0."""
    return lambda p, x: jnp.sum((f(x @ p["w"] + p["b"]) @ p["v"] - 1) ** 2)


def drawn() -> tuple[Any, Any]:
    r = Drawn(0)
    dead = np.array([0.0, 0, 1, 1, 1])
    return {"w": r(3, 5) * dead, "b": r(5) * dead, "v": r(5, 2)}, r(4, 3)


def gaps_of(pairs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]], params: Any, x: Any) -> dict[str, float]:
    """How far the recorded gradients of one loss are from vmap(grad) of another, by name; one program for all."""

    @jax.jit
    def both(params: Any, x: Any) -> dict[str, Any]:
        return {
            name: (
                per_example.materialize(per_example.record(f)(params, x)),
                jax.vmap(jax.grad(g), (None, 0))(params, x),
            )
            for name, (f, g) in pairs.items()
        }

    return {name: gap(flat(found), flat(right)) for name, (found, right) in both(params, x).items()}


def gap_of(f: Callable[..., Any], params: Any, x: Any) -> float:
    return gaps_of({"": (f, f)}, params, x)[""]


def test_derivatives_of_ones_own_are_kept() -> None:
    with float64():
        found = gaps_of({name: (loss(f), loss(f)) for name, f in OWN.items()}, *drawn())
    assert max(found.values()) <= EXACT, found


def test_looking_through_them_would_be_caught() -> None:
    """As if they were plain calls of their values' functions."""
    values = {"relu": lambda x: jnp.maximum(x, 0.0), "custom_jvp": jnp.abs}
    names = ["relu", "reversal", "clipped error", "custom_jvp"]
    with float64():
        found = gaps_of({n: (loss(values.get(n, lambda x: x)), loss(OWN[n])) for n in names}, *drawn())
    assert min(found.values()) > 1e-3, found


def _following_custom_calls(equation: Any) -> Any:
    """`body_of` for a recorder that walks into custom_jvp and custom_vjp."""
    if equation.primitive.name == "custom_jvp_call":
        return inner.Body(*inner.opened(equation.params["call_jaxpr"]), False, inner._call, inner._same)
    return BODY_OF(equation)


BODY_OF = inner.body_of


@pytest.mark.slow
def test_following_a_parameter_into_a_custom_jvp_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """relu of a parameter at 0: the true derivative is 0 there, that of max(x, 0) is one half."""

    def f(p: Any, x: Any) -> Any:
        return jnp.sum((x @ jax.nn.relu(p["w"]) - 1) ** 2)

    with float64():
        params, x = {"w": drawn()[0]["w"]}, drawn()[1]
        assert gap_of(f, params, x) <= EXACT
        monkeypatch.setattr("jaxnn.per_example.recording.reading.body_of", _following_custom_calls)
        assert gap_of(f, params, x) > 1e-3


USED_TWICE: dict[str, Callable[..., Any]] = {
    "product, product": lambda p, x: jnp.sum(jnp.tanh(x @ p["w"]) @ p["w"]) ** 2,
    "product, its transpose": lambda p, x: jnp.sum((jnp.tanh(x @ p["w"]) @ p["w"].T - x) ** 2),
    "product, scaling": lambda p, x: jnp.sum(jnp.tanh(x @ p["w"]) * p["w"][0]) ** 2,
    "product, addition": lambda p, x: jnp.sum((jnp.tanh(x @ p["w"]) + p["w"]) ** 2),
    "product, lookup": lambda p, x: jnp.sum((x @ p["w"] + p["w"][jnp.argmax(x)]) ** 2),
    "product, fallback": lambda p, x: jnp.sum((x @ p["w"] + jnp.sort(p["w"])[0]) ** 2),
    "by two paths of views": lambda p, x: jnp.sum((x @ p["w"][:, ::-1] + x @ p["w"].reshape(9).reshape(3, 3)) ** 2),
}


def test_a_parameter_used_twice() -> None:
    """Its gradient is the sum of the uses'; norms added up, or one use alone, would be caught."""

    @jax.jit
    def every(params: Any, x: Any) -> dict[str, Any]:
        found = {}
        for name, f in USED_TWICE.items():
            tape = per_example.record(f)(params, x)
            parts = [per_example.sq_norms(_only(tape, i)) for i in range(len(tape.uses[0]))]
            found[name] = jax.vmap(jax.grad(f), (None, 0))(params, x), per_example.sq_norms(tape), parts
        return found

    with float64():
        r = Drawn(1)
        found = every({"w": r(3, 3)}, r(4, 3))
    for name, (g, whole, parts) in found.items():
        sizes = np.sum(flat(g) ** 2, axis=1)
        assert gap(whole, sizes) <= EXACT, name
        if len(parts) > 1:
            assert gap(sum(map(np.asarray, parts)), sizes) > 1e-3, name
            assert all(gap(part, sizes) > 1e-3 for part in parts), name


def _only(tape: Tape, i: int) -> Tape:
    return dataclasses.replace(tape, uses=((tape.uses[0][i],),))


def test_a_real_parameter_in_a_complex_product_falls_back() -> None:
    """Only the real part of what comes back is the parameter's: the rule of products would square complex numbers."""

    def f(p: Any, x: Any) -> Any:
        numbers = (((0,), (0,)), ((), ()))
        z = jax.lax.dot_general(x * (1 + 2j), p["w"], numbers, preferred_element_type=jnp.complex128)
        return jnp.sum(jnp.abs(z + 1j) ** 2)

    with float64():
        r = Drawn(2)
        params, x = {"w": r(3, 2)}, r(4, 3)
        tape = jax.eval_shape(per_example.record(f), params, x)
        assert per_example.plan(tape)[0].strategy == "as given (dot_general)"
        assert gap_of(f, params, x) <= EXACT

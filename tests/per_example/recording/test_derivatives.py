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

pytestmark = pytest.mark.sampled


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
    dead = jnp.array([0.0, 0, 1, 1, 1])
    return {"w": r(3, 5) * dead, "b": r(5) * dead, "v": r(5, 2)}, r(4, 3)


def gap_of(f: Callable[..., Any], params: Any, x: Any) -> float:
    g = flat(jax.vmap(jax.grad(f), (None, 0))(params, x))
    return gap(flat(per_example.materialize(per_example.record(f)(params, x))), g)


@pytest.mark.parametrize("name", OWN)
def test_derivatives_of_ones_own_are_kept(name: str) -> None:
    with float64():
        assert gap_of(loss(OWN[name]), *drawn()) <= EXACT


@pytest.mark.parametrize("name", ["relu", "reversal", "clipped error", "custom_jvp"])
def test_looking_through_them_would_be_caught(name: str) -> None:
    """As if they were plain calls of their values' functions."""
    values = {"relu": lambda x: jnp.maximum(x, 0.0), "custom_jvp": jnp.abs}
    with float64():
        params, x = drawn()
        right = flat(jax.vmap(jax.grad(loss(OWN[name])), (None, 0))(params, x))
        broken = loss(values.get(name, lambda x: x))
        assert gap(flat(per_example.materialize(per_example.record(broken)(params, x))), right) > 1e-3


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


@pytest.mark.parametrize("name", USED_TWICE)
def test_a_parameter_used_twice(name: str) -> None:
    """Its gradient is the sum of the uses'; norms added up, or one use alone, would be caught."""
    with float64():
        r = Drawn(1)
        f, params, x = USED_TWICE[name], {"w": r(3, 3)}, r(4, 3)
        g = flat(jax.vmap(jax.grad(f), (None, 0))(params, x))
        tape = per_example.record(f)(params, x)
        sizes = np.sum(g**2, axis=1)
        assert gap(per_example.sq_norms(tape), sizes) <= EXACT
        parts = [_only(tape, i) for i in range(len(tape.uses[0]))]
        if len(parts) > 1:
            assert gap(sum(per_example.sq_norms(part) for part in parts), sizes) > 1e-3
            assert all(gap(per_example.sq_norms(part), sizes) > 1e-3 for part in parts)


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
        assert per_example.plan(per_example.record(f)(params, x))[0].strategy == "as given (dot_general)"
        assert gap_of(f, params, x) <= EXACT

"""Drawn examples: a pytree of arrays with a function of the key; what a draw must return."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.data import Draws

KEY = jax.random.key(0)


def scaled(key: Any, arrays: Any, n: int) -> Any:
    x = arrays["scale"] * jax.random.normal(key, (n, 2))
    return x, {"sum": x.sum(axis=1)}


DRAWS = Draws({"scale": jnp.float32(3.0)}, scaled, 4)


def test_a_batch_is_what_draw_returns_for_the_key() -> None:
    for n in (1, 5):
        x, y = DRAWS.batch(KEY, n)
        np.testing.assert_array_equal(x, 3 * jax.random.normal(KEY, (n, 2)))
        np.testing.assert_array_equal(y["sum"], x.sum(axis=1))


def test_arrays_are_arguments_of_a_program_and_the_rest_is_static() -> None:
    leaves, structure = jax.tree.flatten(DRAWS)
    assert len(leaves) == 1
    again = jax.tree.unflatten(structure, leaves)
    assert (again.draw, again.steps) == (scaled, 4)
    traces = []

    @jax.jit
    def batch(draws: Draws, key: Any) -> Any:
        traces.append(draws.steps)
        return draws.batch(key, 3)[0]

    first, second = (batch(Draws({"scale": jnp.float32(s)}, scaled, 4), KEY) for s in (1.0, 2.0))
    np.testing.assert_array_equal(2 * first, second)
    batch(Draws(DRAWS.arrays, scaled, 5), KEY)
    assert traces == [4, 5]


def returns(value: Any) -> Draws:
    return Draws((), lambda key, arrays, n: value, 1)


X = jnp.ones((3, 2))
BAD: list[tuple[type[Exception], str, Any]] = [
    (TypeError, "Draws: draw must be a function", lambda: Draws((), None, 1)),
    (TypeError, "Draws: draw must be hashable", lambda: Draws((), type("D", (list,), {"__call__": scaled})(), 1)),
    (ValueError, "Draws: steps must be at least 1, got 0", lambda: Draws((), scaled, 0)),
    (TypeError, "Draws: steps must be an int, got 2.5", lambda: Draws((), scaled, 2.5)),
    (TypeError, "draw must return the pair", lambda: returns(X).batch(KEY, 3)),
    (TypeError, "draw must return the pair", lambda: returns((X, X, X)).batch(KEY, 3)),
    (ValueError, "as many examples as asked for, 2, got 3", lambda: returns((X, X)).batch(KEY, 2)),
    (ValueError, r"the same N >= 1, got shapes \(3, 2\), \(2, 2\)", lambda: returns((X, X[:2])).batch(KEY, 3)),
    (ValueError, "n must be at least 1, got 0", lambda: DRAWS.batch(KEY, 0)),
    (TypeError, "key must be a typed key", lambda: DRAWS.batch(0, 3)),
]


@pytest.mark.parametrize(("error", "told", "call"), BAD)
def test_what_is_no_draw_is_named(error: type[Exception], told: str, call: Any) -> None:
    with pytest.raises(error, match=told):
        call()


def test_a_draw_with_settings_may_be_a_partial() -> None:
    draws = Draws((), functools.partial(lambda key, arrays, n, size: (jnp.ones((n, size)), jnp.ones(n)), size=7), 2)
    assert draws.batch(KEY, 3)[0].shape == (3, 7)

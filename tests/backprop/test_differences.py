"""Difference quotients have the errors that their formulas say, and the estimate knows its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.backprop import differences
from jaxnn.backprop.differences import central, complex_step, derivative, errors_by_step, one_sided
from tests.helpers import float64, random, strict

FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exp": (jnp.exp, np.exp),
    "sin": (jnp.sin, np.cos),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "tanh": (jnp.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "Runge": (lambda x: 1 / (1 + 25 * x**2), lambda x: -50 * x / (1 + 25 * x**2) ** 2),
    "wave": (lambda x: jnp.sin(30 * x), lambda x: 30 * np.cos(30 * x)),
}
"""f and f', f' by hand."""


def order(method: Any, f: Any, x: float, steps: tuple[float, float]) -> float:
    """p of an error that falls as h^p."""
    error = jax.jit(lambda x, steps: errors_by_step(method, f, x, steps))(x, np.array(steps))
    return float(np.log(error[0] / error[1]) / np.log(steps[0] / steps[1]))


def test_orders_of_the_errors() -> None:
    with float64():
        f = FUNCTIONS["exp"][0]
        assert order(one_sided, f, 0.7, (1e-3, 1e-4)) == pytest.approx(1, abs=0.01)
        assert order(central, f, 0.7, (1e-2, 1e-3)) == pytest.approx(2, abs=0.01)
        assert order(complex_step, f, 0.7, (1e-2, 1e-3)) == pytest.approx(2, abs=0.01)
        # Below the best step rounding rules, and the error grows as the step falls.
        assert errors_by_step(central, f, 0.7, np.geomspace(1e-12, 1e-8, 9)).max() > 1e-6
        assert errors_by_step(complex_step, f, 0.7, np.geomspace(1e-200, 1e-10, 20)).max() < 1e-15


def one_sided_doubled(f: Any, x: Any, v: Any, *, step: Any) -> Any:
    return (f(x + 2 * step * v) - f(x)) / step


def central_undivided(f: Any, x: Any, v: Any, *, step: Any) -> Any:
    return (f(x + step * v) - f(x - step * v)) / step


@pytest.mark.parametrize("method", [one_sided_doubled, central_undivided])
def test_a_wrong_quotient_has_an_error_of_order_0(method: Any) -> None:
    with float64():
        assert order(method, jnp.exp, 0.7, (1e-3, 1e-4)) == pytest.approx(0, abs=0.01)


def test_quotients_of_pytrees_along_a_direction() -> None:
    with float64(), strict():
        x = {"a": random(0, 3), "b": (random(1, 2, 2),)}
        v = {"a": random(2, 3), "b": (random(3, 2, 2),)}

        def f(x: Any) -> Any:
            return {"s": jnp.sum(x["a"] ** 2), "t": jnp.sin(x["b"][0])}

        expected = {"s": 2 * x["a"] @ v["a"], "t": np.cos(x["b"][0]) * v["b"][0]}
        for method, step, rtol in ((one_sided, 1e-8, 1e-5), (central, 1e-5, 1e-8), (complex_step, 1e-20, 1e-13)):
            found = jax.jit(lambda x, v, h, method=method: method(f, x, v, step=h))(x, v, step)
            jax.tree.map(lambda a, b, rtol=rtol: np.testing.assert_allclose(a, b, rtol=rtol), found, expected)
        dy = {"s": 2.0, "t": random(4, 2, 2)}
        found = jax.jit(lambda x, v, dy: derivative(f, x, v, dy))(x, v, dy)
        np.testing.assert_allclose(found.value, 2 * expected["s"] + np.sum(dy["t"] * expected["t"]), rtol=1e-10)


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 1e-8), (np.float32, 5e-3)])
def test_the_estimate_is_near_the_derivative_and_its_error_is_honest(dtype: Any, most: float) -> None:
    points = np.linspace(-2, 2, 41).astype(dtype)

    def everything(x: Any) -> Any:
        return {name: jax.vmap(functools.partial(derivative, f))(x) for name, (f, _) in FUNCTIONS.items()}

    with float64():
        found = jax.device_get(jax.jit(everything)(points))
    for name, (_, slope) in FUNCTIONS.items():
        exact, one = slope(points.astype(np.float64)), found[name]
        assert one.value.dtype == dtype
        scale = np.abs(exact).max()
        assert np.max(np.abs(one.value - exact)) < most * scale, name
        assert np.median(one.error) < most * scale, name
        for value, error in ((one.value, one.error), (one.left, one.side_error), (one.right, one.side_error)):
            # Rounding inside f may be several times that of its result.
            assert np.all(np.abs(value - exact) <= 8 * error + 4 * np.finfo(dtype).eps * scale), name


def test_sides_of_a_kink_and_a_jump() -> None:
    functions = (lambda x: jnp.maximum(2 * x, -x), lambda x: jnp.where(x > 0, 1.0, 0.0), lambda x: 3.0 + 0 * x)
    kink, jump, constant = jax.jit(lambda x: [derivative(f, x) for f in functions])(0.0)
    np.testing.assert_allclose([kink.left, kink.right, kink.value], [-1, 2, 0.5], rtol=1e-6)
    assert jump.error > 1
    assert constant.error == 0, "what does not change is not lost in rounding"
    assert jax.jit(lambda x: derivative(jnp.exp, x, 0 * x))(2.0).value == 0, "along the direction 0"


def test_half_precision_is_widened() -> None:
    found = jax.jit(lambda x: derivative(lambda x: x**2, x))(jnp.asarray(3.0, jnp.bfloat16))
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, 6.0, rtol=1e-4)


def test_numpy_float64_without_x64() -> None:
    x, v = random(0, 3), random(1, 3)
    for found in (
        central(jnp.sin, x, v, step=np.float64(1e-2)),
        complex_step(jnp.sin, x, v, step=np.float64(1e-10)),
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, np.cos(x) * v, rtol=1e-3)


def test_errors() -> None:
    with pytest.raises(TypeError, match="x must have a floating dtype, got int32"):
        central(jnp.sin, jnp.arange(3), step=0.1)
    with pytest.raises(ValueError, match=r"v must be a pytree like x, of shapes \(3,\), got \(2,\)"):
        central(jnp.sin, jnp.ones(3), jnp.ones(2), step=0.1)
    with pytest.raises(ValueError, match="x must hold at least one array"):
        one_sided(lambda x: 0.0, (), step=0.1)
    with pytest.raises(TypeError, match="f must be a function"):
        one_sided(3.0, 1.0, step=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must compute with complex numbers, got float32"):
        complex_step(lambda x: jnp.real(x), 1.0)
    with pytest.raises(ValueError, match=r"f must return one number, got shape \(3,\)"):
        derivative(jnp.sin, jnp.ones(3))
    with pytest.raises(ValueError, match=r"dy must be a pytree like f\(x\)"):
        derivative(jnp.sin, jnp.ones(3), dy=jnp.ones(2))
    with pytest.raises(ValueError, match=r"steps must be \(S,\)"):
        errors_by_step(central, jnp.sin, 1.0, jnp.asarray(0.1))


def test_a_large_constant_hides_small_steps_but_not_the_derivative() -> None:
    found = jax.jit(lambda x: derivative(lambda x: 1e5 + x, x))(jnp.float32(1))
    assert abs(found.value - 1) <= found.error < 0.5


@pytest.mark.parametrize(("method", "step"), [("one_sided", 0.0), ("central", np.nan), ("complex_step", 1e-50)])
def test_steps_that_vanish_are_named(method: str, step: float) -> None:
    with pytest.raises(ValueError, match=f"{method}: step must be finite and not 0 in float32"):
        getattr(differences, method)(jnp.sin, 1.0, step=step)

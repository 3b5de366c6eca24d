"""Kinds of stationary points: one-dimensional powers, random quadratics by their eigenvalues, known landscapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import landscapes, optim, train
from jaxnn.train import PointKind, kind_of_point
from tests.helpers import float64, strict

POWERS: dict[str, tuple[Callable[[Any], Any], float, PointKind]] = {
    "x^2": (lambda x: x**2, 1e-3, PointKind.MINIMUM),
    "x^2 + 1": (lambda x: x**2 + 1, 1e-4, PointKind.MINIMUM),
    "-x^2": (lambda x: -(x**2), -1e-3, PointKind.MAXIMUM),
    "x^3": (lambda x: x**3, 0.018, PointKind.INFLECTION),
    "x^3 at 0": (lambda x: x**3, 0.0, PointKind.INFLECTION),
    "x^4": (lambda x: x**4, 0.06, PointKind.MINIMUM),
    "x^4 at 0": (lambda x: x**4, 0.0, PointKind.MINIMUM),
    "x^5": (lambda x: x**5, 0.1, PointKind.INFLECTION),
    "x^6": (lambda x: x**6, 0.1, PointKind.MINIMUM),
    "constant": (lambda x: 0 * x + 1, 1.0, PointKind.FLAT),
    "|x|": (jnp.abs, 0.0, PointKind.MINIMUM),
    "ReLU below its kink": (jax.nn.relu, -1.0, PointKind.FLAT),
    "NaN": (lambda x: x * jnp.nan, 1.0, PointKind.UNKNOWN),
}

PLANE: dict[str, tuple[Callable[[Any], Any], PointKind]] = {
    "saddle": (lambda x: x[0] ** 2 - x[1] ** 2, PointKind.SADDLE),
    "rotated saddle": (lambda x: x[0] * x[1], PointKind.SADDLE),
    "valley": (lambda x: (x[0] - x[1]) ** 2, PointKind.FLAT),
    "cubic saddle": (lambda x: x[0] ** 2 + x[1] ** 3, PointKind.INFLECTION),
    "bowl": (lambda x: 100 * x[0] ** 2 + x[1] ** 2, PointKind.MINIMUM),
    "dome": (lambda x: -100 * x[0] ** 2 - x[1] ** 2, PointKind.MAXIMUM),
}


def test_powers_of_one_variable_and_functions_of_the_plane() -> None:
    @jax.jit
    def found() -> Any:
        line = {name: kind_of_point(f, jnp.float32(x)) for name, (f, x, _) in POWERS.items()}
        return line, {name: kind_of_point(f, jnp.zeros(2)) for name, (f, _) in PLANE.items()}

    line, plane = jax.device_get(found())
    assert {name: PointKind(kind) for name, kind in line.items()} == {n: kind for n, (_, _, kind) in POWERS.items()}
    assert {name: PointKind(kind) for name, kind in plane.items()} == {n: kind for n, (_, kind) in PLANE.items()}


def test_random_quadratics_are_what_their_eigenvalues_say() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(300, 4, 4))
    signs = np.where(rng.random((300, 4)) < 0.5, -1, 1)
    signs[:60], signs[60:120] = 1, -1
    q, _ = np.linalg.qr(half)
    matrices = (q * (signs * rng.uniform(0.1, 10, (300, 4)))[:, None]) @ q.transpose(0, 2, 1)
    with float64():
        found = jax.jit(jax.vmap(lambda a: kind_of_point(lambda x: x @ a @ x + 3.0, jnp.full(4, 1e-9))))(matrices)
    expected = np.where(
        (signs > 0).all(1), PointKind.MINIMUM, np.where((signs < 0).all(1), PointKind.MAXIMUM, PointKind.SADDLE)
    )
    np.testing.assert_array_equal(found, expected)


def test_curvature_alone_would_call_the_inflection_a_minimum() -> None:
    end = train.minimize(lambda x: x**3, optim.sgd(0.1), 1.0, steps=2000, grad_tolerance=1e-4)
    assert end.converged
    assert jax.grad(jax.grad(lambda x: x**3))(end.x) > 0
    assert end.kind == PointKind.INFLECTION
    assert "at an inflection, not at a minimum" in end.describe()


def test_ends_of_runs() -> None:
    how: dict[str, Any] = {"steps": 500, "grad_tolerance": 1e-3}
    beale, himmelblau = landscapes.beale(), landscapes.himmelblau()

    @jax.jit
    def run() -> Any:
        return {
            "minimum": train.minimize(himmelblau, optim.sgd(0.01), jnp.zeros(2), **how),
            "saddle": train.minimize(beale, optim.sgd(0.01), jnp.asarray(beale.saddle_points[0], jnp.float32), **how),
            "maximum": train.maximize(lambda x: -jnp.sum(x**2), optim.sgd(0.1), jnp.ones(2), **how),
            "too short": train.minimize(himmelblau, optim.sgd(0.01), jnp.zeros(2), steps=2, grad_tolerance=1e-3),
            "not asked": train.minimize(himmelblau, optim.sgd(0.01), jnp.zeros(2), classify=False, **how),
            "trajectory": train.trajectory(himmelblau, optim.sgd(0.01), jnp.zeros(2), **how).last,
        }

    ends = jax.device_get(run())
    assert {name: PointKind(end.kind).name for name, end in ends.items()} == {
        "minimum": "MINIMUM", "saddle": "SADDLE", "maximum": "MAXIMUM", "too short": "UNKNOWN",
        "not asked": "UNKNOWN", "trajectory": "MINIMUM",
    }  # fmt: skip
    assert ends["too short"].describe() == "did not converge in 2 steps"
    assert ends["saddle"].describe() == (
        "converged after 0 steps at a saddle: f falls along some directions and rises along others"
    )


def test_large_problems_are_computed_as_without_it() -> None:
    def program(size: int, classify: bool) -> str:
        return str(
            jax.make_jaxpr(
                lambda x: (
                    train.minimize(
                        lambda x: jnp.sum(x**2), optim.sgd(0.1), x, steps=3, grad_tolerance=1e-3, classify=classify
                    ).x
                )
            )(jnp.ones(size))
        )

    assert program(33, True).count("mul") == program(33, False).count("mul")
    assert "eigh" not in program(33, True)
    assert "eigh" in program(32, True)
    assert kind_of_point(lambda x: jnp.sum(x**2), jnp.zeros(33)) == PointKind.UNKNOWN
    assert kind_of_point(lambda x: 0.0, ()) == PointKind.UNKNOWN
    assert kind_of_point(lambda x: 3.0, jnp.ones(2)) == PointKind.FLAT, "a constant that is no array"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_and_pytrees(dtype: Any) -> None:
    def f(p: Any) -> Any:
        return jnp.sum(p["a"] ** 2) + (p["b"][0] - 1) ** 2

    point = {"a": jnp.zeros(2, dtype), "b": (jnp.ones((), dtype),)}
    assert kind_of_point(f, point) == PointKind.MINIMUM
    with float64(), strict():
        assert kind_of_point(f, jax.tree.map(lambda a: np.asarray(a, np.float64), point)) == PointKind.MINIMUM


@pytest.mark.parametrize(
    ("f", "x", "error", "text"),
    [
        (jnp.sin, 0, TypeError, "x must have a floating dtype"),
        (jnp.sin, np.zeros(2, np.float32), ValueError, r"one number, got shape \(2,\)"),
        (None, 0.0, TypeError, "f must be a function"),
    ],
)
def test_bad_input_is_named(f: Any, x: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        kind_of_point(f, x)

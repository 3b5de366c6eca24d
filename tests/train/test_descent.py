"""Descent until convergence against a NumPy loop, and which known minima are found and which missed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import landscapes, optim, train
from jaxnn.plots.landscape import lattice
from tests.helpers import assert_close, float64, slow, strict

SGD = optim.sgd(0.1)
KAPPA = 10.0
QUADRATIC = landscapes.quadratic(KAPPA)
ONES = np.ones(2)


def numpy_descent(rate: float, start: np.ndarray, steps: int, e1: float, e2: float) -> tuple[list[np.ndarray], bool]:
    """theta <- theta - eta grad, WHILE |f(k+1) - f(k)| >= e1 and |grad f| >= e2; f = (x^2 + kappa y^2) / 2."""
    scale = np.array([1.0, KAPPA])
    way, converged = [start], np.linalg.norm(scale * start) < e2
    while not converged and len(way) <= steps:
        old, new = way[-1], way[-1] - rate * scale * way[-1]
        way.append(new)
        change = abs(new @ (scale * new) - old @ (scale * old)) / 2
        converged = change < e1 or np.linalg.norm(scale * new) < e2
    return way, bool(converged)


@jax.jit
def both(rate: Any, start: Any, e1: Any, e2: Any) -> Any:
    settings = {"steps": 60, "value_tolerance": e1, "grad_tolerance": e2}
    opt = optim.sgd(rate)
    return train.minimize(QUADRATIC, opt, start, **settings), train.trajectory(QUADRATIC, opt, start, **settings)


def assert_descends(run: Callable[..., Any], rate: float, start: Any, e1: float, e2: float) -> None:
    way, converged = numpy_descent(rate, np.asarray(start), 60, e1, e2)
    with float64(), strict():
        end, path = run(np.float64(rate), np.asarray(start, np.float64), np.float64(e1), np.float64(e2))
    assert (int(end.steps), bool(end.converged)) == (len(way) - 1, converged)
    np.testing.assert_allclose(end.x, way[-1], rtol=1e-9, atol=1e-12)
    padded = np.concatenate([way, np.repeat(way[-1][None], 61 - len(way), axis=0)])
    np.testing.assert_allclose(path.x, padded, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.values, (padded**2) @ [0.5, KAPPA / 2], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.grad_norms, np.linalg.norm(padded * [1.0, KAPPA], axis=1), rtol=1e-9, atol=1e-12)
    assert_close(path.last, end, rtol=1e-12, atol=1e-300)


tolerances = st.sampled_from([0.0, 1e-6, 1e-3, 0.1])


@given(rate=st.floats(0.01, 0.19), x=st.floats(-2, 2), y=st.floats(-2, 2), e1=tolerances, e2=tolerances)
def test_descent_and_its_convergence_tests(rate: float, x: float, y: float, e1: float, e2: float) -> None:
    assert_descends(both, rate, [x, y], e1, e2)


@pytest.mark.parametrize(
    "broken",
    [
        lambda rate, start, e1, e2: both(-rate, start, e1, e2),
        lambda rate, start, e1, e2: both(rate, start, e2, e1),
        lambda rate, start, e1, e2: both(rate, start, 2 * e1, e2),
        lambda rate, start, e1, e2: both(rate, start, 0 * e1, e2),
        lambda rate, start, e1, e2: both(rate, start, e1, 10 * e2),
    ],
    ids=["uphill", "tests swapped", "wrong tolerance", "no value test", "wrong gradient test"],
)
def test_a_broken_descent_is_found(broken: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError):
        assert_descends_by_either_test(broken)


def assert_descends_by_either_test(run: Callable[..., Any]) -> None:
    assert_descends(run, 0.1, [1.0, 1.5], 1e-3, 0.0)
    assert_descends(run, 0.1, [1.0, 1.5], 0.0, 0.05)


def test_the_descent_that_is_broken_is_right_unbroken() -> None:
    assert_descends_by_either_test(both)


@pytest.mark.parametrize(
    ("rate", "regime"),
    [(0.5 / KAPPA, "monotone"), (1.8 / KAPPA, "oscillating"), (2.2 / KAPPA, "diverging")],
)
def test_regimes_of_the_step_size(rate: float, regime: str) -> None:
    with float64():
        path = both(np.float64(rate), np.ones(2), np.float64(0), np.float64(0))[1]
    steep = np.asarray(path.x)[:, 1]
    assert bool(np.all(steep[1:] * steep[:-1] < 0)) == (regime != "monotone")
    assert (abs(steep[-1]) > 1e3) == (regime == "diverging")
    np.testing.assert_allclose(steep, (1 - rate * KAPPA) ** np.arange(61), rtol=1e-9)


# Known minima: found, or shown to be missed.


@functools.partial(jax.jit, static_argnames=("landscape", "opt", "steps", "grad_tolerance"))
def _ends(landscape: landscapes.Landscape, opt: optim.Optimizer, starts: Any, **settings: Any) -> Any:
    return jax.vmap(lambda start: train.minimize(landscape, opt, start, **settings))(starts)


def ends(
    landscape: landscapes.Landscape, opt: optim.Optimizer, starts: Any, steps: int, grad_tolerance: float = 0.0
) -> Any:
    with float64():
        starts = np.asarray(starts, np.float64)
        return jax.device_get(_ends(landscape, opt, starts, steps=steps, grad_tolerance=grad_tolerance))


nearest = jax.jit(train.nearest, static_argnames="tolerance")

FOUND = {
    "quadratic": (landscapes.quadratic(100.0), optim.sgd(0.015)),
    "rotated quadratic": (landscapes.quadratic(50.0, key=jax.random.key(1)), optim.sgd(0.02, momentum=0.8)),
    "noisy quadratic": (landscapes.noisy_quadratic(jax.random.key(0)), optim.sgd(0.03, momentum=0.99)),
    "Rosenbrock": (landscapes.rosenbrock(), optim.lbfgs()),
    "Beale": (landscapes.beale(), optim.adam(0.03)),
    "Himmelblau": (landscapes.himmelblau(), optim.sgd(0.01)),
    "plateau by Adam": (landscapes.plateau(), optim.adam(0.1)),
}


@pytest.mark.parametrize("name", ["noisy quadratic", *slow(*(name for name in FOUND if name != "noisy quadratic"))])
def test_minima_are_found_from_the_conventional_start(name: str) -> None:
    landscape, opt = FOUND[name]
    end = ends(landscape, opt, landscape.start[None], 20_000, grad_tolerance=1e-9)
    assert end.converged[0]
    distance = np.linalg.norm(landscape.minima - end.x[0], axis=1).min()
    # Its eigenvalues go down to 0.0024: the point is known by the gradient divided by that.
    assert distance < (1e-5 if name == "noisy quadratic" else 1e-7)
    np.testing.assert_allclose(end.value[0], landscape.minimum_value, rtol=1e-12, atol=1e-12)


def test_descent_misses_the_minimum_of_a_plateau_and_the_best_of_schwefels() -> None:
    end = ends(landscapes.plateau(), SGD, [landscapes.plateau().start], 2000)
    assert np.linalg.norm(end.x) > 4.9
    schwefel = landscapes.schwefel()
    end = ends(schwefel, optim.sgd(0.5), [schwefel.start, [400.0, 440.0]], 2000, grad_tolerance=1e-9)
    assert end.converged.tolist() == [True, True]
    assert end.value[0] > 500
    np.testing.assert_allclose(end.x[1], schwefel.minima[0], rtol=1e-9)
    assert nearest(end.x, schwefel.minima, tolerance=1.0).tolist() == [-1, 0]


def test_a_saddle_without_minimum_ends_at_infinity_unconverged() -> None:
    saddle = landscapes.saddle()
    end = ends(saddle, optim.sgd(0.5), [saddle.start, [1.0, 0.0]], 5000, grad_tolerance=1e-9)
    assert end.converged.tolist() == [False, True], "on the ridge itself descent ends in the saddle"
    assert not np.isfinite(end.value[0])
    assert end.steps[0] < 5000
    np.testing.assert_allclose(end.x[1], saddle.saddle_points[0], atol=1e-9)


def test_a_start_at_infinity_is_unconverged() -> None:
    assert not train.minimize(lambda x: jnp.exp(-x), SGD, jnp.inf, steps=3, grad_tolerance=1e-3).converged


def test_basins_of_himmelblau() -> None:
    landscape = landscapes.himmelblau()
    end = ends(landscape, optim.sgd(0.01), lattice(landscape, 24).reshape(-1, 2), 3000, grad_tolerance=1e-8)
    reached = np.asarray(nearest(end.x, landscape.minima, tolerance=1e-3))
    assert end.converged.all()
    assert set(reached.tolist()) == {0, 1, 2, 3}
    # Each minimum's own neighbourhood belongs to it.
    near = np.argmin(np.linalg.norm(lattice(landscape, 24).reshape(-1, 1, 2) - landscape.minima, axis=2), axis=0)
    assert reached[near].tolist() == [0, 1, 2, 3]


def test_under_vmap_each_start_has_its_own_steps() -> None:
    starts = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0]])
    many = ends(QUADRATIC, SGD, starts, 500, grad_tolerance=1e-4)
    one_by_one = [ends(QUADRATIC, SGD, start[None], 500, grad_tolerance=1e-4) for start in starts]
    assert many.steps.tolist() == [int(end.steps[0]) for end in one_by_one]
    assert many.steps[0] == 0 < many.steps[1] < many.steps[2]
    np.testing.assert_allclose(many.x, np.concatenate([end.x for end in one_by_one]), rtol=1e-12)


def test_ascent_is_descent_on_the_negative() -> None:
    def f(params: Any) -> Any:
        return -jnp.sum(params["w"] ** 2) - (params["b"] - 1) ** 2

    start = {"w": np.ones(2, np.float32), "b": np.float32(0)}

    @jax.jit
    def run() -> Any:
        opt = optim.adam(0.1)
        up, down = train.maximize(f, opt, start, steps=20), train.minimize(lambda p: -f(p), opt, start, steps=20)
        return up, down, f(start)

    up, down, first = jax.device_get(run())
    assert_close(up.x, down.x, rtol=0)
    assert_close(up.grad, jax.tree.map(lambda g: -g, down.grad), rtol=0)
    assert float(up.value) == -float(down.value) > float(first)


def test_rules_that_need_the_objective_get_it() -> None:
    rules = {"lbfgs": optim.lbfgs(), "polyak": optim.polyak_sgd(), "nesterov": optim.nesterov_lookahead(0.01)}

    @jax.jit
    def converged(start: Any) -> dict[str, Any]:
        how: dict[str, Any] = {"steps": 300, "grad_tolerance": 1e-5}
        return {name: train.minimize(QUADRATIC, opt, start, **how).converged for name, opt in rules.items()}

    with float64():
        assert jax.device_get(converged(np.ones(2))) == dict.fromkeys(rules, True)


def test_nearest_of_points_that_are_not_finite_is_none() -> None:
    points = np.float32([[[0.0, 0.1], [np.nan, 0.0]], [[np.inf, 0.0], [3.0, 4.0]]])
    assert nearest(points, np.float32([[3.0, 3.5], [0.0, 0.0]]), tolerance=0.5).tolist() == [[1, -1], [-1, 0]]


def test_nearest_of_half_precision_and_integer_points() -> None:
    assert nearest(np.float16([[300.0]]), np.float32([[0.0]]), tolerance=301.0) == 0, "300^2 overflows float16"
    assert nearest(np.array([[1]]), np.float32([[0.6]]), tolerance=0.5) == 0


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (
        ValueError,
        r"f must return one number, got shape \(2,\)",
        lambda: train.minimize(lambda x: x, SGD, ONES, steps=1),
    ),
    (ValueError, "steps must be at least 0, got -1", lambda: train.trajectory(QUADRATIC, SGD, ONES, steps=-1)),
    (TypeError, "f must be a function", lambda: train.maximize(3.0, SGD, ONES, steps=1)),  # type: ignore[arg-type]
    (
        TypeError,
        r"must be a function of JAX, got numpy\.sin\. Pass jnp\.sin",
        lambda: train.minimize(np.sin, SGD, 1.0, steps=1),
    ),
    (TypeError, "opt must be an optimizer", lambda: train.minimize(QUADRATIC, 0.1, ONES, steps=1)),  # type: ignore[arg-type]
    (ValueError, r"got \(2,\) and \(1, 3\)", lambda: train.nearest(ONES, np.ones((1, 3)), tolerance=1.0)),
    (
        TypeError,
        "start must have a floating dtype, got int32. Write 1.0 instead of 1",
        lambda: train.minimize(lambda x: x**2, SGD, 1, steps=1),
    ),
    (
        TypeError,
        r"start\['b'\] must have a floating dtype, got int32",
        lambda: train.trajectory(lambda p: p["a"] ** 2, SGD, {"a": 1.0, "b": 1}, steps=1),
    ),
    (
        TypeError,
        "the value of f must have a floating dtype, got int32",
        lambda: train.minimize(lambda x: jnp.sum(x > 0), SGD, ONES, steps=1),
    ),
    (
        ValueError,
        r"value_tolerance must lie in \[0, inf\], got -1",
        lambda: train.minimize(QUADRATIC, SGD, ONES, steps=1, value_tolerance=-1.0),
    ),
    (
        ValueError,
        "grad_tolerance must lie in .* got nan",
        lambda: train.maximize(QUADRATIC, SGD, ONES, steps=1, grad_tolerance=np.nan),
    ),
    (ValueError, "tolerance must lie in .* got -1", lambda: train.nearest(ONES, np.ones((1, 2)), tolerance=-1)),
    (ValueError, r"candidates \(M, d\), M >= 1", lambda: train.nearest(ONES, np.ones((0, 2)), tolerance=1.0)),
]


@pytest.mark.parametrize(("error", "text", "call"), BAD)
def test_bad_input_is_named(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()

"""Nearest points: those of optax, and those that no point of the set is nearer than; derivatives by differences."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import projections
from tests.helpers import assert_close, float64, strict

NAMES = sorted(n for n in dir(optax.projections) if not n.startswith("_"))


def random_tree(seed: int, size: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    w, b = (size * rng.standard_normal(shape) for shape in ((2, 3), ()))
    return {"w": w, "b": (np.asarray(b), None)}


def calls(p: Any, x: Any, small: Any, a: Any) -> dict[str, Any]:
    return {
        "non_negative": p.projection_non_negative(x),
        "box": p.projection_box(x, jax.tree.map(lambda v: v - 1, a), a),
        "box of numbers": p.projection_box(x["w"], -0.5, 0.25),
        "hypercube": p.projection_hypercube(x["w"], 0.5),
        "simplex": p.projection_simplex(x),
        "simplex 3": p.projection_simplex(x, 3.0),
        "l1_sphere": p.projection_l1_sphere(x, 2.0),
        "l1_ball": [p.projection_l1_ball(x), p.projection_l1_ball(small)],
        "l2_sphere": p.projection_l2_sphere(x, 2.0),
        "l2_ball": [p.projection_l2_ball(x), p.projection_l2_ball(small)],
        "linf_ball": p.projection_linf_ball(x, 0.5),
        "vector": p.projection_vector(x, a),
        "hyperplane": p.projection_hyperplane(x, a, 0.5),
        "halfspace": [p.projection_halfspace(x, a, -9.0), p.projection_halfspace(x, a, 9.0)],
    }


def test_values_and_derivatives_are_optaxs() -> None:
    def both(p: Any) -> Any:
        def run(x: Any, small: Any, a: Any) -> Any:
            f = functools.partial(calls, p, small=small, a=a)
            return jax.jvp(f, (x,), (a,))

        return jax.jit(run)

    with float64():
        given = random_tree(0, 2.0), random_tree(1, 1e-2), random_tree(2)
        with strict():
            got = both(projections)(*given)
        assert_close(got, both(optax.projections)(*given), rtol=1e-12, atol=1e-14)


def test_arguments_are_optaxs() -> None:
    def arguments(module: Any) -> dict[str, Any]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
            for name in NAMES
        }

    assert arguments(projections) == arguments(optax.projections)


def test_simplex_against_a_search() -> None:
    """tau by bisection of a decreasing function, no sorting; derivative by differences."""
    x = 3 * np.random.default_rng(5).standard_normal((20, 6))

    def searched(row: np.ndarray, scale: float) -> np.ndarray:
        low, high = row.min() - scale, row.max()
        for _ in range(200):
            tau = (low + high) / 2
            low, high = (tau, high) if np.maximum(row - tau, 0).sum() > scale else (low, tau)
        return np.maximum(row - low, 0)

    with float64():
        f = jax.jit(projections.nearest_in_simplex)
        for scale in (1.0, 2.5):
            expected = np.stack([searched(row, scale) for row in x])
            assert_close(f(x, scale), expected, rtol=1e-10, atol=1e-10)
        v = np.random.default_rng(6).standard_normal(x.shape)
        derivative = jax.jit(lambda x, v: jax.jvp(projections.nearest_in_simplex, (x,), (v,))[1])(x, v)
        differences = (np.asarray(f(x + 1e-6 * v, 1.0)) - np.asarray(f(x - 1e-6 * v, 1.0))) / 2e-6
    assert_close(derivative, differences, rtol=1e-6, atol=1e-8)


def test_ties_ends_and_infinities() -> None:
    rows = np.float32([[1.0, 0.0, 0.0], [5.0, 5.0, -np.inf], [1e30, 0.0, -1e30], [1e6, 1e6, 1e6]])
    zero = {"w": np.zeros(2, np.float32)}
    half = {"w": np.ones(4, jnp.bfloat16), "b": None}
    p = projections

    def run() -> Any:
        return (
            p.nearest_in_simplex(rows),
            [p.projection_l2_sphere(zero)["w"], p.projection_hyperplane(zero, zero, 1.0)["w"]],
            jnp.abs(p.projection_l1_sphere(zero)["w"]).sum(),
            jax.grad(lambda x: p.projection_l2_ball(x).sum())(jnp.zeros(2)),
            p.projection_simplex(half)["w"],
        )

    points, zeros, one, slope, quarter = jax.jit(run)()
    assert points[:3].tolist() == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    assert_close(points[3], np.full(3, 1 / 3), rtol=1e-6)
    assert [z.tolist() for z in zeros] == [[0.0, 0.0], [0.0, 0.0]]
    assert_close(one, 1.0, rtol=1e-6)
    assert slope.tolist() == [1.0, 1.0]
    assert quarter.dtype == jnp.bfloat16
    assert quarter.tolist() == [0.25] * 4
    assert projections.projection_simplex({}) == {}


def test_bounds_of_a_box_may_be_numbers_for_a_whole_tree() -> None:
    x = {"w": np.float32([-2.0, 0.5, 2.0]), "b": None}
    assert jax.jit(lambda x: projections.projection_box(x, -1, 1.0))(x)["w"].tolist() == [-1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="pytree structure error"):
        optax.projections.projection_box(x, -1, 1.0)


SIZED = ("hypercube", "simplex", "l1_sphere", "l1_ball", "l2_sphere", "l2_ball", "linf_ball")


def test_a_set_of_size_0_is_the_origin() -> None:
    @jax.jit
    @jax.vmap
    def points_and_slopes(x: Any) -> Any:
        found = {}
        for name in SIZED:
            project = getattr(projections, f"projection_{name}")
            slope = jax.grad(lambda x, project=project: jnp.sum(jnp.arange(3.0) * project(x, 0.0)))(x)
            found[name] = project({"w": x}, 0.0)["w"], slope
        return found

    for name, (points, slopes) in points_and_slopes(np.float32([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])).items():
        assert points.tolist() == [[0.0] * 3] * 2, name
        assert np.isfinite(slopes).all(), name


def test_errors() -> None:
    for name in ("projection_simplex", "projection_l1_sphere", "projection_l1_ball"):
        with pytest.raises(ValueError, match=rf"{name}: scale must lie in \[0, inf\), got -1"):
            getattr(projections, name)(np.ones(2, np.float32), -1.0)
    with pytest.raises(TypeError, match=r"leaves must .*floating"):
        projections.projection_l1_ball(np.arange(2, dtype=np.int32))
    with pytest.raises(ValueError, match="bounds must be numbers or pytrees like"):
        projections.projection_box({"w": np.ones(2, np.float32)}, {"b": 0.0}, 1.0)

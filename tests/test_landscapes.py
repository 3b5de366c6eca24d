"""Minima, gradients, Hessians and spectra of the landscapes, in float64 unless said otherwise."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxnn import landscapes
from jaxnn.landscapes import Landscape
from tests.helpers import float64, slow, strict

NOISY = landscapes.noisy_quadratic(jax.random.key(0))
ALL: dict[str, Landscape] = {
    "quadratic": landscapes.quadratic(100.0),
    "quadratic 3-D": landscapes.quadratic(10.0, dimensions=3, logarithmic=False),
    "rotated quadratic": landscapes.quadratic(1000.0, dimensions=5, key=jax.random.key(3)),
    "noisy quadratic": NOISY,
    "Rosenbrock": landscapes.rosenbrock(),
    "Rosenbrock 3-D": landscapes.rosenbrock(dimensions=3),
    "Beale": landscapes.beale(),
    "Himmelblau": landscapes.himmelblau(),
    "saddle": landscapes.saddle(),
    "plateau": landscapes.plateau(),
    "Schwefel": landscapes.schwefel(),
}
QUICK = ["noisy quadratic", "Himmelblau", "Schwefel"]
"""A rotated matrix; several minima; kinks and many dimensions."""
each = pytest.mark.parametrize(
    "name", [*QUICK, *slow(*(name for name in ALL if name not in (*QUICK, "quadratic 3-D")))]
)


def points_within(landscape: Landscape, n: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(*landscape.bounds, (n, landscape.dimensions))


FEW, MANY = 6, 4500
SAME: dict[Any, Landscape] = {}
"""By function, the first landscape with it: of those that differ in what they say of it, one program."""


@functools.partial(jax.jit, static_argnums=0)
def _program(landscape: Landscape, few: Any, many: Any) -> Any:
    at = jax.vmap(lambda x: (landscape(x), jax.grad(landscape)(x), jax.hessian(landscape)(x)))
    return at(few), jax.vmap(landscape)(many)


def _evaluated(landscape: Landscape, few: np.ndarray, many: np.ndarray) -> Any:
    padded = [np.concatenate([x, np.tile(landscape.start, (n - len(x), 1))]) for x, n in ((few, FEW), (many, MANY))]
    with float64():
        return jax.device_get(_program(SAME.setdefault(landscape.function, landscape), *padded))


def derivatives(landscape: Landscape, points: np.ndarray) -> list[np.ndarray]:
    """Values (n,), gradients (n, d) and Hessians (n, d, d) at points (n, d), n <= FEW."""
    return [found[: len(points)] for found in _evaluated(landscape, points, points)[0]]


def values(landscape: Landscape, points: np.ndarray) -> np.ndarray:
    """Values (n,) at points (n, d), n <= MANY."""
    return _evaluated(landscape, points[:0], points)[1][: len(points)]


def assert_minima(landscape: Landscape) -> None:
    """Value, gradient and Hessian at every minimum; no random point, and none near a minimum, is lower."""
    with strict():
        for x, value, gradient, hessian in zip(
            landscape.minima, *derivatives(landscape, landscape.minima), strict=True
        ):
            np.testing.assert_allclose(value, landscape.minimum_value, rtol=1e-14, atol=1e-12)
            np.testing.assert_allclose(gradient, 0, atol=1e-10)
            assert np.linalg.eigvalsh(hessian)[0] > 0, "not a strict minimum"
            assert np.all(np.abs(x) <= landscape.bounds[1])
        near = landscape.minima[:, None, :] + 1e-2 * np.random.default_rng(1).standard_normal(
            (100, landscape.dimensions)
        )
        points = np.concatenate([points_within(landscape), near.reshape(-1, landscape.dimensions)])
        assert values(landscape, points).min() > landscape.minimum_value


@each
def test_minima(name: str) -> None:
    assert_minima(ALL[name])


def test_how_many_minima() -> None:
    assert {name: len(landscape.minima) for name, landscape in ALL.items() if len(landscape.minima) != 1} == {
        "Himmelblau": 4,
        "saddle": 0,
    }
    assert ALL["saddle"].minimum_value == -np.inf


def change(name: str, **fields: Any) -> Landscape:
    return dataclasses.replace(ALL[name], **fields)


BROKEN = {
    "plateau, upside down": change("plateau", function=lambda x: -ALL["plateau"].function(x)),
    "Himmelblau, coordinates exchanged": change("Himmelblau", minima=ALL["Himmelblau"].minima[:, ::-1]),
    "Himmelblau, another value": change("Himmelblau", minimum_value=1e-9),
    "Schwefel, rounded minimum": change("Schwefel", minima=np.array([[420.9687, 420.9687]])),
    "noisy quadratic, without its floor": change("noisy quadratic", minimum_value=0.0),
}
BROKEN_SLOW = {
    "Beale, rounded minimum": change("Beale", minima=np.array([[3.0, 0.51]])),
    "Rosenbrock, other sign": change("Rosenbrock", minima=np.array([[-1.0, 1.0]])),
    "Schwefel, rounded constant": change(
        "Schwefel", function=lambda x: jnp.sum(419.0 - x * jnp.sin(jnp.sqrt(jnp.abs(x))))
    ),
    "saddle, called a minimum": change("saddle", minima=np.zeros((1, 2)), minimum_value=0.0),
}


@pytest.mark.parametrize("name", [*BROKEN, *slow(*BROKEN_SLOW)])
def test_a_broken_landscape_is_found(name: str) -> None:
    with pytest.raises(AssertionError):
        assert_minima((BROKEN | BROKEN_SLOW)[name])


@each
def test_gradients_are_finite_everywhere(name: str) -> None:
    landscape = ALL[name]
    corners = np.array([np.full(landscape.dimensions, edge) for edge in landscape.bounds])
    # 0 and points on the axes, where |x| and sqrt |x| have kinks, and the smallest float32 numbers around them.
    axes = np.concatenate([np.eye(landscape.dimensions) * s for s in (1.0, -1e-38, 1e-45)])
    points = np.concatenate([points_within(landscape, 500), corners, axes, landscape.minima, landscape.start[None]])
    with strict():
        gradient = jax.jit(jax.vmap(jax.grad(landscape)))(points.astype(np.float32))
    assert np.all(np.isfinite(gradient))


@each
def test_gradient_equals_finite_differences_and_steepest_descent_goes_down(name: str) -> None:
    landscape, h = ALL[name], 1e-7
    x = points_within(landscape, 1)
    value, gradient, _ = derivatives(landscape, x)
    numeric = (values(landscape, x + h * np.eye(landscape.dimensions)) - value) / h
    scale = np.max(np.abs(gradient))
    np.testing.assert_allclose(gradient[0], numeric, rtol=1e-4, atol=1e-4 * scale)
    start = landscape.start[None]
    value, slope, _ = derivatives(landscape, start)
    assert np.linalg.norm(slope) > 0, "a run would not leave its start"
    assert values(landscape, start - 1e-6 * slope)[0] < value[0]


@each
def test_every_dtype_and_vmap(name: str) -> None:
    landscape = ALL[name]
    points = points_within(landscape, 3)
    narrow = {jnp.float32: 1e-4, jnp.bfloat16: 0.01, jnp.float16: 0.01}

    @jax.jit
    def everywhere(points: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        rounded = [points.astype(dtype) for dtype in narrow]
        return [(jax.vmap(landscape)(p), jax.vmap(landscape)(p.astype(jnp.float64))) for p in rounded]

    with float64(), strict():
        assert jax.eval_shape(landscape, points[0]).dtype == jnp.float64
        for (got, exact), (dtype, tolerance) in zip(everywhere(points), narrow.items(), strict=True):
            assert got.dtype == dtype
            with np.errstate(over="ignore"):  # values beyond float16 are infinite
                expected = np.asarray(exact).astype(dtype).astype(np.float64)
            np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=tolerance, atol=tolerance)


def test_the_start_is_taken_as_it_is() -> None:
    landscape = landscapes.rosenbrock()
    value = jax.jit(lambda: landscape(landscape.start))()
    np.testing.assert_allclose(value, 24.2, rtol=1e-6)
    assert value.dtype == jnp.float32


def test_float16_does_not_overflow_on_the_way() -> None:
    x = np.array([2.0, -2.0], np.float16)  # 100 (y - x^2)^2 = 3600, and squares of 60 within
    far = np.full(2, 300.0, np.float16)  # 300^2 overflows float16
    assert [float(v) for v in jax.jit(lambda x, y: (landscapes.rosenbrock()(x), landscapes.plateau()(y)))(x, far)] == [
        3600, 1,
    ]  # fmt: skip


NUMPY: dict[str, Callable[[np.ndarray], float]] = {
    "Rosenbrock 3-D": scipy.optimize.rosen,
    "Rosenbrock": scipy.optimize.rosen,
    "Beale": lambda p: sum((c - p[0] + p[0] * p[1] ** i) ** 2 for i, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
    "Himmelblau": lambda p: (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2,
    "saddle": lambda p: (p[0] - p[1]) * (p[0] + p[1]),
    "plateau": lambda p: -np.expm1(-(p @ p) / 2),
    "Schwefel": lambda p: 2 * 418.9828872724338 - sum(v * np.sin(np.sqrt(abs(v))) for v in p),
    "quadratic": lambda p: (p[0] ** 2 + 100 * p[1] ** 2) / 2,
    "quadratic 3-D": lambda p: (p[0] ** 2 + 5.5 * p[1] ** 2 + 10 * p[2] ** 2) / 2,
}


@pytest.mark.parametrize(
    "name", ["Himmelblau", "Schwefel", "plateau", *slow(*(n for n in NUMPY if n not in (*QUICK, "plateau")))]
)
def test_values_equal_numpy(name: str) -> None:
    points = points_within(ALL[name], 50)
    got = values(ALL[name], points)
    np.testing.assert_allclose(got, [NUMPY[name](p) for p in points], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["saddle", *slow("Beale")])
def test_saddle_points(name: str) -> None:
    landscape = ALL[name]
    _, gradients, hessians = derivatives(landscape, landscape.saddle_points)
    np.testing.assert_allclose(gradients, np.zeros((1, 2)), atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(hessians[0])
    assert eigenvalues[0] < 0 < eigenvalues[1]


def test_himmelblau_has_no_fifth_minimum() -> None:
    found = set()
    for start in np.random.default_rng(2).uniform(-6, 6, (40, 2)):
        end = scipy.optimize.minimize(NUMPY["Himmelblau"], start).x
        distance = np.linalg.norm(landscapes.himmelblau().minima - end, axis=1)
        assert distance.min() < 1e-4
        found.add(int(distance.argmin()))
    assert found == {0, 1, 2, 3}


def test_the_plateau_is_flat_and_its_gradient_still_points_home() -> None:
    landscape = landscapes.plateau()
    points = np.float32([landscape.start, [6.0, -6.0]])
    for x, gradient in zip(points, jax.jit(jax.vmap(jax.grad(landscape)))(points), strict=True):
        np.testing.assert_allclose(gradient, x * np.exp(-(x @ x) / 2), rtol=1e-4)
        assert 0 < np.linalg.norm(gradient) < 2e-5


def test_schwefel_has_many_minima() -> None:
    line = np.linspace(-500, 500, 2001)
    values = np.array([NUMPY["Schwefel"](np.array([v, 0.0])) for v in line])
    assert np.sum((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])) == 7


# The quadratics.


def test_condition_numbers_are_exact() -> None:
    cases = list(itertools.product(((1.0, 2), (1e3, 2), (1e3, 4)), (True, False), (None, 3)))
    made = [
        landscapes.quadratic(
            kappa, dimensions=d, logarithmic=logarithmic, key=None if seed is None else jax.random.key(seed)
        )
        for (kappa, d), logarithmic, seed in cases
    ]
    with float64():
        matrices = jax.jit(lambda: [jax.hessian(each)(jnp.zeros(each.dimensions)) for each in made])()
    for ((kappa, d), logarithmic, seed), matrix in zip(cases, jax.device_get(matrices), strict=True):
        case = f"{kappa:g} in {d} dimensions, logarithmic={logarithmic}, seed {seed}"
        eigenvalues = np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(eigenvalues[-1] / eigenvalues[0], kappa, rtol=1e-11, err_msg=case)
        steps = np.diff(np.log(eigenvalues) if logarithmic else eigenvalues)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-9, atol=1e-9, err_msg=case)
        off_diagonal = np.abs(matrix - np.diag(np.diag(matrix))).max()
        assert (off_diagonal > 0.01) == (seed is not None and kappa > 1), case


def test_gradient_descent_on_a_quadratic_is_stable_up_to_two_over_kappa() -> None:
    landscape = landscapes.quadratic(100.0)

    @jax.jit
    @jax.vmap
    def end(rate: Any) -> Any:
        step = lambda _, x: x - rate * jax.grad(landscape)(x)  # noqa: E731
        return landscape(jax.lax.fori_loop(0, 2000, step, jnp.asarray(landscape.start, jnp.float32)))

    assert (np.asarray(end(np.float32([0.99, 1.01]) * 2 / 100)) < 1e-6).tolist() == [True, False]


def rotation_of(seed: int, d: int) -> np.ndarray:
    """The rotation that `quadratic` uses for a key."""
    from jaxnn.landscapes import quadratics

    return quadratics._rotation("test", jax.random.key(seed), d)


def test_rotations_are_orthogonal_and_uniform() -> None:
    rotations = np.stack([rotation_of(seed, 3) for seed in range(400)])
    for r in rotations:
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, rtol=1e-12)
    # Under the Haar measure every entry has mean 0, variance 1/3 and fourth moment 1/5 (a coordinate on the sphere).
    np.testing.assert_allclose(rotations.mean(axis=0), 0, atol=0.12)
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.06)
    np.testing.assert_allclose((rotations**4).mean(axis=0), 1 / 5, atol=0.06)
    # The trace 1 + 2 cos(angle) has mean 0; without the change of signs after the QR decomposition it has not.
    assert abs(np.trace(rotations, axis1=1, axis2=2).mean()) < 0.2


def test_the_noisy_quadratic_has_its_spectrum() -> None:
    eigenvalues = np.linalg.eigvalsh(NOISY.matrix)
    np.testing.assert_allclose(eigenvalues, NOISY.eigenvalues, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(NOISY.matrix, NOISY.matrix.T)
    np.testing.assert_allclose(derivatives(NOISY, np.zeros((1, 100)))[2][0], NOISY.matrix, rtol=1e-10, atol=1e-12)
    assert np.sum((eigenvalues > 0) & (eigenvalues < 1)) == 90
    assert np.sum((eigenvalues >= 30) & (eigenvalues < 60)) == 10
    many = landscapes.noisy_quadratic(jax.random.key(1), small=200, large=200).eigenvalues
    # Kolmogorov-Smirnov: the largest gap between the empirical and the uniform distribution function, 1% level.
    for drawn in (many[:200], (many[200:] - 30) / 30):
        assert np.max(np.abs(np.sort(drawn) - (np.arange(200) + 0.5) / 200)) < 1.63 / np.sqrt(200)
    off_diagonal = NOISY.matrix - np.diag(np.diag(NOISY.matrix))
    assert np.abs(off_diagonal).max() > 1, "not rotated"
    np.testing.assert_array_equal(NOISY.start, np.ones(100))
    assert NOISY.noise_level == 0.6


NOISES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "right": (NOISY.example_loss, NOISY),
    "without the floor": (NOISY.example_loss, lambda x: NOISY(x) - NOISY.minimum_value),
    "twice the loss": (NOISY.example_loss, lambda x: 2 * NOISY(x)),
    "more noise": (lambda x, xi: NOISY.example_loss(x, 1.5 * xi), NOISY),
    "noise of another mean": (lambda x, xi: NOISY.example_loss(x, xi + 0.1), NOISY),
}


def test_the_expected_loss_is_exact_and_of_broken_ones_it_is_not() -> None:
    """The mean of the losses and gradients over draws is the expected loss and gradient, within 5 standard errors."""

    @jax.jit
    def everything(key: Any, x: Any) -> Any:
        xi = NOISY.sample(key, 4000, dtype=jnp.float64)
        return {
            name: (jax.vmap(jax.value_and_grad(example), (None, 0))(x, xi), jax.value_and_grad(expected)(x))
            for name, (example, expected) in NOISES.items()
        }

    def exact(values: Any, gradients: Any, value: Any, gradient: Any) -> bool:
        covariance, known = np.cov(gradients.T), 0.36 * NOISY.matrix @ NOISY.matrix
        return bool(
            abs(values.mean() - value) < 5 * values.std() / np.sqrt(4000)
            and np.all(np.abs(gradients.mean(axis=0) - gradient) < 5 * gradients.std(axis=0) / np.sqrt(4000))
            and np.linalg.norm(covariance - known) < 0.1 * np.linalg.norm(known)
        )

    with float64():
        found = jax.device_get(everything(jax.random.key(5), np.random.default_rng(3).standard_normal(100)))
    assert [name for name, (drawn, mean) in found.items() if exact(*drawn, *mean)] == ["right"]


@pytest.mark.slow
def test_the_noise_is_reproducible_and_the_landscape_does_not_depend_on_x64() -> None:
    with float64():
        again = landscapes.noisy_quadratic(jax.random.key(0))
    np.testing.assert_array_equal(again.matrix, NOISY.matrix)
    assert not np.array_equal(landscapes.noisy_quadratic(jax.random.key(1)).matrix, NOISY.matrix)
    with strict():
        xi = NOISY.sample(jax.random.key(5), 2000)
        assert xi.dtype == jnp.float32
        np.testing.assert_array_equal(xi, NOISY.sample(jax.random.key(5), 2000))
        np.testing.assert_allclose(np.std(xi), 0.6, rtol=0.01)
        loss = NOISY.example_loss(jnp.ones(100, jnp.bfloat16), xi[0].astype(jnp.bfloat16))
    assert loss.dtype == jnp.bfloat16


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (
        ValueError,
        r"Beale: expected one point of shape \(2,\), got \(7, 2\)\. .*vmap",
        lambda: ALL["Beale"](np.zeros((7, 2), np.float32)),
    ),
    (ValueError, r"shape \(3,\), got \(2,\)", lambda: ALL["Rosenbrock 3-D"](np.zeros(2, np.float32))),
    (TypeError, "Beale: x must have a floating dtype, got int32", lambda: ALL["Beale"](np.int32([3, 1]))),
    (ValueError, "condition_number must be a concrete finite number >= 1, got 0.5", lambda: landscapes.quadratic(0.5)),
    (ValueError, "got a traced value", lambda: jax.eval_shape(lambda k: landscapes.quadratic(k)(jnp.ones(2)), 3.0)),
    (ValueError, "dimensions must be at least 2, got 1", lambda: landscapes.quadratic(2.0, dimensions=1)),
    (ValueError, "dimensions must be at least 2", lambda: landscapes.rosenbrock(dimensions=1)),
    (ValueError, "dimensions must be at least 1", lambda: landscapes.schwefel(dimensions=0)),
    (
        ValueError,
        r"noise_level must be .* >= 0, got -1",
        lambda: landscapes.noisy_quadratic(jax.random.key(0), noise_level=-1),
    ),
    (
        ValueError,
        r"small \+ large must be at least 2",
        lambda: landscapes.noisy_quadratic(jax.random.key(0), small=1, large=0),
    ),
    (ValueError, "needs a random key", lambda: landscapes.noisy_quadratic(None)),  # type: ignore[arg-type]
    (TypeError, "must be a typed key", lambda: landscapes.noisy_quadratic(7)),  # type: ignore[arg-type]
    (
        TypeError,
        "Make the landscape outside jit",
        lambda: jax.eval_shape(lambda k: landscapes.noisy_quadratic(k)(jnp.ones(100)), jax.random.key(0)),
    ),
    (ValueError, "n must be at least 1", lambda: NOISY.sample(jax.random.key(0), 0)),
    (
        ValueError,
        r"xi: expected one point of shape \(100,\)",
        lambda: NOISY.example_loss(np.ones(100, np.float32), np.ones((5, 100), np.float32)),
    ),
]


def test_ones_own_of_lists() -> None:
    bowl = landscapes.make_landscape("bowl", lambda x: x @ x - 3, start=[1, 2], bounds=(-3, 3), minima=[[0, 0]])
    assert float(bowl([1.0, 2.0])) == 2.0
    assert (bowl.dimensions, bowl.minima.shape, bowl.saddle_points.shape) == (2, (1, 2), (0, 2))
    assert np.isnan(bowl.minimum_value), "not known"


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input_raises(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()

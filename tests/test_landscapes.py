"""Minima, gradients, Hessians and spectra of the landscapes, in float64 unless said otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxnn import landscapes
from jaxnn.landscapes import Landscape
from tests.helpers import float64, strict

pytestmark = pytest.mark.sampled

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
DRAWN = [landscape for name, landscape in ALL.items() if name != "quadratic 3-D"]
each = pytest.mark.parametrize("landscape", DRAWN, ids=lambda landscape: f"{landscape.name}, {landscape.dimensions}-D")


def points_within(landscape: Landscape, n: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(*landscape.bounds, (n, landscape.dimensions))


def derivatives(landscape: Landscape, points: np.ndarray) -> list[np.ndarray]:
    """Values (n,), gradients (n, d) and Hessians (n, d, d) at points (n, d)."""
    with float64():
        at = jax.jit(jax.vmap(lambda x: (landscape(x), jax.grad(landscape)(x), jax.hessian(landscape)(x))))
        return [np.asarray(a) for a in at(jnp.asarray(points))]


def assert_minima(landscape: Landscape) -> None:
    """Value, gradient and Hessian at every minimum; no random point, and none near a minimum, is lower."""
    with float64(), strict():
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
        values = jax.jit(jax.vmap(landscape))(jnp.asarray(points))
        assert float(values.min()) > landscape.minimum_value


@each
def test_minima(landscape: Landscape) -> None:
    assert_minima(landscape)


def test_how_many_minima() -> None:
    assert {name: len(landscape.minima) for name, landscape in ALL.items() if len(landscape.minima) != 1} == {
        "Himmelblau": 4,
        "saddle": 0,
    }
    assert ALL["saddle"].minimum_value == -np.inf


def change(name: str, **fields: Any) -> Landscape:
    return dataclasses.replace(ALL[name], **fields)


@pytest.mark.parametrize(
    "broken",
    [
        change("Beale", minima=np.array([[3.0, 0.51]])),
        change("Rosenbrock", minima=np.array([[-1.0, 1.0]])),
        change("Himmelblau", minima=ALL["Himmelblau"].minima[:, ::-1]),
        change("Himmelblau", minimum_value=1e-9),
        change("Schwefel", minima=np.array([[420.9687, 420.9687]])),
        change("Schwefel", function=lambda x: jnp.sum(419.0 - x * jnp.sin(jnp.sqrt(jnp.abs(x))))),
        change("saddle", minima=np.zeros((1, 2)), minimum_value=0.0),
        change("plateau", function=lambda x: -ALL["plateau"].function(x)),
        change("noisy quadratic", minimum_value=0.0),
    ],
    ids=lambda landscape: landscape.name,
)
def test_a_broken_landscape_is_found(broken: Landscape) -> None:
    with pytest.raises(AssertionError):
        assert_minima(broken)


@each
def test_gradients_are_finite_everywhere(landscape: Landscape) -> None:
    corners = np.array([np.full(landscape.dimensions, edge) for edge in landscape.bounds])
    # 0 and points on the axes, where |x| and sqrt |x| have kinks, and the smallest float32 numbers around them.
    axes = np.concatenate([np.eye(landscape.dimensions) * s for s in (1.0, -1e-38, 1e-45)])
    points = np.concatenate([points_within(landscape, 500), corners, axes, landscape.minima, landscape.start[None]])
    with strict():
        gradient = jax.jit(jax.vmap(jax.grad(landscape)))(jnp.asarray(points, jnp.float32))
    assert bool(jnp.all(jnp.isfinite(gradient)))


@each
def test_gradient_equals_finite_differences_and_steepest_descent_goes_down(landscape: Landscape) -> None:
    with float64():
        x = jnp.asarray(points_within(landscape, 1)[0])
        at = jax.jit(jax.value_and_grad(landscape))
        gradient = at(x)[1]
        numeric = scipy.optimize.approx_fprime(np.asarray(x), lambda p: float(at(jnp.asarray(p))[0]), 1e-7)
        scale = np.max(np.abs(gradient))
        np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4 * scale)
        start = jnp.asarray(landscape.start)
        value, slope = at(start)
        assert np.linalg.norm(slope) > 0, "a run would not leave its start"
        assert float(at(start - 1e-6 * slope)[0]) < float(value)


@each
def test_every_dtype_and_vmap(landscape: Landscape) -> None:
    points = points_within(landscape, 3)
    narrow = {jnp.float32: 1e-4, jnp.bfloat16: 0.01, jnp.float16: 0.01}

    @jax.jit
    def everywhere(points: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        rounded = [points.astype(dtype) for dtype in narrow]
        return [(jax.vmap(landscape)(p), jax.vmap(landscape)(p.astype(jnp.float64))) for p in rounded]

    with float64(), strict():
        assert jax.eval_shape(landscape, jnp.asarray(points[0])).dtype == jnp.float64
        for (got, exact), (dtype, tolerance) in zip(everywhere(jnp.asarray(points)), narrow.items(), strict=True):
            assert got.dtype == dtype
            expected = np.asarray(exact.astype(dtype), np.float64)
            np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=tolerance, atol=tolerance)


def test_the_start_is_taken_as_it_is() -> None:
    landscape = landscapes.rosenbrock()
    np.testing.assert_allclose(landscape(landscape.start), 24.2, rtol=1e-6)
    assert landscape(landscape.start).dtype == jnp.float32


def test_float16_does_not_overflow_on_the_way() -> None:
    x = jnp.array([2.0, -2.0], jnp.float16)  # 100 (y - x^2)^2 = 3600, and squares of 60 within
    assert float(landscapes.rosenbrock()(x)) == 3600
    far = jnp.full(2, 300.0, jnp.float16)  # 300^2 overflows float16
    assert float(landscapes.plateau()(far)) == 1


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


@pytest.mark.parametrize("name", NUMPY)
def test_values_equal_numpy(name: str) -> None:
    points = points_within(ALL[name], 50)
    with float64():
        got = jax.jit(jax.vmap(ALL[name]))(jnp.asarray(points))
    np.testing.assert_allclose(got, [NUMPY[name](p) for p in points], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["saddle", "Beale"])
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
    for x in (jnp.asarray(landscape.start, jnp.float32), jnp.array([6.0, -6.0])):
        gradient = jax.grad(landscape)(x)
        r = float(jnp.linalg.norm(x))
        np.testing.assert_allclose(gradient, x * np.exp(-(r**2) / 2), rtol=1e-4)
        assert 0 < float(jnp.linalg.norm(gradient)) < 2e-5


def test_schwefel_has_many_minima() -> None:
    line = np.linspace(-500, 500, 2001)
    values = np.array([NUMPY["Schwefel"](np.array([v, 0.0])) for v in line])
    assert np.sum((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])) == 7


# The quadratics.


@pytest.mark.parametrize("key", [None, 3], ids=["axes", "rotated"])
@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize(("kappa", "d"), [(1.0, 2), (1e3, 2), (1e3, 4)])
def test_condition_number_is_exact(kappa: float, d: int, logarithmic: bool, key: int | None) -> None:
    rotation = None if key is None else jax.random.key(key)
    landscape = landscapes.quadratic(kappa, dimensions=d, logarithmic=logarithmic, key=rotation)
    matrix = derivatives(landscape, np.zeros((1, d)))[2][0]
    eigenvalues = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(eigenvalues[-1] / eigenvalues[0], kappa, rtol=1e-11)
    steps = np.diff(np.log(eigenvalues) if logarithmic else eigenvalues)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9, atol=1e-9)
    assert (np.abs(matrix - np.diag(np.diag(matrix))).max() > 0.01) == (key is not None and kappa > 1)


def test_gradient_descent_on_a_quadratic_is_stable_up_to_two_over_kappa() -> None:
    landscape = landscapes.quadratic(100.0)
    for rate, stable in ((0.99 * 2 / 100, True), (1.01 * 2 / 100, False)):
        x = jnp.asarray(landscape.start, jnp.float32)
        x = jax.lax.fori_loop(0, 2000, lambda _, x, rate=rate: x - rate * jax.grad(landscape)(x), x)
        assert (float(landscape(x)) < 1e-6) == stable


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


def assert_noise(example_loss: Callable[[Any, Any], Any], expected_loss: Callable[[Any], Any]) -> None:
    """The mean of the losses and gradients over draws is the expected loss and gradient, within 5 standard errors."""
    with float64():
        x = jnp.asarray(np.random.default_rng(3).standard_normal(100))
        xi = NOISY.sample(jax.random.key(5), 4000, dtype=jnp.float64)
        one = jax.value_and_grad(example_loss)
        both = jax.jit(lambda x, xi: (jax.vmap(one, in_axes=(None, 0))(x, xi), jax.value_and_grad(expected_loss)(x)))
        (values, gradients), (value, gradient) = jax.tree.map(np.asarray, both(x, xi))
    assert abs(values.mean() - value) < 5 * values.std() / np.sqrt(4000)
    assert np.all(np.abs(gradients.mean(axis=0) - gradient) < 5 * gradients.std(axis=0) / np.sqrt(4000))
    covariance = np.cov(np.asarray(gradients).T)
    exact = 0.36 * NOISY.matrix @ NOISY.matrix
    assert np.linalg.norm(covariance - exact) < 0.1 * np.linalg.norm(exact)


def test_the_expected_loss_is_exact() -> None:
    assert_noise(NOISY.example_loss, NOISY)


@pytest.mark.parametrize(
    ("example_loss", "expected_loss"),
    [
        (NOISY.example_loss, lambda x: NOISY(x) - NOISY.minimum_value),
        (NOISY.example_loss, lambda x: 2 * NOISY(x)),
        (lambda x, xi: NOISY.example_loss(x, 1.5 * xi), NOISY),
        (lambda x, xi: NOISY.example_loss(x, xi + 0.1), NOISY),
    ],
)
def test_a_broken_noise_is_found(example_loss: Callable[[Any, Any], Any], expected_loss: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError):
        assert_noise(example_loss, expected_loss)


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
        lambda: ALL["Beale"](jnp.zeros((7, 2))),
    ),
    (ValueError, r"shape \(3,\), got \(2,\)", lambda: ALL["Rosenbrock 3-D"](jnp.zeros(2))),
    (TypeError, "Beale: x must have a floating dtype, got int32", lambda: ALL["Beale"](jnp.array([3, 1]))),
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
        lambda: NOISY.example_loss(jnp.ones(100), jnp.ones((5, 100))),
    ),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input_raises(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()

"""Stationary points against roots by hand and by NumPy; kinds against what the function does around the point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import landscapes
from jaxnn.classic import stationary
from jaxnn.classic.stationary import DEGENERATE, INFLECTION, MAXIMUM, MINIMUM, REGULAR, SADDLE
from tests.helpers import slow


def kinds(points: Any) -> list[str]:
    return [p.kind for p in points]


ONE: dict[str, tuple[Callable[..., Any], tuple[float, float], list[tuple[float, str]]]] = {
    "quintic": (
        lambda x: x**5 / 5 - 4 * x**3 / 3,
        (-3, 3),
        [(-2, MAXIMUM), (0, INFLECTION), (2, MINIMUM)],
    ),
    "flat minimum": (lambda x: x**4 * jnp.exp(-x), (-1, 8), [(0, MINIMUM), (4, MAXIMUM)]),
    "cube off the lattice": (lambda x: (x - 0.1234567) ** 3, (-1, 1), [(0.1234567, INFLECTION)]),
    "eighth power": (lambda x: x**8, (-1, 1.3), [(0, MINIMUM)]),
    "wave": (jnp.sin, (0, 10), [(np.pi / 2, MAXIMUM), (3 * np.pi / 2, MINIMUM), (5 * np.pi / 2, MAXIMUM)]),
    "corner": (jnp.abs, (-1, 1), []),
    "pole": (lambda x: 1 / x**2, (-1, 1.1), []),
    "straight": (lambda x: 2 * x, (-1, 1), []),
    "flat stretch": (lambda x: jnp.maximum(jnp.abs(x) - 1, 0) ** 2, (-3, 3), [(0, DEGENERATE)]),
    "root of f' at the end": (lambda x: x**2, (0, 1), [(0, MINIMUM)]),
}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_variable(name: str) -> None:
    f, (low, high), expected = ONE[name]
    found = stationary.in_interval(f, low, high)
    assert kinds(found) == [kind for _, kind in expected]
    np.testing.assert_allclose([p.x for p in found], [x for x, _ in expected], atol=2e-3 if name == "flat stretch"
                               else 1e-8)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=10)
@given(st.lists(st.integers(-19, 19), min_size=1, max_size=6), st.sampled_from([-1, 1]))
def test_polynomials_with_known_roots_of_their_derivative(roots: list[int], sign: int) -> None:
    """f' = sign * product of (x - r): a root of odd multiplicity is an extremum, of even an inflection."""
    slope = np.poly1d(np.array(roots) / 10, r=True) * sign
    coefficients = slope.integ().coeffs
    found = stationary.in_interval(lambda x: jnp.polyval(jnp.asarray(coefficients), x), -2.05, 2.06)
    distinct = sorted(set(roots))
    expected = []
    for r in distinct:
        before, after = (np.sign(slope(r / 10 + side * 0.04)) for side in (-1, 1))
        expected.append(INFLECTION if before == after else MINIMUM if after > 0 else MAXIMUM)
    assert kinds(found) == expected
    # A root of multiplicity m is known to eps^(1/m) only.
    np.testing.assert_allclose([p.x for p in found], np.array(distinct) / 10, atol=2e-2)


HIMMELBLAU = landscapes.himmelblau()


@pytest.mark.slow
def test_himmelblau_has_nine() -> None:
    found = stationary.in_box(HIMMELBLAU, [(-6, 6), (-6, 6)])
    assert sorted(kinds(found)) == sorted([MINIMUM] * 4 + [SADDLE] * 4 + [MAXIMUM])
    minima = np.array([p.x for p in found if p.kind == MINIMUM])
    known = HIMMELBLAU.minima[np.lexsort(HIMMELBLAU.minima.T[::-1])]
    np.testing.assert_allclose(minima, known, atol=1e-9)
    # grad f = 0 by hand: 4 x (x^2 + y - 11) + 2 (x + y^2 - 7) and its mirror image.
    for p in found:
        x, y = p.x
        u, v = x**2 + y - 11, x + y**2 - 7
        np.testing.assert_allclose([4 * x * u + 2 * v, 2 * u + 4 * y * v], 0, atol=1e-9)
        hessian = np.array([[12 * x**2 + 4 * y - 42, 4 * (x + y)], [4 * (x + y), 12 * y**2 + 4 * x - 26]])
        np.testing.assert_allclose(p.directions * p.curvatures @ p.directions.T, hessian, atol=1e-8)
        np.testing.assert_allclose(p.value, u**2 + v**2, atol=1e-12)
    # The Euler characteristic of a bowl: minima - saddles + maxima = 1 (Morse).
    assert kinds(found).count(MINIMUM) - kinds(found).count(SADDLE) + kinds(found).count(MAXIMUM) == 1


SEVERAL: dict[str, tuple[Callable[..., Any], float, list[tuple[tuple[float, ...], str]]]] = {
    "saddle": (landscapes.saddle(), 2, [((0, 0), SADDLE)]),
    "hill": (lambda x: -x[0] ** 2 - 3 * x[1] ** 2, 2, [((0, 0), MAXIMUM)]),
    "monkey saddle": (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, 1, [((0, 0), DEGENERATE)]),
    "fourth powers": (lambda x: x[0] ** 4 + x[1] ** 4, 1, [((0, 0), DEGENERATE)]),
    "eggs": (lambda x: jnp.sin(x[0]) * jnp.sin(x[1]), 2, [
        ((-np.pi / 2, -np.pi / 2), MAXIMUM), ((-np.pi / 2, np.pi / 2), MINIMUM), ((0, 0), SADDLE),
        ((np.pi / 2, -np.pi / 2), MINIMUM), ((np.pi / 2, np.pi / 2), MAXIMUM),
    ]),
    "of three variables": (lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2 - x[2] ** 2, 2, [
        ((-1, 0, 0), SADDLE), ((1, 0, 0), SADDLE),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", ["saddle", *slow(*(name for name in SEVERAL if name != "saddle"))])
def test_functions_of_several_variables(name: str) -> None:
    f, reach, expected = SEVERAL[name]
    found = stationary.in_box(f, [(-reach, reach)] * len(expected[0][0]), starts=11)
    assert kinds(found) == [kind for _, kind in expected]
    np.testing.assert_allclose([p.x for p in found], [x for x, _ in expected], atol=1e-6)


@pytest.mark.slow
def test_the_lattice_of_schwefel_is_the_product_of_its_axes() -> None:
    axis = stationary.in_interval(lambda x: landscapes.schwefel(dimensions=1)(x[None]), -500, 500)
    smooth = [p for p in axis if p.kind != INFLECTION]  # at 0 f'' is infinite
    found = stationary.in_box(landscapes.schwefel(), [(-500, 500)] * 2, starts=60)
    assert len(found) == len(smooth) ** 2
    counts = {kind: kinds(smooth).count(kind) for kind in (MINIMUM, MAXIMUM)}
    assert kinds(found).count(MINIMUM) == counts[MINIMUM] ** 2
    assert kinds(found).count(SADDLE) == 2 * counts[MINIMUM] * counts[MAXIMUM]


def test_the_kind_of_one_point() -> None:
    def kind(f: Any, x: Any) -> str:
        return stationary.classify(f, x).kind

    assert kind(lambda x: x**3, 1e-4) == INFLECTION
    assert kind(lambda x: x**4, 0.0) == MINIMUM
    assert kind(lambda x: x**2, 1.0) == REGULAR
    assert kind(lambda x: 3.0 + 0 * x, 1.0) == DEGENERATE
    assert kind(HIMMELBLAU, [3.0, 2.0001]) == MINIMUM
    assert kind(HIMMELBLAU, [0.0, 0.0]) == REGULAR


@pytest.mark.parametrize(
    ("eigenvalues", "kind"),
    [([1, 2], MINIMUM), ([-2, -1], MAXIMUM), ([-1, 1], SADDLE), ([0, 1], DEGENERATE), ([-1, 0], DEGENERATE),
     ([-1, 0, 1], SADDLE), ([0, 0], DEGENERATE)],
)  # fmt: skip
def test_kinds_by_eigenvalues(eigenvalues: list[float], kind: str) -> None:
    assert stationary.kind_of(eigenvalues) == kind
    assert stationary.kind_of(np.array(eigenvalues) + 1e-9, zero=1e-8) == kind


def test_of_360_directions_the_gradient_rises_most() -> None:
    x = np.array([1.0, -2.0])
    gradient = np.array([4 * -12.0 + 2 * -2.0, 2 * -12.0 + 4 * -2.0 * -2.0])  # u = 1 - 2 - 11, v = 1 + 4 - 7
    found = stationary.around(HIMMELBLAU, x)
    expected = 1e-4 * found.directions @ gradient
    np.testing.assert_allclose(found.changes, expected, atol=1e-2 * np.abs(expected).max())
    angle = np.arctan2(gradient[1], gradient[0])
    for pick, turned in ((np.argmax, angle), (np.argmin, angle + np.pi)):
        assert np.cos(found.angles[pick(found.changes)] - turned) >= np.cos(np.deg2rad(0.5))


@pytest.mark.parametrize(
    ("f", "rises"),
    [(landscapes.saddle(), 2), (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, 3), (lambda x: x[0] ** 2 + x[1] ** 2, 0)],
)
def test_around_a_stationary_point_rises_and_falls_alternate(f: Any, rises: int) -> None:
    up = stationary.around(f, [0.0, 0.0], radius=0.1, n=359).changes > 0
    assert np.sum(up & ~np.roll(up, 1)) == rises


def test_errors() -> None:
    with pytest.raises(TypeError, match="f must be a function"):
        stationary.in_interval(1.0, 0, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a function of JAX, got numpy\.sin\. Pass jnp\.sin"):
        stationary.in_interval(np.sin, 0, 1)
    with pytest.raises(ValueError, match="expected finite low < high, got 1 and 0"):
        stationary.in_interval(jnp.sin, 1, 0)
    with pytest.raises(ValueError, match="points must be at least 3, got 2"):
        stationary.in_interval(jnp.sin, 0, 1, points=2)
    with pytest.raises(ValueError, match=r"f must return one number, got shape \(2,\). It is called on one point"):
        stationary.in_interval(lambda x: jnp.stack([x, x]), 0, 1)
    with pytest.raises(ValueError, match=r"finite pairs \(low, high\), low < high"):
        stationary.in_box(HIMMELBLAU, [(0, 1), (1, 1)])
    with pytest.raises(ValueError, match=r"x must be one point \(\) or \(d,\), got shape \(1, 2\)"):
        stationary.classify(HIMMELBLAU, [[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"x must be a point \(2,\), got shape \(3,\)"):
        stationary.around(HIMMELBLAU, [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="radius must be a finite number > 0"):
        stationary.around(HIMMELBLAU, [0.0, 0.0], radius=0.0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_values_whose_products_leave_the_range_of_floats(scale: float) -> None:
    (found,) = stationary.in_interval(lambda x: scale * (x - 0.0123) ** 2, -1.0, 1.0, points=21)
    assert (found.kind, float(found.x)) == (MINIMUM, pytest.approx(0.0123))


def test_the_edge_of_a_domain_is_not_stationary() -> None:
    assert stationary.classify(jnp.sqrt, 0.0).kind == REGULAR


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: stationary.classify(lambda x: x**2, np.nan), "x must be finite, got nan"),
        (lambda: stationary.classify(lambda x: jnp.sum(x**2), []), "got shape \\(0,\\)"),
        (lambda: stationary.around(lambda x: x, [0.0, 0.0]), "f must return one number"),
        (lambda: stationary.in_box(lambda x: jnp.sum(x**2), [(-1, 1)] * 12), "at most 1,000,000 starts, got 21\\^12"),
        (lambda: stationary.kind_of([]), "d >= 1"),
    ],
)
def test_points_without_a_kind_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

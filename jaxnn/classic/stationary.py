"""Stationary points of functions of one and of several variables: found, and classified.

A point is stationary where the derivative, or the gradient, is 0. There a function of one variable has a minimum, a
maximum or an inflection, told by the sign of f' on both sides; of several variables, the signs of the Hessian's
eigenvalues tell a minimum, a maximum and a saddle, and an eigenvalue of 0 leaves the point degenerate.

Functions are of JAX and computed in float64, x64 mode or not; all of this runs on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from jaxnn.checks import (
    as_numpy,
    require_function,
    require_number,
    require_positive,
    require_positive_int,
    require_scalar_function,
)
from jaxnn.types import Array, ArrayLike

MINIMUM, MAXIMUM, INFLECTION, SADDLE = "minimum", "maximum", "inflection", "saddle"
DEGENERATE, REGULAR = "degenerate", "not stationary"

FLAT = 1e-7
"""An eigenvalue counts as 0 below this fraction of the curvature in the neighbourhood."""

NEWTON_STEPS = 100

ONE_POINT = "It is called on one point, () or (d,)."

MOST_STARTS = 10**6
"""The largest number of starts of `in_box`."""


class Point(NamedTuple):
    """A stationary point.

    Attributes:
        x: () for a function of one variable, else (d,).
        value: f(x).
        curvatures: (d,), the eigenvalues of the Hessian, ascending; of one variable f''(x).
        directions: (d, d), the eigenvectors as columns.
        kind: "minimum", "maximum", "inflection" (of one variable), "saddle" (of several), "degenerate" (f' is 0 in a
            neighbourhood; of several variables: an eigenvalue is 0 and the others do not differ in sign), or from
            `classify` "not stationary".
    """

    x: np.ndarray
    value: float
    curvatures: np.ndarray
    directions: np.ndarray
    kind: str


def in_interval(f: Callable[[Array], Array], low: float, high: float, *, points: int = 2001) -> tuple[Point, ...]:
    """The stationary points of a function of one variable in [low, high], ascending.

    Roots of f' are bracketed by its sign at equally spaced points, and refined by Brent's method; where f' touches 0
    without a change of sign, f'' has a root. The kind follows from the sign of f' before and after: - + minimum,
    + - maximum, + + or - - inflection. This also decides where f'' = 0, as for x^3 and x^4. A stretch where f' = 0 is
    one degenerate point, its middle. Corners, such as 0 of |x|, and poles are not stationary and left out.

    Args:
        f: differentiable, () -> (), e.g. `lambda x: x**3 - 3 * x`.
        low, high: finite.
        points: how many, the ends included; two stationary points nearer than their spacing may be missed or merged.

    Returns:
        The points. The ends of the interval are not among them unless f' = 0 there.

    Raises:
        TypeError: f is not a function.
        ValueError: not low < high, fewer than 3 points, or f does not return a scalar.

    Reference: Brent, R. P. (1973). Algorithms for minimization without derivatives, chapter 4.

    Example:
        >>> [(round(float(p.x), 6), p.kind) for p in in_interval(lambda x: x**5 / 5 - 4 * x**3 / 3, -3, 3)]
        [(-2.0, 'maximum'), (0.0, 'inflection'), (2.0, 'minimum')]
    """
    require_function("stationary.in_interval", "f", f, "jnp.sin", optional=False)
    points = require_positive_int("stationary.in_interval", "points", points, 3)
    for name, end in (("low", low), ("high", high)):
        require_number("stationary.in_interval", name, end)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"stationary.in_interval: expected finite low < high, got {low} and {high}.")
    with jax.enable_x64(True):
        at = _derivatives("stationary.in_interval", f)
        x = np.linspace(low, high, points)
        _, first, second = (np.asarray(d) for d in jax.vmap(at)(x))
        flat = _stretches(first)
        resting = np.isin(np.arange(points), np.concatenate([*flat, np.zeros(0, int)]))
        none = 1e-9 * float(np.max(np.abs(first), where=np.isfinite(first), initial=0.0))
        roots = _roots(lambda t: float(at(t)[1]), x, first)
        roots += [t for t in _roots(lambda t: float(at(t)[2]), x, second) if abs(float(at(t)[1])) <= none]
        roots += list(x[(first == 0) | ((second == 0) & (np.abs(first) <= none))])
        spacing = (high - low) / (points - 1)
        found = [
            t
            for t in _distinct(roots, 1e-6 * spacing)
            if not resting[round((t - low) / spacing)] and _smooth(lambda s: float(at(s)[1]), t, 1e-3 * spacing)
        ]
        gaps = np.diff([low - 2 * spacing, *found, high + 2 * spacing])
        reach = np.minimum(np.minimum(gaps[:-1], gaps[1:]) / 2, spacing)
        made = [_of_one(at, t, r) for t, r in zip(found, reach, strict=True)]
        made += [_point(at, float(x[run].mean()), DEGENERATE) for run in flat]
    return tuple(sorted(made, key=lambda p: float(p.x)))


def in_box(
    f: Callable[[Array], Array], bounds: Sequence[tuple[float, float]], *, starts: int = 21
) -> tuple[Point, ...]:
    """The stationary points of a function of several variables in a box, by Newton's method from a lattice of starts.

    x <- x - H(x)^+ grad f(x) finds a root of the gradient whatever its kind, unlike descent; H^+ is the pseudoinverse,
    and a step is no longer than a tenth of the box. The kind follows from the eigenvalues of H: all > 0 minimum, all
    < 0 maximum, of both signs saddle, else degenerate.

    Args:
        f: twice differentiable, (d,) -> (), such as a landscape.
        bounds: (low, high) of each of the d coordinates.
        starts: along each axis: starts^d runs at once. A point whose basin holds none of them is missed.

    Returns:
        The points in the box, in lexicographic order; of a curve of stationary points, those where runs ended.

    Raises:
        TypeError: f is not a function.
        ValueError: bounds are not finite pairs low < high, starts < 1 or more than 10^6 in all, or f does not return
            a scalar.

    Reference: Morse, M. (1925). Relations between the critical points of a real function of n independent variables.

    Example:
        >>> from jaxnn import landscapes
        >>> [p.kind for p in in_box(landscapes.saddle(), [(-2, 2), (-2, 2)])]
        ['saddle']
    """
    require_function("stationary.in_box", "f", f, "landscapes.himmelblau()", optional=False)
    starts = require_positive_int("stationary.in_box", "starts", starts)
    box = as_numpy("stationary.in_box", "bounds", bounds).astype(np.float64)
    if box.ndim != 2 or box.shape[1] != 2 or not np.isfinite(box).all() or not (box[:, 0] < box[:, 1]).all():
        raise ValueError(f"stationary.in_box: expected finite pairs (low, high), low < high, got {bounds}.")
    if starts ** len(box) > MOST_STARTS:
        raise ValueError(
            f"stationary.in_box: at most {MOST_STARTS:,} starts, got {starts}^{len(box)}. Lower starts, or descend "
            "from random points: train.minimize."
        )
    middle = (np.arange(starts) + 0.5) / starts  # off the axes of symmetry and the edges, but for the centre
    lattice = np.stack(np.meshgrid(*[low + (high - low) * middle for low, high in box], indexing="ij"), -1)
    width = float(np.linalg.norm(box[:, 1] - box[:, 0]))
    with jax.enable_x64(True):
        ends, last, steepness, curvature = jax.device_get(_newton(f, lattice.reshape(-1, len(box)), 0.1 * width))
        inside = np.all((ends >= box[:, 0] - 1e-9 * width) & (ends <= box[:, 1] + 1e-9 * width), axis=1)
        reached = inside & (last <= 1e-6 * width) & (steepness <= 1e-10 * curvature * width)
        order = np.argsort(steepness[reached], kind="stable")
        kept: list[np.ndarray] = []
        for x in ends[reached][order]:
            if all(np.linalg.norm(x - other) > 1e-5 * width for other in kept):
                kept.append(x)
        made = [_of_several(f, x, curvature) for x in kept]
    return tuple(sorted(made, key=lambda p: tuple(np.round(p.x, 9))))


def classify(f: Callable[[Array], Array], x: ArrayLike, *, radius: float = 1e-2, tolerance: float = 1e-4) -> Point:
    """The kind of one point with its curvatures, in float64 on the host.

    `train.kind_of_point` gives the kind of the end of a run, in its own dtype, under `jit` and `vmap`.

    Args:
        f: () -> () or (d,) -> ().
        x: () or (d,).
        radius: of the neighbourhood, relative to max(1, |x|): the sign of f' at this distance decides in one variable;
            in several, an eigenvalue counts as 0 beside the largest within it.
        tolerance: the gradient counts as 0 below this fraction of curvature times max(1, |x|).

    Returns:
        Point, of kind "not stationary" where the gradient is not 0.

    Raises:
        TypeError: f is not a function.
        ValueError: x is not () or (d,) or not finite, f does not return a scalar, or radius or tolerance is not > 0.

    Example:
        >>> classify(lambda x: x[0] ** 2 - x[1] ** 2, [0.0, 0.0]).kind
        'saddle'
        >>> classify(lambda x: x**3, 0.0).kind
        'inflection'
    """
    require_function("stationary.classify", "f", f, "landscapes.himmelblau()", optional=False)
    require_positive("stationary.classify", "radius", radius)
    require_positive("stationary.classify", "tolerance", tolerance)
    point = as_numpy("stationary.classify", "x", x).astype(np.float64)
    if point.ndim > 1 or not point.size:
        raise ValueError(f"stationary.classify: x must be one point () or (d,), got shape {point.shape}.")
    if not np.isfinite(point).all():
        raise ValueError(f"stationary.classify: x must be finite, got {point.tolist()}.")
    scale = max(1.0, float(np.max(np.abs(point), initial=0.0)))
    with jax.enable_x64(True):
        if point.ndim == 0:
            at = _derivatives("stationary.classify", f)
            found = _of_one(at, float(point), radius * scale)
            curvature = max(abs(float(at(float(point) + s * radius * scale)[2])) for s in (-1, 0, 1))
            steep = abs(float(at(float(point))[1]))
        else:
            require_scalar_function("stationary.classify", "f", f, jnp.asarray(point), ONE_POINT)
            offsets = radius * scale * np.vstack([np.zeros(len(point)), np.eye(len(point)), -np.eye(len(point))])
            hessians = jax.vmap(jax.hessian(f))(jnp.asarray(point + offsets))
            curvature = float(np.max(np.abs(np.linalg.eigvalsh(np.asarray(hessians)))))
            found = _of_several(f, point, curvature)
            steep = float(jnp.linalg.norm(jax.grad(f)(jnp.asarray(point))))
    return found if steep <= tolerance * curvature * scale else found._replace(kind=REGULAR)


class Around(NamedTuple):
    """f around a point: `angles` (n,) in radians, `directions` (n, 2) and `changes` (n,), f(x + r u) - f(x)."""

    angles: np.ndarray
    directions: np.ndarray
    changes: np.ndarray


def around(f: Callable[[Array], Array], x: ArrayLike, *, radius: float = 1e-4, n: int = 360) -> Around:
    """The change of a function of two variables in n directions: f(x + r u) - f(x), u = (cos a, sin a).

    To first order it is r |grad f| cos(a - a0): largest along the gradient, whose angle is a0, 0 across it, and most
    negative against it. At a stationary point the second order shows: one sign around an extremum, and as many pairs of
    rises and falls around a saddle as it has valleys, two for x^2 - y^2 and three for the monkey saddle.

    Args:
        f: (2,) -> ().
        x: (2,).
        radius: r > 0.
        n: the number of directions, equally spaced from angle 0.

    Raises:
        TypeError: f is not a function.
        ValueError: x is not (2,), f does not return a scalar, radius <= 0, or n < 1.

    Reference: Cauchy, A. (1847). Méthode générale pour la résolution des systèmes d'équations simultanées.

    Example:
        >>> found = around(lambda x: 3 * x[0] + 4 * x[1], [0.0, 0.0])
        >>> int(np.argmax(found.changes))  # degrees; the gradient (3, 4) has angle 53.13
        53
    """
    require_function("stationary.around", "f", f, "landscapes.himmelblau()", optional=False)
    require_positive("stationary.around", "radius", radius)
    n = require_positive_int("stationary.around", "n", n)
    point = np.asarray(x, np.float64)
    if point.shape != (2,):
        raise ValueError(f"stationary.around: x must be a point (2,), got shape {point.shape}.")
    angles = 2 * np.pi * np.arange(n) / n
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with jax.enable_x64(True):
        require_scalar_function("stationary.around", "f", f, jnp.asarray(point), ONE_POINT)
        values = np.asarray(jax.vmap(f)(jnp.asarray(np.vstack([point, point + radius * directions]))))
    return Around(angles, directions, values[1:] - values[0])


def _derivatives(where: str, f: Callable[[Array], Array]) -> Callable[[Any], tuple[Array, Array, Array]]:
    """t -> (f, f', f''), compiled."""
    require_scalar_function(where, "f", f, jnp.asarray(0.0), ONE_POINT)
    slope = jax.grad(f)
    return jax.jit(lambda t: (f(t), slope(t), jax.grad(slope)(t)))


def _roots(g: Callable[[float], float], x: np.ndarray, values: np.ndarray) -> list[float]:
    """The roots of g between neighbours of x at which its values differ in sign."""
    signs = np.sign(values)  # the product of two values may be 0, or overflow
    changes = np.flatnonzero(signs[:-1] * signs[1:] < 0)
    # Near a root of high order Brent's method may fall back to bisection of all 1,000 powers of 2.
    return [float(brentq(g, x[i], x[i + 1], xtol=1e-15, maxiter=2000)) for i in changes]


def _stretches(slopes: np.ndarray) -> list[np.ndarray]:
    """The indices of each run of at least three slopes that are 0."""
    resting = np.flatnonzero(slopes == 0)
    runs = np.split(resting, np.flatnonzero(np.diff(resting) > 1) + 1)
    return [run for run in runs if len(run) >= 3]


def _distinct(roots: Sequence[float], near: float) -> list[float]:
    """The roots, ascending, without those nearer than `near` to the one before."""
    found: list[float] = []
    for t in sorted(roots):
        if not found or t - found[-1] > near:
            found.append(float(t))
    return found


def _smooth(slope: Callable[[float], float], t: float, near: float) -> bool:
    """Whether f' falls towards its root t: at a corner it does not, and at a pole it grows."""
    close, far = (max(abs(slope(t - r)), abs(slope(t + r))) for r in (near / 100, near))
    return close <= 0.5 * far


def _point(at: Callable[[Any], tuple[Array, Array, Array]], t: float, kind: str) -> Point:
    value, _, curvature = (float(d) for d in at(t))
    return Point(
        np.asarray(t + 0.0),
        value,  # -0 becomes 0
        np.array([curvature]),
        np.eye(1),
        kind,
    )


def _of_one(at: Callable[[Any], tuple[Array, Array, Array]], t: float, reach: float) -> Point:
    """A stationary point of one variable, classified by the sign of f' on both sides."""
    before, after = (float(np.sign(float(at(t + side * reach)[1]))) for side in (-1, 1))  # NaN outside of the domain
    kinds: dict[tuple[float, float], str] = {
        (-1, 1): MINIMUM,
        (1, -1): MAXIMUM,
        (1, 1): INFLECTION,
        (-1, -1): INFLECTION,
    }
    return _point(at, t, kinds.get((before, after), DEGENERATE))


def _of_several(f: Callable[[Array], Array], x: np.ndarray, curvature: float) -> Point:
    """A stationary point of several variables, classified by the eigenvalues of the Hessian."""
    values, vectors = np.linalg.eigh(np.asarray(jax.hessian(f)(jnp.asarray(x))))
    return Point(x + 0.0, float(f(jnp.asarray(x))), values, vectors, kind_of(values, zero=FLAT * curvature))


def kind_of(eigenvalues: ArrayLike, *, zero: float = 0.0) -> str:
    """The kind of a stationary point of several variables with these eigenvalues (d,) of the Hessian.

    "minimum" if all are positive, "maximum" if all are negative, "saddle" if some are positive and some negative, else
    "degenerate"; those with |eigenvalue| <= `zero` are neither.

    Example:
        >>> kind_of([-1.0, 0.0, 2.0]), kind_of([0.0, 2.0])
        ('saddle', 'degenerate')
    """
    values = np.asarray(eigenvalues)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"stationary.kind_of: expected eigenvalues (d,), d >= 1, got shape {values.shape}.")
    up, down = values > zero, values < -zero
    if up.any() and down.any():
        return SADDLE
    return MINIMUM if up.all() else MAXIMUM if down.all() else DEGENERATE


def _newton(f: Callable[[Array], Array], starts: np.ndarray, longest: float) -> Any:
    """Newton's method for a root of the gradient: ends (N, d), last steps and gradients (N,), typical curvature ()."""
    require_scalar_function("stationary.in_box", "f", f, jnp.asarray(starts[0]), ONE_POINT)
    slope, hessian = jax.grad(f), jax.hessian(f)

    def step(x: Array) -> Array:
        values, vectors = jnp.linalg.eigh(hessian(x))
        some = jnp.abs(values) > 1e-14 * jnp.max(jnp.abs(values))
        inverse = jnp.where(some, 1 / jnp.where(some, values, 1.0), 0.0)
        dx = -vectors @ (inverse * (vectors.T @ slope(x)))
        return dx * jnp.minimum(1.0, longest / jnp.maximum(jnp.linalg.norm(dx), 1e-300))

    def run(x: Array) -> tuple[Array, Array, Array, Array]:
        end = jax.lax.fori_loop(0, NEWTON_STEPS, lambda _, x: x + step(x), x)
        size = jnp.max(jnp.abs(jnp.linalg.eigvalsh(hessian(x))))
        return end, jnp.linalg.norm(step(end)), jnp.linalg.norm(slope(end)), size

    ends, last, steepness, sizes = jax.jit(jax.vmap(run))(jnp.asarray(starts))
    return ends, last, steepness, jnp.median(sizes)

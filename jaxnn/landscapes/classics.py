"""Classic test functions, and a plateau."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_positive_int
from jaxnn.landscapes.base import Landscape, make_landscape
from jaxnn.numerics import safe_sqrt
from jaxnn.types import Array

SCHWEFEL_MINIMUM = 420.9687463599821
"""x where d/dx (x sin sqrt x) = 0 near 421: sin s + (s / 2) cos s = 0, s = sqrt x."""
SCHWEFEL_DEPTH = 418.98288727243374
"""x sin sqrt x at `SCHWEFEL_MINIMUM`: the constant that makes the minimum 0."""
HIMMELBLAU_MINIMA = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.2831859912861696),
    (3.5844283403304917, -1.8481265269644034),
)
"""(3, 2), and three solutions of x^2 + y = 11, x + y^2 = 7 by Newton's method."""


def rosenbrock(*, dimensions: int = 2) -> Landscape:
    """f(x) = sum_(i < d) [100 (x_(i+1) - x_i^2)^2 + (1 - x_i)^2]: a valley along a parabola.

    Args:
        dimensions: d >= 2. For d >= 4 it also has a local minimum with x_1 < 0: at (-0.78, 0.61, 0.38, 0.15)
            for d = 4, within 0.25 of (-1, 1, ..., 1) for d >= 6.

    Returns:
        Landscape: minimum 0 at (1, ..., 1), start (-1.2, 1, -1.2, 1, ...), bounds [-2.048, 2.048].

    Example:
        >>> rosenbrock()(jnp.array([0.0, 0.5]))
        Array(26., dtype=float32)

    Reference: Rosenbrock 1960, "An automatic method for finding the greatest or least value of a function" (d = 2);
        Shang & Qiu 2006, "A note on the extended Rosenbrock function" (this form for d > 2 and its local minimum).
    """
    d = require_positive_int("rosenbrock", "dimensions", dimensions, 2)

    def function(x: Array) -> Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    start = np.where(np.arange(d) % 2 == 0, -1.2, 1.0)
    return make_landscape(
        "Rosenbrock", function, start=start, bounds=(-2.048, 2.048), minima=np.ones((1, d)), minimum_value=0.0
    )


def beale() -> Landscape:
    """f(x, y) = sum_(i=1..3) (c_i - x (1 - y^i))^2, c = (1.5, 2.25, 2.625): a flat floor between steep walls.

    Returns:
        Landscape: minimum 0 at (3, 1/2), saddle point (0, 1), start (1, 1), bounds [-4.5, 4.5].

    Example:
        >>> beale()(jnp.array([3.0, 0.5]))
        Array(0., dtype=float32)

    Reference: Beale 1958, "On an iterative method for finding a local minimum of a function of more than one variable";
        start of Moré, Garbow & Hillstrom 1981, "Testing Unconstrained Optimization Software", problem 5.
    """

    def function(point: Array) -> Array:
        x, y = point[0], point[1]
        return (1.5 - x * (1 - y)) ** 2 + (2.25 - x * (1 - y**2)) ** 2 + (2.625 - x * (1 - y**3)) ** 2

    return make_landscape(
        "Beale",
        function,
        start=[1.0, 1.0],
        bounds=(-4.5, 4.5),
        minima=[[3.0, 0.5]],
        minimum_value=0.0,
        saddle_points=[[0.0, 1.0]],
    )


def himmelblau() -> Landscape:
    """f(x, y) = (x^2 + y - 11)^2 + (x + y^2 - 7)^2: four minima of value 0.

    Returns:
        Landscape: minima (3, 2), (-2.805, 3.131), (-3.779, -3.283) and (3.584, -1.848), start (0, 0), bounds [-6, 6].

    Example:
        >>> himmelblau()(jnp.array([0.0, 0.0]))
        Array(170., dtype=float32)

    Reference: Himmelblau 1972, "Applied Nonlinear Programming".
    """

    def function(point: Array) -> Array:
        x, y = point[0], point[1]
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2

    return make_landscape(
        "Himmelblau", function, start=[0.0, 0.0], bounds=(-6.0, 6.0), minima=HIMMELBLAU_MINIMA, minimum_value=0.0
    )


def saddle() -> Landscape:
    """f(x, y) = x^2 - y^2: no minimum; its one stationary point, the origin, is a saddle.

    Returns:
        Landscape: no minima, value unbounded below, saddle point (0, 0), start (1, 0.001): on y = 0 itself gradient
        descent ends in the saddle. Bounds [-2, 2].

    Example:
        >>> saddle()(jnp.array([1.0, 2.0]))
        Array(-3., dtype=float32)
    """
    return make_landscape(
        "saddle",
        lambda x: x[0] ** 2 - x[1] ** 2,
        start=[1.0, 1e-3],
        bounds=(-2.0, 2.0),
        minima=np.zeros((0, 2)),
        minimum_value=-np.inf,
        saddle_points=[[0.0, 0.0]],
    )


def plateau() -> Landscape:
    """f(x) = 1 - exp(-|x|^2 / 2) in two dimensions: a well of width 1 in a plateau of height 1.

    The gradient's norm at distance r is r exp(-r^2 / 2): 0.61 at most (r = 1), 2e-5 at the start (r = 5), where
    gradient descent hardly moves, unlike rules that normalize the gradient. It is 0 at the minimum only.

    Returns:
        Landscape: minimum 0 at the origin, start (4, 3), bounds [-6, 6].

    Example:
        >>> plateau()(jnp.array([0.0, 0.0]))
        Array(0., dtype=float32)
    """

    def function(x: Array) -> Array:
        # Not -expm1(...): its derivative is computed as 1 - f, which is exactly 0 far from the minimum.
        return 1 - jnp.exp(-0.5 * jnp.sum(x**2))

    return make_landscape(
        "plateau", function, start=[4.0, 3.0], bounds=(-6.0, 6.0), minima=[[0.0, 0.0]], minimum_value=0.0
    )


def schwefel(*, dimensions: int = 2) -> Landscape:
    """f(x) = sum_i (418.98... - x_i sin sqrt |x_i|): a lattice of local minima, the best far from the second best.

    At x_i = 0 its derivative is 0, since x sin sqrt |x| behaves like x sqrt |x| there.

    Args:
        dimensions: d >= 1.

    Returns:
        Landscape: minimum 0 at 420.9687... in each coordinate, start (100, ..., 100), bounds [-500, 500] (outside which
        it falls lower).

    Example:
        >>> schwefel()(jnp.zeros(2)).round(2)
        Array(837.97, dtype=float32)

    Reference: Schwefel 1981, "Numerical Optimization of Computer Models", problem 2.26 (without the constant).
    """
    d = require_positive_int("schwefel", "dimensions", dimensions)

    def function(x: Array) -> Array:
        return jnp.sum(SCHWEFEL_DEPTH - x * jnp.sin(safe_sqrt(jnp.abs(x))))

    minima = np.full((1, d), SCHWEFEL_MINIMUM)
    return make_landscape(
        "Schwefel", function, start=np.full(d, 100.0), bounds=(-500.0, 500.0), minima=minima, minimum_value=0.0
    )

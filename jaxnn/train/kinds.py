"""The kind of a stationary point: minimum, maximum, inflection, saddle or flat, by values along axes of curvature."""

from __future__ import annotations

import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxnn.checks import as_array, require_floating, require_function, require_scalar_function
from jaxnn.losses.base import float_info
from jaxnn.types import Array, PyTree

LARGEST = 32
"""The largest number of entries of a point whose kind is determined: it takes 2 D gradients and 2 D values."""

REACH = 16.0
"""Newton steps to the points at which values are compared: beyond -x from x > 0 for x^3, and for x^n up to n = 8."""


class PointKind(enum.IntEnum):
    """What f does around a point at which its gradient is small, along the axes of its curvature.

    UNKNOWN: not determined, because the run did not converge, the point has more than 32 numbers, or something is not
    finite. MINIMUM: f rises on both sides of every axis. MAXIMUM: it falls. INFLECTION: along some axis it rises on one
    side and falls on the other, as x^3 at 0, or as on a slope that is not yet level. SADDLE: it rises along some axes
    and falls along others, on both sides. FLAT: along some axis it does not change by more than rounding, and it falls
    (or rises) along none.
    """

    UNKNOWN = 0
    MINIMUM = 1
    MAXIMUM = 2
    INFLECTION = 3
    SADDLE = 4
    FLAT = 5


def kind_of_point(f: Callable[[PyTree], Array], x: PyTree) -> Array:
    """The `PointKind` of a point x with a small gradient, as int32.

    The axes are the eigenvectors v of the Hessian H, by central differences of the gradient. Along each, f(x + s v) and
    f(x - s v) are compared with f(x), where s is 16 Newton steps |g'v / lambda| and at least so large that rounding
    does not decide. The second derivative alone would call x^3 a minimum at every x > 0, where descent stops.
    `classic.stationary` finds exact stationary points and classifies them in float64.

    Args:
        f: differentiable, from a pytree like x to a floating scalar.
        x: pytree of floating arrays; more than 32 numbers in all give UNKNOWN.

    Returns:
        () int32, a value of `PointKind`. May be called under `jit` and `vmap`.

    Raises:
        TypeError: f is not a function, or x or f(x) is not floating.
        ValueError: f does not return a scalar.

    Example:
        >>> [PointKind(int(kind_of_point(f, 1e-3))).name for f in (lambda x: x**2, lambda x: x**3, lambda x: -(x**2))]
        ['MINIMUM', 'INFLECTION', 'MAXIMUM']
        >>> PointKind(int(kind_of_point(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2)))).name
        'SADDLE'
    """
    require_function("kind_of_point", "f", f, "landscapes.rosenbrock()", optional=False)
    x = jax.tree.map(lambda leaf: as_array("kind_of_point", "x", leaf), x)
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        require_floating("kind_of_point", "x", leaf.dtype, "Write 1.0 instead of 1, or convert it.")
    require_scalar_function("kind_of_point", "f", f, x, "For many points use jax.vmap.")
    if not 0 < sum(leaf.size for leaf in leaves) <= LARGEST:
        return jnp.int32(PointKind.UNKNOWN)
    at, unravel = ravel_pytree(x)
    wide = at.dtype if at.dtype == jnp.float64 else jnp.dtype(jnp.float32)
    at, eps = at.astype(wide), max(float(float_info(leaf.dtype).eps) for leaf in leaves)

    def value(point: Array) -> Array:
        return jnp.asarray(f(unravel(point.astype(jnp.result_type(*leaves)))), wide)

    def grad(point: Array) -> Array:
        return jax.grad(value)(point)

    size = jnp.maximum(jnp.max(jnp.abs(at)), jnp.ones((), wide))
    h = eps ** (1 / 3) * size
    differences = jax.lax.map(lambda e: (grad(at + h * e) - grad(at - h * e)) / (2 * h), jnp.eye(at.size, dtype=wide))
    eigenvalues, axes = jnp.linalg.eigh((differences + differences.T) / 2)
    middle = value(at)
    rounding = 8 * eps * jnp.abs(middle)
    steps = _steps(eigenvalues, jnp.abs(axes.T @ grad(at)), rounding, eps, size)

    def sides(axis_and_step: tuple[Array, Array]) -> Array:
        axis, step = axis_and_step
        rises = jnp.stack([value(at + step * axis) - middle, value(at - step * axis) - middle])
        return jnp.where(jnp.abs(rises) <= rounding, 0, jnp.sign(rises))

    around = jax.lax.map(sides, (axes.T, steps))
    return jnp.where(jnp.isfinite(middle) & jnp.all(jnp.isfinite(around)), _named(around), PointKind.UNKNOWN)


def turned(kind: Array) -> Array:
    """The kind of the same point of -f."""
    swapped = jnp.where(kind == PointKind.MINIMUM, PointKind.MAXIMUM, PointKind.MINIMUM).astype(kind.dtype)
    return jnp.where((kind == PointKind.MINIMUM) | (kind == PointKind.MAXIMUM), swapped, kind)


def _steps(eigenvalues: Array, slopes: Array, rounding: Array, eps: float, size: Array) -> Array:
    """The distance s along each axis: 16 Newton steps, more where the rise would drown in rounding, at most |x|."""
    curved = jnp.abs(eigenvalues)
    least = jnp.full_like(curved, eps**0.25) * size  # where there is no curvature
    newton = REACH * slopes / jnp.maximum(curved, float_info(curved.dtype).tiny)
    heard = jnp.sqrt(8 * rounding / jnp.maximum(curved, float_info(curved.dtype).tiny))
    steps = jnp.maximum(jnp.maximum(newton, heard), eps**0.5 * size)
    flat = curved <= eps**0.5 * jnp.max(curved)  # an eigenvalue of no correct digit
    return jnp.minimum(jnp.where(flat, jnp.maximum(least, jnp.minimum(newton, heard)), steps), size)


def _named(around: Array) -> Array:
    """The kind, from the signs of the changes at (D axes, 2 sides)."""
    up, down = jnp.all(around > 0, axis=1), jnp.all(around < 0, axis=1)
    falls, rises = jnp.any(around < 0, axis=1), jnp.any(around > 0, axis=1)
    kinds = [
        (jnp.any(falls & rises), PointKind.INFLECTION),
        (jnp.any(falls) & jnp.any(rises), PointKind.SADDLE),
        (jnp.all(up), PointKind.MINIMUM),
        (jnp.all(down), PointKind.MAXIMUM),
    ]
    return jnp.select([where for where, _ in kinds], [jnp.int32(kind) for _, kind in kinds], jnp.int32(PointKind.FLAT))

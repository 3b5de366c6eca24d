"""The class of landscapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_floating
from jaxnn.numerics import accumulate
from jaxnn.types import Array, ArrayLike


@dataclass(frozen=True, eq=False)
class Landscape:
    """A function on R^d with its known stationary points; `make_landscape` makes one of your own.

    The fields are NumPy arrays in float64, x64 mode or not.

    Attributes:
        name: for titles and error messages.
        function: (d,) float32 or float64 -> (), of the same dtype; calling the landscape itself checks its argument.
        start: (d,), the conventional starting point.
        bounds: (low, high), the same for every coordinate, for plots and tests.
        minima: (M, d), its global minima within the bounds; M = 0 if it has none.
        minimum_value: its value at the minima; -inf if it is unbounded below, NaN if it is not known.
        saddle_points: (S, d), known stationary points that are neither minima nor maxima; not a complete list.

    Example:
        >>> from jaxnn import landscapes
        >>> landscape = landscapes.himmelblau()
        >>> landscape(jnp.array([3.0, 2.0])), landscape.minima.shape
        (Array(0., dtype=float32), (4, 2))
    """

    name: str
    function: Callable[[Array], Array]
    start: np.ndarray
    bounds: tuple[float, float]
    minima: np.ndarray
    minimum_value: float
    saddle_points: np.ndarray

    @property
    def dimensions(self) -> int:
        """The dimension d of a point."""
        return int(self.start.shape[0])

    def __call__(self, x: ArrayLike) -> Array:
        """The value at one point x (d,), a scalar () of its dtype; ValueError for another shape, TypeError for ints."""
        x = require_point(self.name, x, self.dimensions)
        return self.function(accumulate(x)).astype(x.dtype)


def make_landscape(
    name: str,
    function: Callable[[Array], Array],
    *,
    start: np.ndarray | Sequence[float],
    bounds: tuple[float, float],
    minima: np.ndarray | Sequence[Sequence[float]] = (),
    minimum_value: float = math.nan,
    saddle_points: Sequence[Sequence[float]] = (),
) -> Landscape:
    """A landscape of your own, from numbers and sequences.

    Args:
        name: for titles and error messages.
        function: (d,) -> (), in `jax.numpy`.
        start: (d,).
        bounds: (low, high), the same for every coordinate.
        minima: (M, d), the known global minima; () for none.
        minimum_value: the value there; NaN if it is not known.
        saddle_points: (S, d), known ones; () for none.

    Returns:
        Landscape.

    Example:
        >>> bowl = make_landscape("bowl", lambda x: jnp.sum(x**2), start=[1.0, 2.0], bounds=(-3, 3))
        >>> bowl(bowl.start), bowl.minima.shape
        (Array(5., dtype=float32), (0, 2))
    """
    first = np.asarray(start, np.float64)
    return Landscape(
        name=name,
        function=function,
        start=first,
        bounds=bounds,
        minima=np.asarray(minima, np.float64).reshape(-1, first.shape[0]),
        minimum_value=minimum_value,
        saddle_points=np.asarray(saddle_points, np.float64).reshape(-1, first.shape[0]),
    )


def require_point(where: str, x: ArrayLike, dimensions: int) -> Array:
    """x as a JAX array; raises unless it is one point (d,) of a floating dtype."""
    x = jnp.asarray(x)
    if x.shape != (dimensions,):
        raise ValueError(
            f"{where}: expected one point of shape ({dimensions},), got {x.shape}. For a batch use jax.vmap."
        )
    require_floating(where, "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    return x

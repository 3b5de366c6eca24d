"""Kohonen's self-organizing map: units on a grid whose weights come to cover the data, neighbours near neighbours.

The weights w are (*grid, D), one vector for each unit of a grid with one, two or more axes, such as (10, 10). Examples
x are (N, D), in float32 (float64 for float64 x). ValueError: shapes do not match, or concrete values are not finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import as_array, pair, require_between, require_floating, require_key, require_positive
from jaxnn.classic.kernel import squared_distances
from jaxnn.classic.neurons import as_rows, require_finite
from jaxnn.losses.base import as_targets, concrete_array
from jaxnn.types import Array, ArrayLike, Key, Scalar


def positions(grid: tuple[int, ...]) -> Array:
    """The coordinates of each unit on the grid, (*grid, axes), float32: (0, 0), (0, 1), .. with distance 1.

    Example:
        >>> positions((2, 2)).tolist()
        [[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]]
    """
    if not isinstance(grid, tuple | list) or not grid:
        raise ValueError(f"kohonen.positions: grid must hold the size along each axis, such as (10, 10), got {grid!r}.")
    sizes = pair("kohonen.positions", "grid", grid, dims=len(grid))
    return jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in sizes), indexing="ij"), axis=-1)


def update(w: Array, x: Array, *, rate: Scalar, radius: Scalar) -> Array:
    """One example: the nearest unit c and, less so, its neighbours on the grid move towards it.

    w_j <- w_j + rate e^(-|r_j - r_c|^2 / (2 radius^2)) (x - w_j), c = argmin_j |x - w_j|, r_j the position of unit j

    Args:
        w: (*grid, D).
        x: one example (D,).
        rate: in [0, 1]; may be traced.
        radius: > 0, of the neighbourhood, in distances of neighbouring units; may be traced. As it tends to 0 only the
            nearest unit moves: online k-means, without any order.

    Reference: Kohonen, T. (1982). Self-organized formation of topologically correct feature maps. Kohonen, T. (1990).
        The self-organizing map (the Gaussian neighbourhood).

    Example:
        >>> update(jnp.array([[0.0], [4.0]]), jnp.array([1.0]), rate=0.5, radius=1e-3)
        Array([[0.5],
               [4. ]], dtype=float32)
    """
    require_between("kohonen.update", "rate", rate, 0, 1)
    require_positive("kohonen.update", "radius", radius)
    if w.ndim < 2 or x.shape != w.shape[-1:]:
        raise ValueError(
            f"kohonen.update: expected weights w (*grid, D) and an example x (D,), got {w.shape}, {x.shape}."
        )
    require_floating("kohonen.update", "w", w.dtype, "Convert it: w.astype(jnp.float32).")
    flat = w.reshape(-1, w.shape[-1])
    places = positions(w.shape[:-1]).reshape(len(flat), -1).astype(w.dtype)
    nearest = jnp.argmin(jnp.sum(jnp.square(x[None] - flat), axis=1))
    # Divided before the square, which may be 0.
    distances = jnp.sum(jnp.square((places - places[nearest][None]) / radius), axis=1)
    pull = rate * jnp.exp(-distances / 2)
    return (flat + pull.astype(w.dtype)[:, None] * (x[None] - flat)).reshape(w.shape)


def fit(w: ArrayLike, x: ArrayLike, *, key: Key, rates: ArrayLike, radii: ArrayLike) -> Array:
    """One `update` for each entry of `rates` and `radii`, on examples drawn at random.

    The map unfolds while the radius shrinks from about half the grid to less than 1: `jnp.geomspace(5, 0.5, 4000)`.

    Args:
        w: initial weights (*grid, D), such as `jax.random.choice(key, x, (10, 10))`.
        x: examples (N, D).
        key: typed key of the examples drawn, with replacement.
        rates: (T,), each in [0, 1].
        radii: (T,), each > 0.

    Returns:
        w (*grid, D).

    Reference: Kohonen (1982), as above.

    Example:
        >>> x = jnp.linspace(0, 1, 50)[:, None]
        >>> w = jax.random.choice(jax.random.key(0), x, (5,))
        >>> w = fit(w, x, key=jax.random.key(1), rates=jnp.full(500, 0.2), radii=jnp.geomspace(2.0, 0.5, 500))
        >>> steps = jnp.diff(w[:, 0])  # in order, ascending or descending
        >>> (steps > 0).all() | (steps < 0).all()
        Array(True, dtype=bool)
    """
    require_key("kohonen.fit", key)
    weights, rows = _checked("kohonen.fit", w, x)
    settings = [as_array("kohonen.fit", "rates or radii", each).astype(rows.dtype) for each in (rates, radii)]
    if settings[0].ndim != 1 or settings[0].shape != settings[1].shape:
        raise ValueError(
            "kohonen.fit: rates and radii must be (T,), one for each step, got "
            f"{settings[0].shape} and {settings[1].shape}. jnp.geomspace(first, last, steps) makes them."
        )
    known = [concrete_array(each) for each in settings]
    if known[0] is not None and not ((known[0] >= 0) & (known[0] <= 1)).all():
        raise ValueError("kohonen.fit: each of rates must lie in [0, 1].")
    if known[1] is not None and not (known[1] > 0).all():
        raise ValueError("kohonen.fit: each of radii must be > 0.")
    return _fit(weights, rows, key, *settings)


def winners(w: ArrayLike, x: ArrayLike) -> Array:
    """The nearest unit to each example, as an index of `w.reshape(-1, D)`: (N,) int32; of equal ones the first.

    Example:
        >>> winners([[[0.0], [1.0]], [[2.0], [3.0]]], [[2.2], [0.1]])
        Array([2, 0], dtype=int32)
    """
    weights, rows = _checked("kohonen.winners", w, x)
    return _nearest_two(weights, rows)[1][:, 0]


def quantization_error(w: ArrayLike, x: ArrayLike) -> Array:
    """The mean distance of an example from its nearest unit, ().

    Example:
        >>> quantization_error([[0.0], [1.0]], [[0.0], [3.0]])
        Array(1., dtype=float32)
    """
    weights, rows = _checked("kohonen.quantization_error", w, x)
    return jnp.mean(_nearest_two(weights, rows)[0][:, 0])


def topographic_error(w: ArrayLike, x: ArrayLike) -> Array:
    """The fraction of examples whose two nearest units are not adjacent on the grid: 0 where it is unfolded.

    Adjacent units differ by at most 1 in each coordinate, so that a unit of a plane has eight.

    Returns:
        (), in [0, 1].

    Reference: Kiviluoto, K. (1996). Topology preservation in self-organizing maps.

    Example:
        >>> topographic_error([[0.0], [1.0], [2.0]], [[0.4]]), topographic_error([[0.0], [2.0], [1.0]], [[0.4]])
        (Array(0., dtype=float32), Array(1., dtype=float32))
    """
    weights, rows = _checked("kohonen.topographic_error", w, x)
    first, second = _nearest_two(weights, rows)[1].T
    places = positions(weights.shape[:-1]).reshape(-1, weights.ndim - 1)
    apart = jnp.max(jnp.abs(places[first] - places[second]), axis=1) > 1
    return jnp.mean(apart.astype(rows.dtype))


@jax.jit
def _fit(w: Array, x: Array, key: Key, rates: Array, radii: Array) -> Array:
    drawn = jax.random.randint(key, rates.shape, 0, len(x))

    def step(w: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        index, rate, radius = now
        return update(w, x[index], rate=rate, radius=radius), None

    return lax.scan(step, w, (drawn, rates, radii))[0]


@jax.jit
def _nearest_two(w: Array, x: Array) -> tuple[Array, Array]:
    """The distances (N, 2) of the two nearest units, the nearest first, and their indices (N, 2) int32."""
    squares, index = lax.top_k(-squared_distances(x, w.reshape(-1, w.shape[-1])), 2)
    return jnp.sqrt(-squares), index.astype(jnp.int32)


def _checked(where: str, w: ArrayLike, x: ArrayLike) -> tuple[Array, Array]:
    """Weights (*grid, D) and examples (N, D), in the dtype of the examples."""
    rows, weights = as_rows(where, "x", x), as_array(where, "w", w)
    if weights.ndim < 2 or weights.size < 2 * rows.shape[1] or weights.shape[-1] != rows.shape[1]:
        raise ValueError(
            f"{where}: expected weights w (*grid, D), at least two units, and x (N, D), got {weights.shape} and "
            f"{rows.shape}."
        )
    require_finite(where, "w", weights.reshape(-1, weights.shape[-1]))
    return as_targets(where, weights, rows.dtype), rows

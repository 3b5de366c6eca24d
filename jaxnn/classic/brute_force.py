"""Learning by enumeration: the cost of every setting of the weights from a list of values, and the best of them.

theta* = argmin C(theta) over the K^P settings of P weights and biases, each one of K values: the global minimum of the
lattice, for any cost, differentiable or not. Three values for the 9 weights and biases of a 2-2-1 network are 19,683
settings, for the 650 of a linear classifier of 8 x 8 digits a number of 311 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_array, as_numpy, require_floating, require_function, require_positive_int
from jaxnn.numerics import accumulate
from jaxnn.types import Array, PyTree

MOST = 2**24
"""The default of the largest number of settings."""


class Search(NamedTuple):
    """The result of a search.

    Attributes:
        theta: the best setting, a pytree; the first of several.
        cost: its cost.
        settings: K^P, the number of settings.
        ties: how many of them have the lowest cost.
        costs: (K^P,), the cost of each, in the order of `setting`.
    """

    theta: PyTree
    cost: float
    settings: int
    ties: int
    costs: np.ndarray


def search(
    cost: Callable[[PyTree], Array],
    like: PyTree,
    values: Sequence[float],
    *,
    most: int = MOST,
    chunk: int = 4096,
) -> Search:
    """The cost of every setting of theta whose entries are among `values`; `chunk` settings are evaluated at once.

    Args:
        cost: from a pytree like `like` to a scalar. NaN is never the best.
        like: a pytree of floating arrays of P entries in all, for shapes and dtypes, e.g. the params of a network.
        values: K distinct numbers.
        most: the largest K^P that is accepted, below 2^31.
        chunk: settings per step: more need more memory.

    Raises:
        TypeError: cost is not a function or returns complex numbers, or a leaf of like is not floating.
        ValueError: cost does not return a scalar, like has no entry, K^P > most, values are not distinct
            numbers, or every cost is NaN.

    Example:
        >>> found = search(lambda w: (w[0] + 2 * w[1] - 1) ** 2, jnp.zeros(2), [-1, 0, 1])
        >>> found.theta, found.cost, found.settings, found.ties
        (Array([-1.,  1.], dtype=float32), 0.0, 9, 2)
    """
    require_function("brute_force.search", "cost", cost, "lambda w: jnp.sum(w**2)", optional=False)
    chunk, most = (require_positive_int("brute_force.search", n, v) for n, v in (("chunk", chunk), ("most", most)))
    like, numbers, settings = _arguments("brute_force.search", like, values)
    if settings > min(most, 2**31 - 1):
        raise ValueError(
            f"brute_force.search: at most {min(most, 2**31 - 1):,} settings, got {len(numbers)}^{_size(like)} "
            f"= {_told(settings)}. Take fewer weights or values, or descend: train.minimize."
        )
    of_cost: Any = jax.eval_shape(cost, like)
    shape = jax.tree.map(jnp.shape, of_cost)
    if shape != ():
        raise ValueError(f"brute_force.search: cost must return one number, got shape {shape}. Take the mean.")
    if jnp.issubdtype(of_cost.dtype, jnp.complexfloating):
        raise TypeError(f"brute_force.search: cost must return a real number, got {of_cost.dtype.name}.")
    steps = math.ceil(settings / chunk)

    def of_chunk(start: Array) -> Array:
        found = jax.vmap(lambda i: cost(_setting(like, numbers, i)))(start + jnp.arange(chunk))
        return accumulate(found)  # NumPy's search for the least ignores NaN in its own dtypes only

    starts = jnp.arange(steps, dtype=jnp.int32) * chunk
    costs = np.asarray(jax.jit(lambda s: jax.lax.map(of_chunk, s))(starts)).ravel()[:settings]
    if np.isnan(costs).all():
        raise ValueError("brute_force.search: the cost of every setting is NaN.")
    best = int(np.nanargmin(costs))
    ties = int(np.sum(costs == costs[best]))
    return Search(_setting(like, numbers, jnp.asarray(best)), float(costs[best]), settings, ties, costs)


def setting(like: PyTree, values: Sequence[float], index: int) -> PyTree:
    """The setting of this index: its entries, last first, are the digits of the index in base K.

    Args:
        like, values: as for `search`.
        index: 0 .. K^P - 1.

    Raises:
        ValueError: index is out of range, or values are not distinct numbers.

    Example:
        >>> [setting(jnp.zeros(2), [-1, 1], i).tolist() for i in range(4)]
        [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    like, numbers, settings = _arguments("brute_force.setting", like, values)
    index = require_positive_int("brute_force.setting", "index", index, 0)
    if index >= settings:
        raise ValueError(f"brute_force.setting: index must lie in [0, {_told(settings)}), got {index}.")
    places = [(index // len(numbers) ** p) % len(numbers) for p in reversed(range(_size(like)))]
    return _shaped(like, numbers[np.asarray(places, int)])


def _arguments(where: str, like: PyTree, values: Sequence[float]) -> tuple[PyTree, np.ndarray, int]:
    """`like` as arrays, the values as an array, and K^P."""
    like = jax.tree.map(lambda leaf: as_array(where, "like", leaf), like)
    for leaf in jax.tree.leaves(like):
        require_floating(where, "like", leaf.dtype, "Values would be rounded: convert it, x.astype(jnp.float32).")
    if not _size(like):
        raise ValueError(f"{where}: like must have at least one entry, got {like!r}.")
    numbers = as_numpy(where, "values", values).astype(np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all() or len(set(numbers)) < len(numbers):
        raise ValueError(f"{where}: values must be distinct finite numbers (K,), got {values!r}.")
    return like, numbers, len(numbers) ** _size(like)


def _setting(like: PyTree, numbers: np.ndarray, index: Array) -> PyTree:
    """The setting of a traced index."""
    places: list[Any] = []
    for _ in range(_size(like)):
        index, digit = jnp.divmod(index, len(numbers))
        places.append(digit)
    return _shaped(like, jnp.asarray(numbers)[jnp.stack(places[::-1])])


def _shaped(like: PyTree, flat: Any) -> PyTree:
    """The entries in the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = [
        jnp.asarray(flat[end - leaf.size : end], leaf.dtype).reshape(leaf.shape)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def _size(like: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(like))


def _told(number: int) -> str:
    """An int as text, rounded if it is long."""
    return f"{number:,}" if number < 10**9 else f"about 10^{len(str(number)) - 1}"

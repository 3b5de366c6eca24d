"""Arithmetic on pytrees; `None` leaves pass through. Floor 0."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxnn import missing
from jaxnn.numerics import accumulate
from jaxnn.types import Array, PyTree, Scalar

BIAS_NAMES = frozenset({"b", "bias", "scale", "shift", "offset", "beta", "gamma"})
"""Names of leaves that a penalty leaves alone by default: additive terms and the scales of normalization."""


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b, leaf by leaf.

    Example:
        >>> add({"w": 1.0}, {"w": 2.0})
        {'w': 3.0}
    """
    return jax.tree.map(lambda x, y: x + y, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """a - b, leaf by leaf.

    Example:
        >>> subtract({"w": 1.0}, {"w": 2.0})
        {'w': -1.0}
    """
    return jax.tree.map(lambda x, y: x - y, a, b)


def scale(factor: Scalar, a: PyTree) -> PyTree:
    """factor * a, each leaf in its own dtype.

    Example:
        >>> scale(2.0, (jnp.ones(2),))
        (Array([2., 2.], dtype=float32),)
    """
    return jax.tree.map(lambda x: (factor * accumulate(x)).astype(x.dtype), a)


def vdot(a: PyTree, b: PyTree) -> Array:
    """sum over leaves and entries of a * b, accumulated in float32 (float64 for float64); 0 for an empty tree.

    Example:
        >>> vdot((jnp.ones(3),), (jnp.ones(3),))
        Array(3., dtype=float32)
    """
    products = jax.tree.map(lambda x, y: jnp.sum(accumulate(x) * accumulate(y)), a, b)
    return functools.reduce(jnp.add, jax.tree.leaves(products) or [jnp.zeros(())])


def norm(a: PyTree) -> Array:
    """The Euclidean norm of all entries of a tree taken together: sqrt(sum of squares).

    Example:
        >>> norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    return jnp.sqrt(vdot(a, a))


def size(a: PyTree) -> int:
    """The number of entries of all leaves: for parameters, how many there are.

    Example:
        >>> size({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
        16
    """
    return sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(a))


def named_leaves(a: PyTree) -> dict[str, Any]:
    """Leaves by path, joined with "/": `({"w": x},)` -> `{"0/w": x}`.

    Example:
        >>> list(named_leaves(({"w": 1.0, "b": 2.0}, ())))
        ['0/b', '0/w']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(a)
    return {"/".join(_part(p) for p in path): leaf for path, leaf in paths}


def is_weight(a: PyTree) -> PyTree:
    """A tree like `a` of bools: False at biases and normalization scales (`BIAS_NAMES`), True at all other leaves.

    A leaf is judged by the last name on its path, so a one-dimensional weight vector is a weight.

    Example:
        >>> is_weight({"w": jnp.zeros(3), "b": jnp.zeros(())})
        {'b': False, 'w': True}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: not path or _part(path[-1]) not in BIAS_NAMES, a)


def all_finite(leaves: Iterable[Any]) -> Array:
    """Whether every entry of every leaf is finite.

    Example:
        >>> all_finite([jnp.array([1.0, jnp.inf])])
        Array(False, dtype=bool)
    """
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves] or [True]))


def pack(a: PyTree) -> tuple[dict[str, Array], Callable[[Mapping[str, Array]], PyTree]]:
    """All leaves of one dtype laid end to end in one vector, and the function that takes the vectors apart again.

    Parameters of thousands of leaves, with their gradients and optimizer state, then are one array each: an update by
    an element-wise rule is one fused loop, whatever the number of leaves. `jax.grad` of f(unpack(buffers)) lays the
    leaves' gradients end to end once. Rules that look at a leaf as a whole (norms of layers, factors of matrices) and
    masks by leaf need the leaves themselves: unpack for them.

    Args:
        a: pytree of arrays; None leaves pass through. Leaves lie in the order of `jax.tree.leaves`, row-major.

    Returns:
        (buffers, unpack): `buffers` by name of dtype, {} for an empty tree; `unpack(buffers)` has the leaves in the
        dtype of the buffers that it is given, so moments or updates of another dtype can be unpacked too.

    Raises:
        TypeError: a leaf is no array of numbers; by `unpack`: what it is given is no dict.
        ValueError: by `unpack`: names or shapes differ from those that were packed.

    Example:
        >>> buffers, unpack = pack({"w": jnp.ones((2, 2)), "b": jnp.zeros(1)})
        >>> buffers
        {'float32': Array([0., 1., 1., 1., 1.], dtype=float32)}
        >>> jax.grad(lambda buffers: jnp.sum(unpack(buffers)["w"] ** 2))(buffers)
        {'float32': Array([0., 2., 2., 2., 2.], dtype=float32)}
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(a)
    leaves = [_numbers(path, x) for path, x in paths]
    places: dict[str, list[int]] = {}
    for i, x in enumerate(leaves):
        places.setdefault(str(x.dtype), []).append(i)
    shapes = [x.shape for x in leaves]
    sizes = {name: [leaves[i].size for i in where] for name, where in places.items()}
    buffers = {name: jnp.concatenate([leaves[i].reshape(-1) for i in where]) for name, where in places.items()}

    def unpack(buffers: Mapping[str, Array]) -> PyTree:
        if not isinstance(buffers, Mapping):
            raise TypeError(
                f"unpack: buffers must be a dict from dtype names to vectors, got {type(buffers).__name__}."
            )
        got, expected = ({k: jnp.shape(v) for k, v in buffers.items()}, {k: (sum(v),) for k, v in sizes.items()})
        if got != expected:
            raise ValueError(
                f"unpack: buffers must have the names and shapes that pack made, {expected}, got {got}. "
                "Buffers packed from another tree need that tree's own unpack."
            )
        found: list[Any] = [None] * len(shapes)
        for name, where in places.items():
            # The derivative of split is one concatenation; that of a slice for each leaf is a sum of padded vectors.
            for i, part in zip(where, jax.lax.split(jnp.asarray(buffers[name]), sizes[name]), strict=True):
                found[i] = part.reshape(shapes[i])
        return jax.tree.unflatten(structure, found)

    return buffers, unpack


def _numbers(path: Any, x: Any) -> Array:
    """A leaf as an array; TypeError if it is none of numbers."""
    if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        kind = str(x.dtype)
    else:
        try:
            return jnp.asarray(x)
        except TypeError:
            kind = type(x).__name__
    raise TypeError(
        f"pack: leaf {jax.tree_util.keystr(path) or '(the tree itself)'} must be an array of numbers, got {kind}. "
        "Keep random keys, functions and strings out of it, or mask them with None."
    )


def _part(entry: Any) -> str:
    """One step of a path as text: the key of a dict, the index of a tuple, the name of an attribute."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)

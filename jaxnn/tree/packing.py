"""All leaves of a pytree in one vector for each dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.placement import end_to_end, taken_apart
from jaxnn.types import Array, PyTree


def pack(a: PyTree) -> tuple[dict[str, Array], Callable[[Mapping[str, Array]], PyTree]]:
    """All leaves of one dtype laid end to end in one vector, and the function that takes the vectors apart again.

    Parameters of thousands of leaves, with their gradients and optimizer state, then are one array each: an update by
    an element-wise rule is one fused loop, whatever the number of leaves. `jax.grad` of f(unpack(buffers)) lays the
    leaves' gradients end to end once. Rules that look at a leaf as a whole (norms of layers, factors of matrices) and
    masks by leaf need the leaves themselves: unpack for them.

    Args:
        a: pytree of arrays; None leaves pass through. Leaves lie in the order of `jax.tree.leaves`, row-major. On a
            mesh with Explicit axes the vector is divided evenly by those that divide leaves, if its length allows.

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
    shapes, shardings = [x.shape for x in leaves], [jax.typeof(x).sharding for x in leaves]
    sizes = {name: [leaves[i].size for i in where] for name, where in places.items()}
    buffers = {name: end_to_end([leaves[i] for i in where]) for name, where in places.items()}

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
            vector = jnp.asarray(buffers[name])
            parts = taken_apart(vector, [shapes[i] for i in where], [shardings[i] for i in where])
            for i, part in zip(where, parts, strict=True):
                found[i] = part
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

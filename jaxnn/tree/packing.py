"""The leaves of a pytree concatenated into one vector per dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.placement import end_to_end, taken_apart
from jaxnn.types import Array, PyTree


def pack(a: PyTree) -> tuple[dict[str, Array], Callable[[Mapping[str, Array]], PyTree]]:
    """All leaves of one dtype concatenated into one vector, and the inverse function.

    Parameters with thousands of leaves, their gradients and optimizer state become one array each: an element-wise
    update is one fused loop. `jax.grad` of f(unpack(buffers)) concatenates the gradients once. Rules of whole leaves
    (norms of layers, factors of matrices) and masks by leaf need the leaves: unpack for them.

    Args:
        a: pytree of arrays; None leaves pass through. Leaves are in the order of `jax.tree.leaves`, row-major. On a
            mesh with Explicit axes the vector is sharded over the axes that shard leaves, if they divide its length.

    Returns:
        (buffers, unpack): `buffers` by name of dtype, {} for an empty pytree; the leaves of `unpack(buffers)` have the
        dtypes of its argument, so moments or updates of another dtype can be unpacked too.

    Raises:
        TypeError: a leaf is not an array of numbers; from `unpack`, the argument is not a mapping.
        ValueError: from `unpack`, names or shapes differ from those packed.

    Example:
        >>> buffers, unpack = pack({"w": jnp.ones((2, 2)), "b": jnp.zeros(1)})
        >>> buffers
        {'float32': Array([0., 1., 1., 1., 1.], dtype=float32)}
        >>> jax.jit(jax.grad(lambda buffers: jnp.sum(unpack(buffers)["w"] ** 2)))(buffers)
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
                "Buffers packed from another pytree need that pytree's own unpack."
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
    """A leaf as an array; TypeError unless it is one of numbers."""
    if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        kind = str(x.dtype)
    else:
        try:
            return jnp.asarray(x)
        except TypeError:
            kind = type(x).__name__
    raise TypeError(
        f"pack: leaf {jax.tree_util.keystr(path) or '(the tree itself)'} must be an array of numbers, got {kind}. "
        "Replace random keys, functions and strings by None."
    )

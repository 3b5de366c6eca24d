"""Pytrees like others: filled, cast, random, with batch axes; `None` leaves pass through."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import Array, DType, DTypeLike, PyTree, Scalar, Shape


def zeros_like(tree: PyTree, dtype: DTypeLike | None = None) -> PyTree:
    """Zeros with the shapes of the leaves, and their dtypes or `dtype`.

    Example:
        >>> zeros_like({"w": jnp.ones(2)}, jnp.int32)
        {'w': Array([0, 0], dtype=int32)}
    """
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: PyTree, dtype: DTypeLike | None = None) -> PyTree:
    """Ones with the shapes of the leaves, and their dtypes or `dtype`.

    Example:
        >>> ones_like({"w": jnp.zeros(2)})
        {'w': Array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: PyTree, fill_value: Scalar, dtype: DTypeLike | None = None) -> PyTree:
    """One number with the shapes of the leaves, and their dtypes or `dtype`.

    Example:
        >>> full_like({"w": jnp.zeros(2)}, 3)
        {'w': Array([3., 3.], dtype=float32)}
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def cast(tree: PyTree, dtype: DTypeLike | None) -> PyTree:
    """The leaves cast to `dtype`; unchanged for None.

    Example:
        >>> cast({"w": jnp.ones(1)}, jnp.bfloat16)
        {'w': Array([1], dtype=bfloat16)}
    """
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: PyTree, other_tree: PyTree) -> PyTree:
    """Each leaf cast to the dtype of its counterpart in another pytree; unchanged if the counterpart has no dtype.

    Example:
        >>> cast_like({"w": jnp.ones(1)}, {"w": jnp.zeros(3, jnp.float16)})
        {'w': Array([1.], dtype=float16)}
    """
    return jax.tree.map(
        lambda x, other: jnp.asarray(x).astype(other.dtype) if hasattr(other, "dtype") else x, tree, other_tree
    )


def dtype(tree: PyTree, mixed_dtype_handler: str | None = None) -> DType:
    """The dtype of the leaves; the default floating dtype for an empty pytree.

    Args:
        tree: pytree of numbers.
        mixed_dtype_handler: for several dtypes: None raises, "promote" returns their promotion, "highest" the one that
            all others promote to, "lowest" the one that promotes to all others.

    Raises:
        ValueError: several dtypes and None; two dtypes neither of which promotes to the other; an unknown handler.

    Example:
        >>> dtype({"w": jnp.ones(1), "b": jnp.ones(1, jnp.bfloat16)}, "lowest")
        dtype(bfloat16)
    """
    found = [jnp.asarray(x).dtype for x in jax.tree.leaves(tree)]
    if not found:
        return jnp.asarray([]).dtype
    if mixed_dtype_handler is None:
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        other = next((i for i, d in enumerate(found) if d != found[0]), None)
        if other is not None:
            raise ValueError(
                f"dtype: leaves have several dtypes, {found[0]} at {paths[0]} and {found[other]} at {paths[other]}. "
                'Cast them, or pass mixed_dtype_handler="promote", "highest" or "lowest".'
            )
        return found[0]
    if mixed_dtype_handler == "promote":
        return functools.reduce(jnp.promote_types, found)
    if mixed_dtype_handler in ("highest", "lowest"):
        return functools.reduce(functools.partial(_extreme, highest=mixed_dtype_handler == "highest"), found)
    raise ValueError(
        f'dtype: mixed_dtype_handler must be None, "promote", "highest" or "lowest", got {mixed_dtype_handler!r}.'
    )


def batch_shape(tree: PyTree, shape: Shape = ()) -> PyTree:
    """Each leaf broadcast to leading axes of these sizes.

    Example:
        >>> jax.tree.map(jnp.shape, batch_shape({"w": jnp.ones(2), "b": 0.0}, (3,)))
        {'b': (3,), 'w': (3, 2)}
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def split_key_like(rng_key: Array, target_tree: PyTree) -> PyTree:
    """A pytree like `target_tree` with a random key for each leaf, split from `rng_key`.

    Example:
        >>> split_key_like(jax.random.key(0), {"w": 1.0, "b": 2.0})["w"].shape
        ()
    """
    leaves, structure = jax.tree.flatten(target_tree)
    return jax.tree.unflatten(structure, list(jax.random.split(rng_key, len(leaves))))


def random_like(
    rng_key: Array,
    target_tree: PyTree,
    sampler: Callable[..., Array] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> PyTree:
    """Random numbers in the shape, dtype and (if the sampler takes `out_sharding`) Explicit sharding of each leaf.

    Args:
        rng_key: split into one key per leaf.
        target_tree: pytree of arrays.
        sampler: a function of (key, shape, dtype).
        dtype: replaces those of the leaves, e.g. of integers, which `jax.random.normal` does not draw.

    Example:
        >>> random_like(jax.random.key(0), {"w": jnp.ones((2, 3), jnp.float16)})["w"].dtype
        dtype('float16')
    """
    takes_sharding = "out_sharding" in inspect.signature(sampler).parameters

    def draw(leaf: Any, key: Array) -> Array:
        sharding = jax.typeof(leaf).sharding
        explicit = takes_sharding and not sharding.mesh.empty and sharding.mesh.are_all_axes_explicit
        place = {"out_sharding": sharding} if explicit else {}
        return sampler(key, jnp.shape(leaf), dtype or jnp.asarray(leaf).dtype, **place)

    return jax.tree.map(draw, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: PyTree) -> PyTree:
    """The leaves with `jax.random.key_data` in place of typed keys, so that pytrees can be compared as numbers.

    Example:
        >>> unwrap_random_key_data({"key": jax.random.key(0), "w": 1.0})
        {'key': Array([0, 0], dtype=uint32), 'w': 1.0}
    """

    def data(x: Any) -> Any:
        typed = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if typed else x

    return jax.tree.map(data, input_tree)


def _extreme(a: DType, b: DType, *, highest: bool) -> DType:
    common = jnp.promote_types(a, b)
    if common not in (a, b):
        raise ValueError(f"dtype: neither of {a} and {b} promotes to the other, so none is the highest or lowest.")
    other = b if common == a else a
    return common if highest else other

"""Where arrays lie: mesh axes over which they vary inside `jax.shard_map`, and Explicit meshes. Floor 0.

With `shard_map`'s default checks the type of an array says over which manual mesh axes it varies. A derivative with
respect to an array that does not vary is summed over the devices (the transpose of the implicit cast), and the carry
of a loop keeps its type. Outside `shard_map`, and with `check_vma=False`, nothing varies.

On a mesh with Explicit axes the type of an array has its sharding, and operations whose result could be sharded in
several ways raise. `by_compiler` leaves the inside of a function to the compiler, as on Auto axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxnn.types import Array, PyTree, Shape


def varying_axes(*trees: PyTree) -> frozenset[str]:
    """The mesh axes over which any array of these trees varies; anything that is no array varies over none.

    Example:
        >>> varying_axes({"w": jnp.ones(2)}, None)
        frozenset()
    """
    return frozenset().union(*map(_axes_of, jax.tree.leaves(trees)))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The tree, every array of it varying over these axes at least; no number changes and nothing is communicated.

    Differentiate with respect to the result, and each device gets the derivative of its own function.

    Example:
        >>> vary(jnp.ones(2), frozenset())
        Array([1., 1.], dtype=float32)
    """

    def leaf(x: Any) -> Any:
        # Sorted, so that every process makes the same program. A cast to an axis that is there already raises.
        missing = tuple(sorted(axes - _axes_of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(leaf, tree) if axes else tree


def sum_like(tree: PyTree, like: PyTree) -> PyTree:
    """Each array summed over the mesh axes over which it varies and its partner in `like` does not.

    What `jax.grad` does inside `shard_map` with gradients of replicated parameters.

    Example:
        >>> sum_like({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
        {'w': Array([1., 1.], dtype=float32)}
    """

    def leaf(x: Any, partner: Any) -> Any:
        axes = tuple(sorted(_axes_of(x) - _axes_of(partner)))
        return lax.psum(x, axes) if axes else x

    return jax.tree.map(leaf, tree, like, is_leaf=lambda x: x is None)


def filled_as(kind: Any, value: float = 0.0) -> Array:
    """An array of one number, of the shape, dtype, sharding and varying axes of `kind`: what a loop's carry starts as.

    Args:
        kind: a `jax.ShapeDtypeStruct`, or what `jax.typeof` returns.
        value: the number.

    Example:
        >>> filled_as(jax.eval_shape(lambda: jnp.ones(2)))
        Array([0., 0.], dtype=float32)
    """
    spec = explicit_spec(kind)
    where = None if spec is None else NamedSharding(kind.sharding.mesh, spec)
    return vary(jnp.full(kind.shape, value, kind.dtype, out_sharding=where), _axes_of(kind))


def explicit_spec(x: Any) -> PartitionSpec | None:
    """How an array, or its type, is sharded over Explicit mesh axes; None where it is not.

    Example:
        >>> explicit_spec(jnp.ones(2)) is None
        True
    """
    sharding = getattr(_type_of(x), "sharding", None)
    spec = getattr(sharding, "spec", None)
    return spec if spec is not None and any(entry is not None for entry in spec) else None


def shape_beside(x: Array, shape: Shape) -> jax.ShapeDtypeStruct:
    """This shape, with the dtype of x and varying over the mesh axes over which x does: for `jax.linear_transpose`.

    Example:
        >>> shape_beside(jnp.ones(2), (3,))
        ShapeDtypeStruct(shape=(3,), dtype=float32)
    """
    if not (axes := _axes_of(x)):
        return jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.eval_shape(lambda: vary(jnp.zeros(shape, x.dtype), axes))


def placed_shape(x: Array) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, with its sharding where that is part of its type.

    Example:
        >>> placed_shape(jnp.ones(2))
        ShapeDtypeStruct(shape=(2,), dtype=float32)
    """
    spec = explicit_spec(x)
    sharding = None if spec is None else NamedSharding(jax.typeof(x).sharding.mesh, spec)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def on_mesh(tree: PyTree) -> PyTree:
    """The tree, its arrays that lie on no mesh replicated over that which is set, if this has Explicit axes.

    Beside arrays of such a mesh, some transformations of JAX refuse arrays that were made before it was set.

    Example:
        >>> on_mesh(jnp.ones(2))
        Array([1., 1.], dtype=float32)
    """

    def leaf(x: Any) -> Any:
        return jax.sharding.reshard(x, PartitionSpec()) if jax.typeof(x).sharding.mesh.empty else x

    return jax.tree.map(leaf, tree) if jax.sharding.get_abstract_mesh().explicit_axes else tree


def by_compiler(where: str, f: Callable[..., PyTree], results: PyTree, *args: PyTree) -> PyTree:
    """f(*args), the shardings inside it left to the compiler where an argument is sharded over Explicit mesh axes.

    Args:
        where: the function that users called, for errors.
        f: of arrays.
        results: for each result, or for a prefix of their tree, its `PartitionSpec`.
        args: pytrees of arrays.

    Raises:
        ValueError: no mesh is set although an array is sharded over Explicit axes of one.

    Example:
        >>> by_compiler("total", jnp.sum, PartitionSpec(), jnp.ones(2))
        Array(2., dtype=float32)
    """
    if all(explicit_spec(x) is None for x in jax.tree.leaves(args)):
        return f(*args)
    if jax.sharding.get_abstract_mesh().empty:
        raise ValueError(
            f"{where}: arrays are sharded over Explicit mesh axes, but no mesh is set. Call it inside "
            "`with jax.set_mesh(mesh):`, or make the mesh with AxisType.Auto."
        )
    return jax.sharding.auto_axes(f, out_sharding=results)(*args)


def _axes_of(x: Any) -> frozenset[str]:
    return frozenset(getattr(getattr(_type_of(x), "manual_axis_type", None), "varying", ()))


def _type_of(x: Any) -> Any:
    """The type of an array; a type is its own."""
    return getattr(x, "aval", x)

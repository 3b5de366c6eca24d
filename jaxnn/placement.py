"""Sharding: new arrays placed like existing ones, and computations whose sharding the types leave ambiguous.

On mesh axes of type `AxisType.Auto` the compiler shards every intermediate result. On `Explicit` axes the sharding is
part of an array's type, and an operation whose result could be sharded in several ways (a reshape that merges sharded
axes, a product over a sharded axis, a decomposition) raises `ShardingTypeError`. Inside `jax.shard_map` axes are
`Manual` and arrays are per device: nothing here changes a sharding there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnn.types import Array, DTypeLike, PyTree, Scalar, Shape
from jaxnn.varying import vary, varying_axes


def full_like(x: Any, fill: Scalar, dtype: DTypeLike | None = None) -> Array:
    """An array filled with a number (possibly traced), of the shape and sharding of `x`; dtype None for that of x.

    `jnp.full(x.shape, fill)` would lie whole on the first device. `jnp.full_like` keeps the sharding, but only outside
    `jax.jit`: in it, XLA sees a constant unrelated to x and replicates it. So the value is made to depend on x by a
    select between two equal arrays, and the compiler shards it like x.
    """
    filled = jnp.full_like(x, fill, dtype=dtype)
    if not isinstance(x, jax.core.Tracer) and not isinstance(fill, jax.core.Tracer):
        return filled
    x = jnp.asarray(x)
    # The barrier hides that the two are equal until the partitioner has run.
    return jax.lax.select(x == x, filled, jax.lax.optimization_barrier(filled))


def vector_along(x: Array, axis: int) -> Array:
    """A vector of zeros as long as an axis of `x`, sharded as that axis."""
    return jnp.sum(full_like(x, 0), [other for other in range(x.ndim) if other != axis])


def compiler_sharded(function: Callable[..., Any], like: PyTree, *args: Any) -> Any:
    """`function(*args)`, with intermediate results sharded by the compiler even on Explicit mesh axes.

    Args:
        function: takes all arrays as arguments; those in its closure would keep their outer types.
        like: how the result is sharded: a pytree with the structure of the result, or a prefix of it, of arrays to
            follow, shardings or `PartitionSpec`s. None, or an array off the mesh, replicates.
        args: pytrees; only leaves that are arrays change type, others are passed through.

    Returns:
        What the function returns. Without an argument on Explicit axes it is called directly.
    """
    mesh = explicit_mesh(args)
    if mesh is None:
        return function(*args)
    axes = tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit)

    def place(x: Any) -> NamedSharding:
        if isinstance(x, PartitionSpec):
            return NamedSharding(mesh, x)
        if x is not None:
            sharding = x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
            if AxisType.Explicit in sharding.mesh.axis_types:
                return sharding
        return NamedSharding(mesh, PartitionSpec())

    places = jax.tree.map(place, like, is_leaf=lambda x: x is None or isinstance(x, NamedSharding | PartitionSpec))
    leaves, structure = jax.tree.flatten(args)
    arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}

    def inside(arrays: dict[int, Array]) -> Any:
        return function(*jax.tree.unflatten(structure, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]))

    return jax.sharding.auto_axes(inside, axes=axes, out_sharding=places)(arrays)


def explicit_mesh(tree: PyTree) -> Any:
    """The mesh of the first array in a pytree with Explicit axes; None if there is none."""
    for x in jax.tree.leaves(tree):
        mesh = getattr(_sharding_of(x), "mesh", None)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def shards(tree: PyTree) -> int:
    """Over how many devices the compiler may shard the arrays of a pytree: 1 on no mesh, and inside `jax.shard_map`.

    Types do not say how arrays are sharded over Auto mesh axes, but on which mesh they are: a batch has at most as many
    shards as that has devices, and their number divides both. Arrays that only `in_shardings` places have no mesh yet.
    """
    mesh = known_mesh(tree)
    sizes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return math.prod(size for size, kind in sizes if kind != AxisType.Manual)


def known_mesh(tree: PyTree) -> Any:
    """The mesh of the first array in a pytree that has one, else the current mesh, which may be empty."""
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(tree)]
    return next((mesh for mesh in meshes if not mesh.empty), jax.sharding.get_abstract_mesh())


def foreign_mesh(x: Any, current: Any) -> Any:
    """The mesh of an array if its axes have other types than those of `current`, as inside `jax.sharding.auto_axes`
    (`w.at[i].get(out_sharding=...)`); else None."""
    mesh = jax.typeof(x).sharding.mesh
    # Inside jit, arrays on an Auto mesh have it in their types even if no mesh is set.
    return None if mesh.empty or current.empty or mesh.axis_types == current.axis_types else mesh


def explicit_spec(x: Any) -> PartitionSpec | None:
    """How an array, or its type, is sharded over Explicit mesh axes; None if it is not."""
    spec = getattr(_sharding_of(x), "spec", None)
    return spec if spec is not None and any(entry is not None for entry in spec) else None


def rows_spec(x: Any) -> PartitionSpec:
    """The sharding over Explicit axes of any array with one entry per example (the first axis) of x."""
    spec = explicit_spec(x)
    return PartitionSpec(spec[0] if spec else None)


def spec_of(*entries: Any) -> PartitionSpec:
    """A `PartitionSpec` with these entries of other specs (or None), each mesh axis used only the first time."""
    used: set[str] = set()
    kept = []
    for entry in entries:
        names = tuple(name for name in axis_names(entry) if name not in used)
        used.update(names)
        kept.append(names[0] if len(names) == 1 else names or None)
    return PartitionSpec(*kept)


def placed_shape(x: Array) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, with its sharding where that is part of its type."""
    divided = explicit_spec(x) is not None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.typeof(x).sharding if divided else None)


def on_mesh(tree: PyTree) -> PyTree:
    """The pytree, with arrays that lie on no mesh replicated over the current mesh if that has Explicit axes.

    Some transformations of JAX reject arrays made before the mesh was set beside arrays on it.
    """

    def leaf(x: Any) -> Any:
        return jax.sharding.reshard(x, PartitionSpec()) if jax.typeof(x).sharding.mesh.empty else x

    return jax.tree.map(leaf, tree) if jax.sharding.get_abstract_mesh().explicit_axes else tree


def beside(x: Any, like: Array) -> Any:
    """`x`, each axis sharded over Explicit mesh axes as that axis of `like`, if their lengths agree.

    Labels on one device, or replicated, cannot index sharded outputs.
    """
    spec = explicit_spec(like)
    if spec is None:
        return x
    array = jnp.asarray(x)
    place = [entry if n == m else None for n, m, entry in zip(array.shape, like.shape, spec, strict=False)]
    # Outside of `jax.jit` resharding needs the devices, which an abstract mesh does not have.
    known: Any = jax.typeof(like) if isinstance(like, jax.core.Tracer) else like
    return jax.sharding.reshard(array, NamedSharding(known.sharding.mesh, PartitionSpec(*place)))


def filled_as(kind: Any, value: float = 0.0, before: Shape = ()) -> Array:
    """An array filled with `value`, with a type's shape, dtype, sharding and varying axes: a loop's initial carry.

    `kind` is a `jax.ShapeDtypeStruct` or what `jax.typeof` returns; `before` are the sizes of unsharded axes in front.
    """
    spec = explicit_spec(kind)
    where = None if spec is None else NamedSharding(kind.sharding.mesh, PartitionSpec(*(None,) * len(before), *spec))
    # In `jax.jit` a filled array is a constant on no mesh: `jax.vmap` would not shard it as it does others.
    full = on_mesh(jnp.full((*before, *kind.shape), value, kind.dtype, out_sharding=where))
    return vary(full, varying_axes(kind))


def evenly(length: int, arrays: Sequence[Array]) -> NamedSharding | None:
    """The sharding of a vector concatenated from arrays on a mesh with Explicit axes; None without such a mesh.

    It is sharded over all mesh axes that shard any of the arrays if the product of their sizes divides `length`, else
    replicated.
    """
    mesh = explicit_mesh(arrays)
    if mesh is None:
        return None
    used = {name for x in arrays for entry in jax.typeof(x).sharding.spec for name in axis_names(entry)}
    axes = tuple(name for name in mesh.axis_names if name in used)
    parts = 1
    for name in axes:
        parts *= mesh.shape[name]
    return NamedSharding(mesh, PartitionSpec(axes) if axes and length % parts == 0 else PartitionSpec())


def end_to_end(arrays: Sequence[Array]) -> Array:
    """Arrays of one dtype flattened (row-major) and concatenated into one vector."""

    def joined(*arrays: Array) -> Array:
        return jnp.concatenate([x.reshape(-1) for x in arrays])

    return compiler_sharded(joined, evenly(sum(x.size for x in arrays), arrays), *arrays)


def taken_apart(vector: Array, shapes: Sequence[Shape], places: Sequence[NamedSharding]) -> list[Array]:
    """The inverse of `end_to_end`: a vector (P,) split into arrays of these shapes and shardings."""

    def parted(vector: Array) -> list[Array]:
        # The transpose of split is one concatenation; that of a slice per array is a sum of padded vectors.
        parts = jax.lax.split(vector, [math.prod(shape) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    return compiler_sharded(parted, list(places), vector)


def addressable_rows(x: Any) -> Any:
    """The entries along the first axis that this process has of an array over several processes; else the array."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or x.is_fully_addressable:
        return x
    parts = {str(shard.index): shard for shard in x.addressable_shards}.values()
    ordered = sorted(parts, key=lambda shard: shard.index[0].start or 0 if shard.index else 0)
    return jnp.concatenate([jnp.asarray(np.asarray(p.data)) for p in ordered]) if x.ndim else ordered[0].data


def axis_names(entry: Any) -> tuple[str, ...]:
    """The mesh axes that one entry of a `PartitionSpec` names."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _sharding_of(x: Any) -> Any:
    """The sharding of an array's type, or of a type; None for anything else."""
    return getattr(getattr(x, "aval", x), "sharding", None)

"""Where arrays lie on a mesh: new arrays beside old ones, and computations that a type cannot place. Floor 0.

On a mesh whose axes are `AxisType.Auto` the compiler places every intermediate result. On one whose axes are `Explicit`
the placement is a part of an array's type, and an operation whose result could be placed in several ways (a reshape
that merges sharded axes, a product over a sharded axis, a decomposition) raises `ShardingTypeError`. Inside
`jax.shard_map` axes are `Manual`, and arrays are what one device holds: nothing here changes anything there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnn.types import Array, DType, PyTree, Scalar, Shape
from jaxnn.varying import vary, varying_axes


def full_like(x: Any, fill: Scalar, dtype: DType | None = None) -> Array:
    """An array of one number in the shape of `x`, on the devices of `x` and divided among them as `x` is.

    `jnp.full(x.shape, fill)` would lie whole on the first device. `jnp.full_like` does better outside of `jax.jit`; in
    it, XLA sees a constant that has nothing to do with x and keeps a whole copy on each device. So the value is made to
    hang on x there, by a choice between two equal arrays, and the compiler divides it as it divides x.

    Args:
        x: array, of any dtype but random keys.
        fill: the number, which may be traced.
        dtype: of the result; None for that of x.

    Example:
        >>> full_like(jnp.ones(2), 0.5, jnp.bfloat16)
        Array([0.5, 0.5], dtype=bfloat16)
    """
    filled = jnp.full_like(x, fill, dtype=dtype)
    if not isinstance(x, jax.core.Tracer) and not isinstance(fill, jax.core.Tracer):
        return filled
    x = jnp.asarray(x)
    # The barrier hides that the two are equal until the compiler has divided all arrays.
    return jax.lax.select(x == x, filled, jax.lax.optimization_barrier(filled))


def vector_along(x: Array, axis: int) -> Array:
    """Zeros, one for each index of an axis of `x`, divided among devices as that axis is.

    Example:
        >>> vector_along(jnp.ones((2, 3)), 1)
        Array([0., 0., 0.], dtype=float32)
    """
    return jnp.sum(full_like(x, 0), [other for other in range(x.ndim) if other != axis])


def compiler_sharded(function: Callable[..., Any], like: PyTree, *args: Any) -> Any:
    """`function(*args)`, with all intermediate results placed by the compiler even where axes of the mesh are Explicit.

    Args:
        function: all arrays that it takes must come as arguments: those of its closure have the types of outside.
        like: tree of the structure of its result, or a prefix of it: arrays, each placed as the result in its place is
            to be, shardings or `PartitionSpec`s; where one is None or has no such mesh, every device gets the whole
            result.
        args: trees of arrays; what is no array is handed on as it is.

    Returns:
        What the function returns. Where no argument lies on a mesh with Explicit axes, nothing else is done.

    Example:
        >>> compiler_sharded(lambda x: x.reshape(-1), jnp.ones(4), jnp.ones((2, 2))).shape
        (4,)
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
    """The mesh with Explicit axes that the first such array of a tree lies on; None where there is none.

    Example:
        >>> explicit_mesh({"w": jnp.ones(2)}) is None
        True
    """
    for x in jax.tree.leaves(tree):
        mesh = getattr(_sharding_of(x), "mesh", None)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def explicit_spec(x: Any) -> PartitionSpec | None:
    """How an array, or its type, is divided over Explicit mesh axes; None where it is not.

    Example:
        >>> explicit_spec(jnp.ones(2)) is None
        True
    """
    spec = getattr(_sharding_of(x), "spec", None)
    return spec if spec is not None and any(entry is not None for entry in spec) else None


def rows_spec(x: Any) -> PartitionSpec:
    """How the examples, the first axis of an array, are divided over Explicit mesh axes: of any array of their rows.

    Example:
        >>> len(rows_spec(jnp.ones((4, 2))))
        1
    """
    spec = explicit_spec(x)
    return PartitionSpec(spec[0] if spec else None)


def spec_of(*entries: Any) -> PartitionSpec:
    """Of an array with these entries for its axes, those of an array's spec or None, each mesh axis used but once.

    Example:
        >>> tuple(spec_of("x", None, ("x", "y")))
        ('x', None, 'y')
    """
    used: set[str] = set()
    kept = []
    for entry in entries:
        names = tuple(name for name in _names(entry) if name not in used)
        used.update(names)
        kept.append(names[0] if len(names) == 1 else names or None)
    return PartitionSpec(*kept)


def placed_shape(x: Array) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, with its sharding where that is part of its type.

    Example:
        >>> placed_shape(jnp.ones(2))
        ShapeDtypeStruct(shape=(2,), dtype=float32)
    """
    divided = explicit_spec(x) is not None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.typeof(x).sharding if divided else None)


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


def beside(x: Any, like: Array) -> Any:
    """`x`, its leading axes divided over Explicit mesh axes as those of `like` of the same lengths are.

    Labels made on one device, or held by all, cannot select among outputs that are divided.

    Example:
        >>> beside(jnp.array([1, 0]), jnp.ones((2, 3)))
        Array([1, 0], dtype=int32)
    """
    spec = explicit_spec(like)
    if spec is None:
        return x
    array = jnp.asarray(x)
    place = [entry if n == m else None for n, m, entry in zip(array.shape, like.shape, spec, strict=False)]
    # Outside of `jax.jit` the devices must be known, which those of a type are not.
    known: Any = jax.typeof(like) if isinstance(like, jax.core.Tracer) else like
    return jax.sharding.reshard(array, NamedSharding(known.sharding.mesh, PartitionSpec(*place)))


def filled_as(kind: Any, value: float = 0.0, before: Shape = ()) -> Array:
    """An array of one number with a type's shape, dtype, sharding and varying axes: what the carry of a loop starts as.

    Args:
        kind: a `jax.ShapeDtypeStruct`, or what `jax.typeof` returns.
        value: the number.
        before: axes in front of those of the type, divided among no devices.

    Example:
        >>> filled_as(jax.eval_shape(lambda: jnp.ones(2)))
        Array([0., 0.], dtype=float32)
    """
    spec = explicit_spec(kind)
    where = None if spec is None else NamedSharding(kind.sharding.mesh, PartitionSpec(*(None,) * len(before), *spec))
    # In `jax.jit` one number is a constant, which lies on no mesh: `jax.vmap` would not divide it as it does others.
    full = on_mesh(jnp.full((*before, *kind.shape), value, kind.dtype, out_sharding=where))
    return vary(full, varying_axes(kind))


def evenly(length: int, arrays: Sequence[Array]) -> NamedSharding | None:
    """How a vector made of the entries of arrays on a mesh with Explicit axes is placed; None without such a mesh.

    It is divided by all the axes of the mesh that divide some of the arrays, if it is long enough for equal parts;
    else every device holds all of it.

    Example:
        >>> evenly(4, [jnp.ones((2, 2))]) is None
        True
    """
    mesh = explicit_mesh(arrays)
    if mesh is None:
        return None
    used = {name for x in arrays for entry in jax.typeof(x).sharding.spec for name in _names(entry)}
    axes = tuple(name for name in mesh.axis_names if name in used)
    parts = 1
    for name in axes:
        parts *= mesh.shape[name]
    return NamedSharding(mesh, PartitionSpec(axes) if axes and length % parts == 0 else PartitionSpec())


def end_to_end(arrays: Sequence[Array]) -> Array:
    """The entries of arrays of one dtype in one vector, row-major.

    Example:
        >>> end_to_end([jnp.ones((1, 2)), jnp.zeros(1)])
        Array([1., 1., 0.], dtype=float32)
    """

    def joined(*arrays: Array) -> Array:
        return jnp.concatenate([x.reshape(-1) for x in arrays])

    return compiler_sharded(joined, evenly(sum(x.size for x in arrays), arrays), *arrays)


def taken_apart(vector: Array, shapes: Sequence[Shape], places: Sequence[NamedSharding]) -> list[Array]:
    """The inverse of `end_to_end`: the parts of a vector as arrays.

    Args:
        vector: (P,).
        shapes: of the arrays, with P entries together.
        places: `jax.typeof(x).sharding` of each.

    Example:
        >>> taken_apart(jnp.arange(3.0), [(1, 2), (1,)], [jax.typeof(0.0).sharding] * 2)
        [Array([[0., 1.]], dtype=float32), Array([2.], dtype=float32)]
    """

    def parted(vector: Array) -> list[Array]:
        # The derivative of split is one concatenation; that of a slice for each array is a sum of padded vectors.
        parts = jax.lax.split(vector, [math.prod(shape) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    return compiler_sharded(parted, list(places), vector)


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes that one entry of a `PartitionSpec` names."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _sharding_of(x: Any) -> Any:
    """That of an array's type, or of a type; anything else has none."""
    return getattr(getattr(x, "aval", x), "sharding", None)

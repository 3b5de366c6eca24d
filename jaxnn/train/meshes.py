"""Training on a mesh of devices: batches split over an axis, parameters split over devices (FSDP)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnn.checks import require_positive_int
from jaxnn.placement import axis_names
from jaxnn.train.precision import InPrecision
from jaxnn.types import PyTree

SMALLEST = 2**12
"""Entries of a parameter from which on `shard_params` splits it: below, the collectives cost more than they save."""


class Split(NamedTuple):
    """The axes of a mesh that a batch is split over.

    Attributes:
        mesh, axes: as said.
        specs: how the leaves of the `TrainState` lie on the mesh, in order; () while that is not known.
    """

    mesh: Mesh
    axes: tuple[str, ...]
    specs: tuple[PartitionSpec, ...] = ()

    @property
    def parts(self) -> int:
        """The number of parts."""
        return math.prod(self.mesh.shape[name] for name in self.axes)

    @property
    def entry(self) -> str | tuple[str, ...]:
        """The first entry of the `PartitionSpec` of a batch."""
        return self.axes[0] if len(self.axes) == 1 else self.axes


def as_split(where: str, mesh: Any, axis: Any) -> Split | None:
    """The arguments `mesh` and `axis` of a function, checked; None without a mesh."""
    if mesh is None:
        if axis is not None:
            raise ValueError(f"{where}: axis={axis!r} names axes of a mesh: pass mesh= too.")
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(f'{where}: mesh must be a Mesh, as jax.make_mesh((8,), ("data",)) makes it, got {mesh!r}.')
    axes = axis_names(mesh.axis_names[0] if axis is None else axis)
    for name in axes:
        if name not in mesh.axis_names:
            there = ", ".join(map(repr, mesh.axis_names))
            raise ValueError(f"{where}: axis must be among the mesh's axes, {there}, got {name!r}.")
    _require_one_type(where, mesh, axes)
    return Split(mesh, axes)


def require_no_other_mesh(where: str, split: Split | None) -> None:
    """Raise ValueError if `jax.set_mesh` has set another mesh, on which new arrays would lie."""
    now = jax.sharding.get_abstract_mesh()
    if split is not None and not now.empty and now != split.mesh.abstract_mesh:
        raise ValueError(
            f"{where}: mesh must be the one that jax.set_mesh has set, {dict(now.shape)}, or none be set; got "
            f"{dict(split.mesh.shape)}. Leave that context, or pass its mesh."
        )


def _require_one_type(where: str, mesh: Mesh, axes: Collection[str]) -> None:
    """Raise ValueError unless the axes are all Auto or all Explicit: constrained the ones, resharded the others."""
    kinds = [(name, kind) for name, kind in axis_kinds(mesh) if name in axes]
    if len({kind for _, kind in kinds}) > 1:
        got = ", ".join(f"{name!r} of type {kind.name}" for name, kind in kinds)
        raise ValueError(
            f"{where}: the axes that batches and parameters are split over must be of one type, got {got}. Pass one of "
            "them as axis=, or make a mesh of one type: jax.make_mesh(..., axis_types=(AxisType.Auto, ...))."
        )


def split_of(where: str, x: PyTree) -> Split | None:
    """The mesh and axes that the examples of concrete arrays are split over; None if they are not."""
    for leaf in jax.tree.leaves(x):
        sharding = getattr(leaf, "sharding", None) if not isinstance(leaf, jax.core.Tracer) else None
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and sharding.spec:
            axes = axis_names(sharding.spec[0])
            if axes and sharding.mesh.size > 1:
                _require_one_type(where, sharding.mesh, axes)
                return Split(sharding.mesh, axes)
    return None


def require_divided(where: str, split: Split | None, batch_size: int) -> None:
    """Raise ValueError unless the devices of the split divide the batch."""
    if split is not None and batch_size % split.parts:
        below = batch_size // split.parts * split.parts
        near = f"{below} or {below + split.parts}" if below else f"{split.parts}"
        raise ValueError(
            f"{where}: batch_size {batch_size} must be a multiple of the {split.parts} devices of axis "
            f"{split.entry!r}: use {near}, or another axis."
        )


def split_rows(batch: Any, split: Split | None) -> Any:
    """A batch, traced, with the first axis of each array split over the devices, if they divide it."""
    if split is None:
        return batch
    explicit = _is_explicit(split)

    def leaf(x: Any) -> Any:
        if not x.ndim or x.shape[0] % split.parts:
            return x
        if explicit:
            rest = jax.typeof(x).sharding.spec[1:]
            return jax.sharding.reshard(x, NamedSharding(split.mesh, PartitionSpec(split.entry, *rest)))
        rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, NamedSharding(split.mesh, PartitionSpec(split.entry, *rest)))

    return jax.tree.map(leaf, batch)


def with_specs(split: Split | None, ts: PyTree) -> Split | None:
    """The split, with how the leaves of a concrete `TrainState` lie on its mesh.

    Raises:
        ValueError: they are split over axes of another type than those of the batch.
    """

    def spec(x: Any) -> PartitionSpec:
        sharding = None if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None)
        return _without(sharding.spec, ()) if isinstance(sharding, NamedSharding) else PartitionSpec()

    if split is None:
        return None
    specs = tuple(map(spec, jax.tree.leaves(ts)))
    names = {name for spec in specs for entry in spec for name in axis_names(entry)}
    _require_one_type("mesh", split.mesh, names.union(split.axes))
    return split._replace(specs=specs)


def gathering(vg: Callable[..., Any], split: Split | None) -> Callable[..., Any]:
    """`vg` for parameters that are split over the axes of the batch: gathered before, their gradients split after.

    Left to itself the compiler may rather split the products by columns, so that each device computes all examples.
    """
    count = len(split.specs) if split is not None else 0
    if split is None or not any(_without(spec, split.axes) != spec for spec in split.specs):
        return vg
    if isinstance(vg, InPrecision):  # what is cast is gathered, in half the bytes
        return dataclasses.replace(vg, vg=gathering(vg.vg, split))

    def on_gathered(params: PyTree, *args: Any, **how: Any) -> Any:
        leaves, structure = jax.tree.flatten(params)
        specs = split.specs[: min(len(leaves), count)]  # parameters come first in a `TrainState`
        whole = [_placed(x, split, _without(spec, split.axes)) for x, spec in zip(leaves, specs, strict=True)]
        result, grads = vg(jax.tree.unflatten(structure, whole), *args, **how)
        parts = [_placed(g, split, spec) for g, spec in zip(jax.tree.leaves(grads), specs, strict=True)]
        return result, jax.tree.unflatten(jax.tree.structure(grads), parts)

    return on_gathered


def kept_in_place(ts: PyTree, split: Split | None) -> PyTree:
    """A traced `TrainState` on the mesh as it was before the step: the compiler may prefer another place."""
    if split is None or not split.specs:
        return ts
    leaves, structure = jax.tree.flatten(ts)
    placed = [_placed(x, split, spec) for x, spec in zip(leaves, split.specs, strict=True)]
    return jax.tree.unflatten(structure, placed)


def _placed(x: Any, split: Split, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(split.mesh, spec)
    if _is_explicit(split):
        return jax.sharding.reshard(x, sharding)
    return jax.lax.with_sharding_constraint(x, sharding)


def _without(spec: PartitionSpec, axes: tuple[str, ...]) -> PartitionSpec:
    """A spec without some mesh axes."""
    kept = [tuple(name for name in axis_names(entry) if name not in axes) for entry in spec]
    while kept and not kept[-1]:  # P(None) is P(), but not equal to it
        kept.pop()
    return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in kept))


def _is_explicit(split: Split) -> bool:
    return all(kind == AxisType.Explicit for name, kind in axis_kinds(split.mesh) if name in split.axes)


def axis_kinds(mesh: Mesh) -> list[tuple[str, Any]]:
    """The axes of a mesh with their types."""
    return list(zip(mesh.axis_names, mesh.axis_types, strict=True))


def put_on(mesh: Mesh, values: PyTree) -> PyTree:
    """Arrays on a mesh: those that lie on its devices with its axes as they are, others copied to every device.

    In several processes each must hold the same values of the latter.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def leaf(x: Any) -> Any:
        sharding = getattr(x, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh == mesh:
            return x
        if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == mesh.axis_names:
            return jax.device_put(x, NamedSharding(mesh, sharding.spec))  # the same axes, of another type
        if jax.process_count() > 1 and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.make_array_from_process_local_data(everywhere, np.asarray(x))
        return jax.device_put(x, everywhere)

    return jax.tree.map(leaf, values)


def put_rows(batch: PyTree, split: Split | None) -> PyTree:
    """A batch from the host on the devices; of several processes, each gives the rows of its own devices."""
    if split is None:
        return jax.device_put(batch)
    rows = NamedSharding(split.mesh, PartitionSpec(split.entry))

    def leaf(x: Any) -> Any:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        return jax.make_array_from_process_local_data(rows, np.asarray(x))

    return jax.tree.map(leaf, batch) if jax.process_count() > 1 else jax.device_put(batch, rows)


def local_rows(split: Split | None, batch_size: int) -> np.ndarray[Any, Any]:
    """The rows of a batch that this process gives to its devices."""
    rows = np.arange(batch_size)
    if split is None or jax.process_count() == 1:
        return rows
    sharding = NamedSharding(split.mesh, PartitionSpec(split.entry))
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([rows[index] for index in slices if index is not None]))


def shard_params(
    ts: PyTree, mesh: Mesh, axis: str | tuple[str, ...] | None = None, *, smallest: int = SMALLEST
) -> PyTree:
    """Parameters, and what has their shapes, split over the devices: fully sharded data parallelism (FSDP, ZeRO-3).

    Each array of at least `smallest` entries is split along its largest axis that the number of devices divides (the
    first of equals); the others are copied to every device. What lies along other axes of the mesh, such as columns for
    tensor parallelism, stays there. A step of `make_epoch` and `fit` gathers the parameters over these devices, so that
    each computes its rows of the batch with them, and splits the sums of their gradients: what is saved is the memory
    of the state between steps, parameters and moments, not that of the parameters in a step. In one program with
    `init`, `jax.jit(lambda key: shard_params(init(net, opt, key, shape), mesh))(key)`, no device ever has it whole.

    Args:
        ts: pytree of arrays: a `TrainState`, whose optimizer state is split like the parameters, or parameters alone.
        mesh: a mesh, with axes of type Auto or Explicit.
        axis: the axis, or axes, to split over: that of the batches. None: the mesh's first.
        smallest: entries from which on an array is split.

    Returns:
        The same values on the mesh.

    Raises:
        TypeError: mesh is not a Mesh.
        ValueError: the mesh has no such axis, axes of two types, or smallest < 1.

    Example:
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> tuple(shard_params({"w": np.ones((64, 128), np.float32)}, mesh)["w"].sharding.spec)
        (None, 'data')

    Reference: Rajbhandari, Rasley, Ruwase & He 2020, "ZeRO: memory optimizations toward training trillion parameter
        models", section 5 (stage 3).
    """
    smallest = require_positive_int("shard_params", "smallest", smallest)
    split = as_split("shard_params", mesh, axis)
    if split is None:
        raise TypeError('shard_params: mesh must be a Mesh, as jax.make_mesh((8,), ("data",)) makes it, got None.')

    def leaf(x: Any) -> Any:
        sharding = None if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None)
        kept = PartitionSpec()
        if isinstance(sharding, NamedSharding) and set(axis_names_of(sharding.spec)) <= set(mesh.axis_names):
            kept = _without(sharding.spec, split.axes)
        return jax.device_put(x, NamedSharding(mesh, spec_for(np.shape(x), split, smallest, kept)))

    return jax.tree.map(leaf, ts)


def spec_for(shape: tuple[int, ...], split: Split, smallest: int, kept: PartitionSpec | None = None) -> PartitionSpec:
    """How an array of that shape is split: along its largest axis that the devices divide, of those not split yet."""
    kept = PartitionSpec() if kept is None else kept
    if math.prod(shape) < smallest:
        return kept
    entries = [*kept, *(None,) * (len(shape) - len(kept))]
    places = [i for i, n in enumerate(shape) if entries[i] is None and n % split.parts == 0]
    if not places:
        return kept
    entries[max(places, key=lambda i: shape[i])] = split.entry
    return _without(PartitionSpec(*entries), ())


def axis_names_of(spec: PartitionSpec) -> list[str]:
    """The mesh axes that a spec names."""
    return [name for entry in spec for name in axis_names(entry)]

"""Programs on meshes with explicit axes: shardings inside are the compiler's, as on meshes with automatic axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from jaxnn.types import PyTree

EXPLICIT = AxisType.Explicit


def placed_by_compiler(
    function: Callable[..., PyTree], out_specs: Callable[..., PyTree] = lambda *args: PartitionSpec()
) -> Callable[..., PyTree]:
    """`function`, whose arguments may lie on a mesh with explicit axes.

    In explicit mode each operation's result has a sharding that follows from its operands', and a product of a batch
    with sharded weights, or a label's entry of sharded outputs, is ambiguous. A network is written for any placement,
    so inside it the axes are made automatic: the compiler shards, gathers and reduces.

    Args:
        function: of pytrees of arrays, positional only.
        out_specs: of the same arguments, the sharding of what is returned, or a prefix of its tree.

    Returns:
        A function of the same arguments; without explicit axes among them it calls `function` as it is.

    Example:
        >>> placed_by_compiler(lambda x: 2 * x)(1.0)
        2.0
    """

    def placed(*args: Any) -> PyTree:
        mesh = _explicit_mesh(args)
        if mesh is None:
            return function(*args)
        axes = tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is EXPLICIT)
        # The mesh is named, because outside jax.set_mesh there is none to be found.
        out = jax.tree.map(lambda spec: NamedSharding(mesh, spec), out_specs(*args))
        return jax.sharding.auto_axes(function, axes=axes, out_sharding=out)(*args)

    return placed


def specs_of(tree: PyTree) -> PyTree:
    """How each array is sharded.

    Example:
        >>> specs_of({"w": 1.0})
        {'w': P()}
    """
    return jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, tree)


def _explicit_mesh(tree: PyTree) -> AbstractMesh | None:
    """The mesh of the arrays, if any of its axes is explicit."""
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree))
    return next((mesh for mesh in meshes if EXPLICIT in mesh.axis_types), None)

"""The arguments of a recorded loss: parameters, and arrays with or without an axis of examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_array
from jaxnn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of one call, flat.

    Attributes:
        leaves: the trained parameters.
        paths, structure: their paths, and the treedef of results (None for parameters that are not trained).
        mapped: all other arrays.
        axes: the axis of examples of each of those, or None.
        examples: N.
        where: the function that was called, for messages.
    """

    leaves: tuple[Array, ...]
    paths: tuple[str, ...]
    structure: Any
    mapped: list[Array]
    axes: list[int | None]
    examples: int
    where: str
    _trained: tuple[int, ...]
    _tree: Any

    def one_example(self) -> list[jax.ShapeDtypeStruct]:
        """The shapes of one example's arrays."""
        return [
            jax.ShapeDtypeStruct(x.shape if axis is None else (*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)
            for x, axis in zip(self.mapped, self.axes, strict=True)
        ]

    def rebuilt(self, leaves: Sequence[Any], mapped: Sequence[Any]) -> Any:
        """The loss's positional arguments."""
        trained, rest = dict(zip(self._trained, leaves, strict=True)), iter(mapped)
        count = len(leaves) + len(mapped)
        return jax.tree.unflatten(self._tree, [trained[i] if i in trained else next(rest) for i in range(count)])


def arguments_of(
    args: tuple[Any, ...], argnums: int | Sequence[int], in_axes: Any, trainable: PyTree, where: str = "record"
) -> Arguments:
    """Flattens and checks the arguments of one call; messages begin with `where`, the function that was called."""
    numbers = _numbers(where, argnums, len(args))
    places, tree = jax.tree_util.tree_flatten_with_path(args)
    arrays = [_array(where, path, x) for path, x in places]
    owner = [path[0].idx for path, _ in places]
    marks = _marks(where, args, argnums, numbers, trainable)
    trained = tuple(i for i, number in enumerate(owner) if number in numbers and marks[i])
    for i in trained:
        _require_real(where, places[i][0], arrays[i])
    axes = _axes(where, args, numbers, in_axes)
    rest = [i for i in range(len(arrays)) if i not in trained]
    mapped = [arrays[i] for i in rest]
    mapped_axes = [_axis(where, args, places[i][0], arrays[i], axes[i]) for i in rest]
    kept = jax.tree.unflatten(tree, [0 if i in trained else None for i in range(len(arrays))])
    result = kept[argnums] if isinstance(argnums, int) else tuple(kept[number] for number in numbers)
    found, structure = jax.tree_util.tree_flatten_with_path(result)
    paths = tuple(jax.tree_util.keystr(path) for path, _ in found)
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise ValueError(
            f"{where}: parameters must have paths of their own, got several at {twice}. Give the keys of the pytree "
            "different names."
        )
    order = trained if isinstance(argnums, int) else tuple(i for k in numbers for i in trained if owner[i] == k)
    return Arguments(
        tuple(arrays[i] for i in order),
        paths,
        structure,
        mapped,
        mapped_axes,
        _examples(where, [places[i][0] for i in rest], mapped, mapped_axes),
        where,
        order,
        tree,
    )


def _numbers(where: str, argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not numbers or not all(isinstance(k, int) and -count <= k < count for k in numbers):
        raise ValueError(f"{where}: argnums must name some of the {count} arguments, counted from 0, got {argnums!r}.")
    found = tuple(k % count for k in numbers)
    if len(set(found)) < len(found):
        raise ValueError(f"{where}: argnums must name each argument once, got {argnums!r}.")
    return found


def _name(path: Any) -> str:
    return f"argument {path[0].idx}{jax.tree_util.keystr(path[1:])}"


def _array(where: str, path: Any, x: Any) -> Array:
    if isinstance(x, np.ndarray):
        return as_array(where, _name(path), x)
    try:
        return jnp.asarray(x)
    except TypeError as error:
        raise TypeError(
            f"{where}: {_name(path)} is not an array but {type(x).__name__}. Bind functions and options into the loss "
            "(a closure, functools.partial), and split a model into arrays and the rest "
            "(equinox.partition(model, equinox.is_inexact_array), flax.nnx.split)."
        ) from error


def _require_real(where: str, path: Any, x: Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{where}: parameters must be of a real floating dtype, got {_name(path)} of {x.dtype.name}. Pass arrays "
            "that are not trained (counters, indices, keys) as another argument with None in in_axes, or mark it False "
            "in trainable; select the trained arrays of a model by equinox.partition(model, equinox.is_inexact_array) "
            "or nnx.split(model, nnx.Param, ...)."
        )


def _marks(
    where: str, args: tuple[Any, ...], argnums: int | Sequence[int], numbers: tuple[int, ...], trainable: PyTree
) -> list[bool]:
    """Whether each array is trainable."""
    params = args[numbers[0]] if isinstance(argnums, int) else tuple(args[k] for k in numbers)
    try:
        full = jax.tree.broadcast(trainable, params)
    except ValueError as error:
        raise ValueError(
            f"{where}: trainable must be True or a pytree of booleans that is a prefix of the parameters' structure "
            f"{jax.tree.structure(params)}, got {jax.tree.structure(trainable)}."
        ) from error
    for mark in jax.tree.leaves(full):
        if not isinstance(mark, bool):
            raise TypeError(f"{where}: trainable must hold Python booleans, got {mark!r}.")
    by_number = {numbers[0]: full} if isinstance(argnums, int) else dict(zip(numbers, full, strict=True))
    marked = [by_number[k] if k in by_number else jax.tree.map(lambda _: False, arg) for k, arg in enumerate(args)]
    return jax.tree.leaves(tuple(marked))


def _axes(where: str, args: tuple[Any, ...], numbers: tuple[int, ...], in_axes: Any) -> list[int | None]:
    """The axis of examples of each array, or None."""
    if in_axes is None:
        in_axes = tuple(None if k in numbers else 0 for k in range(len(args)))
    if not isinstance(in_axes, tuple | list) or len(in_axes) != len(args):
        raise ValueError(
            f"{where}: in_axes must be None or a tuple with an entry for each of the {len(args)} arguments, as for "
            f"jax.vmap, got {in_axes!r}."
        )
    axes: list[int | None] = []
    for k, (axis, arg) in enumerate(zip(in_axes, args, strict=True)):
        found = _spread(where, k, axis, arg)
        if k in numbers and any(a is not None for a in found):
            raise ValueError(
                f"{where}: in_axes[{k}] must be None: parameters are shared by all examples. Got {axis!r}."
            )
        axes += found
    return axes


def _spread(where: str, k: int, axes: Any, arg: PyTree) -> list[int | None]:
    """An axis, or a pytree prefix of axes, broadcast to the arrays of an argument."""

    def is_none(x: Any) -> bool:
        return x is None

    try:
        full = jax.tree.broadcast(axes, arg, is_leaf=is_none)
    except ValueError as error:
        raise ValueError(
            f"{where}: in_axes[{k}] must be an axis, None, or a pytree of these that is a prefix of the argument's "
            f"structure {jax.tree.structure(arg)}, got {axes!r}."
        ) from error
    pairs = zip(jax.tree.leaves(full, is_leaf=is_none), jax.tree.leaves(arg, is_leaf=is_none), strict=True)
    return [axis for axis, x in pairs if x is not None]


def _axis(where: str, args: tuple[Any, ...], path: Any, x: Array, axis: int | None) -> int | None:
    if axis is None:
        return None
    if not -x.ndim <= axis < x.ndim:
        number, arg = path[0].idx, args[path[0].idx]
        if isinstance(arg, list | tuple) and _of_numbers(arg):
            raise ValueError(
                f"{where}: argument {number} is a {type(arg).__name__} of numbers, to JAX a pytree of arrays of shape "
                "(), where an array with an axis of examples was expected. Pass numpy.asarray of it."
            )
        raise ValueError(
            f"{where}: {_name(path)} of shape {x.shape} has no axis {axis} of examples. Pass None in in_axes for "
            "arrays that all examples share."
        )
    return axis % x.ndim


def _of_numbers(x: Any) -> bool:
    """A number, or a nested list or tuple of nothing else."""
    return all(map(_of_numbers, x)) if isinstance(x, list | tuple) else isinstance(x, int | float | np.generic)


def _examples(where: str, paths: list[Any], mapped: list[Array], axes: list[int | None]) -> int:
    sizes = {_name(p): x.shape[axis] for p, x, axis in zip(paths, mapped, axes, strict=True) if axis is not None}
    if not sizes:
        raise ValueError(f"{where}: no argument has an axis of examples; pass the batch, or its axis in in_axes.")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{where}: all arguments must have the same number of examples, got {sizes}.")
    return next(iter(sizes.values()))

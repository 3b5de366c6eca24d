"""Row and column axes of arrays, for rules that are defined on matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.tree import called
from jaxnn.types import Params, PyTree, Shape

NumbersOrFn: TypeAlias = PyTree | Callable[[Params], PyTree] | None
"""`MuonDimensionNumbers` (None: no matrix) in a pytree like the parameters, a prefix, or a function to one."""


class MuonDimensionNumbers(NamedTuple):
    """Which axes of an array are the rows (inputs) and the columns (outputs) of a matrix; the others are batch axes.

    `reduction_axis`, `output_axis`: an int or ints, negative ones from the end.
    """

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


def matrix_axes(where: str, shape: Shape, numbers: MuonDimensionNumbers | None) -> tuple[tuple[int, ...], ...]:
    """(batch, row, column) axes of an array, counted from 0; without `numbers`, those of a matrix."""
    if numbers is None and len(shape) != 2:
        raise ValueError(
            f"{where}: an array that is orthogonalized must be a matrix, got shape {shape}. "
            "Name its axes by MuonDimensionNumbers(reduction_axis, output_axis)."
        )
    if not isinstance(numbers, MuonDimensionNumbers | None):
        raise TypeError(f"{where}: dimension numbers must be MuonDimensionNumbers, got {numbers!r}.")
    named = [(axis,) if isinstance(axis, int) else tuple(axis) for axis in numbers or MuonDimensionNumbers()]
    used = [i % len(shape) if shape and -len(shape) <= i < len(shape) else None for axis in named for i in axis]
    if None in used or len(set(used)) < len(used) or not all(named):
        raise ValueError(
            f"{where}: an array of shape {shape} must be a matrix of some of its axes as rows and others as columns, "
            f"got {numbers}. Leave arrays of fewer than 2 axes to Adam."
        )
    row, column = (tuple(i % len(shape) for i in axis) for axis in named)
    return tuple(i for i in range(len(shape)) if i not in used), row, column


def fans(shape: Shape, axes: tuple[tuple[int, ...], ...]) -> tuple[int, int]:
    """(rows, columns) of the matrices that an array holds."""
    return math.prod(shape[i] for i in axes[1]), math.prod(shape[i] for i in axes[2])


def matrices(params: Params) -> PyTree:
    """`MuonDimensionNumbers()` for every array of 2 axes, None for the others."""
    return jax.tree.map(lambda p: MuonDimensionNumbers() if jnp.ndim(p) == 2 else None, params)


def numbers_tree(numbers: NumbersOrFn, params: Params) -> PyTree:
    """The dimension numbers, or what their function returns, broadcast from prefixes to a pytree like the
    parameters."""
    found = called(numbers, params)
    try:
        return jax.tree.map(lambda n, part: jax.tree.map(lambda _: n, part), found, params, is_leaf=is_numbers)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "muon: the dimension numbers must be a pytree like the parameters, or a prefix of it, got "
            f"{jax.tree.structure(found)} for parameters {jax.tree.structure(params)}. {error}"
        ) from None


def is_numbers(x: Any) -> bool:
    """Whether it is a leaf of a pytree of dimension numbers."""
    return x is None or isinstance(x, MuonDimensionNumbers)

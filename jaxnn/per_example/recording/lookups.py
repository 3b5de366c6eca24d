"""Lookups: rows of a table at indices that depend on the example."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from jaxnn.ops.views import Transpose
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import Axes, OpRule, placed, shape_of
from jaxnn.tape import Lookup, Use
from jaxnn.types import Array, Shape


def _row_axis(sizes: Shape, shape: Shape) -> int | None:
    """The one axis with a slice of size 1, if the slice is whole along all others; else None."""
    axes = [i for i, (size, n) in enumerate(zip(sizes, shape, strict=True)) if size != n]
    if len(axes) == 1 and sizes[axes[0]] == 1:
        return axes[0]
    # A table of one row.
    return next((i for i, size in enumerate(sizes) if size == 1), None) if not axes else None


def _known_row_axis(equation: JaxprEqn, shape: Shape) -> int:
    """`_row_axis` of an equation that fits."""
    return _row_axis(tuple(equation.params["slice_sizes"]), shape) or 0


def _fits_gather(equation: JaxprEqn, at: int, param: Param) -> bool:
    numbers = equation.params["dimension_numbers"]
    axis = _row_axis(tuple(equation.params["slice_sizes"]), param.shape)
    return (
        at == 0
        and not param.view.repeats
        and axis is not None
        and axis in numbers.start_index_map
        and not numbers.operand_batching_dims
    )


def _seen_gather(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> Array:
    """The row indices, (T,); an index outside the table that selects no row becomes the number of rows."""
    shape = jnp.asarray(operands[0]).shape
    starts = operands[1].reshape(-1, operands[1].shape[-1])
    sizes, named = equation.params["slice_sizes"], tuple(equation.params["dimension_numbers"].start_index_map)
    axis = _known_row_axis(equation, shape)
    indices = starts[:, named.index(axis)].astype(jnp.int32)
    if equation.params["mode"] == lax.GatherScatterMode.CLIP:
        return jnp.clip(indices, 0, shape[axis] - 1)
    # Of a narrow dtype no index may be as large as the last row.
    most = int(np.iinfo(starts.dtype).max)
    last = jnp.asarray([min(shape[i] - sizes[i], most) for i in named], starts.dtype)
    inside = jnp.all((starts >= 0) & (starts <= last[None]), axis=1)
    return jnp.where(inside, indices, jnp.int32(shape[axis]))


def _use_gather(equation: JaxprEqn, at: int, param: Param, indices: Array, delta: Array) -> Use:
    offsets = tuple(equation.params["dimension_numbers"].offset_dims)
    axis = _known_row_axis(equation, param.shape)
    times = [i for i in range(len(shape_of(equation.outvars[0]))) if i not in offsets]
    return _lookup(param, axis, indices, delta, times)


def _fits_slice(equation: JaxprEqn, at: int, param: Param) -> bool:
    sizes = tuple(equation.params["slice_sizes"])
    return at == 0 and not param.view.repeats and _row_axis(sizes, param.shape) is not None


def _seen_slice(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> Array:
    shape = jnp.asarray(operands[0]).shape
    axis = _known_row_axis(equation, shape)
    return jnp.clip(jnp.asarray(operands[1 + axis], jnp.int32), 0, shape[axis] - 1).reshape(1)


def _use_slice(equation: JaxprEqn, at: int, param: Param, indices: Array, delta: Array) -> Use:
    axis = _known_row_axis(equation, param.shape)
    return _lookup(param, axis, indices, delta, [])


def _lookup(param: Param, axis: int, indices: Array, delta: Array, times: list[int]) -> Use:
    """A lookup of rows along `axis`, with indices (N, loops..., T) in the order of the axes `times` of delta.

    In a loop over tables, these are concatenated to one table, with an offset of `rows` per table.
    """
    axes, rows = Axes(param), param.shape[axis]
    own = [i for i in range(delta.ndim - axes.first) if i not in times]
    errors = axes.arranged(delta, times, [], own)  # (N, T, tables, D)
    places = axes.arranged(indices, [0], [])  # (N, T, tables)
    tables = math.prod(param.view.shape[: param.loops])
    first = jnp.arange(tables, dtype=places.dtype) * rows
    none = jnp.asarray(tables * rows, places.dtype)
    places = jnp.where(places < rows, places + first[None, None], none)
    n, t, g = places.shape
    order = (*range(param.loops), param.loops + axis)
    rest = (param.loops + i for i in range(len(param.shape)) if i != axis)
    use = Lookup(places.reshape(n, t * g), errors.reshape(n, t * g, errors.shape[-1]), tables * rows)
    return placed(use, param.view.then(Transpose((*order, *rest))))


GATHER = OpRule(_fits_gather, _seen_gather, _use_gather)
"""`lax.gather` of whole rows along one axis: `jnp.take`, `w[indices]`."""

DYNAMIC_SLICE = OpRule(_fits_slice, _seen_slice, _use_slice)
"""`lax.dynamic_slice` of one row: `w[index]`."""

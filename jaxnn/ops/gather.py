"""The lookup of table rows by index, and its adjoint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_integer
from jaxnn.numerics import accumulation_dtype
from jaxnn.placement import compiler_sharded, spec_of
from jaxnn.types import Array


def take_rows(w: Array, indices: Array) -> Array:
    """y[...] = w[indices[...]]: one-hot rows times w, without the product.

    Args:
        w: table (V, D), floating.
        indices: (...), integers in [0, V). -1 does not mean the last row.

    Returns:
        (..., D) in the dtype of w. A traced index outside [0, V) cannot raise: it gives a row of NaN, with derivative
        zero.

    Raises:
        TypeError: the indices are not integers.
        ValueError: a concrete index lies outside [0, V).

    Example:
        >>> take_rows(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 1, 0]))
        Array([[3., 4.],
               [3., 4.],
               [1., 2.]], dtype=float32)
    """
    w = jnp.asarray(w)
    require_integer("take_rows", "indices", indices.dtype, "Convert them: indices.astype(jnp.int32).")
    _require_rows("take_rows", indices, w.shape[0])

    def rows(w: Array, indices: Array) -> Array:
        return w.at[indices].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)

    # With Explicit axes a gather needs its output sharding: that of the indices, then that of w's columns.
    place = spec_of(*jax.typeof(indices).sharding.spec, jax.typeof(w).sharding.spec[-1])
    return compiler_sharded(rows, place, w, indices)


def take_rows_weight_grad(indices: Array, dy: Array, rows: int) -> Array:
    """The adjoint of `take_rows` in w: dw[v] = the sum of dy over the positions whose index is v.

    Args:
        indices: (...), integers; those outside [0, rows) are dropped.
        dy: cotangent (..., D) of the output.
        rows: V, the number of rows of w.

    Returns:
        dw (V, D) in the accumulation dtype.

    Example:
        >>> take_rows_weight_grad(jnp.array([1, 1]), jnp.array([[1.0], [2.0]]), 3).ravel()
        Array([0., 3., 0.], dtype=float32)
    """
    require_integer("take_rows", "indices", indices.dtype, "Convert them: indices.astype(jnp.int32).")
    if dy.shape[:-1] != indices.shape:
        raise ValueError(
            f"take_rows: the cotangent must be (*indices.shape, D), got {dy.shape} for indices {indices.shape}."
        )
    dtype = accumulation_dtype(dy.dtype)
    zeros = jnp.zeros((rows, dy.shape[-1]), dtype)
    return zeros.at[indices].add(dy.astype(dtype), mode="drop", wrap_negative_indices=False)


def _require_rows(where: str, indices: Array, rows: int) -> None:
    """Raise if a concrete index lies outside [0, rows)."""
    if isinstance(indices, jax.core.Tracer):
        return
    known = np.asarray(indices)
    outside = known[(known < 0) | (known >= rows)]
    if outside.size:
        raise ValueError(
            f"{where}: indices must lie in [0, {rows}), got {outside.flat[0]} ({outside.size} outside). "
            "Indices count from 0, and negative ones do not wrap."
        )

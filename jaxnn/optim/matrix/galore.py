"""GaLore: any rule on gradients projected to their leading singular directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxnn.checks import require_positive_int
from jaxnn.optim.arguments import require_nonnegative, require_real
from jaxnn.optim.base import Optimizer, Transformation, initial_moment, map_leaves, widened
from jaxnn.optim.descent import Mask, called_on_stored, descent
from jaxnn.optim.inner import require_inner, update_inner
from jaxnn.optim.matrix.kronecker import unless_none
from jaxnn.optim.matrix.spectral import svd
from jaxnn.optim.rules.adam import scale_by_adam
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.placement import compiler_sharded, explicit_mesh
from jaxnn.tree import called
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule, Shape


class GaLoreDimensionNumbers(NamedTuple):
    """`reduction_axis`, `output_axis`: the axes, an int or several, that are a matrix's rows and its columns."""

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1


class GaLoreState(NamedTuple):
    """`count`: int32 steps taken; `base_optimizer_state`: of the projected arrays; `projector`: for each array the
    orthonormal columns P, of shape (0, 0) where it is not projected.
    """

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    base_optimizer_state: Any
    projector: PyTree


DimensionNumbers: TypeAlias = GaLoreDimensionNumbers | PyTree | Callable[[Params], PyTree] | None
"""One for all arrays, a pytree of them (None: not projected), a function that returns one; None: matrices alone."""


@specified
@called_on_stored("weight_dimension_numbers")
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: Transformation | None = None,
    weight_dimension_numbers: DimensionNumbers = None,
    *,
    shorter_side: bool = False,
    svd_dtype: DTypeLike | None = None,
) -> Optimizer:
    """The direction of another rule, run on low-rank projections of the matrices.

    At steps t = 0, 1, ... with t % update_proj_gap = 0:
    U, S, V' = svd(g);   P = the first `rank` columns of U (of V if g is wide)
    tall or square g:  direction = scale P base(P' g);   wide g:  direction = scale base(g P) P'

    Moments are (rank, n) for a tall or square (m, n) matrix, (m, rank) for a wide one; P is (max(m, n), rank). The
    paper projects the shorter side instead: `shorter_side=True`. Arrays that are not projected go to the base rule
    unchanged.

    The signs of singular vectors are the backend's: equal gradients give equal ones. Where singular values are equal,
    e.g. 0 beyond the rank of a gradient, rounding chooses the vectors, Adam takes full steps along them, and runs on
    one and on several devices diverge. Choose a `rank` of at most that of the gradients, which the number of examples
    or tokens bounds. Moments are kept when P changes, as in the paper. optax decomposes in float32 even in float64
    programs (as `svd_dtype=jnp.float32` does), keeps P in the parameter's dtype (in bfloat16 its columns are
    orthonormal to two digits), and fails on None leaves.

    Args:
        rank: columns of P, >= 1; at most the shorter side is used.
        update_proj_gap: steps between decompositions, >= 1; none is computed in between.
        scale: of the directions of projected arrays, >= 0.
        base_optimizer: `scale_by_...` transformation, ours or optax's; its update receives no parameters and no extra
            arguments. None means `scale_by_adam()`.
        weight_dimension_numbers: which arrays are matrices, and how. None: those with two axes. A
            `GaLoreDimensionNumbers`: every array with two axes or more. A pytree of them, with None for arrays that are
            not projected, or a function of the parameters (without params, of the updates) that returns one.
        shorter_side: whether P multiplies the shorter side of a matrix, as in the paper, instead of the longer.
        svd_dtype: of the decomposition; None means the accumulation dtype.

    Raises:
        ValueError: dimension numbers that do not name every axis of an array once.

    Reference: Zhao, J. et al. (2024). GaLore: memory-efficient LLM training by gradient low-rank projection, algorithm
        2.

    Example:
        >>> opt = scale_by_galore(rank=1)
        >>> jax.jit(opt.update)(jnp.array([[2.0, 0.0], [0.0, 1.0]]), opt.init(jnp.zeros((2, 2))))[0].round(3)
        Array([[1., 0.],
               [0., 0.]], dtype=float32)
    """
    rank = require_positive_int("galore", "rank", rank)
    gap = require_positive_int("galore", "update_proj_gap", update_proj_gap)
    require_nonnegative("galore", scale=scale)
    base = scale_by_adam() if base_optimizer is None else require_inner("galore", base_optimizer)

    def numbers_of(tree: PyTree) -> PyTree:
        """Like the tree: the dimension numbers of each array, None where it is not projected."""
        given = weight_dimension_numbers
        if given is None:
            return jax.tree.map(lambda x: GaLoreDimensionNumbers() if jnp.ndim(x) == 2 else None, tree)
        if isinstance(given, GaLoreDimensionNumbers):
            return jax.tree.map(lambda x: given if jnp.ndim(x) >= 2 else None, tree)
        return called(given, tree)

    def on_left(m: int, n: int) -> bool:
        return m <= n if shorter_side else m >= n

    def init(params: Params) -> GaLoreState:
        whole = initial_moment(require_real("galore", params))

        def columns(x: Array, numbers: GaLoreDimensionNumbers | None) -> Array:
            if numbers is None:
                return jnp.zeros((0, 0), x.dtype)
            m, n = _sides(x.shape, numbers)

            def zeros(x: Array) -> Array:
                side = jnp.sum(_matrix(x, numbers), 1 if on_left(m, n) else 0)
                return jnp.broadcast_to(side[:, None], (len(side), min(rank, m, n)))

            return compiler_sharded(zeros, _place(x, numbers, rows=on_left(m, n), first=True), x)

        numbers = numbers_of(params)
        projector = map_leaves(columns, whole, numbers)
        return GaLoreState(zero_count(), base.init(map_leaves(project, whole, numbers, projector)), projector)

    def project(x: Array, numbers: GaLoreDimensionNumbers | None, p: Array) -> Array:
        """The projected array, or the array itself."""
        if numbers is None:
            return x
        left = on_left(*_sides(x.shape, numbers))

        def product(x: Array, p: Array) -> Array:
            return p.T @ _matrix(x, numbers) if left else _matrix(x, numbers) @ p

        return compiler_sharded(product, _place(x, numbers, rows=not left, first=not left), x, p.astype(x.dtype))

    @widened
    def update(
        updates: PyTree, state: GaLoreState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, GaLoreState]:
        numbers = numbers_of(updates if params is None else params)

        def decomposed() -> PyTree:
            def leaf(g: Array, number: GaLoreDimensionNumbers | None, p: Array) -> Array:
                if number is None:
                    return p

                def vectors(g: Array) -> Array:
                    g = _matrix(g if svd_dtype is None else g.astype(svd_dtype), number)
                    u, _, vh = svd(g)
                    return (u if on_left(*g.shape) else vh.T)[:, : p.shape[1]].astype(p.dtype)

                return compiler_sharded(vectors, p, g)

            return unless_none(map_leaves(leaf, updates, numbers, state.projector), state.projector)

        projector = jax.lax.cond(state.count % gap == 0, decomposed, lambda: state.projector)
        low = map_leaves(project, updates, numbers, projector)
        low, base_state = update_inner(base, low, state.base_optimizer_state, None, {})

        def lifted(u: Array, g: Array, number: GaLoreDimensionNumbers | None, p: Array) -> Array:
            if number is None:
                return u
            left = on_left(*_sides(g.shape, number))

            def product(u: Array, p: Array) -> Array:
                return _array(p @ u if left else u @ p.T, g.shape, number)

            full = compiler_sharded(product, g, u, p.astype(u.dtype))
            return cast_like(scale, full) * full

        full = map_leaves(lifted, low, updates, numbers, projector)
        new = GaLoreState(increment(state.count), base_state, projector)
        return full, new

    return Optimizer(init, update)


@specified
@called_on_stored("weight_dimension_numbers")
def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: Transformation | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    weight_dimension_numbers: DimensionNumbers = None,
    *,
    shorter_side: bool = False,
    svd_dtype: DTypeLike | None = None,
) -> Optimizer:
    """GaLore: update = -learning_rate (galore's direction + weight_decay params); see `scale_by_galore`.

    The decay acts on the whole arrays and is multiplied by the learning rate.

    Args:
        rank, update_proj_gap, scale, base_optimizer: see `scale_by_galore`. A base rule with its own learning rate,
            such as `sgd`, flips the sign of the direction: use its `scale_by_...`.
        weight_dimension_numbers, shorter_side, svd_dtype: see `scale_by_galore`.

    Reference: Zhao, J. et al. (2024). GaLore: memory-efficient LLM training by gradient low-rank projection, algorithm
        2.

    Example:
        >>> opt, params = galore(0.1, rank=1, weight_decay=0.5), jnp.ones((2, 2))
        >>> jax.jit(opt.update)(jnp.array([[2.0, 0.0], [0.0, 1.0]]), opt.init(params), params)[0].round(3)
        Array([[-0.15, -0.05],
               [-0.05, -0.05]], dtype=float32)
    """
    direction = scale_by_galore(
        rank,
        update_proj_gap,
        scale,
        base_optimizer,
        weight_dimension_numbers,
        shorter_side=shorter_side,
        svd_dtype=svd_dtype,
    )
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="galore")


def _axes(shape: Shape, numbers: GaLoreDimensionNumbers) -> tuple[list[int], list[int]]:
    """The axes of the rows and of the columns, counted from 0; together they are all axes, each once."""
    named = [(axes,) if isinstance(axes, int) else tuple(axes) for axes in numbers]
    rows, columns = ([axis % len(shape) if shape else axis for axis in axes] for axes in named)
    if not (rows and columns and sorted(rows + columns) == list(range(len(shape)))):
        raise ValueError(
            f"galore: reduction_axis and output_axis must together name every axis once, got {numbers} for an array "
            f"of shape {shape}. Use None in weight_dimension_numbers for arrays that are not projected."
        )
    return rows, columns


def _sides(shape: Shape, numbers: GaLoreDimensionNumbers) -> tuple[int, int]:
    """How many rows and columns the matrix has."""
    rows, columns = _axes(shape, numbers)
    return math.prod(shape[axis] for axis in rows), math.prod(shape[axis] for axis in columns)


def _place(x: Array, numbers: GaLoreDimensionNumbers, *, rows: bool, first: bool) -> NamedSharding | None:
    """The sharding, on a mesh with Explicit axes, of a matrix with the rows or columns of `_matrix(x)` on one axis.

    Known where one axis of the array determines it; the other axis is replicated.
    """
    mesh = explicit_mesh(x)
    if mesh is None:
        return None
    axes = _axes(x.shape, numbers)[0 if rows else 1]
    spec = [jax.typeof(x).sharding.spec[axis] for axis in axes]
    kept = spec[0] if not any(spec[1:]) else None
    return NamedSharding(mesh, PartitionSpec(kept, None) if first else PartitionSpec(None, kept))


def _matrix(x: Array, numbers: GaLoreDimensionNumbers) -> Array:
    """The array as a matrix (rows, columns)."""
    rows, columns = _axes(x.shape, numbers)
    return x.transpose(rows + columns).reshape(*_sides(x.shape, numbers))


def _array(matrix: Array, shape: Shape, numbers: GaLoreDimensionNumbers) -> Array:
    """The inverse of `_matrix`, to this shape."""
    rows, columns = _axes(shape, numbers)
    order = rows + columns
    back = sorted(range(len(order)), key=lambda place: order[place])
    return matrix.reshape([shape[axis] for axis in order]).transpose(back)

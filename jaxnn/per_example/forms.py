"""Forms of per-example gradients: factored ones that need not be materialized.

| form | the gradient of example i | of |
|---|---|---|
| `Outer` | sum_t a_it' delta_it, for each channel group | products (`Pairs`), convolutions (`Correlation`) |
| `Sparse` | rows of a table, all others 0 | lookups |
| `Explicit` | materialized | additions and scalings (cheap: summed over positions), anything else |
| `Pieces` | disjoint parts, each of a form above, 0 elsewhere | views: transposed weights, slices |

Several uses of one parameter become ONE form, their positions concatenated: the norm of a sum is not the sum of the
norms. Where the forms of the uses differ (an embedding tied to the output matrix), the gradients are materialized.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.ops.views import View
from jaxnn.per_example.blocks import fits
from jaxnn.per_example.outer import Correlation, Outer, Pairs, end_to_end, of_product
from jaxnn.tape import (
    STATIC,
    Addition,
    Convolution,
    GroupedProduct,
    Lookup,
    Placed,
    Product,
    Scaling,
    Tape,
    Unplaced,
    Use,
    Whole,
)
from jaxnn.types import Array, Shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sparse:
    """Rows of a table: `values` (N, T, D) at `indices` (N, T), once `joined` unique in an example; padding has index
    `rows` and value 0."""

    indices: Array
    values: Array
    rows: int = dataclasses.field(metadata=STATIC)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Explicit:
    """`grads` (N, P), the parameter's entries in row-major order."""

    grads: Array


Solid: TypeAlias = Outer | Sparse | Explicit


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """`parts`, each at the entries of the parameter that its view in `views` selects; no entry is in two."""

    parts: tuple[Solid, ...]
    views: tuple[View, ...] = dataclasses.field(metadata=STATIC)

    def placed(self, rows: Sequence[Array]) -> Array:
        """`rows`, an array (..., entries of the view) per part, scattered into (..., entries of the parameter)."""
        return functools.reduce(jnp.add, [put_back(view, flat) for view, flat in zip(self.views, rows, strict=True)])


Form: TypeAlias = Solid | Pieces


def put_back(view: View, rows: Array) -> Array:
    """The view's adjoint of each row: (..., entries of the view) to (..., entries of its source)."""

    def back(row: Array) -> Array:
        return view.adjoint(row.reshape(view.shape)).reshape(-1)

    return jax.vmap(back)(rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:-1], -1)


@functools.singledispatch
def of_use(use: Unplaced) -> Solid:
    """The form of one use (a `Sparse` may still repeat an index)."""
    raise TypeError(f"per_example: expected a use of jaxnn.tape, got {type(use).__name__}.")


@of_use.register
def _(use: Product) -> Solid:
    return of_product(use)


@of_use.register
def _(use: GroupedProduct) -> Solid:
    return Pairs(use.a, use.delta)


@of_use.register
def _(use: Convolution) -> Solid:
    return Correlation(use)


@of_use.register
def _(use: Addition) -> Solid:
    return Explicit(jnp.sum(accumulate(use.delta), axis=1))


@of_use.register
def _(use: Scaling) -> Solid:
    return Explicit(jnp.sum(accumulate(use.a) * accumulate(use.delta), axis=1))


@of_use.register
def _(use: Lookup) -> Solid:
    return Sparse(use.indices, accumulate(use.delta), use.rows)


@of_use.register
def _(use: Whole) -> Solid:
    return Explicit(accumulate(use.grads).reshape(use.grads.shape[0], -1))


def joined(uses: tuple[Use, ...], param: jax.ShapeDtypeStruct, examples: int) -> Form:
    """The one form of all uses of a parameter; zeros without uses."""
    if not uses:
        return Explicit(jnp.zeros((examples, param.size), accumulation_dtype(param.dtype)))
    # |sum g|^2 is not sum |g|^2, so uses are joined before any norm: those of one view along their positions. Squares
    # of disjoint views (slices of a fused weight) add; of views that overlap, only the gradients themselves do.
    views = by_view(uses, param.shape)
    solid = [_solid(those) for those in views.values()]
    if len(solid) == 1 and next(iter(views)).in_order:
        return solid[0]
    if all(one.apart_from(other) for one, other in itertools.combinations(views, 2)):
        return Pieces(tuple(solid), tuple(views))
    rows = [put_back(view, explicit(form)) for view, form in zip(views, solid, strict=True)]
    return Explicit(functools.reduce(jnp.add, rows))


def by_view(uses: tuple[Use, ...], shape: Shape) -> dict[View, list[Unplaced]]:
    """The uses grouped by their view of a parameter of this shape, in the order of first use."""
    found: dict[View, list[Unplaced]] = {}
    for use in uses:
        view, inner = (use.view, use.use) if isinstance(use, Placed) else (View(shape), use)
        found.setdefault(view, []).append(inner)
    return found


def _solid(uses: list[Unplaced]) -> Solid:
    """The one form of all uses of one view."""
    found = [of_use(use) for use in uses]
    if all(isinstance(form, Sparse) for form in found):
        return _unique(*[form for form in found if isinstance(form, Sparse)])
    if len(found) == 1:
        return found[0]
    outers = [form for form in found if isinstance(form, Outer)]
    if len(outers) == len(found) and len({form.block for form in outers}) == 1:
        return end_to_end(outers)
    return Explicit(functools.reduce(jnp.add, [explicit(form) for form in found]))


def _unique(*found: Sparse) -> Sparse:
    """All uses as one, the values at equal indices of an example summed: a norm needs each row once."""
    form = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
    if form.indices.shape[1] == 1:
        return _within(form)

    # Sorted, equal indices are neighbours, and one running count gives each distinct index its slot. The shape stays
    # (T,): slots that remain empty keep the index `rows`, padding.
    def of_one(indices: Array, values: Array) -> tuple[Array, Array]:
        order = jnp.argsort(indices)
        ordered = indices[order]
        first = jnp.concatenate([jnp.zeros(1, jnp.int32), (ordered[1:] != ordered[:-1]).astype(jnp.int32)])
        slot = jnp.cumsum(first)
        kept = jnp.full_like(indices, form.rows).at[slot].set(ordered)
        return kept, jnp.zeros_like(values).at[slot].add(values[order])

    inside = _within(form)
    return _within(Sparse(*jax.vmap(of_one)(inside.indices, inside.values), form.rows))


def _within(form: Sparse) -> Sparse:
    """Indices outside [0, rows), which select no row, replaced by `rows` with value 0."""
    valid = (form.indices >= 0) & (form.indices < form.rows)
    indices = jnp.where(valid, form.indices, jnp.asarray(form.rows, form.indices.dtype))
    return Sparse(indices, jnp.where(valid[:, :, None], form.values, jnp.zeros((), form.values.dtype)), form.rows)


@functools.singledispatch
def explicit(form: Form) -> Array:
    """The materialized gradients, (N, P)."""
    raise TypeError(f"per_example: expected a form of a gradient, got {type(form).__name__}.")


@explicit.register
def _(form: Outer) -> Array:
    return form.laid_out(form.gradients())


@explicit.register
def _(form: Sparse) -> Array:
    def table(indices: Array, values: Array) -> Array:
        return take_rows_weight_grad(indices, values, form.rows).reshape(-1)

    return jax.vmap(table)(form.indices, form.values)


@explicit.register
def _(form: Explicit) -> Array:
    return form.grads


@explicit.register
def _(form: Pieces) -> Array:
    return form.placed([explicit(part) for part in form.parts])


def forms(tape: Tape) -> list[Form]:
    """The form of each parameter of a tape, in the order of its paths."""
    return [joined(uses, leaf, tape.examples) for uses, leaf in zip(tape.uses, tape.leaves, strict=True)]


def settled(form: Form) -> Form:
    """The form, materialized where its norm is computed from the gradients and these fit in one chunk: a norm and a
    sum then share them."""
    if isinstance(form, Pieces):
        return Pieces(tuple(_settled(part) for part in form.parts), form.views)
    return _settled(form)


def _settled(form: Solid) -> Solid:
    if isinstance(form, Outer) and strategy(form) == MATERIALISE and fits(form):
        return Explicit(explicit(form))
    return form


PRODUCT, GRAM, MATERIALISE = "norm product", "Gram", "materialize in chunks"


def strategy(form: Outer) -> str:
    """How the norms of an `Outer` are computed with the fewest operations, by its shapes.

    "norm product", |a|^2 |delta|^2, for T = 1; "Gram", <a a', delta delta'>, where T (d + p) < d p: a Gram matrix of
    positions costs T^2 (d + p), a gradient T d p. Else "materialize in chunks".
    """
    times, (_, d, p) = form.times, form.block
    if times == 1:
        return PRODUCT
    return GRAM if times * (d + p) < d * p else MATERIALISE

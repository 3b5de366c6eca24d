"""Forms of per-example gradients: factored ones that need not be materialized.

| form | the gradient of example i | of |
|---|---|---|
| `Outer` | sum_t a_it' delta_it, for each channel group | products (`Pairs`), convolutions (`Correlation`) |
| `Chunked` | an `Outer` or `Tied` a chunk of classes at a time | the output layer of `chunked_softmax_cross_entropy` |
| `Sparse` | rows of a table, all others 0 | lookups |
| `Tied` | an `Outer` plus a `Sparse` | lookups and products of one table: an embedding tied to the output matrix |
| `Explicit` | materialized | additions and scalings (cheap: summed over positions), anything else |
| `Mixed` | a sum of forms above | other uses of several kinds, or of views that overlap |
| `Pieces` | disjoint parts, each of a form above, 0 elsewhere | views: transposed weights, slices |

Several uses of one parameter become ONE form, their positions concatenated: the norm of a sum is not the sum of the
norms. A `Mixed` form is materialized, in chunks of examples.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.ops.views import Transpose, View
from jaxnn.per_example.blocks import explicit, fits
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.outer import Correlation, Outer, Pairs, end_to_end, of_product
from jaxnn.per_example.sparse import Sparse, unique
from jaxnn.per_example.tied import Tied, fit
from jaxnn.tape import (
    STATIC,
    Addition,
    Convolution,
    GroupedProduct,
    Lookup,
    Placed,
    Product,
    Scaling,
    SoftmaxProduct,
    Tape,
    Unplaced,
    Use,
    Whole,
    whole,
)
from jaxnn.types import Array, Shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Explicit:
    """`grads` (N, P), the parameter's entries in row-major order."""

    grads: Array

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.grads.shape[0]

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        return self.grads.shape[1] * self.grads.dtype.itemsize

    @property
    def bytes_each(self) -> int:
        """The same: it is made from nothing else."""
        return self.gradient_bytes

    def gradients(self) -> Array:
        """g_i, (N, P)."""
        return self.grads


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """`parts`, each at the entries of the parameter that its view in `views` selects."""

    parts: tuple[Solid, ...]
    views: tuple[View, ...] = dataclasses.field(metadata=STATIC)

    def placed(self, rows: Sequence[Array]) -> Array:
        """`rows`, an array (..., entries of the view) per part, scattered into (..., entries of the parameter)."""
        return functools.reduce(jnp.add, [put_back(view, flat) for view, flat in zip(self.views, rows, strict=True)])

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.parts[0].examples

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        sizes = [max(math.prod(view.shape), 1) for view in self.views]
        item = max(part.gradient_bytes // size for part, size in zip(self.parts, sizes, strict=True))
        return math.prod(self.views[0].source) * item

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example, and of its parts."""
        return self.gradient_bytes + sum(part.bytes_each for part in self.parts)

    def gradients(self) -> Array:
        """g_i, (N, P)."""
        return self.placed([explicit(part) for part in self.parts])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Mixed(_Parts):
    """The sum of `parts` at entries that may be the same."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(_Parts):
    """The sum of `parts` of which no two have an entry in common."""


Solid: TypeAlias = Outer | Chunked | Sparse | Tied | Explicit | Mixed
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
def _(use: SoftmaxProduct) -> Solid:
    return Chunked(use)


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
    if not _by_chunks(uses, param.shape):  # positions are concatenated
        uses = tuple(map(whole, uses))
    # |sum g|^2 is not sum |g|^2, so uses are joined before any norm: those of one view along their positions. Squares
    # of disjoint views (slices of a fused weight) add; of views that overlap, only the gradients themselves do.
    views = by_view(uses, param.shape)
    solid = [_solid(those) for those in views.values()]
    if len(solid) == 1 and next(iter(views)).in_order:
        return solid[0]
    apart = all(one.apart_from(other) for one, other in itertools.combinations(views, 2))
    if not apart and all(isinstance(form, Explicit) for form in solid):
        return Explicit(functools.reduce(jnp.add, map(put_back, views, map(explicit, solid))))
    return (Pieces if apart else Mixed)(tuple(solid), tuple(views))


def _by_chunks(uses: tuple[Use, ...], shape: Shape) -> bool:
    """Whether a softmax product can stay in chunks: alone, or beside lookups in its table."""
    inner = [use.use if isinstance(use, Placed) else use for use in uses]
    products = [use for use in inner if isinstance(use, SoftmaxProduct)]
    if len(inner) == 1 or not products:
        return True
    lookups = sum(isinstance(use, Lookup) for use in inner)
    one_table = len(by_view(uses, shape)) == 1 and products[0].class_axis == 0
    return len(products) == 1 and lookups == len(inner) - 1 and one_table


def by_view(uses: tuple[Use, ...], shape: Shape) -> dict[View, list[Unplaced]]:
    """The uses grouped by their view of a parameter of this shape, in the order of first use."""
    pairs = [(use.view, use.use) if isinstance(use, Placed) else (View(shape), use) for use in uses]
    tables = {view for view, use in pairs if isinstance(use, Lookup)}
    found: dict[View, list[Unplaced]] = {}
    for view, use in pairs:
        view, use = _as_table(view, use, tables)
        found.setdefault(view, []).append(use)
    return found


def _as_table(view: View, use: Unplaced, tables: set[View]) -> tuple[View, Unplaced]:
    """A product of the transpose of a table that is looked up, as one of the table itself; others as they are."""
    if not isinstance(use, Product) or view in tables:
        return view, use
    # a' delta transposed is delta' a. The axes of the view are those of the rows, then those of the columns.
    axes = tuple(range(len(view.shape)))
    for i in range(len(axes) + 1):
        turned = view.then(Transpose((*axes[i:], *axes[:i])))
        if turned in tables and math.prod(view.shape[:i]) == use.a.shape[-1]:
            return turned, Product(use.delta, use.a)
    return view, use


def _solid(uses: list[Unplaced]) -> Solid:
    """The one form of all uses of one view."""
    found = [of_use(use) for use in uses]
    if chunked := [form for form in found if isinstance(form, Chunked)]:
        lookups = [form for form in found if isinstance(form, Sparse)]
        return Chunked(chunked[0].use, unique(*lookups)) if lookups else chunked[0]
    parts: list[Solid] = []
    if lookups := [form for form in found if isinstance(form, Sparse)]:
        parts.append(unique(*lookups))
    outers = [form for form in found if isinstance(form, Outer)]
    for block in dict.fromkeys(form.block for form in outers):
        parts.append(_concatenated([form for form in outers if form.block == block]))
    if grads := [form.grads for form in found if isinstance(form, Explicit)]:
        parts.append(Explicit(functools.reduce(jnp.add, grads)))
    match parts:
        case [one]:
            return one
        case [Sparse() as sparse, Outer() as outer] if fit(sparse, outer):
            return Tied(sparse, outer)
    # Each is of all entries, in row-major order.
    whole = View((math.prod(uses[0].shape),))
    return Mixed(tuple(parts), (whole,) * len(parts))


def _concatenated(found: list[Outer]) -> Outer:
    return found[0] if len(found) == 1 else end_to_end(found)


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
    if isinstance(form, Outer | Tied | Mixed) and strategy(form) == MATERIALISE and fits(form):
        return Explicit(explicit(form))
    return form


PRODUCT, GRAM, MATERIALISE = "norm product", "Gram", "materialize in chunks"


def strategy(form: Outer | Tied | Mixed) -> str:
    """How norms are computed with the fewest operations, by shapes.

    "norm product", |a|^2 |delta|^2, for T = 1; "Gram", <a a', delta delta'>, where T (d + p) < d p: a Gram matrix of
    positions costs T^2 (d + p), a gradient T d p. Else "materialize in chunks".

    Of a `Tied` form, with S positions of lookups, the same for the products, plus S T p for <L, O>; or, where that is
    less, both "materialize in chunks". A `Mixed` form is always materialized.
    """
    if isinstance(form, Mixed):
        return MATERIALISE
    outer = form.outer if isinstance(form, Tied) else form
    times, (_, d, p) = outer.times, outer.block
    lookups = form.sparse.indices.shape[1] if isinstance(form, Tied) else 0
    # Multiply-adds for each group.
    factored = times * (lookups * p + (times * (d + p) if times > 1 else 0))
    if factored >= times * d * p and factored:
        return MATERIALISE
    return PRODUCT if times == 1 else GRAM

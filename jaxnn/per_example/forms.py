"""The gradients of single examples, in the three forms in which they can be had without writing them all out.

| form | the gradient of example i | comes from |
|---|---|---|
| `Outer` | sum_t a_it' delta_it, for each channel group | products (`Pairs`), convolutions (`Correlation`) |
| `Sparse` | rows of a table, all others 0 | lookups |
| `Explicit` | itself | additions and scalings (cheap: summed over positions), anything else |

Several uses of one parameter become ONE form, their positions laid end to end: the norm of a sum is not the sum of the
norms. Where the forms of the uses differ (an embedding that is also the output matrix), the gradients are written out.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.per_example.blocks import fits
from jaxnn.per_example.outer import Correlation, Outer, end_to_end, of_product
from jaxnn.tape import STATIC, Addition, Convolution, Lookup, Product, Scaling, Tape, Use, Whole
from jaxnn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sparse:
    """Rows of a table: `values` (N, T, D) at `indices` (N, T), each index once in an example; unused places have index
    `rows` and value 0."""

    indices: Array
    values: Array
    rows: int = dataclasses.field(metadata=STATIC)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Explicit:
    """`grads` (N, P), the parameter's entries in row-major order."""

    grads: Array


Form: TypeAlias = Outer | Sparse | Explicit


@functools.singledispatch
def of_use(use: Use) -> Form:
    """The form of one use (a `Sparse` may still name an index twice).

    Example:
        >>> of_use(Addition(jnp.ones((4, 5, 2)))).grads.shape
        (4, 2)
    """
    raise TypeError(f"per_example: {type(use).__name__} is no kind of use that jaxnn.tape knows.")


@of_use.register
def _(use: Product) -> Form:
    return of_product(use)


@of_use.register
def _(use: Convolution) -> Form:
    return Correlation(use)


@of_use.register
def _(use: Addition) -> Form:
    return Explicit(jnp.sum(accumulate(use.delta), axis=1))


@of_use.register
def _(use: Scaling) -> Form:
    return Explicit(jnp.sum(accumulate(use.a) * accumulate(use.delta), axis=1))


@of_use.register
def _(use: Lookup) -> Form:
    return Sparse(use.indices, accumulate(use.delta), use.rows)


@of_use.register
def _(use: Whole) -> Form:
    return Explicit(accumulate(use.grads).reshape(use.grads.shape[0], -1))


def joined(uses: tuple[Use, ...], param: jax.ShapeDtypeStruct, examples: int) -> Form:
    """The one form of all uses of a parameter; zeros of one that was not used.

    Example:
        >>> use = Product(jnp.ones((4, 1, 3)), jnp.ones((4, 1, 2)))
        >>> joined((use, use), jax.ShapeDtypeStruct((3, 2), jnp.float32), 4).times
        2
    """
    if not uses:
        return Explicit(jnp.zeros((examples, param.size), accumulation_dtype(param.dtype)))
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
    """All uses as one, the values of equal indices of an example added up."""
    form = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
    if form.indices.shape[1] == 1:
        return _within(form)

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
    """Indices outside [0, rows) as `rows`, with value 0: they are no row of the table."""
    valid = (form.indices >= 0) & (form.indices < form.rows)
    indices = jnp.where(valid, form.indices, jnp.asarray(form.rows, form.indices.dtype))
    return Sparse(indices, jnp.where(valid[:, :, None], form.values, jnp.zeros((), form.values.dtype)), form.rows)


@functools.singledispatch
def explicit(form: Form) -> Array:
    """The gradients written out, (N, P).

    Example:
        >>> from jaxnn.per_example.outer import Pairs
        >>> explicit(Pairs(jnp.ones((4, 1, 1, 3)), jnp.ones((4, 1, 1, 2)))).shape
        (4, 6)
    """
    raise TypeError(f"per_example: {type(form).__name__} is no form of a gradient.")


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


def forms(tape: Tape) -> list[Form]:
    """The form of each parameter of a tape, in the order of its paths.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> [type(form).__name__ for form in forms(sample_tape())]
        ['Explicit', 'Pairs']
    """
    return [joined(uses, leaf, tape.examples) for uses, leaf in zip(tape.uses, tape.leaves, strict=True)]


def settled(form: Form) -> Form:
    """The form, written out where that is both the cheapest way to its norm and small: what is needed twice is then
    formed once.

    Example:
        >>> from jaxnn.per_example.outer import Pairs
        >>> settled(Pairs(jnp.ones((4, 9, 1, 3)), jnp.ones((4, 9, 1, 2)))).grads.shape
        (4, 6)
    """
    if isinstance(form, Outer) and strategy(form) == MATERIALISE and fits(form):
        return Explicit(explicit(form))
    return form


PRODUCT, GRAM, MATERIALISE = "norm product", "Gram", "materialise in chunks"


def strategy(form: Outer) -> str:
    """How the norms of an `Outer` are found, chosen by shapes: what costs the fewest operations.

    "norm product" (|a|^2 |delta|^2) for T = 1; "Gram" (<a a', delta delta'>) where T (d + p) < d p; else "materialise
    in chunks".

    Example:
        >>> from jaxnn.per_example.outer import Pairs
        >>> strategy(Pairs(jnp.ones((4, 9, 1, 3)), jnp.ones((4, 9, 1, 2))))
        'materialise in chunks'
    """
    times, (_, d, p) = form.times, form.block
    if times == 1:
        return PRODUCT
    return GRAM if times * (d + p) < d * p else MATERIALISE

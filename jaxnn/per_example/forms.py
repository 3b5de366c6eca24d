"""The gradients of single examples, in the three forms in which they can be had without writing them all out.

| form | the gradient of example i | comes from |
|---|---|---|
| `Outer` | sum_t a_it' delta_it, for each channel group | products; convolutions, by their patches |
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
from jaxnn.ops.patches import conv_patches
from jaxnn.per_example.blocks import fits, gradients
from jaxnn.tape import STATIC, Addition, Convolution, Lookup, Product, Scaling, Tape, Use, Whole, positions
from jaxnn.types import Array, Shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Outer:
    """g_i = sum_t a_it' delta_it in each of G groups: `a` (N, T, G, d), `delta` (N, T, G, p), of one dtype.

    As an entry of the parameter, (d, G, p) in row-major order: a kernel (..., C_in / G, C_out).
    """

    a: Array
    delta: Array

    @property
    def block(self) -> Shape:
        """(G, d, p)."""
        return (*self.a.shape[2:], self.delta.shape[-1])

    def laid_out(self, x: Array) -> Array:
        """(..., G, d, p) in the parameter's order, flat: (..., d G p)."""
        return jnp.swapaxes(x, -3, -2).reshape(*x.shape[:-3], -1)


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
    return _outer(use.a[:, :, None], use.delta[:, :, None])


@of_use.register
def _(use: Convolution) -> Form:
    geometry = {name: getattr(use, name) for name in ("stride", "padding", "dilation", "groups")}
    delta = positions(use.delta)
    return _outer(conv_patches(use.a, use.window, **geometry), delta.reshape(*delta.shape[:2], use.groups, -1))


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


def _outer(a: Array, delta: Array) -> Outer:
    dtype = accumulation_dtype(a.dtype, delta.dtype)
    return Outer(a.astype(dtype), delta.astype(dtype))


def joined(uses: tuple[Use, ...], param: jax.ShapeDtypeStruct, examples: int) -> Form:
    """The one form of all uses of a parameter; zeros of one that was not used.

    Example:
        >>> use = Product(jnp.ones((4, 1, 3)), jnp.ones((4, 1, 2)))
        >>> joined((use, use), jax.ShapeDtypeStruct((3, 2), jnp.float32), 4).a.shape
        (4, 2, 1, 3)
    """
    if not uses:
        return Explicit(jnp.zeros((examples, param.size), accumulation_dtype(param.dtype)))
    found = [of_use(use) for use in uses]
    if all(isinstance(form, Sparse) for form in found):
        return _unique(*[form for form in found if isinstance(form, Sparse)])
    if len(found) == 1 or _alike(found):
        return _end_to_end(found)
    return Explicit(functools.reduce(jnp.add, [explicit(form) for form in found]))


def _alike(found: list[Form]) -> bool:
    """Whether all are outer products of one block shape."""
    blocks = [form.block for form in found if isinstance(form, Outer)]
    return len(blocks) == len(found) and len(set(blocks)) == 1


def _end_to_end(found: list[Form]) -> Form:
    """Forms of one kind with their positions (axis 1) concatenated."""
    return found[0] if len(found) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)


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
        >>> explicit(Outer(jnp.ones((4, 1, 1, 3)), jnp.ones((4, 1, 1, 2)))).shape
        (4, 6)
    """
    raise TypeError(f"per_example: {type(form).__name__} is no form of a gradient.")


@explicit.register
def _(form: Outer) -> Array:
    return form.laid_out(gradients(form.a, form.delta))


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
        ['Explicit', 'Outer']
    """
    return [joined(uses, leaf, tape.examples) for uses, leaf in zip(tape.uses, tape.leaves, strict=True)]


def settled(form: Form) -> Form:
    """The form, written out where that is both the cheapest way to its norm and small: what is needed twice is then
    formed once.

    Example:
        >>> settled(Outer(jnp.ones((4, 9, 1, 3)), jnp.ones((4, 9, 1, 2)))).grads.shape
        (4, 6)
    """
    if isinstance(form, Outer) and strategy(form) == MATERIALISE and fits(form.a, form.delta):
        return Explicit(explicit(form))
    return form


PRODUCT, GRAM, MATERIALISE = "norm product", "Gram", "materialise in chunks"


def strategy(form: Outer) -> str:
    """How the norms of an `Outer` are found, chosen by shapes: what costs the fewest operations.

    "norm product" (|a|^2 |delta|^2) for T = 1; "Gram" (<a a', delta delta'>) where T (d + p) < d p; else "materialise
    in chunks".

    Example:
        >>> strategy(Outer(jnp.ones((4, 9, 1, 3)), jnp.ones((4, 9, 1, 2))))
        'materialise in chunks'
    """
    times, (_, d, p) = form.a.shape[1], form.block
    if times == 1:
        return PRODUCT
    return GRAM if times * (d + p) < d * p else MATERIALISE

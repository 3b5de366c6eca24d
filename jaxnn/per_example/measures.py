"""Norms, inner products, squares and deviations of each form of gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import EXACT, accumulation_dtype, exact_einsum
from jaxnn.ops.gather import take_rows_weight_grad
from jaxnn.ops.steps import OTHER_BYTES, Step, chunks, step_of, sum_examples
from jaxnn.per_example import blocks
from jaxnn.per_example.blocks import for_examples, of_pairs, over_examples, sum_over_chunks
from jaxnn.per_example.chunked import Chunked, alike
from jaxnn.per_example.forms import GRAM, MATERIALISE, PRODUCT, Explicit, Form, Mixed, Pieces, strategy
from jaxnn.per_example.gram_norms import gram_norms, inner_product
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.sparse import Sparse
from jaxnn.per_example.tied import Tied, cross, cross_of_pairs, fit
from jaxnn.placement import filled_as, shards
from jaxnn.tape import Whole
from jaxnn.types import Array


def _unknown(form: Form) -> TypeError:
    return TypeError(f"per_example: expected a form of a gradient, got {type(form).__name__}.")


@functools.singledispatch
def sq_norm(form: Form) -> Array:
    """|g_i|^2, (N,)."""
    raise _unknown(form)


@sq_norm.register
def _(form: Outer) -> Array:
    chosen = strategy(form)
    if chosen == PRODUCT:
        a, delta = (jnp.sum(jnp.square(x[:, 0].astype(form.dtype)), axis=-1) for x in (form.a, form.delta))
        return jnp.sum(a * delta, axis=-1)
    if chosen == GRAM:
        return blocks.in_gram_chunks(gram_norms, blocks.bytes_of_gram(form), form.a, form.delta)
    return for_examples(lambda g: jnp.sum(jnp.square(g), axis=(1, 2, 3)), form)


@sq_norm.register
def _(form: Chunked) -> Array:
    return form.sum(lambda c: sq_norm(form.at(c)))


@sq_norm.register
def _(form: Sparse) -> Array:
    return jnp.sum(jnp.square(form.values), axis=(1, 2))


@sq_norm.register
def _(form: Tied) -> Array:
    if strategy(form) == MATERIALISE:
        return for_examples(_row_norms, form)
    # The last term may be negative: where it cancels the others, rounding can leave the sum below 0.
    found = sq_norm(form.sparse) + sq_norm(form.outer) + 2 * cross(form.sparse, form.outer)
    return jnp.maximum(found, jnp.zeros((), found.dtype))


@sq_norm.register
def _(form: Mixed) -> Array:
    return for_examples(_row_norms, form)


def _row_norms(g: Array) -> Array:
    return jnp.sum(jnp.square(g), axis=1)


@sq_norm.register
def _(form: Explicit) -> Array:
    return jnp.sum(jnp.square(form.grads), axis=1)


@sq_norm.register
def _(form: Pieces) -> Array:
    return functools.reduce(jnp.add, [sq_norm(part) for part in form.parts])


AT_ONCE = 32
"""Examples in one step of a sum of squares: with fewer, reading and writing the running sum takes most of the time."""


def sum_of_squares(x: Array, over: int = 1) -> Array:
    """sum over the first axis of x^2 / over."""
    at_once = functools.partial(squares_at_once, over=over)
    if shards(x) > 1:  # steps over single examples would send each from its device to all
        return at_once(x)
    return lax.platform_dependent(x, cpu=lambda x: squares_in_steps(x) / over, default=at_once)


def squares_in_steps(x: Array) -> Array:
    """The sum of x^2 on CPU: AT_ONCE terms per step, unrolled so that XLA fuses each step into one pass."""

    def terms(x: Array) -> Array:
        return functools.reduce(jnp.add, [jnp.square(x[i]) for i in range(x.shape[0])])

    return sum_examples(terms, Step(step_of(x.shape[0], 1, AT_ONCE)), x)


def squares_at_once(x: Array, over: int) -> Array:
    """The sum of x^2 / over elsewhere: one reduction, into which XLA fuses what makes x."""
    # Divided inside the sum: what follows a reduction is a kernel of its own.
    return jnp.sum(jnp.square(x) * jnp.asarray(1 / over, x.dtype), axis=0)


def inner(form: Form, other: Form) -> Array:
    """<g_i, h_j> of all pairs, (N, M)."""
    if isinstance(form, Chunked) and isinstance(other, Chunked) and alike(form, other):
        return form.sum(lambda c: inner(form.at(c), form.at(c) if other is form else other.at(c)))
    if isinstance(form, Chunked) or isinstance(other, Chunked):
        return inner(*(each.whole() if isinstance(each, Chunked) else each for each in (form, other)))
    if isinstance(form, Outer) and isinstance(other, Outer) and form.block == other.block:
        return _inner_outer(form, other)
    if isinstance(form, Sparse) and isinstance(other, Sparse):
        return _inner_sparse(form, other)
    if isinstance(form, Sparse) and isinstance(other, Outer) and fit(form, other):
        return cross_of_pairs(form, other)
    if isinstance(form, Tied) and isinstance(other, Tied) and _cheaper_in_slices(form, other):
        return _inner_in_slices(form, other)
    if isinstance(form, Tied) and isinstance(other, Tied | Sparse | Outer):
        return inner(form.sparse, other) + inner(form.outer, other)
    if isinstance(other, Tied | Sparse) and isinstance(form, Sparse | Outer):
        return inner(other, form).T
    if isinstance(form, Pieces) and isinstance(other, Pieces) and form.views == other.views:
        pairs = zip(form.parts, other.parts, strict=True)
        return functools.reduce(jnp.add, [inner(one, another) for one, another in pairs])
    return of_pairs(_products_of_rows, form, other)


def _inner_outer(form: Outer, other: Outer) -> Array:
    """<g_i, h_j> from Gram matrices of positions, or from slices of gradients."""
    if _cheaper_in_slices(form, other):
        return _inner_in_slices(form, other)
    m, s, t, groups = other.examples, form.times, other.times, form.block[0]
    others = other.a, other.delta

    def rows(a: Array, delta: Array) -> Array:  # (k, s, G, d), (k, s, G, p) -> (k, m)
        seen, errors = (
            exact_einsum("ksgd,mtgd->gksmt", a, others[0]),
            exact_einsum("ksgp,mtgp->gksmt", delta, others[1]),
        )
        return inner_product(seen, errors, (0, 2, 4))

    # Rows at a time, with their two Gram arrays (G, k, s, m, t).
    bytes_each = 2 * groups * s * m * t * accumulation_dtype(form.dtype, other.dtype).itemsize
    return blocks.in_gram_chunks(rows, bytes_each, form.a, form.delta)


def _cheaper_in_slices(form: Outer | Tied, other: Outer | Tied) -> bool:
    """Whether <g_i, h_j> of all pairs take fewer operations from gradients than from pairs of positions."""
    # Multiply-adds: all pairs of positions take (d + p) each, those of a lookup and a product p; gradients take d p per
    # position to form (n s + m t), and d p per pair of examples (n m) to multiply.
    n, m, s, t, (_, d, p) = form.examples, other.examples, *map(_times, (form, other)), form.block
    mixed = s * _lookups(other) + t * _lookups(form)
    return n * m * (s * t * (d + p) + mixed * p) > ((n * s + m * t) + n * m) * d * p


def _times(form: Outer | Tied) -> int:
    return (form.outer if isinstance(form, Tied) else form).times


def _lookups(form: Outer | Tied) -> int:
    return form.sparse.indices.shape[1] if isinstance(form, Tied) else 0


def _inner_in_slices(form: Outer | Tied, other: Outer | Tied) -> Array:
    """<g_i, h_j> from gradients, summed over slices of the outputs, since all may not fit in memory."""
    return sum_over_chunks(_products_of_rows, *([form] if other is form else [form, other]))


def _products_of_rows(g: Array, h: Array | None = None) -> Array:
    """<g_i, h_j> over all axes but the first; h = g by default."""
    rows = g.reshape(g.shape[0], -1)
    return exact_einsum("ip,jp->ij", rows, rows if h is None else h.reshape(h.shape[0], -1))


def _inner_sparse(form: Sparse, other: Sparse) -> Array:
    """<g_i, h_j> by one dense table per i, in which all h_j look up their rows."""

    # Comparing all pairs of indices would take T^2 per pair of examples; a table of one example fits in memory.
    def row(pair: tuple[Array, Array]) -> Array:
        table = take_rows_weight_grad(*pair, form.rows)
        seen = table.at[other.indices].get(mode="fill", fill_value=0)
        return jnp.sum(seen * other.values, axis=(1, 2))

    return lax.map(row, (form.indices, form.values))


@functools.singledispatch
def squares(form: Form, over: int = 1) -> Array:
    """sum_i g_i^2 / over, element-wise, (P,).

    For T = 1 an `Outer` has (a^2)' (delta^2); for T > 1 it does not factor.
    """
    raise _unknown(form)


@squares.register
def _(form: Outer, over: int = 1) -> Array:
    if form.times == 1:
        seen, errors = (jnp.square(x[:, 0].astype(form.dtype)) for x in (form.a, form.delta))
        return form.laid_out(exact_einsum("ngd,ngp->gdp", seen, errors / over))
    return form.laid_out(over_examples(functools.partial(sum_of_squares, over=over), form))


@squares.register
def _(form: Chunked, over: int = 1) -> Array:
    return form.put_together(functools.partial(squares, over=over))


@squares.register
def _(form: Sparse, over: int = 1) -> Array:
    return take_rows_weight_grad(form.indices, jnp.square(form.values) / over, form.rows).reshape(-1)


@squares.register
def _(form: Tied | Mixed, over: int = 1) -> Array:
    return over_examples(functools.partial(sum_of_squares, over=over), form)


@squares.register
def _(form: Explicit, over: int = 1) -> Array:
    return sum_of_squares(form.grads, over)


@squares.register
def _(form: Pieces, over: int = 1) -> Array:
    return form.placed([squares(part, over) for part in form.parts])


@functools.singledispatch
def deviations(form: Form, over: int = 1) -> Array:
    """sum_i (g_i - mean g)^2 / over, element-wise, (P,), in two passes: >= 0, and accurate where the mean is large."""
    raise _unknown(form)


@deviations.register
def _(form: Outer, over: int = 1) -> Array:
    if form.times > 1:
        mean = form.total() / form.examples
        return form.laid_out(over_examples(lambda g: sum_of_squares(g - mean[None], over), form))
    a, delta = (x[:, 0].astype(form.dtype) for x in (form.a, form.delta))
    in_steps, at_once = (functools.partial(f, over=over) for f in (deviations_in_steps, deviations_at_once))
    if shards((a, delta)) > 1:
        return form.laid_out(at_once(a, delta))
    return form.laid_out(lax.platform_dependent(a, delta, cpu=in_steps, default=at_once))


@deviations.register
def _(form: Chunked, over: int = 1) -> Array:
    return form.put_together(functools.partial(deviations, over=over))


@deviations.register
def _(form: Sparse, over: int = 1) -> Array:
    mean = take_rows_weight_grad(form.indices, form.values, form.rows) / form.indices.shape[0]
    there = mean.at[form.indices].get(mode="fill", fill_value=0)
    found = take_rows_weight_grad(form.indices, jnp.square(form.values - there), form.rows)
    inside = (form.indices < form.rows).astype(mean.dtype)
    absent = form.indices.shape[0] - take_rows_weight_grad(form.indices, inside[:, :, None], form.rows)
    return (found + absent * jnp.square(mean)).reshape(-1) / over


@deviations.register
def _(form: Tied | Mixed, over: int = 1) -> Array:
    total = form.total() if isinstance(form, Tied) else over_examples(lambda g: jnp.sum(g, axis=0), form)
    mean = total / form.examples
    return over_examples(lambda g: sum_of_squares(g - mean[None], over), form)


@deviations.register
def _(form: Explicit, over: int = 1) -> Array:
    def in_steps(grads: Array) -> Array:  # a product, since XLA's reduction over the first of two axes is slow on a CPU
        mean = Whole(grads).grad(precision=EXACT) / grads.shape[0]
        return squares_in_steps(grads - mean[None]) / over

    def at_once(grads: Array) -> Array:
        return squares_at_once(grads - jnp.mean(grads, axis=0, keepdims=True), over)

    if shards(form.grads) > 1:
        return at_once(form.grads)
    return lax.platform_dependent(form.grads, cpu=in_steps, default=at_once)


@deviations.register
def _(form: Pieces, over: int = 1) -> Array:
    return form.placed([deviations(part, over) for part in form.parts])


def deviations_in_steps(a: Array, delta: Array, over: int) -> Array:
    """sum_i (a_i' delta_i - mean)^2 / over on CPU, a (N, G, d), delta (N, G, p) -> (G, d, p): AT_ONCE terms per step,
    unrolled, without materialized gradients."""
    mean = exact_einsum("ngd,ngp->gdp", a, delta) / a.shape[0]

    def added(total: Array, pairs: tuple[Array, Array]) -> tuple[Array, None]:
        for x, y in zip(*pairs, strict=True):
            total = total + jnp.square(x[:, :, None] * y[:, None, :] - mean)
        return total, None

    count = a.shape[0] // AT_ONCE
    whole = count * AT_ONCE
    steps = jax.tree.map(lambda x: x[:whole].reshape(count, AT_ONCE, *x.shape[1:]), (a, delta))
    total = lax.scan(added, filled_as(jax.typeof(mean)), steps)[0]
    return added(total, (a[whole:], delta[whole:]))[0] / over


def deviations_at_once(a: Array, delta: Array, over: int) -> Array:
    """The same elsewhere: reductions over (N, G, d, p), whose terms XLA computes inside them.

    In chunks of OTHER_BYTES, the bound on memory should a compiler materialize the terms.
    """
    n, bytes_each = a.shape[0], a[0].size * delta.shape[-1] * a.dtype.itemsize
    step = chunks(bytes_each, OTHER_BYTES, a, delta, apart=True)

    def gradients(a: Array, delta: Array) -> Array:
        return a[..., :, None] * delta[..., None, :]

    # In one chunk, where launches cost most, a sum takes one kernel and a product two. The barrier hides from XLA that
    # both sums are over the same gradients: it would make them one Triton kernel that takes minutes to compile.
    if step.size == n:
        mean = jnp.sum(gradients(a, delta) * jnp.asarray(1 / n, a.dtype), axis=0)
    else:
        mean = exact_einsum("ngd,ngp->gdp", a, delta) / n
    mean = lax.optimization_barrier(mean)

    def some(a: Array, delta: Array) -> Array:
        return squares_at_once(gradients(a, delta) - mean[None], over)

    return sum_examples(some, step, a, delta)

"""Inner products of per-example gradients: with each other, with another batch's, with a direction."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype, exact_einsum, safe_divide
from jaxnn.ops.conv import conv
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.forms import forms
from jaxnn.per_example.measures import inner
from jaxnn.per_example.norms import norms
from jaxnn.per_example.placing import ROWS, returns
from jaxnn.per_example.select import require_independent
from jaxnn.tape import (
    Addition,
    Convolution,
    GroupedProduct,
    Lookup,
    Placed,
    Product,
    Scaling,
    SoftmaxProduct,
    Tape,
    Use,
    Whole,
)
from jaxnn.types import Array, Params


@returns(ROWS)
def gram(tape: Tape, other: Tape | None = None) -> Array:
    """<g_i, h_j>, (N, M), float32 or float64: of all pairs of examples, g of one tape and h of the other (or the same).

    T = 1, over a weight matrix and its bias: (A A' + 1) . (D D'), the rows of A and D being a_i and delta_i. With h the
    gradients of test examples, -eta <g_i, h_j> is, to first order, the change of test loss j by a gradient step of
    learning rate eta on example i.

    Args:
        tape: of N examples, from `record`.
        other: a tape of M >= 1 examples and the same parameters; None for `tape` itself.

    Raises:
        ValueError: tapes of different parameters.

    Reference: Pruthi, G., Liu, F., Kale, S. & Sundararajan, M. (2020). Estimating training data influence by tracing
        gradient descent, section 3.1 (influence).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> gram(sample_tape())
        Array([[ 6.,  8.],
               [ 8., 40.]], dtype=float32)
    """
    other = tape if other is None else other
    for each in (tape, other):
        require_independent("gram", each, 1)
    here, there = (dict(zip(each.paths, shapes_of(each), strict=True)) for each in (tape, other))
    if here != there:
        raise ValueError(f"gram: the tapes must be of the same parameters, got {here} and {there}.")
    mine = forms(tape)
    others = mine if other is tape else forms(other)
    found = [inner(form, h) for form, h in zip(mine, others, strict=True)]
    return _sum(found, (tape.examples, other.examples), tape)


@returns(ROWS)
def cosine(tape: Tape, other: Tape | None = None) -> Array:
    """<g_i, h_j> / (|g_i| |h_j|), (N, M), 0 where a gradient is 0; in [-1, 1] up to rounding.

    Args:
        tape, other: as for `gram`.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> bool(jnp.allclose(cosine(sample_tape())[0], jnp.array([1.0, 8 / 240**0.5])))
        True
    """
    products = gram(tape, other)
    lengths = norms(tape)
    others = lengths if other is None else norms(other)
    return safe_divide(products, lengths[:, None] * others[None, :])


@returns(ROWS)
def jvp_examples(tape: Tape, direction: Params) -> Array:
    """g_i . v, (N,), float32 or float64: the directional derivative of each example's loss along v.

    Args:
        tape: of N examples, from `record`.
        direction: v, a pytree like `params`.

    Raises:
        ValueError: a direction of another structure or other shapes.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> jvp_examples(sample_tape(), {"w": jnp.array([[1.0], [0.0]]), "b": jnp.array([1.0])})
        Array([2., 8.], dtype=float32)
    """
    require_independent("jvp_examples", tape, 1)
    leaves, structure = jax.tree.flatten(direction)
    shapes = tuple(jnp.shape(v) for v in leaves)
    if structure != tape.structure or shapes != shapes_of(tape):
        raise ValueError(
            f"jvp_examples: direction must be a pytree like params, {tape.structure} with shapes {shapes_of(tape)}, "
            f"got {structure} with shapes {shapes}."
        )
    found = [
        along(use, accumulate(jnp.asarray(v)).reshape(use.shape))
        for uses, v in zip(tape.uses, leaves, strict=True)
        for use in uses
    ]
    return _sum(found, (tape.examples,), tape)


def shapes_of(tape: Tape) -> tuple[Any, ...]:
    """The parameters' shapes."""
    return tuple(leaf.shape for leaf in tape.leaves)


@functools.singledispatch
def along(use: Use, v: Array) -> Array:
    """g_i . v for one use, v of the use's shape: delta times the change of the output along v."""
    raise TypeError(f"per_example: expected a use of jaxnn.tape, got {type(use).__name__}.")


@along.register
def _(use: Product, v: Array) -> Array:
    return _dot(exact_einsum("ntd,dp->ntp", use.a, v), use.delta)


@along.register
def _(use: SoftmaxProduct, v: Array) -> Array:
    form, logits = Chunked(use), use.logits
    return form.sum(lambda c: along(use.at(c), logits.of_chunk(v, c, use.class_axis)))


@along.register
def _(use: GroupedProduct, v: Array) -> Array:
    return _dot(exact_einsum("ntgd,dgp->ntgp", use.a, v), use.delta)


@along.register
def _(use: Placed, v: Array) -> Array:
    return along(use.use, use.view(v).reshape(use.use.shape))


@along.register
def _(use: Convolution, v: Array) -> Array:
    geometry = {name: getattr(use, name) for name in ("stride", "padding", "dilation", "groups")}
    with jax.default_matmul_precision("highest"):
        return _dot(conv(accumulate(use.a), v, **geometry), use.delta)


@along.register
def _(use: Addition, v: Array) -> Array:
    return exact_einsum("ntd,d->n", accumulate(use.delta), v)


@along.register
def _(use: Scaling, v: Array) -> Array:
    return exact_einsum("ntd,d->n", accumulate(use.a) * accumulate(use.delta), v)


@along.register
def _(use: Lookup, v: Array) -> Array:
    return _dot(v.at[use.indices].get(mode="fill", fill_value=0, wrap_negative_indices=False), use.delta)


@along.register
def _(use: Whole, v: Array) -> Array:
    n = use.grads.shape[0]
    return exact_einsum("np,p->n", accumulate(use.grads).reshape(n, -1), v.reshape(-1))


def _dot(x: Array, delta: Array) -> Array:
    """The sum over all but the first axis of x . delta."""
    return jnp.sum(x * accumulate(delta), axis=tuple(range(1, x.ndim)))


def _sum(found: list[Array], shape: tuple[int, ...], tape: Tape) -> Array:
    if not found:
        return jnp.zeros(shape, accumulation_dtype(tape.losses.dtype))
    return functools.reduce(jnp.add, found)

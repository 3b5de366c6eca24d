"""Gradients of single examples some at a time, so that not all of them are ever in memory.

Some examples, all entries: what is found for each example, or summed over examples. All examples, some of the p
outputs: inner products of each with each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.ops.steps import OTHER_BYTES, by_steps, map_examples, step_of, sum_examples
from jaxnn.per_example.outer import Outer
from jaxnn.placement import filled_as
from jaxnn.types import Array

CHUNK_BYTES = 2**25
"""How much the gradients of all examples, of one parameter or a slice of it, may take: 32 MiB."""


def for_examples(f: Callable[[Array], Array], form: Outer) -> Array:
    """f of the gradients (n, G, d, p) of some examples, (n, ...), for all of them."""
    return _in_steps(map_examples, f, form)


def over_examples(f: Callable[[Array], Array], form: Outer) -> Array:
    """The sum of f of the gradients (n, G, d, p) of some examples, over all of them."""
    return _in_steps(sum_examples, f, form)


def _in_steps(walk: Callable[..., Array], f: Callable[[Array], Array], form: Outer) -> Array:
    leaves, structure = jax.tree.flatten(form)

    def some(*leaves: Array) -> Array:
        return f(jax.tree.unflatten(structure, leaves).gradients())

    return by_steps(lambda step: functools.partial(walk, some, step), _bytes_each(form), *leaves)


def examples_of_chunk(form: Outer) -> int:
    """How many examples' gradients are in memory together, on platforms other than the CPU (there it is fewer)."""
    return step_of(form.examples, _bytes_each(form), OTHER_BYTES)


def _bytes_each(form: Outer) -> int:
    """What the gradient of one example, its a and its delta take."""
    groups, d, p = form.block
    return groups * (d * p + form.times * (d + p)) * form.dtype.itemsize


def fits(form: Outer) -> bool:
    """Whether the gradients of all examples take CHUNK_BYTES at most."""
    return form.examples * math.prod(form.block) * form.dtype.itemsize <= CHUNK_BYTES


def sum_over_chunks(f: Callable[..., Array], *forms: Outer) -> Array:
    """The sum of f(slice of the gradients of each form) over slices; each slice (N, G, d, outputs)."""
    output = sum(form.examples * form.block[0] * form.block[1] * form.dtype.itemsize for form in forms)
    p = forms[0].block[2]
    slices = math.ceil(p / max(CHUNK_BYTES // max(output, 1), 1))
    if slices <= 1:
        return f(*(form.gradients() for form in forms))
    size = math.ceil(p / slices)

    def of_slice(start: Array) -> Array:
        return f(*(form.at_outputs(start, size).gradients() for form in forms))

    def add(total: Array, start: Array) -> tuple[Array, None]:
        return total + of_slice(start), None

    starts = jnp.arange(0, p, size)
    shape = jax.eval_shape(of_slice, starts[0])
    return lax.scan(add, filled_as(shape), starts)[0]

"""Per-example gradients in chunks, so that never all of them are in memory.

Results per example and sums over examples take all entries of some examples at a time; inner products of all pairs take
all examples, at some of the layer's p outputs at a time. Shapes (N, G, d, p) are those of `outer.Outer`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.ops.steps import OTHER_BYTES, Step, by_steps, map_examples, step_of, sum_examples
from jaxnn.per_example.outer import Outer
from jaxnn.placement import filled_as
from jaxnn.types import Array

CHUNK_BYTES = 2**25
"""The most that gradients materialized for all examples, or (on CPU) a chunk of Gram matrices, may take: 32 MiB."""


def for_examples(f: Callable[[Array], Array], form: Outer) -> Array:
    """f, from gradients (n, G, d, p) to (n, ...), mapped over all examples in chunks: (N, ...)."""
    return _in_steps(map_examples, f, form)


def over_examples(f: Callable[[Array], Array], form: Outer) -> Array:
    """The sum over chunks of f of the gradients (n, G, d, p) in each."""
    return _in_steps(sum_examples, f, form)


def _in_steps(walk: Callable[..., Array], f: Callable[[Array], Array], form: Outer) -> Array:
    leaves, structure = jax.tree.flatten(form)

    def some(*leaves: Array) -> Array:
        return f(jax.tree.unflatten(structure, leaves).gradients())

    return by_steps(lambda step: functools.partial(walk, some, step), _bytes_each(form), *leaves)


def in_gram_chunks(f: Callable[..., Array], bytes_each: int, *arrays: Array) -> Array:
    """f(*arrays), from arrays (n, ...) to (n, ...), in chunks of examples whose Gram matrices fit in memory.

    On CPU they fit in CHUNK_BYTES, elsewhere in OTHER_BYTES; `bytes_each` are those of one example.
    """
    n = arrays[0].shape[0]
    most = CHUNK_BYTES // max(bytes_each, 1)
    if most >= n:
        return f(*arrays)

    def some_rows(*arrays: Array) -> Array:  # neighbours, the last chunk smaller
        one = lambda rows: f(*(x[None] for x in rows))[0]  # noqa: E731 (lax.map needs one row's function)
        return lax.map(one, arrays, batch_size=max(most, 1))

    step = Step(step_of(n, bytes_each, OTHER_BYTES), apart=True)
    return lax.platform_dependent(*arrays, cpu=some_rows, default=functools.partial(map_examples, f, step))


def examples_of_chunk(form: Outer) -> int:
    """Examples in a chunk on platforms other than the CPU (on the CPU: at most as many)."""
    return step_of(form.examples, _bytes_each(form), OTHER_BYTES)


def examples_of_gram_chunk(form: Outer) -> int:
    """The same for chunks of Gram matrices."""
    if form.examples * bytes_of_gram(form) <= CHUNK_BYTES:
        return form.examples
    return step_of(form.examples, bytes_of_gram(form), OTHER_BYTES)


def bytes_of_gram(form: Outer) -> int:
    """Bytes of the two Gram matrices of one example."""
    return 2 * form.block[0] * form.times**2 * form.dtype.itemsize


def _bytes_each(form: Outer) -> int:
    """Bytes of the gradient of one example, its a and its delta."""
    groups, d, p = form.block
    return groups * (d * p + form.times * (d + p)) * form.dtype.itemsize


def fits(form: Outer) -> bool:
    """Whether the gradients of all examples take at most CHUNK_BYTES."""
    return form.examples * math.prod(form.block) * form.dtype.itemsize <= CHUNK_BYTES


def sum_over_chunks(f: Callable[..., Array], *forms: Outer) -> Array:
    """The sum, over slices of the p outputs, of f of the gradients (N, G, d, slice) of each form."""
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

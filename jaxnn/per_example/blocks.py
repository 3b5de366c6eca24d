"""Per-example gradients in chunks, so that never all of them are in memory.

Results per example and sums over examples take all entries of some examples at a time, of any form of gradient. Inner
products of all pairs take all examples, at some of the layer's p outputs at a time, or blocks of pairs. Gradients are
(N, G, d, p) for an `outer.Outer`, else (N, P).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.ops.steps import OTHER_BYTES, Step, by_steps, chunks, map_examples, step_of, sum_examples
from jaxnn.per_example.outer import Outer
from jaxnn.placement import filled_as, shards
from jaxnn.types import Array, DType, Shape

CHUNK_BYTES = 2**25
"""The most that gradients materialized for all examples, or (on CPU) a chunk of Gram matrices, may take: 32 MiB."""


F = TypeVar("F", bound="Materializable")


class Materializable(Protocol):
    """A form of gradients: a pytree whose arrays (N, ...) all have the examples on axis 0."""

    @property
    def examples(self) -> int:
        """N, the number of examples."""

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example and of the arrays that it is made from."""

    def gradients(self) -> Array:
        """g_i, (N, ...)."""


def for_examples(f: Callable[[Array], Array], form: Materializable) -> Array:
    """f, from gradients (n, ...) to (n, ...), mapped over all examples in chunks: (N, ...)."""
    return _in_steps(map_examples, f, form)


def over_examples(f: Callable[[Array], Array], form: Materializable) -> Array:
    """The sum over chunks of f of the gradients (n, ...) in each."""
    return _in_steps(sum_examples, f, form)


def _in_steps(walk: Callable[..., Array], f: Callable[[Array], Array], form: Materializable) -> Array:
    narrow, whole = _narrow(form)
    return by_steps(
        lambda step: functools.partial(walk, lambda *arrays: f(whole(*arrays).gradients()), step),
        form.bytes_each,
        *narrow,
    )


def _narrow(form: F) -> tuple[list[Array], Callable[..., F]]:
    """The arrays of a form without their axes of size 1, and the function that makes the form of some examples again.

    For loops: XLA on a CPU copies an array with such an axis, that of a single group, before a loop reads it.
    """
    leaves, structure = jax.tree.flatten(form)

    def whole(*arrays: Array) -> F:
        shaped = [x.reshape(x.shape[0], *leaf.shape[1:]) for x, leaf in zip(arrays, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    return [x.reshape(x.shape[0], *(size for size in x.shape[1:] if size != 1)) for x in leaves], whole


def in_gram_chunks(f: Callable[..., Array], bytes_each: int, *arrays: Array) -> Array:
    """f(*arrays), from arrays (n, ...) to (n, ...), in chunks of examples whose Gram matrices fit in memory.

    On CPU they fit in CHUNK_BYTES, elsewhere in OTHER_BYTES; `bytes_each` are those of one example.
    """
    most = CHUNK_BYTES // max(bytes_each, 1)
    if most >= arrays[0].shape[0]:
        return f(*arrays)

    def some_rows(*arrays: Array) -> Array:  # neighbours, the last chunk smaller
        one = lambda rows: f(*(x[None] for x in rows))[0]  # noqa: E731 (lax.map needs one row's function)
        return lax.map(one, arrays, batch_size=max(most, 1))

    few, many = (chunks(bytes_each, most, *arrays, apart=True) for most in (CHUNK_BYTES, OTHER_BYTES))
    here = some_rows if shards(arrays) == 1 else functools.partial(map_examples, f, few)
    return lax.platform_dependent(*arrays, cpu=here, default=functools.partial(map_examples, f, many))


def explicit(form: Materializable) -> Array:
    """The materialized gradients, (N, P), the parameter's entries in row-major order."""
    return form.laid_out(form.gradients()) if isinstance(form, Outer) else form.gradients()


def examples_of_chunk(form: Materializable) -> int:
    """Examples in a chunk on platforms other than the CPU (on the CPU: at most as many)."""
    return step_of(form.examples, form.bytes_each, OTHER_BYTES)


def examples_of_gram_chunk(form: Outer) -> int:
    """The same for chunks of Gram matrices."""
    return examples_of_chunk_of(form.examples, bytes_of_gram(form))


def examples_of_chunk_of(n: int, bytes_each: int) -> int:
    """The same for `in_gram_chunks`."""
    return n if n * bytes_each <= CHUNK_BYTES else step_of(n, bytes_each, OTHER_BYTES)


def bytes_of_gram(form: Outer) -> int:
    """Bytes of the two Gram matrices of one example."""
    return 2 * form.block[0] * form.times**2 * form.dtype.itemsize


def fits(form: Materializable) -> bool:
    """Whether the gradients of all examples take at most CHUNK_BYTES."""
    return form.examples * form.gradient_bytes <= CHUNK_BYTES


def of_pairs(f: Callable[[Array, Array], Array], form: Materializable, other: Materializable) -> Array:
    """f, from gradients (n, P) and (m, P) to (n, m), of all pairs, in blocks: (N, M)."""
    # Those of `other` are formed anew for each chunk of `form`, which is therefore the larger.
    (mine, of_mine), (others, of_others) = _narrow(form), _narrow(other)
    few = step_of(other.examples, other.gradient_bytes, CHUNK_BYTES)

    def rows(*arrays: Array) -> Array:
        g = explicit(of_mine(*arrays))
        return map_examples(lambda *arrays: f(g, explicit(of_others(*arrays))).T, Step(few), *others).T

    return map_examples(rows, Step(step_of(form.examples, form.gradient_bytes, OTHER_BYTES)), *mine)


class Sliceable(Materializable, Protocol):
    """One with gradients of shape `block`, (G, d, p), of which slices of the p outputs are formed alone."""

    @property
    def block(self) -> Shape:
        """(G, d, p)."""

    @property
    def dtype(self) -> DType:
        """The dtype of the gradients."""

    def at_outputs(self, start: Array, size: int) -> Sliceable:
        """The form of outputs start to start + size - 1, start a multiple of size; gradients beyond p are 0."""


def sum_over_chunks(f: Callable[..., Array], *forms: Sliceable) -> Array:
    """The sum, over slices of the p outputs, of f of the gradients (N, ...) of each form at these outputs."""
    output = sum(form.examples * form.block[0] * form.block[1] * form.dtype.itemsize for form in forms)
    p = forms[0].block[2]
    slices = math.ceil(p / max(CHUNK_BYTES // max(output, 1), 1))
    if slices <= 1:
        return f(*(form.gradients() for form in forms))
    size = math.ceil(p / slices)

    narrow = [_narrow(form) for form in forms]

    def of_slice(start: Array) -> Array:
        return f(*(whole(*arrays).at_outputs(start, size).gradients() for arrays, whole in narrow))

    def add(total: Array, start: Array) -> tuple[Array, None]:
        return total + of_slice(start), None

    starts = jnp.arange(0, p, size)
    shape = jax.eval_shape(of_slice, starts[0])
    return lax.scan(add, filled_as(shape), starts)[0]

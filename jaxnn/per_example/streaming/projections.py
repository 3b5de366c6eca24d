"""Random projections of per-example gradients inside the backward pass."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key, require_positive_int
from jaxnn.numerics import exact_einsum
from jaxnn.per_example.blocks import explicit
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.forms import Explicit, Form, Mixed, Pieces
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.sparse import Sparse
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.per_example.tied import Tied
from jaxnn.types import Array, DType, Key, PyTree, Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Projection(Statistic):
    """P' g_i, k random numbers of each gradient, (N, k), by which <P' g, P' h> estimates <g, h> without bias.

    For a product with inputs a and cotangents delta P is a Kronecker product of two Gaussian matrices, P_in (D_in, k1)
    and P_out (D_out, k2), and g_i is never formed:

        P' g_i = (a_i P_in)' (delta_i P_out) / sqrt(k1 k2)

    A convolution has patches for inputs, a table rows; other parameters, such as biases, have k1 = 1. A side with as
    many numbers as entries is taken as it is. Two gradients are comparable if they come from the same key and the same
    function of the same parameters, of any batch.

    Args:
        key: a PRNG key; the same for gradients that are to be compared.
        k: numbers in all, split over the parameters by size; a parameter too small for one number is added to those of
            the largest.
        per_layer: (k1, k2) for each parameter instead: a dict {path: (N, k1 k2)}, fewer numbers where the parameter has
            fewer entries.

    Raises:
        TypeError: not a PRNG key.
        ValueError: both or neither of k and per_layer; more numbers than the parameters have entries.

    Reference: Choe, S. K., Ahn, H., Bae, J., et al. (2024). What is your data worth to GPT? LLM-scale data valuation
        with influence functions, section 3.1 (LoGra). Johnson, W. B. & Lindenstrauss, J. (1984). Extensions of
        Lipschitz mappings into a Hilbert space.

    Example:
        >>> from jaxnn.per_example import value_and_grad
        >>> loss = lambda w, x: jnp.sum((x @ w) ** 2)
        >>> vg = value_and_grad(loss, Projection(jax.random.key(0), 6))
        >>> vg(jnp.ones((4, 3)), jnp.ones((5, 4)))[0][1].shape
        (5, 6)
    """

    adds_up = True
    degree = 1

    key: Key
    k: int | None = None
    per_layer: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require_key("Projection", self.key)
        if (self.k is None) == (self.per_layer is None):
            raise ValueError(
                f"Projection: expected one of k and per_layer, got k={self.k} and per_layer={self.per_layer}."
            )
        if self.per_layer is not None and (not isinstance(self.per_layer, tuple | list) or len(self.per_layer) != 2):
            raise ValueError(f"Projection: per_layer must be a pair (k1, k2), got {self.per_layer!r}.")
        for number in (self.k,) if self.per_layer is None else self.per_layer:
            require_positive_int("Projection", "the number of projections", number)

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part | None:
        sizes = [math.prod(p.shape) for p in params]
        index = params.index(param)
        shared = jax.random.fold_in(self.key, index)
        if self.per_layer is not None:
            wanted = math.prod(self.per_layer)
            self._require_at_most(wanted, max(sizes), "the largest parameter has")
            return Part(param.path, (min(wanted, sizes[index]),), shared=shared) if sizes[index] else None
        self._require_at_most(self.k or 0, sum(sizes), "the parameters have")
        if not sizes[index]:
            return None
        counts = apportioned(self.k or 0, sizes)
        largest = max(range(len(params)), key=counts.__getitem__)
        place = index if counts[index] else largest
        return Part(params[place].path, (counts[place],), shared=shared)

    def _require_at_most(self, wanted: int, entries: int, whose: str) -> None:
        if wanted > entries:
            raise ValueError(
                f"Projection: expected no more numbers than {whose} entries, {entries:,}, got {wanted:,}. Use fewer, "
                "or per_example.materialize(per_example.record(loss)(...)) for the gradients themselves."
            )

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        (count,) = part.shape or ()
        key = functools.reduce(jax.random.fold_in, gradients.number, part.shared)
        return projected(gradients.form, key, count, self._first, gradients.leaf.shape) / count**0.5

    @property
    def _first(self) -> int | None:
        return None if self.per_layer is None else self.per_layer[0]

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        if self.per_layer is not None:
            return found
        if not found:
            self._require_at_most(self.k or 0, 0, "the parameters have")
        return jnp.concatenate([found[path] for path in batch.paths if path in found], axis=1)


def apportioned(k: int, sizes: list[int]) -> list[int]:
    """k split in proportion to `sizes`, by the largest remainders.

    Example:
        >>> apportioned(5, [60, 30, 10])
        [3, 2, 0]
    """
    total = max(sum(sizes), 1)
    counts = [k * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(k * sizes[i] % total))
    for i in by_remainder[: k - sum(counts)]:
        counts[i] += 1
    return counts


def sides(count: int, rows: int, columns: int, first: int | None = None) -> tuple[int, int]:
    """(k1, k2) with k1 k2 >= count, k1 <= rows and k2 <= columns; k1 near `first`, by default near sqrt(count)."""
    k1 = min(first or math.isqrt(count), rows, count)
    k2 = min(math.ceil(count / k1), columns)
    return math.ceil(count / k2), k2


@functools.singledispatch
def projected(form: Form, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    """The first `count` entries of P_in' g_i P_out, (N, count), without the factor."""
    raise TypeError(f"per_example: expected a form of a gradient, got {type(form).__name__}.")


@projected.register
def _(form: Outer, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    groups, d, p = form.block
    left, right = _pair(key, (groups, d), (p,), sides(count, groups * d, p, first), form.dtype)
    seen = exact_einsum("ntgd,gdu->ntgu", form.a, left)
    errors = exact_einsum("ntgp,pv->ntgv", form.delta, right)
    return _flat(exact_einsum("ntgu,ntgv->nuv", seen, errors), count)


@projected.register
def _(form: Chunked, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    return form.sum(lambda c: projected(form.at(c), jax.random.fold_in(key, c), count, first, shape))


@projected.register
def _(form: Sparse, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    width = form.values.shape[-1]
    left, right = _pair(key, (form.rows,), (width,), sides(count, form.rows, width, first), form.values.dtype)
    seen = left.at[form.indices].get(mode="fill", fill_value=0)
    errors = exact_einsum("ntp,pv->ntv", form.values, right)
    return _flat(exact_einsum("ntu,ntv->nuv", seen, errors), count)


@projected.register
def _(form: Tied, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    # Both are of the table (rows, D), so the same key gives the same matrices.
    return projected(form.sparse, key, count, first, shape) + projected(form.outer, key, count, first, shape)


@projected.register
def _(form: Mixed, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    return projected(Explicit(explicit(form)), key, count, first, shape)


@projected.register
def _(form: Explicit, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    columns = shape[-1] if shape else 1
    grads = form.grads.reshape(form.grads.shape[0], -1, columns)
    numbers = sides(count, grads.shape[1], columns, first)
    left, right = _pair(key, (grads.shape[1],), (columns,), numbers, grads.dtype)
    return _flat(exact_einsum("nuc,cv->nuv", exact_einsum("nrc,ru->nuc", grads, left), right), count)


@projected.register
def _(form: Pieces, key: Key, count: int, first: int | None, shape: Shape) -> Array:
    keys = (jax.random.fold_in(key, i) for i in range(len(form.parts)))
    pieces = zip(form.parts, keys, form.views, strict=True)
    # A piece with fewer entries than numbers: its matrices have linearly dependent columns, which is no harm.
    return functools.reduce(jnp.add, [projected(part, k, count, first, view.shape) for part, k, view in pieces])


def _pair(key: Key, rows: Shape, columns: Shape, numbers: tuple[int, int], dtype: DType) -> tuple[Array, Array]:
    """P_in (*rows, k1) and P_out (*columns, k2), with columns p of mean 0, E p p' = I."""
    left, right = jax.random.split(key)
    return _side(left, rows, numbers[0], dtype), _side(right, columns, numbers[1], dtype)


def _side(key: Key, rows: Shape, columns: int, dtype: DType) -> Array:
    """Independent standard normal entries; with as many columns as rows sqrt(k) I, in random order and with signs."""
    if columns != math.prod(rows):
        return jax.random.normal(key, (*rows, columns), dtype)
    # No error from this side. The order, since of k1 k2 numbers the last may be left out: no entry is favoured. The
    # signs, since matrices of several parameters are added up: products of two of them have expectation 0.
    order, signs = jax.random.split(key)
    entries = jnp.eye(columns, dtype=dtype)[jax.random.permutation(order, columns)]
    signed = entries * jax.random.rademacher(signs, (columns, 1), dtype)
    return (math.sqrt(columns) * signed).reshape(*rows, columns)


def _flat(x: Array, count: int) -> Array:
    return x.reshape(x.shape[0], -1)[:, :count]

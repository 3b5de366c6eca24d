"""Moments of one form of gradients that are computed together."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxnn.losses.logits import put
from jaxnn.numerics import EXACT, OF_HALF, Precision
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.clip import Clip
from jaxnn.per_example.forms import Form
from jaxnn.per_example.measures import sq_norm, squares
from jaxnn.per_example.outer import Outer, Pairs
from jaxnn.per_example.streaming.dense import SQ_NORMS, SQUARES, TOTAL, Moments, by_platform, weights_of
from jaxnn.per_example.tied import Tied
from jaxnn.tape import Lookup, Product, Use, errors, wide_total
from jaxnn.types import Array


def flat_total(
    uses: tuple[Use, ...], leaf: jax.ShapeDtypeStruct, weights: Array | None, *, precision: Precision
) -> Array:
    """sum_i c_i g_i of all uses, (P,), for weights c (N,) or None."""
    # Half precision times float32 factors would be rounded at the ambient one.
    half = weights is not None and any(errors(use).dtype in OF_HALF for use in uses)
    return wide_total(uses, leaf, weights, EXACT if half else precision).reshape(-1)


def moments(
    form: Form, wanted: frozenset[str], factors: Array | Clip | None, total: Callable[[Array | None], Array]
) -> Moments:
    """The wanted moments, from gradients that are formed once for all of them where that is cheaper.

    `total` makes the sum (P,) from factors (N,) or None.
    """

    def factored(form: Form, given: Array | None) -> Moments:
        found = {SQ_NORMS: sq_norm(form)} if SQ_NORMS in wanted else {}
        if SQUARES in wanted:
            found[SQUARES] = squares(form)
        if TOTAL in wanted:
            found[TOTAL] = total(weights_of(factors if callable(factors) else given, found.get(SQ_NORMS)))
        return found

    if len(wanted) > 1 and isinstance(form, Outer) and form.times > 1:
        return by_platform(form, wanted, factors, factored)
    return factored(form, None if callable(factors) else factors)


def moments_by_chunks(
    form: Chunked, wanted: frozenset[str], factors: Array | Clip | None, precision: Precision
) -> Moments:
    """The same of an output layer, in one loop over the chunks; in two if the factors are a function of the norms."""
    use, logits, axis = form.use, form.use.logits, form.use.class_axis
    if callable(factors):
        factors = weights_of(factors, form.sum(lambda c: sq_norm(form.at(c))))
    weights, leaf = factors, jax.ShapeDtypeStruct(use.chunk_shape, form.dtype)

    def add(sums: Moments, c: Array) -> tuple[Moments, None]:
        part = form.at(c)

        def total(weights: Array | None) -> Array:
            return flat_total(_uses_of(part), leaf, weights, precision=precision)

        found = moments(part, wanted, weights, total)
        entries = {name: put(logits, sums[name], found[name].reshape(leaf.shape), c, axis) for name in wanted - ROWS}
        return {name: sums[name] + found[name] for name in wanted & ROWS} | entries, None

    start = {name: logits.zeros((form.examples,) if name in ROWS else use.shape) for name in sorted(wanted)}
    sums, _ = logits.scan(add, start)
    return {name: x if name in ROWS else x.reshape(-1) for name, x in sums.items()}


ROWS = frozenset({SQ_NORMS})
"""The moments of each example; the others are of the parameter's entries."""


def _uses_of(form: Pairs | Tied) -> tuple[Use, ...]:
    """The uses that make a form of one chunk."""
    if isinstance(form, Tied):
        return (Lookup(form.sparse.indices, form.sparse.values, form.sparse.rows), *_uses_of_outer(form.outer))
    return _uses_of_outer(form)


def _uses_of_outer(form: Outer) -> tuple[Use, ...]:
    return (Product(form.a[:, :, 0], form.delta[:, :, 0]),)

"""Per-example gradient norms."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype, safe_sqrt
from jaxnn.per_example.forms import forms, settled
from jaxnn.per_example.measures import sq_norm
from jaxnn.per_example.placing import ROWS, returns
from jaxnn.per_example.select import layers_of, require_independent, select
from jaxnn.tape import Tape
from jaxnn.types import Array


@returns(ROWS)
def sq_norms(tape: Tape, layer: str | Sequence[str] | None = None) -> Array:
    """|g_i|^2, (N,), over all parameters or those of some layers.

    T = 1:  |a_i|^2 |delta_i|^2 for a weight matrix, |delta_i|^2 for its bias: together (|a_i|^2 + 1) |delta_i|^2
    T > 1:  <a_i a_i', delta_i delta_i'> where that costs less than forming a_i' delta_i (see `plan`)

    a_i (T, D_in) is the input of the weight matrix, delta_i (T, D_out) the cotangent of its output. Products run at the
    highest precision. A table that is looked up at rows v_it, with cotangents y_it, and multiplied by h_is, with
    cotangents u_is, such as an embedding tied to the output matrix, has the squared norms of both uses and their
    product, where this costs less than forming the table's gradient (e(v) is the unit row v):

    tied:   |sum_t e(v_it)' y_it|^2 + |sum_s u_is' h_is|^2 + 2 sum_st u_is[v_it] (h_is . y_it)

    The second and third form lose digits where contributions cancel: with |g_i|^2 at 1e-4 of the terms, a float32
    result has relative error 1e-3. It is never negative.

    Args:
        tape: of N examples, from `record`.
        layer: a prefix of the parameters' paths, such as "[0]", or several; None for all.

    Raises:
        ValueError: no path has this prefix.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4 (T = 1). Li, X., Tramer,
        F., Liang, P. & Hashimoto, T. (2022). Large language models can be strong differentially private learners,
        section 4 (T > 1).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> sq_norms(sample_tape())  # w: 5 and 36, b: 1 and 4
        Array([ 6., 40.], dtype=float32)
    """
    return _sum(tape, list(sq_norms_by_parameter(tape if layer is None else select(tape, layer)).values()))


@returns(ROWS)
def norms(tape: Tape, layer: str | Sequence[str] | None = None) -> Array:
    """|g_i| = sqrt(`sq_norms`), (N,), with derivative 0 at 0.

    Args:
        tape, layer: as for `sq_norms`.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> norms(sample_tape(), "['w']")[1]
        Array(6., dtype=float32)
    """
    return safe_sqrt(sq_norms(tape, layer))


@returns(ROWS)
def sq_norms_by_parameter(tape: Tape) -> dict[str, Array]:
    """|g_i|^2 by parameter: {path: (N,)}, float32 or float64.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> sq_norms_by_parameter(sample_tape())["['b']"]
        Array([1., 4.], dtype=float32)
    """
    require_independent("sq_norms", tape)
    return {path: sq_norm(settled(form)) for path, form in zip(tape.paths, forms(tape), strict=True)}


@returns(ROWS)
def sq_norms_by_layer(tape: Tape) -> dict[str, Array]:
    """|g_i|^2 by layer: {path: (N,)}, float32 or float64.

    A layer holds the parameters whose paths differ in the last key only (weight and bias); its path is their common
    prefix, such as "[0]" ("" for the top).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> sq_norms_by_layer(sample_tape())
        {'': Array([ 6., 40.], dtype=float32)}
    """
    found: dict[str, list[Array]] = {}
    by_parameter = sq_norms_by_parameter(tape)  # first, for its check that this is a tape
    for place, values in zip(layers_of(tape.paths), by_parameter.values(), strict=True):
        found.setdefault(place, []).append(values)
    return {place: _sum(tape, values) for place, values in found.items()}


def _sum(tape: Tape, values: list[Array]) -> Array:
    """The sum of (N,) arrays; zeros without parameters."""
    if not values:
        return jnp.zeros(tape.examples, accumulation_dtype(tape.losses.dtype))
    return functools.reduce(jnp.add, values)
